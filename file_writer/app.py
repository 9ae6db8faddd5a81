"""The file writer's wiring: streams of open scans into files.

State, all owned by the main thread: the open scans, each with its `Session` and its file. A file that is
being completed belongs to the worker thread, which does what may take long (copying, syncing) so that the
heartbeat goes on. What must survive is in the streams: a restarted writer makes the files of open scans
again, from the beginning.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from bec_lib import crash_points
from bec_lib.broker import Batch, Delivery, Malformed
from bec_lib.endpoints import HOUR, Endpoint, MessageEndpoints, all_endpoints
from bec_lib.errors import BECError, ParameterError, StorageError
from bec_lib.file_paths import file_target, master_path
from bec_lib.ids import entry_order, just_before
from bec_lib.messages import (
    FileMessage,
    FileRequestMessage,
    PointsMessage,
    ScanHistoryMessage,
    ScanState,
    ScanStatusMessage,
    SealMessage,
    ServiceState,
    Severity,
)
from bec_lib.plugins import FILE_FORMATS, load_plugins
from bec_lib.service import Event, Service
from file_writer import hdf5
from file_writer import session as machine
from file_writer.formats.nexus import NexusFormat
from file_writer.layout import (
    Column,
    EndFacts,
    Facility,
    Field,
    FileFormat,
    Group,
    ScanFacts,
    Source,
    Value,
    walk,
)
from file_writer.paths import alternatives, leftover_pattern, temporary_path, with_final_names
from file_writer.rows import row_arrays
from file_writer.session import Session, Step

log = logging.getLogger(__name__)

SCAN_ID_FIELD = "/entry/entry_identifier_uuid"
# A small file is complete before the turn ends; a large one, or a slow disk, is looked after in later turns.
WAIT_FOR_WORKER_S = 0.05
LOOK_AGAIN_S = 0.05
# A file with at least so many growing fields is worth a template for its final form; while the scan runs, up to
# so many bytes of its rows are kept for it.
WIDE = 64
KEPT_BYTES = 8 * 1024 * 1024
# So many files are looked after when the writer starts: more cannot have been announced in one moment.
LATEST_FILES = 20
# What completing a file may take before the supervisor is entitled to doubt.
LONG_CALL_S = 600.0
# The bundler seals a scan within milliseconds of its end.
SEAL_PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True)
class _Finished:
    """A file that is final. moved: its path is not the one that was wanted."""

    path: Path
    size: int
    moved: bool


@dataclass(slots=True)
class _Job:
    """All that the worker needs to complete a file; nothing of it is used by the main thread meanwhile.

    rows: those not yet in the live file. earlier: those that are, if the file may be written in one go.
    baseline_filled: the live file has it.
    """

    live: hdf5.LiveFile
    rows: list[np.ndarray]
    earlier: list[list[np.ndarray]] | None
    root: Group
    baseline: dict[Column, Any]
    baseline_filled: bool
    closing: Mapping[str, Value]
    published: Path | None
    wanted: Path
    mark: str
    scan_id: str


@dataclass(slots=True)
class _File:
    """A scan whose file is not final. opened_id: of its first status entry, empty if it is not read again after a restart.
    published: where it can be read.

    earlier: rows in the live file, if they are kept. order, job: what the worker was told, and its answer.
    seal_due: when the seal is missed. look_at: when to see whether the worker is done.
    """

    session: Session
    opened_id: str
    endpoints: tuple[Endpoint, ...]
    live: hdf5.LiveFile | None = None
    root: Group | None = None
    facts: ScanFacts | None = None
    format: FileFormat | None = None
    wanted: Path | None = None
    published: Path | None = None
    baseline_filled: bool = False
    earlier: list[list[np.ndarray]] | None = None
    order: _Job | None = None
    job: Future[_Finished] | None = None
    complained_of: set[int] = field(default_factory=set)
    reported_failure: bool = False
    seal_due: float | None = None
    look_at: float | None = None

    @property
    def name(self) -> str:
        return f"scan {self.session.status.scan_number}"


class WriterApp:
    """One turn: take what arrived, then for each scan do what its session says is next."""

    def __init__(self, service: Service):
        self._service = service
        self._broker = service.broker
        self._inbox = service.inbox
        self._clock = service.clock
        self._config = service.config.file_writer
        self._files: dict[str, _File] = {}
        # As it was said last.
        self._trouble = ""
        self._by_key: dict[str, _File] = {}
        self._status_id = "0"
        self._committed = "0"
        self._attempts = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="completing")
        self._is_busy = False
        self._format = _load_format(service)
        self._templates = hdf5.Templates()
        self._whole_files = hdf5.WholeFiles()  # the worker's
        facility = service.config.facility
        self._facility = Facility(
            facility.instrument, facility.source.name, facility.source.type, facility.source.probe
        )

    # The frame's calls

    def start(self) -> None:
        endpoint = MessageEndpoints.scan_status
        self._status_id = self._committed = self._service.cursors().get(endpoint.key, "0")
        finished = self._finished_since(self._status_id)
        while found := self._broker.read({endpoint: self._status_id}):
            for item in found:
                if not isinstance(item, Delivery) or item.message.scan_id not in finished:
                    self._take_status(item)
                self._status_id = item.entry_id
        self._inbox.follow(endpoint, self._status_id)
        requests = MessageEndpoints.file_request
        self._inbox.follow(requests, self._broker.last_id(requests))
        self._remove_leftovers()

    def handle(self, events: list[Event]) -> None:
        now = self._clock.monotonic()
        touched: dict[int, _File] = {}
        for event in events:
            if event.endpoint.key == MessageEndpoints.scan_status.key:
                self._take_status(event)
                continue
            if event.endpoint.key == MessageEndpoints.file_request.key:
                self._take_request(event)
                continue
            file = self._by_key.get(event.endpoint.key)
            if file is None:
                continue
            if isinstance(event, Malformed):
                log.warning(
                    "an entry of %s of %s was left out: %s", event.endpoint.key, file.name, event.error
                )
                continue
            file.session = machine.take(file.session, event.message, now, self._config.flush_s)
            if file.session.seal is not None:
                file.seal_due = None
            touched[id(file)] = file
        for file in touched.values():
            self._advance(file)
        self._say_how_it_is()

    def deadline(self) -> float | None:
        dues = [file.session.due() for file in self._files.values()]
        dues += [file.seal_due for file in self._files.values()]
        dues += [file.look_at for file in self._files.values() if file.job is not None]
        return min((due for due in dues if due is not None), default=None)

    def on_deadline(self) -> None:
        now = self._clock.monotonic()
        for file in list(self._files.values()):
            if file.job is not None:
                self._look_after(file, 0.0)
            self._advance(file)
            if file.seal_due is not None and now >= file.seal_due:
                file.seal_due = None
                self._service.alarm(
                    Severity.MINOR,
                    f"{file.name} is over, but the scan bundler has not closed its data for "
                    f"{SEAL_PATIENCE_S:g} s. Its file is complete as soon as the bundler is back; "
                    "`bec-server status` shows whether it runs.",
                    scan_id=file.session.status.scan_id,
                )
        self._say_how_it_is()

    def _say_how_it_is(self) -> None:
        """In the status, as long as a file cannot be written."""
        troubled = [file for file in self._files.values() if machine.is_in_trouble(file.session)]
        trouble = ""
        if troubled:
            more = f" (and {len(troubled) - 1} more)" if len(troubled) > 1 else ""
            trouble = f"the file of {troubled[0].name}{more} cannot be written: {troubled[0].session.error}"
        if trouble != self._trouble:
            self._trouble = trouble
            self._service.set_status(ServiceState.ERROR if trouble else ServiceState.RUNNING, trouble)

    def stop(self) -> None:
        for file in list(self._files.values()):
            if file.job is not None:
                self._look_after(file, None)
        self._worker.shutdown(wait=True)
        for file in self._files.values():
            # It is made again when the writer is back; until then anybody can open what there is.
            if file.live is not None:
                try:
                    file.live.close()
                except StorageError as error:
                    log.warning("%s", error)

    # What arrives

    def _take_status(self, event: Delivery | Malformed) -> None:
        self._status_id = event.entry_id
        if isinstance(event, Malformed):
            log.warning("a scan status was left out: %s", event.error)
            return
        message: ScanStatusMessage = event.message
        file = self._files.get(message.scan_id)
        if file is None:
            if message.status.is_terminal and self._is_over(message.scan_id):
                return
            file = self._open(message, event.entry_id)
        now = self._clock.monotonic()
        file.session = machine.take(file.session, message, now, self._config.flush_s)
        if message.status.is_terminal and file.session.seal is None:
            file.seal_due = now + SEAL_PATIENCE_S

    def _take_request(self, event: Delivery | Malformed) -> None:
        """Somebody wants the file of a scan that is over. Who asks has seen to it that its streams are there."""
        if isinstance(event, Malformed):
            log.warning("a request for a file was left out: %s", event.error)
            return
        message: FileRequestMessage = event.message
        file = self._files.get(message.scan_id)
        if file is not None:
            file.session = machine.wanted(file.session, self._clock.monotonic())
            file.reported_failure = False
            self._advance(file)
            return
        statuses = [
            item.message
            for entry in message.entries[:2]
            for item in self._broker.entries(MessageEndpoints.scan_status, first=entry, last=entry)
            if isinstance(item, Delivery) and item.message.scan_id == message.scan_id
        ]
        if not statuses or not statuses[-1].status.is_terminal:
            log.warning("the file of scan %s is wanted, and there is no record of its end", message.scan_id)
            return
        last = self._broker.entries(MessageEndpoints.scan_points(message.scan_id), newest=True, count=1)
        if not any(isinstance(item, Delivery) and isinstance(item.message, SealMessage) for item in last):
            log.warning("the file of scan %s is wanted, and its points are not in Redis", message.scan_id)
            return
        file = self._open(statuses[0], "")
        file.session = machine.take(file.session, statuses[-1], self._clock.monotonic(), self._config.flush_s)

    def _open(self, status: ScanStatusMessage, entry_id: str) -> _File:
        scan_id = status.scan_id
        # In this order: of what is read at once, the schema comes first and the points last.
        endpoints = (
            MessageEndpoints.scan_schema(scan_id),
            MessageEndpoints.scan_baseline(scan_id),
            MessageEndpoints.scan_points(scan_id),
        )
        file = self._files[scan_id] = _File(Session(status), entry_id, endpoints)
        self._follow(file)
        return file

    def _follow(self, file: _File) -> None:
        for endpoint in file.endpoints:
            self._by_key[endpoint.key] = file
            self._inbox.follow(endpoint, "0")

    def _forget(self, file: _File) -> None:
        for endpoint in file.endpoints:
            self._by_key.pop(endpoint.key, None)
        self._inbox.forget(*file.endpoints)
        self._files.pop(file.session.status.scan_id, None)

    def _finished_since(self, entry_id: str) -> set[str]:
        """Scans whose file was final, or given up, among those that opened after a status entry."""
        first = str(entry_order(entry_id)[0])
        return {
            item.message.scan_id
            for item in self._broker.entries(MessageEndpoints.file_event, first=first)
            if isinstance(item, Delivery)
            and item.message.done
            and item.message.is_master_file
            and (item.message.successful or item.message.metadata.get("given_up"))
        }

    def _remove_leftovers(self) -> None:
        """Of a predecessor that was killed after it had announced a file, and before it had tidied up behind it."""
        latest = self._broker.entries(MessageEndpoints.file_event, newest=True, count=LATEST_FILES)
        for item in latest:
            if not isinstance(item, Delivery) or not item.message.done:
                continue
            path = Path(item.message.file_path)
            for leftover in path.parent.glob(leftover_pattern(path)):
                leftover.unlink(missing_ok=True)

    def _is_over(self, scan_id: str) -> bool:
        """A scan whose end is all that is seen of it: was it dealt with before?"""
        found = self._broker.entries(MessageEndpoints.file_event, newest=True, count=1000)
        return any(isinstance(item, Delivery) and item.message.scan_id == scan_id for item in found)

    # What is to be done

    def _advance(self, file: _File) -> None:
        """Take steps until there is nothing to do but wait."""
        while True:
            now = self._clock.monotonic()
            if machine.is_hopeless(file.session, now):
                self._give_up(file)
                return
            step = machine.next_step(file.session, now)
            if step is None:
                return
            try:
                self._take_step(file, step)
            except (StorageError, ParameterError) as error:
                self._fail(file, str(error))
                return
            except BECError:
                raise
            except Exception as error:  # noqa: BLE001 - a scan that nobody foresaw must not cost others theirs
                self._fail_unforeseen(file, error)
                return
            file.session = machine.done(file.session, step, self._clock.monotonic())
            if step is Step.FINISH:
                self._look_after(file, WAIT_FOR_WORKER_S)
                return
            if step is Step.START_OVER:
                return

    def _take_step(self, file: _File, step: Step) -> None:
        match step:
            case Step.MAKE:
                self._make(file)
            case Step.PUBLISH:
                self._publish(file)
            case Step.WRITE:
                assert file.live is not None
                rows = self._rows(file)
                file.live.append(rows)
                file.live.flush()
                _keep(file, rows)
            case Step.FINISH:
                file.order = self._job(file)
                file.job = self._worker.submit(_complete, file.order, self._whole_files)
                file.live = None
            case Step.START_OVER:
                self._discard(file)
                self._follow(file)

    def _make(self, file: _File) -> None:
        status, schema = file.session.status, file.session.schema
        file.wanted = self._path_of(status)
        hdf5.make_folder(file.wanted.parent)
        for leftover in file.wanted.parent.glob(leftover_pattern(file.wanted)):
            leftover.unlink(missing_ok=True)
        zone = datetime.fromtimestamp(status.started).astimezone().tzinfo
        assert zone is not None
        file.facts = ScanFacts(status, schema, self._facility, zone, str(file.wanted))
        file.format, file.root = self._laid_out(file.facts)
        self._attempts += 1
        file.live = hdf5.LiveFile(
            temporary_path(file.wanted, self._mark()),
            file.root,
            expected=status.num_points,
            compression=self._config.compression,
            templates=self._templates,
        )
        is_wide = len(file.live.columns) >= WIDE and self._config.compression == "none"
        file.earlier = [] if is_wide else None

    def _publish(self, file: _File) -> None:
        assert file.live is not None and file.wanted is not None
        status = file.session.status
        if file.session.baseline is not None:
            file.live.fill(_baseline_values(file.session))
            file.baseline_filled = True
        file.live.start()
        crash_points.reached("file_writer.before_publish")
        file.published = _placed(file.live.path, file.wanted, status.scan_id)
        crash_points.reached("file_writer.after_publish")
        if file.published != file.wanted:
            self._tell_moved(file, file.published)
        self._broker_batch().append(
            MessageEndpoints.file_event,
            FileMessage(
                scan_id=status.scan_id,
                file_path=str(file.published),
                done=False,
                scan_number=status.scan_number,
            ),
        ).commit()

    def _rows(self, file: _File) -> list[np.ndarray]:
        assert file.live is not None
        session = file.session
        if not session.rows:
            return []
        arrays, misfits = row_arrays(
            session.rows, file.live.columns, session.schemas or {1: session.schema}, session.status.started
        )
        self._tell_misfits(file, misfits, session.rows)
        return arrays

    def _job(self, file: _File) -> _Job:
        assert file.live is not None and file.root is not None and file.wanted is not None
        assert file.format is not None and file.facts is not None
        session, seal = file.session, file.session.seal
        assert seal is not None
        if session.received != seal.count:
            self._service.alarm(
                Severity.MAJOR,
                f"the data of {file.name} are sealed with {seal.count} points, but {session.received} were found; "
                "its file holds these.",
                scan_id=session.status.scan_id,
            )
        return _Job(
            live=file.live,
            rows=self._rows(file),
            earlier=file.earlier,
            root=file.root,
            baseline=_baseline_values(session),
            baseline_filled=file.baseline_filled,
            closing=file.format.closing(file.facts, session.end),
            published=file.published,
            wanted=file.wanted,
            mark=self._mark(),
            scan_id=session.status.scan_id,
        )

    def _look_after(self, file: _File, wait_s: float | None) -> None:
        """See whether the worker is done with a file, waiting at most so long (None: until it is)."""
        assert file.job is not None
        try:
            finished = file.job.result(wait_s)
        except FutureTimeout:
            file.look_at = self._clock.monotonic() + LOOK_AGAIN_S
            if not self._is_busy:
                self._is_busy = True
                self._service.begin_busy(f"completing the file of {file.name}", LONG_CALL_S)
            return
        except StorageError as error:
            self._fail(file, str(error))
        except BECError:
            raise
        except Exception as error:  # noqa: BLE001 - as in `_advance`
            self._fail_unforeseen(file, error)
        else:
            self._tell_finished(file, finished)
            assert file.order is not None
            self._worker.submit(_tidy_up, file.order, self._whole_files)
        file.job = file.order = None
        if self._is_busy and all(other.job is None for other in self._files.values()):
            self._is_busy = False
            self._service.end_busy()

    # What is said

    def _tell_finished(self, file: _File, finished: _Finished) -> None:
        file.session = machine.completed(file.session)
        status, end = file.session.status, file.session.end
        if finished.moved and file.published is None:
            self._tell_moved(file, finished.path)
        self._tell_over(
            file,
            FileMessage(
                scan_id=status.scan_id,
                file_path=str(finished.path),
                done=True,
                num_points=end.count,
                scan_number=status.scan_number,
                size_bytes=finished.size,
            ),
            _history(file.session, end, str(finished.path), ""),
        )

    def _tell_over(self, file: _File, message: FileMessage, history: ScanHistoryMessage | None) -> None:
        """The last word on a scan's file: its streams may go after a while."""
        self._forget(file)
        batch = self._broker_batch().append(MessageEndpoints.file_event, message)
        if history is not None:
            batch.append(MessageEndpoints.scan_history, history)
        _expire_streams(batch, message.scan_id)
        cursor = self._cursor()
        if cursor != self._committed:
            batch.cursor(self._service.name, MessageEndpoints.scan_status, cursor)
        batch.commit()
        self._committed = cursor

    def _fail(self, file: _File, error: str) -> None:
        """The file cannot be written now: say so, once for the scan while it runs and once at its end."""
        error = with_final_names(error)
        sealed = file.session.seal
        end = file.session.end if sealed is not None else None
        first = file.session.failures == 0
        file.session = machine.failed(file.session, error, self._clock.monotonic())
        self._discard(file)
        status = file.session.status
        retry_s = (file.session.retry_at or 0.0) - self._clock.monotonic()
        sentence = (
            f"the file of {file.name} cannot be written: {error}. Its data are safe in Redis; "
            f"it is tried again, next in {retry_s:.2g} s, when the cause is removed."
        )
        if first or (end is not None and not file.reported_failure):
            self._service.alarm(Severity.MAJOR, sentence, scan_id=status.scan_id)
        else:
            log.warning("%s", sentence)
        if end is None or file.reported_failure:
            return
        file.reported_failure = True
        path = str(file.wanted or "")
        batch = self._broker_batch()
        batch.append(MessageEndpoints.file_event, _failure(status, path, error, end.count))
        batch.append(MessageEndpoints.scan_history, _history(file.session, end, path, error))
        batch.commit()

    def _fail_unforeseen(self, file: _File, error: Exception) -> None:
        log.error("writing the file of %s", file.name, exc_info=error)
        self._fail(file, f"an unforeseen {type(error).__name__}: {error}")

    def _give_up(self, file: _File) -> None:
        status = file.session.status
        message = _failure(status, str(file.wanted or ""), file.session.error, None)
        self._service.alarm(
            Severity.MAJOR,
            f"the file of {file.name} is given up after {machine.GIVE_UP_AFTER_S / HOUR:g} h: "
            f"{file.session.error}. Its data leave Redis in 6 h.",
            scan_id=status.scan_id,
        )
        self._tell_over(file, message.model_copy(update={"metadata": {"given_up": True}}), None)

    def _tell_moved(self, file: _File, path: Path) -> None:
        self._service.alarm(
            Severity.MINOR,
            f"there is a file of another scan at {file.wanted}: the file of {file.name} is {path}.",
            scan_id=file.session.status.scan_id,
        )

    def _tell_misfits(self, file: _File, misfits: Mapping[int, int], rows: tuple[PointsMessage, ...]) -> None:
        new = {index: count for index, count in misfits.items() if index not in file.complained_of}
        if not new:
            return
        file.complained_of.update(new)
        signals = file.session.schema.signals
        points = f"points {rows[0].first_index} to {rows[-1].first_index + rows[-1].count - 1}"
        names = ", ".join(
            f"{signals[index].signal} ({count} values that are no {_kind(signals[index])})"
            for index, count in new.items()
        )
        self._service.alarm(
            Severity.WARNING,
            f"in {file.name}, {points}, the file holds blanks or cut values for {names}.",
            scan_id=file.session.status.scan_id,
        )

    # Parts

    def _path_of(self, status: ScanStatusMessage) -> Path:
        target = status.file
        if target is None:
            target = file_target(self._service.config.data_folder, status.account, status.scan_number)
        return master_path(target)

    def _laid_out(self, facts: ScanFacts) -> tuple[FileFormat, Group]:
        try:
            return self._format, self._format.layout(facts)
        except Exception as error:  # a plugin's fault must not cost a scan its file
            if isinstance(self._format, NexusFormat):
                raise
            self._service.alarm(
                Severity.MINOR,
                f"the file format {self._config.plugin!r} failed ({type(error).__name__}: {error}); "
                f"the file of scan {facts.status.scan_number} has the default format.",
                scan_id=facts.status.scan_id,
            )
            default = NexusFormat()
            return default, default.layout(facts)

    def _discard(self, file: _File) -> None:
        """Let go of the file; what is published stays until it is replaced."""
        if file.live is not None:
            file.live.discard()
        file.live = file.root = file.facts = file.format = file.published = file.earlier = None
        file.baseline_filled = False

    def _mark(self) -> str:
        return f"{os.getpid()}-{self._attempts}"

    def _broker_batch(self) -> Batch:
        return self._service.batch()

    def _cursor(self) -> str:
        """How far the status stream need not be read again: up to the oldest scan without a final file."""
        opened = [file.opened_id for file in self._files.values() if file.opened_id]
        return min((just_before(entry) for entry in opened), key=entry_order, default=self._status_id)


