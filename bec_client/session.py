"""The device session as this client knows it, and calls to its devices.

What the session holds is loaded when it is first needed and again when it has changed; each call of a device is one
request, answered by the device server that holds it. The objects that users handle are in `devices`.
"""

from __future__ import annotations

import fnmatch
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bec_client.connection import Ticket
from bec_client.report import raise_error
from bec_client.scans import plain_argument
from bec_client.services import device_server_role
from bec_lib.broker import Delivery
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, DeviceError, ReasonCode, UnknownDevice
from bec_lib.messages import (
    DeviceInfoMessage,
    DeviceRPCMessage,
    DeviceRPCResponse,
    DeviceSessionMessage,
    MethodInfo,
    SignalInfo,
)
from bec_lib.scans.signature import did_you_mean

if TYPE_CHECKING:
    from bec_client.client import BECClient


LOOK_AGAIN_S = 1.0
HELD_S = 0.5
# Verbs that change nothing, and may be repeated.
READS = frozenset({"read", "get", "describe", "read_configuration", "describe_configuration"})


class Status:
    """A move or another call that takes its time. `wait()` returns when it is done, or raises why it was not."""

    def __init__(self, client: BECClient, device: str, role: str, ticket: Ticket):
        self._client = client
        self._device = device
        self._role = role
        self._ticket = ticket
        self._looked_at = False
        ticket.on_answer = self._on_answer

    @property
    def done(self) -> bool:
        """True when it has ended, well or not."""
        return self._ticket.answered.is_set()

    @property
    def success(self) -> bool:
        """True when it has ended well."""
        self._looked_at = True
        return self.done and self._ticket.answer.success

    def wait(self, timeout: float | None = None, raise_on_failure: bool = True) -> Status:
        """Wait for the end. timeout: seconds. Ctrl-C stops the device.

        Raises what the device said, DeadlineExceeded at the timeout, ServiceDown if its device server is gone.
        """
        self._looked_at = True
        try:
            self._client.connection.wait(self._ticket.answered, self._ticket.what, [self._role], timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        if raise_on_failure:
            result_of(self._ticket.answer, self._ticket.what)
        return self

    def stop(self) -> None:
        """Stop the device that it moves."""
        self._client.connection.send(
            self._client.connection.device_calls,
            DeviceRPCMessage(
                request_id=self._client.connection.new_id(),
                client_id=self._client.client_id,
                device=self._device,
                func="stop",
            ),
        )

    def _on_answer(self, answer: DeviceRPCResponse) -> None:
        # By the reader thread: a failure that nobody waits for must not pass in silence.
        if not answer.success and not self._looked_at:
            text = answer.error.error_message if answer.error else "failed"
            self._client.notify(f"{self._ticket.what}: {text}")

    def __repr__(self) -> str:
        state = "running" if not self.done else "done" if self._ticket.answer.success else "failed"
        return f"<{self._ticket.what}: {state}>"


class Entry:
    """What is known about one device of the session: its configuration, and what its server published."""

    def __init__(self, config: dict[str, Any], info: DeviceInfoMessage | None):
        self.config = config
        self.info = info
        self._signals = {signal.name: signal for signal in (info.signals if info else [])}
        self._methods = {method.name: method for method in (info.methods if info else [])}

    def signal(self, path: str) -> SignalInfo | None:
        return self._signals.get(path)

    def method(self, path: str) -> MethodInfo | None:
        return self._methods.get(path)

    def children(self, path: str) -> list[str]:
        """Names of signals, components and methods directly below a path."""
        start = f"{path}." if path else ""
        names = [*self._signals, *self._methods]
        return list(
            dict.fromkeys(
                n[len(start) :].split(".", 1)[0] for n in names if n.startswith(start) and n != path
            )
        )

    def doc(self, path: str) -> str:
        if not path:
            text = self.info.doc if self.info else ""
            return text or str(self.config.get("description", "")) or "A device of the session."
        signal = self.signal(path)
        return signal.doc if signal is not None else ""

    @property
    def is_positioner(self) -> bool:
        return self.info is not None and self.info.role == "positioner"


class Session:
    """The devices in force, and the way to them."""

    def __init__(self, client: BECClient):
        self._client = client
        self._mutex = threading.RLock()
        self._message: DeviceSessionMessage | None = None
        self._entries: dict[str, Entry] = {}
        self._stale = True
        self._look_again: float | None = None
        self._held: dict[str, str] = {}
        self._held_until = 0.0

    def on_session(self, message: DeviceSessionMessage) -> None:
        """By the reader thread: the session has changed; it is loaded when it is next used."""
        self._stale = True

    @property
    def message(self) -> DeviceSessionMessage | None:
        """The session in force; None if none was ever loaded."""
        self.entries()
        return self._message

    def entries(self) -> dict[str, Entry]:
        if not self._stale and (self._look_again is None or time.monotonic() < self._look_again):
            return self._entries
        with self._mutex:
            broker = self._client.broker
            self._stale = False
            self._look_again = None
            found = broker.get(Endpoints.device_session)
            session: DeviceSessionMessage | None = found.message if found else None
            names = list(session.devices) if session else []
            infos = broker.get_many(Endpoints.device_info(name) for name in names)
            entries = {
                name: Entry(session.devices[name], item.message if item else None)
                for name, item in zip(names, infos, strict=True)
                if session is not None
            }
            self._message = session
            self._entries = entries
            if any(entry.info is None and entry.config.get("enabled", True) for entry in entries.values()):
                # A device that its server has not described (yet): look again, and not at every use.
                self._look_again = time.monotonic() + LOOK_AGAIN_S
            return entries

    def names(self) -> list[str]:
        return list(self.entries())

    def entry(self, name: str) -> Entry:
        entries = self.entries()
        if name not in entries:
            if not entries:
                raise UnknownDevice(
                    f"there is no device {name!r}: no devices are loaded. Load a device file with "
                    "`bec config load FILE` or bec.config.update_session_with_file(...)"
                )
            raise UnknownDevice(
                f"there is no device {name!r} in the session.{did_you_mean(name, entries)}", device=name
            )
        return entries[name]

    def config_of(self, name: str) -> dict[str, Any]:
        return self.entry(name).config

    def fresh_info(self, name: str) -> DeviceInfoMessage:
        """What the device server says about a device now. Raises UnknownDevice, or DeviceError if it says nothing."""
        entry = self.entry(name)
        found = self._client.broker.get(Endpoints.device_info(name))
        if found is not None:
            return found.message
        session = self._message
        reason = session.failed.get(name) if session else None
        return DeviceInfoMessage(
            name=name,
            device_class=str(entry.config.get("deviceClass", "")),
            state="failed" if entry.config.get("enabled", True) else "disabled",
            error=reason or "its device server has not described it",
            config=entry.config,
            server=str(entry.config.get("deviceServer", "main")),
        )

    def holders(self) -> dict[str, str]:
        """Device -> who moves it or has it to itself now, of those that somebody has."""
        servers = dict.fromkeys(
            str(entry.config.get("deviceServer") or "main") for entry in self.entries().values()
        )
        found = self._client.broker.get_many(Endpoints.device_holders(server) for server in servers)
        told: dict[str, list[str]] = {}
        for item in found:
            for holder in item.message.holders if item else ():
                for device in holder.devices:
                    told.setdefault(device, []).append(str(holder))
        return {device: "; ".join(texts) for device, texts in told.items()}

    def holder_of(self, name: str) -> str:
        """Who moves the device or has it to itself now, in words; empty if nobody has."""
        server = str(self.entry(name).config.get("deviceServer") or "main")
        found = self._client.broker.get(Endpoints.device_holders(server))
        return found.message.of(name) if found else ""

    def holders_lately(self) -> dict[str, str]:
        """`holders` of the last half second, for the printing of many devices; empty if Redis does not answer."""
        if time.monotonic() >= self._held_until:
            try:
                self._held = self.holders()
            except BECError:
                self._held = {}
            self._held_until = time.monotonic() + HELD_S
        return self._held

    def role_of(self, name: str) -> str:
        return device_server_role(str(self.entry(name).config.get("deviceServer") or "main"))

    def server_roles(self) -> list[str]:
        """The device servers that the session needs."""
        roles = {
            device_server_role(str(e.config.get("deviceServer") or "main")) for e in self.entries().values()
        }
        return sorted(roles) or ["device_server"]

    # Calling devices

    def call(
        self,
        device: str,
        func: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        kind: str = "call",
        timeout: float | None = None,
    ) -> Any:
        """Call a device and return what it returns. Ctrl-C stops a device that moves.

        Raises what went wrong there, DeadlineExceeded after `timeout` seconds (None: as long as its device server
        is alive), ServiceDown if its device server is not running.
        """
        role = self.role_of(device)
        verb = func.rsplit(".", 1)[-1]
        for attempt in (1, 2):
            ticket = self._send(device, func, args, kwargs or {}, kind, role)
            try:
                self._client.connection.wait(ticket.answered, ticket.what, [role], timeout, notice=True)
            except KeyboardInterrupt:
                if verb in ("put", "set", "move", "trigger"):
                    Status(self._client, device, role, ticket).stop()
                raise
            answer: DeviceRPCResponse = ticket.answer
            restarted = answer.error is not None and answer.error.code is ReasonCode.SERVICE_DOWN
            # The device server was restarted in between: what only reads is asked again.
            if not (restarted and verb in READS and attempt == 1):
                break
        return result_of(answer, ticket.what)

    def begin(self, device: str, func: str, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Status:
        """Call a device and do not wait."""
        role = self.role_of(device)
        ticket = self._send(device, func, args, kwargs, "call", role, keep=True)
        return Status(self._client, device, role, ticket)

    def _send(
        self,
        device: str,
        func: str,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        kind: Any,
        role: str,
        keep: bool = False,
    ) -> Ticket:
        client = self._client
        sent = [plain_argument(value) for value in args]
        shown = ", ".join([repr(v) for v in sent] + [f"{k}={v!r}" for k, v in kwargs.items()])
        what = f"dev.{device}.{func} = {shown}" if kind == "set" else f"dev.{device}.{func}({shown})"
        client.service_status.require([role], what)
        ticket = client.connection.ticket(what if len(what) < 120 else f"dev.{device}.{func}(...)", keep=keep)
        message = DeviceRPCMessage(
            request_id=ticket.request_id,
            client_id=client.client_id,
            device=device,
            func=func,
            kind=kind,
            args=sent,
            kwargs={key: plain_argument(value) for key, value in kwargs.items()},
        )
        reads = func.rsplit(".", 1)[-1] in READS
        client.connection.send(client.connection.device_calls, message, repeatable=reads)
        return ticket

    # Where they are

    def matching(self, names: Any = None) -> list[str]:
        """Device names from None (all positioners), one name or device, a pattern with * ? [], or a list of these.

        Raises UnknownDevice if nothing matches.
        """
        known = self.names()
        if names is None:
            return [n for n in known if self.entries()[n].is_positioner]
        wanted = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
        found: list[str] = []
        for item in wanted:
            pattern = str(getattr(item, "_name", item))
            matches = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
            if not matches:
                raise UnknownDevice(
                    f"no device matches {pattern!r}.{did_you_mean(pattern, known)}", device=pattern
                )
            found += [name for name in matches if name not in found]
        return found

    def positions(self, names: Any = None) -> list[dict[str, Any]]:
        """One row per device: name, readback, setpoint, limits, unit, who holds it; what cannot be read is None and
        `error` says why. All devices are asked at the same time.
        """
        rows = []
        asked = []
        holders = self.holders()
        for name in self.matching(names):
            row: dict[str, Any] = {
                "name": name,
                "readback": None,
                "setpoint": None,
                "low": None,
                "high": None,
                "unit": "",
                "held_by": holders.get(name, ""),
                "error": "",
            }
            rows.append(row)
            info = self.fresh_info(name)
            row["unit"] = info.unit
            row["precision"] = info.precision
            if info.limits is not None and info.limits[0] != info.limits[1]:
                row["low"], row["high"] = info.limits
            if info.state in ("failed", "disabled"):
                row["error"] = info.error or info.state
                continue
            try:
                role = self.role_of(name)
                asked.append((row, info, role, self._send(name, "read", (), {}, "call", role)))
            except BECError as error:
                row["error"] = error.message
        for row, info, role, ticket in asked:
            try:
                self._client.connection.wait(ticket.answered, ticket.what, [role], 5.0)
                reading = result_of(ticket.answer, ticket.what)
            except BECError as error:
                row["error"] = error.message
                continue
            row["readback"] = main_value(reading, info)
            setpoint = [key for key in reading if key.endswith("_setpoint")]
            row["setpoint"] = reading[setpoint[0]]["value"] if setpoint else None
        return rows


def result_of(answer: DeviceRPCResponse, what: str) -> Any:
    if answer.out:
        print(answer.out, end="" if answer.out.endswith("\n") else "\n")
    if answer.success:
        return answer.return_val
    raise_error(answer.error, f"{what} failed, and the device server gave no reason")
    return None


def cached_reading(client: BECClient, device: str) -> dict[str, Any]:
    found: Delivery | None = client.broker.get(Endpoints.device_readback(device))
    if found is None:
        raise DeviceError(
            f"no reading of {device} was published yet; read it with dev.{device}.read()", device=device
        )
    return dict(found.message.signals)


def only_value(reading: Mapping[str, Any], name: str) -> Any:
    if not reading:
        raise DeviceError(f"no reading of {name} was published yet; use .get() without cached")
    return next(iter(reading.values()))["value"]


def main_value(reading: Mapping[str, Any], info: DeviceInfoMessage | None) -> Any:
    """The value that stands for the device: its first hinted signal, else that of its own name, else the first."""
    names = [*(info.hints if info else []), *([info.name] if info else []), *reading]
    for name in names:
        if name in reading:
            return reading[name]["value"]
    return None
