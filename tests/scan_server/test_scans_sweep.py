"""A sweep in the life of a scan: its points are counted when it ends, and after a restart none is taken twice."""

from __future__ import annotations

from typing import Any

import pytest

from bec_lib.errors import ReasonCode
from bec_lib.messages import (
    ErrorInfo,
    InstructionStatus,
    QueueAction,
    ScanJournalMessage,
    ScanSchemaMessage,
    ScanState,
    ScanStatusMessage,
)
from bec_lib.scans import Call, Device, Move, Point, Points, PointScan, Steps, Sweep, parameter
from scan_server.run import Resumed
from tests.scan_server.test_run import Bench, T, made, registry

DOWN = ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN)


class ToAndFro(PointScan):
    """A sweep at marks, one at updates, and three points behind them."""

    scan_name = "to_and_fro"
    motor: Device = parameter()

    @property
    def num_points(self) -> None:
        return None

    def run(self) -> Steps:
        first = yield Sweep(self.motor, start=-1, target=5, marks=[0, 1, 2, 3], exposure=None)
        assert first == {"points": 4}
        second = yield Sweep(self.motor, target=-5, on_update=True)
        yield Points(3)
        yield Move({self.motor: float(second["points"])})


def started(resumed: Resumed | None = None) -> Bench:
    bench = Bench(made(ToAndFro, "samx"), resumed=resumed)
    if resumed is None:
        bench.answer(), bench.answer(), bench.answer()  # stage, pre_scan, baseline
    return bench


def test_points_behind_a_sweep_are_numbered_after_it() -> None:
    bench = started()
    sweep = bench.answer(result={"points": 4})
    assert (sweep.kind, sweep.first_index, sweep.marks) == ("sweep", 0, [0, 1, 2, 3])
    assert bench.answer(result={"points": 7}).first_index == 4
    points = bench.answer()
    assert (points.first_index, points.count) == (11, 3)
    assert bench.answer().targets == {"samx": 7.0}
    bench.answer_all()
    assert bench.states[-1] is ScanState.CLOSED
    assert [m.result for m in bench.messages(ScanJournalMessage)] == [{"points": 4}, {"points": 7}]


def test_a_restart_of_the_device_server_in_a_sweep_takes_the_other_marks() -> None:
    bench = started()
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=DOWN)
    bench.count(main=3)
    actions = [bench.answer() for _ in range(3)]
    assert [a.kind for a in actions] == ["stage", "pre_scan", "baseline"]
    rest = bench.answer(result={"points": 1})
    assert (rest.first_index, rest.marks, rest.start) == (3, [3], -1)
    second = bench.answer(0, InstructionStatus.STOPPED, boot="third", error=DOWN)
    assert second.first_index == 4
    bench.count(main=10)
    bench.answer(), bench.answer(), bench.answer()
    rest = bench.answer(result={"points": 2})
    assert (rest.first_index, rest.start, rest.target) == (10, None, -5)
    assert bench.answer().first_index == 12
    assert bench.answer().targets == {"samx": 8.0}


def test_without_marks_a_sweep_goes_on_where_its_last_point_was_taken() -> None:
    """Its device may have gone on, or may have forgotten where it was, while nobody took points."""
    bench = started()
    bench.answer(result={"points": 4})
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=DOWN)
    bench.count(last={"samx": {"samx": {"value": -3.25, "timestamp": 1.0}}}, main=10)
    bench.answer(), bench.answer(), bench.answer()
    assert bench.answer(result={"points": 2}).start == -3.25
    again = started(
        Resumed(opened=True, schema=bench.messages(ScanSchemaMessage)[-1], journal={0: {"points": 4}})
    )
    again.answer(), again.answer()
    # Of the read-back a little may lie outside of the limits.
    again.count(last={"samx": {"samx": {"value": -10.001, "timestamp": 1.0}}}, main=10)
    again.answer(), again.answer()
    assert again.answer(result={"points": 2}).start == -10.0


