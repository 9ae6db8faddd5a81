"""A reading where everything stands."""

from bec_lib.scans import PointScan


class Acquire(PointScan):
    """Read all monitored devices where they stand, without moving anything.

    >>> scans.acquire(exp_time=0.5)
    >>> scans.acquire(exp_time=0.5, burst_at_each_point=10)
    """

    scan_name = "acquire"

    @property
    def num_points(self) -> int:
        return self.burst
