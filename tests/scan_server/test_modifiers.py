"""Scans with modifiers: their phases message by message, what is replayed, what a restart repeats."""

from __future__ import annotations

from typing import Any

from bec_lib.errors import ReasonCode
from bec_lib.messages import (
    ErrorInfo,
    InstructionStatus,
    QueueAction,
    ScanJournalMessage,
    ScanQueueMessage,
    ScanSchemaMessage,
    ScanState,
)
from bec_lib.scans import (
    Call,
    Move,
    Points,
    Scan,
    ScanModifier,
    Steps,
    Wait,
    after,
    before,
    cleanup,
    describe_scan,
    hide,
    instead,
)
from bec_lib.scans.modifier import Modification, modify
from scan_server.assembler import Assembled, assemble
from scan_server.guard import Rejected
from scan_server.run import Phase, Resumed
from scan_server.scans import LineScan, Mv
from tests.scan_server.test_run import Bench, T, registry


class Around(ScanModifier):
    devices = ("samy",)

    @before("stage")
    def a(self) -> Steps:
        found = yield Call("samy", "ready")
        yield Move({"samy": found})

    @before("points")
    def b(self) -> Steps:
        yield Move({"samy": 2})

    @after("complete")
    def c(self) -> Steps:
        yield Call("samy", "rest")

    @after("unstage")
    def d(self) -> Steps:
        yield Move({"samy": 0})

    @cleanup()
    def e(self) -> Steps:
        yield Move({"samy": -1})
        yield Call("samy", "off")


def modification(*kinds: type[ScanModifier], scan: type[Scan] = LineScan) -> Modification:
    info = describe_scan(scan)
    made, failed, _ = modify({info.name: info}, [("mine", kind) for kind in kinds])
    assert not failed, failed
    return made[info.name]


def made(*kinds: type[ScanModifier], relative: bool = False, devices: Any = None) -> Assembled:
    request = ScanQueueMessage(
        request_id="r",
        client_id="c",
        scan_type="line_scan",
        args=["samx", -1, 1],
        kwargs={"steps": 3, "relative": relative},
    )
    found = assemble(LineScan, request, devices or registry(), None, modification(*kinds))
    assert isinstance(found, Assembled), found
    return found


def kinds_of(actions: list[Any]) -> list[str]:
    return [action.kind for action in actions]


def test_a_modified_scan_message_by_message() -> None:
    bench = Bench(made(Around, relative=True))
    assert bench.states == [ScanState.OPEN]
    assert bench.kinds == ["call"] and not bench.messages(ScanSchemaMessage)
    bench.answer(result=1.5)
    # Nothing is staged before it has arrived.
    assert bench.kinds == ["move"]
    assert bench.answer().targets == {"samy": 1.5}
    assert bench.kinds == ["stage"]
    assert "samy" in bench.answer().owned
    assert len(bench.messages(ScanSchemaMessage)) == 1
    assert kinds_of(bench.answer_all()) == [
        "pre_scan", "baseline", "move", "points", "complete", "move", "call", "unstage", "move",
    ]  # fmt: skip
    assert bench.states[-1] is ScanState.CLOSED
    assert bench.finish is not None and bench.finish.success
    assert [m.step for m in bench.messages(ScanJournalMessage)] == [0, 8]


def test_a_scan_that_no_modifier_has_to_do_with_is_sent_as_ever() -> None:
    class Elsewhere(ScanModifier):
        defaults = {"line_scan": {"exp_time": 0.5}}

    assembled = made(Elsewhere)
    assert assembled.hooks is None and assembled.plan.exposure.exp_time == 0.5
    bench = Bench(assembled)
    bench.answer()
    assert bench.kinds == ["pre_scan", "baseline", "points", "complete", "unstage"]


