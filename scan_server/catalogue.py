"""Which scans are there? Plugins of the group `bec.scans` -> classes, and the signatures that clients see, as the modifiers
of the group `bec.scan_modifiers` have changed them.

A plugin that cannot be loaded, or a class whose declaration is wrong, is named with the reason; all others are offered.
Reloading: reload.py.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from typing import Any, cast
from weakref import WeakKeyDictionary

from bec_lib.errors import PluginError
from bec_lib.messages import AvailableScansMessage, ModifierInfo, ScanInfo
from bec_lib.plugins import SCAN_MODIFIERS, SCANS, Plugin, classes_in, load_plugins
from bec_lib.scans import PathScan, PointScan, Scan, ScanModifier, StepScan, describe_scan
from bec_lib.scans.modifier import Modification, modify

BUILTIN = "builtin"
_KINDS = (Scan, PointScan, StepScan, PathScan)


@dataclass(frozen=True)
class Catalogue:
    """Scan name -> its class, its published signature, what modifiers make of it, and a hash of its source and theirs.
    modifiers: name -> what is told of it. failed: plugin -> why. scans, modifying: the plugins it is made from.
    """

    classes: dict[str, type[Scan]] = field(default_factory=dict)
    infos: dict[str, ScanInfo] = field(default_factory=dict)
    code_hashes: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    modifications: dict[str, Modification] = field(default_factory=dict)
    modifiers: dict[str, ModifierInfo] = field(default_factory=dict)
    scans: tuple[Plugin, ...] = ()
    modifying: tuple[Plugin, ...] = ()

    def message(self) -> AvailableScansMessage:
        return AvailableScansMessage(
            scans=self.infos,
            failed=self.failed,
            modifiers=self.modifiers,
            plugins={plugin.name: plugin.origin for plugin in [*self.modifying, *self.scans]},
        )

    def is_ours(self, scan: str) -> bool:
        """Has no plugin of others to do with this scan?"""
        return self.infos[scan].plugin == BUILTIN and scan not in self.modifications


def load_catalogue(
    found: Iterable[EntryPoint] | None = None,
    *,
    around: Callable[[EntryPoint], AbstractContextManager[Any]] = nullcontext,
    without: Mapping[str, str] | None = None,
) -> Catalogue:
    """All scans of all plugins, ours first. A name that is taken stays with whoever had it; the other is reported.

    found: entry points of both groups; None: those of this environment. around, without: as in `load_plugins`.
    """
    points = None if found is None else list(found)
    scans, failed = load_plugins(SCANS, _of_group(points, SCANS), around=around, without=without)
    modifying, also = load_plugins(
        SCAN_MODIFIERS, _of_group(points, SCAN_MODIFIERS), around=around, without=without
    )
    for plugin, reason in also.items():
        _note(failed, plugin, reason)
    return make_catalogue(scans, modifying, failed)


def make_catalogue(scans: Sequence[Plugin], modifying: Sequence[Plugin], failed: dict[str, str]) -> Catalogue:
    """From plugins that are loaded. failed: those that could not be."""
    catalogue = Catalogue(failed=dict(failed), scans=tuple(scans), modifying=tuple(modifying))
    for plugin in sorted(scans, key=lambda plugin: (plugin.name != BUILTIN, plugin.name)):
        kinds = [kind for kind in classes_in(plugin.value, Scan) if kind not in _KINDS]
        if not kinds:
            _note(
                catalogue.failed,
                plugin.name,
                f"{plugin.origin} offers no scan: no public subclass of bec_lib.scans.Scan",
            )
        for kind in kinds:
            try:
                _add(catalogue, plugin.name, cast("type[Scan]", kind))
            except PluginError as error:
                _note(catalogue.failed, plugin.name, error.message)
    return _modified(catalogue)


def _modified(catalogue: Catalogue) -> Catalogue:
    found: list[tuple[str, type[ScanModifier]]] = []
    for plugin in sorted(catalogue.modifying, key=lambda plugin: plugin.name):
        kinds = [kind for kind in classes_in(plugin.value, ScanModifier) if kind is not ScanModifier]
        if not kinds:
            _note(
                catalogue.failed,
                plugin.name,
                f"{plugin.origin} offers no modifier: no public subclass of bec_lib.scans.ScanModifier",
            )
        found += [(plugin.name, cast("type[ScanModifier]", kind)) for kind in kinds]
    if not found:
        return catalogue
    modifications, failed, told = modify(catalogue.infos, found)
    for name, reason in failed.items():
        _note(catalogue.failed, name, reason)
    for scan, made in modifications.items():
        digest = hashlib.sha256(catalogue.code_hashes[scan].encode())
        kinds_of_scan = [kind for plugin, kind in found if f"{plugin}.{kind.__name__}" in made.info.modifiers]
        for each in kinds_of_scan:
            digest.update(code_hash(each, ScanModifier).encode())
        catalogue.code_hashes[scan] = digest.hexdigest()[:16]
        catalogue.infos[scan] = made.info
    return replace(catalogue, modifications=modifications, modifiers=told)


def _add(catalogue: Catalogue, plugin: str, kind: type[Scan]) -> None:
    info = describe_scan(kind, plugin)
    taken = catalogue.infos.get(info.name)
    if taken is not None:
        raise PluginError(
            f"{kind.__module__}.{kind.__qualname__} is called {info.name}, as a scan of the plugin {taken.plugin}; "
            "rename it"
        )
    catalogue.classes[info.name] = kind
    catalogue.infos[info.name] = info
    catalogue.code_hashes[info.name] = code_hash(kind)


def code_hash(kind: type, root: type = Scan) -> str:
    """Of the source of a class and of those that it builds on; changes when a resumed scan might do something else."""
    digest = hashlib.sha256()
    for base in kind.__mro__:
        if issubclass(base, root):
            digest.update(_source(base))
    return digest.hexdigest()[:16]


def _source(kind: type) -> bytes:
    """As it was when the class was first looked at: the file may have been changed since, without being reloaded."""
    if kind not in _SOURCES:
        try:
            _SOURCES[kind] = inspect.getsource(kind).encode()
        except (OSError, TypeError):
            _SOURCES[kind] = kind.__qualname__.encode()
    return _SOURCES[kind]


_SOURCES: WeakKeyDictionary[type, bytes] = WeakKeyDictionary()


def _of_group(points: list[EntryPoint] | None, group: str) -> list[EntryPoint] | None:
    return None if points is None else [point for point in points if point.group == group]


def _note(failed: dict[str, str], plugin: str, reason: str) -> None:
    if reason in failed.get(plugin, ""):
        return
    failed[plugin] = f"{failed[plugin]}; {reason}" if plugin in failed else reason
