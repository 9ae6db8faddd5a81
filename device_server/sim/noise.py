"""Which random numbers does a simulated device see? Seeded sequences, so that a repeated scan gives the same data.

Every device has a seed: the one of its configuration or, without one, a number made from its name, so that two
devices never share a sequence and a restart changes nothing. The sequence starts anew whenever the device is staged;
the n-th acquisition since then uses the n-th draw. A scan that visits the same positions in the same order therefore
measures the same values. Reads outside a scan draw as well, but the next staging rewinds the sequence.
"""

from __future__ import annotations

import math
import zlib
from enum import StrEnum

import numpy as np

POISSON_EXACT_UP_TO = 1e9
"""Above this expectation the Poisson distribution is drawn as the normal one it then equals."""


class Noise(StrEnum):
    """How a simulated value is spread about its expectation; `level` is the noise level in units of the value."""

    NONE = "none"
    UNIFORM = "uniform"  # even within +- level
    GAUSSIAN = "gaussian"  # normal with standard deviation level
    POISSON = "poisson"  # counting statistics of the value itself; level does not matter


def noise_named(name: str | None) -> Noise:
    """The noise of that name, none for None. Raises ValueError listing the choices."""
    try:
        return Noise(str(name or "none").lower())
    except ValueError:
        choices = ", ".join(kind.value for kind in Noise)
        raise ValueError(f"unknown noise {name!r}: choose one of {choices}") from None


def seed_for(name: str, seed: int | None = None) -> int:
    """`seed` itself if given, else a number that depends on the device name alone."""
    return zlib.crc32(name.encode()) if seed is None else int(seed)


class NoiseSequence:
    """A rewindable sequence of random deviations."""

    def __init__(self, kind: Noise, level: float, seed: int) -> None:
        self.kind = kind
        self.level = float(level)
        self.seed = seed
        self._random = np.random.default_rng(seed)

    def restart(self) -> None:
        """Begin again at the first draw."""
        if self.kind is not Noise.NONE:
            self._random = np.random.default_rng(self.seed)

    def around(self, expected: float) -> float:
        """The next value about `expected`; a Poisson expectation below zero counts as zero."""
        kind = self.kind
        if kind is Noise.NONE:
            return expected
        if kind is Noise.POISSON:
            if expected <= 0:
                return 0.0
            if expected > POISSON_EXACT_UP_TO:
                return float(round(self._random.normal(expected, math.sqrt(expected))))
            return float(self._random.poisson(expected))
        if kind is Noise.GAUSSIAN:
            return expected + self.level * self._random.standard_normal()
        return expected + self.level * (2.0 * self._random.random() - 1.0)

    def around_array(self, expected: np.ndarray) -> np.ndarray:
        """As `around` for normal noise, one independent deviate per element of the array."""
        return expected + self.level * self._random.standard_normal(expected.shape)


def hashed_normal(seed: int, index: int) -> float:
    """A standard normal deviate that is a function of its arguments alone (splitmix64, then Box and Muller)."""
    first = _splitmix(_splitmix(seed) ^ index)
    second = _splitmix(first)
    radius = math.sqrt(-2.0 * math.log((first + 1) / 2.0**64))
    return radius * math.cos(2.0 * math.pi * second / 2.0**64)


def _splitmix(state: int) -> int:
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return (state ^ (state >> 31)) & mask