def test_the_baseline_and_the_points_can_be_replaced() -> None:
    class Other(ScanModifier):
        @instead("baseline")
        def none(self, original: Any) -> Steps:
            yield Wait()

        @instead("points")
        def more(self, original: Any) -> Steps:
            yield Points(1)
            yield from original()

    bench = Bench(made(Other))
    actions = bench.answer_all()
    assert kinds_of(actions) == ["stage", "pre_scan", "points", "points", "complete", "unstage"]
    assert [(a.first_index, a.count) for a in actions if a.kind == "points"] == [(0, 1), (1, 3)]


def test_an_aborted_scan_cleans_up_with_its_modifiers_and_a_halted_one_does_not() -> None:
    for action, expected in (
        (QueueAction.ABORT, ["move", "call", "unstage"]),
        (QueueAction.HALT, ["unstage"]),
    ):
        bench = Bench(made(Around))
        for _ in range(3):
            bench.answer(result=1)
        while bench.run.phase is not Phase.RUNNING:
            bench.answer()
        before_it = len(bench.sent)
        bench.take(bench.run.command(action, "enough", T))
        assert bench.kinds[before_it:] == expected


def test_a_clean_up_that_raises_does_not_keep_the_scan_from_ending() -> None:
    class Clumsy(ScanModifier):
        @cleanup()
        def fall(self) -> Steps:
            yield Wait()

    bench = Bench(made(Clumsy))
    bench.take(bench.run.command(QueueAction.ABORT, "enough", T))
    bench.answer_all()
    bench.count()
    assert bench.finish is not None and "Wait is no step of a clean-up" in bench.finish.message


def test_an_error_of_a_modifiers_device_ends_the_scan_with_its_text() -> None:
    bench = Bench(made(Around))
    info = ErrorInfo(error_message="samy is stuck", code=ReasonCode.DEVICE_FAILED)
    bench.answer(status=InstructionStatus.ERROR, error=info)
    assert bench.kinds == ["move", "call", "unstage"]
    bench.answer_all()
    bench.count()
    assert bench.states[-1] is ScanState.ABORTED and bench.finish is not None
    assert "samy is stuck" in bench.finish.message


def test_points_before_staging_are_refused() -> None:
    class Hasty(ScanModifier):
        @before("stage")
        def go(self) -> Steps:
            yield Points(1)

    bench = Bench(made(Hasty))
    bench.answer_all()
    bench.count()
    assert bench.finish is not None and "its devices are not staged" in bench.finish.message


def test_a_modifiers_moves_stay_within_limits() -> None:
    class Far(ScanModifier):
        devices = ("samy",)

        @before("points")
        def go(self) -> Steps:
            yield Move({"samy": 99})

    bench = Bench(made(Far))
    bench.answer_all()
    bench.count()
    assert bench.finish is not None and "samy cannot move to 99" in bench.finish.message


def test_a_resumed_scan_takes_the_results_of_its_modifiers_from_the_journal() -> None:
    bench = Bench(made(Around), resumed=Resumed(opened=True, journal={0: 1.5}))
    # It had not been staged: what comes before that is done again where it has no result on record.
    assert bench.kinds == ["unstage", "move"]
    bench.answer_all()
    assert bench.finish is None
    bench.count(main=0)
    assert kinds_of(bench.answer_all()) == [
        "pre_scan", "baseline", "move", "points", "complete", "call", "unstage", "move",
    ]  # fmt: skip
    assert bench.finish is not None and bench.finish.success


def test_a_scan_resumed_amid_its_points_is_staged_first_and_its_moves_are_made_again() -> None:
    first = Bench(made(Around))
    for _ in range(3):
        first.answer(result=1.5)
    (schema,) = first.messages(ScanSchemaMessage)
    bench = Bench(made(Around), resumed=Resumed(opened=True, schema=schema, journal={0: 1.5}))
    assert bench.kinds == ["unstage", "stage"]
    bench.answer_all()
    bench.count(main=2)
    actions = bench.answer_all()
    assert kinds_of(actions) == [
        "pre_scan",
        "baseline",
        "move",
        "points",
        "complete",
        "call",
        "unstage",
        "move",
    ]
    assert actions[2].targets == {"samy": 2} and actions[3].first_index == 2


