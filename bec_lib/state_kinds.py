"""Which kinds of beamline states are there? The classes that plugins bring, ours among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from bec_lib.plugins import STATES, Plugin, classes_in, load_plugins
from bec_lib.states import BeamlineStateConfig

Kinds = dict[str, type[BeamlineStateConfig]]


def state_kinds() -> tuple[Kinds, dict[str, str]]:
    """Name -> class of every kind of beamline state there is, and plugin -> why it cannot be used."""
    return kinds_of(*load_plugins(STATES))


def kinds_of(plugins: Iterable[Plugin], failed: Mapping[str, str]) -> tuple[Kinds, dict[str, str]]:
    """What these plugins bring; failed: plugin -> why it could not be loaded, to which others are added."""
    kinds: Kinds = {}
    problems = dict(failed)
    for plugin in plugins:
        for kind in cast(list[type[BeamlineStateConfig]], classes_in(plugin.value, BeamlineStateConfig)):
            if not kind.kind:
                problems[plugin.name] = f"{kind.__name__} does not name its `kind`"
            elif kinds.get(kind.kind, kind) is not kind:
                problems[plugin.name] = f"there is another kind {kind.kind!r}; rename one of the two"
            else:
                kinds[kind.kind] = kind
    return kinds, problems
