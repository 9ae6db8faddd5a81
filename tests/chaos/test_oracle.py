"""The oracle itself: each broken promise is seen, and a good scan has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bec_lib.messages import (
    PointsMessage,
    RequestDoneMessage,
    ScanSchemaMessage,
    ScanState,
    ScanStatusMessage,
    SealMessage,
    SignalSchema,
)
from tests.chaos import oracle
from tests.chaos.oracle import Evidence, FileContents, Route, Way, judge_scan

SCHEMA = ScanSchemaMessage(
    scan_id="s",
    signals=[SignalSchema(device="samx", signal="samx"), SignalSchema(device="w", signal="witness")],
)


def status(state: ScanState, **more: Any) -> ScanStatusMessage:
    return ScanStatusMessage(
        scan_id="s",
        scan_number=1,
        status=state,
        scan_name="line_scan",
        request_id="r",
        num_points=4,
        **more,
    )


def block(first: int, *rows: tuple[float, float]) -> PointsMessage:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return PointsMessage(
        scan_id="s",
        first_index=first,
        count=len(rows),
        values=columns,
        device_times=columns,
        server_times=columns[0],
    )


ROWS = ((0.0, 11.0), (1.0, 12.0), (2.0, 13.0), (3.0, 14.0))
WITNESSED = {11: (0.0,), 12: (1.0,), 13: (2.0,), 14: (3.0,)}
GOOD = Evidence(
    scan_id="s",
    statuses=[status(ScanState.OPEN), status(ScanState.CLOSED, num_readouts=4)],
    schema=SCHEMA,
    points=[block(0, *ROWS[:2]), block(2, *ROWS[2:])],
    seals=[SealMessage(scan_id="s", count=4, status="closed")],
    dones=[RequestDoneMessage(request_id="r", success=True, scan_id="s")],
    finals=1,
    file=FileContents("/f", {"samx": [0.0, 1.0, 2.0, 3.0], "witness": [11.0, 12.0, 13.0, 14.0]}, "s"),
    motors=["samx"],
    expected={"samx": [0.0, 1.0, 2.0, 3.0]},
)


def with_file(**columns: list[float]) -> Evidence:
    assert GOOD.file is not None
    return replace(GOOD, file=replace(GOOD.file, columns={**GOOD.file.columns, **columns}))


def test_a_good_scan_breaks_no_promise() -> None:
    assert judge_scan(GOOD, WITNESSED) == []


@pytest.mark.parametrize(
    ("evidence", "sentence"),
    [
        (replace(GOOD, file=None), "no final file"),
        (replace(GOOD, statuses=[*GOOD.statuses, GOOD.statuses[-1]]), "2 ends instead of 1"),
        (replace(GOOD, statuses=GOOD.statuses[:1]), "0 ends instead of 1"),
        (
            replace(GOOD, statuses=[*GOOD.statuses, status(ScanState.PAUSED)]),
            "said to be paused after its end",
        ),
        (
            replace(GOOD, statuses=[status(ScanState.ABORTED, num_readouts=4, message="no luck")]),
            "ended as aborted: no luck",
        ),
        (replace(GOOD, dones=[]), "told 0 times"),
        (replace(GOOD, finals=2), "final 2 times"),
        (replace(GOOD, points=GOOD.points[1:]), "point 2 follows point -1"),
        (replace(GOOD, points=[*GOOD.points, GOOD.points[1]]), "point 2 follows point 3"),
        (replace(GOOD, points=GOOD.points[:1]), "2 points are sealed with [4]"),
        (replace(GOOD, points=GOOD.points[:1]), "2 points came, 4 were asked for"),
        (replace(GOOD, seals=[]), "4 points are sealed with []"),
        (with_file(samx=[0.0, 1.0, 2.0]), "samx has 3 values in the file, 4 were acknowledged"),
        (with_file(samx=[0.0, 2.0, 1.0, 3.0]), "and they differ"),
        (with_file(samx=[0.0, 2.0, 1.0, 3.0]), "samx was at 2 at point 1, 1 was asked for"),
        (with_file(witness=[11.0, 12.0, 12.0, 14.0]), "1 readings are in the file more than once"),
        (with_file(witness=[12.0, 11.0, 13.0, 14.0]), "not in the order"),
        (with_file(witness=[11.0, 12.0, 13.0, 15.0]), "point 3 of the file was not measured"),
        (with_file(witness=[11.0, 12.0, 14.0, 13.0]), "point 2 has samx at 2; it was read at 3"),
    ],
)
def test_a_broken_promise_is_named(evidence: Evidence, sentence: str) -> None:
    found = judge_scan(evidence, WITNESSED)
    assert any(sentence in problem for problem in found), found


MARKED = Way("samx", -0.2, 3.2, velocity=1.0, marks=(0.0, 1.0, 2.0, 3.0))
FREE = Way("samx", 0.0, 3.0, velocity=1.0, most=1.5)
FLOWN = Route(("samx",), [(0.0,), (1.0,), (2.0,), (3.0,)])


def moving(way: Way, **columns: list[float]) -> Evidence:
    return replace(with_file(**columns), way=way, expected=None)


def held(*statuses: ScanStatusMessage) -> Evidence:
    return replace(GOOD, statuses=[status(ScanState.OPEN, started=10.0, timestamp=10.0), *statuses])


HELD = status(ScanState.PAUSED, reason="interlock", started=10.0, timestamp=12.0)


@pytest.mark.parametrize(
    ("evidence", "sentence"),
    [
        (moving(MARKED, samx=[0.0, 0.9, 2.0, 3.0]), "point 1 was taken at 0.9, before 1"),
        (moving(MARKED, samx=[0.0, 1.0, 2.0, 4.0]), "point 3 at 4 lies outside of the sweep"),
        (moving(MARKED, samx=[0.0, 1.0, 2.0]), "3 points were taken of 4"),
        (moving(FREE, samx=[0.0, 1.0, 0.5, 3.0]), "point 2 at 0.5 lies before the last one, 1"),
        (moving(FREE, samx=[0.0, 1.0, 3.0]), "from 1 to 3 no point was taken"),
        (moving(FREE, samx=[1.6, 3.0]), "no points at its start"),
        (moving(FREE, samx=[0.0, 1.0, 2.0]), "no point at its end"),
        (
            replace(with_file(samx=[0.0, 1.0, 1.0, 3.0]), route=FLOWN),
            "point 2 was taken at (1.0,), before (2.0,)",
        ),
        (replace(with_file(samx=[0.0, 1.0]), route=FLOWN), "2 points of 4 positions"),
        (replace(GOOD, always={"samx": 1.0}), "point 0 was taken when samx was 0"),
        (replace(GOOD, left={"samx": 1.0}, there={"samx": 0.5}), "samx is left at 0.5, and not at 1"),
        (replace(GOOD, is_staged=True), "left staged"),
        (replace(GOOD, notes=["opens", "closed"], noted=["closed", "opens"]), "was to do opens, closed"),
        (
            held(HELD, status(ScanState.CLOSED, started=10.0, timestamp=15.0, dead_time_s=2.0)),
            "held for 3.000 s, and 2 s are summed up",
        ),
        (
            held(status(ScanState.CLOSED, started=10.0, timestamp=15.0, dead_time_s=6.0)),
            "6 s are more than the scan has lasted",
        ),
        (
            held(
                status(ScanState.OPEN, started=10.0, timestamp=14.0, dead_time_s=3.0),
                status(ScanState.CLOSED, started=10.0, timestamp=15.0, dead_time_s=2.0),
            ),
            "the dead time became less",
        ),
        (
            held(status(ScanState.CLOSED, started=10.0, timestamp=15.0, dead_time_s=1.0)),
            "the file has 0 s of dead time, it was 1 s",
        ),
    ],
)
def test_what_is_broken_in_motion_or_in_a_hold_is_named(evidence: Evidence, sentence: str) -> None:
    found = judge_scan(evidence, WITNESSED)
    assert any(sentence in problem for problem in found), found


@pytest.mark.parametrize(
    "evidence",
    [
        replace(GOOD, way=MARKED),
        # Late, as a warning tells; where it really was is in the file.
        replace(GOOD, way=replace(MARKED, marks=(0.0, 0.5, 1.5, 2.9))),
        replace(GOOD, way=FREE),
        replace(GOOD, route=FLOWN),
        replace(GOOD, left={"samx": 1.0}, there={"samx": 1.01}, notes=["a", "b"], noted=["a", "a", "b", "b"]),
        held(
            HELD,
            status(ScanState.OPEN, started=10.0, timestamp=13.0, dead_time_s=1.2),
            status(ScanState.CLOSED, started=10.0, timestamp=15.0, dead_time_s=1.2, num_readouts=4),
        ),
    ],
)
def test_what_is_good_in_motion_or_in_a_hold_is_not(evidence: Evidence) -> None:
    assert evidence.file is not None
    dead_time_s = evidence.statuses[-1].dead_time_s
    assert (
        judge_scan(replace(evidence, file=replace(evidence.file, dead_time_s=dead_time_s)), WITNESSED) == []
    )


def test_scans_that_share_a_device_are_told_from_those_that_take_turns() -> None:
    one = FileContents("/a", {"witness": [11.0, 12.0]}, "a")
    other = FileContents("/b", {"witness": [13.0, 14.0]}, "b")
    assert oracle.judge_apart({"a": one, "b": other}) == []
    mixed = replace(other, columns={"witness": [12.0, 14.0]})
    assert oracle.judge_apart({"a": one, "b": mixed}) == ["b took points while a had the witness"]


def test_the_deployment_as_a_whole() -> None:
    again = status(ScanState.OPEN).model_copy(update={"scan_id": "t"})
    assert oracle.judge_numbers(GOOD.statuses) == []
    assert oracle.judge_numbers([*GOOD.statuses, again]) == ["scan number 1 was given to 2 scans"]
    assert oracle.judge_folder(["/f", "/.f.tmp"], {"/f"}) == ["/.f.tmp was left over"]
    assert oracle.judge_catalogue({"s": "closed"}, {"s": "closed"}) == []
    assert oracle.judge_catalogue({"s": "open"}, {"s": "closed"}) == [
        "the database has s as open, it is closed"
    ]
