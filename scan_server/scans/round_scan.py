"""Two motors in rings."""

import numpy as np

from bec_lib.scans import Device, PathScan, parameter, round_positions
from scan_server.scans.areas import problems_of_motors


class RoundScan(PathScan):
    """Read on rings about a centre; the n-th ring has n times as many points as the first.

    >>> scans.round_scan(dev.samx, dev.samy, 1, 5, number_of_rings=5, pos_in_first_ring=6, exp_time=0.1)
    """

    scan_name = "round_scan"
    motor1: Device = parameter(doc="The first motor; rings begin on its positive side.")
    motor2: Device = parameter(doc="The second motor.")
    inner_radius: float = parameter(ge=0, of="motor1", doc="Radius of the first ring.")
    outer_radius: float = parameter(ge=0, of="motor1", doc="Radius of the last ring.")
    number_of_rings: int = parameter(ge=1, doc="Number of rings, the first and the last included.")
    pos_in_first_ring: int = parameter(ge=1, doc="Number of points of the first ring.")
    center_1: float = parameter(0.0, of="motor1", doc="Position of the first motor at the centre.")
    center_2: float = parameter(0.0, of="motor2", doc="Position of the second motor at the centre.")

    def problems(self) -> list[str]:
        return problems_of_motors(self.motors)

    def pattern(self) -> np.ndarray:
        return round_positions(
            (self.center_1, self.center_2),
            self.inner_radius,
            self.outer_radius,
            self.number_of_rings,
            self.pos_in_first_ring,
        )
