"""Two motors along a spiral."""

import numpy as np

from bec_lib.scans import Device, PathScan, parameter, spiral_positions
from scan_server.scans.areas import extent, middle, problems_of_ranges


class SpiralScan(PathScan):
    """Read along an Archimedean spiral from the middle of a rectangle outwards: the shortest way to look for something
    that is near.

    >>> scans.spiral_scan(dev.samx, -1, 1, dev.samy, -1, 1, step=0.2, relative=True)
    """

    scan_name = "spiral_scan"
    motor1: Device = parameter(doc="The first motor.")
    start_motor1: float = parameter(of="motor1", doc="Where its range begins.")
    stop_motor1: float = parameter(of="motor1", doc="Where its range ends.")
    motor2: Device = parameter(doc="The second motor.")
    start_motor2: float = parameter(of="motor2", doc="Where its range begins.")
    stop_motor2: float = parameter(of="motor2", doc="Where its range ends.")
    step: float = parameter(0.1, gt=0, of="motor1", doc="Distance of the arms, and of the points along them.")

    def problems(self) -> list[str]:
        return problems_of_ranges(
            [
                (self.motor1, self.start_motor1, self.stop_motor1),
                (self.motor2, self.start_motor2, self.stop_motor2),
            ]
        )

    def pattern(self) -> np.ndarray:
        x, y = (self.start_motor1, self.stop_motor1), (self.start_motor2, self.stop_motor2)
        return spiral_positions(middle(x, y), extent(x, y), self.step)
