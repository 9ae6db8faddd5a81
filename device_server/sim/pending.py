"""Who completes the status of an operation that takes time? At most one operation per device, ended exactly once.

Its natural end comes on the scheduler's thread, a stop or a newer operation on another. Both first `take` it; only
one gets it, and completes its status.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ophyd import DeviceStatus

from device_server.sim.scheduler import AnyScheduler, Call


class Pending:
    """The operation under way on a device, if any."""

    def __init__(self, scheduler: AnyScheduler) -> None:
        self._scheduler = scheduler
        self._lock = threading.Lock()  # guards _current
        self._current: tuple[DeviceStatus, Call] | None = None

    def begin(self, status: DeviceStatus, seconds: float, finish: Callable[[], None]) -> None:
        """Call `finish()` after `seconds` and complete `status`, with its error if it raises one.

        There must be none under way: `end` it first.
        """
        with self._lock:
            call = self._scheduler.call_later(seconds, lambda: self._finish(status, finish))
            self._current = (status, call)

    def end(self, failure: Exception | None) -> None:
        """End the operation under way now, without its `finish`; the status succeeds if `failure` is None."""
        status = self._take(None)
        if status is None:
            return
        if failure is None:
            status.set_finished()
        else:
            status.set_exception(failure)

    def _finish(self, status: DeviceStatus, finish: Callable[[], None]) -> None:
        if self._take(status) is None:
            return
        try:
            finish()
        except Exception as error:  # noqa: BLE001 - belongs to whoever waits for the status
            status.set_exception(error)
        else:
            status.set_finished()

    def _take(self, wanted: DeviceStatus | None) -> DeviceStatus | None:
        with self._lock:
            current = self._current
            if current is None or (wanted is not None and current[0] is not wanted):
                return None
            self._current = None
        status, call = current
        call.cancel()
        return status
