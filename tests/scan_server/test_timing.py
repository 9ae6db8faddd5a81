"""What is learned of how long things take, and what is estimated by it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from scan_server.timing import (
    GUESS_FACTOR,
    Course,
    Learned,
    estimate,
    from_plain,
    learn_move,
    learn_points,
    learn_scan,
    to_plain,
)


def course(count: int, step: float = 1.0, *, velocity: float | None = 2.0, exposure_s: float = 0.1) -> Course:
    """A line scan that begins at the first position."""
    rows = np.concatenate([[0.0], step * np.arange(count)])[:, np.newaxis]
    return Course(("samx",), rows, {"samx": velocity}, count, exposure_s, ("eiger",))


def times(of: Course, *, offset: float, per_unit: float, overhead: float) -> tuple[list[float], list[float]]:
    """When the points of a simulated scan were begun and read: a move takes offset + distance x per_unit."""
    assert of.positions is not None
    begun, read, now = [], [], 0.0
    for way in np.abs(np.diff(of.positions[:, 0])):
        now += offset + way * per_unit if way else 0.0
        begun.append(now)
        now += of.exposure_s + overhead
        read.append(now)
    return begun, read


def taught(*steps: float) -> Learned:
    learned = Learned()
    for step in steps:
        made = course(30, step)
        begun, read = times(made, offset=0.2, per_unit=0.5, overhead=0.03)
        learned = learn_points(learned, made, 0, begun, read, 0.0, 0.1)
    return learned


def test_before_anything_is_learned_the_velocity_is_taken_and_it_is_called_a_guess() -> None:
    made = estimate(course(11), Learned())
    assert made.moves_s == pytest.approx(10 / 2.0)
    assert made.guessed == ("what a point with eiger takes", "samx")
    assert made.high == pytest.approx(GUESS_FACTOR * made.seconds)
    assert made.low >= 1.1, "eleven exposures are certain"
    unknown = estimate(course(11, velocity=None), Learned())
    assert unknown.moves_s == pytest.approx(10 * 0.5)


def test_moves_of_two_lengths_tell_velocity_and_overhead() -> None:
    made = estimate(course(21, 2.0), taught(1.0, 4.0))
    assert made.guessed == ()
    assert made.moves_s == pytest.approx(20 * (0.2 + 2.0 * 0.5), rel=0.01)
    assert made.points_s == pytest.approx(21 * 0.13, rel=0.01)
    assert made.low < made.seconds < made.high < 1.5 * made.seconds


def test_moves_of_one_length_are_right_for_that_length() -> None:
    assert estimate(course(21, 1.0), taught(1.0)).moves_s == pytest.approx(20 * 0.7, rel=0.01)


def test_moves_far_from_what_was_seen_are_a_guess() -> None:
    assert estimate(course(21, 0.01), taught(1.0, 4.0)).guessed == ("so short moves of samx",)
    assert estimate(course(21, 40.0), taught(1.0, 4.0)).guessed == ("so long moves of samx",)


def test_the_slowest_motor_counts_and_learns() -> None:
    rows = np.column_stack([np.arange(20.0), 0.001 * np.arange(20.0)])
    both = Course(("slow", "fast"), np.vstack([rows[:1], rows]), {"slow": 1.0, "fast": 1.0}, 20, 0.0)
    assert estimate(both, Learned()).moves_s == pytest.approx(19.0)
    begun = [3.0 * k for k in range(20)]
    learned = learn_points(Learned(), both, 0, begun, begun, 0.0, 0.0)
    assert list(learned.motors) == ["slow"]
    assert estimate(both, learned).moves_s == pytest.approx(19 * 3.0, rel=0.01)


def test_a_pause_in_the_middle_is_not_learned() -> None:
    made = course(30)
    begun, read = times(made, offset=0.2, per_unit=0.5, overhead=0.03)
    late = [t + 1000 * (k > 12) for k, t in enumerate(begun)]
    later = [t + 1000 * (k > 12) for k, t in enumerate(read)]
    learned = learn_points(Learned(), made, 0, late, later, 0.0, 0.1)
    assert estimate(made, learned).moves_s == pytest.approx(29 * 0.7, rel=0.01)


def test_an_interval_by_the_clock_is_the_least() -> None:
    made = replace(course(11), positions=None, at_least_s=1.0)
    assert estimate(made, Learned()).seconds == pytest.approx(10.0, abs=0.3)


def test_the_way_back_counts() -> None:
    made = course(11)
    assert estimate(replace(made, returns=True), Learned()).moves_s == pytest.approx(5.0 + 10 / 2.0)


def test_single_moves_are_learned() -> None:
    learned = learn_move(learn_move(Learned(), "samx", 10.0, 5.2), "samx", 2.0, 1.2)
    move = Course(("samx",), np.array([[0.0], [6.0]]), {}, 0, 0.0, is_scan=False)
    assert estimate(move, learned).seconds == pytest.approx(3.2, rel=0.05)
    assert learn_move(learned, "samx", 0.0, 1.0) is learned
    assert learn_move(learned, "samx", 1.0, math.inf) is learned


def test_the_band_is_what_estimates_were_off_by() -> None:
    learned, made = taught(1.0, 4.0), course(21, 2.0)
    expected = estimate(made, learned)
    good, bad = learned, learned
    for _ in range(10):
        good = learn_scan(good, made, expected, expected.seconds, expected.seconds + 0.01)
        bad = learn_scan(bad, made, expected, 2 * expected.seconds, 2 * expected.seconds + 0.01)
    narrow, wide = estimate(made, good), estimate(made, bad)
    assert narrow.high / narrow.seconds < 1.25 < 2.0 < wide.high / wide.seconds


def test_it_travels_as_a_message() -> None:
    learned = learn_scan(taught(1.0, 4.0), course(11), estimate(course(11), taught(1.0, 4.0)), 9.0, 10.0)
    assert from_plain(json.loads(json.dumps(to_plain(learned)))) == learned
