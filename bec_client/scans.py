"""The scans that the scan server offers, as functions: `scans.line_scan(dev.samx, -1, 1, steps=11)`.

Built from the published catalogue: signature, documentation, completion and the check of a call need no code of
the scan here. A call that does not fit is refused before it is sent, with everything that is wrong with it.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bec_client.callbacks import functions_of
from bec_client.report import ScanReport
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import ParameterError, ReasonCode, RequestRejected, ServiceDown
from bec_lib.messages import AvailableScansMessage, ScanInfo, ScanQueueMessage
from bec_lib.scans.signature import did_you_mean, help_text, problems_of_call, signature_of, split_keywords

if TYPE_CHECKING:
    from bec_client.client import BECClient
    from bec_client.export import ScanExport
    from bec_client.plan import Plan

SAMPLE = "sample_name"  # a global variable that goes into the metadata of every scan

# What earlier versions of BEC had, and what does that here.
_GONE = {
    "scan_def": "several scans as one are a scan of your own (docs/scans.md), or one dataset: "
    "`with scans.dataset_id_on_hold:`",
    "scan_group": "scans that are submitted one after the other run in that order; to keep others out meanwhile, "
    "use bec.queue.add_queue_lock(reason), to keep them together, `with scans.dataset_id_on_hold:`",
    "interactive_scan": "a scan that decides as it goes is a scan of your own (docs/scans.md)",
    "close_scan_def": "there is nothing to close",
    "close_scan_group": "there is nothing to close",
}
FRESH_S = 10.0  # a catalogue older than this is looked up again


def plain_argument(value: Any) -> Any:
    """An argument as it travels: devices and signals by name, numpy numbers as Python's."""
    name = getattr(value, "dotted_name", None)
    if isinstance(name, str):
        return name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain_argument(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_argument(item) for item in value]
    if isinstance(value, range):
        return list(value)
    return value


class UnknownScan(RequestRejected, AttributeError):
    """No scan of that name; also an AttributeError, so that hasattr and completion work."""


