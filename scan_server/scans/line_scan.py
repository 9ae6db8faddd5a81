"""Motors in lock-step along a line."""

import numpy as np

from bec_lib.scans import Bundle, Device, StepScan, argument, line_positions, parameter


class LineScan(StepScan):
    """Move one or more motors in lock-step from start to stop, and read at each point.

    >>> scans.line_scan(dev.samx, -5, 5, steps=11, exp_time=0.1, relative=True)
    >>> scans.line_scan(dev.samx, -5, 5, dev.samy, 0, 2, steps=11)
    """

    scan_name = "line_scan"
    arguments = Bundle(
        argument("device", Device, doc="A motor."),
        argument("start", float, of="device", doc="Its first position."),
        argument("stop", float, of="device", doc="Its last position."),
    )
    steps: int = parameter(ge=1, doc="Number of points, both ends included.")

    def positions(self) -> np.ndarray:
        return line_positions([(start, stop) for _, start, stop in self.bundles], self.steps)

    @property
    def shape(self) -> list[int]:
        return [self.steps]
