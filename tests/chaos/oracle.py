"""Is everything true that BEC promises? One judge for all fault tests.

Pure: takes what stands in the streams, in the files and in the witness's log, and gives sentences, one per broken
promise; an empty list if all are kept.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bec_lib.messages import (
    PointsMessage,
    RequestDoneMessage,
    ScanSchemaMessage,
    ScanState,
    ScanStatusMessage,
    SealMessage,
)

# A motor's read-back may differ from its true position by this, device units.
TOLERANCE = 0.02
# How near a motor has to be to where a scan leaves it, device units; a peak is found no better.
LEFT = 0.05
# Time stamps of one thing, seconds.
CLOCK_S = 0.01
# Time within which `bec-server status` has to show what happened to a service, seconds.
STATE_S = 2.0
# Time within which the next point has to come after a kill, seconds.
RESUME_S = 3.0

Positions = tuple[float, ...]


@dataclass(frozen=True)
class FileContents:
    """A scan's file. columns: signal -> values, those of the schema. state: how the scan ended, by the file.
    dead_time_s: for how long interlocks have held it.
    """

    path: str
    columns: Mapping[str, Sequence[float]]
    scan_id: str
    state: str = "closed"
    dead_time_s: float = 0.0


@dataclass(frozen=True)
class Way:
    """Of a scan whose motor does not stop at its points: from where to where, device units. marks: where points were
    wanted; empty if they were not told beforehand. velocity: device units/s, at most. most: the longest way between two
    points that nobody has disturbed.
    """

    motor: str
    start: float
    stop: float
    velocity: float
    marks: Sequence[float] = ()
    most: float = math.inf


@dataclass(frozen=True)
class Route:
    """Of a flight: columns, and where points were wanted, in order."""

    columns: tuple[str, ...]
    positions: Sequence[Positions]


@dataclass(frozen=True)
class Evidence:
    """All that is known of one scan.

    statuses: its entries of the status stream. dones: the ends of its request that its sender was told.
    finals: how often its file was said to be final. expected: motor -> targets, in order; None if not known before.
    motors: in the order of the witness's positions. way, route: of a scan in motion. always: what the witness watches ->
    what it had to be at every point. left: motor -> where it has to be afterwards, and `there`: where it is. notes,
    noted: what a modifier had to have called, in this order and each at least once, and what it has.
    """

    scan_id: str
    statuses: Sequence[ScanStatusMessage]
    schema: ScanSchemaMessage | None
    points: Sequence[PointsMessage]
    seals: Sequence[SealMessage]
    dones: Sequence[RequestDoneMessage]
    finals: int
    file: FileContents | None
    motors: Sequence[str] = ()
    expected: Mapping[str, Sequence[float]] | None = None
    may_end: Collection[ScanState] = field(default=(ScanState.CLOSED,))
    way: Way | None = None
    route: Route | None = None
    always: Mapping[str, float] = field(default_factory=dict)
    left: Mapping[str, float] = field(default_factory=dict)
    there: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    noted: Sequence[str] = ()
    is_staged: bool = False


def judge_scan(evidence: Evidence, witnessed: Mapping[int, Positions], witness: str = "witness") -> list[str]:
    """One scan, after it is over and its file is final."""
    found = [*_ends(evidence), *_points(evidence), *_held(evidence), *_clean(evidence)]
    if evidence.file is not None:
        found += _file(evidence, evidence.file)
        found += _moving(evidence, evidence.file)
        found += _measured(evidence, evidence.file, witnessed, witness)
    else:
        found.append("there is no final file")
    return found


def judge_apart(files: Mapping[str, FileContents], witness: str = "witness") -> list[str]:
    """Of scans that read the witness: one after the other has it to itself. files: label -> of scans."""
    spans = sorted(
        (min(numbers), max(numbers), label)
        for label, file in files.items()
        if (numbers := list(file.columns.get(witness, ())))
    )
    return [
        f"{label} took points while {before} had the witness"
        for (_, end, before), (begin, _, label) in itertools.pairwise(spans)
        if begin <= end
    ]


def judge_numbers(statuses: Iterable[ScanStatusMessage]) -> list[str]:
    """Of all scans of a deployment: no number is given to two of them."""
    owners: dict[int, set[str]] = {}
    for status in statuses:
        owners.setdefault(status.scan_number, set()).add(status.scan_id)
    return [
        f"scan number {number} was given to {len(scans)} scans"
        for number, scans in sorted(owners.items())
        if len(scans) > 1
    ]


def judge_folder(present: Iterable[str], final: Collection[str]) -> list[str]:
    """Of the data folder: nothing but final files."""
    return [f"{path} was left over" for path in sorted(present) if path not in final]


def judge_catalogue(rows: Mapping[str, str], ended: Mapping[str, str]) -> list[str]:
    """Of the database. rows: scan_id -> state there; ended: scan_id -> state in the streams."""
    return [
        f"the database has {scan_id} as {rows.get(scan_id, 'nothing')}, it is {state}"
        for scan_id, state in ended.items()
        if rows.get(scan_id) != state
    ]


def _ends(evidence: Evidence) -> list[str]:
    found = []
    ends = [status for status in evidence.statuses if status.status.is_terminal]
    if len(ends) != 1:
        found.append(f"the scan has {len(ends)} ends instead of 1")
    elif ends[0].status not in evidence.may_end:
        found.append(f"the scan ended as {ends[0].status}: {ends[0].message or 'without a reason'}")
    if ends and evidence.statuses[-1].status is not ends[-1].status:
        found.append(f"the scan was said to be {evidence.statuses[-1].status} after its end")
    if len(evidence.dones) != 1:
        found.append(f"its sender was told {len(evidence.dones)} times that it is done")
    if evidence.finals != 1:
        found.append(f"its file was said to be final {evidence.finals} times")
    return found


def _points(evidence: Evidence) -> list[str]:
    found = []
    index = 0
    for block in evidence.points:
        if block.first_index != index:
            found.append(f"point {block.first_index} follows point {index - 1}")
        index = block.first_index + block.count
    if [seal.count for seal in evidence.seals] != [index]:
        found.append(f"{index} points are sealed with {[seal.count for seal in evidence.seals]}")
    for status in evidence.statuses:
        if not status.status.is_terminal:
            continue
        if status.num_readouts != index:
            found.append(f"{index} points came of a scan that said it has {status.num_readouts}")
        if status.status is ScanState.CLOSED and status.num_points not in (None, index):
            found.append(f"{index} points came, {status.num_points} were asked for")
    return found


def _file(evidence: Evidence, file: FileContents) -> list[str]:
    found = []
    if file.scan_id != evidence.scan_id:
        found.append(f"{file.path} is the file of the scan {file.scan_id}")
    ends = [status for status in evidence.statuses if status.status.is_terminal]
    if ends and file.state != ends[-1].status:
        found.append(f"the file says {file.state}, the scan ended as {ends[-1].status}")
    schema = evidence.schema
    if schema is None:
        return [*found, "the scan has points without a schema"] if evidence.points else found
    for number, signal in enumerate(schema.signals):
        acknowledged = [value for block in evidence.points for value in block.values[number]]
        there = list(file.columns.get(signal.signal, ()))
        if not _same(acknowledged, there):
            found.append(
                f"{signal.signal} has {len(there)} values in the file, {len(acknowledged)} were acknowledged"
                + ("" if len(there) != len(acknowledged) else ", and they differ")
            )
    for motor, targets in (evidence.expected or {}).items():
        there = list(file.columns.get(motor, ()))
        wrong = [k for k, (a, b) in enumerate(zip(there, targets, strict=False)) if abs(a - b) > TOLERANCE]
        if len(there) != len(targets):
            found.append(f"{motor} was at {len(there)} positions, {len(targets)} were asked for")
        elif wrong:
            k = wrong[0]
            found.append(f"{motor} was at {there[k]:g} at point {k}, {targets[k]:g} was asked for")
    return found


def _held(evidence: Evidence) -> list[str]:
    """Dead time: it never becomes less, has all that was told, and no more than the scan has lasted."""
    statuses = [status for status in evidence.statuses if status.started]
    found = []
    told = 0.0
    for before, after in itertools.pairwise(statuses):
        if before.reason == "interlock":
            told += after.timestamp - before.timestamp
        if after.dead_time_s < before.dead_time_s - CLOCK_S:
            found.append(f"the dead time became less: {before.dead_time_s:g} s, then {after.dead_time_s:g} s")
    if not statuses or not statuses[-1].status.is_terminal:
        return found
    last = statuses[-1]
    if last.dead_time_s < told - CLOCK_S:
        found.append(f"it was held for {told:.3f} s, and {last.dead_time_s:g} s are summed up")
    if last.dead_time_s > last.timestamp - last.started + CLOCK_S:
        found.append(f"{last.dead_time_s:g} s are more than the scan has lasted")
    if evidence.file is not None and not abs(evidence.file.dead_time_s - last.dead_time_s) <= CLOCK_S:
        found.append(
            f"the file has {evidence.file.dead_time_s:g} s of dead time, it was {last.dead_time_s:g} s"
        )
    return found


def _clean(evidence: Evidence) -> list[str]:
    """What is left of it; unless it said that it had to give the clean-up up."""
    if any("clean-up was given up" in (status.message or "") for status in evidence.statuses):
        return []
    found = [
        f"{motor} is left at {evidence.there.get(motor, math.nan):g}, and not at {wanted:g}"
        for motor, wanted in evidence.left.items()
        if not abs(evidence.there.get(motor, math.nan) - wanted) <= LEFT
    ]
    if evidence.is_staged:
        found.append("the witness is left staged")
    firsts = [
        next((k for k, note in enumerate(evidence.noted) if note == wanted), -1) for wanted in evidence.notes
    ]
    if -1 in firsts or firsts != sorted(firsts):
        found.append(
            f"the modifier was to do {', '.join(evidence.notes)}, and did {', '.join(evidence.noted)}"
        )
    return found


def _moving(evidence: Evidence, file: FileContents) -> list[str]:
    """Points that are taken on the way: each where it was wanted or behind it, nothing left out, nothing twice."""
    is_whole = file.state == "closed"
    found = []
    if evidence.route is not None:
        route = evidence.route
        rows = list(zip(*(file.columns.get(column, ()) for column in route.columns), strict=True))
        for row, at in enumerate(rows):
            wanted = route.positions[min(row, len(route.positions) - 1) :]
            if not any(
                all(abs(a - b) < TOLERANCE for a, b in zip(at, place, strict=True)) for place in wanted
            ):
                found.append(f"point {row} was taken at {at}, before {wanted[0]}")
        if is_whole and len(rows) != len(route.positions):
            found.append(f"{len(rows)} points of {len(route.positions)} positions of the flight")
    way = evidence.way
    if way is None:
        return found[:5]
    sign = 1 if way.stop > way.start else -1
    there = [sign * position for position in file.columns.get(way.motor, ())]
    start, stop = sign * way.start, sign * way.stop
    for row, position in enumerate(there):
        if not start - TOLERANCE <= position <= stop + TOLERANCE:
            found.append(f"point {row} at {sign * position:g} lies outside of the sweep")
        if row < len(way.marks) and position < sign * way.marks[row] - TOLERANCE:
            found.append(f"point {row} was taken at {sign * position:g}, before {way.marks[row]:g}")
    if not way.marks:
        for row, (before, after) in enumerate(itertools.pairwise(there)):
            if after < before - TOLERANCE:
                found.append(
                    f"point {row + 1} at {sign * after:g} lies before the last one, {sign * before:g}"
                )
            elif after > before + way.most:
                found.append(f"from {sign * before:g} to {sign * after:g} no point was taken")
    if is_whole and way.marks and len(there) != len(way.marks):
        found.append(f"{len(there)} points were taken of {len(way.marks)}")
    if is_whole and not way.marks:
        if not there or there[0] > start + min(way.most, (stop - start) / 2):
            found.append("the sweep has no points at its start")
        if not there or there[-1] < stop - TOLERANCE:
            found.append("the sweep has no point at its end")
    return found[:5]


def _measured(
    evidence: Evidence, file: FileContents, witnessed: Mapping[int, Positions], witness: str
) -> list[str]:
    """Nothing in the file that was not measured, and nothing twice; nothing that was taken when it must not be."""
    found = []
    on_way = set(evidence.route.columns) if evidence.route else set()
    lag = _lags(evidence, witness)
    numbers = [int(value) for value in file.columns.get(witness, ())]
    twice = [number for number, count in Counter(numbers).items() if count > 1]
    if twice:
        found.append(f"{len(twice)} readings are in the file more than once")
    if numbers != sorted(numbers):
        found.append("readings are not in the order in which they were taken")
    for row, number in enumerate(numbers):
        at = witnessed.get(number)
        if at is None:
            found.append(f"point {row} of the file was not measured")
            continue
        for motor, position in zip(evidence.motors, at, strict=False):
            if motor in evidence.always and position != evidence.always[motor]:
                found.append(f"point {row} was taken when {motor} was {position:g}")
            there = file.columns.get(motor)
            if there is None or row >= len(there) or motor in on_way:
                continue
            moved = lag[row] if evidence.way and evidence.way.motor == motor and row < len(lag) else 0.0
            if not abs(there[row] - position) <= TOLERANCE + moved:
                found.append(f"point {row} has {motor} at {there[row]:g}; it was read at {position:g}")
    return found[:5]


def _lags(evidence: Evidence, witness: str) -> list[float]:
    """How far the motor of a sweep may have gone between its own reading and the witness's, of each point."""
    if evidence.way is None or evidence.schema is None:
        return []
    columns = {signal.signal: number for number, signal in enumerate(evidence.schema.signals)}
    one, other = columns.get(evidence.way.motor), columns.get(witness)
    if one is None or other is None:
        return []
    return [
        abs(a - b) * evidence.way.velocity
        for block in evidence.points
        for a, b in zip(block.device_times[one], block.device_times[other], strict=True)
    ]


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(one, other, strict=True)
    )
