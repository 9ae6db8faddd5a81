"""SPEC's names, with SPEC's order of arguments: intervals are one fewer than points, and `time` is the counting time.

A negative time, which means monitor counts to SPEC, is refused. `mesh` and its like have the first motor as the fast
one and do not snake, as SPEC does it.
"""

from typing import ClassVar

import numpy as np

from bec_lib.scans import (
    Device,
    Exposure,
    Points,
    Scan,
    Steps,
    Trajectory,
    grid_positions,
    line_positions,
    parameter,
)
from bec_lib.scans.positions import MAX_POINTS
from scan_server.scans.areas import problems_of_motors


class Counting(Scan):
    """What all of them have."""

    time: float = parameter(0.0, ge=0, unit="s", doc="Counting time of a point.")
    relative: ClassVar[bool] = False

    @property
    def exposure(self) -> Exposure:
        return Exposure(exp_time=self.time)

    def problems(self) -> list[str]:
        return problems_of_motors(self.motors)

    def run(self) -> Steps:
        assert self.targets is not None
        yield Trajectory(self.motors, self.targets)


class AScan(Counting):
    """SPEC's ascan: one motor from start to finish. The points are one more than the intervals.

    >>> scans.ascan(dev.samx, -1, 1, 20, 0.1)
    """

    scan_name = "ascan"
    motor: Device = parameter(doc="The motor.")
    start: float = parameter(of="motor", doc="Its first position.")
    finish: float = parameter(of="motor", doc="Its last position.")
    intervals: int = parameter(ge=1, le=MAX_POINTS, doc="Number of steps, one fewer than points.")

    def positions(self) -> np.ndarray:
        return line_positions([(self.start, self.finish)], self.intervals + 1)

    @property
    def shape(self) -> list[int]:
        return [self.intervals + 1]


class DScan(AScan):
    """SPEC's dscan: as ascan, relative to where the motor stands; it goes back there at the end.

    >>> scans.dscan(dev.samx, -1, 1, 20, 0.1)
    """

    scan_name = "dscan"
    relative = True


class A2Scan(Counting):
    """SPEC's a2scan: two motors in lock-step.

    >>> scans.a2scan(dev.samx, -1, 1, dev.samy, 0, 2, 20, 0.1)
    """

    scan_name = "a2scan"
    motor1: Device = parameter(doc="The first motor.")
    start1: float = parameter(of="motor1", doc="Its first position.")
    finish1: float = parameter(of="motor1", doc="Its last position.")
    motor2: Device = parameter(doc="The second motor.")
    start2: float = parameter(of="motor2", doc="Its first position.")
    finish2: float = parameter(of="motor2", doc="Its last position.")
    intervals: int = parameter(ge=1, le=MAX_POINTS, doc="Number of steps, one fewer than points.")

    def positions(self) -> np.ndarray:
        return line_positions([(self.start1, self.finish1), (self.start2, self.finish2)], self.intervals + 1)

    @property
    def shape(self) -> list[int]:
        return [self.intervals + 1]


class D2Scan(A2Scan):
    """SPEC's d2scan: as a2scan, relative to where the motors stand; they go back there at the end.

    >>> scans.d2scan(dev.samx, -1, 1, dev.samy, 0, 2, 20, 0.1)
    """

    scan_name = "d2scan"
    relative = True


class Mesh(Counting):
    """SPEC's mesh: a grid; the first motor is the fast one, and each line begins at its start.

    >>> scans.mesh(dev.samx, -1, 1, 20, dev.samy, 0, 2, 10, 0.1)
    """

    scan_name = "mesh"
    motor1: Device = parameter(doc="The fast motor.")
    start1: float = parameter(of="motor1", doc="Its first position.")
    finish1: float = parameter(of="motor1", doc="Its last position.")
    intervals1: int = parameter(ge=1, le=MAX_POINTS, doc="Number of its steps, one fewer than its positions.")
    motor2: Device = parameter(doc="The slow motor.")
    start2: float = parameter(of="motor2", doc="Its first position.")
    finish2: float = parameter(of="motor2", doc="Its last position.")
    intervals2: int = parameter(ge=1, le=MAX_POINTS, doc="Number of its steps, one fewer than its positions.")
    time: float = parameter(0.0, ge=0, unit="s", doc="Counting time of a point.")
    snaked: bool = parameter(False, doc="Turn round at the end of a line instead of going back to its start.")

    def positions(self) -> np.ndarray:
        slow = (self.start2, self.finish2, self.intervals2 + 1)
        fast = (self.start1, self.finish1, self.intervals1 + 1)
        return grid_positions([slow, fast], self.snaked)[:, ::-1]

    @property
    def shape(self) -> list[int]:
        return [self.intervals2 + 1, self.intervals1 + 1]


class AMesh(Mesh):
    """The same as mesh.

    >>> scans.amesh(dev.samx, -1, 1, 20, dev.samy, 0, 2, 10, 0.1)
    """

    scan_name = "amesh"


class DMesh(Mesh):
    """As mesh, relative to where the motors stand; they go back there at the end.

    >>> scans.dmesh(dev.samx, -1, 1, 20, dev.samy, 0, 2, 10, 0.1)
    """

    scan_name = "dmesh"
    relative = True


class Ct(Counting):
    """SPEC's ct: count where everything stands, once.

    >>> scans.ct(1)
    """

    scan_name = "ct"
    time: float = parameter(1.0, ge=0, unit="s", doc="Counting time.")
    num_points = 1

    def run(self) -> Steps:
        yield Points(1)


class LoopScan(Counting):
    """SPEC's loopscan: count so many times, with a pause in between.

    >>> scans.loopscan(100, 0.1)
    """

    scan_name = "loopscan"
    npoints: int = parameter(ge=1, le=MAX_POINTS, doc="Number of points.")
    time: float = parameter(1.0, ge=0, unit="s", doc="Counting time of a point.")
    sleep: float = parameter(0.0, ge=0, unit="s", doc="Pause after each point.")

    @property
    def num_points(self) -> int:
        return self.npoints

    @property
    def shape(self) -> list[int]:
        return [self.npoints]

    @property
    def exposure(self) -> Exposure:
        return Exposure(exp_time=self.time, settling_time=self.sleep)

    def run(self) -> Steps:
        yield Points(self.npoints)


class TimeScanOfSpec(Counting):
    """SPEC's timescan: count again and again until somebody ends it (`bec queue complete`, or Ctrl-C twice).

    >>> scans.timescan(1, 9)
    """

    scan_name = "timescan"
    time: float = parameter(1.0, ge=0, unit="s", doc="Counting time of a point.")
    sleep: float = parameter(0.0, ge=0, unit="s", doc="Pause after each point.")

    @property
    def exposure(self) -> Exposure:
        return Exposure(exp_time=self.time, settling_time=self.sleep)

    def run(self) -> Steps:
        yield Points(MAX_POINTS)