def _load_format(service: Service) -> FileFormat:
    """The configured format; the default one, with an alarm, if that cannot be had."""
    wanted = service.config.file_writer.plugin
    found, failed = load_plugins(FILE_FORMATS)
    for plugin in found:
        if plugin.name == wanted:
            try:
                made: FileFormat = plugin.value()
                return made
            except Exception as error:  # noqa: BLE001 - a plugin's fault must not keep files from being written
                failed[wanted] = f"{plugin.origin}: {type(error).__name__}: {error}"
    if wanted != "nexus":
        names = ", ".join(plugin.name for plugin in found) or "none"
        reason = failed.get(wanted, f"there is no such plugin (found: {names})")
        service.alarm(
            Severity.MINOR,
            f"the file format {wanted!r} (`file_writer: plugin:`) cannot be used: {reason}. "
            "Files have the default format.",
        )
    return NexusFormat()


def _keep(file: _File, rows: list[np.ndarray]) -> None:
    """Remember what was written, as long as it is not too much."""
    if file.earlier is None:
        return
    file.earlier.append(rows)
    if sum(array.nbytes for part in file.earlier for array in part) > KEPT_BYTES:
        file.earlier = None


def _complete(job: _Job, whole_files: hdf5.WholeFiles) -> _Finished:
    """The final file under its final name. Runs in the worker thread; raises StorageError."""
    path = temporary_path(job.published or job.wanted, f"{job.mark}-final")
    try:
        if not _write_whole(job, path, whole_files):
            _complete_live(job, path)
        hdf5.sync(path)
        crash_points.reached("file_writer.before_final")
        if job.published is not None:
            final = job.published
            hdf5.replace(path, final)
        else:
            final = _placed(path, job.wanted, job.scan_id)
        crash_points.reached("file_writer.after_final")
        hdf5.sync(final.parent)
        return _Finished(final, final.stat().st_size, final != job.wanted)
    except (StorageError, OSError) as error:
        job.live.discard()
        path.unlink(missing_ok=True)
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"completing {job.wanted} failed: {error.strerror or error}") from error


