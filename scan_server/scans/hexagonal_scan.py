"""Two motors on a hexagonal lattice."""

import numpy as np

from bec_lib.scans import Device, PathScan, hexagonal_positions, parameter
from scan_server.scans.areas import problems_of_ranges


class HexagonalScan(PathScan):
    """Read in rows of which every other one is shifted by half a step. The second motor is the fast one.

    All neighbours are equally far if step_motor1 is 0.866 times step_motor2.

    >>> scans.hexagonal_scan(dev.samx, -5, 5, 0.866, dev.samy, -4, 4, 1, exp_time=0.1)
    """

    scan_name = "hexagonal_scan"
    motor1: Device = parameter(doc="The motor from row to row.")
    start_motor1: float = parameter(of="motor1", doc="The first row.")
    stop_motor1: float = parameter(of="motor1", doc="The last row, at most.")
    step_motor1: float = parameter(gt=0, of="motor1", doc="Distance of the rows.")
    motor2: Device = parameter(doc="The motor along the rows.")
    start_motor2: float = parameter(of="motor2", doc="Where a row begins.")
    stop_motor2: float = parameter(of="motor2", doc="Where a row ends, at most.")
    step_motor2: float = parameter(gt=0, of="motor2", doc="Distance of the points in a row.")
    snaked: bool = parameter(True, doc="Turn round at the end of a row instead of going back to its start.")

    def problems(self) -> list[str]:
        return problems_of_ranges(
            [
                (self.motor1, self.start_motor1, self.stop_motor1),
                (self.motor2, self.start_motor2, self.stop_motor2),
            ]
        )

    def pattern(self) -> np.ndarray:
        return hexagonal_positions(
            (self.start_motor1, self.stop_motor1, self.step_motor1),
            (self.start_motor2, self.stop_motor2, self.step_motor2),
            self.snaked,
        )
