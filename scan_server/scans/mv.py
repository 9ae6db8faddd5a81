"""Moving motors. No scan: no number, no file, nothing read."""

import numpy as np

from bec_lib.scans import Bundle, Device, Move, Scan, Steps, argument, list_positions, parameter


class Mv(Scan):
    """Move one or more motors, all at the same time.

    >>> scans.mv(dev.samx, 1.5, dev.samy, -2)
    """

    scan_name = "mv"
    is_scan = False
    arguments = Bundle(
        argument("device", Device, doc="A motor."),
        argument("target", float, of="device", doc="Where it is to go."),
    )
    relative: bool = parameter(False, doc="Targets count from where the motors stand.")

    def positions(self) -> np.ndarray:
        return list_positions([[target] for _, target in self.bundles])

    def run(self) -> Steps:
        assert self.targets is not None
        yield Move(dict(zip(self.motors, self.targets[0].tolist(), strict=True)))


class Umv(Mv):
    """Move one or more motors and watch them until they have arrived.

    >>> scans.umv(dev.samx, 1.5, dev.samy, -2)
    """

    scan_name = "umv"
