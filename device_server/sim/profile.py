"""Where is an axis at a time after its start? The trapezoidal velocity profile of a motor, as a value.

The axis starts at rest, accelerates evenly, runs at constant velocity if the way is long enough, and brakes evenly
to rest at the target. Pure: time comes in as an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Trapezoid:
    """A move from `start` to `target`, device units, at up to `velocity` units/s with `acceleration` units/s^2.

    An acceleration that is not positive means that the velocity is reached at once.
    Raises ValueError if the velocity is not positive.
    """

    start: float
    target: float
    velocity: float
    acceleration: float
    duration: float = field(init=False)
    """Seconds from start to standstill; 0.0 if start and target are the same."""
    _ramp: float = field(init=False)
    _peak: float = field(init=False)

    def __post_init__(self) -> None:
        if not self.velocity > 0:
            raise ValueError(f"a velocity must be positive, not {self.velocity:g}")
        distance = abs(self.target - self.start)
        ramp, peak = 0.0, self.velocity
        if self.acceleration > 0:
            ramp = self.velocity / self.acceleration
            if ramp * self.velocity > distance:  # too short to reach the velocity: a triangle
                ramp = math.sqrt(distance / self.acceleration)
                peak = self.acceleration * ramp
        duration = distance / peak + ramp if distance > 0 and peak > 0 else 0.0
        object.__setattr__(self, "_ramp", ramp)
        object.__setattr__(self, "_peak", peak)
        object.__setattr__(self, "duration", duration)

    def position(self, elapsed: float) -> float:
        """Position `elapsed` seconds after the start; before it `start`, after `duration` exactly `target`."""
        if elapsed >= self.duration:
            return self.target
        if elapsed <= 0:
            return self.start
        way = abs(self.target - self.start)
        left = self.duration - elapsed
        if elapsed < self._ramp:
            done = 0.5 * self.acceleration * elapsed * elapsed
        elif left < self._ramp:
            done = way - 0.5 * self.acceleration * left * left
        else:
            done = self._peak * (elapsed - 0.5 * self._ramp)
        done = min(max(done, 0.0), way)
        return self.start + math.copysign(done, self.target - self.start)
