"""An example of a beamline's own scans: one over known positions, one that decides as it goes."""

import numpy as np

from bec_lib.scans import Bundle, Device, Move, Point, PointScan, Steps, StepScan, argument, parameter


class ZigzagScan(StepScan):
    """Sweep one motor up and down between two ends, while the other goes on step by step.

    >>> scans.zigzag_scan(dev.samx, -1, 1, dev.samy, 0, 2, sweeps=4, points_per_sweep=11)
    """

    scan_name = "zigzag_scan"
    arguments = Bundle(
        argument("device", Device, doc="A motor."),
        argument("start", float, of="device", doc="Where it begins."),
        argument("stop", float, of="device", doc="Where it ends."),
        at_least=2,
        at_most=2,
    )
    sweeps: int = parameter(ge=1, doc="How often the first motor runs from one end to the other.")
    points_per_sweep: int = parameter(11, ge=2, doc="Points of one sweep, both ends included.")

    def positions(self) -> np.ndarray:
        (_, low, high), (_, first, last) = self.bundles
        sweep = np.linspace(low, high, self.points_per_sweep)
        rows = [sweep if n % 2 == 0 else sweep[::-1] for n in range(self.sweeps)]
        fast = np.concatenate(rows)
        slow = np.repeat(np.linspace(first, last, self.sweeps), self.points_per_sweep)
        return np.column_stack([fast, slow])


class FindEdge(PointScan):
    """Close in on the position at which a signal passes a threshold, by halving the range.

    The signal is to be below the threshold at `start` and above it at `stop`.

    >>> scans.find_edge(dev.samx, -1, 1, detector="diode", threshold=500, precision=0.01)
    """

    scan_name = "find_edge"
    arguments = Bundle(
        argument("device", Device, doc="The motor."),
        argument("start", float, of="device", doc="A position on the low side."),
        argument("stop", float, of="device", doc="A position on the high side."),
        at_most=1,
    )
    detector: Device = parameter(doc="The device whose first signal is compared.")
    threshold: float = parameter(doc="What the signal is compared with, in its unit.")
    precision: float = parameter(gt=0, of="device", doc="How close the edge has to be found.")

    @property
    def motors(self) -> list[str]:
        return [self.bundles[0][0]]

    def run(self) -> Steps:
        motor, low, high = self.bundles[0]
        while abs(high - low) > self.precision:
            middle = (low + high) / 2
            # The scan server hands the reading of the point to the generator, after it has been recorded.
            reading = yield Point({motor: middle})
            value = next(iter(reading[self.detector].values()))["value"]
            low, high = (low, middle) if value > self.threshold else (middle, high)
        yield Move({motor: (low + high) / 2})
