"""Where are the points? Pure generators: numbers in, one float array (points, motors) out.

They know no device and no limits. Values are absolute or relative as their caller means them. Every function counts
its points before it makes them, and raises ParameterError above MAX_POINTS, for numbers that are not finite, and for
patterns without a point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bec_lib.errors import ParameterError

# A scan above this would not fit into a message, nor into anybody's beam time.
MAX_POINTS = 1_000_000


def line_positions(ranges: Sequence[tuple[float, float]], steps: int) -> np.ndarray:
    """All axes in lock-step from start to stop, both included; one step stays at the start."""
    check_finite([value for pair in ranges for value in pair])
    check_count(steps)
    return np.column_stack([np.linspace(start, stop, steps) for start, stop in ranges])


def grid_positions(axes: Sequence[tuple[float, float, int]], snaked: bool = True) -> np.ndarray:
    """Every combination of the axes' positions, the last axis fastest.

    axes: (start, stop, steps), both ends included. snaked: every axis but the first turns round after each of its
    passes, so that neighbours in time are neighbours in space, in any number of dimensions.
    """
    check_finite([value for start, stop, _ in axes for value in (start, stop)])
    check_count(math.prod(steps for _, _, steps in axes))
    return list_grid_positions([np.linspace(start, stop, steps) for start, stop, steps in axes], snaked)


def list_grid_positions(lists: Sequence[Sequence[float] | np.ndarray], snaked: bool = True) -> np.ndarray:
    """Every combination of the values of the lists, the last list fastest. snaked: as for `grid_positions`."""
    count = check_count(math.prod(len(values) for values in lists))
    columns = []
    passes = np.arange(count)
    size = count
    for values in lists:
        line = np.asarray(values, dtype=float)
        check_finite(line)
        nth_pass, within = passes // size, passes % size
        size //= len(line)
        index = within // size
        if snaked:
            index = np.where(nth_pass % 2, len(line) - 1 - index, index)
        columns.append(line[index])
    return np.column_stack(columns)


def list_positions(lists: Sequence[Sequence[float]]) -> np.ndarray:
    """All axes in lock-step through their lists. Raises ParameterError if the lists differ in length."""
    lengths = sorted({len(values) for values in lists})
    if len(lengths) > 1:
        raise ParameterError(
            f"all lists of positions must have the same length; these have {', '.join(map(str, lengths))}"
        )
    check_count(lengths[0])
    return np.column_stack([np.asarray(values, dtype=float) for values in lists])


def log_positions(ranges: Sequence[tuple[float, float]], steps: int) -> np.ndarray:
    """All axes in lock-step from start to stop, both included, each a constant factor further than the one before.

    Raises ParameterError if the ends of a range differ in sign or one of them is zero.
    """
    check_finite([value for pair in ranges for value in pair])
    for start, stop in ranges:
        if not start * stop > 0:
            raise ParameterError(
                f"logarithmic steps from {start:g} to {stop:g} are not possible: both ends must be positive, or both "
                "negative"
            )
    check_count(steps)
    return np.column_stack([np.geomspace(start, stop, steps) for start, stop in ranges])


def fermat_positions(
    center: Sequence[float], extent: Sequence[float], spacing: float, turn: float = 0.0
) -> np.ndarray:
    """Points of a Fermat spiral inside a rectangle, from the centre outwards.

    center, extent: (x, y) in device units; extent is the full width and height. spacing: the mean distance between
    neighbouring points: one point in each spacing x spacing of the area, > 0. turn: added to the golden ratio of a
    turn that lies between two points; 0 gives the most even pattern.
    Returns float array (n, 2). Golden-angle construction after H. Vogel, Math. Biosci. 44 (1979) 179.
    """
    width, height, disc = _disc(center, extent, spacing)
    k = np.arange(disc)
    angle = 2 * math.pi * np.mod(k * ((1 + math.sqrt(5)) / 2 + turn), 1.0)
    return _inside(center, width, height, spacing * np.sqrt(k / math.pi), angle)


def spiral_positions(center: Sequence[float], extent: Sequence[float], spacing: float) -> np.ndarray:
    """Points of an Archimedean spiral inside a rectangle, from the centre outwards.

    Its arms are `spacing` apart, and so are the points along an arm. Arguments and result as for `fermat_positions`.
    """
    width, height, disc = _disc(center, extent, spacing)
    # The arc from the centre to the angle a is about spacing a^2 / 4 pi long, so that a = sqrt(4 pi k) after k points.
    angle = np.sqrt(4 * math.pi * np.arange(disc))
    return _inside(center, width, height, spacing * angle / (2 * math.pi), angle)


def round_positions(
    center: Sequence[float], inner: float, outer: float, rings: int, points_in_first: int
) -> np.ndarray:
    """Rings about a centre, from the radius inner to the radius outer, both included; one ring has the radius inner.

    The n-th ring has n times as many points as the first; a ring of no radius is one point. Every ring begins at
    angle 0, on the positive first axis.
    """
    check_finite([*center, inner, outer])
    check_count(points_in_first * rings * (rings + 1) // 2)
    if inner < 0 or outer < 0:
        raise ParameterError(f"radii must not be negative; these are {inner:g} and {outer:g}")
    if rings > 1 and inner == outer:
        raise ParameterError(
            f"{rings} rings between the radii {inner:g} and {outer:g} are one and the same; choose another outer_radius "
            "or number_of_rings=1"
        )
    radii = np.linspace(inner, outer, rings)
    counts = [1 if radius == 0 else points_in_first * (n + 1) for n, radius in enumerate(radii)]
    return _rings(center, radii, counts)


def round_roi_positions(
    center: Sequence[float],
    ranges: Sequence[tuple[float, float]],
    spacing: float,
    points_in_first: int,
) -> np.ndarray:
    """Rings about a centre, `spacing` apart, as far as they lie inside the rectangle of the two ranges.

    The n-th ring has the radius n spacing and n times as many points as the first.
    """
    check_finite([*center, spacing, *(value for pair in ranges for value in pair)])
    _check_positive("the shell spacing", spacing)
    far = math.hypot(*(max(abs(a - c), abs(b - c)) for (a, b), c in zip(ranges, center, strict=True)))
    rings = check_count(max(1, math.floor(_quotient(far, spacing) * (1 + 1e-12))))
    check_count(points_in_first * rings * (rings + 1) // 2)
    points = _rings(
        center, spacing * np.arange(1, rings + 1), [points_in_first * n for n in range(1, rings + 1)]
    )
    tolerance = 1e-9 * spacing
    keep = np.ones(len(points), dtype=bool)
    for column, pair in enumerate(ranges):
        keep &= (points[:, column] >= min(pair) - tolerance) & (points[:, column] <= max(pair) + tolerance)
    return _some(points[keep], f"no ring with a spacing of {spacing:g} has a point inside the region")


def hexagonal_positions(
    first: tuple[float, float, float], second: tuple[float, float, float], snaked: bool = True
) -> np.ndarray:
    """Rows along the second axis, every other one shifted by half a step: for equal distances of all neighbours choose
    the first step 0.866 times the second.

    first, second: (start, stop, step) of an axis; the step counts as positive and goes from start towards stop.
    snaked: every other row backwards.
    """
    check_finite([*first, *second])
    rows = _stepped(first)
    line = _stepped(second)
    check_count(len(rows) * len(line))
    start, stop, step = second
    shifted = line + math.copysign(abs(step) / 2, stop - start)
    shifted = shifted[(shifted >= min(start, stop)) & (shifted <= max(start, stop))]
    pieces = []
    for number, row in enumerate(rows):
        here = shifted if number % 2 else line
        if snaked and number % 2:
            here = here[::-1]
        pieces.append(np.column_stack([np.full(len(here), row), here]))
    return np.concatenate(pieces)


def multi_region_line_positions(regions: Sequence[tuple[float, float, int]]) -> np.ndarray:
    """One axis through several ranges, one after the other, each with both its ends. regions: (start, stop, steps)."""
    check_finite([value for start, stop, _ in regions for value in (start, stop)])
    check_count(sum(steps for _, _, steps in regions))
    return np.concatenate([np.linspace(start, stop, steps) for start, stop, steps in regions])[:, None]


def multi_region_grid_positions(
    regions: Sequence[tuple[tuple[float, float, int], tuple[float, float, int]]], snaked: bool = True
) -> np.ndarray:
    """Several grids of two axes, one after the other. regions: pairs of (start, stop, steps)."""
    check_count(sum(first[2] * second[2] for first, second in regions))
    return np.concatenate([grid_positions(pair, snaked) for pair in regions])


# hbar^2 / 2 m_e in eV Angstrom^2 (CODATA 2018): the energy of a free electron of wave number 1 / Angstrom.
EV_PER_K2 = 3.809982


def energy_positions(
    edge: float,
    regions: Sequence[tuple[float, float, float]],
    k_stop: float,
    k_step: float,
    ev: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Energies of an absorption spectrum: equal steps of energy in regions about an edge, then equal steps of the
    photo-electron's wave number k, E = edge + EV_PER_K2 k^2.

    edge, regions: in the unit of the axis, of which one is `ev` eV; regions: (start, stop, step) relative to the edge,
    ascending, `step` > 0; where two of them meet is one point. k_stop: last wave number, 1/Angstrom; not beyond the
    last region: no such part. k_step: > 0.
    Returns the energies, ascending, and for each its k, 0 for those of the regions.
    """
    check_finite([edge, k_stop, k_step, ev, *(value for region in regions for value in region)])
    _check_positive("the step of k", k_step)
    parts: list[np.ndarray] = []
    last = -math.inf
    for start, stop, step in regions:
        if stop <= start or start < last:
            raise ParameterError(
                f"the region from {start:g} to {stop:g} must rise and begin where the one before ends, or later"
            )
        part = _stepped((start, stop, step))
        if part[-1] < stop - 1e-9 * step:
            part = np.append(part, stop)
        if start == last and parts:
            part = part[1:]
        parts.append(part)
        last = stop
        check_count(sum(len(part) for part in parts))
    k_start = math.sqrt(max(0.0, last * ev) / EV_PER_K2) if parts else 0.0
    more = check_count(max(0, math.floor(_quotient(max(0.0, k_stop - k_start), k_step) * (1 + 1e-12))))
    k = k_start + k_step * np.arange(0 if not parts else 1, more + 1) if k_stop > k_start else np.empty(0)
    fixed = np.concatenate(parts) if parts else np.empty(0)
    energies = edge + np.concatenate([fixed, EV_PER_K2 * k**2 / ev])
    check_count(len(energies))
    return _some(energies, "there is no energy in it"), np.concatenate([np.zeros(len(fixed)), k])


