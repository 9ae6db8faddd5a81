"""A motor that never arrives, and notes when it is told to stop: for the time from a command to the device."""

from __future__ import annotations

import time
from typing import Any

from ophyd import DeviceStatus

from device_server.sim import ZeroMotor


class NeverThere(ZeroMotor):
    """`stopped_at`: when `stop` was called last, seconds UTC; 0.0 since the last move began."""

    USER_ACCESS: tuple[str, ...] = (*ZeroMotor.USER_ACCESS, "stopped_at", "is_moving")

    _move: DeviceStatus | None = None
    stopped_at = 0.0

    @property
    def is_moving(self) -> bool:
        return self._move is not None

    def set(self, value: float, **_: Any) -> DeviceStatus:
        """Begin a move that only `stop` ends."""
        self.stopped_at = 0.0
        self._move = DeviceStatus(self)
        return self._move

    def stop(self, *, success: bool = False) -> None:
        now = time.time()
        move, self._move = self._move, None
        self.stopped_at = self.stopped_at or now
        if move is not None:
            move.set_finished()