class Scans:
    """All scans by name. `scans.<TAB>` lists them, `scans.line_scan?` explains one."""

    def __init__(self, client: BECClient):
        self._client = client
        self._infos: dict[str, ScanInfo] = {}
        self._functions: dict[str, Callable[..., ScanReport]] = {}
        self._checked = -FRESH_S
        self._hidden = 0
        self._dataset: int | None = None
        self.exports: list[ScanExport] = []  # that are open, innermost last

    # Looking up

    def info(self, name: str) -> ScanInfo:
        """The published description of a scan. Raises RequestRejected if there is none, naming the nearest."""
        catalogue = self._catalogue()
        if name not in catalogue:
            catalogue = self._catalogue(force=True)
        if name not in catalogue:
            if not catalogue:
                raise ServiceDown(self._client.service_status.sentence(["scan_server"], f"the scan {name!r}"))
            known = ", ".join(sorted(catalogue))
            raise RequestRejected(
                f"there is no scan called {name!r}.{did_you_mean(name, catalogue)} Available: {known}.",
                code=ReasonCode.UNKNOWN_SCAN,
            )
        return catalogue[name]

    def names(self) -> list[str]:
        return sorted(self._catalogue())

    def __getattr__(self, name: str) -> Callable[..., ScanReport]:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            info = self.info(name)
        except RequestRejected as error:
            gone = f"there is no scans.{name}: {_GONE[name]}" if name in _GONE else error.message
            raise UnknownScan(gone, code=ReasonCode.UNKNOWN_SCAN) from None
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = _function(self, info)
        return function

    def __getitem__(self, name: str) -> Callable[..., ScanReport]:
        self.info(name)
        return self.__getattr__(name)

    def __contains__(self, name: object) -> bool:
        return name in self._catalogue()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __dir__(self) -> list[str]:
        own = ["dataset_id_on_hold", "hide_report", "info", "names", "plan", "reload", "scan_export"]
        return [*self.names(), *own]

    def __repr__(self) -> str:
        from bec_client.tables import as_text, scan_table

        return as_text(scan_table(self._catalogue()))

    def reload(self) -> None:
        """Look the catalogue up now."""
        self._catalogue(force=True)

    @property
    @contextlib.contextmanager
    def hide_report(self) -> Iterator[None]:
        """`with scans.hide_report:` runs scans without showing them and without waiting for them."""
        self._hidden += 1
        try:
            yield
        finally:
            self._hidden -= 1

    @property
    @contextlib.contextmanager
    def dataset_id_on_hold(self) -> Iterator[int]:
        """`with scans.dataset_id_on_hold as number:` counts the scans of the block as one dataset: its number is in the
        metadata of each. A block within a block belongs to the outer one.
        """
        if self._dataset is not None:
            yield self._dataset
            return
        self._dataset = self._client.queue.take_dataset_number()
        try:
            yield self._dataset
        finally:
            self._dataset = None

    def scan_export(self, output_file: str | Path) -> ScanExport:
        """`with scans.scan_export("f.csv"):` writes the points of all scans of the block to a CSV file when it ends."""
        from bec_client.export import ScanExport

        return ScanExport(self._client, output_file)

    # Running

    def run(
        self,
        name: str,
        *args: Any,
        hide_report: bool = False,
        callback: Any = None,
        async_callback: Any = None,
        **kwargs: Any,
    ) -> ScanReport:
        """Run a scan by name. hide_report: return at once, with nothing shown; else its table is shown and the call
        returns when it has ended.

        callback, async_callback: a function or several, called for each point with its content and what is known of the
        scan (see `bec.callbacks`): by the thread that shows the scan or waits for it, or by a thread of its own.

        Raises ParameterError with all that is wrong with the call, RequestRejected if the scan server refuses it,
        ServiceDown if a service that it needs is not running.
        """
        first = functions_of("callback", callback)
        later = functions_of("async_callback", async_callback)
        report = self.submit(name, args, kwargs)
        if report.scan is not None and (first or later):
            report.call_for_points(first, later)
        for export in self.exports:
            export.add(report)
        if hide_report or self._hidden or not self._client.live_updates.enabled:
            return report
        if name == "mv":
            return report  # by BEC's definition it returns at once; umv waits
        self._client.live_updates.show(report)
        return report

    def plan(self, name: str, *args: Any, **kwargs: Any) -> Plan:
        """What a scan would do, worked out by the scan server as if it were to run it; nothing is touched. Printed, the
        result is a panel with a picture.

        Raises ParameterError, LimitError and RequestRejected as `run` does.
        """
        from bec_client.plan import plan_from

        report = self.submit(name, args, kwargs, dry_run=True)
        return plan_from(report.answer_result, call_text(name, report.request.args, report.request.kwargs))

    def submit(self, name: str, args: Any, kwargs: Mapping[str, Any], *, dry_run: bool = False) -> ScanReport:
        """Check a call, send it, and return when the scan server has accepted it. dry_run: it answers with a plan, and the
        device servers need not run.
        """
        info = self.info(name)
        own, common = split_keywords(kwargs)
        plain_args = [plain_argument(value) for value in args]
        plain_kwargs = {key: plain_argument(value) for key, value in own.items()}
        client = self._client
        problems = problems_of_call(info, plain_args, plain_kwargs, client.session.names())
        if problems:
            raise ParameterError(problems[0] if len(problems) == 1 else _listed(name, problems))
        needed = [] if dry_run else client.session.server_roles()
        client.service_status.require(["scan_server", *needed], name)
        ticket = client.connection.ticket(name)
        metadata = self.metadata(common.get("metadata"), with_sample=not dry_run)
        request = ScanQueueMessage(
            request_id=ticket.request_id,
            client_id=client.client_id,
            scan_type=name,
            args=plain_args,
            kwargs=plain_kwargs,
            queue=common.get("scan_queue", client.queue.default_queue),
            metadata=metadata,
            monitored=_as_list(common.get("monitored")),
            on_request=_as_list(common.get("on_request")),
            file_suffix=common.get("file_suffix", client.system_config.file_suffix),
            file_directory=common.get("file_directory", client.system_config.file_directory),
            dry_run=dry_run,
        )
        report = ScanReport(client, request, ticket, info.is_scan)
        client.connection.send(client.connection.queue_requests, request)
        report.accepted()
        if info.is_scan and not dry_run:
            client.last_report = report
        return report

    def metadata(self, given: Any = None, *, with_sample: bool = True) -> dict[str, Any]:
        """What a scan of this client has as metadata: that of the client, that which was given with it, the global
        variable `sample_name`, and the number of the dataset that is on hold.
        """
        if given is not None and not isinstance(given, Mapping):
            raise ParameterError(f"metadata is a dict, such as {{'sample': 'gold'}}, not {given!r}")
        found = {**self._client.metadata, **plain_argument(given or {})}
        if with_sample and SAMPLE not in found:
            sample = self._client.get_global_var(SAMPLE)
            if sample is not None:
                found[SAMPLE] = sample
        if self._dataset is not None:
            found.setdefault("dataset_number", self._dataset)
        return found

    def _catalogue(self, force: bool = False) -> dict[str, ScanInfo]:
        now = time.monotonic()
        if not force and self._infos and now - self._checked < FRESH_S:
            return self._infos
        found = self._client.broker.get(Endpoints.available_scans)
        self._checked = now
        if found is not None:
            message: AvailableScansMessage = found.message
            if message.scans != self._infos:
                self._infos = message.scans
                self._functions.clear()
        return self._infos


