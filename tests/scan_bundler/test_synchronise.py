from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bec_lib.messages import BaselineMessage, PointsMessage, ReadingsMessage, ScanSchemaMessage, SignalSchema
from scan_bundler.synchronise import Fold, Output, Wrong, merged

ONE_SERVER = ScanSchemaMessage(
    scan_id="s",
    signals=[SignalSchema(device="samx", signal="samx"), SignalSchema(device="bpm", signal="bpm")],
    baseline=[SignalSchema(device="samz", signal="samz")],
)
TWO_SERVERS = ScanSchemaMessage(
    scan_id="s",
    signals=[
        SignalSchema(device="samx", signal="samx", server="main"),
        SignalSchema(device="eiger", signal="eiger", server="other"),
        SignalSchema(device="bpm", signal="bpm", server="main"),
    ],
    servers=["main", "other"],
)


def block(
    first: int, count: int, *, server: str = "main", columns: int = 2, attempt: int = 1, version: int = 1
) -> ReadingsMessage:
    """Readings whose values tell server, column, point and attempt."""
    points = range(first, first + count)
    return ReadingsMessage(
        scan_id="s",
        schema_version=version,
        server=server,
        first_index=first,
        count=count,
        attempt=attempt,
        values=[[f"{server}{k}/{i}/{attempt}" for i in points] for k in range(columns)],
        device_times=[[float(i) for i in points] for _ in range(columns)],
        server_times=[float(i) for i in points],
    )


def baseline(value: float = 1.0) -> ReadingsMessage:
    return ReadingsMessage(
        scan_id="s", group="baseline", values=[[value]], device_times=[[5.0]], server_times=[5.0]
    )


def fed(fold: Fold, *readings: ReadingsMessage) -> list[Output]:
    return [output for reading in readings for output in fold.readings(reading)]


def indices(outputs: Sequence[Output]) -> list[int]:
    """The point numbers of all points in the outputs, in the order in which they came."""
    return [
        index
        for output in outputs
        if isinstance(output, PointsMessage)
        for index in range(output.first_index, output.first_index + output.count)
    ]


def fold_with(schema: ScanSchemaMessage, *, next_index: int = 0) -> Fold:
    fold = Fold("s", next_index=next_index)
    fold.schema(schema)
    return fold


def test_a_block_of_the_only_server_goes_through_as_it_came() -> None:
    fold = fold_with(ONE_SERVER)
    reading = block(0, 3)

    (points,) = fed(fold, reading)

    assert isinstance(points, PointsMessage)
    assert points.values[0] is reading.values[0]
    assert (points.first_index, points.count) == (0, 3)


def test_a_point_that_was_emitted_is_not_emitted_again() -> None:
    fold = fold_with(ONE_SERVER)

    outputs = fed(fold, block(0, 3), block(0, 3), block(2, 3, attempt=2))

    assert indices(outputs) == [0, 1, 2, 3, 4]
    assert isinstance(outputs[1], PointsMessage)
    assert outputs[1].values[0] == ["main0/3/2", "main0/4/2"]


def test_what_comes_too_early_waits_for_the_gap_to_be_filled() -> None:
    fold = fold_with(ONE_SERVER)

    assert fed(fold, block(2, 2)) == []
    assert indices(fed(fold, block(0, 2))) == [0, 1, 2, 3]


def test_readings_that_come_before_the_schema_are_held() -> None:
    fold = Fold("s")

    assert fed(fold, block(0, 2)) == []
    assert indices(fold.schema(ONE_SERVER)) == [0, 1]


def test_the_parts_of_several_servers_are_joined_in_the_order_of_the_schema() -> None:
    fold = fold_with(TWO_SERVERS)

    assert fed(fold, block(0, 2)) == []
    (points,) = fed(fold, block(0, 2, server="other", columns=1))

    assert isinstance(points, PointsMessage)
    assert points.values == [
        ["main0/0/1", "main0/1/1"],
        ["other0/0/1", "other0/1/1"],
        ["main1/0/1", "main1/1/1"],
    ]


def test_the_highest_attempt_counts_until_the_point_is_emitted() -> None:
    fold = fold_with(TWO_SERVERS)

    fed(fold, block(0, 1, attempt=2), block(0, 1, attempt=1))
    (points,) = fed(fold, block(0, 1, server="other", columns=1))

    assert isinstance(points, PointsMessage)
    assert points.values[0] == ["main0/0/2"]


def test_a_restarted_fold_goes_on_behind_what_is_out_already() -> None:
    fold = fold_with(ONE_SERVER, next_index=2)

    assert indices(fed(fold, block(0, 2), block(1, 3))) == [2, 3]


def test_the_baseline_comes_once() -> None:
    fold = fold_with(ONE_SERVER)

    outputs = fed(fold, baseline(1.0), baseline(2.0))

    assert outputs == [BaselineMessage(scan_id="s", values=[1.0], device_times=[5.0])]


def test_a_server_that_fails_to_answer_leaves_none_in_the_baseline() -> None:
    schema = ScanSchemaMessage(
        scan_id="s",
        signals=[],
        baseline=[
            SignalSchema(device="samz", signal="samz"),
            SignalSchema(device="ring", signal="ring", server="other"),
        ],
        servers=["main", "other"],
    )
    fold = fold_with(schema)

    assert fed(fold, baseline()) == []
    assert fold.end(0).baseline == ["other"]
    partial = fold.partial_baseline()

    assert partial is not None
    assert partial.values == [1.0, None]


