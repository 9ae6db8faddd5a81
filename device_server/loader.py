"""From device configurations to devices: which class, with which arguments, connected or not, and what failed.

Everything is tried, all failures are collected and told at once; a device that fails never takes others with it.
Owned by the thread that runs a session change; the devices in force are replaced in one step by `commit`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from bec_lib.devices import DeviceConfig, build_order, validate_devices
from bec_lib.errors import BECError, ConfigError
from bec_lib.plugins import DEVICES, import_object, load_plugins
from device_server import failures
from device_server.adapter import DeviceAdapter, OphydAdapter
from device_server.sources import Sources, package_of

log = logging.getLogger(__name__)

# How many devices are connected at the same time, each in a thread of its own.
CONNECT_THREADS = 48
# A connect that does not obey its own timeout is given up this much later, seconds.
GRACE_S = 1.0
# Understood for every class, not handed to constructors that do not take them.
SPECIAL_KEYS = frozenset({"limits", "labels", "name", "device_access", "device_mapping"})


class DeviceEntry:
    """A device as other devices see it by `device_manager.devices`: BEC's attributes, else those of the object."""

    def __init__(self, adapter: OphydAdapter):
        self._adapter = adapter

    @property
    def obj(self) -> Any:
        return self._adapter.obj

    @property
    def name(self) -> str:
        return self._adapter.name

    @property
    def enabled(self) -> bool:
        return self._adapter.config.enabled

    @property
    def read_only(self) -> bool:
        return self._adapter.config.readOnly

    @property
    def user_parameter(self) -> dict[str, Any]:
        return self._adapter.config.userParameter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter.obj, name)


class Devices:
    """The devices in force, and while a session is prepared those that will be, by name."""

    def __init__(self) -> None:
        self.in_force: dict[str, OphydAdapter] = {}
        self.preparing: dict[str, OphydAdapter] = {}

    def get(self, name: str, default: Any = None) -> Any:
        adapter = self.preparing.get(name) or self.in_force.get(name)
        return default if adapter is None or adapter.obj is None else DeviceEntry(adapter)

    def __getitem__(self, name: str) -> DeviceEntry:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> DeviceEntry:
        found = self.get(name)
        if found is None:
            raise AttributeError(f"there is no device {name!r} in the session")
        return found  # type: ignore[no-any-return]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter({**self.in_force, **self.preparing})

    def keys(self) -> list[str]:
        return list(self)


class DeviceManager:
    """What a device class gets that names `device_manager` in its constructor."""

    def __init__(self) -> None:
        self.devices = Devices()
        self.connector = SimpleNamespace()

    @property
    def current_session(self) -> dict[str, Any]:
        """BEC's form of the session."""
        return {
            "devices": [
                {"name": name, **adapter.config.as_raw()} for name, adapter in self.devices.in_force.items()
            ]
        }


class ScanInfo:
    """What a device class gets that names `scan_info` in its constructor: `msg` is the scan it is staged for."""

    def __init__(self) -> None:
        self.msg: Any = None

    def begin(self, scan_id: str, scan_name: str, scan_number: int, values: Mapping[str, Any]) -> None:
        """The scan that is being staged; values: `StageDevices.scan_info`."""
        parameters = dict(values.get("scan_parameters") or {})
        for name in ("exp_time", "frames_per_trigger", "settling_time"):
            if name in values:
                parameters.setdefault(name, values[name])
        given = {key: value for key, value in values.items() if key != "scan_parameters"}
        self.msg = SimpleNamespace(
            **{
                "num_points": None,
                "info": {},
                "request_inputs": {},
                **given,
                "scan_id": scan_id,
                "scan_name": scan_name,
                "scan_number": scan_number,
                "scan_parameters": parameters,
            }
        )