def _as_list(devices: Any) -> list[Any]:
    """Names of devices; one need not stand in a list."""
    plain = plain_argument(devices or [])
    return plain if isinstance(plain, list) else [plain]


def call_text(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """A call as it is typed: `line_scan(samx, -1, 1, steps=11)`."""
    parts = [str(value) for value in args] + [f"{key}={value!r}" for key, value in kwargs.items()]
    return f"{name}({', '.join(parts)})"


def _listed(name: str, problems: list[str]) -> str:
    return f"{name} cannot run, {len(problems)} problems:\n" + "\n".join(f"  - {text}" for text in problems)


def _function(scans: Scans, info: ScanInfo) -> Callable[..., ScanReport]:
    import inspect

    def scan(*args: Any, **kwargs: Any) -> ScanReport:
        return scans.run(info.name, *args, **kwargs)

    def plan(*args: Any, **kwargs: Any) -> Plan:
        return scans.plan(info.name, *args, **kwargs)

    signature = signature_of(info)
    plan.__name__, plan.__qualname__ = "plan", f"{info.name}.plan"
    plan.__doc__ = f"What {info.name} would do with these arguments; nothing is touched."
    plan.__signature__ = signature  # type: ignore[attr-defined]
    scan.plan = plan  # type: ignore[attr-defined]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in (("hide_report", False), ("callback", None), ("async_callback", None))
    ]
    scan.__name__ = scan.__qualname__ = info.name
    scan.__doc__ = help_text(info)
    scan.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    return scan


class Metadata(contextlib.ContextDecorator):
    """`with Metadata({"sample": "gold"}):` adds to the metadata of all scans of the block. client: the one that was
    started last, if none is given.
    """

    def __init__(self, metadata: Mapping[str, Any], client: BECClient | None = None):
        if not isinstance(metadata, Mapping):
            raise ParameterError(f"Metadata takes a dict, such as {{'sample': 'gold'}}, not {metadata!r}")
        self._client = client or current_client()
        self._metadata = dict(metadata)
        self._before: list[dict[str, Any]] = []

    def __enter__(self) -> Metadata:
        self._before.append(dict(self._client.metadata))
        self._client.metadata.update(self._metadata)
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.metadata.clear()
        self._client.metadata.update(self._before.pop())


class FileWriter(contextlib.ContextDecorator):
    """`with FileWriter(file_suffix="test", file_directory="trials"):` names the files of all scans of the block."""

    def __init__(
        self,
        file_suffix: str | None = None,
        file_directory: str | None = None,
        client: BECClient | None = None,
    ):
        self._config = (client or current_client()).system_config
        self._wanted = (file_suffix or "", file_directory or "")
        self._before: list[tuple[str, str]] = []

    def __enter__(self) -> FileWriter:
        config = self._config
        self._before.append((config.file_suffix, config.file_directory))
        config.file_suffix, config.file_directory = self._wanted
        return self

    def __exit__(self, *exc: object) -> None:
        self._config.file_suffix, self._config.file_directory = self._before.pop()


_current: list[weakref.ref[BECClient]] = []


def set_current_client(client: BECClient) -> None:
    _current[:] = [weakref.ref(client)]


def current_client() -> BECClient:
    """The client of this process that was started last. Raises ParameterError if there is none."""
    client = _current[0]() if _current else None
    if client is None:
        raise ParameterError("no client is started in this process; give one as client=")
    return client
