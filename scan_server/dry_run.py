"""What would this scan do? From the plan that the scan itself would run by, without touching anything. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bec_lib.devices.registry import DeviceRecord, Registry
from bec_lib.messages import MotorPlan, ScanPlan
from bec_lib.scans import Call, Exposure, Move, Point, Points, Read, Scan, Step, Sweep, Trajectory, Wait
from scan_server.assembler import Assembled
from scan_server.timing import Course, Learned, estimate

# Of a longer scan so many points are shown, evenly.
SHOWN_POINTS = 2000
# A preview ends after so many steps.
MANY_STEPS = 2000
# A file without any data, and what a device adds to it (measured; most of it is HDF5's own).
FILE_BYTES, DEVICE_BYTES = 35_000, 4_000
_TIME_BYTES = 8
_TEXT_BYTES = 32


@dataclass
class Preview:
    """What a scan's generator does until it wants to know a result. steps: in words; points: so many; is_whole: there is no
    more; seconds: of waits and sweeps; rows: targets of moves and points, by motor, in order.
    """

    steps: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    points: int = 0
    is_whole: bool = False
    seconds: float = 0.0
    interval: float = 0.0
    problem: str = ""


def plan_of(assembled: Assembled, devices: Registry, learned: Learned) -> ScanPlan:
    """The answer to a dry run. devices: with what is known of limits, positions and signals."""
    scan, plan = assembled.scan, assembled.plan
    preview = preview_of(scan)
    records = {name: plan.devices[name] for name in plan.motors if name in plan.devices}
    positions = plan.positions
    count = plan.num_points
    notes = []
    if count is None and preview.is_whole and preview.points:
        count = preview.points
    if count is None and scan.is_scan:
        notes.append("How many points it takes is decided while it runs.")
    rows = _rows(plan.motors, positions, plan.start)
    motors = [
        _motor(record, None if rows is None else rows[:, k], positions is not None, learned)
        for k, record in enumerate(records.values())
    ]
    guessed: list[str] = []
    made = None
    if count is not None or not scan.is_scan:
        made = estimate(course_of(assembled, count, preview), learned)
        guessed = list(made.guessed)
    data_bytes, file_bytes = (None, None)
    if scan.is_scan:
        data_bytes, file_bytes = _storage(assembled, devices, count)
        notes += _unknown_sizes(plan.groups.monitored, devices)
    index, shown = _shown(positions, plan.motors)
    return ScanPlan(
        scan_name=scan.scan_name,
        num_points=count,
        shape=list(plan.shape),
        motors=motors,
        index=index,
        positions=shown,
        relative=plan.relative,
        returns_to_start=plan.returns_to_start,
        estimated_s=made.seconds if made else None,
        estimated_low_s=made.low if made else None,
        estimated_high_s=made.high if made else None,
        moves_s=made.moves_s if made else 0.0,
        points_s=made.points_s if made else 0.0,
        guessed=guessed,
        data_bytes=data_bytes,
        file_bytes=file_bytes,
        monitored=plan.groups.monitored,
        baseline=plan.groups.baseline,
        async_=plan.groups.async_,
        triggered=list(plan.triggered),
        parameters=dict(plan.parameters),
        settings=[*_exposure_settings(plan.exposure, plan.triggered), *preview.settings],
        steps=preview.steps,
        notes=[
            *notes,
            *([preview.problem] if preview.problem else []),
            *(assembled.hooks.told() if assembled.hooks else []),
        ],
    )


def course_of(assembled: Assembled, count: int | None, preview: Preview | None = None) -> Course:
    """What the estimate needs of a scan. count: of points, None: as planned. preview: None if its steps were not looked
    at; then its parameter `interval` tells what its points take by the clock.
    """
    scan, plan = assembled.scan, assembled.plan
    interval = preview.interval if preview else float(getattr(scan, "interval", 0.0) or 0.0)
    return Course(
        motors=plan.motors,
        positions=_rows(plan.motors, plan.positions, plan.start),
        velocities={name: velocity_of(record) for name, record in plan.devices.items()},
        count=(plan.num_points if count is None else count) or 0,
        exposure_s=plan.exposure.point_s if scan.is_scan else 0.0,
        triggered=plan.triggered,
        at_least_s=interval,
        other_s=preview.seconds if preview else 0.0,
        returns=plan.returns_to_start,
        is_scan=scan.is_scan,
    )


def velocity_of(record: DeviceRecord) -> float | None:
    """As configured, device units per second; None if it is not."""
    value = record.config.deviceConfig.get("velocity") if record.config.deviceConfig else None
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        else None
    )


def preview_of(scan: Scan) -> Preview:
    """Run the scan's generator as far as it goes without a result. Its code talks to nothing, so nothing happens."""
    made = Preview()
    steps = scan.run()
    try:
        for _ in range(MANY_STEPS):
            try:
                step = next(steps)
            except StopIteration:
                made.is_whole = True
                break
            if not _look_at(step, made):
                made.steps.append("what follows is decided while it runs")
                break
        else:
            made.steps.append("and so on")
    except Exception as error:  # noqa: BLE001 - a user's scan; only its preview ends
        made.problem = f"Its steps cannot be told beforehand: {type(error).__name__}: {error}"
    finally:
        steps.close()
    return made


