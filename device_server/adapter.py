"""A device as the device server uses it: `DeviceAdapter`, and the one for ophyd objects.

With the loader and the simulation the only place that knows ophyd. Everything that ophyd devices do differently from
each other (what `stage` returns, where limits and units are, what can be called) is made equal here. Methods run on
the caller's thread and may block; lanes are the business of the caller.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from bec_lib.devices import DeviceConfig
from bec_lib.errors import DeviceError, LimitError, ParameterError, ReasonCode
from bec_lib.messages import DeviceInfoMessage, MethodInfo, SignalInfo, StagedDevice
from device_server import readings
from device_server.access import ASSIGNABLE, Call, permitted
from device_server.lanes import Ending

log = logging.getLogger(__name__)

Read = Callable[[], Mapping[str, Mapping[str, Any]]]


class DeviceAdapter(Protocol):
    """What the rest of the device server knows of a device. Endings that are done already are not returned.

    state: "ready", "disabled" or "failed", then `error` says why. first_reading: made after connecting. lacks: the device
    of another device server for want of which it failed.
    """

    name: str
    config: DeviceConfig
    state: str
    error: str
    lacks: str
    first_reading: Mapping[str, Mapping[str, Any]] | None

    @property
    def read_only(self) -> bool: ...
    @property
    def is_positioner(self) -> bool: ...
    @property
    def unit(self) -> str: ...
    def can(self, method: str) -> bool:
        """Whether the device has a method of this name."""

    def has_own(self, method: str) -> bool:
        """Whether the class has a method of its own, which may take long, instead of the library's."""

    def read(self) -> Mapping[str, Mapping[str, Any]]: ...
    def reads(self) -> Sequence[tuple[Read, tuple[str, ...]]]:
        """Calls that together read all signals of `describe`, and the signals that each gives."""

    def staged(self) -> tuple[StagedDevice, dict[str, str]]:
        """What the device says of itself; signal -> why it is not recorded."""

    def stage(self) -> list[Ending]: ...
    def unstage(self) -> list[Ending]: ...
    def pre_scan(self) -> list[Ending]: ...
    def complete(self) -> list[Ending]: ...
    def trigger(self) -> Ending | None: ...
    def set(self, target: Any) -> Ending | None: ...
    def stop(self) -> None: ...
    def check_target(self, target: Any) -> None: ...
    def check_targets(self, targets: Sequence[float]) -> None: ...
    def permitted(self, func: str, *, assign: bool) -> Call: ...
    def call(self, call: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any: ...
    def info(self) -> DeviceInfoMessage: ...
    @property
    def position(self) -> float:
        """Where a positioner is now. Raises DeviceError if it does not say."""

    def kickoff(self, arguments: Mapping[str, Any]) -> list[Ending]:
        """Let a flyer go. Raises DeviceError if it is none."""

    def slow_down(self, velocity: float) -> Callable[[], None]:
        """Set a velocity, device units/s, unless the device's own is lower; what is to be called to have that again.

        Raises DeviceError if the device has none that can be set.
        """

    def watch(self, told: Callable[[], None]) -> Callable[[], None]:
        """Have `told()` called, on whatever thread, at each new position; what is to be called to end that."""

    def subscribe(self, changed: Callable[[str, Any, float], None]) -> None: ...
    def destroy(self) -> None: ...


class OphydAdapter:
    """An ophyd object (a Device or a Signal) with its configuration.

    state: "ready", "disabled" or "failed", then `error` says why and `obj` may be None. kind: its class, if `obj` is
    None and the class is known all the same.
    """

    def __init__(
        self,
        name: str,
        config: DeviceConfig,
        obj: Any,
        *,
        state: str = "ready",
        error: str = "",
        kind: type | None = None,
    ):
        self._kind = kind if obj is None else type(obj)
        self.name = name
        self.config = config
        self.obj = obj
        self.state = state
        self.error = error
        self.lacks = ""
        # What of `deviceConfig` the constructor did not take, and the reading made after connecting.
        self.leftover: dict[str, Any] = {}
        self.first_reading: Mapping[str, Mapping[str, Any]] | None = None
        self._soft_limits: tuple[float, float] | None = None
        self._subscriptions: list[tuple[Any, int]] = []
        self._components: frozenset[str] | None = None
        self._user_methods: frozenset[str] | None = None

    # What it is

    @property
    def read_only(self) -> bool:
        return self.config.readOnly

    @property
    def is_positioner(self) -> bool:
        """By its class: one of ophyd's positioners, or with `set` and `position` as they have. Limits make none."""
        from ophyd.positioner import PositionerBase

        kind = self._kind
        return kind is not None and (
            issubclass(kind, PositionerBase) or (hasattr(kind, "set") and hasattr(kind, "position"))
        )

    @property
    def role(self) -> str:
        """positioner, detector, monitor or signal."""
        from ophyd import Device, Signal

        obj = self.obj
        if self.is_positioner:
            return "positioner"
        if obj is None:
            return "signal"
        if isinstance(obj, Signal):
            return "signal"
        if self.config.softwareTrigger or self.has_own("trigger"):
            return "monitor" if "monitor" in type(obj).__name__.lower() else "detector"
        return (
            "monitor" if isinstance(obj, Device) and self.config.readoutPriority == "monitored" else "signal"
        )

    @property
    def unit(self) -> str:
        """Of the position or value: the device file's, else the device's own."""
        units = self.config.units
        if isinstance(units, str):
            return units
        if units and self.name in units:
            return units[self.name]
        said = getattr(self.obj, "egu", "")
        if isinstance(said, str) and said:
            return said
        return ""

    @property
    def limits(self) -> tuple[float, float] | None:
        """(low, high) in the device's unit, inclusive; None if it has none."""
        found = self._soft_limits
        if found is None:
            found = getattr(self.obj, "limits", None)
        try:
            low, high = (float(value) for value in found or ())
        except (TypeError, ValueError):
            return None
        return (low, high) if low < high else None

    def set_limits(self, limits: Sequence[float] | None) -> None:
        """Change the limits: those of the device where it lets itself be told, else of this adapter, which checks too.

        None or low >= high: no limits.
        """
        low, high = (0.0, 0.0) if limits is None else (float(limits[0]), float(limits[1]))
        obj, kind = self.obj, type(self.obj)
        prop = inspect.getattr_static(kind, "limits", None)
        if isinstance(prop, property) and prop.fset is not None:
            obj.limits = (low, high)
            self._soft_limits = None
            return
        if hasattr(obj, "low_limit_travel") and hasattr(obj, "high_limit_travel"):
            obj.low_limit_travel.put(low)
            obj.high_limit_travel.put(high)
        self._soft_limits = (low, high)

    def can(self, method: str) -> bool:
        return callable(getattr(type(self.obj), method, None))

    def has_own(self, method: str) -> bool:
        from ophyd.device import BlueskyInterface, Device

        found = getattr(type(self.obj), method, None)
        return found is not None and found not in (
            getattr(Device, method, None),
            getattr(BlueskyInterface, method, None),
        )

    def permitted(self, func: str, *, assign: bool) -> Call:
        """Raises DeviceError that lists what is allowed."""
        if self._components is None:
            self._components = frozenset(name for name, _ in self._parts())
        return permitted(
            self.name,
            func,
            assign=assign,
            user_access=self.user_access,
            components=self._components,
            methods=self._methods(),
        )

    @property
    def user_access(self) -> tuple[str, ...]:
        listed = getattr(type(self.obj), "USER_ACCESS", ())
        return tuple(name.removesuffix(".setter") for name in listed if isinstance(name, str))

    def info(self) -> DeviceInfoMessage:
        """What clients are told. Never raises: a device that cannot describe itself is published as it is."""
        config = self.config
        common: dict[str, Any] = {
            "name": self.name,
            "device_class": config.deviceClass,
            "state": self.state,
            "error": self.error,
            "config": config.as_raw(),
            "server": config.deviceServer,
        }
        if self.obj is None:
            limits = config.deviceConfig.get("limits")
            return DeviceInfoMessage(
                **common, role=self.role, limits=[float(value) for value in limits] if limits else None
            )
        try:
            description = dict(self.obj.describe()) if self.state == "ready" else {}
        except Exception as error:  # noqa: BLE001 - the device's fault; it is told, and the rest is still true
            log.warning("%s cannot describe itself: %s", self.name, error)
            description = {}
        limits = self._quietly(lambda: self.limits)
        return DeviceInfoMessage(
            **common,
            role=self.role,
            settable=hasattr(self.obj, "set"),
            signals=list(self._signal_infos(description)),
            methods=self._method_infos(),
            hints=self._hints(),
            limits=list(limits) if limits else None,
            unit=self._quietly(lambda: self.unit) or "",
            precision=self._precision(),
            doc=inspect.getdoc(type(self.obj)) or "",
        )

    # Reading

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        return self.obj.read()  # type: ignore[no-any-return]

    def reads(self) -> list[tuple[Read, tuple[str, ...]]]:
        """A Device that reads as ophyd's does is read signal by signal: the same values without its merging."""
        return [(read, tuple(describe())) for read, describe in self._leaves(self.obj)]

    def staged(self) -> tuple[StagedDevice, dict[str, str]]:
        description = self.obj.describe()
        needs_value = any(
            item.get("dtype") == "array" and not item.get("dtype_numpy") for item in description.values()
        )
        hints = self._hints()
        config = self.config
        signals, refused = readings.staged_signals(
            description,
            device=self.name,
            hinted=hints,
            units=config.units,
            default_unit=self.unit if self.is_positioner else "",
            reading=self.read() if needs_value else None,
        )
        limits = self.limits
        device = StagedDevice(
            name=self.name,
            signals=signals,
            role=self.role,
            device_class=config.deviceClass,
            description=config.description,
            hints=hints,
            limits=list(limits) if limits else None,
            configuration=self._configuration(),
            user_parameter=config.userParameter,
            files=readings.files_of(getattr(self.obj, "file_event", None)),
        )
        return device, refused

    # Doing

    def stage(self) -> list[Ending]:
        method = getattr(self.obj, "stage", None)
        return _endings(method()) if method is not None else []

    def unstage(self) -> list[Ending]:
        method = getattr(self.obj, "unstage", None)
        return _endings(method()) if method is not None else []

    def pre_scan(self) -> list[Ending]:
        method = getattr(self.obj, "pre_scan", None)
        return _endings(method()) if method is not None else []

    def complete(self) -> list[Ending]:
        method = getattr(self.obj, "complete", None)
        return _endings(method()) if method is not None and self.has_own("complete") else []

    def trigger(self) -> Ending | None:
        method = getattr(self.obj, "trigger", None)
        found = _endings(method()) if method is not None else []
        return found[0] if found else None

    def set(self, target: Any) -> Ending | None:
        status = self.obj.set(target)
        if status is None or (status.done and status.success):
            return None
        return status  # type: ignore[no-any-return]

    def stop(self) -> None:
        method = getattr(self.obj, "stop", None)
        if method is not None:
            method()

    @property
    def position(self) -> float:
        try:
            return float(self.obj.position)
        except (AttributeError, TypeError, ValueError) as error:
            raise DeviceError(
                f"{self.name} ({type(self.obj).__name__}) does not say where it is", device=self.name
            ) from error

    def kickoff(self, arguments: Mapping[str, Any]) -> list[Ending]:
        if not (self.has_own("kickoff") and self.has_own("complete")):
            raise DeviceError(
                f"{self.name} ({type(self.obj).__name__}) is no flyer: it has no kickoff and complete",
                code=ReasonCode.WRONG_STATE,
                device=self.name,
            )
        return _endings(self.obj.kickoff(**arguments))

    def slow_down(self, velocity: float) -> Callable[[], None]:
        signal: Any = getattr(self.obj, "velocity", None)
        if not hasattr(signal, "put"):
            raise DeviceError(
                f"{self.name} ({type(self.obj).__name__}) has no velocity that could be set",
                code=ReasonCode.WRONG_STATE,
                device=self.name,
            )
        before = float(signal.get())
        if velocity >= before > 0:
            # Its own velocity is the highest that whoever set it up wanted.
            return lambda: None
        signal.put(velocity)
        return lambda: signal.put(before)

    def watch(self, told: Callable[[], None]) -> Callable[[], None]:
        kind = getattr(self.obj, "SUB_READBACK", None)
        arguments = {} if kind is None else {"event_type": kind}
        number = self.obj.subscribe(lambda *_, **__: told(), run=False, **arguments)
        return lambda: self.obj.unsubscribe(number)

    def check_target(self, target: Any) -> None:
        """Raises DeviceError for a device that cannot be moved, LimitError with numbers, or what the device raises."""
        if self.read_only:
            raise DeviceError(
                f"{self.name} is read-only; change `readOnly` in its configuration to move it",
                code=ReasonCode.NOT_ALLOWED,
                device=self.name,
            )
        if not hasattr(self.obj, "set"):
            raise DeviceError(
                f"{self.name} ({type(self.obj).__name__}) cannot be set to a value", device=self.name
            )
        if isinstance(target, (int, float)) and not isinstance(target, bool):
            self.check_targets([target])
        check = getattr(self.obj, "check_value", None)
        if check is not None:
            check(target)

    def check_targets(self, targets: Sequence[float]) -> None:
        """Raises LimitError that names the first of the targets outside the limits."""
        limits = self.limits
        if limits is None or not targets:
            return
        low, high = limits
        if low <= min(targets) and max(targets) <= high:
            return
        worst = next(target for target in targets if not low <= target <= high)
        unit = f" {self.unit}" if self.unit else ""
        raise LimitError(
            f"{self.name} cannot move to {worst:.6g}{unit}: its limits are {low:.6g} to {high:.6g}{unit}. Choose a "
            f"position within them or change dev.{self.name}.limits.",
            device=self.name,
        )

    def call(self, call: Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Do it. The result is plain, or an `Ending` that is to be waited for.

        Raises what the device raises, and ParameterError for arguments that do not fit.
        """
        target = self.obj
        for part in call.path:
            target = getattr(target, part)
        at_root = target is self.obj
        what = ".".join((self.name, *call.path, call.verb))
        if call.assign:
            if len(args) != 1:
                raise ParameterError(f"{what} is set to one value, not {len(args)}")
            if at_root and call.verb in ASSIGNABLE:
                self._assign_limit(call.verb, args[0])
            else:
                setattr(target, call.verb, args[0])
            return None
        if call.verb in ASSIGNABLE and at_root:
            limits = self.limits
            if call.verb == "limits":
                return list(limits) if limits else None
            return limits[call.verb == "high_limit"] if limits else None
        if call.verb == "value":
            return _plain(target.get(), what)
        if at_root and call.verb == "read":
            return readings.plain_reading(self.read())
        if at_root and call.verb in ("set", "move", "put") and args:
            self.check_target(args[0])
        try:
            found = getattr(target, call.verb)
        except AttributeError as error:
            raise DeviceError(
                f"{self.name} ({type(self.obj).__name__}) has no {call.verb!r}", device=self.name
            ) from error
        if not callable(found) or _is_component(found):
            if args or kwargs:
                raise ParameterError(f"{what} is a value and takes no arguments")
            return _plain(found.get() if _is_component(found) else found, what)
        if call.verb in ("set", "move"):
            kwargs = {key: value for key, value in kwargs.items() if key != "wait"}
        try:
            inspect.signature(found).bind(*args, **kwargs)
        except TypeError as error:
            raise ParameterError(f"{what}{inspect.signature(found)}: {error}", device=self.name) from error
        except ValueError:
            pass
        result = found(*args, **kwargs)
        if _is_status(result):
            return result
        if call.verb in ("stage", "unstage", "stop"):
            return None
        if call.verb in ("read", "read_configuration") and isinstance(result, Mapping):
            return readings.plain_reading(result)
        return _plain(result, what)

    # Life

    def subscribe(self, changed: Callable[[str, Any, float], None]) -> None:
        """Have `changed(signal, value, timestamp)` called, on whatever thread, when a scalar signal changes."""
        for signal in self._subscribed():
            name = signal.name

            def callback(value: Any = None, timestamp: float = 0.0, name: str = name, **_: Any) -> None:
                changed(name, value, timestamp)

            try:
                self._subscriptions.append((signal, signal.subscribe(callback, run=False)))
            except Exception as error:  # noqa: BLE001 - a device without events is still a device
                log.warning("%s cannot be subscribed to: %s", name, error)

    def destroy(self) -> None:
        """Let go of the device. Its faults are logged."""
        for signal, number in self._subscriptions:
            self._quietly(signal.unsubscribe, number)
        self._subscriptions = []
        if self.obj is not None and hasattr(self.obj, "destroy"):
            self._quietly(self.obj.destroy)

    # Inside

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Dotted name and object of all signals and sub-devices that exist already."""
        from ophyd import Device

        if not isinstance(self.obj, Device):
            return
        for walk in self.obj.walk_signals(include_lazy=False):
            yield walk.dotted_name, walk.item
        yield from self.obj.walk_subdevices(include_lazy=False)

    def _leaves(self, obj: Any) -> Iterator[tuple[Read, Callable[[], Mapping[str, Any]]]]:
        from ophyd import Device, Kind

        if not isinstance(obj, Device) or type(obj).read is not Device.read:
            yield obj.read, obj.describe
            return
        if type(obj).describe is not Device.describe:
            yield obj.read, obj.describe
            return
        for _, component in obj._get_components_of_kind(Kind.normal):
            yield from self._leaves(component)

    def _subscribed(self) -> Iterator[Any]:
        from ophyd import Kind, Signal

        if isinstance(self.obj, Signal):
            yield self.obj
            return
        found = False
        for _, signal in self._parts():
            if isinstance(signal, Signal) and signal.kind & Kind.normal:
                found = True
                yield signal
        if not found and getattr(self.obj, "_default_sub", None):
            yield self.obj

    def _methods(self) -> frozenset[str]:
        """Names in USER_ACCESS that are methods."""
        if self._user_methods is None:
            found = set()
            for name in self.user_access:
                head, _, rest = name.rpartition(".")
                owner: Any = self.obj
                if head:
                    owner = self._quietly(_follow, self.obj, head)
                static = inspect.getattr_static(type(owner), rest, None) if owner is not None else None
                is_method = (
                    static is None or callable(static) or isinstance(static, (staticmethod, classmethod))
                )
                if is_method and not _is_component_class(static):
                    found.add(name)
            self._user_methods = frozenset(found)
        return self._user_methods

    def _method_infos(self) -> list[MethodInfo]:
        methods = self._methods()
        infos = []
        for name in self.user_access:
            head, _, last = name.rpartition(".")
            owner = self._quietly(_follow, self.obj, head) if head else self.obj
            static = inspect.getattr_static(type(owner), last, None)
            if _is_component_class(static):
                continue
            doc = inspect.getdoc(static) or "" if static is not None else ""
            if name in methods:
                signature = self._quietly(_signature, owner, last)
                infos.append(MethodInfo(name=name, kind="method", signature=signature or "(...)", doc=doc))
            else:
                writable = isinstance(static, property) and static.fset is not None
                infos.append(MethodInfo(name=name, kind="property", doc=doc, writable=writable))
        return infos

    def _signal_infos(self, description: Mapping[str, Mapping[str, Any]]) -> Iterator[SignalInfo]:
        from ophyd import Device, Signal

        parts = [("", self.obj)] if not isinstance(self.obj, Device) else list(self._parts())
        default_unit = (self._quietly(lambda: self.unit) or "") if self.is_positioner else ""
        for dotted, signal in parts:
            if not isinstance(signal, Signal):
                continue
            item = description.get(signal.name) or {}
            if not item and self.state == "ready":
                item = (self._quietly(signal.describe) or {}).get(signal.name, {})
            yield SignalInfo(
                name=dotted,
                obj_name=signal.name,
                kind=_kind_name(signal.kind),
                unit=readings.unit_of(
                    signal.name,
                    item,
                    self.config.units,
                    default_unit if readings.is_position(signal.name, self.name) else "",
                ),
                dtype=readings.dtype_of(item) if item else "float64",
                shape=[int(length) for length in item.get("shape") or ()],
                writable=bool(self._quietly(getattr, signal, "write_access")),
                doc=str(getattr(signal, "doc", "") or ""),
            )

    def _hints(self) -> list[str]:
        from ophyd import Signal

        hints = self._quietly(lambda: self.obj.hints) or {}
        fields = list(hints.get("fields", ())) if isinstance(hints, Mapping) else []
        return fields or ([self.obj.name] if isinstance(self.obj, Signal) else [])

    def _precision(self) -> int | None:
        value = self._quietly(lambda: getattr(self.obj, "precision", None))
        return int(value) if isinstance(value, (int, float)) and value >= 0 else None

    def _configuration(self) -> dict[str, Any]:
        from ophyd import Signal

        if isinstance(self.obj, Signal):
            # A signal's configuration is, to ophyd, its value: that is in the readings already.
            return {}
        return readings.configuration(
            self.obj.read_configuration(), self.obj.describe_configuration(), self.config.units
        )

    def _assign_limit(self, verb: str, value: Any) -> None:
        if verb == "limits":
            try:
                self.set_limits(None if value is None else (float(value[0]), float(value[1])))
            except (TypeError, ValueError, IndexError) as error:
                raise ParameterError(
                    f"{self.name}.limits must be [low, high], two numbers, not {value!r}"
                ) from error
            return
        low, high = self.limits or (0.0, 0.0)
        self.set_limits((low, float(value)) if verb == "high_limit" else (float(value), high))

    def _quietly(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """The answer, or None if the device raises."""
        try:
            return ask(*arguments)
        except Exception as error:  # noqa: BLE001 - the device's fault, in something that is not essential
            log.debug("%s: %s", self.name, error)
            return None


def _endings(result: Any) -> list[Ending]:
    """What is still to be waited for, of a status, a list of statuses or devices, or nothing."""
    if result is None:
        return []
    items = result if isinstance(result, (list, tuple)) else [result]
    return [item for item in items if _is_status(item) and not (item.done and item.success)]


def _is_status(value: Any) -> bool:
    return hasattr(value, "add_callback") and hasattr(value, "done")


def _is_component(value: Any) -> bool:
    from ophyd.ophydobj import OphydObject

    return isinstance(value, OphydObject)


def _is_component_class(value: Any) -> bool:
    from ophyd import Component

    return isinstance(value, Component)


def _follow(obj: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        obj = getattr(obj, part)
    return obj


def _signature(owner: Any, name: str) -> str:
    """As text. Annotations that are texts already are shown without their quotes."""
    found = inspect.signature(getattr(owner, name))
    parameters = [
        parameter.replace(annotation=_Bare(parameter.annotation))
        if isinstance(parameter.annotation, str)
        else parameter
        for parameter in found.parameters.values()
    ]
    returns = found.return_annotation
    return str(
        found.replace(
            parameters=parameters, return_annotation=_Bare(returns) if isinstance(returns, str) else returns
        )
    )


class _Bare:
    """An annotation that is shown as it was written."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _plain(value: Any, what: str) -> Any:
    return readings.sendable(value, what)


def _kind_name(kind: Any) -> str:
    from ophyd import Kind

    if kind & Kind.hinted == Kind.hinted:
        return "hinted"
    return "normal" if kind & Kind.normal else "config" if kind & Kind.config else "omitted"
