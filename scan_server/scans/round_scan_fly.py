"""Rings, run by a flyer."""

import numpy as np

from bec_lib.scans import Device, Exposure, Scan, Steps, Sweep, parameter, round_positions


class RoundScanFly(Scan):
    """Let a flyer run through rings about its origin, and read at each position that it tells.

    The flyer's `kickoff` is given the positions as (x, y), and exp_time; the scan ends when its `complete` does. The
    n-th ring has n times as many points as the first.

    >>> scans.round_scan_fly(dev.flyer, 1, 5, number_of_rings=5, pos_in_first_ring=6, exp_time=0.01)
    """

    scan_name = "round_scan_fly"
    sweeps = True
    flyer: Device = parameter(moved=False, doc="The flyer.")
    inner_ring: float = parameter(ge=0, doc="Radius of the first ring.")
    outer_ring: float = parameter(ge=0, doc="Radius of the last ring.")
    number_of_rings: int = parameter(ge=1, doc="Number of rings, the first and the last included.")
    pos_in_first_ring: int = parameter(ge=1, doc="Number of points of the first ring.")
    exp_time: float = parameter(0.0, ge=0, unit="s", doc="How long the flyer stands at each position.")
    relative: bool = parameter(False, doc="Without effect: a flyer counts from its own origin.")

    @property
    def is_relative(self) -> bool:
        return False

    @property
    def exposure(self) -> Exposure:
        return Exposure(exp_time=self.exp_time)

    @property
    def num_points(self) -> int:
        return len(self.rings())

    def problems(self) -> list[str]:
        self.rings()
        return []

    def rings(self) -> np.ndarray:
        return round_positions(
            (0.0, 0.0), self.inner_ring, self.outer_ring, self.number_of_rings, self.pos_in_first_ring
        )

    def run(self) -> Steps:
        yield Sweep(
            self.flyer,
            kickoff={"positions": self.rings().tolist(), "exp_time": self.exp_time},
            on_update=True,
            counted=True,
            # The flyer exposes by itself.
            exposure=Exposure(),
        )
