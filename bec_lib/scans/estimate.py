"""Where is the feature, and where is a signal to be measured more finely? Small estimates for scans that decide as
they go.

Pure functions of what was measured, so that a scan that is resumed decides again what it has decided. They are quick
and robust, not exact: what goes into a publication is fitted by the data pipeline. Know no device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bec_lib.errors import ParameterError

Numbers = Sequence[float] | np.ndarray
METHODS = ("gauss", "com", "max", "edge")
# A feature is one if it rises by so many standard deviations of the noise. Noise alone reaches 4 with 20 points, 6.5 with
# 1000, and its deviation is not known better than to a quarter.
_SIGNIFICANT = 7.0


def main_value(reading: Mapping[str, Mapping[str, Any]], device: str, signal: str = "") -> float:
    """A number out of the reading of a point. signal: its name, empty: the device's main one.

    Raises ParameterError that names what there is, if it is not there or no number.
    """
    signals = reading.get(device, {})
    chosen = signal or (device if device in signals else next(iter(signals), ""))
    value = signals.get(chosen, {}).get("value")
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        there = ", ".join(signals) or "nothing"
        raise ParameterError(
            f"{device} has no number called {chosen or 'anything'} in its readings: there is {there}"
        )
    return float(value)


def center_of(x: Numbers, y: Numbers, method: str = "gauss") -> float | None:
    """Position of the feature in a signal y over x, None if there is none that stands out of the noise.

    method: gauss: a peak or dip, by a parabola through the logarithm of its upper part, weighted by the squared signal
    (H. Guo, IEEE Signal Process. Mag. 28 (2011) 134), else its centre of mass; com: centre of mass of what is above
    half of the height; max: the highest point; edge: the middle of a step, by the centre of mass of the squared
    slope.
    The noise is estimated from second differences, which a smooth signal does not have. Points need not be in order.
    """
    order = np.argsort(np.asarray(x, dtype=float), kind="stable")
    at, signal = np.asarray(x, dtype=float)[order], np.asarray(y, dtype=float)[order]
    good = np.isfinite(at) & np.isfinite(signal)
    at, signal = at[good], signal[good]
    if len(at) < 3 or np.ptp(signal) == 0:
        return None
    bend = np.abs(np.diff(signal, 2))
    noise = float(np.median(bend)) / 0.6745 / np.sqrt(6)
    if np.ptp(signal) <= _SIGNIFICANT * noise:
        return None
    if method == "edge":
        return _edge(at, signal)
    # Peak or dip? By the level at which it is most of the way, however densely the points lie where.
    evenly = np.interp(np.linspace(at[0], at[-1], 2 * len(at)), at, signal)
    middle = float(np.median(evenly))
    if middle - signal.min() > signal.max() - middle:
        signal = -signal
    if method == "max":
        return float(at[np.argmax(signal)])
    # The lowest tenth tells the background; a mean, because a minimum is noise.
    lowest = np.sort(signal)[: max(1, len(signal) // 10)]
    height = signal - float(lowest.mean())
    top = float(height.max())
    upper = height > 0.3 * top
    if method == "gauss" and upper.sum() >= 3:
        found = _vertex(at[upper], height[upper])
        if found is not None and at[0] <= found <= at[-1]:
            return found
    upper = height >= 0.5 * top
    # Each point stands for the range up to half-way to its neighbours.
    share = np.gradient(at) if len(at) > 1 else np.ones(1)
    weight = height[upper] * share[upper]
    return (
        float((at[upper] * weight).sum() / weight.sum()) if weight.sum() > 0 else float(at[np.argmax(height)])
    )


def _vertex(at: np.ndarray, height: np.ndarray) -> float | None:
    origin, scale = float(at.mean()), float(np.ptp(at)) or 1.0
    u = (at - origin) / scale
    if len(np.unique(u)) < 3:
        return None
    a, b, _ = np.polyfit(u, np.log(height), 2, w=height)
    return origin - scale * b / (2 * a) if a < 0 else None


def _edge(at: np.ndarray, signal: np.ndarray) -> float | None:
    gaps = np.diff(at)
    real = gaps > 0
    slope = np.diff(signal)[real]
    between = ((at[1:] + at[:-1]) / 2)[real]
    weight = np.where(np.abs(slope) > 0.3 * np.abs(slope).max(), slope**2, 0.0)
    return float((between * weight).sum() / weight.sum()) if weight.sum() > 0 else None


def positions_to_refine(x: Numbers, y: Numbers, *, change: float, least: float, at_most: int) -> list[float]:
    """Middles of those intervals between measured points in which the signal changes too much, ascending.

    change: part of the signal's whole range (0 to 1) above which an interval is halved. least: no new interval is
    shorter. at_most: so many, those with the largest change.
    """
    order = np.argsort(np.asarray(x, dtype=float), kind="stable")
    at, signal = np.asarray(x, dtype=float)[order], np.asarray(y, dtype=float)[order]
    reach = float(np.nanmax(signal) - np.nanmin(signal)) if np.isfinite(signal).any() else 0.0
    if len(at) < 2 or reach == 0 or at_most <= 0:
        return []
    jump = np.nan_to_num(np.abs(np.diff(signal))) / reach
    # A peak between two points of the same height shows in its neighbours.
    around = np.maximum(jump, 0.5 * np.maximum(np.append(jump[1:], 0), np.insert(jump[:-1], 0, 0)))
    wanted = np.flatnonzero((around > change) & (np.diff(at) / 2 >= least * (1 - 1e-9)))
    chosen = wanted[np.argsort(-around[wanted], kind="stable")][:at_most]
    return sorted(((at[:-1] + at[1:]) / 2)[chosen].tolist())
