"""Motors on a grid of listed positions."""

import numpy as np

from bec_lib.scans import Bundle, Device, StepScan, argument, list_grid_positions, parameter
from scan_server.scans.list_scan import problems_of_lists


class ListGridScan(StepScan):
    """Read at every combination of the listed positions of two or more motors. The last motor is the fastest.

    >>> scans.list_grid_scan(dev.samx, [0, 1, 3, 4], dev.samy, [-1, 0, 1], exp_time=0.1)
    """

    scan_name = "list_grid_scan"
    arguments = Bundle(
        argument("device", Device, doc="A motor, the slowest first."),
        argument("positions", list, of="device", doc="Its positions, in order."),
        at_least=2,
    )
    snaked: bool = parameter(True, doc="Turn round at the end of a line instead of going back to its start.")

    def problems(self) -> list[str]:
        return problems_of_lists(self.bundles)

    def positions(self) -> np.ndarray:
        return list_grid_positions([values for _, values in self.bundles], self.snaked)

    @property
    def shape(self) -> list[int]:
        return [len(values) for _, values in self.bundles]
