"""When is the next point of a sweep due? While a device is on its way: at marks, at its updates, or back to back.

`MarkPace` looks at positions, `UpdatePace` at updates and time. Both are told what was seen and say how long to wait;
they know no device, no clock and no thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# A mark that is this near, s, is reached: waiting is not finer.
NEAR_S = 0.0005
# However far the next mark, look again after this, s: the device may have become faster.
LOOK_S = 0.05
# How soon to look again at a device that has not yet been seen to move, s.
FIRST_LOOK_S = 0.002
# Back to back, points are not closer than this, s.
LEAST_S = 0.001


@dataclass
class MarkPace:
    """The next of several marks in the direction of a move. tolerance: beyond it a point is late. speed: what the
    device is asked to do, device units/s, or None.

    Positions may be told seldom: between two of them the device is taken to go on as it did.
    """

    marks: Sequence[float]
    direction: int
    tolerance: float = 0.0
    speed: float | None = None
    next: int = 0
    late: int = 0
    _seen: list[tuple[float, float]] = field(default_factory=list)
    _begun: float | None = None

    @property
    def is_done(self) -> bool:
        return self.next >= len(self.marks)

    def wait(self, now: float, position: float) -> float:
        """Seconds after which to look again, at most LOOK_S; 0: the next mark is reached."""
        if self._begun is None:
            self._begun = now
        if not self._seen or self._seen[-1][1] != position:
            self._seen = [*self._seen[-1:], (now, position)]
        left = (self.marks[self.next] - position) * self.direction
        if left <= 0:
            return 0.0
        seen = self._seen_speed()
        if seen <= 0:
            return FIRST_LOOK_S
        # What it has gone since it was seen.
        left -= (self.speed or seen) * (now - self._seen[-1][0])
        seconds = left / max(seen, self.speed or 0.0)
        if seconds <= NEAR_S:
            return 0.0
        # It may be getting faster: half of the way is waited for, and no longer than it has been on its way.
        return min(max(seconds / 2, NEAR_S), LOOK_S, max(now - self._begun, FIRST_LOOK_S))

    def take(self, position: float) -> None:
        """The point is taken here."""
        if (position - self.marks[self.next]) * self.direction > self.tolerance > 0:
            self.late += 1
        self.next += 1

    def _seen_speed(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (then, before), (now, position) = self._seen
        return abs(position - before) / (now - then) if now > then else 0.0


@dataclass
class UpdatePace:
    """Points at updates, or back to back. Times in seconds; `most` 0: no upper bound of the interval."""

    on_update: bool
    counted: bool
    least: float
    most: float
    last: float | None = None
    used: int = 0

    def wait(self, now: float, updates: int) -> float | None:
        """Seconds until a point is due, 0: now, None: not before there is an update."""
        if self.last is None and not self.counted:
            return 0.0
        since = now - self.last if self.last is not None else float("inf")
        if not self.on_update:
            return max(0.0, max(self.least, LEAST_S) - since)
        if updates > self.used:
            return max(0.0, self.least - since)
        return max(0.0, self.most - since) if self.most > 0 else None

    def take(self, now: float, updates: int) -> None:
        self.last = now
        self.used = min(self.used + 1, updates) if self.counted else updates
