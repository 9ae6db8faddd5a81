"""A scan of a plugin and its modifier, as a beamline would install them: a gate is open while points are taken."""

from collections.abc import Callable

import numpy as np

from bec_lib.scans import (
    Bundle,
    Call,
    Device,
    Move,
    Read,
    Steps,
    StepScan,
    argument,
    line_positions,
    parameter,
)
from bec_lib.scans.modifier import ScanModifier, after, before, cleanup, instead

__all__ = ["GateOpen", "HookedScan"]

OPEN, CLOSED = 1.0, 0.0


class HookedScan(StepScan):
    """A line, which the modifier below has steps for and no other scan has.

    >>> scans.hooked_scan(dev.samx, -1, 1, steps=11)
    """

    scan_name = "hooked_scan"
    arguments = Bundle(
        argument("device", Device),
        argument("start", float, of="device"),
        argument("stop", float, of="device"),
        at_least=1,
        at_most=1,
    )
    steps: int = parameter(ge=2, doc="Number of points, both ends included.")

    def positions(self) -> np.ndarray:
        return line_positions([(start, stop) for _, start, stop in self.bundles], self.steps)


class GateOpen(ScanModifier):
    """The gate is open at every point, and closed afterwards however the scan ends; the notes tell when."""

    devices = ("gate", "notes")

    @before("stage", scans="hooked_scan")
    def look(self) -> Steps:
        yield Read(["gate"])

    @before("points", scans="hooked_scan")
    def open_gate(self) -> Steps:
        yield Move({"gate": OPEN})
        reading = yield Read(["gate"])
        if reading["gate"]["gate"]["value"] != OPEN:
            raise RuntimeError("the gate did not open")

    @instead("points", scans="hooked_scan")
    def noted(self, original: Callable[[], Steps]) -> Steps:
        yield Call("notes", "note", ["begins"])
        yield from original()
        yield Call("notes", "note", ["ends"])

    @after("points", scans="hooked_scan")
    @cleanup(scans="hooked_scan")
    def close_gate(self) -> Steps:
        yield Move({"gate": CLOSED})
        yield Call("notes", "note", ["closed"])
