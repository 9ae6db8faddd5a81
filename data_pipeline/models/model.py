"""What a model is, for the data pipeline and for plugins: a name, its parameters, and how to build or compute
it.

Declarations only, so that the service can publish its models without importing lmfit: `build` imports it when
a worker process calls it. A plugin (entry point group `bec.models`) is a module with a list called `MODELS`,
or such a list itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bec_lib.errors import ParameterError, PluginError, ReasonCode
from bec_lib.plugins import Plugin

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CurveModel:
    """A curve y(x) with parameters, which can be fitted and added to others.

    parameters: the names of the free parameters, in the order of the model. build(prefix): gives an
    `lmfit.Model` of one independent variable `x`, whose parameter names begin with the prefix.
    is_background: varies slowly over the data; guessed first and taken off before peaks are looked for.
    """

    name: str
    parameters: tuple[str, ...]
    doc: str
    build: Callable[[str], Any]
    is_background: bool = False


@dataclass(frozen=True)
class Analysis:
    """Numbers read off the data without a fit. analyse(x, y): name -> value, for finite data sorted by x with
    at least one point; what cannot be determined is left out.
    """

    name: str
    parameters: tuple[str, ...]
    doc: str
    analyse: Callable[[Floats, Floats], dict[str, float]]


Model = CurveModel | Analysis


@dataclass(frozen=True)
class Outcome:
    """What came out of a fit; the meaning of the fields is that of `bec_lib.messages.FitResult`."""

    models: list[str]
    params: dict[str, float]
    errors: dict[str, float | None] = field(default_factory=dict)
    success: bool = True
    message: str = ""
    chi_square: float = 0.0
    reduced_chi_square: float | None = None
    r_squared: float | None = None
    num_points: int = 0
    curve_x: Floats = field(default_factory=lambda: np.empty(0))
    curve_y: Floats = field(default_factory=lambda: np.empty(0))
    report: str = ""


def collect(plugins: Iterable[Plugin]) -> tuple[dict[str, Model], dict[str, str]]:
    """The models of all plugins by name, and plugin name -> why it has none. The first of one name counts."""
    found: dict[str, Model] = {}
    failed: dict[str, str] = {}
    for plugin in plugins:
        offered = getattr(plugin.value, "MODELS", plugin.value)
        if isinstance(offered, CurveModel | Analysis):
            offered = [offered]
        if not isinstance(offered, Sequence) or not all(
            isinstance(m, CurveModel | Analysis) for m in offered
        ):
            failed[plugin.name] = f"{plugin.origin} has no list MODELS of CurveModel and Analysis objects"
            continue
        for model in offered:
            if found.setdefault(model.name, model) is not model:
                failed[plugin.name] = (
                    f"{plugin.origin} offers a second {model.name}, which is ignored; rename it"
                )
    return found, failed


def choose(catalogue: dict[str, Model], names: Sequence[str]) -> list[Model]:
    """The models of these names. Raises ParameterError that says what there is instead."""
    if not names:
        raise ParameterError("a fit needs at least one model, for example GaussianModel")
    unknown = [name for name in names if name not in catalogue]
    if unknown:
        raise ParameterError(
            " ".join(f"There is no model {name!r}{_hint(name, catalogue)}." for name in unknown),
            code=ReasonCode.NOT_FOUND,
        )
    chosen = [catalogue[name] for name in names]
    alone = [model.name for model in chosen if isinstance(model, Analysis)]
    if alone and len(chosen) > 1:
        raise ParameterError(
            f"{alone[0]} is not a curve and cannot be added to other models; ask for it alone"
        )
    return chosen


def require_catalogue(catalogue: dict[str, Model]) -> None:
    """Raises PluginError if there is no model at all, which means a broken installation."""
    if not catalogue:
        raise PluginError("no models were found; install this package again with its data-pipeline extra")


def _hint(name: str, catalogue: dict[str, Model]) -> str:
    lower = {known.lower(): known for known in catalogue}
    wanted = name.lower()
    for candidate in (wanted, wanted + "model"):
        if candidate in lower:
            return f"; did you mean {lower[candidate]}?"
    close = get_close_matches(wanted, lower, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {' or '.join(lower[key] for key in close)}?"
    return f"; there are {', '.join(sorted(catalogue))}"
