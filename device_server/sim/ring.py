"""How much current is in the storage ring? A beam that decays and is topped up, as a function of the clock.

The value depends on nothing but the seed and the time, so two processes, or one that was restarted, agree on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from device_server.sim.noise import hashed_normal, seed_for
from device_server.sim.signals import ReadOnlySignal
from device_server.sim.signature import with_arguments_of

_NOISE_INTERVAL = 0.1  # s, within which the noise stays the same


def ring_current(now: float, *, current: float, lifetime: float, top_up: float, offset: float = 0.0) -> float:
    """Current in the unit of `current` at `now` (s): it decays from `current` and is refilled when `top_up` is lost.

    lifetime: of the beam, s. offset: shifts the cycle, s. A top_up of 0 means that no current is ever lost.
    """
    if top_up <= 0:
        return current
    period = -lifetime * math.log(1.0 - top_up / current)
    return current * math.exp(-((now + offset) % period) / lifetime)


class RingCurrent(ReadOnlySignal):
    """The current of a storage ring in top-up operation.

    current: after a refill, mA. top_up: what is lost until the next refill, mA; below `current`.
    lifetime: of the beam, h. noise_level: standard deviation of the measurement, mA; constant for 0.1 s.
    clock: gives seconds since 1970.
    """

    @with_arguments_of(ReadOnlySignal)
    def __init__(
        self,
        name: str,
        *,
        current: float = 400.0,
        top_up: float = 2.0,
        lifetime: float = 10.0,
        noise_level: float = 0.02,
        seed: int | None = None,
        egu: str = "mA",
        precision: int = 3,
        clock: Callable[[], float] = time.time,
        **signal: Any,
    ) -> None:
        if not 0 <= top_up < current:
            raise ValueError(
                f"top_up of {name} must be at least 0 and below the current of {current:g} {egu}."
            )
        if not lifetime > 0:
            raise ValueError(f"lifetime of {name} must be positive, not {lifetime:g} h.")
        self._seed = seed_for(name, seed)
        self._clock = clock
        self._noise_level = float(noise_level)
        self._cycle = {
            "current": float(current),
            "lifetime": 3600.0 * float(lifetime),
            "top_up": float(top_up),
        }
        super().__init__(name, value=current, egu=egu, precision=precision, **signal)

    def get(self, **kwargs: Any) -> float:
        """The current at this moment, in mA unless configured otherwise."""
        now = self._clock()
        self._metadata["timestamp"] = now
        value = ring_current(now, offset=float(self._seed % 997), **self._cycle)
        self._readback = value + self._noise_level * hashed_normal(self._seed, int(now / _NOISE_INTERVAL))
        return self._readback
