"""An X-ray absorption spectrum."""

from typing import Any

import numpy as np

from bec_lib.scans import Device, Exposure, PointScan, Steps, Trajectory, energy_positions, parameter

# Relative to the edge: before it, the edge itself, and where the fine structure begins, eV.
_REGIONS = [[-150.0, -20.0, 5.0], [-20.0, 30.0, 0.5]]


class EnergyScan(PointScan):
    """Take an absorption spectrum: steps of energy about an edge, then steps of the photo-electron's wave number k.

    Beyond the last region the points are equally spaced in k up to k_stop, and their exposure grows with k to the power
    of k_weight, because the fine structure fades: exp_time (k / k_start)^k_weight, at most max_exp_time.
    The energies are in the axis' own unit, keV if the edge is below 130, else eV; regions and steps are in eV.

    >>> scans.energy_scan(dev.mono_energy, 7.112, k_stop=12, k_step=0.05, exp_time=0.5, k_weight=1)
    """

    scan_name = "energy_scan"
    motor: Device = parameter(doc="The axis of the photon energy.")
    edge: float = parameter(gt=0, of="motor", doc="Energy of the absorption edge.")
    regions: list[Any] = parameter(
        _REGIONS, unit="eV", doc="(start, stop, step) of each region, relative to the edge, ascending."
    )
    k_stop: float = parameter(12.0, ge=0, le=50, unit="1/Angstrom", doc="Last wave number; 0: no such part.")
    k_step: float = parameter(0.05, gt=0, unit="1/Angstrom", doc="Step of the wave number.")
    k_weight: float = parameter(0.0, ge=0, le=4, doc="How the exposure grows with k; 0: it does not.")
    max_exp_time: float = parameter(0.0, ge=0, unit="s", doc="Longest exposure; 0: no limit.")

    @property
    def ev(self) -> float:
        """One unit of the axis, in eV."""
        return 1000.0 if self.edge < 130 else 1.0

    def problems(self) -> list[str]:
        found = []
        for n, region in enumerate(self.regions):
            good = isinstance(region, (list, tuple)) and len(region) == 3
            if not good or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in region):
                found.append(
                    f"region {n + 1} must be (start, stop, step), three numbers in eV, not {region!r}"
                )
        return found[:5]

    def positions(self) -> np.ndarray:
        return self._energies()[0][:, None]

    def run(self) -> Steps:
        assert self.targets is not None
        k = np.repeat(self._energies()[1], self.burst)
        times = self._times(k)
        # One piece of trajectory for each exposure.
        begins = np.flatnonzero(np.diff(times, prepend=-1.0))
        for begin, end in zip(begins, [*begins[1:], len(times)], strict=True):
            exposure = Exposure(
                float(times[begin]),
                self.frames_per_trigger,
                self.settling_time,
                self.settling_time_after_trigger,
                self.readout_time,
            )
            yield Trajectory(self.motors, self.targets[begin:end], exposure)

    def _energies(self) -> tuple[np.ndarray, np.ndarray]:
        regions = [(start / self.ev, stop / self.ev, step / self.ev) for start, stop, step in self.regions]
        return energy_positions(self.edge, regions, self.k_stop, self.k_step, self.ev)

    def _times(self, k: np.ndarray) -> np.ndarray:
        times = np.full(len(k), self.exp_time)
        late = np.flatnonzero(k > 0)
        if len(late):
            times[late] *= (k[late] / k[late[0]]) ** self.k_weight
        return np.minimum(times, self.max_exp_time) if self.max_exp_time > 0 else times
