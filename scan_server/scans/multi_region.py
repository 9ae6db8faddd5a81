"""One or two motors through several regions."""

from typing import Any

import numpy as np

from bec_lib.scans import (
    Device,
    PathScan,
    StepScan,
    multi_region_grid_positions,
    multi_region_line_positions,
    parameter,
)
from scan_server.scans.areas import problem_of_region, problems_of_motors


class MultiRegionLineScan(StepScan):
    """Move a motor through several ranges, one after the other, each with steps of its own.

    Each region has both its ends: where one begins at the end of another, that position is read twice.

    >>> scans.multi_region_line_scan(dev.samx, regions=[(-5, -1, 5), (-0.9, 0.9, 19), (1, 5, 5)], exp_time=0.1)
    """

    scan_name = "multi_region_line_scan"
    motor: Device = parameter(doc="The motor.")
    regions: list[Any] = parameter(of="motor", doc="(start, stop, steps) of each region, in order.")

    def problems(self) -> list[str]:
        told = (problem_of_region(region, f"region {n + 1}") for n, region in enumerate(self.regions))
        return [problem for problem in told if problem][:5]

    def positions(self) -> np.ndarray:
        return multi_region_line_positions(
            [(float(start), float(stop), int(steps)) for start, stop, steps in self.regions]
        )


class MultiRegionGridScan(PathScan):
    """Move two motors over several grids, one after the other. The second motor is the fast one.

    >>> scans.multi_region_grid_scan(
    ...     dev.samx, dev.samy, regions=[((-5, -1, 5), (-4, 0, 5)), ((1, 5, 3), (-4, 0, 5))], exp_time=0.1
    ... )
    """

    scan_name = "multi_region_grid_scan"
    motor1: Device = parameter(doc="The slow motor.")
    motor2: Device = parameter(doc="The fast motor.")
    regions: list[Any] = parameter(
        of="motor1", doc="For each grid a pair of (start, stop, steps), one of each motor."
    )
    snaked: bool = parameter(True, doc="Turn round at the end of a line instead of going back to its start.")

    def problems(self) -> list[str]:
        found = problems_of_motors(self.motors)
        for n, region in enumerate(self.regions):
            if not isinstance(region, (list, tuple)) or len(region) != 2:
                found.append(
                    f"region {n + 1} must be a pair of (start, stop, steps), one for {self.motor1} and one for "
                    f"{self.motor2}, not {region!r}"
                )
                continue
            told = (
                problem_of_region(part, f"region {n + 1} of {motor}")
                for motor, part in zip(self.motors, region, strict=True)
            )
            found += [problem for problem in told if problem]
        return found[:5]

    def pattern(self) -> np.ndarray:
        first, second = (
            [(float(start), float(stop), int(steps)) for start, stop, steps in column]
            for column in zip(*self.regions, strict=True)
        )
        return multi_region_grid_positions(list(zip(first, second, strict=True)), self.snaked)
