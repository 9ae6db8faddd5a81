"""Positions: what every trajectory must satisfy, whatever the numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bec_lib.errors import ParameterError
from bec_lib.scans import grid_positions, line_positions, list_positions
from bec_lib.scans.positions import MAX_POINTS

numbers = st.floats(-1e6, 1e6, allow_nan=False)
axes = st.lists(st.tuples(numbers, numbers, st.integers(1, 6)), min_size=1, max_size=4)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4), st.integers(2, 50))
def test_a_line_has_both_ends_and_equal_steps(ranges: list[tuple[float, float]], steps: int) -> None:
    points = line_positions(ranges, steps)
    assert points.shape == (steps, len(ranges))
    assert points[0].tolist() == [start for start, _ in ranges]
    assert points[-1].tolist() == [stop for _, stop in ranges]
    differences = np.diff(points, axis=0)
    assert np.allclose(differences, differences[0], atol=1e-6)


def test_one_point_is_at_the_start() -> None:
    assert line_positions([(2.0, 5.0)], 1).tolist() == [[2.0]]


@settings(deadline=None)
@given(axes, st.booleans())
def test_a_grid_has_every_combination_once(grid: list[tuple[float, float, int]], snaked: bool) -> None:
    # Positions by index, so that equal values of an axis are told apart.
    by_index = [(0, steps - 1, steps) for _, _, steps in grid]
    points = grid_positions(by_index, snaked)
    wanted = set(itertools.product(*(range(steps) for _, _, steps in grid)))
    assert len(points) == len(wanted)
    assert {tuple(round(x) for x in point) for point in points.tolist()} == wanted


@settings(deadline=None)
@given(axes)
def test_neighbours_in_time_of_a_snaked_grid_are_neighbours_in_space(
    grid: list[tuple[float, float, int]],
) -> None:
    points = grid_positions([(0, steps - 1, steps) for _, _, steps in grid], snaked=True)
    steps = np.abs(np.diff(points, axis=0)).sum(axis=1)
    assert np.allclose(steps, 1.0)


def test_the_last_axis_is_the_fastest() -> None:
    assert grid_positions([(0, 1, 2), (0, 2, 3)], snaked=False).tolist() == [
        [0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2],
    ]  # fmt: skip


def test_lists_go_in_lock_step_and_must_agree() -> None:
    assert list_positions([[1, 2], [3, 4]]).tolist() == [[1, 3], [2, 4]]
    with pytest.raises(ParameterError, match="same length; these have 1, 2"):
        list_positions([[1, 2], [3]])


def test_too_many_points_are_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ParameterError, match="1,000,000,000,000 points are too many"):
        grid_positions([(0, 1, 10**6), (0, 1, 10**6)])
    with pytest.raises(ParameterError):
        line_positions([(0, 1)], MAX_POINTS + 1)