def test_a_restarted_device_server_before_staging_is_asked_again() -> None:
    bench = Bench(made(Around))
    down = ErrorInfo(error_message="restarted", code=ReasonCode.SERVICE_DOWN)
    bench.answer(status=InstructionStatus.STOPPED, error=down, boot="new")
    bench.count(main=0)
    assert bench.kinds == ["call"]
    bench.answer(result=1)
    assert kinds_of(bench.answer_all())[:2] == ["move", "stage"]
    assert bench.finish is not None and bench.finish.success


def test_a_restarted_device_server_after_unstaging_is_not_staged_again() -> None:
    bench = Bench(made(Around))
    while bench.kinds != ["move"] or bench.sent[0][1].action.targets != {"samy": 0}:
        bench.answer(result=1)
    bench.answer(status=InstructionStatus.STOPPED, boot="new")
    bench.count(main=3)
    assert [action.targets for action in bench.answer_all()] == [{"samy": 2}, {"samy": 0}]
    assert bench.finish is not None and bench.finish.success


def test_a_restarted_device_server_has_its_devices_where_they_were_moved() -> None:
    bench = Bench(made(Around))
    while "points" not in bench.kinds:
        bench.answer(result=1)
    assert bench.answer().targets == {"samy": 2}
    bench.answer(status=InstructionStatus.STOPPED, boot="new")
    bench.count(main=0)
    assert bench.kinds == ["move", "stage"] and bench.sent[0][1].action.targets == {"samy": 2}
    actions = bench.answer_all()
    assert kinds_of(actions)[2:6] == ["pre_scan", "baseline", "points", "complete"]
    assert bench.finish is not None and bench.finish.success


def test_with_several_device_servers_each_phase_waits_for_the_one_before() -> None:
    devices = registry(samy="other")
    bench = Bench(made(Around, devices=devices))
    assert [server for server, _ in bench.sent] == ["other"]
    order = [(server, m.action.kind) for server, m in bench.sent]
    while bench.sent:
        bench.answer(result=1)
        order += [(s, m.action.kind) for s, m in bench.sent if (s, m.action.kind) not in order]
    words = [kind for _, kind in order]
    assert words.index("complete") > words.index("points") > words.index("stage") > words.index("call")
    assert bench.finish is not None and bench.finish.success


def test_a_device_that_a_modifier_needs_must_be_there() -> None:
    class Needy(Around):
        devices = ("shutter",)

    request = ScanQueueMessage(
        request_id="r", client_id="c", scan_type="line_scan", args=["samx", 0, 1], kwargs={"steps": 2}
    )
    refusal = assemble(LineScan, request, registry(), None, modification(Needy))
    assert isinstance(refusal, Rejected) and refusal.code is ReasonCode.UNKNOWN_DEVICE
    assert "the modifier Needy of line_scan needs the device shutter" in refusal.message


def test_a_hidden_parameter_has_its_value_and_moves_are_left_alone() -> None:
    class Quiet(ScanModifier):
        parameters = {"line_scan": {"exp_time": hide(0.25)}}

    assert made(Quiet).plan.parameters["exp_time"] == 0.25
    request = ScanQueueMessage(request_id="r", client_id="c", scan_type="mv", args=["samx", 1])
    plain = assemble(Mv, request, registry(), None, Modification(describe_scan(Mv), modifiers=(Around,)))
    assert isinstance(plain, Assembled) and plain.hooks is None


def test_a_scan_of_a_modifier_that_raises_is_refused_with_its_words() -> None:
    class Broken(ScanModifier):
        @before("points")
        def never(self) -> Steps:
            yield Wait()

        def applies(self) -> bool:
            raise ValueError("no idea")

    request = ScanQueueMessage(
        request_id="r", client_id="c", scan_type="line_scan", args=["samx", 0, 1], kwargs={"steps": 2}
    )
    refusal = assemble(LineScan, request, registry(), None, modification(Broken))
    assert isinstance(refusal, Rejected) and "no idea" in refusal.message