def test_a_pause_waits_for_the_end_of_a_sweep_and_says_so() -> None:
    bench = started()
    bench.take(bench.run.command(QueueAction.DEFERRED_PAUSE, "", T))
    assert bench.run.note == "pauses after the sweep of samx"
    assert bench.messages(ScanStatusMessage)[-1].message == bench.run.note
    bench.answer(result={"points": 4})
    assert bench.run.note == bench.messages(ScanStatusMessage)[-1].message == "" and not bench.sent
    bench.take(bench.run.command(QueueAction.CONTINUE, "", T))
    assert bench.kinds == ["sweep"]


def test_a_sweep_that_is_lost_in_a_pause_waits_where_it_is() -> None:
    bench = started()
    bench.take(bench.run.command(QueueAction.DEFERRED_PAUSE, "", T))
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=DOWN)
    end = bench.messages(ScanStatusMessage)[-1]
    assert (end.status, end.message) == (ScanState.PAUSED, "")
    bench.count(main=2)
    assert [action.kind for action in bench.answer_all()] == ["stage", "pre_scan", "baseline"]
    bench.take(bench.run.command(QueueAction.CONTINUE, "", T))
    rest = bench.answer(result={"points": 2})
    assert (rest.kind, rest.first_index) == ("sweep", 2)


def test_a_restart_behind_the_last_mark_takes_none_again() -> None:
    bench = started()
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=DOWN)
    bench.count(main=4)
    bench.answer(), bench.answer(), bench.answer()
    assert bench.answer(result={"points": 5}).first_index == 4


def test_a_restart_of_the_scan_server_replays_sweeps() -> None:
    bench = started(Resumed(opened=True, started=900.0, journal={0: {"points": 4}}))
    bench.answer(), bench.answer()
    bench.count(main=9)
    rest = [
        a for a in (bench.answer(), bench.answer(), bench.answer(result={"points": 1})) if a.kind == "sweep"
    ]
    assert [(a.first_index, a.start) for a in rest] == [(9, None)]
    assert bench.answer().first_index == 10
    assert bench.answer().targets == {"samx": 6.0}


def test_a_sweep_that_was_done_but_not_recorded_is_not_done_again() -> None:
    bench = started(Resumed(opened=True, started=900.0))
    bench.answer(), bench.answer()
    bench.count(main=4)
    sweep = next(a for a in (bench.answer(result={"points": 0}) for _ in range(9)) if a.kind == "sweep")
    assert sweep.first_index == 4 and sweep.on_update


def test_devices_of_another_server_cannot_be_read_on_the_way() -> None:
    bench = Bench(made(ToAndFro, "samx", devices=registry(eiger="other")))
    bench.answer_all()
    bench.count()
    assert bench.states[-1] is ScanState.ABORTED
    assert "cannot be read on its way together with devices of another device server (other)" in str(
        bench.finish
    )


def test_marks_outside_of_the_limits_are_refused() -> None:
    class Far(ToAndFro):
        scan_name = "far"

        def run(self) -> Steps:
            yield Sweep(self.motor, target=11)

    bench = Bench(made(Far, "samx"))
    bench.answer_all()
    bench.count()
    assert "samx cannot move to 11 mm: its limits" in str(
        [m.error for m in bench.told if hasattr(m, "error")]
    )


@pytest.mark.parametrize("step", [Point({"samx": 1.0}), Call("samx", "position")])
def test_a_result_that_is_awaited_arrives_after_a_restart_of_the_device_server(step: Any) -> None:
    """The scan once hung, because the instruction that was sent again had another number."""
    got: list[Any] = []

    class Asks(PointScan):
        scan_name = "asks"
        motor: Device = parameter()

        def run(self) -> Steps:
            got.append((yield step))

    bench = Bench(made(Asks, "samx"))
    bench.answer(), bench.answer(), bench.answer()
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=DOWN)
    bench.count(main=0)
    bench.answer(), bench.answer(), bench.answer()
    bench.answer(result={"it": "is"})
    assert got == [{"it": "is"}]
    bench.answer_all()
    assert bench.states[-1] is ScanState.CLOSED
