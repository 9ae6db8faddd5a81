"""A line with more points where the signal changes."""

import numpy as np

from bec_lib.scans import Device, Point, PointScan, Steps, parameter
from bec_lib.scans.estimate import main_value, positions_to_refine


class AdaptiveLineScan(PointScan):
    """Read at a few points of a line, then between those where the signal changes, until it is resolved or the points
    are used up.

    The passes go to and fro; the points are in the file in the order in which they were taken.

    >>> scans.adaptive_line_scan(dev.samx, -2, 2, dev.bpm4i, points=40, min_step=0.02)
    """

    scan_name = "adaptive_line_scan"
    motor: Device = parameter(doc="The motor.")
    start: float = parameter(of="motor", doc="Its first position.")
    stop: float = parameter(of="motor", doc="Its last position.")
    detector: Device = parameter(moved=False, doc="The device whose signal decides.")
    signal: str = parameter("", doc="Which of its signals; empty: its main one.")
    points: int = parameter(50, ge=3, le=10_000, doc="Number of points, at most.")
    first_points: int = parameter(9, ge=3, le=10_000, doc="Number of points of the first pass.")
    change: float = parameter(
        0.1, gt=0, lt=1, doc="Change between neighbours that calls for a point, of the signal's range."
    )
    min_step: float = parameter(0.0, ge=0, of="motor", doc="Neighbours are not closer than this.")
    burst_at_each_point = 1
    relative: bool = parameter(
        False, doc="Positions count from where the motor stands, and it goes back there."
    )

    def problems(self) -> list[str]:
        found = []
        if self.start == self.stop:
            found.append(
                f"the range from {self.start:g} to {self.stop:g} is empty; choose another start or stop"
            )
        if self.first_points > self.points:
            found.append(
                f"first_points is {self.first_points}, more than the {self.points} points that there are at most"
            )
        return found

    def reach(self) -> np.ndarray:
        return np.array([[self.start], [self.stop]])

    @property
    def num_points(self) -> int | None:
        return None

    def run(self) -> Steps:
        low, high = self.absolute(self.reach())[:, 0]
        # An interval that rounding makes ever smaller must not be halved for ever.
        least = max(self.min_step, abs(high - low) * 1e-6)
        wanted = np.linspace(low, high, self.first_points).tolist()
        at: list[float] = []
        values: list[float] = []
        while wanted:
            for position in wanted:
                reading = yield Point({self.motor: position})
                at.append(position)
                values.append(main_value(reading, self.detector, self.signal))
            left = self.points - len(at)
            wanted = positions_to_refine(at, values, change=self.change, least=least, at_most=left)
            if wanted and abs(at[-1] - wanted[-1]) < abs(at[-1] - wanted[0]):
                wanted.reverse()
