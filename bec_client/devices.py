"""The devices of the session as objects: `dev.samx.read()`, `dev.samx.velocity.get()`, `dev.wm("sam*")`.

A device here is a remote control: names, methods and documentation come from what the device server publishes,
every call goes to the device server and returns, or raises, what the device did. Limits, state and owner are looked
up whenever they are asked for. Knows no ophyd.
"""

from __future__ import annotations

import fnmatch
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bec_client.connection import Ticket
from bec_client.services import device_server_role
from bec_lib.broker import Delivery
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, DeadlineExceeded, DeviceError, UnknownDevice
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

# Fields of the session that `dev.x.<name> = value` changes, by BEC's names.
_CONFIG_FIELDS = {
    "enabled": "enabled",
    "read_only": "readOnly",
    "software_trigger": "softwareTrigger",
    "readout_priority": "readoutPriority",
    "on_failure": "onFailure",
    "description": "description",
}


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
            _result(self._ticket.answer, self._ticket.what)
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


class _Node:
    """Something below `dev` that can be called, read or written: a device, a signal or a component of one."""

    _client: BECClient
    _name: str  # of the device
    _path: str  # below the device, "" for the device itself

    def __init__(self, client: BECClient, name: str, path: str, entry: _Entry):
        object.__setattr__(self, "_client", client)
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_path", path)
        object.__setattr__(self, "_entry", entry)
        object.__setattr__(self, "__doc__", entry.doc(path))

    # What it is

    @property
    def name(self) -> str:
        return self.dotted_name.replace(".", "_")

    @property
    def dotted_name(self) -> str:
        """As it stands in scan arguments: "samx" or "samx.velocity"."""
        return f"{self._name}.{self._path}" if self._path else self._name

    # Verbs

    def read(
        self, cached: bool = False, filter_to_hints: bool = False, use_readback: bool = True
    ) -> dict[str, Any]:
        """Signal -> {"value", "timestamp"}. cached: the last published reading, without asking the device.
        filter_to_hints: only the hinted signals.
        """
        if cached:
            found = _cached(self._client, self._name)
            if self._path:
                info = self._entry.signal(self._path)
                found = {key: value for key, value in found.items() if info and key == info.obj_name}
        else:
            found = self._call("read")
        if filter_to_hints and self._entry.info is not None:
            hints = set(self._entry.info.hints)
            found = {key: value for key, value in found.items() if key in hints} or found
        return found

    def get(self, cached: bool = False) -> Any:
        """The value. cached: as last published, without asking the device."""
        if cached:
            return _only_value(self.read(cached=True), self.dotted_name)
        return self._call("get")

    def set(self, value: Any, **kwargs: Any) -> Status:
        """Go to a value, and return at once; `.wait()` on what is returned."""
        return self._begin("set", _plain(value), **kwargs)

    def put(self, value: Any, wait: bool = False, **kwargs: Any) -> None:
        """Write a value. wait: until it is there."""
        if wait:
            self._begin("set", _plain(value), **kwargs).wait()
        else:
            self._call("put", _plain(value), **kwargs)

    def describe(self) -> dict[str, Any]:
        """Signal -> what it is: dtype, shape, units, source."""
        return self._call("describe")

    # Calling

    def _call(self, func: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        path = f"{self._path}.{func}" if self._path else func
        return self._client.devices.call(self._name, path, args, kwargs, timeout=timeout)

    def _begin(self, func: str, *args: Any, **kwargs: Any) -> Status:
        path = f"{self._path}.{func}" if self._path else func
        return self._client.devices.begin(self._name, path, args, kwargs)

    # Names below it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = self._client.devices.below(self._name, f"{self._path}.{name}" if self._path else name)
        if found is _NOTHING:
            known = [*self._entry.children(self._path), *_verbs(self)]
            raise AttributeError(f"{self.dotted_name} has no {name!r}.{did_you_mean(name, known)}")
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
            return
        path = f"{self._path}.{name}" if self._path else name
        descriptor = getattr(type(self), name, None)
        if isinstance(descriptor, property) and descriptor.fset is not None:
            descriptor.fset(self, value)
            return
        method = self._entry.method(path)
        if method is not None and method.kind == "property":
            if not method.writable:
                raise AttributeError(f"{self._name}.{path} can be read and not written")
            self._client.devices.call(self._name, path, (_plain(value),), {}, kind="set")
            return
        label = f"{self.dotted_name}.{name}"
        if self._entry.signal(path) is not None or self._entry.children(path):
            raise AttributeError(
                f"{label} is a signal and cannot be replaced; write it with {label}.set({value!r})"
            )
        if callable(descriptor) or method is not None:
            raise AttributeError(f"{label} is a method and cannot be replaced")
        raise AttributeError(f"{self.dotted_name} has no {name!r} to set")

    def __dir__(self) -> list[str]:
        return sorted({*self._entry.children(self._path), *_verbs(self)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Node) and other.dotted_name == self.dotted_name

    def __hash__(self) -> int:
        return hash(self.dotted_name)


class Signal(_Node):
    """A signal, or a component that groups signals."""

    @property
    def unit(self) -> str:
        info = self._entry.signal(self._path)
        return info.unit if info else ""

    def __repr__(self) -> str:
        info = self._entry.signal(self._path)
        if info is None:
            return f"<{self.dotted_name}: {', '.join(self._entry.children(self._path))}>"
        unit = f" [{info.unit}]" if info.unit else ""
        return f"<signal {self.dotted_name}{unit}, {info.kind}{'' if info.writable else ', read-only'}>"


class Device(_Node):
    """A device of the session."""

    @property
    def _info(self) -> DeviceInfoMessage:
        """As the device server says it now."""
        return self._client.devices.fresh_info(self._name)

    # Verbs of whole devices

    def read_configuration(self, cached: bool = False) -> dict[str, Any]:
        """Configuration signal -> {"value", "timestamp"}."""
        return self._call("read_configuration")

    def describe_configuration(self) -> dict[str, Any]:
        return self._call("describe_configuration")

    def trigger(self) -> Status:
        """Trigger it, and return at once."""
        return self._begin("trigger")

    def stage(self) -> Any:
        return self._call("stage")

    def unstage(self) -> Any:
        return self._call("unstage")

    def configure(self, values: Mapping[str, Any]) -> Any:
        """Set configuration signals by name."""
        return self._call("configure", dict(values))

    def stop(self) -> None:
        """Stop it now, whatever moves it."""
        self._call("stop")

    def move(self, value: float, relative: bool = False) -> Status:
        """Like `set`; relative: by this much from where it is."""
        return self.set(self.position + value if relative else value)

    @property
    def position(self) -> Any:
        """Where it is (or its value, if it is no positioner), in `unit`."""
        return _main_value(self.read(), self._entry.info)

    @property
    def wm(self) -> None:
        """Print where it is, where it was sent, and its limits."""
        self._client.devices.wm(self._name)

    def summary(self) -> None:
        """Print everything that is known about it."""
        from bec_client.tables import device_summary, show

        show(device_summary(self._info))

    # State and configuration

    @property
    def unit(self) -> str:
        return self._entry.info.unit if self._entry.info else ""

    @property
    def device_class(self) -> str:
        return str(self._entry.config.get("deviceClass", ""))

    @property
    def owner(self) -> str:
        """The id of the scan that has it, or ""."""
        return self._info.owner

    @property
    def limits(self) -> list[float] | None:
        """[low, high] in `unit`; None if it has none. Assign a pair to change them."""
        limits = self._info.limits
        return None if limits is None else list(limits)

    @limits.setter
    def limits(self, value: Iterable[float]) -> None:
        pair = [float(item) for item in value]
        if len(pair) != 2 or pair[0] > pair[1]:
            raise DeviceError(
                f"limits of {self._name} must be [low, high], not {list(value)!r}", device=self._name
            )
        self._client.devices.call(self._name, "limits", (pair,), {}, kind="set")

    @property
    def low_limit(self) -> float | None:
        limits = self.limits
        return limits[0] if limits else None

    @low_limit.setter
    def low_limit(self, value: float) -> None:
        self.limits = [value, self._other_limit(1)]

    @property
    def high_limit(self) -> float | None:
        limits = self.limits
        return limits[1] if limits else None

    @high_limit.setter
    def high_limit(self, value: float) -> None:
        self.limits = [self._other_limit(0), value]

    def _other_limit(self, index: int) -> float:
        limits = self.limits
        if limits is None:
            raise DeviceError(
                f"{self._name} has no limits yet; set both: dev.{self._name}.limits = [low, high]"
            )
        return limits[index]

    def get_device_config(self) -> dict[str, Any]:
        """The arguments of its class, as in the device file."""
        return dict(self._client.devices.config_of(self._name).get("deviceConfig") or {})

    def set_device_config(self, values: Mapping[str, Any]) -> None:
        """Change entries of `deviceConfig` in the session."""
        self._update({"deviceConfig": {**self.get_device_config(), **dict(values)}})

    @property
    def user_parameter(self) -> dict[str, Any]:
        return dict(self._client.devices.config_of(self._name).get("userParameter") or {})

    def set_user_parameter(self, values: Mapping[str, Any]) -> None:
        """Replace the free beamline data of this device."""
        self._update({"userParameter": dict(values)})

    def update_user_parameter(self, values: Mapping[str, Any]) -> None:
        """Add to, or change, the free beamline data of this device."""
        self._update({"userParameter": {**self.user_parameter, **dict(values)}})

    @property
    def device_tags(self) -> set[str]:
        return set(self._client.devices.config_of(self._name).get("deviceTags") or [])

    def set_device_tags(self, tags: Iterable[str]) -> None:
        self._update({"deviceTags": sorted(set(tags))})

    def add_device_tag(self, tag: str) -> None:
        self.set_device_tags(self.device_tags | {tag})

    def remove_device_tag(self, tag: str) -> None:
        self.set_device_tags(self.device_tags - {tag})

    def _update(self, fields: dict[str, Any]) -> None:
        self._client.config.update({self._name: fields})

    def __repr__(self) -> str:
        short = self.device_class.rsplit(".", 1)[-1] or "device"
        unit = f" [{self.unit}]" if self.unit else ""
        return f"<{short} {self._name}{unit}>"


def _config_property(name: str, field: str) -> property:
    def read(self: Device) -> Any:
        return self._client.devices.config_of(self._name).get(field)

    def write(self: Device, value: Any) -> None:
        self._update({field: value})

    return property(read, write, doc=f"`{field}` of the device file; assign to change it in the session.")


for _attribute, _field in _CONFIG_FIELDS.items():
    setattr(Device, _attribute, _config_property(_attribute, _field))


class _Entry:
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


_NOTHING = object()


class DeviceContainer:
    """All devices of the session, by attribute (`dev.samx`) or name (`dev["samx.velocity"]`)."""

    def __init__(self, client: BECClient):
        object.__setattr__(self, "_client", client)
        object.__setattr__(self, "_mutex", threading.RLock())
        object.__setattr__(self, "_session", None)
        object.__setattr__(self, "_entries", {})
        object.__setattr__(self, "_stale", True)

    # The session

    def on_session(self, message: DeviceSessionMessage) -> None:
        """By the reader thread: the session has changed; it is loaded when it is next used."""
        object.__setattr__(self, "_stale", True)

    @property
    def session(self) -> DeviceSessionMessage | None:
        """The session in force; None if none was ever loaded."""
        self._load()
        return self._session

    def _load(self) -> dict[str, _Entry]:
        if not self._stale:
            return self._entries
        with self._mutex:
            broker = self._client.broker
            object.__setattr__(self, "_stale", False)
            found = broker.get(Endpoints.device_session)
            session: DeviceSessionMessage | None = found.message if found else None
            names = list(session.devices) if session else []
            infos = broker.get_many(Endpoints.device_info(name) for name in names)
            entries = {
                name: _Entry(session.devices[name], item.message if item else None)
                for name, item in zip(names, infos, strict=True)
                if session is not None
            }
            object.__setattr__(self, "_session", session)
            object.__setattr__(self, "_entries", entries)
            if any(entry.info is None and entry.config.get("enabled", True) for entry in entries.values()):
                # A device that its server has not described yet: look again at the next use.
                object.__setattr__(self, "_stale", True)
            return entries

    def names(self) -> list[str]:
        return list(self._load())

    def entry(self, name: str) -> _Entry:
        entries = self._load()
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
        session = self._session
        reason = session.failed.get(name) if session else None
        return DeviceInfoMessage(
            name=name,
            device_class=str(entry.config.get("deviceClass", "")),
            state="failed" if entry.config.get("enabled", True) else "disabled",
            error=reason or "its device server has not described it",
            config=entry.config,
            server=str(entry.config.get("deviceServer", "main")),
        )

    def role_of(self, name: str) -> str:
        return device_server_role(str(self.entry(name).config.get("deviceServer") or "main"))

    def server_roles(self) -> list[str]:
        """The device servers that the session needs."""
        roles = {
            device_server_role(str(e.config.get("deviceServer") or "main")) for e in self._load().values()
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
        ticket = self._send(device, func, args, kwargs or {}, kind, role)
        try:
            self._client.connection.wait(ticket.answered, ticket.what, [role], timeout, notice=True)
        except KeyboardInterrupt:
            if func.rsplit(".", 1)[-1] in ("put", "set", "move", "trigger"):
                Status(self._client, device, role, ticket).stop()
            raise
        return _result(ticket.answer, ticket.what)

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
        sent = [_plain(value) for value in args]
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
            kwargs={key: _plain(value) for key, value in kwargs.items()},
        )
        reads = func.rsplit(".", 1)[-1] in ("read", "get", "describe", "read_configuration")
        client.connection.send(client.connection.device_calls, message, repeatable=reads)
        return ticket

    def below(self, device: str, path: str) -> Any:
        """A signal, component, method or property value below a device; `_NOTHING` if there is none."""
        entry = self.entry(device)
        method = entry.method(path)
        if method is not None:
            if method.kind == "property":
                return self.call(device, path)
            return _remote_method(self, device, path, method)
        if entry.signal(path) is not None or entry.children(path):
            return Signal(self._client, device, path, entry)
        return _NOTHING

    # Names

    def __getitem__(self, name: str) -> Any:
        device, _, path = name.partition(".")
        entry = self.entry(device)
        if not path:
            return Device(self._client, device, "", entry)
        found = self.below(device, path)
        if found is _NOTHING:
            raise UnknownDevice(
                f"{device} has no signal {path!r}.{did_you_mean(path, entry.children(''))}", device=device
            )
        return found

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except UnknownDevice:
            return default

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except UnknownDevice as error:
            raise DeviceAttributeError(error.message, device=name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        hint = f"; to move it: dev.{name}.set({value!r}) or mv(dev.{name}, {value!r})" if name in self else ""
        raise AttributeError(f"dev.{name} cannot be assigned{hint}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._load()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._load())

    def keys(self) -> list[str]:
        return self.names()

    def values(self) -> list[Any]:
        return [self[name] for name in self.names()]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self.names()]

    def __dir__(self) -> list[str]:
        return sorted(
            {*self.names(), *(n for n in dir(type(self)) if not n.startswith("_") and n not in _INTERNAL)}
        )

    def __repr__(self) -> str:
        return f"<{len(self)} devices; dev.show_all() lists them>"

    # Lists

    def _where(self, test: Callable[[dict[str, Any]], bool]) -> list[Any]:
        return [self[name] for name, entry in self._load().items() if test(entry.config)]

    def _by_priority(self, priority: str) -> list[Any]:
        return self._where(lambda c: bool(c.get("enabled", True)) and c.get("readoutPriority") == priority)

    @property
    def enabled_devices(self) -> list[Any]:
        return self._where(lambda config: bool(config.get("enabled", True)))

    @property
    def disabled_devices(self) -> list[Any]:
        return self._where(lambda config: not config.get("enabled", True))

    @property
    def failed_devices(self) -> dict[str, str]:
        """Devices that could not be built or connected -> why."""
        session = self.session
        return dict(session.failed) if session else {}

    def monitored_devices(self) -> list[Any]:
        """Read at every point."""
        return self._by_priority("monitored")

    def baseline_devices(self) -> list[Any]:
        """Read once per scan."""
        return self._by_priority("baseline")

    def async_devices(self) -> list[Any]:
        return self._by_priority("async")

    def on_request_devices(self) -> list[Any]:
        return self._by_priority("on_request")

    def continuous_devices(self) -> list[Any]:
        return self._by_priority("continuous")

    def get_software_triggered_devices(self) -> list[Any]:
        return self._where(lambda c: bool(c.get("enabled", True)) and bool(c.get("softwareTrigger")))

    def get_devices_with_tags(self, tags: str | Iterable[str]) -> list[Any]:
        """Devices that have all of the tags."""
        wanted = {tags} if isinstance(tags, str) else set(tags)
        return self._where(lambda config: wanted <= set(config.get("deviceTags") or []))

    def show_tags(self) -> list[str]:
        return sorted(
            {tag for entry in self._load().values() for tag in entry.config.get("deviceTags") or []}
        )

    # Tables

    def show_all(self) -> None:
        """Print all devices: class, state, when they are read, unit, limits."""
        from bec_client.tables import device_table, show

        show(device_table([self.fresh_info(name) for name in self.names()], self.session))

    def matching(self, names: Any = None) -> list[str]:
        """Device names from None (all positioners), one name or device, a pattern with * ? [], or a list of these.

        Raises UnknownDevice if nothing matches.
        """
        known = self.names()
        if names is None:
            return [n for n in known if _is_positioner(self._load()[n])]
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
        """One row per device: name, readback, setpoint, limits, unit; what cannot be read is None and `error` says
        why. All devices are asked at the same time.
        """
        rows = []
        asked = []
        for name in self.matching(names):
            row: dict[str, Any] = {
                "name": name,
                "readback": None,
                "setpoint": None,
                "low": None,
                "high": None,
                "unit": "",
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
                reading = _result(ticket.answer, ticket.what)
            except (DeviceError, DeadlineExceeded, BECError) as error:
                row["error"] = error.message
                continue
            row["readback"] = _main_value(reading, info)
            setpoint = [key for key in reading if key.endswith("_setpoint")]
            row["setpoint"] = reading[setpoint[0]]["value"] if setpoint else None
        return rows

    def wm(self, names: Any = None) -> None:
        """Print where devices are: `dev.wm()` all positioners, `dev.wm("sam*")`, `dev.wm([dev.samx, "bpm4i"])`."""
        from bec_client.tables import position_table, show

        show(position_table(self.positions(names)))


_INTERNAL = {
    "on_session", "entry", "config_of", "fresh_info", "role_of", "server_roles", "call", "begin", "below", "matching",
    "names", "session",
}  # fmt: skip


class DeviceAttributeError(UnknownDevice, AttributeError):
    """No device of that name; also an AttributeError, so that hasattr and completion work."""


def _remote_method(devices: DeviceContainer, device: str, path: str, info: MethodInfo) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        return devices.call(device, path, args, kwargs)

    method.__name__ = path.rsplit(".", 1)[-1]
    method.__qualname__ = f"{device}.{path}"
    method.__doc__ = info.doc or f"`{path}` of {device}; called on the device server."
    signature = _signature_from(info.signature)
    if signature is not None:
        method.__signature__ = signature  # type: ignore[attr-defined]
    return method


def _signature_from(text: str) -> inspect.Signature | None:
    """The published signature as one that `?` shows. Only names, kinds and plain defaults are taken; nothing is
    evaluated.
    """
    import ast

    if not text:
        return None
    try:
        tree = ast.parse(f"def f{text if text.startswith('(') else '(' + text + ')'}: ...")
    except SyntaxError:
        return None
    arguments = tree.body[0].args  # type: ignore[attr-defined]

    def default(node: Any) -> Any:
        if node is None:
            return inspect.Parameter.empty
        try:
            return ast.literal_eval(node)
        except ValueError:
            return ast.unparse(node)

    def annotation(node: Any) -> Any:
        return inspect.Parameter.empty if node.annotation is None else _Verbatim(ast.unparse(node.annotation))

    found = []
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for node, value in zip(positional, defaults, strict=True):
        if node.arg == "self":
            continue
        kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
        found.append(inspect.Parameter(node.arg, kind, default=default(value), annotation=annotation(node)))
    if arguments.vararg:
        found.append(inspect.Parameter(arguments.vararg.arg, inspect.Parameter.VAR_POSITIONAL))
    for node, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        kind = inspect.Parameter.KEYWORD_ONLY
        found.append(inspect.Parameter(node.arg, kind, default=default(value), annotation=annotation(node)))
    if arguments.kwarg:
        found.append(inspect.Parameter(arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD))
    try:
        return inspect.Signature(found)
    except ValueError:
        return None


class _Verbatim:
    """An annotation that is shown as it was written."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _verbs(node: Any) -> list[str]:
    hidden = set() if isinstance(node, Device) and _is_positioner(node._entry) else _POSITIONER_ONLY
    return [name for name in dir(type(node)) if not name.startswith("_") and name not in hidden]


_POSITIONER_ONLY = {"limits", "low_limit", "high_limit", "move"}


def _is_positioner(entry: _Entry) -> bool:
    return entry.info is not None and (entry.info.role == "positioner" or entry.info.limits is not None)


def _plain(value: Any) -> Any:
    from bec_client.scans import plain_argument

    return plain_argument(value)


def _result(answer: DeviceRPCResponse, what: str) -> Any:
    if answer.out:
        print(answer.out, end="" if answer.out.endswith("\n") else "\n")
    if answer.success:
        return answer.return_val
    from bec_client.report import raise_error

    raise_error(answer.error, f"{what} failed, and the device server gave no reason")
    return None


def _cached(client: BECClient, device: str) -> dict[str, Any]:
    found: Delivery | None = client.broker.get(Endpoints.device_readback(device))
    if found is None:
        raise DeviceError(
            f"no reading of {device} was published yet; read it with dev.{device}.read()", device=device
        )
    return dict(found.message.signals)


def _only_value(reading: Mapping[str, Any], name: str) -> Any:
    if not reading:
        raise DeviceError(f"no reading of {name} was published yet; use .get() without cached")
    return next(iter(reading.values()))["value"]


def _main_value(reading: Mapping[str, Any], info: DeviceInfoMessage | None) -> Any:
    """The value that stands for the device: its first hinted signal, else that of its own name, else the first."""
    names = [*(info.hints if info else []), *([info.name] if info else []), *reading]
    for name in names:
        if name in reading:
            return reading[name]["value"]
    return None
