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
from tests.chaos.oracle import Evidence, FileContents, judge_scan

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


def test_the_deployment_as_a_whole() -> None:
    again = status(ScanState.OPEN).model_copy(update={"scan_id": "t"})
    assert oracle.judge_numbers(GOOD.statuses) == []
    assert oracle.judge_numbers([*GOOD.statuses, again]) == ["scan number 1 was given to 2 scans"]
    assert oracle.judge_folder(["/f", "/.f.tmp"], {"/f"}) == ["/.f.tmp was left over"]
    assert oracle.judge_catalogue({"s": "closed"}, {"s": "closed"}) == []
    assert oracle.judge_catalogue({"s": "open"}, {"s": "closed"}) == [
        "the database has s as open, it is closed"
    ]
