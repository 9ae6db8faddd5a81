"""Which scans are there? Plugins of the group `bec.scans` -> classes, and the signatures that clients see.

A plugin that cannot be loaded, or a class whose declaration is wrong, is named with the reason; all others are offered.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import cast

from bec_lib.errors import PluginError
from bec_lib.messages import AvailableScansMessage, ScanInfo
from bec_lib.plugins import SCANS, classes_in, load_plugins
from bec_lib.scans import PathScan, PointScan, Scan, StepScan, describe_scan

BUILTIN = "builtin"
_KINDS = (Scan, PointScan, StepScan, PathScan)


@dataclass(frozen=True)
class Catalogue:
    """Scan name -> its class, its published signature, and a hash of its source. failed: plugin -> why."""

    classes: dict[str, type[Scan]] = field(default_factory=dict)
    infos: dict[str, ScanInfo] = field(default_factory=dict)
    code_hashes: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def message(self) -> AvailableScansMessage:
        return AvailableScansMessage(scans=self.infos, failed=self.failed)


def load_catalogue(found: Iterable[EntryPoint] | None = None) -> Catalogue:
    """All scans of all plugins, ours first. A name that is taken stays with whoever had it; the other is reported."""
    plugins, failed = load_plugins(SCANS, found)
    catalogue = Catalogue(failed=dict(failed))
    for plugin in sorted(plugins, key=lambda plugin: (plugin.name != BUILTIN, plugin.name)):
        kinds = [kind for kind in classes_in(plugin.value, Scan) if kind not in _KINDS]
        if not kinds:
            _report(
                catalogue,
                plugin.name,
                f"{plugin.origin} offers no scan: no public subclass of bec_lib.scans.Scan",
            )
        for kind in kinds:
            try:
                _add(catalogue, plugin.name, cast("type[Scan]", kind))
            except PluginError as error:
                _report(catalogue, plugin.name, error.message)
    return catalogue


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


def code_hash(kind: type[Scan]) -> str:
    """Of the source of a class and of those that it builds on; changes when a resumed scan might do something else."""
    digest = hashlib.sha256()
    for base in kind.__mro__:
        if issubclass(base, Scan):
            try:
                digest.update(inspect.getsource(base).encode())
            except (OSError, TypeError):
                digest.update(base.__qualname__.encode())
    return digest.hexdigest()[:16]


def _report(catalogue: Catalogue, plugin: str, reason: str) -> None:
    catalogue.failed[plugin] = (
        f"{catalogue.failed[plugin]}; {reason}" if plugin in catalogue.failed else reason
    )
