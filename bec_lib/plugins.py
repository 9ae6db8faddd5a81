"""Finding plugins: entry points of a group, each loaded on its own, each failure named.

Our own scans, formats, models and devices come through the same door as everybody's.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from bec_lib.errors import PluginError

SCANS = "bec.scans"
SCAN_MODIFIERS = "bec.scan_modifiers"
DEVICES = "bec.devices"
FILE_FORMATS = "bec.file_formats"
MODELS = "bec.models"
STATES = "bec.states"
# Our own packages, which are never imported again.
OURS = frozenset(
    {
        "bec_lib",
        "scan_server",
        "device_server",
        "scan_bundler",
        "file_writer",
        "scihub_connector",
        "data_pipeline",
        "bec_client",
        "deploy",
    }
)


@dataclass(frozen=True)
class Plugin:
    """What an entry point gave: `value` is the module or object that it names. `origin`: its distribution and
    value, for messages.
    """

    name: str
    value: Any
    origin: str


def load_plugins(
    group: str,
    found: Iterable[EntryPoint] | None = None,
    *,
    around: Callable[[EntryPoint], AbstractContextManager[Any]] = nullcontext,
    without: Mapping[str, str] | None = None,
) -> tuple[list[Plugin], dict[str, str]]:
    """All plugins of a group, and plugin name -> why it could not be loaded.

    around: what holds while one of them is imported. without: name -> why it is not even tried.

    Never raises for a plugin's fault, not even for its SystemExit; two entry points of one name are both
    refused.
    """
    points = sorted(
        entry_points(group=group) if found is None else found, key=lambda point: (point.name, point.value)
    )
    loaded: list[Plugin] = []
    failed: dict[str, str] = {}
    names = [point.name for point in points]
    for point in points:
        origin = f"{point.dist.name if point.dist else 'unknown distribution'} ({point.value})"
        if names.count(point.name) > 1 and len({p.value for p in points if p.name == point.name}) > 1:
            failed[point.name] = f"several plugins of {group} are called {point.name!r}; rename all but one"
            continue
        if any(plugin.name == point.name for plugin in loaded):
            continue
        if without and point.name in without:
            failed[point.name] = f"{origin} was not loaded: {without[point.name]}"
            continue
        try:
            with around(point):
                loaded.append(Plugin(point.name, point.load(), origin))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, even SystemExit
            failed[point.name] = f"{origin} cannot be loaded: {type(error).__name__}: {error}"
    return loaded, failed


def classes_in(value: Any, parent: type) -> list[type]:
    """Subclasses of `parent` that a plugin offers: the class itself, or those that a module exports.

    A module exports what its `__all__` lists, else what is defined in it or below it; abstract classes and
    private names are left out.
    """
    if inspect.isclass(value):
        return [value] if issubclass(value, parent) else []
    if not isinstance(value, ModuleType):
        return []
    exported = getattr(value, "__all__", None)
    members = (
        [(name, getattr(value, name)) for name in exported]
        if exported is not None
        else inspect.getmembers(value)
    )
    return [
        member
        for name, member in members
        if inspect.isclass(member)
        and issubclass(member, parent)
        and member is not parent
        and not inspect.isabstract(member)
        and not name.startswith("_")
        and (exported is not None or member.__module__.startswith(value.__name__))
    ]


def import_object(path: str) -> Any:
    """The object of a dotted path such as "package.module.Class".

    Raises PluginError that says which part was not found, or what the import raised.
    """
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise PluginError(f"{path!r} is not a dotted path like package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise PluginError(
                f"there is no module {error.name!r} in this environment (wanted for {path}); is its package installed?"
            ) from error
        raise PluginError(f"{module_name} cannot be imported: {error}") from error
    except Exception as error:
        raise PluginError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise PluginError(f"module {module_name} has no {attribute!r}") from error
