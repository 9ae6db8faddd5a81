"""Fitting: models, data and start values in, an `Outcome` out.

Runs in a worker process: the models' `build` imports lmfit. Knows nothing of scans, messages or processes.
Least squares without weights, which finds centre and width of a peak with counting noise without bias.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from bec_lib.errors import ParameterError, ReasonCode
from data_pipeline.models.expressions import check_expression
from data_pipeline.models.model import Analysis, CurveModel, Floats, Model, Outcome

MIN_CURVE_POINTS = 500
# 32 kB an array: half of what a message may carry.
MAX_CURVE_POINTS = 4000
SETTINGS = frozenset({"value", "vary", "min", "max", "expr"})
# The one error that more points may mend.
TOO_FEW = ReasonCode.WRONG_STATE
# Below this the start values are suspected, and others are tried as well.
POOR_R_SQUARED = 0.5


def fit(
    models: Sequence[Model],
    x: Floats,
    y: Floats,
    *,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    x_min: float | None = None,
    x_max: float | None = None,
) -> Outcome:
    """Fit the sum of the models to the points within [x_min, x_max], or analyse them.

    x, y: float (n,), any order; points that are not finite are left out. parameters: name -> value, vary,
    min, max, expr; what is not given is guessed. Names are those of the models; if two models share names,
    both carry the prefix m1_, m2_ ... by their place.
    Raises ParameterError for bad parameters or too few points; a fit that does not converge is an Outcome
    with success False.
    """
    names = [model.name for model in models]
    x, y = _selected(x, y, x_min, x_max)
    if len(models) == 1 and isinstance(models[0], Analysis):
        return _analysed(models[0], x, y, parameters or {})
    curves = [model for model in models if isinstance(model, CurveModel)]
    components = [curve.build(prefix) for curve, prefix in zip(curves, prefixes(curves), strict=True)]
    total = components[0]
    for component in components[1:]:
        total = total + component
    start = total.make_params()
    settings = checked_settings(parameters or {}, list(start))
    if not len(x):
        raise ParameterError(
            f"{' + '.join(names)} cannot be fitted: there are no points{_between(x_min, x_max)}", code=TOO_FEW
        )
    guessed = _guess(curves, components, x, y)
    start = _apply(start, guessed, settings)
    varied = [name for name, parameter in start.items() if parameter.vary and not parameter.expr]
    if len(x) < len(varied):
        raise ParameterError(
            f"{' + '.join(names)} cannot be fitted: it has {len(varied)} free parameters and "
            f"{_points(len(x))}{_between(x_min, x_max)}; at least {len(varied)} are needed",
            code=TOO_FEW,
        )
    if not varied:
        return _evaluated(names, total, start, x, y)
    best, problem = _tried(total, start, x, y)
    if best is None or not best.success or _r_squared(best, y) < POOR_R_SQUARED:
        for other in _other_starts(curves, components, x, y):
            again, _ = _tried(total, _apply(total.make_params(), other, settings), x, y)
            if again is not None and (best is None or again.chisqr < best.chisqr):
                best = again
    if best is None:
        return Outcome(
            names,
            {name: float(p.value) for name, p in start.items()},
            dict.fromkeys(start),
            success=False,
            message=f"the fit did not converge: {problem}",
            num_points=len(x),
        )
    return _outcome(names, total, best, x, y)


def prefixes(curves: Sequence[CurveModel]) -> list[str]:
    """For each model the prefix of its parameters: empty unless another one has a parameter of that name."""
    seen = Counter(name for curve in curves for name in curve.parameters)
    return [
        f"m{place}_" if any(seen[name] > 1 for name in curve.parameters) else ""
        for place, curve in enumerate(curves, start=1)
    ]


def checked_settings(
    parameters: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The settings of the parameters with their types. Raises ParameterError naming all that is wrong."""
    problems: list[str] = []
    checked: dict[str, dict[str, Any]] = {}
    for name, given in parameters.items():
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
            problems.append(f"there is no parameter {name!r}; {hint}")
            continue
        if not isinstance(given, Mapping) or not set(given) <= SETTINGS:
            problems.append(f"the settings of {name} can be {', '.join(sorted(SETTINGS))}, not {given!r}")
            continue
        values: dict[str, Any] = {}
        for key, value in given.items():
            if value is None:
                continue
            if key == "vary":
                if not isinstance(value, bool):
                    problems.append(f"{name}.vary must be true or false, not {value!r}")
                values[key] = value
            elif key == "expr":
                if not isinstance(value, str):
                    problems.append(f"{name}.expr must be text, not {value!r}")
                elif value.strip():
                    try:
                        check_expression(value, name, names)
                    except ParameterError as error:
                        problems.append(error.message)
                    values[key] = value.strip()
            elif isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
                problems.append(f"{name}.{key} must be a number, not {value!r}")
            else:
                values[key] = float(value)
        if "value" in values and not math.isfinite(values["value"]):
            problems.append(f"{name}.value must be finite")
        if values.get("min", -math.inf) >= values.get("max", math.inf):
            problems.append(f"{name}: min {values['min']:g} is not below max {values['max']:g}")
        checked[name] = values
    if problems:
        raise ParameterError("; ".join(problems))
    return checked


