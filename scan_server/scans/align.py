"""Put a motor where a signal has its peak, or its edge."""

import numpy as np

from bec_lib.errors import DeviceError
from bec_lib.scans import Device, Move, Point, PointScan, Steps, parameter
from bec_lib.scans.estimate import METHODS, center_of, main_value


class Align(PointScan):
    """Scan a line, find the centre of the peak (or dip, or edge), go there, and repeat over a narrower range about it
    until the centre stays where it is. The motor ends at the centre.

    If nothing stands out of the noise, or the centre lies at the end of the range, the motor goes back to where it was,
    and the scan fails and says so. The centre is estimated by the scan itself (see bec_lib.scans.estimate).

    >>> scans.align(dev.samx, -1.5, 1.5, dev.bpm4i, steps=21, relative=True)
    """

    scan_name = "align"
    motor: Device = parameter(doc="The motor.")
    start: float = parameter(of="motor", doc="First position of the first scan.")
    stop: float = parameter(of="motor", doc="Last position of the first scan.")
    detector: Device = parameter(moved=False, doc="The device whose signal is looked at.")
    signal: str = parameter("", doc="Which of its signals; empty: its main one.")
    steps: int = parameter(21, ge=5, le=10_000, doc="Points of each scan.")
    method: str = parameter(
        "gauss",
        choices=METHODS,
        doc="gauss or com: centre of a peak or dip; max: highest point; edge: of a step.",
    )
    tolerance: float = parameter(
        0.0, ge=0, of="motor", doc="A centre that moved by less is stable; 0: half a step of the last scan."
    )
    zoom: float = parameter(0.5, gt=0, le=1, doc="Each scan's range, as a part of the one before.")
    max_rounds: int = parameter(4, ge=1, le=100, doc="Scans, at most.")
    burst_at_each_point = 1
    relative: bool = parameter(False, doc="Positions count from where the motor stands.")

    @property
    def returns_to_start(self) -> bool:
        return False

    def problems(self) -> list[str]:
        if self.start == self.stop:
            return [f"the range from {self.start:g} to {self.stop:g} is empty; choose another start or stop"]
        return []

    def reach(self) -> np.ndarray:
        return np.array([[self.start], [self.stop]])

    def run(self) -> Steps:
        low, high = sorted(self.absolute(self.reach())[:, 0].tolist())
        left, right, before = low, high, None
        for _ in range(self.max_rounds):
            at = np.linspace(left, right, self.steps).tolist()
            values = []
            for position in at:
                reading = yield Point({self.motor: position})
                values.append(main_value(reading, self.detector, self.signal))
            center = center_of(at, values, self.method)
            if center is None or not at[0] < center < at[-1]:
                yield from self._back()
                raise DeviceError(self._sorry(at, values, center), device=self.detector)
            step = (right - left) / (self.steps - 1)
            stable = before is not None and abs(center - before) <= (self.tolerance or step / 2)
            before = center
            if stable:
                break
            half = (right - left) * self.zoom / 2
            left, right = max(low, center - half), min(high, center + half)
        assert before is not None
        yield Move({self.motor: before})

    def _back(self) -> Steps:
        if self.motor in self.start_positions:
            yield Move({self.motor: self.start_positions[self.motor]})

    def _sorry(self, at: list[float], values: list[float], center: float | None) -> str:
        where = f"between {at[0]:g} and {at[-1]:g} of {self.motor}"
        if center is None:
            return (
                f"{self.detector} shows no feature {where}: it lies between {min(values):g} and {max(values):g}, which "
                "does not stand out of the noise; choose another range or detector, or a longer exp_time"
            )
        return f"the centre of {self.detector} lies at the end of the range {where}; choose a range that goes further"
