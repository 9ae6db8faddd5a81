"""Patterns over areas, regions and energies: inside their extent, evenly spread, no point twice, as many as promised."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bec_lib.errors import ParameterError
from bec_lib.scans import (
    energy_positions,
    fermat_positions,
    grid_positions,
    hexagonal_positions,
    line_positions,
    list_grid_positions,
    log_positions,
    multi_region_grid_positions,
    multi_region_line_positions,
    round_positions,
    round_roi_positions,
    spiral_positions,
)
from bec_lib.scans.path import METHODS, optimised_order, path_length
from bec_lib.scans.positions import EV_PER_K2, MAX_POINTS

centers = st.tuples(st.floats(-100, 100), st.floats(-100, 100))
extents = st.tuples(st.floats(0.5, 50), st.floats(0.5, 50))


def closest(points: np.ndarray) -> float:
    """The smallest distance of any two points."""
    away = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    np.fill_diagonal(away, np.inf)
    return float(away.min())


# Spirals


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([fermat_positions, spiral_positions]), centers, extents, st.floats(0.05, 0.3))
def test_a_spiral_fills_its_rectangle_from_the_middle(
    pattern: Callable[..., np.ndarray], center: tuple[float, float], extent: tuple[float, float], part: float
) -> None:
    spacing = part * min(extent)
    points = pattern(center, extent, spacing)
    assert (np.abs(points - center) <= np.array(extent) / 2 + 1e-9).all()
    assert points[0].tolist() == pytest.approx(center)
    # One point in each spacing^2, but for what the border makes of it.
    expected = extent[0] * extent[1] / spacing**2
    border = 2 * (extent[0] + extent[1]) / spacing
    assert abs(len(points) - expected) <= border
    if len(points) < 1000:
        assert closest(points) > 0.4 * spacing
    radius = np.hypot(*(points - center).T)
    assert (np.diff(radius) > 0).all()


@given(st.floats(0, 2))
def test_other_fermat_spirals_have_no_point_twice(turn: float) -> None:
    points = fermat_positions((0, 0), (4, 4), 0.5, turn)
    assert len(np.unique(points.round(9), axis=0)) == len(points)


def test_neighbours_of_a_fermat_spiral_are_a_golden_angle_apart() -> None:
    points = fermat_positions((0, 0), (10, 10), 1.0)
    angle = np.degrees(np.arctan2(points[1:9, 1], points[1:9, 0]))
    assert np.mod(np.diff(angle), 360) == pytest.approx(222.4922, abs=1e-3)  # 360 - 137.5078


# Rings


@settings(deadline=None)
@given(centers, st.floats(0.1, 5), st.floats(0.1, 5), st.integers(2, 6), st.integers(1, 6))
def test_rings_have_as_many_points_as_promised(
    center: tuple[float, float], inner: float, width: float, rings: int, first: int
) -> None:
    points = round_positions(center, inner, inner + width, rings, first)
    assert len(points) == first * rings * (rings + 1) // 2
    radius = np.hypot(*(points - center).T)
    assert radius.min() == pytest.approx(inner) and radius.max() == pytest.approx(inner + width)
    assert len(np.unique(points.round(9), axis=0)) == len(points)


def test_a_ring_of_no_radius_is_one_point() -> None:
    assert round_positions((1, 2), 0, 2, 3, 4)[0].tolist() == [1, 2]
    assert len(round_positions((1, 2), 0, 2, 3, 4)) == 1 + 8 + 12


@settings(deadline=None)
@given(st.floats(0.2, 2), st.integers(1, 6), st.floats(-3, 3), st.floats(-3, 3))
def test_rings_in_a_region_stay_inside(spacing: float, first: int, x: float, y: float) -> None:
    ranges = [(-4.0, 4.0), (3.0, -3.0)]
    points = round_roi_positions((x, y), ranges, spacing, first)
    assert (np.abs(points[:, 0]) <= 4 + 1e-6).all() and (np.abs(points[:, 1]) <= 3 + 1e-6).all()
    radius = np.hypot(*(points - (x, y)).T) / spacing
    assert radius == pytest.approx(radius.round(), abs=1e-6)


def test_a_region_beyond_all_rings_is_refused() -> None:
    with pytest.raises(ParameterError, match="no point"):
        round_roi_positions((0, 0), [(-0.1, 0.1), (-0.1, 0.1)], 10, 3)


# Lattices


@settings(deadline=None)
@given(st.floats(0.5, 10), st.floats(0.5, 10), st.floats(0.1, 0.5), st.booleans(), st.booleans())
def test_a_hexagonal_lattice(width: float, height: float, step: float, snaked: bool, down: bool) -> None:
    first = (height, 0.0, 0.8660254 * step) if down else (0.0, height, 0.8660254 * step)
    points = hexagonal_positions(first, (0.0, width, step), snaked)
    assert (points >= -1e-9).all() and (points <= np.array([height, width]) + 1e-9).all()
    if 1 < len(points) < 1500:
        assert closest(points) == pytest.approx(step, rel=1e-6)
    rows, counts = np.unique(points[:, 0].round(9), return_counts=True)
    line = math.floor(width / step * (1 + 1e-12) + 1e-12) + 1
    assert set(counts) <= {line, line - 1}
    assert len(rows) == math.floor(height / (0.8660254 * step) * (1 + 1e-12) + 1e-12) + 1


def test_alternate_rows_are_shifted_and_walked_backwards() -> None:
    assert hexagonal_positions((0, 1, 1), (0, 2, 1)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 1.5], [1, 0.5]]


@given(st.lists(st.lists(st.floats(-9, 9), min_size=1, max_size=5, unique=True), min_size=1, max_size=3))
def test_a_grid_of_lists_has_every_combination_once(lists: list[list[float]]) -> None:
    points = list_grid_positions(lists)
    assert len(points) == math.prod(map(len, lists))
    assert len({tuple(point) for point in points.tolist()}) == len(points)


# Lines


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.integers(3, 40), st.sampled_from([1, -1]))
def test_logarithmic_steps_grow_by_a_factor(start: float, stop: float, steps: int, sign: int) -> None:
    assume(abs(math.log(stop / start)) > 1e-3)
    points = log_positions([(sign * start, sign * stop)], steps)[:, 0]
    assert points[0] == pytest.approx(sign * start) and points[-1] == pytest.approx(sign * stop)
    factors = points[1:] / points[:-1]
    assert factors == pytest.approx(factors[0], rel=1e-6)


def test_a_logarithm_of_nothing_is_refused() -> None:
    for pair in ((0, 1), (-1, 1)):
        with pytest.raises(ParameterError, match="both ends must be positive"):
            log_positions([pair], 5)


def test_regions_follow_each_other_complete() -> None:
    assert multi_region_line_positions([(0, 1, 2), (1, 3, 3)])[:, 0].tolist() == [0, 1, 1, 2, 3]
    points = multi_region_grid_positions([((0, 1, 2), (0, 1, 2)), ((5, 5, 1), (0, 2, 3))])
    assert points.tolist() == [[0, 0], [0, 1], [1, 1], [1, 0], [5, 0], [5, 1], [5, 2]]


def test_an_absorption_spectrum() -> None:
    energy, k = energy_positions(7112, [(-150, -20, 5), (-20, 30, 0.5)], 12, 0.05)
    assert (np.diff(energy) > 0).all()
    assert energy[0] == 7112 - 150 and 7112 - 20 in energy and 7112 + 30 in energy
    late = k > 0
    assert k[late][-1] <= 12 and 12 - k[late][-1] < 0.05
    assert np.diff(k[late]) == pytest.approx(0.05)
    # k^2 = 0.2624683 (E - E0), E in eV, k in 1/Angstrom.
    assert k[late] ** 2 == pytest.approx(0.2624683 * (energy[late] - 7112), rel=1e-6)
    assert 1 / EV_PER_K2 == pytest.approx(0.2624683, rel=1e-6)
    in_kev, _ = energy_positions(7.112, [(-0.15, -0.02, 0.005), (-0.02, 0.03, 0.0005)], 12, 0.05, ev=1000)
    assert in_kev == pytest.approx(energy / 1000, abs=1e-9)


def test_regions_of_a_spectrum_must_rise() -> None:
    with pytest.raises(ParameterError, match="must rise"):
        energy_positions(7112, [(-20, 30, 1), (-50, -20, 5)], 12, 0.05)


# Paths


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 120), st.integers(1, 4), st.sampled_from(METHODS), st.booleans()
)
def test_an_optimised_path_visits_every_point_once_and_is_not_longer(
    seed: int, count: int, dimensions: int, method: str, on_lattice: bool
) -> None:
    generator = np.random.default_rng(seed)
    points = generator.random((count, dimensions)) * 10
    if on_lattice:
        points = points.round()  # many points at the same place
    order = optimised_order(points, method)
    assert sorted(order.tolist()) == list(range(count))
    assert path_length(points[order]) <= path_length(points) + 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_a_fermat_spiral_is_made_much_shorter(method: str) -> None:
    points = fermat_positions((0, 0), (30, 30), 1.0)
    length = path_length(points[optimised_order(points, method)])
    # The shortest path is about as long as points times spacing.
    assert length < 1.4 * len(points) < 0.2 * path_length(points)


def test_points_in_one_place_or_one_line() -> None:
    for method in METHODS:
        assert len(optimised_order(np.zeros((5, 2)), method)) == 5
        line = np.column_stack([np.random.default_rng(1).random(50), np.zeros(50)])
        assert path_length(line[optimised_order(line, "corridor")]) <= 1


def test_many_points_take_little_time() -> None:
    begun = time.perf_counter()
    points = fermat_positions((0, 0), (316, 316), 1.0)
    grid_positions([(0, 1, 300), (0, 1, 333)])
    made = time.perf_counter() - begun
    optimised_order(points, "corridor")
    optimised_order(points, "shell")
    assert len(points) > 99_000
    assert made < 0.5
    assert time.perf_counter() - begun < 3.0  # 0.25 s on a quiet machine


# Bad arguments

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "make",
    [
        lambda bad: line_positions([(0, bad)], 3),
        lambda bad: grid_positions([(0, bad, 3)]),
        lambda bad: log_positions([(1, bad)], 3),
        lambda bad: fermat_positions((bad, 0), (1, 1), 0.1),
        lambda bad: fermat_positions((0, 0), (1, bad), 0.1),
        lambda bad: spiral_positions((0, 0), (1, 1), bad),
        lambda bad: round_positions((0, 0), bad, 1, 2, 3),
        lambda bad: round_roi_positions((0, 0), [(0, 1), (0, bad)], 0.1, 3),
        lambda bad: hexagonal_positions((0, 1, bad), (0, 1, 0.1)),
        lambda bad: list_grid_positions([[0, bad]]),
        lambda bad: multi_region_line_positions([(0, bad, 3)]),
        lambda bad: energy_positions(bad, [(0, 1, 0.1)], 3, 0.1),
    ],
)
def test_what_is_no_number_is_refused(make: Callable[[float], Any]) -> None:
    for bad in (NAN, INF, -INF):
        with pytest.raises(ParameterError, match=r"no position|greater than 0"):
            make(bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: line_positions([(0, 1)], 10_000_000),
        lambda: fermat_positions((0, 0), (10_000, 10_000), 1.0),
        lambda: fermat_positions((0, 0), (1, 1), 1e-200),
        lambda: fermat_positions((0, 0), (1e9, 1e-3), 1e-2),
        lambda: spiral_positions((0, 0), (1e300, 1e300), 1e-300),
        lambda: round_positions((0, 0), 1, 2, 10_000, 10_000),
        lambda: round_roi_positions((0, 0), [(0, 1e9), (0, 1)], 1e-3, 3),
        lambda: hexagonal_positions((0, 1e300, 1e-300), (0, 1, 0.1)),
        lambda: hexagonal_positions((0, 1000, 0.1), (0, 1000, 0.1)),
        lambda: list_grid_positions([range(10_000), range(10_000)]),
        lambda: multi_region_line_positions([(0, 1, 600_000), (1, 2, 600_000)]),
        lambda: multi_region_grid_positions([((0, 1, 10_000), (0, 1, 10_000))]),
        lambda: energy_positions(7112, [(0, 1e9, 1e-3)], 3, 0.1),
        lambda: energy_positions(7112, [(0, 1, 0.1)], 50, 1e-9),
    ],
)
def test_too_many_points_are_refused_before_they_are_made(make: Callable[[], Any]) -> None:
    begun = time.perf_counter()
    with pytest.raises(ParameterError, match=r"too many|less narrow"):
        make()
    assert time.perf_counter() - begun < 0.1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fermat_positions((0, 0), (1, 1), 0.0), "spacing must be greater than 0"),
        (lambda: hexagonal_positions((0, 1, 0), (0, 1, 1)), "step must be greater than 0"),
        (lambda: round_positions((0, 0), 1, 1, 3, 3), "one and the same"),
        (lambda: round_positions((0, 0), -1, 1, 3, 3), "must not be negative"),
        (lambda: energy_positions(7112, [(0, 1, 0)], 3, 0.1), "step must be greater than 0"),
        (lambda: energy_positions(7112, [(0, 1, 0.1)], 3, 0), "step of k must be greater than 0"),
        (lambda: energy_positions(7112, [], 0, 0.1), "no energy"),
    ],
)
def test_what_makes_no_pattern_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        make()


def test_the_limit_itself_is_possible() -> None:
    assert len(line_positions([(0, 1)], MAX_POINTS)) == MAX_POINTS