def _selected(x: Floats, y: Floats, x_min: float | None, x_max: float | None) -> tuple[Floats, Floats]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ParameterError(
            f"x and y must be lists of numbers of one length; they have shapes {x.shape} and {y.shape}"
        )
    keep = np.isfinite(x) & np.isfinite(y)
    if x_min is not None:
        keep &= x >= x_min
    if x_max is not None:
        keep &= x <= x_max
    x, y = x[keep], y[keep]
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def _points(count: int) -> str:
    return "there is 1 point" if count == 1 else f"there are {count} points"


def _between(x_min: float | None, x_max: float | None) -> str:
    if x_min is None and x_max is None:
        return ""
    return f" between {'the start' if x_min is None else f'{x_min:g}'} and {'the end' if x_max is None else f'{x_max:g}'}"


# Start values. A guess is a mapping of parameter name to value; what is missing keeps the model's default.


def _guess(curves: Sequence[CurveModel], components: Sequence[Any], x: Floats, y: Floats) -> dict[str, float]:
    """Backgrounds first, from the flanks; then each further component from what is left over."""
    guessed: dict[str, float] = {}
    rest = y.copy()
    peaks = [
        component for curve, component in zip(curves, components, strict=True) if not curve.is_background
    ]
    backgrounds = [
        component for curve, component in zip(curves, components, strict=True) if curve.is_background
    ]
    if backgrounds:
        values = _background(backgrounds[0], x, y, has_peaks=bool(peaks))
        guessed |= values
        rest = rest - _value(backgrounds[0], values, x)
        for other in backgrounds[1:]:
            guessed |= dict.fromkeys(other.param_names, 0.0)
    for component in peaks:
        values = _peak(component, x, rest)
        guessed |= values
        if len(peaks) > 1:
            rest = rest - _value(component, values, x)
    return guessed


