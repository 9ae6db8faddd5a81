"""A scan's life with plain values: replies in, effects out. No Redis, no thread, no device."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bec_lib.devices import DeviceConfig
from bec_lib.devices.registry import DeviceRecord, Registry
from bec_lib.errors import ParameterError, ReasonCode
from bec_lib.messages import (
    AlarmMessage,
    ControlKind,
    DeviceControlMessage,
    DeviceInfoMessage,
    DeviceInstructionMessage,
    DeviceInstructionResponse,
    ErrorInfo,
    InstructionStatus,
    QueueAction,
    RequestDoneMessage,
    RunPoints,
    ScanJournalMessage,
    ScanQueueMessage,
    ScanSchemaMessage,
    ScanState,
    ScanStatusMessage,
)
from bec_lib.scans import Call, Label, Move, Point, Points, Read, Scan, Steps, Trajectory, Wait
from bec_lib.scans.signature import BoundCall
from scan_server.assembler import Assembled, assemble
from scan_server.run import (
    HALT_S,
    Append,
    Ask,
    Count,
    Counted,
    Effect,
    Finish,
    Moment,
    Order,
    Phase,
    Recall,
    Resumed,
    ScanRun,
)
from scan_server.scans import GridScan, LineScan, Mv

T = Moment(1000.0, 10.0)


def registry(**servers: str) -> Registry:
    devices = {}
    for name in ("samx", "samy", "bpm4i", "eiger"):
        config = DeviceConfig(
            deviceClass="a.B",
            enabled=True,
            readoutPriority="baseline" if name.startswith("sam") else "monitored",
            softwareTrigger=name == "eiger",
            deviceServer=servers.get(name, "main"),
        )
        info = DeviceInfoMessage(name=name, limits=[-10, 10] if name.startswith("sam") else None, unit="mm")
        devices[name] = DeviceRecord(name, config, info, position=1.0)
    return Registry(devices)


def made(kind: type[Scan], *args: Any, devices: Registry | None = None, **kwargs: Any) -> Assembled:
    request = ScanQueueMessage(
        request_id="r", client_id="c", scan_type=kind.scan_name, args=list(args), kwargs=kwargs
    )
    assembled = assemble(kind, request, devices or registry())
    assert isinstance(assembled, Assembled), assembled
    return assembled


class Bench:
    """A run and the device servers before it: instructions wait in `sent` until they are answered."""

    def __init__(self, assembled: Assembled, *, is_scan: bool = True, resumed: Resumed | None = None):
        request = ScanQueueMessage(request_id="r", client_id="c", scan_type="line_scan")
        order = Order(request, "s", number=7, user="ada", is_scan=is_scan)
        self.run = ScanRun(
            order,
            assembled.scan,
            assembled.plan,
            itertools.count(100),
            resumed=resumed,
            hooks=assembled.hooks,
            chunk=4,
            window=2,
        )
        self.sent: list[tuple[str, Any]] = []
        self.told: list[Any] = []
        self.counts = 0
        self.recalls: list[Recall] = []
        self.asked: list[Ask] = []
        self.finish: Finish | None = None
        self.done_points: dict[str, int] = {}
        self.knows_given = True
        self.take(self.run.begin(T))

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Append(endpoint, DeviceInstructionMessage() as message):
                    self.sent.append((endpoint.key.split("/")[2], message))
                case Append(_, message):
                    self.told.append(message)
                case Count():
                    self.counts += 1
                case Recall():
                    self.recalls.append(effect)
                case Ask():
                    self.asked.append(effect)
                case Finish():
                    self.finish = effect

    @property
    def kinds(self) -> list[str]:
        return [message.action.kind for _, message in self.sent]

    def answer(
        self,
        index: int = 0,
        status: InstructionStatus = InstructionStatus.COMPLETED,
        *,
        boot: str = "boot",
        error: ErrorInfo | None = None,
        result: Any = None,
    ) -> Any:
        """Answer one of the instructions that wait; its action."""
        server, message = self.sent.pop(index)
        action = message.action
        if action.kind == "stage":
            names = [*action.monitored, *action.baseline]
            result = {
                "devices": [{"name": n, "signals": [{"signal": n}, {"signal": f"{n}_b"}]} for n in names]
            }
            if self.knows_given:
                result["given"] = list(action.given)
        if isinstance(action, RunPoints) and status is InstructionStatus.COMPLETED:
            self.done_points[server] = action.first_index + action.count
        reply = DeviceInstructionResponse(
            instruction_id=message.instruction_id,
            status=status,
            scan_id="s",
            error=error,
            result=result,
            server=server,
            boot_id=boot,
        )
        self.take(self.run.answered(reply, T))
        return action

    def answer_all(self, limit: int = 1000) -> list[Any]:
        """Answer in order until nothing waits; the actions."""
        actions: list[Any] = []
        while self.sent and len(actions) < limit:
            actions.append(self.answer())
        assert len(actions) < limit, "it never ends"
        return actions

    def count(self, *, last: Any = None, **points: int) -> None:
        self.counts -= 1
        self.take(self.run.counted(Counted(points or self.done_points, frozenset(), last or {}), T))

    def messages(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.told if isinstance(message, kind)]

    @property
    def states(self) -> list[ScanState]:
        return [message.status for message in self.messages(ScanStatusMessage)]


def error(text: str) -> ErrorInfo:
    return ErrorInfo(error_message=text, code=ReasonCode.DEVICE_FAILED)


# The good case


def test_a_whole_scan_message_by_message() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=11, exp_time=0.1))
    assert bench.states == [ScanState.OPEN]
    assert bench.kinds == ["stage"]
    stage = bench.answer()
    assert stage.monitored == ["samx", "bpm4i", "eiger"] and stage.baseline == ["samy"]
    assert stage.triggered == ["eiger"] and stage.owned == ["samx", "bpm4i", "eiger"]
    # Schema and the first window leave together.
    (schema,) = bench.messages(ScanSchemaMessage)
    assert [(s.device, s.signal) for s in schema.signals][:2] == [("samx", "samx"), ("samx", "samx_b")]
    assert [s.device for s in schema.baseline] == ["samy", "samy"]
    assert bench.kinds == ["pre_scan", "baseline", "points", "points"]
    actions = bench.answer_all()
    points = [action for action in actions if action.kind == "points"]
    assert [(p.first_index, p.count) for p in points] == [(0, 4), (4, 4), (8, 3)]
    assert np.allclose([x for p in points for x in p.positions["samx"]], np.linspace(-1, 1, 11))
    assert points[0].exp_time_s == 0.1
    assert [action.kind for action in actions][-2:] == ["complete", "unstage"]
    assert bench.states == [ScanState.OPEN, ScanState.CLOSED]
    closed = bench.messages(ScanStatusMessage)[-1]
    assert closed.num_readouts == 11 and closed.ended == T.now and closed.error is None
    (done,) = bench.messages(RequestDoneMessage)
    assert done.success
    assert bench.finish is not None and bench.finish.success


def test_a_short_scan_needs_two_batches_of_instructions() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=3, relative=True))
    bench.answer()
    assert bench.kinds == ["pre_scan", "baseline", "points", "complete", "move", "unstage"]
    assert bench.sent[4][1].action.targets == {"samx": 1.0}


def test_the_window_is_kept_full_and_never_more() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer()
    while bench.sent:
        assert bench.kinds.count("points") <= 2
        if bench.run.phase is Phase.RUNNING and "pre_scan" not in bench.kinds:
            assert bench.kinds.count("points") == 2
        bench.answer()


def test_mv_is_one_instruction_and_its_answer() -> None:
    bench = Bench(made(Mv, "samx", 3, "samy", 4), is_scan=False)
    assert bench.kinds == ["move"]
    assert bench.answer().targets == {"samx": 3.0, "samy": 4.0}
    assert [type(message) for message in bench.told] == [RequestDoneMessage]
    assert bench.told[0].success


def test_grid_positions_travel_whole() -> None:
    bench = Bench(made(GridScan, "samx", 0, 1, 2, "samy", 0, 2, 3))
    points = [action for action in bench.answer_all() if action.kind == "points"]
    assert [y for p in points for y in p.positions["samy"]] == [0, 1, 2, 2, 1, 0]
    assert bench.messages(ScanStatusMessage)[0].shape == [2, 3]


# Ends before the end


def test_abort_stops_cleans_up_under_a_newer_epoch_and_counts() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100, relative=True))
    bench.answer()
    epoch = bench.sent[-1][1].run_epoch
    bench.take(bench.run.command(QueueAction.ABORT, "scan 7 was aborted by ada", T))
    (control,) = bench.messages(DeviceControlMessage)
    assert (control.kind, control.scan_id, control.run_epoch) == (ControlKind.STOP, "s", epoch)
    assert bench.kinds == ["pre_scan", "baseline", "points", "points", "move", "unstage"]
    assert bench.sent[-1][1].run_epoch > epoch
    for _ in range(4):
        bench.answer(0, InstructionStatus.STOPPED)
    bench.answer_all()
    assert bench.counts == 1 and bench.finish is None
    bench.count(main=2)
    last = bench.messages(ScanStatusMessage)[-1]
    assert (last.status, last.reason, last.num_readouts) == (ScanState.ABORTED, "user", 2)
    assert bench.messages(RequestDoneMessage)[0].error.code == ReasonCode.ABORTED
    assert not bench.messages(AlarmMessage)


def test_user_completed_is_a_success() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer()
    bench.take(bench.run.command(QueueAction.USER_COMPLETED, "", T))
    bench.answer_all()
    bench.count(main=5)
    assert bench.states[-1] is ScanState.USER_COMPLETED
    assert bench.messages(RequestDoneMessage)[0].success


def test_a_devices_failure_ends_the_scan_with_the_devices_sentence() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer()
    bench.answer(2, InstructionStatus.ERROR, error=error("samx hit its limit switch at 0.3 mm"))
    bench.answer(2, InstructionStatus.STOPPED)
    bench.answer_all()
    bench.count(main=0)
    last = bench.messages(ScanStatusMessage)[-1]
    assert (last.status, last.reason) == (ScanState.ABORTED, "alarm")
    assert bench.messages(RequestDoneMessage)[0].error.error_message == "samx hit its limit switch at 0.3 mm"
    (alarm,) = bench.messages(AlarmMessage)
    assert alarm.info.error_message == "scan 7 (line_scan) failed: samx hit its limit switch at 0.3 mm"
    assert alarm.scan_id == "s"


def test_a_failing_clean_up_is_told_and_ends_all_the_same() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer(0, InstructionStatus.ERROR, error=error("eiger does not stage"))
    assert bench.kinds == ["unstage"]
    bench.answer(0, InstructionStatus.ERROR, error=error("eiger does not unstage"))
    bench.count(main=0)
    text = bench.messages(RequestDoneMessage)[0].error.error_message
    assert "eiger does not stage" in text and "eiger does not unstage" in text


def test_halt_ends_without_return_and_in_any_case_after_a_while() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100, relative=True))
    bench.answer()
    bench.take(bench.run.command(QueueAction.HALT, "halted", T))
    assert "move" not in bench.kinds
    assert bench.run.wake_at == T.tick + HALT_S
    bench.take(bench.run.woke(Moment(T.now, T.tick + HALT_S)))
    bench.count(main=1)
    assert bench.states[-1] is ScanState.HALTED


def test_halt_of_a_clean_up_that_does_not_end() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100, relative=True))
    bench.answer()
    bench.take(bench.run.command(QueueAction.ABORT, "aborted", T))
    bench.take(bench.run.command(QueueAction.HALT, "halted", T))
    first, second = bench.messages(DeviceControlMessage)
    assert second.run_epoch > first.run_epoch
    bench.take(bench.run.woke(Moment(T.now, T.tick + HALT_S)))
    bench.count(main=1)
    assert bench.states[-1] is ScanState.HALTED
    assert len(bench.messages(RequestDoneMessage)) == 1


def test_an_aborted_scan_gives_up_a_silent_device_server_a_running_one_waits() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer()
    bench.take(bench.run.silent(["main"], T))
    assert bench.finish is None and bench.counts == 0
    bench.take(bench.run.command(QueueAction.ABORT, "aborted", T))
    bench.take(bench.run.silent(["main"], T))
    bench.count(main=0)
    assert "main is not running" in bench.messages(ScanStatusMessage)[-1].message


def test_the_clean_up_that_a_device_server_did_not_come_to_is_made_by_its_successor() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100, relative=True))
    bench.answer(), bench.answer(), bench.answer()
    bench.take(bench.run.command(QueueAction.ABORT, "enough", T))
    while bench.kinds != ["move", "unstage"]:
        bench.answer(0, InstructionStatus.STOPPED, boot="other")
    before = [message.instruction_id for _, message in bench.sent]
    bench.answer(0, InstructionStatus.STOPPED, boot="other")
    bench.answer(0, InstructionStatus.STOPPED, boot="other")
    assert bench.kinds == ["move", "unstage"] and bench.finish is None
    assert not {message.instruction_id for _, message in bench.sent} & set(before)
    # Stopped by somebody in the meantime: that is not gone against.
    bench.answer(0, InstructionStatus.STOPPED, boot="other")
    bench.answer(boot="other")
    assert not bench.sent and bench.counts == 1
    bench.count(main=0)
    assert bench.messages(ScanStatusMessage)[-1].message == "enough"


def test_a_clean_up_that_ends_its_device_server_is_given_up_and_says_so() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100, relative=True))
    bench.answer(), bench.answer(), bench.answer()
    bench.take(bench.run.command(QueueAction.ABORT, "enough", T))
    while "points" in bench.kinds:
        bench.answer(0, InstructionStatus.STOPPED)
    for life in range(20):
        if bench.sent:
            moves = bench.kinds[0] == "move"
            status = InstructionStatus.STOPPED if moves else InstructionStatus.COMPLETED
            bench.answer(0, status, boot=f"life {life}")
    bench.count(main=0)
    end = bench.messages(ScanStatusMessage)[-1]
    assert (end.status, "was given up" in end.message) == (ScanState.ABORTED, True)


def test_devices_stopped_by_somebody_else_end_the_scan() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer()
    for _ in range(4):
        bench.answer(0, InstructionStatus.STOPPED)
    bench.answer_all()
    bench.count(main=0)
    assert bench.states[-1] is ScanState.ABORTED
    assert "its devices were stopped" in bench.messages(RequestDoneMessage)[0].error.error_message


def test_pause_holds_the_window_and_continue_fills_it() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer()
    bench.take(bench.run.command(QueueAction.PAUSE, "", T))
    before = len(bench.sent)
    bench.answer_all()
    assert before == 4 and not bench.sent and bench.finish is None
    bench.take(bench.run.command(QueueAction.CONTINUE, "", T))
    assert bench.kinds == ["points", "points"]
    kinds = [message.kind for message in bench.messages(DeviceControlMessage)]
    assert kinds == [ControlKind.PAUSE, ControlKind.RESUME]
    assert bench.states == [ScanState.OPEN, ScanState.PAUSED, ScanState.OPEN]
    bench.take(bench.run.command(QueueAction.DEFERRED_PAUSE, "", T))
    assert bench.messages(DeviceControlMessage)[-1].kind is ControlKind.PAUSE_AFTER_POINT


# Interlocks


def after(seconds: float) -> Moment:
    return Moment(T.now + seconds, T.tick + seconds)


def test_a_hold_is_not_a_pause_and_its_time_is_summed_up() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer()
    bench.take(bench.run.held("held by interlock beam: gone", T.now - 50, after(1)))
    before = len(bench.sent)
    bench.answer_all()
    assert before == 4 and not bench.sent, (
        "what is in flight is held by the device server, and nothing follows"
    )
    told = bench.messages(ScanStatusMessage)[-1]
    assert (told.status, told.reason, told.message) == (
        ScanState.PAUSED,
        "interlock",
        "held by interlock beam: gone",
    )
    # A user's pause begins and outlasts it.
    bench.take(bench.run.command(QueueAction.PAUSE, "", after(2)))
    bench.take(bench.run.held("", 0.0, after(3)))
    assert not bench.sent and bench.states[-1] is ScanState.PAUSED
    assert bench.messages(ScanStatusMessage)[-1].dead_time_s == 3.0
    bench.take(bench.run.held("again", T.now + 4, after(4)))
    bench.take(bench.run.command(QueueAction.CONTINUE, "", after(5)))
    assert not bench.sent and bench.states[-1] is ScanState.PAUSED
    bench.take(bench.run.held("", 0.0, after(6)))
    assert bench.states[-1] is ScanState.OPEN
    bench.answer_all()
    closed = bench.messages(ScanStatusMessage)[-1]
    assert closed.status is ScanState.CLOSED and closed.dead_time_s == 5.0
    assert [m.kind for m in bench.messages(DeviceControlMessage)] == [ControlKind.PAUSE, ControlKind.RESUME]


def test_a_held_scan_can_be_aborted() -> None:
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer()
    bench.take(bench.run.held("gone", T.now, T))
    bench.take(bench.run.command(QueueAction.ABORT, "aborted", T))
    bench.answer_all()
    bench.count(main=0)
    assert bench.states[-1] is ScanState.ABORTED


def test_the_dead_time_goes_on_over_a_restart() -> None:
    made_before = Resumed(opened=True, started=900.0, dead_time_s=2.0, held_since=T.now - 3.0)
    bench = Bench(made(LineScan, "samx", 0, 9, steps=10), resumed=made_before)
    bench.take(bench.run.held("", 0.0, T))
    bench.answer_all()
    bench.count(main=10)
    bench.answer_all()
    assert bench.messages(ScanStatusMessage)[-1].dead_time_s == 5.0


def test_a_device_server_that_starts_anew_in_a_pause_is_sent_nothing() -> None:
    """It has forgotten the pause: what was in flight would run."""
    bench = Bench(made(LineScan, "samx", -1, 1, steps=100))
    bench.answer()
    bench.take(bench.run.command(QueueAction.PAUSE, "", T))
    down = ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN)
    while bench.sent:
        bench.answer(0, InstructionStatus.STOPPED, boot="other", error=down)
    bench.count(main=0)
    assert [a.kind for a in bench.answer_all()].count("points") == 0
    bench.take(bench.run.command(QueueAction.CONTINUE, "", T))
    assert "points" in bench.kinds
    bench.answer_all()
    assert bench.states[-1] is ScanState.CLOSED and bench.done_points["main"] == 100


# A device server starts anew


def test_after_a_restart_of_the_device_server_the_scan_goes_on_at_the_first_uncommitted_point() -> None:
    bench = Bench(made(LineScan, "samx", 0, 9, steps=10))
    bench.answer()
    bench.answer(), bench.answer(), bench.answer()
    assert [m.action.first_index for _, m in bench.sent if m.action.kind == "points"] == [4, 8]
    down = ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN)
    while bench.sent:
        bench.answer(0, InstructionStatus.STOPPED, boot="other", error=down)
    assert bench.counts == 1
    bench.count(main=6)
    assert bench.kinds == ["stage"]
    actions = bench.answer_all()
    points = [action for action in actions if action.kind == "points"]
    assert [(p.first_index, p.count) for p in points] == [(6, 2), (8, 2)]
    assert points[0].positions["samx"] == [6.0, 7.0]
    assert [a.kind for a in actions][-2:] == ["complete", "unstage"]
    assert bench.states[-1] is ScanState.CLOSED
    assert len(bench.messages(ScanSchemaMessage)) == 1  # nothing in it changed


def test_after_a_restart_behind_the_last_point_only_the_end_is_repeated() -> None:
    bench = Bench(made(LineScan, "samx", 0, 2, steps=3, relative=True))
    for _ in range(4):
        bench.answer()
    assert bench.kinds == ["complete", "move", "unstage"]
    down = ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN)
    while bench.sent:
        bench.answer(0, InstructionStatus.STOPPED, boot="other", error=down)
    bench.count(main=3)
    kinds = [action.kind for action in bench.answer_all()]
    assert kinds == ["stage", "pre_scan", "baseline", "complete", "move", "unstage"]
    assert bench.states == [ScanState.OPEN, ScanState.CLOSED]


def test_a_device_server_that_was_cut_off_from_the_broker_takes_the_point_again() -> None:
    """It has stopped what moved, and is the same process as before."""
    bench = Bench(made(LineScan, "samx", 0, 9, steps=10))
    bench.answer(), bench.answer(), bench.answer()
    cut_off = ErrorInfo(error_message="the broker did not answer", code=ReasonCode.SERVICE_DOWN)
    bench.answer(0, InstructionStatus.STOPPED, error=cut_off)
    bench.answer(0, InstructionStatus.STOPPED)
    bench.count(main=1)
    actions = bench.answer_all()
    points = [action for action in actions if action.kind == "points"]
    assert [(p.first_index, p.count) for p in points] == [(1, 3), (4, 4), (8, 2)]
    assert bench.states == [ScanState.OPEN, ScanState.CLOSED]


@pytest.mark.parametrize(
    "script",
    [
        lambda scan: (yield Points(8)),
        lambda scan: (yield Move({"eiger": 1.0})),
        lambda scan: (yield Call("eiger", "arm")),
    ],
)
def test_what_must_not_be_repeated_by_itself_waits_for_somebody(script: Callable[[Any], Steps]) -> None:
    plan = replace(made(LineScan, "samx", 0, 1, steps=2).plan, asks=("eiger",))
    bench = Bench(Assembled(Scripted(script), plan))
    bench.answer(), bench.answer(), bench.answer()
    down = ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN)
    while bench.sent:
        bench.answer(0, InstructionStatus.STOPPED, boot="other", error=down)
    bench.count(main=1)
    assert ["eiger has `onInterrupt: ask`" in ask.message for ask in bench.asked] == [True]
    assert [action.kind for action in bench.answer_all()] == ["stage", "pre_scan", "baseline"]
    bench.take(bench.run.command(QueueAction.CONTINUE, "", T))
    assert {action.kind for action in bench.answer_all()} & {"points", "move", "call"}
    assert bench.states == [ScanState.OPEN, ScanState.PAUSED, ScanState.OPEN, ScanState.CLOSED]


def test_a_move_of_a_device_that_asks_is_not_made_again() -> None:
    plan = replace(made(Mv, "samx", 2.0).plan, asks=("samx",))
    bench = Bench(Assembled(made(Mv, "samx", 2.0).scan, plan), is_scan=False)
    down = ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN)
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=down)
    bench.count(main=0)
    assert bench.sent == [] and bench.finish is not None
    (done,) = bench.messages(RequestDoneMessage)
    assert not done.success and "samx has `onInterrupt: ask`" in done.error.error_message


def test_a_device_server_that_starts_anew_while_staging() -> None:
    bench = Bench(made(LineScan, "samx", 0, 9, steps=10))
    down = ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN)
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=down)
    bench.count(main=0)
    points = [action for action in bench.answer_all() if action.kind == "points"]
    assert sum(p.count for p in points) == 10
    assert bench.states[-1] is ScanState.CLOSED


# The scan server starts anew


def resumed(committed: int, steps: int = 10, **more: Any) -> tuple[Bench, list[Any]]:
    bench = Bench(
        made(LineScan, "samx", 0, steps - 1, steps=steps), resumed=Resumed(opened=True, started=900.0, **more)
    )
    assert bench.kinds == ["unstage", "stage"]
    bench.answer(), bench.answer()
    bench.count(main=committed)
    return bench, bench.answer_all()


@pytest.mark.parametrize("committed", [0, 1, 4, 6, 9, 10])
def test_a_resumed_scan_takes_exactly_what_is_missing(committed: int) -> None:
    bench, actions = resumed(committed)
    taken = [p.first_index + k for p in actions if p.kind == "points" for k in range(p.count)]
    assert taken == list(range(committed, 10))
    assert bench.states == [ScanState.CLOSED]
    last = bench.messages(ScanStatusMessage)[-1]
    assert last.num_readouts == 10 and last.started == 900.0


def test_a_resumed_scan_whose_device_server_starts_anew_as_well() -> None:
    """Found by killing both: the unstage that precedes the stage was repeated behind it."""
    bench = Bench(made(LineScan, "samx", 0, 9, steps=10), resumed=Resumed(opened=True))
    down = ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN)
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=down)
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=down)
    bench.count(main=4)
    assert bench.kinds == ["stage"]
    bench.answer()
    bench.count(main=4)
    actions = bench.answer_all()
    assert [a.kind for a in actions].count("unstage") == 1 and actions[-1].kind == "unstage"
    assert next(p.first_index for p in actions if p.kind == "points") == 4
    assert bench.states[-1] is ScanState.CLOSED


def test_a_resumed_scan_that_was_paused_waits() -> None:
    bench, actions = resumed(5, paused=True)
    assert not [a for a in actions if a.kind == "points"] and bench.finish is None
    bench.take(bench.run.command(QueueAction.CONTINUE, "", T))
    bench.answer_all()
    assert bench.states == [ScanState.PAUSED, ScanState.OPEN, ScanState.CLOSED]


# Scans with results


class Scripted(Scan):
    """A scan whose steps come from a function; what it got is kept."""

    scan_name = "scripted"

    def __init__(self, script: Callable[[Scripted], Steps]):
        super().__init__(BoundCall((), {}))
        self.script = script
        self.got: list[Any] = []

    def run(self) -> Steps:
        return self.script(self)


def scripted(
    script: Callable[[Scripted], Steps], *, devices: Registry | None = None, **more: Any
) -> tuple[Bench, Scripted]:
    plan = made(LineScan, "samx", 0, 1, steps=2, devices=devices).plan
    scan = Scripted(script)
    return Bench(Assembled(scan, plan), **more), scan


def adaptive(scan: Scripted) -> Steps:
    """Halve the step until the reading is small."""
    x = 8.0
    while True:
        reading = yield Point({"samx": x})
        scan.got.append(reading["bpm4i"]["bpm4i"]["value"])
        if scan.got[-1] < 2:
            return
        x /= 2


def reading_of(action: RunPoints) -> dict[str, Any]:
    return {"bpm4i": {"bpm4i": {"value": action.positions["samx"][0], "timestamp": 0.0}}}


def run_adaptive(bench: Bench) -> list[float]:
    positions = []
    while bench.sent:
        action = bench.sent[0][1].action
        if isinstance(action, RunPoints):
            assert action.want_reading
            positions.append(action.positions["samx"][0])
            bench.answer(result=reading_of(action))
        else:
            bench.answer()
    return positions


def test_an_adaptive_scan_gets_its_readings_journalled_first() -> None:
    bench, scan = scripted(adaptive)
    assert run_adaptive(bench) == [8.0, 4.0, 2.0, 1.0]
    assert scan.got == [8.0, 4.0, 2.0, 1.0]
    journal = bench.messages(ScanJournalMessage)
    assert [entry.step for entry in journal] == [0, 1, 2, 3]
    assert bench.states[-1] is ScanState.CLOSED


def test_an_adaptive_scan_is_replayed_from_its_journal() -> None:
    bench, _ = scripted(adaptive)
    run_adaptive(bench)
    journal = {entry.step: entry.result for entry in bench.messages(ScanJournalMessage)[:2]}
    again, scan = scripted(adaptive, resumed=Resumed(opened=True, journal=journal))
    again.answer(), again.answer()
    again.count(main=2)
    assert run_adaptive(again) == [2.0, 1.0]
    assert scan.got == [8.0, 4.0, 2.0, 1.0]


def test_a_reading_that_did_not_come_to_the_journal_is_looked_up() -> None:
    """The scan server died between a point and its journal: points 0 and 1 are committed, 0 is journalled."""
    bench, _ = scripted(adaptive)
    run_adaptive(bench)
    journal = {entry.step: entry.result for entry in bench.messages(ScanJournalMessage)[:1]}
    again, scan = scripted(adaptive, resumed=Resumed(opened=True, journal=journal))
    again.answer(), again.answer()
    again.count(main=2)
    assert [recall.index for recall in again.recalls] == [1]
    reading = {"bpm4i": {"bpm4i": {"value": 4.0, "timestamp": 0.0}}}
    again.take(again.run.recalled(1, reading, T))
    assert [entry.step for entry in again.messages(ScanJournalMessage)] == [1]
    assert run_adaptive(again) == [2.0, 1.0]
    assert scan.got == [8.0, 4.0, 2.0, 1.0]


def test_a_device_server_that_dies_between_a_point_and_its_report() -> None:
    bench, scan = scripted(adaptive)
    while bench.sent[0][1].action.kind != "points":
        bench.answer()
    down = ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN)
    bench.answer(0, InstructionStatus.STOPPED, boot="other", error=down)
    bench.count(main=1)
    assert [recall.index for recall in bench.recalls] == [0]
    reading = {"bpm4i": {"bpm4i": {"value": 8.0, "timestamp": 0.0}}}
    bench.take(bench.run.recalled(0, reading, T))
    assert run_adaptive(bench) == [4.0, 2.0, 1.0]
    assert scan.got == [8.0, 4.0, 2.0, 1.0]
    assert bench.states == [ScanState.OPEN, ScanState.CLOSED]


def test_a_reading_that_is_nowhere_ends_the_scan() -> None:
    again, _ = scripted(adaptive, resumed=Resumed(opened=True))
    again.answer(), again.answer()
    again.count(main=1)
    again.take(again.run.recalled(0, None, T))
    again.answer_all()
    again.count(main=1)
    assert again.states[-1] is ScanState.ABORTED
    assert "not on record" in again.messages(ScanStatusMessage)[-1].message


def test_moves_reads_calls_and_waits() -> None:
    def script(scan: Scripted) -> Steps:
        yield Move({"samy": 2.0})
        scan.got.append((yield Read(["bpm4i"])))
        scan.got.append((yield Call("eiger", "arm", [1])))
        yield Points(2)
        scan.got.append((yield Wait(0.5)))
        yield Points(1)

    bench, scan = scripted(script)
    bench.answer()
    kinds = []
    while bench.sent:
        kind = bench.kinds[0]
        kinds.append(kind)
        bench.answer(result={"read": {"bpm4i": 1}, "call": "armed"}.get(kind))
    assert kinds == ["pre_scan", "baseline", "move", "read", "call", "points"]
    assert bench.run.wake_at == T.tick + 0.5
    bench.take(bench.run.woke(Moment(T.now, T.tick + 0.6)))
    assert scan.got == [{"bpm4i": 1}, "armed", 2]
    bench.answer_all()
    assert bench.states[-1] is ScanState.CLOSED
    assert bench.messages(ScanStatusMessage)[-1].num_readouts == 3


def test_moves_before_the_first_missing_point_are_made_again_as_one() -> None:
    def script(scan: Scripted) -> Steps:
        yield Move({"samy": 1.0})
        yield Points(3)
        yield Move({"samy": 2.0})
        yield Points(3)

    bench, _ = scripted(script, resumed=Resumed(opened=True))
    bench.answer(), bench.answer()
    bench.count(main=4)
    actions = bench.answer_all()
    moves = [a.targets for a in actions if a.kind == "move"]
    assert moves == [{"samy": 2.0}]
    assert [(a.first_index, a.count) for a in actions if a.kind == "points"] == [(4, 2)]


def test_a_target_outside_of_the_limits_that_a_scan_finds_as_it_runs_is_not_sent() -> None:
    def script(scan: Scripted) -> Steps:
        yield Point({"samx": 11.0})

    bench, _ = scripted(script)
    bench.answer_all()
    bench.count(main=0)
    text = bench.messages(RequestDoneMessage)[0].error.error_message
    assert "samx cannot move to 11 mm: its limits are -10 to 10 mm" in text


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (RuntimeError("oh"), "RuntimeError: oh"),
        (ParameterError("no such thing"), "no such thing"),
        (None, "gave a step that is none: None"),
    ],
)
def test_a_scan_whose_code_fails_ends_alone_and_in_words(fault: Exception | None, text: str) -> None:
    def script(scan: Scripted) -> Steps:
        yield Points(1)
        if fault is not None:
            raise fault
        yield None  # type: ignore[misc]

    bench, _ = scripted(script)
    bench.answer_all()
    bench.count(main=1)
    assert bench.states[-1] is ScanState.ABORTED
    assert text in bench.messages(RequestDoneMessage)[0].error.error_message


def test_intervals_are_counted_from_the_first_point_of_this_life() -> None:
    def script(scan: Scripted) -> Steps:
        yield Points(6, interval=0.5)

    bench, _ = scripted(script)
    points = [a for a in bench.answer_all() if a.kind == "points"]
    assert [p.at for p in points] == [[0.0, 0.5, 1.0, 1.5], [2.0, 2.5]]
    again, _ = scripted(script, resumed=Resumed(opened=True))
    again.answer(), again.answer()
    again.count(main=3)
    assert [p.at for p in again.answer_all() if p.kind == "points"] == [[0.0, 0.5, 1.0]]


# Several device servers


def test_what_is_read_and_moved_on_one_of_two_device_servers_is_not_taken_point_by_point() -> None:
    devices = registry(samy="far")
    bench = Bench(made(LineScan, "samx", 0, 2, steps=12, devices=devices))
    assert [server for server, _ in bench.sent] == ["main", "far"]
    bench.answer(), bench.answer()
    # Behind the preparation and the baseline of both, in any order.
    while not any(kind == "points" for kind in bench.kinds):
        bench.answer(-1)
    assert [(server, message.action.kind) for server, message in bench.sent] == [("main", "points")] * 2
    # A pause is the device server's business, which stops between two points.
    bench.take(bench.run.command(QueueAction.DEFERRED_PAUSE, "", T))
    assert bench.messages(DeviceControlMessage)[-1].kind is ControlKind.PAUSE_AFTER_POINT
    bench.take(bench.run.command(QueueAction.CONTINUE, "", T))
    taken = []
    while bench.kinds and bench.kinds[0] == "points":
        assert set(bench.kinds) == {"points"} and len(bench.sent) <= 2
        taken.append(bench.answer())
    assert [(piece.first_index, piece.count) for piece in taken] == [(0, 4), (4, 4), (8, 4)]
    targets = [target for piece in taken for target in piece.positions["samx"]]
    assert targets == pytest.approx(np.linspace(0, 2, 12))
    bench.answer_all()
    assert bench.states[-1] is ScanState.CLOSED
    assert bench.messages(ScanStatusMessage)[-1].num_readouts == 12


def test_the_other_device_servers_moves_come_before_the_points_of_one() -> None:
    def script(scan: Any) -> Steps:
        yield Move({"samy": 1.0})
        yield Trajectory(("samx",), np.array([[0.0], [1.0]]))
        yield Move({"samy": 2.0})

    bench, _ = scripted(script, devices=registry(samy="far"))
    order = []
    while bench.sent:
        assert not {"move", "points"} <= set(bench.kinds)
        server, message = bench.sent[-1]
        order.append((server, message.action.kind))
        bench.answer(-1)
    assert [e for e in order if e[1] in ("move", "points")] == [
        ("far", "move"),
        ("main", "points"),
        ("far", "move"),
    ]


def test_a_point_alone_on_one_of_two_device_servers_is_one_instruction() -> None:
    readings = []

    def script(scan: Any) -> Steps:
        for target in (0.0, 1.0):
            readings.append((yield Point({"samx": target})))

    bench, _ = scripted(script, devices=registry(samy="far"))
    while bench.sent:
        action = bench.sent[0][1].action
        if isinstance(action, RunPoints):
            assert action.want_reading and list(action.positions) == ["samx"]
            bench.answer(result={"samx": {"samx": {"value": action.positions["samx"][0], "timestamp": 1.0}}})
        else:
            assert action.kind != "move"
            bench.answer()
    assert [reading["samx"]["samx"]["value"] for reading in readings] == [0.0, 1.0]
    assert bench.states[-1] is ScanState.CLOSED


def test_with_two_device_servers_all_moves_come_before_any_reading() -> None:
    devices = registry(eiger="far")
    bench = Bench(made(LineScan, "samx", 0, 2, steps=3, devices=devices))
    assert [server for server, _ in bench.sent] == ["main", "far"]
    bench.answer(), bench.answer()
    order: list[tuple[str, str]] = []
    while bench.sent:
        # Everything that is out at one time must be free to run in any order.
        kinds = {message.action.kind for _, message in bench.sent}
        assert not ({"move", "points"} <= kinds)
        server, message = bench.sent[-1]
        order.append((server, message.action.kind))
        bench.answer(-1)
    points = [entry for entry in order if entry[1] in ("move", "points")]
    assert points == [("main", "move"), ("far", "points"), ("main", "points")] * 3
    assert bench.states[-1] is ScanState.CLOSED
    assert bench.messages(ScanStatusMessage)[-1].num_readouts == 3
    schema = bench.messages(ScanSchemaMessage)[0]
    assert {s.device: s.server for s in schema.signals}["eiger"] == "far"
    assert schema.servers == ["main", "far"]


@pytest.mark.parametrize(
    ("answered", "held", "left"),
    [
        (0, False, ["move", "points", "points"]),
        (1, True, ["points", "points"]),
        (1, False, ["points", "points"]),
        (2, False, ["points"]),
    ],
    ids=["moves", "has moved, and is held by an interlock", "reads", "half is read"],
)
def test_a_deferred_pause_holds_after_the_point_also_with_two_device_servers(
    answered: int, held: bool, left: list[str]
) -> None:
    bench = Bench(made(LineScan, "samx", 0, 2, steps=3, devices=registry(samy="far", eiger="far")))
    bench.answer(), bench.answer()
    while bench.kinds != ["move"]:
        bench.answer()
    if held:
        bench.take(bench.run.held("held by interlock beam", 0.0, T))
    for _ in range(answered):
        bench.answer()
    bench.take(bench.run.command(QueueAction.DEFERRED_PAUSE, "", T))
    bench.take(bench.run.held("", 0.0, T))
    assert [action.kind for action in bench.answer_all()] == left
    assert bench.done_points == {"main": 1, "far": 1}
    bench.take(bench.run.command(QueueAction.CONTINUE, "", T))
    assert [action.kind for action in bench.answer_all()].count("points") == 4
    assert bench.states[-1] is ScanState.CLOSED


def test_a_trajectory_in_pieces_of_a_scans_own() -> None:
    def script(scan: Scripted) -> Steps:
        for x in range(3):
            yield Trajectory(["samx"], np.array([[x], [x + 0.5]]))

    bench, _ = scripted(script)
    points = [a for a in bench.answer_all() if a.kind == "points"]
    assert [(p.first_index, p.positions["samx"]) for p in points] == [
        (0, [0.0, 0.5]),
        (2, [1.0, 1.5]),
        (4, [2.0, 2.5]),
    ]


def test_replies_to_nobodys_instruction_are_passed_over() -> None:
    bench = Bench(made(LineScan, "samx", 0, 2, steps=3))
    reply = DeviceInstructionResponse(instruction_id="x", status=InstructionStatus.COMPLETED, scan_id="s")
    assert bench.run.answered(reply, T) == []


def test_a_device_server_that_comes_back_with_other_columns_is_told_which_version_they_are() -> None:
    """Its blocks were taken for those of the first version, and left out by the bundler."""
    bench = Bench(made(LineScan, "samx", 0, 9, steps=10))
    while bench.sent[0][1].action.kind != "points":
        bench.answer()
    bench.answer(status=InstructionStatus.STOPPED, boot="anew")
    while bench.sent:
        bench.answer(status=InstructionStatus.STOPPED, boot="anew")
    bench.knows_given = False
    bench.count(main=2)
    actions = bench.answer_all()
    assert [schema.version for schema in bench.messages(ScanSchemaMessage)] == [1, 2]
    versions = {a.schema_version for a in actions if a.kind in ("points", "baseline")}
    assert versions == {2}


# What is said of the points beside what is read


def columns_of(actions: list[Any], name: str) -> list[Any]:
    """A given column of all points that were asked for, as a device server works it out."""
    found: list[Any] = []
    for action in actions:
        if action.kind == "points":
            values = action.given.get(name) or action.positions.get(name, [])
            found += values * action.count if len(values) == 1 else values
    return found


class Marked(Scripted):
    point_labels = {"image_key": Label(3, doc="which")}


def marked(script: Callable[[Scripted], Steps], **more: Any) -> Bench:
    plan = made(LineScan, "samx", 0, 1, steps=2).plan
    return Bench(Assembled(Marked(script), replace(plan, labels=Marked.point_labels)), **more)


def two_kinds(scan: Scripted) -> Steps:
    yield Trajectory(["samx"], np.linspace(0, 4, 5)[:, None], labels={"image_key": np.array([0, 0, 1, 1, 2])})
    yield Move({"samx": 7.0})
    yield Points(2)


def test_targets_and_labels_become_columns_behind_those_that_are_read() -> None:
    bench = marked(two_kinds)
    assert bench.sent[0][1].action.given == ["samx", "image_key"]
    bench.answer_all()
    (schema,) = bench.messages(ScanSchemaMessage)
    assert [(s.signal, s.given) for s in schema.signals][-3:] == [
        ("eiger_b", ""),
        ("samx_target", "target"),
        ("image_key", "label"),
    ]
    assert (schema.signals[-1].dtype, schema.signals[-1].doc) == ("int64", "which")


def test_each_point_has_its_target_and_its_labels() -> None:
    actions = marked(two_kinds).answer_all()
    assert columns_of(actions, "samx") == [0.0, 1.0, 2.0, 3.0, 4.0, 7.0, 7.0]
    assert columns_of(actions, "image_key") == [0, 0, 1, 1, 2, 3, 3]


def test_a_motor_that_was_not_sent_anywhere_has_no_target() -> None:
    (point,) = [a for a in scripted(lambda _: iter([Points(1)]))[0].answer_all() if a.kind == "points"]
    assert np.isnan(point.given["samx"]).all()


@pytest.mark.parametrize("committed", range(8))
def test_a_resumed_scan_gives_the_same_targets_and_labels(committed: int) -> None:
    bench = marked(two_kinds, resumed=Resumed(opened=True))
    bench.answer(), bench.answer()
    bench.count(main=committed)
    actions = bench.answer_all()
    assert columns_of(actions, "samx") == [0.0, 1.0, 2.0, 3.0, 4.0, 7.0, 7.0][committed:]
    assert columns_of(actions, "image_key") == [0, 0, 1, 1, 2, 3, 3][committed:]


def test_a_piece_that_is_taken_again_in_part_keeps_its_columns() -> None:
    """The device server starts anew in the midst of the first piece of four points."""
    bench = marked(two_kinds)
    while bench.sent[0][1].action.kind != "points":
        bench.answer()
    while bench.sent:
        bench.answer(status=InstructionStatus.STOPPED, boot="anew")
    bench.count(main=2)
    actions = bench.answer_all()
    assert columns_of(actions, "samx") == [2.0, 3.0, 4.0, 7.0, 7.0]
    assert columns_of(actions, "image_key") == [1, 1, 2, 3, 3]


def test_with_two_device_servers_the_first_that_reads_gets_the_columns() -> None:
    bench = Bench(made(LineScan, "samx", 0, 2, steps=3, devices=registry(samx="far")))
    staged = {server: message.action.given for server, message in bench.sent}
    (first,) = [server for server, given in staged.items() if given]
    actions: list[Any] = []
    while bench.sent:
        server = bench.sent[0][0]
        action = bench.answer()
        actions += [action] if server == first else []
    assert columns_of(actions, "samx") == [0.0, 1.0, 2.0]


def test_a_device_server_of_before_has_no_such_columns() -> None:
    bench = marked(two_kinds)
    bench.knows_given = False
    bench.answer_all()
    assert not [s for s in bench.messages(ScanSchemaMessage)[0].signals if s.given]
    assert bench.states[-1] is ScanState.CLOSED


def test_a_label_that_was_not_declared_ends_the_scan_in_words() -> None:
    bench = marked(lambda _: iter([Points(2, labels={"kind": 1})]))
    bench.answer_all()
    bench.count(main=0)
    assert bench.states[-1] is ScanState.ABORTED
    assert "the label kind" in bench.messages(RequestDoneMessage)[0].error.error_message
