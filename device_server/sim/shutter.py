"""Is the shutter open? A simulated beam shutter with two states and a travel time."""

from __future__ import annotations

from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, DeviceStatus, Kind

from device_server.sim.pending import Pending
from device_server.sim.scheduler import AnyScheduler, shared_scheduler
from device_server.sim.signals import SimSignal

STATES = ("closed", "open")


class ShutterStopped(RuntimeError):
    """A shutter was stopped, or commanded again, before it had changed its state."""


class SimShutter(Device):
    """A shutter that is set to "open" or "closed" (or 1, 0), and reads as 1 or 0 under its own name.

    travel_time: seconds from the command to the new state; 0 changes it at once.
    """

    USER_ACCESS: tuple[str, ...] = ("open", "close", "is_open", "state")

    state = Cpt(SimSignal, value=0, dtype="int", enum_strs=STATES, kind=Kind.hinted)

    def __init__(
        self,
        name: str,
        *,
        travel_time: float = 0.05,
        initially: str = "closed",
        device_manager: Any = None,
        scheduler: AnyScheduler | None = None,
        prefix: str = "",
        parent: Any = None,
        kind: Any = None,
        labels: Any = None,
        attr_name: str = "",
        child_name_separator: str = "_",
    ) -> None:
        self._travel = Pending(scheduler if scheduler is not None else shared_scheduler())
        self._travel_time = float(travel_time)
        super().__init__(
            prefix,
            name=name,
            parent=parent,
            kind=kind,
            labels=labels,
            attr_name=attr_name,
            child_name_separator=child_name_separator,
        )
        self.state.name = self.name
        self.state.put(initially)

    @property
    def is_open(self) -> bool:
        """Whether the shutter is open now."""
        return self.state.get() == 1

    def open(self) -> DeviceStatus:
        """As `set("open")`."""
        return self.set("open")

    def close(self) -> DeviceStatus:
        """As `set("closed")`."""
        return self.set("closed")

    def check_value(self, value: Any) -> None:
        """Raises ValueError or LimitError, naming the states, if the shutter has no such state."""
        self.state.check_value(value)

    def set(self, value: str | int) -> DeviceStatus:
        """Go to a state; the status is done when the shutter is there. Raises as `check_value`."""
        self.check_value(value)
        target = self.state.coerced(value)
        self._travel.end(
            ShutterStopped(f"{self.name} was sent to {STATES[target]} before it had changed its state.")
        )
        status = DeviceStatus(self, call_stop_on_failure=False)
        if self._travel_time <= 0 or target == self.state.get():
            self.state.put(target)
            status.set_finished()
        else:
            self._travel.begin(status, self._travel_time, lambda: self.state.put(target))
        return status

    def stop(self, *, success: bool = False) -> None:
        """Stay in the old state; the status of the command fails unless `success`."""
        self._travel.end(None if success else ShutterStopped(f"{self.name} was stopped."))