def _background(component: Any, x: Floats, y: Floats, *, has_peaks: bool) -> dict[str, float]:
    if not has_peaks:
        return _by_lmfit(component, x, y) or dict.fromkeys(component.param_names, 0.0)
    values = dict.fromkeys(component.param_names, 0.0)
    prefix = component.prefix
    level = float(np.percentile(y, 15 if _points_up(y) else 85))
    edge = max(1, len(x) // 10)
    span = float(x[-edge:].mean() - x[:edge].mean())
    slope = float(y[-edge:].mean() - y[:edge].mean()) / span if span > 0 else 0.0
    by_name = {
        "slope": slope,
        "intercept": level - slope * float(x.mean()),
        "c": level,
        "c0": level,
    }
    return values | {prefix + key: value for key, value in by_name.items() if prefix + key in values}


def _peak(component: Any, x: Floats, y: Floats) -> dict[str, float]:
    found = _by_lmfit(component, x, y, negative=not _points_up(y))
    return found or _plain_peak(component, x, y, width=6.0)


def _by_lmfit(component: Any, x: Floats, y: Floats, **options: Any) -> dict[str, float]:
    """lmfit's own guess, or nothing if it has none or fails on this data."""
    for arguments in (options, {}):
        try:
            with np.errstate(all="ignore"):
                found = component.guess(y, x=x, **arguments)
        except Exception:  # noqa: BLE001 - guesses fail in many ways on odd data, and plugins have their own
            continue
        values = {name: float(parameter.value) for name, parameter in found.items() if not parameter.expr}
        if all(map(math.isfinite, values.values())):
            return values
    return {}


def _plain_peak(component: Any, x: Floats, y: Floats, *, width: float) -> dict[str, float]:
    """Position of the extreme, a `width`-th of the range as sigma, and the height that belongs to it."""
    prefix = component.prefix
    names = component.param_names
    span = float(x[-1] - x[0]) or 1.0
    base = float(np.median(y))
    top = int(np.argmax(np.abs(y - base)))
    sigma = span / width
    height = float(y[top] - base)
    by_name = {
        "center": float(x[top]),
        "sigma": sigma,
        "amplitude": height * (sigma * math.sqrt(2 * math.pi) if prefix + "sigma" in names else 1.0),
        "center1": float(x[0] + span / 3),
        "center2": float(x[0] + span * 2 / 3),
        "sigma1": sigma,
        "sigma2": sigma,
        "kt": sigma,
        "decay": span / 2,
        "exponent": 1.0,
        "sigma_r": sigma,
    }
    return {prefix + key: value for key, value in by_name.items() if prefix + key in names}


def _other_starts(
    curves: Sequence[CurveModel], components: Sequence[Any], x: Floats, y: Floats
) -> list[dict[str, float]]:
    """A narrow and a broad peak at the extreme, on the flanks' background."""
    starts = []
    for width in (30.0, 6.0):
        guessed: dict[str, float] = {}
        rest = y.copy()
        for curve, component in zip(curves, components, strict=True):
            if curve.is_background:
                values = _background(component, x, y, has_peaks=len(curves) > 1)
                guessed |= values
                rest = rest - _value(component, values, x)
        for curve, component in zip(curves, components, strict=True):
            if not curve.is_background:
                values = _plain_peak(component, x, rest, width=width)
                guessed |= values
                rest = rest - _value(component, values, x)
        starts.append(guessed)
    return starts


def _points_up(y: Floats) -> bool:
    middle = float(np.median(y))
    return float(y.max()) - middle >= middle - float(y.min())


def _value(component: Any, values: Mapping[str, float], x: Floats) -> Floats:
    with np.errstate(all="ignore"):
        found = np.asarray(component.eval(component.make_params(**values), x=x), dtype=np.float64)
    return np.where(np.isfinite(found), found, 0.0) * np.ones_like(x)


def _apply(start: Any, guessed: Mapping[str, float], settings: Mapping[str, Mapping[str, Any]]) -> Any:
    for name, value in guessed.items():
        if name in start and math.isfinite(value):
            start[name].set(value=_within(value, start[name]))
    for name, given in settings.items():
        start[name].set(**{key: value for key, value in given.items() if key != "expr"})
        if "expr" in given:
            start[name].set(expr=given["expr"])
        elif start[name].expr and given:
            # A parameter that lmfit derives from others becomes free or fixed when it is given by hand.
            start[name].set(expr="", **given)
    for parameter in start.values():
        if not parameter.expr and not math.isfinite(parameter.value):
            parameter.set(value=_within(0.0, parameter))
    return start


def _within(value: float, parameter: Any) -> float:
    return min(max(value, float(parameter.min)), float(parameter.max))


# Results


def _tried(model: Any, start: Any, x: Floats, y: Floats) -> tuple[Any, str]:
    try:
        with np.errstate(all="ignore"):
            return model.fit(y, start, x=x), ""
    except Exception as error:  # noqa: BLE001 - numpy, scipy, lmfit and models of plugins each raise their own
        return None, f"{type(error).__name__}: {error}"


def _r_squared(result: Any, y: Floats) -> float:
    spread = float(((y - y.mean()) ** 2).sum())
    return 1.0 - float(result.chisqr) / spread if spread > 0 else 1.0


def _outcome(names: list[str], model: Any, result: Any, x: Floats, y: Floats) -> Outcome:
    params = {name: float(parameter.value) for name, parameter in result.params.items()}
    errors = {name: _finite(parameter.stderr) for name, parameter in result.params.items()}
    curve_x, curve_y = _curve(model, result.params, x)
    spread = float(((y - y.mean()) ** 2).sum())
    message = "" if result.success else f"the fit did not converge: {' '.join(str(result.message).split())}"
    return Outcome(
        names,
        params,
        errors,
        success=bool(result.success) and all(map(math.isfinite, params.values())),
        message=message
        or ("" if result.errorbars else "the errors of the parameters could not be estimated"),
        chi_square=float(result.chisqr),
        reduced_chi_square=_finite(result.redchi) if result.nfree > 0 else None,
        r_squared=_r_squared(result, y) if spread > 0 else None,
        num_points=len(x),
        curve_x=curve_x,
        curve_y=curve_y,
        report=result.fit_report(show_correl=False),
    )


def _evaluated(names: list[str], model: Any, start: Any, x: Floats, y: Floats) -> Outcome:
    """All parameters are fixed: nothing to fit, only to compare."""
    residual = y - np.asarray(model.eval(start, x=x), dtype=np.float64)
    chi_square = float((residual**2).sum())
    spread = float(((y - y.mean()) ** 2).sum())
    curve_x, curve_y = _curve(model, start, x)
    return Outcome(
        names,
        {name: float(parameter.value) for name, parameter in start.items()},
        dict.fromkeys(start),
        message="all parameters are fixed: the curve was calculated, not fitted",
        chi_square=chi_square,
        r_squared=1.0 - chi_square / spread if spread > 0 else None,
        num_points=len(x),
        curve_x=curve_x,
        curve_y=curve_y,
    )


def _analysed(model: Analysis, x: Floats, y: Floats, parameters: Mapping[str, Any]) -> Outcome:
    if parameters:
        raise ParameterError(f"{model.name} takes no parameters")
    if not len(x):
        raise ParameterError(f"{model.name} needs at least one point", code=TOO_FEW)
    values = model.analyse(x, y)
    missing = [name for name in model.parameters if name not in values]
    return Outcome(
        [model.name],
        values,
        dict.fromkeys(values),
        message=f"could not be determined: {', '.join(missing)}" if missing else "",
        num_points=len(x),
        report="\n".join(f"{name}: {value:.8g}" for name, value in values.items()),
    )


def _curve(model: Any, params: Any, x: Floats) -> tuple[Floats, Floats]:
    count = min(max(MIN_CURVE_POINTS, 4 * len(x)), MAX_CURVE_POINTS)
    grid = np.linspace(float(x[0]), float(x[-1]), count)
    with np.errstate(all="ignore"):
        values = np.asarray(model.eval(params, x=grid), dtype=np.float64) * np.ones(count)
    return grid, values


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
