"""Is everything true that BEC promises? One judge for all fault tests.

Pure: takes what stands in the streams, in the files and in the witness's log, and gives sentences, one per broken
promise; an empty list if all are kept.
"""

from __future__ import annotations

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
# Time within which `bec-server status` has to show what happened to a service, seconds.
STATE_S = 2.0
# Time within which the next point has to come after a kill, seconds.
RESUME_S = 3.0

Positions = tuple[float, ...]


@dataclass(frozen=True)
class FileContents:
    """A scan's file. columns: signal -> values, those of the schema. state: how the scan ended, by the file."""

    path: str
    columns: Mapping[str, Sequence[float]]
    scan_id: str
    state: str = "closed"


@dataclass(frozen=True)
class Evidence:
    """All that is known of one scan.

    statuses: its entries of the status stream. dones: the ends of its request that its sender was told.
    finals: how often its file was said to be final. expected: motor -> targets, in order; None if not known before.
    motors: in the order of the witness's positions.
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


def judge_scan(evidence: Evidence, witnessed: Mapping[int, Positions], witness: str = "witness") -> list[str]:
    """One scan, after it is over and its file is final."""
    found = [*_ends(evidence), *_points(evidence)]
    if evidence.file is not None:
        found += _file(evidence, evidence.file)
        found += _measured(evidence, evidence.file, witnessed, witness)
    else:
        found.append("there is no final file")
    return found


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


def _measured(
    evidence: Evidence, file: FileContents, witnessed: Mapping[int, Positions], witness: str
) -> list[str]:
    """Nothing in the file that was not measured, and nothing twice."""
    found = []
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
            there = file.columns.get(motor)
            if there is None or row >= len(there):
                continue
            if not abs(there[row] - position) <= TOLERANCE:
                found.append(f"point {row} has {motor} at {there[row]:g}; it was read at {position:g}")
    return found[:5]


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(one, other, strict=True)
    )
