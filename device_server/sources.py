"""Do the classes of the devices still say what is in force? Packages of others, imported again when their source has changed.

A package that cannot be imported any more stays as it was, as a whole. Our own packages and ophyd's stay in any case:
too much hangs on them; for those there is the restart of the device server. Knows no device.
"""

from __future__ import annotations

import importlib
import linecache
import logging
import os
import sys
from collections.abc import Collection, Iterable
from importlib.metadata import entry_points

from bec_lib.plugins import DEVICES, OURS, import_object

log = logging.getLogger(__name__)

# Libraries that hold what all devices of a process share.
LIBRARIES = frozenset({"builtins", "ophyd", "ophyd_devices", "ophyd_async", "epics"})

# Time of the last change in ns, and size in bytes.
Stamp = tuple[int, int]


def package_of(path: str) -> str:
    """The top-level package of a dotted path or of an entry point."""
    return path.partition(":")[0].partition(".")[0]


class Sources:
    """What the source files of packages looked like when they were imported."""

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp | None] = {}

    def note(self, packages: Iterable[str]) -> None:
        """To be called when something of these has been imported."""
        for name in _modules(_others(packages)):
            if name not in self._stamps:
                self._stamps[name] = _stamp(name)

    def renew(self, packages: Iterable[str], classes: Collection[str]) -> dict[str, str]:
        """Import again what has changed of these packages; package -> why it stays as it was.

        classes: dotted paths that must still be there; of a package of device plugins, all its entry points must.
        """
        importlib.invalidate_caches()
        linecache.checkcache()
        kept = {}
        for package in sorted(_others(packages)):
            modules = _modules([package])
            if any(_stamp(name) != self._stamps.get(name) for name in modules):
                problem = self._import_again(package, modules, classes)
                if problem:
                    kept[package] = problem
        return kept

    def _import_again(self, package: str, modules: Collection[str], classes: Iterable[str]) -> str:
        """Why the package stays as it was; empty if it does not."""
        saved = {name: sys.modules.pop(name) for name in modules}
        try:
            for path in classes:
                if package_of(path) == package:
                    import_object(path)
            for point in entry_points(group=DEVICES):
                if package_of(point.value) == package:
                    point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            log.warning("%s stays as it was", package, exc_info=True)
            for name in _modules([package]):
                del sys.modules[name]
            sys.modules.update(saved)
            return str(error) or f"{package} cannot be imported: {type(error).__name__}"
        log.info("%s was imported again", package)
        for name in saved:
            self._stamps.pop(name, None)
        self.note([package])
        return ""


def _others(packages: Iterable[str]) -> set[str]:
    return {package for package in packages if package} - OURS - LIBRARIES


def _modules(packages: Collection[str]) -> list[str]:
    return [name for name in list(sys.modules) if package_of(name) in packages]


def _stamp(module: str) -> Stamp | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    try:
        found = os.stat(file) if file else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found else None
