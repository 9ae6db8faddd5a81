"""How long does it take? What finished scans and moves have shown, and what a scan will take by it.

A motor is a line of time over distance, found by least squares in which the past fades; what a point takes beside its
move and its exposure, and what a scan takes beside its points, are means. How far earlier estimates were off is the band.
Pure: values in, a new value out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

# What was learned before counts less each time that something new is learned.
FADE = 0.8
# An estimate that nothing was learned for may be off by this factor (its logarithm is two standard deviations).
GUESS_FACTOR = 3.0
# Before it is known how far estimates are off: as if two had been, by 15 %.
PRIOR_WEIGHT, PRIOR_SIGMA = 2.0, 0.15
# A way that is so much shorter or longer than those that were seen is guessed.
FAR = 4.0
# Where nothing is known: of a motor whose velocity nobody tells, of a point, and of a scan's begin and end. Seconds.
SOME_MOVE_S, SOME_POINT_S, SOME_SCAN_S = 0.5, 0.001, 0.02
MANY = 1000


@dataclass(frozen=True)
class Line:
    """Sums over pairs of distance (device units, > 0) and time (s), with fading weights. least, most: the shortest and the
    longest way that was seen.
    """

    n: float = 0.0
    d: float = 0.0
    t: float = 0.0
    dd: float = 0.0
    dt: float = 0.0
    least: float = math.inf
    most: float = 0.0

    def learn(self, distances: np.ndarray, times: np.ndarray) -> Line:
        if not len(distances):
            return self
        # However many there were, they are one experience.
        weight = 1.0 / len(distances)
        return Line(
            FADE * self.n + 1.0,
            FADE * self.d + weight * float(distances.sum()),
            FADE * self.t + weight * float(times.sum()),
            FADE * self.dd + weight * float((distances**2).sum()),
            FADE * self.dt + weight * float((distances * times).sum()),
            min(self.least, float(distances.min())),
            max(self.most, float(distances.max())),
        )

    def is_far_from(self, distances: np.ndarray) -> str:
        """Are most of these ways much "short"er or "long"er than all that were seen? Empty if not."""
        way = float(np.median(distances[distances > 0])) if (distances > 0).any() else 0.0
        if not way or self.n == 0:
            return ""
        return "short" if way < self.least / FAR else "long" if way > self.most * FAR else ""

    def time_of(self, distances: np.ndarray, velocity: float | None) -> np.ndarray:
        """Seconds for these distances, 0 for 0. velocity: for the slope where all that was seen is of one length."""
        if self.n == 0:
            times = distances / velocity if velocity else np.full(len(distances), SOME_MOVE_S)
            return np.where(distances > 0, times, 0.0)
        mean_d, mean_t = self.d / self.n, self.t / self.n
        spread = self.dd / self.n - mean_d**2
        if spread > (0.05 * mean_d) ** 2:
            slope = (self.dt / self.n - mean_d * mean_t) / spread
        else:
            slope = min(1 / velocity, mean_t / mean_d) if velocity else mean_t / mean_d
        slope = max(0.0, slope)
        offset = max(0.0, mean_t - slope * mean_d)
        made: np.ndarray = np.where(distances > 0, offset + slope * distances, 0.0)
        return made


@dataclass(frozen=True)
class Mean:
    """A mean in which the past fades, and the mean of the squares."""

    n: float = 0.0
    value: float = 0.0
    square: float = 0.0

    def learn(self, value: float) -> Mean:
        n = FADE * self.n + 1.0
        share = 1.0 / n
        return Mean(
            n, self.value + share * (value - self.value), self.square + share * (value**2 - self.square)
        )


@dataclass(frozen=True)
class Learned:
    """motors: by name. points: what a point takes beside move and exposure, by the devices that are triggered at it (all in
    one text). scans: what a scan takes beside its points. ratio: logarithm of what a scan took over what was estimated.
    """

    motors: Mapping[str, Line] = field(default_factory=dict)
    points: Mapping[str, Mean] = field(default_factory=dict)
    scans: Mean = Mean()
    ratio: Mean = Mean()


@dataclass(frozen=True)
class Course:
    """What is known of a scan beforehand. positions: (points, motors), absolute, where they stand at the begin in the first
    row; None if it moves nothing, or by itself. velocities: of motors, None where unknown. exposure_s: of a point, with
    settling. at_least_s: what a point takes at least, by the clock.
    """

    motors: Sequence[str]
    positions: np.ndarray | None
    velocities: Mapping[str, float | None]
    count: int
    exposure_s: float
    triggered: Sequence[str] = ()
    at_least_s: float = 0.0
    other_s: float = 0.0
    returns: bool = False
    is_scan: bool = True

    @property
    def key(self) -> str:
        return ",".join(sorted(self.triggered))


@dataclass(frozen=True)
class Estimate:
    """Seconds, with a band that holds the truth nineteen times of twenty. guessed: what nothing was learned for."""

    seconds: float
    low: float
    high: float
    moves_s: float
    points_s: float
    guessed: tuple[str, ...] = ()


def estimate(course: Course, learned: Learned) -> Estimate:
    """What a scan will take from its begin to its end."""
    guessed = []
    moves_s = 0.0
    per_point = learned.points.get(course.key)
    if per_point is None and course.count:
        guessed.append("what a point takes" if not course.key else f"what a point with {course.key} takes")
    point_s = course.exposure_s + (max(0.0, per_point.value) if per_point else SOME_POINT_S)
    steps = move_times(course, learned)
    if steps is not None:
        guessed += [name for name in course.motors if name not in learned.motors]
        guessed += _far(course, learned)
        moves_s = float(steps.sum()) + _return_s(course, learned)
    points_s = course.count * point_s
    if course.at_least_s:
        points_s = max(points_s, (course.count - 1) * course.at_least_s + point_s)
    seconds = moves_s + points_s + course.other_s
    if course.is_scan:
        seconds += learned.scans.value if learned.scans.n else SOME_SCAN_S
    weight = learned.ratio.n + PRIOR_WEIGHT
    variance = (learned.ratio.square * learned.ratio.n + PRIOR_SIGMA**2 * PRIOR_WEIGHT) / weight
    factor = math.exp(min(2 * math.sqrt(variance), math.log(20)))
    if guessed:
        factor = max(factor, GUESS_FACTOR)
    # What takes its time by the clock is certain.
    certain = min(seconds, max(course.count * course.exposure_s, course.count * course.at_least_s))
    low = max(certain, seconds / factor)
    return Estimate(seconds, low, seconds * factor, moves_s, points_s, tuple(guessed))


def _far(course: Course, learned: Learned) -> list[str]:
    if course.positions is None:
        return []
    distances = np.abs(np.diff(course.positions, axis=0))
    told = [
        (name, learned.motors.get(name, Line()).is_far_from(distances[:, k]))
        for k, name in enumerate(course.motors)
    ]
    return [f"so {how} moves of {name}" for name, how in told if how]


def move_times(course: Course, learned: Learned) -> np.ndarray | None:
    """Seconds of each move to the next row of positions: those of the slowest motor."""
    if course.positions is None or len(course.positions) < 2:
        return None
    distances = np.abs(np.diff(course.positions, axis=0))
    times = [
        learned.motors.get(name, Line()).time_of(distances[:, k], course.velocities.get(name))
        for k, name in enumerate(course.motors)
    ]
    slowest: np.ndarray = np.max(times, axis=0)
    return slowest


def _return_s(course: Course, learned: Learned) -> float:
    """Seconds of the way back from the last position to the first."""
    if not course.returns or course.positions is None:
        return 0.0
    times = move_times(replace(course, positions=course.positions[[-1, 0]]), learned)
    return 0.0 if times is None else float(times.sum())


def learn_points(
    learned: Learned,
    course: Course,
    first_index: int,
    acq_start: Sequence[float],
    acq_end: Sequence[float],
    settling_s: float,
    exposure_s: float,
) -> Learned:
    """From a row of points that were taken one after the other: when each was begun and read.

    course: with positions for all points of the scan, the start before them. settling_s: the part of exposure_s that is
    waited after the move.
    """
    begun, read = np.asarray(acq_start, dtype=float), np.asarray(acq_end, dtype=float)
    if len(begun) < 3 or len(begun) != len(read):
        return learned
    between = begun[1:] - read[:-1] - settling_s
    taken = read - begun - (exposure_s - settling_s)
    good = _usual(between)
    overhead = float(np.median(taken))
    motors = dict(learned.motors)
    if course.positions is None:
        if not course.at_least_s:
            overhead += float(np.median(between))
    else:
        # Row k + 1 is point k.
        rows = course.positions[first_index + 1 : first_index + 1 + len(begun)]
        if len(rows) != len(begun):
            return learned
        distances = np.abs(np.diff(rows, axis=0))
        expected = np.array(
            [
                learned.motors.get(name, Line()).time_of(distances[:, k], course.velocities.get(name))
                for k, name in enumerate(course.motors)
            ]
        )
        for k, name in enumerate(course.motors):
            # A move is the slowest motor's; those that are as slow as it share it.
            slowest = (distances[:, k] > 0) & (expected[k] >= 0.9 * expected.max(axis=0)) & good
            if slowest.any():
                moved = motors.get(name, Line())
                motors[name] = moved.learn(distances[slowest, k], np.maximum(between[slowest], 0.0))
    points = dict(learned.points)
    points[course.key] = points.get(course.key, Mean()).learn(max(0.0, overhead))
    return replace(learned, motors=_newest(motors), points=_newest(points))


def learn_move(learned: Learned, motor: str, distance: float, seconds: float) -> Learned:
    """From one move of one motor."""
    if not distance > 0 or not 0 <= seconds < math.inf:
        return learned
    line = learned.motors.get(motor, Line()).learn(np.array([distance]), np.array([seconds]))
    return replace(learned, motors=_newest({**learned.motors, motor: line}))


def learn_scan(
    learned: Learned, course: Course, made: Estimate, points_and_moves_s: float, seconds: float
) -> Learned:
    """From a whole scan: what was estimated for it, and what it took. points_and_moves_s: from the time its first point was
    begun, which is after the first move, to its last reading.
    """
    if not 0 < points_and_moves_s <= seconds or made.seconds <= 0:
        return learned
    ways = move_times(course, learned)
    first_s = 0.0 if ways is None else float(ways[0])
    rest_s = seconds - points_and_moves_s - first_s - _return_s(course, learned)
    scans = learned.scans.learn(min(max(rest_s, 0.0), 60.0))
    ratio = learned.ratio if made.guessed else learned.ratio.learn(math.log(seconds / made.seconds))
    return replace(learned, scans=scans, ratio=ratio)


def to_plain(learned: Learned) -> dict[str, Any]:
    """For a message."""
    return {
        "motors": {name: asdict(line) for name, line in learned.motors.items()},
        "points": {key: asdict(mean) for key, mean in learned.points.items()},
        "scans": asdict(learned.scans),
        "ratio": asdict(learned.ratio),
    }


def from_plain(raw: Mapping[str, Any]) -> Learned:
    """Raises KeyError, TypeError or ValueError if it is none of ours."""
    return Learned(
        {name: Line(**line) for name, line in raw["motors"].items()},
        {key: Mean(**mean) for key, mean in raw["points"].items()},
        Mean(**raw["scans"]),
        Mean(**raw["ratio"]),
    )


def _usual(times: np.ndarray) -> np.ndarray:
    """Which of these are not out of all proportion, as by a pause."""
    return times <= 5 * max(float(np.median(times)), 0.01)


def _newest(known: dict[str, Any]) -> dict[str, Any]:
    return known if len(known) <= MANY else dict(list(known.items())[-MANY:])
