"""What a user's scan imports: `Scan` and its kinds, parameters, steps, positions."""

from bec_lib.scans.positions import grid_positions, line_positions, list_positions
from bec_lib.scans.scan import (
    Bundle,
    Device,
    PointScan,
    Scan,
    Steps,
    StepScan,
    argument,
    describe_scan,
    parameter,
)
from bec_lib.scans.steps import Call, Exposure, Move, Point, Points, Read, Step, Trajectory, Wait

__all__ = [
    "Bundle",
    "Call",
    "Device",
    "Exposure",
    "Move",
    "Point",
    "PointScan",
    "Points",
    "Read",
    "Scan",
    "Step",
    "StepScan",
    "Steps",
    "Trajectory",
    "Wait",
    "argument",
    "describe_scan",
    "grid_positions",
    "line_positions",
    "list_positions",
    "parameter",
]