def _write_whole(job: _Job, path: Path, whole_files: hdf5.WholeFiles) -> bool:
    """Write the final file in one go; False if that cannot be done."""
    if job.earlier is None:
        return False
    parts = [part for part in (*job.earlier, job.rows) if part]
    if not parts:
        return False
    rows = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts[1:] else parts[0]
    return whole_files.write(
        path, job.root, job.live.skeleton, rows, job.closing, _by_path(job.root, job.baseline)
    )


def _complete_live(job: _Job, path: Path) -> None:
    """Make the final file of the growing one."""
    live = job.live
    live.append(job.rows)
    late_baseline = {} if job.baseline_filled else job.baseline
    if not live.is_started:
        live.fill(late_baseline)
        late_baseline = {}
    live.close()
    if job.published is not None:
        hdf5.copy(job.published, path)
    else:
        hdf5.replace(live.path, path)
    hdf5.complete(path, job.closing, _by_path(job.root, late_baseline), job.root)


def _tidy_up(job: _Job, whole_files: hdf5.WholeFiles) -> None:
    """What can wait until the file has been announced. Runs in the worker thread."""
    count = sum(len(part[0]) for part in (*(job.earlier or ()), job.rows) if part)
    try:
        job.live.discard()
        if job.earlier is not None and count:
            path = temporary_path(job.wanted, f"{job.mark}-template")
            whole_files.learn(path, job.root, job.live.skeleton, count)
    except StorageError as error:
        log.warning("%s", error)


