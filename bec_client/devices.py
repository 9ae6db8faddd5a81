"""The devices of the session as objects: `dev.samx.read()`, `dev.samx.velocity.get()`, `dev.wm("sam*")`.

A device here is a remote control: names, methods and documentation come from what the device server publishes,
every call goes to the device server and returns, or raises, what the device did. Limits, state and holder are looked
up whenever they are asked for. Knows no ophyd.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bec_client.names import WrongName
from bec_client.scans import plain_argument
from bec_client.session import Entry, Session, Status, cached_reading, main_value, only_value
from bec_lib.errors import DeviceError, UnknownDevice
from bec_lib.messages import (
    DeviceInfoMessage,
    MethodInfo,
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


class _Node:
    """Something below `dev` that can be called, read or written: a device, a signal or a component of one."""

    _client: BECClient
    _name: str  # of the device
    _path: str  # below the device, "" for the device itself

    def __init__(self, client: BECClient, name: str, path: str, entry: Entry):
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

    @property
    def full_name(self) -> str:
        """As it stands in readings, "samx_velocity"; the same as `name`."""
        return self.name

    @property
    def root(self) -> Device:
        """The device that it belongs to."""
        found: Device = self._client.devices[self._name]
        return found

    # Verbs

    def read(
        self, cached: bool = False, use_readback: bool = True, filter_to_hints: bool = False
    ) -> dict[str, Any]:
        """Signal -> {"value", "timestamp"}. cached: the last published reading, without asking the device.
        filter_to_hints: only the hinted signals. use_readback: accepted and ignored, a reading is always the readback.
        """
        if cached:
            found = cached_reading(self._client, self._name)
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
            return only_value(self.read(cached=True), self.dotted_name)
        return self._call("get")

    def set(self, value: Any, **kwargs: Any) -> Status:
        """Go to a value, and return at once; `.wait()` on what is returned."""
        return self._begin("set", plain_argument(value), **kwargs)

    def put(self, value: Any, wait: bool = False, **kwargs: Any) -> None:
        """Write a value. wait: until it is there. A positioner begins to move; what goes wrong later is told."""
        if wait:
            self._begin("set", plain_argument(value), **kwargs).wait()
        elif not self._path and self._entry.is_positioner:
            self._begin("set", plain_argument(value), **kwargs)
        else:
            self._call("put", plain_argument(value), **kwargs)

    def describe(self) -> dict[str, Any]:
        """Signal -> what it is: dtype, shape, units, source."""
        return self._call("describe")

    # Calling

    def _call(self, func: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        path = f"{self._path}.{func}" if self._path else func
        return self._client.session.call(self._name, path, args, kwargs, timeout=timeout)

    def _begin(self, func: str, *args: Any, **kwargs: Any) -> Status:
        path = f"{self._path}.{func}" if self._path else func
        return self._client.session.begin(self._name, path, args, kwargs)

    # Names below it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = _below(self._client, self._name, f"{self._path}.{name}" if self._path else name)
        if found is _NOTHING:
            known = [*self._entry.children(self._path), *_verbs(self)]
            raise WrongName(f"{self.dotted_name} has no {name!r}.{did_you_mean(name, known)}")
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
                raise WrongName(f"{self._name}.{path} can be read and not written")
            self._client.session.call(self._name, path, (plain_argument(value),), {}, kind="set")
            return
        label = f"{self.dotted_name}.{name}"
        if self._entry.signal(path) is not None or self._entry.children(path):
            raise WrongName(
                f"{label} is a signal and cannot be replaced; write it with {label}.set({value!r})"
            )
        if callable(descriptor) or method is not None:
            raise WrongName(f"{label} is a method and cannot be replaced")
        if self._path and isinstance(getattr(Device, name, None), property):
            raise WrongName(
                f"{name} is of the device and not of its signals: dev.{self._name}.{name} = {value!r}"
            )
        raise WrongName(f"{self.dotted_name} has no {name!r} to set")

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
        return self._client.session.fresh_info(self._name)

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
        return main_value(self.read(), self._entry.info)

    @property
    def wm(self) -> None:
        """Print where it is, where it was sent, and its limits."""
        self._client.devices.wm(self._name)

    def summary(self) -> None:
        """Print everything that is known about it."""
        from bec_client.tables import device_summary, show

        show(device_summary(self._info, self.owner))

    # State and configuration

    @property
    def unit(self) -> str:
        return self._entry.info.unit if self._entry.info else ""

    @property
    def device_class(self) -> str:
        return str(self._entry.config.get("deviceClass", ""))

    @property
    def owner(self) -> str:
        """Who moves it or has it to himself now, as in "scan 12 (line_scan) of ada"; empty if nobody has."""
        return self._client.session.holder_of(self._name)

    @property
    def limits(self) -> list[float] | None:
        """[low, high] in `unit`; None if it has none. Assign a pair to change them."""
        limits = self._info.limits
        return None if limits is None else list(limits)

    @limits.setter
    def limits(self, value: Iterable[float]) -> None:
        pair = [float(item) for item in value]
        if len(pair) != 2 or not pair[0] <= pair[1]:
            why = (
                f"{pair[0]:g} is above {pair[1]:g}"
                if len(pair) == 2 and pair[0] > pair[1]
                else f"not {pair!r}"
            )
            raise DeviceError(
                f"limits of {self._name} must be two numbers, [low, high]: {why}", device=self._name
            )
        self._client.session.call(self._name, "limits", (pair,), {}, kind="set")

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
        return dict(self._client.session.config_of(self._name).get("deviceConfig") or {})

    def set_device_config(self, values: Mapping[str, Any]) -> None:
        """Change entries of `deviceConfig` in the session."""
        self._update({"deviceConfig": {**self.get_device_config(), **dict(values)}})

    @property
    def user_parameter(self) -> dict[str, Any]:
        return dict(self._client.session.config_of(self._name).get("userParameter") or {})

    def set_user_parameter(self, values: Mapping[str, Any]) -> None:
        """Replace the free beamline data of this device."""
        self._update({"userParameter": dict(values)})

    def update_user_parameter(self, values: Mapping[str, Any]) -> None:
        """Add to, or change, the free beamline data of this device."""
        self._update({"userParameter": {**self.user_parameter, **dict(values)}})

    @property
    def device_tags(self) -> set[str]:
        return set(self._client.session.config_of(self._name).get("deviceTags") or [])

    def get_device_tags(self) -> set[str]:
        return self.device_tags

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
        holder = self._client.session.holders_lately().get(self._name)
        return f"<{short} {self._name}{unit}{f', held by {holder}' if holder else ''}>"


def _config_property(name: str, field: str) -> property:
    def read(self: Device) -> Any:
        return self._client.session.config_of(self._name).get(field)

    def write(self: Device, value: Any) -> None:
        self._update({field: value})

    return property(read, write, doc=f"`{field}` of the device file; assign to change it in the session.")


for _attribute, _field in _CONFIG_FIELDS.items():
    setattr(Device, _attribute, _config_property(_attribute, _field))


_NOTHING = object()


def _below(client: BECClient, device: str, path: str) -> Any:
    """A signal, component, method or property value below a device; `_NOTHING` if there is none."""
    entry = client.session.entry(device)
    method = entry.method(path)
    if method is not None:
        if method.kind == "property":
            return client.session.call(device, path)
        return _remote_method(client.session, device, path, method)
    if entry.signal(path) is not None or entry.children(path):
        return Signal(client, device, path, entry)
    return _NOTHING


class DeviceContainer:
    """All devices of the session, by attribute (`dev.samx`) or name (`dev["samx.velocity"]`)."""

    def __init__(self, client: BECClient):
        object.__setattr__(self, "_client", client)
        object.__setattr__(self, "_session", client.session)

    # Names

    def __getitem__(self, name: str) -> Any:
        device, _, path = name.partition(".")
        entry = self._session.entry(device)
        if not path:
            return Device(self._client, device, "", entry)
        found = _below(self._client, device, path)
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
        raise WrongName(f"dev.{name} cannot be assigned{hint}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._session.entries()

    def __iter__(self) -> Iterator[str]:
        return iter(self._session.names())

    def __len__(self) -> int:
        return len(self._session.entries())

    def keys(self) -> list[str]:
        return self._session.names()

    def values(self) -> list[Any]:
        return [self[name] for name in self._session.names()]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self._session.names()]

    def __dir__(self) -> list[str]:
        return sorted({*self._session.names(), *(n for n in dir(type(self)) if not n.startswith("_"))})

    def __repr__(self) -> str:
        return f"<{len(self)} devices; dev.show_all() lists them>"

    # Lists

    def _where(self, test: Callable[[dict[str, Any]], bool]) -> list[Any]:
        return [self[name] for name, entry in self._session.entries().items() if test(entry.config)]

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
        session = self._session.message
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
            {
                tag
                for entry in self._session.entries().values()
                for tag in entry.config.get("deviceTags") or []
            }
        )

    # Tables

    def show_all(self) -> None:
        """Print all devices: class, state, when they are read, unit, limits."""
        from bec_client.tables import device_table, show

        show(
            device_table(
                [self._session.fresh_info(name) for name in self._session.names()],
                self._session.message,
                self._session.holders(),
            )
        )

    def wm(self, names: Any = None) -> None:
        """Print where devices are: `dev.wm()` all positioners, `dev.wm("sam*")`, `dev.wm([dev.samx, "bpm4i"])`."""
        from bec_client.tables import position_table, show

        show(position_table(self._session.positions(names)))


class DeviceAttributeError(UnknownDevice, AttributeError):
    """No device of that name; also an AttributeError, so that hasattr and completion work."""


def _remote_method(session: Session, device: str, path: str, info: MethodInfo) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        return session.call(device, path, args, kwargs)

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
    hidden = set() if isinstance(node, Device) and node._entry.is_positioner else _POSITIONER_ONLY
    return [name for name in dir(type(node)) if not name.startswith("_") and name not in hidden]


_POSITIONER_ONLY = {"limits", "low_limit", "high_limit", "move"}