# Checks


def check_count(count: int) -> int:
    """The count, if it is at most MAX_POINTS. Asked before anything is allocated."""
    if count > MAX_POINTS:
        raise ParameterError(
            f"{count:,} points are too many for one scan; at most {MAX_POINTS:,} are possible, "
            "so split it into several"
        )
    return count


def check_finite(values: Sequence[float] | np.ndarray) -> None:
    """Raises ParameterError that names the first of the values that is NaN or infinite."""
    wrong = next((value for value in values if not math.isfinite(value)), None)
    if wrong is not None:
        raise ParameterError(f"{wrong} is no position: give finite numbers")


def _check_positive(what: str, value: float) -> None:
    if not value > 0:
        raise ParameterError(f"{what} must be greater than 0; it is {value:g}")


def _some(points: np.ndarray, otherwise: str) -> np.ndarray:
    if not len(points):
        raise ParameterError(f"{otherwise}; there would be no point")
    return points


# Pieces


def _stepped(axis: tuple[float, float, float]) -> np.ndarray:
    """From start towards stop by steps, the stop included if a step meets it."""
    start, stop, step = axis
    _check_positive("the step", abs(step))
    # Steps that meet the stop but for rounding do meet it.
    count = check_count(math.floor(_quotient(abs(stop - start), abs(step)) * (1 + 1e-12) + 1e-12) + 1)
    line = start + math.copysign(abs(step), stop - start) * np.arange(count)
    clipped: np.ndarray = np.clip(line, min(start, stop), max(start, stop))
    return clipped


