"""Readings at equal intervals of time."""

from bec_lib.scans import Exposure, Points, Scan, Steps, parameter
from bec_lib.scans.positions import MAX_POINTS


class TimeScan(Scan):
    """Read at fixed intervals. The points keep to the clock: a late one does not delay those after it.

    >>> scans.time_scan(points=10, interval=1.5, exp_time=0.1)
    """

    scan_name = "time_scan"
    points: int = parameter(ge=1, le=MAX_POINTS, doc="Number of points.")
    interval: float = parameter(ge=0, unit="s", doc="From the begin of one point to the begin of the next.")
    exp_time: float = parameter(0.0, ge=0, unit="s", doc="Exposure time of a trigger.")
    frames_per_trigger: int = parameter(1, ge=1, doc="Frames that a detector takes at each trigger.")
    settling_time: float = parameter(0.0, ge=0, unit="s", doc="Waiting time before each trigger.")

    @property
    def exposure(self) -> Exposure:
        return Exposure(
            exp_time=self.exp_time,
            frames_per_trigger=self.frames_per_trigger,
            settling_time=self.settling_time,
        )

    @property
    def num_points(self) -> int:
        return self.points

    @property
    def shape(self) -> list[int]:
        return [self.points]

    def problems(self) -> list[str]:
        needed = self.exposure.point_s
        if needed > self.interval > 0:
            return [
                f"a point takes at least {needed:g} s, which does not fit into the interval of {self.interval:g} s; "
                "choose a longer interval or a shorter exp_time"
            ]
        return []

    def run(self) -> Steps:
        yield Points(self.points, interval=self.interval)
