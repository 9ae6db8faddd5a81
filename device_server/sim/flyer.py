"""How does a device behave that runs a trajectory by itself? A simulated flyer with two axes of its own.

`kickoff` hands it positions; it then stands at each of them for an exposure, tells its read-back at each, and
completes the status of `complete` behind the last. Other devices do not see its axes.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, DeviceStatus, Kind

from device_server.sim.pending import Pending
from device_server.sim.scheduler import AnyScheduler, shared_scheduler
from device_server.sim.signals import SimSignal


class FlightStopped(RuntimeError):
    """A flight ended before its last position because somebody stopped it."""


class SimFlyer(Device):
    """A flyer that goes through two-dimensional positions and counts them.

    move_time: seconds from one position to the next, > 0; the exposure comes on top. amplitude, sigma: of the Gaussian
    about the origin that `intensity` follows.
    """

    USER_ACCESS: tuple[str, ...] = ("kickoff", "complete", "x", "y", "index", "intensity")
    SUB_READBACK = "readback"
    _default_sub = SUB_READBACK

    x = Cpt(SimSignal, value=0.0, egu="mm", kind=Kind.hinted)
    y = Cpt(SimSignal, value=0.0, egu="mm", kind=Kind.hinted)
    intensity = Cpt(SimSignal, value=0.0, egu="counts", kind=Kind.hinted)
    index = Cpt(SimSignal, value=0, dtype="int", kind=Kind.normal)

    def __init__(
        self,
        name: str,
        *,
        move_time: float = 0.01,
        amplitude: float = 1000.0,
        sigma: float = 2.0,
        device_manager: Any = None,
        scheduler: AnyScheduler | None = None,
        prefix: str = "",
        parent: Any = None,
        kind: Any = None,
        labels: Any = None,
        attr_name: str = "",
        child_name_separator: str = "_",
    ) -> None:
        if not move_time > 0:
            raise ValueError(f"move_time of {name} must be positive, not {move_time:g} s.")
        self._flight = Pending(scheduler if scheduler is not None else shared_scheduler())
        self._status: DeviceStatus | None = None
        self._move_time, self._amplitude, self._sigma = float(move_time), float(amplitude), float(sigma)
        super().__init__(
            prefix,
            name=name,
            parent=parent,
            kind=kind,
            labels=labels,
            attr_name=attr_name,
            child_name_separator=child_name_separator,
        )

    def kickoff(self, *, positions: Sequence[Sequence[float]], exp_time: float = 0.0) -> DeviceStatus:
        """Begin to go through (x, y) positions, mm, standing `exp_time` s at each. The status is done at once."""
        route = [(float(x), float(y)) for x, y in positions]
        if not all(math.isfinite(x) and math.isfinite(y) for x, y in route):
            raise ValueError(f"{self.name} cannot go to positions that are not finite.")
        self._flight.end(FlightStopped(f"{self.name} was kicked off anew before it had completed."))
        self.index.put(0, force=True)
        self._status = DeviceStatus(self, call_stop_on_failure=False)
        started = DeviceStatus(self, call_stop_on_failure=False)
        started.set_finished()
        self._go_on(route, 0, float(exp_time))
        return started

    def complete(self) -> DeviceStatus:
        """Done when the last position has been exposed; at once if there was no `kickoff`."""
        if self._status is None:
            self._status = DeviceStatus(self, call_stop_on_failure=False)
            self._status.set_finished()
        return self._status

    def stage(self) -> list[Any]:
        """As ophyd; a flight that was stopped is forgotten."""
        self._status = None
        return super().stage()

    def stop(self, *, success: bool = False) -> None:
        """End the flight where it is; its status fails unless `success`."""
        status = self._status
        self._flight.end(None if success else FlightStopped(f"{self.name} was stopped."))
        if status is not None and not status.done:
            if success:
                status.set_finished()
            else:
                status.set_exception(FlightStopped(f"{self.name} was stopped on its flight."))

    def _go_on(self, route: list[tuple[float, float]], number: int, exp_time: float) -> None:
        """Runs on the scheduler's thread, but for the first. Each leg is a pending operation, which a stop ends."""
        status = self._status
        if status is None or status.done:
            return
        if number >= len(route):
            status.set_finished()
            return
        leg = DeviceStatus(self, call_stop_on_failure=False)
        seconds = self._move_time + (exp_time if number else 0.0)
        self._flight.begin(leg, seconds, functools.partial(self._arrive, route, number, exp_time))

    def _arrive(self, route: list[tuple[float, float]], number: int, exp_time: float) -> None:
        x, y = route[number]
        now = time.time()
        self.x.put(x, force=True, timestamp=now)
        self.y.put(y, force=True, timestamp=now)
        value = self._amplitude * math.exp(-(x * x + y * y) / (2 * self._sigma**2))
        self.intensity.put(value, force=True, timestamp=now)
        self.index.put(number + 1, force=True, timestamp=now)
        self._run_subs(sub_type=self.SUB_READBACK, timestamp=now, value=number + 1)
        self._go_on(route, number + 1, exp_time)