def _look_at(step: Step, made: Preview) -> bool:
    """False if the scan's next step may depend on the result of this one."""
    match step:
        case Trajectory():
            made.points += step.count
            _say(made, f"{step.count} points along positions of {', '.join(step.motors)}")
        case Points():
            made.points += step.count
            made.interval = max(made.interval, step.interval)
            every = f", one each {step.interval:g} s" if step.interval else ""
            _say(made, f"{step.count} point{'' if step.count == 1 else 's'} without a move{every}")
        case Move():
            told = ", ".join(
                f"{name} to {target:g}" if isinstance(target, (int, float)) else f"{name} to {target}"
                for name, target in step.targets.items()
            )
            _say(made, f"moves {told}")
        case Wait():
            made.seconds += step.seconds
            _say(made, f"waits {step.seconds:g} s" if step.seconds else "waits until all points are taken")
            # The number of points is known, so that the scan can be asked on.
            return False
        case Sweep():
            _sweep(step, made)
            return False
        case Point():
            made.points += 1
            _say(made, "a point, whose reading it looks at")
            return False
        case Read():
            _say(made, f"reads {', '.join(step.devices)}")
            return False
        case Call():
            arguments = ", ".join([*map(str, step.args), *(f"{k}={v}" for k, v in step.kwargs.items())])
            made.settings.append(f"{step.device}.{step.func}({arguments}) is called")
            return False
    return True


def _sweep(step: Sweep, made: Preview) -> None:
    way = f" from {step.start:g}" if step.start is not None else ""
    if step.target is not None:
        way += f" to {step.target:g}"
    speed = f" at {step.velocity:g} per second" if step.velocity else ""
    _say(made, f"points while {step.device} is on its way{way}{speed}")
    if step.velocity:
        made.settings.append(f"the velocity of {step.device} is {step.velocity:g} per second while it sweeps")
    if step.kickoff is not None:
        told = ", ".join(f"{name}={_short(value)}" for name, value in step.kickoff.items())
        made.settings.append(f"{step.device} is kicked off with {told}")
    if step.target is not None and step.start is not None and step.velocity:
        made.seconds += abs(step.target - step.start) / step.velocity


def _short(value: Any) -> str:
    return f"<{len(value)} values>" if isinstance(value, (list, tuple, np.ndarray)) else str(value)


def _say(made: Preview, sentence: str) -> None:
    if len(made.steps) < 20:
        made.steps.append(sentence)


def _rows(motors: Sequence[str], positions: np.ndarray | None, start: Any) -> np.ndarray | None:
    """Where the motors stand, and then the targets. Where it is not known, at the first target."""
    if positions is None or not len(positions):
        return None
    first = [start.get(name, positions[0, k]) for k, name in enumerate(motors)]
    return np.vstack([np.asarray(first, dtype=float), np.asarray(positions, dtype=float)])


def _motor(record: DeviceRecord, rows: np.ndarray | None, is_known: bool, learned: Learned) -> MotorPlan:
    targets = rows[1:] if rows is not None and is_known else None
    return MotorPlan(
        name=record.name,
        unit=record.unit,
        start=record.position,
        low=None if targets is None else float(targets.min()),
        high=None if targets is None else float(targets.max()),
        travel=0.0 if rows is None else float(np.abs(np.diff(rows)).sum()),
        limits=None if record.limits is None else list(record.limits),
        velocity=velocity_of(record),
        learned=record.name in learned.motors,
    )


def _shown(positions: np.ndarray | None, motors: Sequence[str]) -> tuple[list[int], dict[str, list[float]]]:
    if positions is None or not len(positions):
        return [], {}
    many = len(positions) > SHOWN_POINTS
    index = (
        np.unique(np.linspace(0, len(positions) - 1, SHOWN_POINTS).round().astype(int))
        if many
        else np.arange(len(positions))
    )
    return index.tolist(), {name: positions[index, k].tolist() for k, name in enumerate(motors)}


def _exposure_settings(exposure: Exposure, triggered: Sequence[str]) -> list[str]:
    told = []
    if exposure.exp_time or exposure.frames_per_trigger > 1:
        frames = f", {exposure.frames_per_trigger} frames" if exposure.frames_per_trigger > 1 else ""
        who = f" by {', '.join(triggered)}" if triggered else ""
        told.append(f"exposed for {exposure.exp_time:g} s{frames} at each point{who}")
    if exposure.settling_time:
        told.append(f"{exposure.settling_time:g} s of settling after each move")
    if exposure.settling_time_after_trigger:
        told.append(f"{exposure.settling_time_after_trigger:g} s between trigger and reading")
    if exposure.readout_time:
        told.append(f"{exposure.readout_time:g} s of readout time for each trigger")
    return told


# Storage


def _storage(assembled: Assembled, devices: Registry, count: int | None) -> tuple[int | None, int | None]:
    """Bytes of all points, and of the file."""
    groups = assembled.plan.groups
    if count is None:
        return None, None
    point = sum(_bytes_of(devices[name]) for name in groups.monitored)
    once = sum(_bytes_of(devices[name]) for name in groups.baseline)
    data = count * point
    return data, FILE_BYTES + data + once + DEVICE_BYTES * (len(groups.monitored) + len(groups.baseline))


def _bytes_of(record: DeviceRecord) -> int:
    """Of a reading: the signals that are read, and their time stamps."""
    if record.info is None:
        return 2 * _TIME_BYTES
    total = 0
    for signal in record.info.signals:
        if signal.kind in ("hinted", "normal"):
            values = int(np.prod(signal.shape)) if signal.shape else 1
            total += _size(signal.dtype) * values + _TIME_BYTES
    return total


def _size(dtype: str) -> int:
    try:
        return np.dtype(dtype).itemsize or _TEXT_BYTES
    except TypeError:
        return _TEXT_BYTES


def _unknown_sizes(names: Sequence[str], devices: Registry) -> list[str]:
    unknown = [name for name in names if devices[name].info is None]
    return [f"What {', '.join(unknown)} will store is not known."] if unknown else []
