"""What does the system do when hardware misbehaves? Devices that fail in one known way each.

The name says how. For tests and demonstrations; nothing in here is random unless it says so, and what blocks can be
released.
"""

from __future__ import annotations

import threading
from typing import Any

from ophyd import DeviceStatus

from device_server.sim.monitor import SimMonitor
from device_server.sim.positioner import SimPositioner
from device_server.sim.signals import SimSignal
from device_server.sim.signature import with_arguments_of


class SimulatedFault(RuntimeError):
    """The fault that a broken device was made to show."""


class RaisesInConstructor(SimSignal):
    """Cannot be built."""

    @with_arguments_of(SimSignal)
    def __init__(self, name: str, *, message: str = "no such controller", **kwargs: Any) -> None:
        raise SimulatedFault(f"{name} cannot be built: {message}.")


class NeverConnects(SimPositioner):
    """Can be built but never connects: waiting for it uses up the time allowed and raises TimeoutError."""

    @property
    def connected(self) -> bool:
        """Always false."""
        return False

    def wait_for_connection(self, all_signals: bool = False, timeout: float | None = 2.0) -> None:
        """Raises TimeoutError after `timeout` seconds; without one, after ten."""
        seconds = 10.0 if timeout is None else timeout
        threading.Event().wait(seconds)
        raise TimeoutError(f"{self.name} did not connect within {seconds:g} s.")


class FailingPositioner(SimPositioner):
    """A positioner that refuses or loses its moves.

    fail: "set" raises in `set`; "status" moves, then fails the status on arrival; "silent" never completes it.
    after: how many moves go well before that.
    """

    @with_arguments_of(SimPositioner)
    def __init__(self, name: str, *, fail: str = "status", after: int = 0, **kwargs: Any) -> None:
        if fail not in ("set", "status", "silent"):
            raise ValueError(f"fail of {name} must be set, status or silent, not {fail!r}.")
        self._fail = fail
        self._good_moves = int(after)
        super().__init__(name, **kwargs)

    def move(self, position: float, **kwargs: Any) -> DeviceStatus:
        """As `SimPositioner.move`, as long as it goes well."""
        if self._good_moves > 0:
            self._good_moves -= 1
            return super().move(position, **kwargs)
        if self._fail == "set":
            raise SimulatedFault(
                f"{self.name} refused to move to {position}: communication with its controller failed."
            )
        moved = super().move(position, **kwargs)
        status = DeviceStatus(self, call_stop_on_failure=False)
        if self._fail == "status":
            fault = SimulatedFault(
                f"{self.name} lost its position on the way to {position}: following error."
            )
            moved.add_callback(lambda done: status.set_exception(done.exception(timeout=0) or fault))
        return status


class StuckStopPositioner(SimPositioner):
    """A positioner whose `stop` blocks for `stop_time` seconds, or until `release()`, before it takes effect."""

    USER_ACCESS: tuple[str, ...] = (*SimPositioner.USER_ACCESS, "release")

    @with_arguments_of(SimPositioner)
    def __init__(self, name: str, *, stop_time: float = 10.0, **kwargs: Any) -> None:
        self._stop_time = float(stop_time)
        self._released = threading.Event()
        super().__init__(name, **kwargs)

    def stop(self, *, success: bool = False) -> None:
        """Stops, late."""
        self._released.wait(self._stop_time)
        super().stop(success=success)

    def release(self) -> None:
        """Let every `stop`, now and later, go through at once."""
        self._released.set()


class FlakyMonitor(SimMonitor):
    """A detector whose `read` raises at every `every`-th call, counted from 1; `every` = 1 never reads at all."""

    @with_arguments_of(SimMonitor)
    def __init__(self, name: str, *, every: int = 10, **kwargs: Any) -> None:
        if every < 1:
            raise ValueError(f"every of {name} must be at least 1, not {every}.")
        self._every = int(every)
        self._reads = 0
        super().__init__(name, **kwargs)

    def read(self) -> dict[str, dict[str, Any]]:
        """As `SimMonitor.read`, when it works."""
        self._reads += 1
        if self._reads % self._every == 0:
            raise SimulatedFault(
                f"{self.name} could not be read: no answer from the detector (read {self._reads})."
            )
        return super().read()


class SlowMonitor(SimMonitor):
    """A detector whose `read` blocks for `read_time` seconds, or until `release()`."""

    USER_ACCESS: tuple[str, ...] = (*SimMonitor.USER_ACCESS, "release")

    @with_arguments_of(SimMonitor)
    def __init__(self, name: str, *, read_time: float = 1.0, **kwargs: Any) -> None:
        self._read_time = float(read_time)
        self._released = threading.Event()
        super().__init__(name, **kwargs)

    def read(self) -> dict[str, dict[str, Any]]:
        """As `SimMonitor.read`, late."""
        self._released.wait(self._read_time)
        return super().read()

    def release(self) -> None:
        """Let every `read`, now and later, go through at once."""
        self._released.set()


class FailingDescribe(SimPositioner):
    """A positioner that works but cannot say what it measures."""

    def describe(self) -> dict[str, dict[str, Any]]:
        """Always raises SimulatedFault."""
        raise SimulatedFault(f"{self.name} cannot be described: its controller sent no units.")


class FailingStage(SimMonitor):
    """A detector that cannot be staged."""

    def stage(self) -> list[Any]:
        """Always raises SimulatedFault."""
        raise SimulatedFault(f"{self.name} cannot be staged: the detector is in an error state.")
