"""Which kinds of beamline states are there? The classes that plugins bring, ours among them."""

from __future__ import annotations

from typing import cast

from bec_lib.plugins import STATES, classes_in, load_plugins
from bec_lib.states import BeamlineStateConfig


def state_kinds() -> tuple[dict[str, type[BeamlineStateConfig]], dict[str, str]]:
    """Name -> class of every kind of beamline state there is, and plugin -> why it cannot be used."""
    plugins, failed = load_plugins(STATES)
    kinds: dict[str, type[BeamlineStateConfig]] = {}
    for plugin in plugins:
        for kind in cast(list[type[BeamlineStateConfig]], classes_in(plugin.value, BeamlineStateConfig)):
            if not kind.kind:
                failed[plugin.name] = f"{kind.__name__} does not name its `kind`"
            elif kinds.get(kind.kind, kind) is not kind:
                failed[plugin.name] = f"there is another kind {kind.kind!r}; rename one of the two"
            else:
                kinds[kind.kind] = kind
    return kinds, failed
