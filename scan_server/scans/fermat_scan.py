"""Two motors along a Fermat spiral."""

import numpy as np

from bec_lib.scans import Device, PathScan, fermat_positions, line_positions, parameter
from bec_lib.scans.positions import MAX_POINTS, check_count
from scan_server.scans.areas import extent, middle, problems_of_ranges


class FermatScan(PathScan):
    """Read at the points of a Fermat spiral, which fill a rectangle evenly and without a period.

    With a third motor, one spiral in each of its layers, which are `step` apart.

    >>> scans.fermat_scan(dev.samx, -5, 5, dev.samy, -5, 5, step=0.5, exp_time=0.1, optim_trajectory="corridor")
    """

    scan_name = "fermat_scan"
    motor1: Device = parameter(doc="The first motor.")
    start_motor1: float = parameter(of="motor1", doc="Where its range begins.")
    stop_motor1: float = parameter(of="motor1", doc="Where its range ends.")
    motor2: Device = parameter(doc="The second motor.")
    start_motor2: float = parameter(of="motor2", doc="Where its range begins.")
    stop_motor2: float = parameter(of="motor2", doc="Where its range ends.")
    step: float = parameter(0.1, gt=0, of="motor1", doc="Mean distance of neighbouring points.")
    spiral_type: float = parameter(
        0.0, ge=0, le=2, doc="Added to the golden ratio of a turn between two points; 0: evenest."
    )
    motor3: Device | None = parameter(None, doc="A third motor, the slowest, for layers.")
    start_motor3: float = parameter(0.0, of="motor3", doc="Its first layer.")
    stop_motor3: float = parameter(0.0, of="motor3", doc="Its last layer, at most.")

    def problems(self) -> list[str]:
        return problems_of_ranges(self.ranges)

    @property
    def ranges(self) -> list[tuple[str, float, float]]:
        found: list[tuple[str, float, float]] = [
            (self.motor1, self.start_motor1, self.stop_motor1),
            (self.motor2, self.start_motor2, self.stop_motor2),
        ]
        if self.motor3:
            found.append((self.motor3, self.start_motor3, self.stop_motor3))
        return found

    def pattern(self) -> np.ndarray:
        x, y, *z = [(start, stop) for _, start, stop in self.ranges]
        plane = fermat_positions(middle(x, y), extent(x, y), self.step, self.spiral_type)
        if not z:
            return plane
        ((low, high),) = z
        # Every other layer is walked inwards, so that the next begins where the last has ended.
        count = int(min(abs(high - low) / self.step * (1 + 1e-12), MAX_POINTS)) + 1
        check_count(count * len(plane))
        layers = line_positions([(low, low + np.sign(high - low) * self.step * (count - 1))], count)[:, 0]
        return np.concatenate(
            [
                np.column_stack([plane[:: 1 - 2 * (n % 2)], np.full(len(plane), level)])
                for n, level in enumerate(layers)
            ]
        )