@dataclass
class Prepared:
    """A session that could be put into force. failed: name -> sentence; such devices are in `adapters`, too. kept: those
    that were to be built anew and stay as they were -> why. scrapped: what was built in vain.
    """

    adapters: dict[str, OphydAdapter] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    scrapped: list[OphydAdapter] = field(default_factory=list)

    def forget(self, name: str) -> None:
        """It is to be looked at again."""
        adapter = self.adapters.pop(name, None)
        self.failed.pop(name, None)
        self.kept.pop(name, None)
        if name in self.fresh:
            self.fresh.remove(name)
            if adapter is not None:
                self.scrapped.append(adapter)

    @property
    def ready(self) -> list[str]:
        return [name for name, adapter in self.adapters.items() if adapter.state != "failed"]


class Loader:
    """Builds and connects. server: the name of this device server; devices of others are not built."""

    def __init__(self, server: str, manager: DeviceManager, scan_info: ScanInfo):
        self._server = server
        self._manager = manager
        self._scan_info = scan_info
        self._aliases: dict[str, Any] | None = None
        self._sources = Sources()

    @property
    def in_force(self) -> dict[str, OphydAdapter]:
        return self._manager.devices.in_force

    def prepare(
        self,
        raw: Mapping[str, Any],
        changed: Collection[str] | None = None,
        *,
        rebuild: Collection[str] = (),
        others: Mapping[str, str] | None = None,
        in_use: Mapping[str, str] | None = None,
        earlier: Prepared | None = None,
    ) -> Prepared:
        """Build and connect what is new or changed; devices whose configuration allows it are kept as they are.

        raw: the whole session. changed: names that the change is about; None: all. A device that failed earlier is
        tried again if the change is about it. rebuild: names to build anew in any case, from the source of their classes
        as it is now. others: devices of other servers -> why they failed, empty if they did not. in_use: device -> who
        has it, of those that are not to be rebuilt now. earlier: what was prepared of the same session before.
        Blocks up to the longest connectionTimeout, once for each device that needs another in a row. Never raises for a
        device's fault.
        """
        others = others or {}
        prepared = earlier or Prepared()
        for name in changed or () if earlier else ():
            prepared.forget(name)
        configs = self._validated(raw, prepared, others)
        mine = {name: config for name, config in configs.items() if config.deviceServer == self._server}
        todo = [name for name in mine if name not in prepared.adapters]
        rebuild = _with_dependents(rebuild, mine)
        self._renew({name: mine[name] for name in todo if name in rebuild}, in_use or {}, prepared)
        self._manager.devices.preparing = prepared.adapters
        try:
            for names in _in_waves(todo, mine):
                for name in names:
                    again = changed is None or name in changed
                    self._build(name, mine, prepared, others, again=again, rebuild=name in rebuild)
                self._connect([name for name in names if name in prepared.fresh], prepared, rebuild)
        finally:
            self._manager.devices.preparing = {}
        # In the order of the configuration, which is that in which people see them.
        prepared.adapters = {name: prepared.adapters[name] for name in raw if name in prepared.adapters}
        return prepared

    def commit(
        self, prepared: Prepared, raw: Mapping[str, Any], *, whole: bool = False
    ) -> list[OphydAdapter]:
        """Put prepared devices into force; those that are in force no more, still to be destroyed.

        whole: the session was loaded as a whole, so limits that somebody changed meanwhile are the file's again.
        """
        old = self._manager.devices.in_force
        for name, adapter in prepared.adapters.items():
            if name not in prepared.fresh:
                config = validate_devices({name: {**raw[name], "needs": []}})[name]
                _apply_update(adapter, config, limits_again=whole)
        self._manager.devices.in_force = dict(prepared.adapters)
        dropped = [adapter for name, adapter in old.items() if prepared.adapters.get(name) is not adapter]
        return dropped + prepared.scrapped

    def discard(self, prepared: Prepared) -> list[OphydAdapter]:
        """What was built for a session that will not be; still to be destroyed."""
        fresh = [prepared.adapters[name] for name in prepared.fresh if name in prepared.adapters]
        return fresh + prepared.scrapped

    # Inside

    def _validated(
        self, raw: Mapping[str, Any], prepared: Prepared, others: Collection[str]
    ) -> dict[str, DeviceConfig]:
        """Those that are right; others are put down as failed, so that one wrong entry does not hide the rest."""
        elsewhere = {
            name: [other for other in _needs_of(fields) if other in others and other not in raw]
            for name, fields in raw.items()
        }
        here = {
            name: {**fields, "needs": [n for n in _needs_of(fields) if n not in elsewhere[name]]}
            if elsewhere[name]
            else fields
            for name, fields in raw.items()
        }
        configs = self._validated_alone(here, prepared)
        for name, config in configs.items():
            if elsewhere[name]:
                configs[name] = config.model_copy(update={"needs": [*config.needs, *elsewhere[name]]})
        return configs

    def _validated_alone(self, raw: Mapping[str, Any], prepared: Prepared) -> dict[str, DeviceConfig]:
        try:
            return validate_devices(raw)
        except ConfigError:
            pass
        configs: dict[str, DeviceConfig] = {}
        for name, fields in raw.items():
            try:
                alone = {**fields, "needs": []} if isinstance(fields, Mapping) else fields
                configs[name] = validate_devices({name: alone}, source=name)[name]
                missing = [other for other in fields.get("needs") or [] if other not in raw]
                if missing:
                    raise ConfigError(f"{name} needs {', '.join(missing)}, which is not in the configuration")
            except ConfigError as error:
                configs.pop(name, None)
                prepared.failed[name] = str(error)
                continue
            if fields.get("needs"):
                configs[name] = configs[name].model_copy(update={"needs": list(fields["needs"])})
        # What needs a wrong one, or goes in circles, cannot be built either.
        while True:
            lost = {n for n, c in configs.items() if any(other not in configs for other in c.needs)}
            if not lost:
                break
            for name in lost:
                missing = [other for other in configs[name].needs if other not in configs]
                prepared.failed[name] = f"{name} needs {', '.join(missing)}, which cannot be loaded"
                del configs[name]
        try:
            build_order(configs)
        except ConfigError as error:
            for name in [n for n, c in configs.items() if c.needs]:
                prepared.failed[name] = str(error)
                del configs[name]
        return configs

    def _renew(
        self, rebuild: Mapping[str, DeviceConfig], in_use: Mapping[str, str], prepared: Prepared
    ) -> None:
        """Import the classes of devices again that are to be built anew. Those that cannot be are put down as kept."""
        if not rebuild:
            return
        packages = {name: self._package(name, config) for name, config in rebuild.items()}
        classes = {config.deviceClass for config in rebuild.values() if "." in config.deviceClass}
        stay = self._sources.renew(packages.values(), classes)
        self._aliases = None
        for name in rebuild:
            if name in in_use:
                prepared.kept[name] = f"it is held by {in_use[name]}; stop that first"
            elif packages[name] in stay:
                prepared.kept[name] = stay[packages[name]]
        # What those need must not be taken from below them.
        names = list(prepared.kept)
        for name in names:
            if name not in self.in_force:
                continue
            for other in self.in_force[name].config.needs:
                if other in rebuild and other not in prepared.kept:
                    prepared.kept[other] = f"{name} needs it, and is not built anew"
                    names.append(other)

    def _package(self, name: str, config: DeviceConfig) -> str:
        running = self.in_force.get(name)
        if "." in config.deviceClass or running is None or running.obj is None:
            return package_of(config.deviceClass)
        return package_of(type(running.obj).__module__)

    def _build(
        self,
        name: str,
        mine: Mapping[str, DeviceConfig],
        prepared: Prepared,
        others: Mapping[str, str],
        *,
        again: bool,
        rebuild: bool,
    ) -> None:
        config, running = mine[name], self.in_force.get(name)
        rebuilt = any(other in prepared.fresh for other in config.needs)
        if running is not None and running.state == "failed" and not (again or rebuilt):
            prepared.adapters[name] = running
            prepared.failed[name] = running.error
            return
        if (
            running is not None
            and running.state != "failed"
            and not rebuilt
            and (not rebuild or name in prepared.kept)
            and _may_stay(running.config, config)
        ):
            prepared.adapters[name] = running
            return
        why = prepared.kept.pop(name, "")
        prepared.fresh.append(name)
        kind: Any = None
        lacks = ""
        try:
            if why:
                raise ConfigError(why)
            for other in config.needs:
                needed = prepared.adapters.get(other) if other in mine else None
                problem = others.get(other, "") if needed is None else needed.error
                if problem:
                    lacks = other if needed is None else ""
                    raise ConfigError(f"{name} needs {other}, which failed: {problem}")
            kind = self._class(config.deviceClass)
            self._sources.note([package_of(getattr(kind, "__module__", ""))])
            obj, leftover = self._construct(name, config, kind)
        except Exception as error:
            text = _building_sentence(error, name, config)
            log.warning("%s", text, exc_info=not isinstance(error, BECError))
            known = kind if inspect.isclass(kind) else None
            failed = OphydAdapter(name, config, None, state="failed", error=text, kind=known)
            failed.lacks = lacks
            prepared.adapters[name] = failed
            prepared.failed[name] = text
            if rebuild:
                self._fall_back(name, prepared)
            return
        adapter = OphydAdapter(name, config, obj, state="ready" if config.enabled else "disabled")
        adapter.leftover = leftover
        prepared.adapters[name] = adapter

    def _connect(self, names: Sequence[str], prepared: Prepared, rebuild: Collection[str]) -> None:
        """Those of these that are built, side by side."""
        built = [prepared.adapters[name] for name in names if prepared.adapters[name].state == "ready"]
        for adapter, problem in connect_all(built):
            adapter.state, adapter.error = "failed", problem
            prepared.failed[adapter.name] = problem
            if adapter.name in rebuild:
                self._fall_back(adapter.name, prepared)

    def _fall_back(self, name: str, prepared: Prepared) -> None:
        """A device that could not be built anew stays as it was, if it still works."""
        new, running = prepared.adapters[name], self.in_force.get(name)
        if (
            running is None
            or running.state == "failed"
            or not _may_stay(running.config, new.config)
            or any(other in prepared.fresh for other in new.config.needs)
            or not _still_works(running)
        ):
            return
        prepared.kept[name] = prepared.failed.pop(name)
        prepared.adapters[name] = running
        prepared.fresh.remove(name)
        if new.obj is not None:
            prepared.scrapped.append(new)

    def _construct(self, name: str, config: DeviceConfig, cls: Any) -> tuple[Any, dict[str, Any]]:
        """The object, and what of deviceConfig is to be applied after connecting."""
        from ophyd.ophydobj import OphydObject

        if not _is_subclass(cls, OphydObject):
            raise ConfigError(
                f"{config.deviceClass} is no device class (a subclass of ophyd's Device or Signal)",
                device=name,
            )
        parameters = constructor_parameters(cls)
        arguments = {
            key: value for key, value in config.deviceConfig.items() if key in parameters and key != "name"
        }
        leftover = {
            key: value
            for key, value in config.deviceConfig.items()
            if key not in parameters and key not in SPECIAL_KEYS
        }
        for key in leftover:
            if not hasattr(cls, key):
                known = sorted({*parameters, *_components(cls)} - {"self", "name", "parent"})
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise ConfigError(
                    f"deviceConfig has {key!r}, which {config.deviceClass} does not take{hint}",
                    device=name,
                )
        if "limits" in config.deviceConfig and "limits" not in parameters:
            leftover["limits"] = config.deviceConfig["limits"]
        if "device_manager" in parameters:
            arguments["device_manager"] = self._manager
        if "scan_info" in parameters:
            arguments["scan_info"] = self._scan_info
        use_control_layer_for(cls)
        try:
            return cls(name=name, **arguments), leftover
        except NotImplementedError as error:
            # Signals of EPICS that a constructor makes cannot be seen in the class.
            if "control layer" not in str(error) or not use_epics():
                raise
            return cls(name=name, **arguments), leftover

    def _class(self, path: str) -> Any:
        module, _, last = path.rpartition(".")
        if module and module.split(".")[0] != "ophyd_devices":
            return import_object(path)
        if module:
            try:
                return import_object(path)
            except BECError:
                # The simulated classes of BEC's device library under their own names, where it is not installed.
                if last in self._known_names():
                    return self._known_names()[last]
                raise
        found = self._known_names()
        if path in found:
            return found[path]
        close = difflib.get_close_matches(path, found, n=1)
        raise ConfigError(
            f"there is no device class {path!r}{f'; did you mean {close[0]!r}?' if close else ''} (write package.module.Class, "
            f"or one of {', '.join(sorted(found))})"
        )

    def _known_names(self) -> dict[str, Any]:
        if self._aliases is None:
            self._aliases = {}
            plugins, failed = load_plugins(DEVICES)
            for name, why in failed.items():
                log.warning("device plugin %s: %s", name, why)
            for plugin in plugins:
                if inspect.isclass(plugin.value):
                    self._aliases[plugin.name] = plugin.value
                    continue
                self._aliases.update(getattr(plugin.value, "CLASSES", {}))
                for name in getattr(plugin.value, "__all__", ()):
                    value = getattr(plugin.value, name, None)
                    if inspect.isclass(value):
                        self._aliases.setdefault(name, value)
        return self._aliases