def _placed(source: Path, wanted: Path, scan_id: str) -> Path:
    """Give a file its name, or the next free one if another scan's file has it. A file of the same scan is
    replaced: it was left by a writer that was killed.
    """
    for path in alternatives(wanted):
        if hdf5.place(source, path):
            return path
        if hdf5.text_in(path, SCAN_ID_FIELD) == scan_id:
            hdf5.replace(source, path)
            return path
    raise AssertionError("alternatives do not end")


def _by_path(root: Group, values: Mapping[Column, Any]) -> dict[str, Any]:
    return {
        place: values[member.column]
        for place, member in walk(root)
        if isinstance(member, Field) and member.column is not None and member.column in values
    }


def _baseline_values(session: Session) -> dict[Column, Any]:
    baseline = session.baseline
    if baseline is None:
        return {}
    values: dict[Column, Any] = {}
    for index, value in enumerate(baseline.values):
        values[Column(Source.BASELINE_VALUE, index)] = value
    for index, time in enumerate(baseline.device_times):
        values[Column(Source.BASELINE_TIMESTAMP, index)] = time
    return values


def _expire_streams(batch: Batch, scan_id: str) -> None:
    for _, endpoint in all_endpoints():
        if "/scan/{scan_id}/" in endpoint.key and endpoint.expires_s is not None:
            batch.expire(endpoint(scan_id), endpoint.expires_s)


def _history(session: Session, end: EndFacts, path: str, error: str) -> ScanHistoryMessage:
    status = session.terminal or session.status
    return ScanHistoryMessage(
        scan_id=status.scan_id,
        scan_number=status.scan_number,
        scan_name=status.scan_name,
        status=ScanState(end.state),
        file_path=path,
        num_points=end.count,
        started=status.started,
        ended=end.ended,
        user=status.user,
        account=status.account,
        args=status.args,
        kwargs=status.kwargs,
        motors=status.motors,
        message=status.message,
        file_error=error,
    )


def _failure(status: ScanStatusMessage, path: str, error: str, count: int | None) -> FileMessage:
    return FileMessage(
        scan_id=status.scan_id,
        file_path=path,
        done=True,
        successful=False,
        error=error,
        num_points=count,
        scan_number=status.scan_number,
    )


def _kind(signal: Any) -> str:
    shape = f" of {'x'.join(map(str, signal.shape))}" if signal.shape else ""
    return f"{'text that fits' if signal.dtype == 'str' else signal.dtype}{shape}"
