"""What a person reads off a peak without fitting it: position, width, centre of mass."""

from __future__ import annotations

import numpy as np

from data_pipeline.models.model import Analysis, Floats

PARAMETERS = (
    "center",
    "fwhm",
    "center_of_mass",
    "peak_position",
    "maximum",
    "minimum_position",
    "minimum",
    "mean",
    "standard_deviation",
)


def analyse(x: Floats, y: Floats) -> dict[str, float]:
    """The statistics of a curve, in the units of x and y.

    center, fwhm: middle and distance of the two crossings of half height (between minimum and maximum)
    next to the maximum, interpolated linearly; left out if there is no crossing on one side.
    center_of_mass: weights are y above its minimum; the mean of x for a flat curve. standard_deviation of y.
    """
    top, bottom = int(np.argmax(y)), int(np.argmin(y))
    weight = y - y[bottom]
    total = float(weight.sum())
    found = {
        "center_of_mass": float((weight * x).sum() / total) if total > 0 else float(x.mean()),
        "peak_position": float(x[top]),
        "maximum": float(y[top]),
        "minimum_position": float(x[bottom]),
        "minimum": float(y[bottom]),
        "mean": float(y.mean()),
        "standard_deviation": float(y.std()),
    }
    half = (y[top] + y[bottom]) / 2
    left = _crossing(x[top::-1], y[top::-1], half)
    right = _crossing(x[top:], y[top:], half)
    if total > 0 and left is not None and right is not None:
        found["center"] = (left + right) / 2
        found["fwhm"] = right - left
    return {name: found[name] for name in PARAMETERS if name in found}


def _crossing(x: Floats, y: Floats, level: float) -> float | None:
    """Where y first falls to the level, going outwards from the first point; None if it does not."""
    below = np.flatnonzero(y <= level)
    if not len(below) or below[0] == 0:
        return None
    i = int(below[0])
    share = (y[i - 1] - level) / (y[i - 1] - y[i])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))


STATISTICS = Analysis(
    "StatisticsModel",
    PARAMETERS,
    "Centre, width at half height, centre of mass and extremes of a curve, without a fit.",
    analyse,
)
