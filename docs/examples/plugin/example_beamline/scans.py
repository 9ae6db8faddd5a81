"""The beamline's own scans."""

import numpy as np

from bec_lib.scans import Bundle, Device, StepScan, argument, parameter


class SnakeScan(StepScan):
    """A grid of rows, each run in the other direction than the one before.

    >>> scans.snake_scan(dev.samx, -1, 1, dev.samy, 0, 2, rows=3, columns=5)
    """

    scan_name = "snake_scan"
    arguments = Bundle(
        argument(
            "device", Device, doc="A motor: first the one along the rows, then the one from row to row."
        ),
        argument("start", float, of="device", doc="Where it begins."),
        argument("stop", float, of="device", doc="Where it ends."),
        at_least=2,
        at_most=2,
    )
    rows: int = parameter(ge=1, doc="Number of rows.")
    columns: int = parameter(ge=1, doc="Points of a row.")

    def positions(self) -> np.ndarray:
        (_, left, right), (_, bottom, top) = self.bundles
        row = np.linspace(left, right, self.columns)
        along = np.concatenate([row if n % 2 == 0 else row[::-1] for n in range(self.rows)])
        across = np.repeat(np.linspace(bottom, top, self.rows), self.columns)
        return np.column_stack([along, across])
