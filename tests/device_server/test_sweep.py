"""When points of a sweep are due: marks, updates, back to back. No device, no clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_server.sweep import LEAST_S, MarkPace, UpdatePace


def travel(pace: MarkPace, where: Callable[[float], float], until: float) -> list[float]:
    """Where a device of this trajectory was when the points were taken."""
    now, taken = 0.0, []
    while now < until and not pace.is_done:
        wait = pace.wait(now, where(now))
        if wait == 0:
            pace.take(where(now))
            taken.append(where(now))
        else:
            now += wait
    return taken


def trapezoid(velocity: float, acceleration: float) -> Callable[[float], float]:
    ramp = velocity / acceleration
    return lambda t: acceleration * t * t / 2 if t < ramp else velocity * (t - ramp / 2)


@settings(deadline=None)
@given(st.floats(0.5, 50), st.floats(20, 2000), st.booleans(), st.integers(2, 30))
def test_points_are_near_their_marks_whatever_the_speed(
    velocity: float, acceleration: float, told: bool, count: int
) -> None:
    marks = [1.0 + 0.5 * n for n in range(count)]
    pace = MarkPace(marks, 1, tolerance=0.5, speed=velocity if told else None)
    taken = travel(pace, trapezoid(velocity, acceleration), 1000.0)
    assert len(taken) == count
    # Within what it goes in a little more than a millisecond.
    assert all(abs(at - mark) <= 0.0025 * velocity + 1e-9 for at, mark in zip(taken, marks, strict=True))


def test_backwards() -> None:
    pace = MarkPace([-1.0, -2.0], -1, speed=10.0)
    taken = travel(pace, lambda t: -10.0 * t, 10.0)
    assert taken == [pytest.approx(-1, abs=0.02), pytest.approx(-2, abs=0.02)]


def test_a_position_that_is_told_seldom_is_continued() -> None:
    pace = MarkPace([1.0 + 0.1 * n for n in range(10)], 1, speed=1.0)
    times: list[float] = []
    now = 0.0
    while not pace.is_done:
        # Told five times a second; whoever waits is woken by it.
        update = int(now * 5 + 1e-9)
        wait = pace.wait(now, update / 5)
        if wait == 0:
            times.append(now)
            pace.take(now)
        else:
            now = min(now + wait, (update + 1) / 5)
    assert times == [pytest.approx(1.0 + 0.1 * n, abs=0.01) for n in range(10)]


def test_late_points_are_counted() -> None:
    pace = MarkPace([1.0, 2.0, 3.0], 1, tolerance=0.1)
    for position in (1.05, 2.2, 3.0):
        assert pace.wait(position, position) == 0
        pace.take(position)
    assert pace.late == 1


def test_a_device_that_stands_is_looked_at_again() -> None:
    pace = MarkPace([1.0], 1)
    assert 0 < pace.wait(0.0, 0.0) < 0.05
    assert 0 < pace.wait(0.1, 0.0) < 0.05


def test_at_updates_with_a_least_and_a_largest_interval() -> None:
    pace = UpdatePace(on_update=True, counted=False, least=0.1, most=0.5)
    assert pace.wait(0.0, 0) == 0  # the first, at once
    pace.take(0.0, 0)
    assert pace.wait(0.0, 0) == 0.5
    assert pace.wait(0.02, 3) == pytest.approx(0.08)
    pace.take(0.1, 3)
    assert pace.wait(0.3, 3) == pytest.approx(0.3)
    assert UpdatePace(True, False, 0.0, 0.0, last=0.0).wait(1.0, 0) is None


def test_each_update_counts_for_a_flyer() -> None:
    pace = UpdatePace(on_update=True, counted=True, least=0.0, most=0.0)
    assert pace.wait(0.0, 0) is None
    taken = 0
    while pace.wait(1.0, 3) == 0:
        pace.take(1.0, 3)
        taken += 1
    assert taken == 3


def test_back_to_back_is_bounded() -> None:
    pace = UpdatePace(on_update=False, counted=False, least=0.0, most=0.0)
    pace.take(0.0, 0)
    assert pace.wait(0.0, 0) == LEAST_S
    assert pace.wait(0.01, 0) == 0
