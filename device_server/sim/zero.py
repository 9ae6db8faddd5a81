"""How fast is the system itself? Devices that take no time: a motor that arrives at once and a constant value.

For benchmarks: reading or moving one costs a few microseconds, so that what is measured is not the simulation.
"""

from __future__ import annotations

import time
from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, DeviceStatus, Kind, PositionerBase

from device_server.sim.signals import SimSignal
from device_server.sim.signature import with_arguments_of


class ZeroMotor(Device, PositionerBase):
    """A positioner that is at its target before `set` returns; its limits are only told, not checked."""

    USER_ACCESS: tuple[str, ...] = ("position", "egu", "limits", "low_limit", "high_limit")
    SUB_READBACK = "readback"
    _default_sub = SUB_READBACK

    readback = Cpt(SimSignal, value=0.0, egu="mm", kind=Kind.hinted)
    setpoint = Cpt(SimSignal, value=0.0, egu="mm", kind=Kind.normal)
    low_limit_travel = Cpt(SimSignal, value=-1e6, egu="mm", kind=Kind.omitted)
    high_limit_travel = Cpt(SimSignal, value=1e6, egu="mm", kind=Kind.omitted)

    def __init__(
        self,
        name: str,
        *,
        device_manager: Any = None,
        prefix: str = "",
        parent: Any = None,
        kind: Any = None,
        labels: Any = None,
        attr_name: str = "",
        child_name_separator: str = "_",
    ) -> None:
        super().__init__(
            prefix,
            name=name,
            parent=parent,
            kind=kind,
            labels=labels,
            attr_name=attr_name,
            child_name_separator=child_name_separator,
        )
        self.readback.name = self.name

    @property
    def egu(self) -> str:
        """The unit of the position: mm."""
        return "mm"

    @property
    def position(self) -> float:
        """The position, mm."""
        return self.readback.get()

    @property
    def limits(self) -> tuple[float, float]:
        """(low, high), mm."""
        return self.low_limit_travel.get(), self.high_limit_travel.get()

    @limits.setter
    def limits(self, limits: Any) -> None:
        low, high = limits
        self.low_limit_travel.put(low)
        self.high_limit_travel.put(high)

    def check_value(self, value: Any) -> None:
        """Every value is fine."""

    def move(self, position: float, **kwargs: Any) -> DeviceStatus:
        """Be at `position`, mm; the status is done when this returns."""
        self.setpoint.put(position, force=True)
        self.readback.put(position, force=True)
        self._run_subs(sub_type=self.SUB_READBACK, value=position, timestamp=time.time())
        status = DeviceStatus(self, call_stop_on_failure=False)
        status.set_finished()
        return status

    def set(self, new_position: float, **kwargs: Any) -> DeviceStatus:
        """As `move`."""
        return self.move(new_position)

    def stop(self, *, success: bool = False) -> None:
        """Nothing ever moves."""


class ConstSignal(SimSignal):
    """A scalar that never changes by itself."""

    @with_arguments_of(SimSignal)
    def __init__(self, name: str, *, value: float = 1.0, egu: str = "", **kwargs: Any) -> None:
        super().__init__(name, value=float(value), egu=egu, **kwargs)