def test_a_block_that_does_not_fit_the_schema_is_named_and_left_out() -> None:
    fold = fold_with(ONE_SERVER)

    (wrong,) = fed(fold, block(0, 2, columns=3))

    assert isinstance(wrong, Wrong)
    assert "has 3 columns, schema version 1 has 2" in wrong.why
    assert indices(fed(fold, block(0, 2))) == [0, 1]


def test_columns_of_the_wrong_length_are_named() -> None:
    fold = fold_with(ONE_SERVER)

    (wrong,) = fed(fold, block(0, 2).model_copy(update={"count": 3}))

    assert isinstance(wrong, Wrong)
    assert "announces 3 points" in wrong.why


def test_columns_that_are_no_columns_are_named() -> None:
    fold = fold_with(ONE_SERVER)

    (wrong,) = fed(fold, block(0, 1).model_copy(update={"values": [1.0, 2.0]}))

    assert isinstance(wrong, Wrong)
    assert "no lists" in wrong.why


def test_what_is_missing_at_the_end_is_named_by_server_and_point() -> None:
    fold = fold_with(TWO_SERVERS)
    fed(fold, block(0, 6), block(0, 2, server="other", columns=1), block(5, 1, server="other", columns=1))

    missing = fold.end(8)

    assert (missing.complete, missing.expected) == (2, 8)
    assert missing.servers == {"main": [6, 7], "other": [2, 3, 4, 6, 7]}
    assert missing.sentence() == (
        "2 of 8 points are complete (device server main did not deliver points 6-7; "
        "device server other did not deliver points 2-4, 6-7)"
    )


def test_nothing_is_missing_when_all_announced_points_came() -> None:
    fold = fold_with(ONE_SERVER)
    fed(fold, block(0, 3), baseline())

    missing = fold.end(3)

    assert not missing.points
    assert missing.sentence() == ""


def test_a_server_whose_columns_stayed_need_not_read_again_under_a_new_version() -> None:
    second = TWO_SERVERS.model_copy(
        update={
            "version": 2,
            "signals": [
                *TWO_SERVERS.signals,
                SignalSchema(device="eiger", signal="eiger_max", server="other"),
            ],
        }
    )
    fold = fold_with(TWO_SERVERS)
    fed(fold, block(0, 1))
    fold.schema(second)

    (points,) = fed(fold, block(0, 1, server="other", columns=2, version=2))

    assert isinstance(points, PointsMessage)
    assert points.schema_version == 2
    assert points.values == [["main0/0/1"], ["other0/0/1"], ["main1/0/1"], ["other1/0/1"]]


def test_points_without_any_signal_are_counted() -> None:
    fold = fold_with(ScanSchemaMessage(scan_id="s", signals=[]))

    assert indices(fed(fold, block(0, 4, columns=0))) == [0, 1, 2, 3]


def test_neighbouring_blocks_become_one() -> None:
    fold = fold_with(ONE_SERVER)
    outputs = [
        item for item in fed(fold, *(block(i, 1) for i in range(5))) if isinstance(item, PointsMessage)
    ]

    (joined,) = merged(outputs)

    assert (joined.first_index, joined.count) == (0, 5)
    assert joined.values[1] == [f"main1/{i}/1" for i in range(5)]
    assert joined.server_times == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_blocks_stay_below_their_limit() -> None:
    fold = fold_with(ONE_SERVER)
    outputs = [
        item
        for item in fed(fold, *(block(300 * i, 300) for i in range(3)))
        if isinstance(item, PointsMessage)
    ]

    assert [part.count for part in merged(outputs)] == [300, 300, 300]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[int, list[ReadingsMessage]]:
    """A scan's readings of two servers, cut into blocks anywhere, some of them repeated, in any order."""
    count = draw(st.integers(1, 12))
    blocks = []
    for server, columns in (("main", 2), ("other", 1)):
        for attempt in range(1, draw(st.integers(1, 2)) + 1):
            cuts = sorted({0, count, *draw(st.lists(st.integers(0, count), max_size=4))})
            blocks += [
                block(a, b - a, server=server, columns=columns, attempt=attempt) for a, b in pairwise(cuts)
            ]
    repeated = draw(st.lists(st.sampled_from(blocks), max_size=4))
    return count, draw(st.permutations(blocks + repeated))


@settings(max_examples=200, deadline=None)
@given(deliveries(), st.integers(0, 5))
def test_whatever_the_order_each_point_comes_once_and_in_order(
    readings: tuple[int, list[ReadingsMessage]], restarts_at: int
) -> None:
    count, blocks = readings
    fold = fold_with(TWO_SERVERS)
    outputs = fed(fold, *blocks[:restarts_at])
    # A restart: all readings are folded again, from where the points stream stands.
    fold = fold_with(TWO_SERVERS, next_index=fold.next_index)
    outputs += fed(fold, *blocks)

    assert indices(outputs) == list(range(count))
    assert not fold.end(count).points
    for points in outputs:
        assert isinstance(points, PointsMessage)
        for row in range(points.count):
            cells = [str(column[row]).split("/") for column in points.values]
            assert [cell[0] for cell in cells] == ["main0", "other0", "main1"]
            assert {int(cell[1]) for cell in cells} == {points.first_index + row}
            # The columns of one server are of one attempt.
            assert cells[0][2] == cells[2][2]