def _quotient(dividend: float, divisor: float) -> float:
    """At most 1e18, also where the divisor is too small for the quotient to be a number."""
    return min(dividend / divisor, 1e18) if divisor > dividend * 1e-18 else 1e18 if dividend else 0.0


def _disc(center: Sequence[float], extent: Sequence[float], spacing: float) -> tuple[float, float, int]:
    """Half width, half height, and how many points at one in spacing^2 fill the disc about the rectangle."""
    check_finite([*center, *extent, spacing])
    _check_positive("the spacing", spacing)
    width, height = (abs(value) / 2 for value in extent)
    # Those inside of the rectangle are what is taken; they are no fewer than about half of the disc's, unless the
    # rectangle is narrow, of which all are tried.
    wide, high = _quotient(width, spacing), _quotient(height, spacing)
    check_count(math.floor(4 * wide * high))
    tried = math.pi * (wide**2 + high**2)
    if tried > 20 * MAX_POINTS:
        raise ParameterError(
            f"a spiral with a spacing of {spacing:g} has some {tried:.2g} points before it fills "
            f"{2 * width:g} x {2 * height:g}; choose a larger step, or a region that is less narrow"
        )
    return width, height, math.floor(tried) + 1


def _inside(
    center: Sequence[float], width: float, height: float, radius: np.ndarray, angle: np.ndarray
) -> np.ndarray:
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    keep = (np.abs(x) <= width) & (np.abs(y) <= height)
    points = np.column_stack([center[0] + x[keep], center[1] + y[keep]])
    check_count(len(points))
    return points


def _rings(center: Sequence[float], radii: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    ring = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(ring)) - np.repeat(np.cumsum(counts) - counts, counts)
    angle = 2 * math.pi * within / np.asarray(counts)[ring]
    radius = radii[ring]
    return np.column_stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)])
