"""Motors on a grid."""

import numpy as np

from bec_lib.scans import Bundle, Device, StepScan, argument, grid_positions, parameter


class GridScan(StepScan):
    """Read at every point of a grid over two or more motors. The last motor is the fastest.

    >>> scans.grid_scan(dev.samx, -5, 5, 11, dev.samy, 0, 2, 5, exp_time=0.1)
    """

    scan_name = "grid_scan"
    arguments = Bundle(
        argument("device", Device, doc="A motor, the slowest first."),
        argument("start", float, of="device", doc="Its first position."),
        argument("stop", float, of="device", doc="Its last position."),
        argument("steps", int, ge=1, doc="Number of its positions, both ends included."),
        at_least=2,
    )
    snaked: bool = parameter(True, doc="Turn round at the end of a line instead of going back to its start.")

    def positions(self) -> np.ndarray:
        return grid_positions([(start, stop, steps) for _, start, stop, steps in self.bundles], self.snaked)

    @property
    def shape(self) -> list[int]:
        return [steps for _, _, _, steps in self.bundles]
