"""Which arguments does a class take that hands some on to its parent? An honest signature for such a constructor.

The device server reads a constructor's signature to tell constructor arguments from attributes to be set later, and
to know whether the device wants the device manager or the scan. `**kwargs` would hide both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Init = TypeVar("Init", bound=Callable[..., None])


def with_arguments_of(parent: type, *, omit: tuple[str, ...] = ()) -> Callable[[Init], Init]:
    """Decorator of an `__init__` whose `**kwargs` go to `parent`: puts the parent's keyword arguments in their place."""

    def mark(init: Init) -> Init:
        own = inspect.signature(init)
        kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = {p.name for p in kept} | set(omit)
        theirs: list[Any] = [
            p
            for p in inspect.signature(parent).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in taken
        ]
        init.__signature__ = own.replace(parameters=[*kept, *theirs])  # type: ignore[attr-defined]
        return init

    return mark