# Connecting


def connect_all(adapters: list[OphydAdapter]) -> list[tuple[OphydAdapter, str]]:
    """Connect in parallel, each within its connectionTimeout; those that failed, with the reason in one sentence."""
    failed: list[tuple[OphydAdapter, str]] = []
    slow: list[OphydAdapter] = []
    for adapter in adapters:
        if not _is_connected(adapter.obj):
            slow.append(adapter)
            continue
        problem = connect(adapter)
        if problem:
            failed.append((adapter, problem))
    if not slow:
        return failed
    work: queue.SimpleQueue[OphydAdapter] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[OphydAdapter, str]] = queue.SimpleQueue()
    for adapter in slow:
        work.put(adapter)

    def worker() -> None:
        enter_thread()
        while True:
            try:
                adapter = work.get_nowait()
            except queue.Empty:
                return
            results.put((adapter, connect(adapter)))

    threads = min(len(slow), CONNECT_THREADS)
    for number in range(threads):
        threading.Thread(target=worker, name=f"connect-{number + 1}", daemon=True).start()
    rounds = -(-len(slow) // threads)
    deadline = time.monotonic() + rounds * max(a.config.connectionTimeout for a in slow) + GRACE_S
    waiting = {id(adapter): adapter for adapter in slow}
    while waiting:
        try:
            adapter, problem = results.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        waiting.pop(id(adapter), None)
        if problem:
            failed.append((adapter, problem))
    for adapter in waiting.values():
        failed.append((adapter, _late(adapter)))
    return failed


def connect(adapter: OphydAdapter) -> str:
    """Connect one device and apply what its constructor did not take; why it failed, or nothing."""
    name, obj = adapter.name, adapter.obj
    try:
        if hasattr(obj, "wait_for_connection"):
            obj.wait_for_connection(timeout=adapter.config.connectionTimeout)
        if callable(getattr(obj, "on_connected", None)):
            obj.on_connected()
    except TimeoutError as error:
        text = " ".join(str(error).split())
        late = _late(adapter)
        silent = _silent_pvs(obj)
        if silent:
            # ophyd names every signal and what waits for it, a page for one motor record.
            others = f" and {len(silent) - 1} other PVs do" if len(silent) > 1 else " does"
            return f"{late}: {silent[0]}{others} not answer"
        return late if not text or text.startswith(late) else f"{late} ({text})"
    except Exception as error:
        log.warning("%s", name, exc_info=True)
        return failures.sentence(error, name, "be connected")
    for key, value in adapter.leftover.items():
        try:
            _apply(adapter, key, value)
        except Exception as error:
            log.warning("%s", name, exc_info=True)
            return f"{name} cannot take deviceConfig {key}={value!r}: {error}"
    try:
        adapter.first_reading = dict(adapter.read())
    except Exception as error:  # noqa: BLE001 - it may work later; whoever reads it then is told
        log.warning("%s", failures.sentence(error, name, "be read after connecting"))
    return ""


def _in_waves(names: Sequence[str], mine: Mapping[str, DeviceConfig]) -> list[list[str]]:
    """The names so that what a device needs comes in an earlier wave."""
    here = {
        name: config.model_copy(update={"needs": [other for other in config.needs if other in mine]})
        for name, config in mine.items()
    }
    depth: dict[str, int] = {}
    for name in build_order(here):
        depth[name] = 1 + max((depth[other] for other in here[name].needs), default=-1)
    waves: dict[int, list[str]] = {}
    for name in names:
        waves.setdefault(depth[name], []).append(name)
    return [waves[number] for number in sorted(waves)]


def _with_dependents(names: Collection[str], mine: Mapping[str, DeviceConfig]) -> frozenset[str]:
    """These, and all that need them."""
    found = frozenset(names)
    while found:
        more = {
            name for name, config in mine.items() if name not in found and not found.isdisjoint(config.needs)
        }
        if not more:
            break
        found |= more
    return found


def _needs_of(fields: Any) -> list[str]:
    found = fields.get("needs") if isinstance(fields, Mapping) else None
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _still_works(adapter: OphydAdapter) -> bool:
    try:
        return adapter.state == "disabled" or bool(getattr(adapter.obj, "connected", True))
    except Exception:  # noqa: BLE001 - a device that cannot say so does not
        return False


def _is_connected(obj: Any) -> bool:
    """Whether there is nothing to wait for, and the class does not connect in a way of its own."""
    from ophyd import Device, Signal

    own = getattr(type(obj), "wait_for_connection", None)
    return (
        own in (Device.wait_for_connection, Signal.wait_for_connection, None)
        and not hasattr(obj, "on_connected")
        and bool(obj.connected)
    )


def _silent_pvs(obj: Any) -> list[str]:
    """The EPICS names of those signals of a device, or of a signal, that are not connected."""
    try:
        signals = [entry.item for entry in obj.walk_signals()] if hasattr(obj, "walk_signals") else [obj]
        names = [getattr(signal, "pvname", None) for signal in signals if not signal.connected]
    except Exception:  # noqa: BLE001 - a device that cannot say so; its own words are told then
        return []
    return [name for name in names if isinstance(name, str)]


def _late(adapter: OphydAdapter) -> str:
    return f"{adapter.name} did not connect within {adapter.config.connectionTimeout:g} s"


def _apply(adapter: OphydAdapter, key: str, value: Any) -> None:
    if key == "limits":
        adapter.set_limits(value)
        return
    target = getattr(adapter.obj, key)
    if hasattr(target, "put") and hasattr(target, "read"):
        target.put(value)
    elif callable(target):
        raise ConfigError(f"{key} is a method")
    else:
        setattr(adapter.obj, key, value)


# Changing a running device


def _may_stay(old: DeviceConfig, new: DeviceConfig) -> bool:
    """Whether a change leaves the object as it is."""

    def fixed(config: DeviceConfig) -> tuple[Any, ...]:
        arguments = {key: value for key, value in config.deviceConfig.items() if key != "limits"}
        return config.deviceClass, config.enabled, config.deviceServer, config.needs, arguments

    return fixed(old) == fixed(new)


def _apply_update(adapter: OphydAdapter, config: DeviceConfig, *, limits_again: bool) -> None:
    before, adapter.config = adapter.config, config.model_copy(update={"needs": adapter.config.needs})
    limits = config.deviceConfig.get("limits")
    changed = limits != before.deviceConfig.get("limits")
    if adapter.state == "ready" and (changed or (limits_again and limits is not None)):
        adapter.set_limits(limits)


# Classes


@functools.cache
def constructor_parameters(cls: Any) -> frozenset[str]:
    """Names that the constructor takes, those of its bases included as far as it passes keywords on."""
    names: set[str] = set()
    for kind in cls.__mro__:
        init = kind.__dict__.get("__init__")
        if init is None:
            continue
        try:
            parameters = inspect.signature(init).parameters.values()
        except (TypeError, ValueError):
            break
        names.update(
            parameter.name
            for parameter in parameters
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        )
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return frozenset(names - {"self"})


def _is_subclass(value: Any, parent: type) -> bool:
    return inspect.isclass(value) and issubclass(value, parent)


def _components(cls: Any) -> list[str]:
    return list(getattr(cls, "component_names", ()))


def _building_sentence(error: BaseException, name: str, config: DeviceConfig) -> str:
    if isinstance(error, BECError):
        text = str(error)
        return text if text.startswith(f"{name}") else f"{name} cannot be built: {text}"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{name} cannot be built: {config.deviceClass} raised {type(error).__name__}: {text}"


# ophyd's control layer


def import_ophyd() -> None:
    """Import ophyd without EPICS, which starts eight threads; `use_epics` brings it in when a device wants it."""
    os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")
    # Each Status would otherwise open a span for a collector that is not there.
    os.environ.setdefault("OTEL_SDK_DISABLED", "true")
    # ophyd's area detectors import it (a third of ophyd's import time) for a drawing that hardly anybody makes.
    with _left_out("networkx"):
        import ophyd

    logging.getLogger("ophyd").setLevel(logging.WARNING)
    log.debug("ophyd %s with control layer %s", ophyd.__version__, ophyd.cl.name)


class _Later(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _left_out(name: str) -> Iterator[None]:
    """Modules that are imported within get a stand-in for `name`; who imports it afterwards gets the real one."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = _Later(name)
    try:
        yield
    finally:
        del sys.modules[name]


def use_control_layer_for(cls: Any) -> None:
    """Bring in EPICS if the class has signals of it."""
    if needs_epics(cls):
        use_epics()


def use_epics() -> bool:
    """Switch to the real control layer; whether there was anything to switch."""
    import ophyd

    if ophyd.cl.name != "dummy":
        return False
    ophyd.set_cl("any" if os.environ.get("OPHYD_CONTROL_LAYER") == "dummy" else None)
    return ophyd.cl.name != "dummy"


@functools.cache
def needs_epics(cls: Any) -> bool:
    """Whether the class or one of its components talks to EPICS."""
    from ophyd import Component
    from ophyd.signal import EpicsSignalBase

    if issubclass(cls, EpicsSignalBase):
        return True
    components = getattr(cls, "_sig_attrs", {}).values()
    return any(
        needs_epics(component.cls)
        for component in components
        if isinstance(component, Component) and _is_subclass(component.cls, object)
    )


def enter_thread() -> None:
    """To be called by each thread that uses devices: EPICS wants to know them."""
    import ophyd

    if ophyd.cl is not None and ophyd.cl.name == "pyepics":
        import epics

        epics.ca.use_initial_context()


def destroy_all(adapters: Sequence[DeviceAdapter], then: Callable[[], None] = lambda: None) -> None:
    """Let go of devices in a thread of its own: it may take long, and nobody waits for it."""
    if not adapters:
        return

    def run() -> None:
        enter_thread()
        for adapter in adapters:
            adapter.destroy()
        then()

    threading.Thread(target=run, name="destroy", daemon=True).start()
