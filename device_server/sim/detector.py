"""When does a simulated detector acquire? Triggering, exposure and staging, common to monitor, camera and waveform.

Without a trigger each reading is an acquisition of its own. In a staged detector that was triggered, readings return
what the last trigger acquired, and the expected signal is multiplied by the exposure time if that is not zero.
What is acquired is the business of the subclass.
"""

from __future__ import annotations

import time
from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, DeviceStatus, Kind

from device_server.sim.noise import NoiseSequence
from device_server.sim.pending import Pending
from device_server.sim.scheduler import AnyScheduler, shared_scheduler
from device_server.sim.signals import SimSignal


class ExposureStopped(RuntimeError):
    """An exposure ended early because somebody stopped the detector."""


class SimDetector(Device):
    """A detector with an exposure time; subclasses implement `acquire`.

    sequence: the random numbers that the subclass uses.
    exp_time: seconds per exposure; 0 means that a trigger takes no time and the signal is not scaled. At staging it
        is taken over from the scan (`scan_info.msg.scan_parameters["exp_time"]`) if the scan has one.
    """

    exp_time = Cpt(SimSignal, value=0.0, egu="s", limits=(0.0, 1e6), kind=Kind.config)

    def __init__(
        self,
        name: str,
        *,
        sequence: NoiseSequence,
        exp_time: float = 0.0,
        device_manager: Any = None,
        scan_info: Any = None,
        scheduler: AnyScheduler | None = None,
        prefix: str = "",
        parent: Any = None,
        kind: Any = None,
        labels: Any = None,
        attr_name: str = "",
        child_name_separator: str = "_",
    ) -> None:
        self.device_manager = device_manager
        self.scan_info = scan_info
        self._noise = sequence
        self._exposure = Pending(scheduler if scheduler is not None else shared_scheduler())
        self._latched = False
        self._staged_now = False
        super().__init__(
            prefix,
            name=name,
            parent=parent,
            kind=kind,
            labels=labels,
            attr_name=attr_name,
            child_name_separator=child_name_separator,
        )
        self.exp_time.put(exp_time)

    @property
    def triggered(self) -> bool:
        """Whether readings return what the last trigger acquired."""
        return self._latched

    def acquire(self, scale: float) -> None:
        """Take one measurement and put it into the signals; the expected value is multiplied by `scale`."""
        raise NotImplementedError

    def trigger(self) -> DeviceStatus:
        """Expose for `exp_time` seconds; the status is done when the data can be read.

        A second trigger ends the first exposure, whose status then fails.
        """
        self._exposure.end(ExposureStopped(f"{self.name} was triggered again before its exposure was over."))
        status = DeviceStatus(self, call_stop_on_failure=False)
        seconds = self.exp_time.get()
        if seconds > 0:
            self._exposure.begin(status, seconds, lambda: self._acquire_triggered(seconds))
        else:
            self._acquire_triggered(1.0)
            status.set_finished()
        return status

    def stage(self) -> list[Any]:
        """As ophyd; the noise starts anew, and the scan's exposure time, if any, is taken over."""
        staged = super().stage()
        self._noise.restart()
        self._latched, self._staged_now = False, True
        parameters = getattr(getattr(self.scan_info, "msg", None), "scan_parameters", None) or {}
        if parameters.get("exp_time") is not None:
            self.exp_time.put(parameters["exp_time"])
        return staged

    def unstage(self) -> list[Any]:
        """As ophyd; readings are live again, and an exposure that is still going on fails."""
        self._exposure.end(ExposureStopped(f"{self.name} was unstaged before its exposure was over."))
        self._latched, self._staged_now = False, False
        return super().unstage()

    def stop(self, *, success: bool = False) -> None:
        """End an exposure; its status fails with ExposureStopped unless `success`."""
        self._exposure.end(None if success else ExposureStopped(f"The exposure of {self.name} was stopped."))

    def _acquire_triggered(self, scale: float) -> None:
        self.acquire(scale)
        self._latched = self._staged_now


class AcquiredSignal(SimSignal):
    """A value that a detector acquires; looking at it acquires one, unless the last trigger did."""

    def get(self, **kwargs: Any) -> Any:
        if not self.parent.triggered:
            self.parent.acquire(1.0)
        return self._readback

    def check_value(self, value: Any) -> None:
        raise ValueError(f"{self.name} is measured and cannot be set.")

    def record(self, value: Any) -> None:
        """Take note of an acquisition, without copying or checking; subscribers are told only if there are any."""
        if self._callbacks[self.SUB_VALUE]:
            super().put(value, force=True)
        else:
            self._readback = value
            self._metadata["timestamp"] = time.time()
