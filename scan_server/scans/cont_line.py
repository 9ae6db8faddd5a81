"""Scans in which the motor does not stop at the points."""

import numpy as np

from bec_lib.scans import Device, Exposure, Scan, Steps, Sweep, line_positions, parameter


class Continuous(Scan):
    """What they have in common: one motor from start to stop, once."""

    sweeps = True
    motor: Device = parameter(doc="The motor, or another positioner.")
    start: float = parameter(of="motor", doc="Where the motion begins.")
    stop: float = parameter(of="motor", doc="Where it ends.")
    exp_time: float = parameter(0.0, ge=0, unit="s", doc="Exposure time of a trigger.")
    frames_per_trigger: int = parameter(1, ge=1, doc="Frames that a detector takes at each trigger.")
    relative: bool = parameter(
        False, doc="Positions count from where the motor stands, and it goes back there at the end."
    )

    @property
    def exposure(self) -> Exposure:
        return Exposure(exp_time=self.exp_time, frames_per_trigger=self.frames_per_trigger)

    def problems(self) -> list[str]:
        if self.start == self.stop:
            return [f"the range from {self.start:g} to {self.stop:g} is empty; choose another start or stop"]
        return []

    def reach(self) -> np.ndarray:
        return np.array([[self.start], [self.stop]])

    def ends(self) -> list[float]:
        """Where the motor goes first, and last, absolute."""
        found: list[float] = self.absolute(self.reach())[:, 0].tolist()
        return found


class ContLineScan(Continuous):
    """Move a motor through a range without stopping, and read as it passes each of the positions.

    It is as slow as the exposures need, at most as fast as its own velocity, and runs up and out by `offset`. Where it
    really was is recorded; a warning tells how many points were late by more than `atol`.

    >>> scans.cont_line_scan(dev.samx, -5, 5, steps=101, exp_time=0.02)
    """

    scan_name = "cont_line_scan"
    # Repeated, so that `steps` comes behind them.
    motor: Device = parameter(doc="The motor, or another positioner.")
    start: float = parameter(of="motor", doc="The first point.")
    stop: float = parameter(of="motor", doc="The last point.")
    steps: int = parameter(ge=2, doc="Number of points, both ends included.")
    offset: float | None = parameter(
        None, ge=0, of="motor", doc="Run-up and run-out; None: two steps, at least 1 % of the range."
    )
    atol: float | None = parameter(
        None, gt=0, of="motor", doc="How far past its position a point may be; None: half a step."
    )
    readout_time: float = parameter(0.0, ge=0, unit="s", doc="Readout time of the detectors.")

    @property
    def exposure(self) -> Exposure:
        return Exposure(self.exp_time, self.frames_per_trigger, readout_time=self.readout_time)

    @property
    def num_points(self) -> int:
        return self.steps

    @property
    def shape(self) -> list[int]:
        return [self.steps]

    @property
    def run_up(self) -> float:
        distance = abs(self.stop - self.start)
        size = max(2 * distance / (self.steps - 1), 0.01 * distance) if self.offset is None else self.offset
        return float(np.copysign(size, self.stop - self.start))

    def reach(self) -> np.ndarray:
        return np.array([[self.start - self.run_up], [self.stop + self.run_up]])

    def run(self) -> Steps:
        marks = self.absolute(line_positions([(self.start, self.stop)], self.steps))[:, 0]
        step = abs(float(marks[1] - marks[0]))
        first, last = self.ends()
        needed = self.exposure.point_s
        yield Sweep(
            self.motor,
            start=first,
            target=last,
            # A tenth slower than would just do, for what reading takes.
            velocity=0.9 * step / needed if needed > 0 else None,
            marks=marks.tolist(),
            tolerance=self.atol if self.atol is not None else step / 2,
        )


class ContLineFlyScan(Continuous):
    """Move a motor from start to stop at its own velocity, and read again and again while it moves: one exposure after
    the other, at most a thousand in a second.

    >>> scans.cont_line_fly_scan(dev.samrot, 0, 180, exp_time=0.1)
    """

    scan_name = "cont_line_fly_scan"

    def run(self) -> Steps:
        first, last = self.ends()
        yield Sweep(self.motor, start=first, target=last)


class LineSweepScan(Continuous):
    """Move a motor from start to stop at its own velocity, and read whenever it tells a new position.

    >>> scans.line_sweep_scan(dev.samx, -5, 5, max_update=0.5)
    """

    scan_name = "line_sweep_scan"
    min_update: float = parameter(0.0, ge=0, unit="s", doc="Points are not closer than this.")
    max_update: float = parameter(
        0.0, ge=0, unit="s", doc="A point at least this often, also without a new position; 0: no."
    )

    def problems(self) -> list[str]:
        found = super().problems()
        if 0 < self.max_update < self.min_update:
            found.append(
                f"max_update is {self.max_update:g} s, less than min_update, {self.min_update:g} s; choose a longer one"
            )
        return found

    def run(self) -> Steps:
        first, last = self.ends()
        yield Sweep(
            self.motor,
            start=first,
            target=last,
            on_update=True,
            min_interval=self.min_update,
            max_interval=self.max_update,
        )


class MonitorScan(LineSweepScan):
    """The older name of line_sweep_scan.

    >>> scans.monitor_scan(dev.samx, -5, 5)
    """

    scan_name = "monitor_scan"
