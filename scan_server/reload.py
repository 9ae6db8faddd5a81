"""Plugins again, without a restart: new ones, changed ones, and those that are gone.

A package that now fails in any part of it stays as it was before, as a whole, and is reported. Our own packages are not
imported again. Nobody may run what is reloaded meanwhile; the app sees to that.
"""

from __future__ import annotations

import hashlib
import importlib
import linecache
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from bec_lib.messages import PluginsReloaded
from bec_lib.plugins import OURS, SCAN_MODIFIERS, SCANS, STATES, Plugin, load_plugins
from bec_lib.state_kinds import Kinds, kinds_of
from scan_server.catalogue import Catalogue, make_catalogue


@dataclass(frozen=True)
class StatePlugins:
    """Plugins with kinds of beamline states, what they bring, and plugin -> why it, or a part of it, is not used."""

    plugins: list[Plugin] = field(default_factory=list)
    kinds: Kinds = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reloaded:
    """prints: for the next time."""

    catalogue: Catalogue
    prints: dict[str, str]
    report: PluginsReloaded
    states: StatePlugins = field(default_factory=StatePlugins)


def load_states(
    found: Iterable[EntryPoint] | None = None,
    *,
    around: Callable[[EntryPoint], AbstractContextManager[Any]] = nullcontext,
    without: Mapping[str, str] | None = None,
) -> StatePlugins:
    """All kinds of beamline states. found: entry points, of other groups as well; None: those of this environment.

    around, without: as in `load_plugins`.
    """
    points = None if found is None else [point for point in found if point.group == STATES]
    plugins, failed = load_plugins(STATES, points, around=around, without=without)
    return StatePlugins(plugins, *kinds_of(plugins, failed))


def prints_of(catalogue: Catalogue, states: Iterable[Plugin] = ()) -> dict[str, str]:
    """Plugin of others -> a hash of all source files of its package that are imported."""
    found: dict[str, str] = {}
    for plugin in [*catalogue.scans, *catalogue.modifying, *states]:
        package = _package(plugin)
        if package not in OURS:
            digest = hashlib.sha256(found.get(plugin.name, "").encode())
            for name in sorted(_modules([package])):
                path = getattr(sys.modules[name], "__file__", None)
                digest.update(name.encode())
                if path and path.endswith(".py"):
                    digest.update(_content(Path(path)))
            found[plugin.name] = digest.hexdigest()
    return found


def reload_plugins(
    old: Catalogue,
    prints: dict[str, str],
    found: Iterable[EntryPoint] | None = None,
    *,
    states: StatePlugins | None = None,
    around: Callable[[EntryPoint], AbstractContextManager[Any]] = nullcontext,
) -> Reloaded:
    """Import all plugins of others again. prints: `prints_of` the old catalogue and states when they were loaded.

    found: entry points of all three groups; None: those of this environment, as it is now. around: what holds while one of
    them is imported.
    """
    importlib.invalidate_caches()
    linecache.checkcache()
    groups = (SCANS, SCAN_MODIFIERS, STATES)
    points = [p for g in groups for p in entry_points(group=g)] if found is None else list(found)
    old_states = states or StatePlugins()
    before = [*old.scans, *old.modifying, *old_states.plugins]
    packages = ({_top(point.value) for point in points} | {_package(plugin) for plugin in before}) - OURS
    saved = {name: sys.modules.pop(name) for name in _modules(packages)}
    scans, failed = load_plugins(SCANS, [point for point in points if point.group == SCANS], around=around)
    modifying, also = load_plugins(
        SCAN_MODIFIERS, [p for p in points if p.group == SCAN_MODIFIERS], around=around
    )
    for name, reason in also.items():
        failed[name] = f"{failed[name]}; {reason}" if name in failed else reason
    state_plugins, state_failed = load_plugins(
        STATES, [point for point in points if point.group == STATES], around=around
    )
    kinds, state_failed = kinds_of(state_plugins, state_failed)
    there = {point.name for point in points}
    kept: set[str] = set()
    made = make_catalogue(scans, modifying, failed)
    # Twice, because what one package has back may be in the way of what another has new.
    for _ in range(2):
        worse = {
            package
            for plugins, now, then in (
                ([*old.scans, *old.modifying], made.failed, old.failed),
                (old_states.plugins, state_failed, old_states.failed),
            )
            for plugin in plugins
            if plugin.name in now
            and plugin.name in there
            and now[plugin.name] != then.get(plugin.name)
            and (package := _package(plugin)) not in OURS | kept
        }
        if not worse:
            break
        kept |= worse
        reasons = {name: made.failed[name] for name in made.failed if name in {p.name for p in before}}
        for name in _modules(worse):
            del sys.modules[name]
        sys.modules.update({name: module for name, module in saved.items() if _top(name) in worse})
        scans = _put_back(scans, old.scans, worse)
        modifying = _put_back(modifying, old.modifying, worse)
        made = make_catalogue(scans, modifying, {**failed, **reasons})
        state_plugins = _put_back(state_plugins, old_states.plugins, worse)
        kinds, state_failed = kinds_of(state_plugins, state_failed)
    names_kept = sorted({plugin.name for plugin in before if _package(plugin) in kept})
    for name in names_kept:
        if name in made.failed:
            made.failed[name] += "; the version before stays in force"
        if name in state_failed:
            state_failed[name] += "; the version before stays in force"
    after = prints_of(made, state_plugins) | {name: prints[name] for name in names_kept if name in prints}
    return Reloaded(
        made,
        after,
        PluginsReloaded(
            loaded=sorted(after.keys() - prints.keys()),
            changed=sorted(name for name in after.keys() & prints.keys() if after[name] != prints[name]),
            removed=sorted(prints.keys() - after.keys()),
            failed={**state_failed, **made.failed},
            kept=names_kept,
        ),
        StatePlugins(state_plugins, kinds, state_failed),
    )


def _put_back(new: list[Plugin], old: Iterable[Plugin], packages: Collection[str]) -> list[Plugin]:
    """The plugins of some packages as they were before."""
    return [
        *(plugin for plugin in new if _package(plugin) not in packages),
        *(plugin for plugin in old if _package(plugin) in packages),
    ]


def _modules(packages: Collection[str]) -> list[str]:
    return [name for name in list(sys.modules) if _top(name) in packages]


def _package(plugin: Plugin) -> str:
    value = plugin.value
    return _top(value.__name__ if isinstance(value, ModuleType) else value.__module__)


def _top(path: str) -> str:
    return path.partition(":")[0].partition(".")[0]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
