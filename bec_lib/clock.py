"""What time is it, and where do random bits come from.

Pure modules take times and identifiers as arguments; shells own a `Clock`. The fake for tests is
`bec_lib.testing.FakeClock`.
"""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `now` is for people and files, `monotonic` for deadlines."""

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC. May jump when the host's clock is set."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start. Never goes back."""

    def random_bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes; a fake clock gives a repeatable sequence."""


class SystemClock:
    """The host's clocks and its random source."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)
