"""What a scan's generator may ask for: declarative steps, executed by the scan server.

`Trajectory`, `Points` and `Move` are pipelined: the generator goes on (with None) as soon as they are under way, and
the device servers run them in order, back to back. `Point`, `Read`, `Call`, `Wait` and `Sweep` hand their result to the
generator; a result is in the scan's journal before the generator sees it, so that a scan can be replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Exposure:
    """How a point is taken. Times in seconds: exp_time is what a trigger takes at least, settling_time follows the
    move, settling_time_after_trigger precedes the reading, readout_time is the detectors' own.
    """

    exp_time: float = 0.0
    frames_per_trigger: int = 1
    settling_time: float = 0.0
    settling_time_after_trigger: float = 0.0
    readout_time: float = 0.0

    @property
    def point_s(self) -> float:
        """The least that a point takes."""
        triggers = max(1, self.frames_per_trigger) * (self.exp_time + self.readout_time)
        return triggers + self.settling_time + self.settling_time_after_trigger


@dataclass(frozen=True)
class Trajectory:
    """Points at known positions: at each, move, settle, trigger, read. positions: (points, motors), absolute, in
    device units. labels: name -> one value for each point, or one for all; as declared by the scan's `point_labels`.
    """

    motors: Sequence[str]
    positions: np.ndarray
    exposure: Exposure | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class Points:
    """Points without a move. interval: seconds from the begin of one to the begin of the next, by the clock (no
    drift); 0: back to back. labels: as of a `Trajectory`.
    """

    count: int
    interval: float = 0.0
    exposure: Exposure | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One point; gives its reading: device -> signal -> {"value", "timestamp"}. positions: device -> target. labels: name
    -> value.
    """

    positions: Mapping[str, float] = field(default_factory=dict)
    exposure: Exposure | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """Move devices to absolute targets, all at the same time; later steps begin when all have arrived."""

    targets: Mapping[str, Any]


@dataclass(frozen=True)
class Read:
    """Read devices outside of the points; gives device -> signal -> {"value", "timestamp"}."""

    devices: Sequence[str]


@dataclass(frozen=True)
class Call:
    """Call a method or read a property of a device; gives what it returned."""

    device: str
    func: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wait:
    """Wait until all steps so far are done, and then for so many seconds; gives the number of points taken."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Sweep:
    """Points while one device is on its way; gives {"points": how many}. Everything that is read at the points must be
    on the device's own device server.

    start: where it goes first, None: from where it is. target: where it then goes, at `velocity` (device units per
    second; None: its own). kickoff: instead of target, the arguments of a flyer's `kickoff`; the way ends with its
    `complete`. Values of it that are lists with one entry per point are cut when a scan is resumed.
    When a point is taken:
      marks        when the device passes these positions, in order; tolerance: how late, device units, is too late
      on_update    when it tells a new position, at most one point each `min_interval` s; counted: each one, however
                   many there were while a point was taken
      otherwise    back to back, at most one each `min_interval` s
    and with on_update at the end, and at least every `max_interval` s, if that is not 0.
    labels: name -> one value for all points, or with marks one for each.
    """

    device: str
    target: float | None = None
    start: float | None = None
    velocity: float | None = None
    kickoff: Mapping[str, Any] | None = None
    marks: Sequence[float] = ()
    tolerance: float = 0.0
    on_update: bool = False
    counted: bool = False
    min_interval: float = 0.0
    max_interval: float = 0.0
    exposure: Exposure | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)


Step = Trajectory | Points | Point | Move | Read | Call | Wait | Sweep
