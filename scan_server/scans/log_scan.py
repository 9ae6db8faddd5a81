"""Motors in lock-step with steps that grow."""

import numpy as np

from bec_lib.scans import Bundle, Device, StepScan, argument, log_positions, parameter


class LogScan(StepScan):
    """Move one or more motors in lock-step from start to stop, each step a constant factor longer than the one before.

    Both ends of a range are positive, or both are negative; with relative=True they are distances from where the motor
    stands.

    >>> scans.log_scan(dev.samz, 0.1, 50, steps=11, exp_time=0.1)
    """

    scan_name = "log_scan"
    arguments = Bundle(
        argument("device", Device, doc="A motor."),
        argument("start", float, of="device", doc="Its first position, not 0."),
        argument("stop", float, of="device", doc="Its last position, not 0."),
    )
    steps: int = parameter(ge=1, doc="Number of points, both ends included.")

    def positions(self) -> np.ndarray:
        return log_positions([(start, stop) for _, start, stop in self.bundles], self.steps)

    @property
    def shape(self) -> list[int]:
        return [self.steps]
