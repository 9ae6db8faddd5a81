"""Two motors in rings inside a rectangle."""

import numpy as np

from bec_lib.scans import Device, PathScan, parameter, round_roi_positions
from scan_server.scans.areas import problems_of_ranges


class RoundROIScan(PathScan):
    """Read on rings about a centre, as far as they lie inside a rectangle; the n-th ring has n times as many points as
    the first.

    >>> scans.round_roi_scan(dev.samx, -5, 5, dev.samy, -3, 3, shell_spacing=1, pos_in_first_ring=5, exp_time=0.1)
    """

    scan_name = "round_roi_scan"
    motor1: Device = parameter(doc="The first motor.")
    start_motor1: float = parameter(of="motor1", doc="Where the rectangle begins.")
    stop_motor1: float = parameter(of="motor1", doc="Where it ends.")
    motor2: Device = parameter(doc="The second motor.")
    start_motor2: float = parameter(of="motor2", doc="Where the rectangle begins.")
    stop_motor2: float = parameter(of="motor2", doc="Where it ends.")
    shell_spacing: float = parameter(gt=0, of="motor1", doc="From one ring to the next.")
    pos_in_first_ring: int = parameter(ge=1, doc="Number of points of the first ring.")
    center_1: float = parameter(0.0, of="motor1", doc="Position of the first motor at the centre.")
    center_2: float = parameter(0.0, of="motor2", doc="Position of the second motor at the centre.")

    def problems(self) -> list[str]:
        return problems_of_ranges(
            [
                (self.motor1, self.start_motor1, self.stop_motor1),
                (self.motor2, self.start_motor2, self.stop_motor2),
            ]
        )

    def pattern(self) -> np.ndarray:
        return round_roi_positions(
            (self.center_1, self.center_2),
            [(self.start_motor1, self.stop_motor1), (self.start_motor2, self.stop_motor2)],
            self.shell_spacing,
            self.pos_in_first_ring,
        )
