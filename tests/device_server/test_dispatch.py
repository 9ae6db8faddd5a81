"""Order, epochs and owners of instructions, with plain values."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bec_lib.errors import ReasonCode
from bec_lib.messages import (
    DeviceInstructionMessage,
    ErrorInfo,
    InstructionStatus,
    MoveDevices,
    PrepareSession,
    ReadDevices,
    RunPoints,
    StageDevices,
    UnstageDevices,
)
from device_server.dispatch import DispatchState, Effect, Epochs, InFlight, Reply, Run

FREE = Epochs()


def instruction(
    number: str, action: Any, scan: str | None = "s1", epoch: int = 1
) -> DeviceInstructionMessage:
    return DeviceInstructionMessage(instruction_id=number, scan_id=scan, run_epoch=epoch, action=action)


def read(number: str, scan: str | None = "s1", epoch: int = 1) -> DeviceInstructionMessage:
    return instruction(number, ReadDevices(devices=["d"]), scan, epoch)


def told(effects: list[Effect]) -> list[tuple[str, str]]:
    """[("run", id) or (status, id)]"""
    return [
        ("run", effect.instruction.instruction_id)
        if isinstance(effect, Run)
        else (str(effect.response.status), effect.response.instruction_id)
        for effect in effects
    ]


def state() -> DispatchState:
    return DispatchState("main", "boot")


# Order


def test_instructions_of_one_scan_run_one_after_the_other() -> None:
    s = state()
    assert told(s.receive("1-0", read("a"), FREE)) == [("run", "a")]
    assert told(s.receive("2-0", read("b"), FREE)) == []
    assert told(s.receive("3-0", read("c"), FREE)) == []
    assert told(s.finish("a", FREE)) == [("completed", "a"), ("run", "b")]
    assert told(s.finish("b", FREE)) == [("completed", "b"), ("run", "c")]
    assert told(s.finish("c", FREE)) == [("completed", "c")]


def test_scans_run_side_by_side_and_moves_on_their_own() -> None:
    s = state()
    assert told(s.receive("1-0", read("a", "s1"), FREE)) == [("run", "a")]
    assert told(s.receive("2-0", read("b", "s2"), FREE)) == [("run", "b")]
    assert told(s.receive("3-0", read("c", None), FREE)) == [("run", "c")]


def test_changes_of_the_session_follow_each_other() -> None:
    s = state()
    s.receive("1-0", instruction("a", PrepareSession(devices={}), None), FREE)
    assert told(s.receive("2-0", instruction("b", PrepareSession(devices={}), None), FREE)) == []


def test_an_end_that_is_told_twice_is_heard_once() -> None:
    s = state()
    s.receive("1-0", read("a"), FREE)
    assert len(s.finish("a", FREE)) == 1
    assert s.finish("a", FREE) == []


def test_the_reply_carries_error_result_and_boot() -> None:
    s = state()
    s.receive("1-0", read("a"), FREE)
    (reply,) = s.finish("a", FREE, result={"x": 1})
    assert isinstance(reply, Reply)
    assert (reply.response.result, reply.response.boot_id, reply.response.server) == (
        {"x": 1},
        "boot",
        "main",
    )
    s.receive("2-0", read("b"), FREE)
    (reply,) = s.finish("b", FREE, error=ErrorInfo(error_message="no"))
    assert isinstance(reply, Reply)
    assert reply.response.status is InstructionStatus.ERROR
    assert reply.response.error is not None and reply.response.error.error_message == "no"


def test_points_behind_a_failed_point_are_not_taken_until_a_newer_epoch() -> None:
    s = state()
    s.receive("1-0", instruction("a", RunPoints(first_index=0, count=1)), FREE)
    s.receive("2-0", instruction("b", RunPoints(first_index=1, count=1)), FREE)
    s.receive("3-0", instruction("c", UnstageDevices()), FREE)
    assert told(s.finish("a", FREE, error=ErrorInfo(error_message="no"))) == [
        ("error", "a"),
        ("stopped", "b"),
        ("run", "c"),
    ]
    s.finish("c", FREE)
    again = instruction("d", RunPoints(first_index=0, count=1), epoch=2)
    assert told(s.receive("4-0", again, FREE)) == [("run", "d")]


# Stops


def test_a_stop_voids_what_waits_and_what_comes_late() -> None:
    s = state()
    s.receive("1-0", read("a"), FREE)
    s.receive("2-0", read("b"), FREE)
    stopped = FREE.stop("s1", 1, s.seen)
    assert told(s.apply_stop(stopped)) == [("stopped", "b")]
    assert told(s.receive("3-0", read("c"), stopped)) == []
    assert told(s.finish("a", stopped, stopped=True)) == [("stopped", "a"), ("stopped", "c")]
    assert told(s.receive("4-0", read("d", epoch=2), stopped)) == [("run", "d")]
    assert told(s.receive("5-0", read("e", "s2"), stopped)) == [("run", "e")]


def test_a_session_change_is_not_stopped() -> None:
    s = state()
    stopped = FREE.stop(None, 7, 7)
    change = instruction("a", PrepareSession(devices={}), None, epoch=0)
    assert told(s.receive("1-0", change, stopped)) == [("run", "a")]


def test_instructions_of_a_predecessor_are_stopped_with_the_reason() -> None:
    s = state()
    reply = s.forget("1-0", read("a", epoch=5))
    assert reply.response.status is InstructionStatus.STOPPED
    assert reply.response.error is not None and reply.response.error.code is ReasonCode.SERVICE_DOWN
    assert s.seen == 5


scans = st.sampled_from(["s1", "s2", None])
epochs = st.integers(0, 12)


@given(
    stops=st.lists(st.tuples(scans, epochs, epochs), max_size=6),
    scan=st.sampled_from(["s1", "s2"]),
    epoch=epochs,
)
def test_what_a_stop_voids_stays_void(
    stops: list[tuple[str | None, int, int]], scan: str, epoch: int
) -> None:
    now = Epochs()
    void = False
    for stopped_scan, stopped_epoch, seen in stops:
        now = now.stop(stopped_scan, stopped_epoch, seen)
        void = void or not now.admits(scan, epoch)
        assert now.admits(scan, epoch) is not void
        if stopped_scan is None:
            assert not now.admits(scan, max(seen, stopped_epoch))
            assert now.admits("fresh", max(now.floor, seen + 1))
        else:
            assert not now.admits(stopped_scan, stopped_epoch or seen)


@given(
    order=st.permutations(range(8)),
    stop_at=st.integers(0, 8),
    stop_epoch=st.integers(1, 3),
)
def test_in_whatever_order_stop_and_instructions_come_nothing_void_begins(
    order: list[int], stop_at: int, stop_epoch: int
) -> None:
    """Each instruction is answered exactly once, and none of a void epoch is begun after the stop."""
    s, now = state(), Epochs()
    answered: list[str] = []
    running: list[str] = []

    def take(effects: list[Effect], after_stop: bool) -> None:
        for effect in effects:
            if isinstance(effect, Run):
                assert not after_stop or effect.instruction.run_epoch > stop_epoch
                running.append(effect.instruction.instruction_id)
            else:
                answered.append(effect.response.instruction_id)

    for position, number in enumerate(order):
        if position == stop_at:
            now = now.stop("s1", stop_epoch, s.seen)
            take(s.apply_stop(now), True)
        message = read(f"i{number}", epoch=1 + number % 4)
        take(s.receive(f"{position + 1}-0", message, now), position >= stop_at)
    while running:
        take(s.finish(running.pop(0), now), stop_at < 8)
    assert sorted(answered) == [f"i{number}" for number in range(8)]


def test_pause_and_resume_of_one_scan_and_of_all() -> None:
    paused = FREE.pause("s1")
    assert paused.holds("s1") and not paused.holds("s2")
    assert not paused.resume("s1").holds("s1")
    everything = FREE.pause(None)
    assert everything.holds("s1") and everything.holds("s2")
    assert not everything.resume("s1").holds("s1")
    assert not FREE.pause("s1").pause("s2").resume(None).holds("s2")
    assert not FREE.pause("s1").stop("s1", 1, 1).holds("s1")


def test_a_pause_after_the_point_holds_between_points_only() -> None:
    paused = FREE.pause("s1", after_point=True)
    assert paused.holds("s1") and not paused.holds("s1", within_point=True)
    assert paused.pause("s1").holds("s1", within_point=True)
    assert not paused.resume("s1").holds("s1") and not paused.resume(None).holds("s1")
    assert not paused.stop("s1", 1, 1).holds("s1")


# Owners


def test_a_scan_owns_its_devices_from_stage_to_unstage() -> None:
    s = state()
    s.receive("1-0", instruction("a", StageDevices(owned=["m"], scan_name="acquire", scan_number=3)), FREE)
    s.finish("a", FREE)
    owner = s.owner_of("m")
    assert owner is not None and str(owner) == "scan 3 (acquire)"
    other = s.receive("2-0", instruction("b", StageDevices(owned=["m"]), "s2"), FREE)
    assert told(other) == [("error", "b")]
    s.receive("3-0", instruction("c", UnstageDevices()), FREE)
    s.finish("c", FREE)
    assert s.owner_of("m") is None


def test_a_move_owns_its_devices_while_it_lasts() -> None:
    s = state()
    s.receive("1-0", instruction("a", MoveDevices(targets={"m": 1.0}), None), FREE)
    assert s.owner_of("m") is not None
    second = s.receive("2-0", instruction("b", MoveDevices(targets={"m": 2.0}), None), FREE)
    assert told(second) == [("error", "b")]
    s.finish("a", FREE)
    assert s.owner_of("m") is None


def test_a_scan_moves_its_own_devices_and_keeps_them() -> None:
    s = state()
    s.receive("1-0", instruction("a", StageDevices(owned=["m"])), FREE)
    s.finish("a", FREE)
    s.receive("2-0", instruction("b", MoveDevices(targets={"m": 1.0, "n": 2.0})), FREE)
    assert s.owner_of("n") is not None
    s.finish("b", FREE)
    assert s.owner_of("m") is not None
    assert s.owner_of("n") is None


def test_a_stopped_scan_with_nothing_in_flight_gives_up_its_devices() -> None:
    s = state()
    s.receive("1-0", instruction("a", StageDevices(owned=["m"])), FREE)
    s.finish("a", FREE)
    stopped = FREE.stop("s1", 1, 1)
    assert told(s.receive("2-0", instruction("b", StageDevices(owned=["m"]), "s2", 2), stopped)) == [
        ("run", "b")
    ]


# Cursors


def test_the_cursor_stays_before_the_oldest_open_entry() -> None:
    flight = InFlight()
    for entry in ("10-0", "11-0", "11-1", "12-0"):
        flight.begin(entry)
    assert flight.end("11-0") == "9-18446744073709551615"
    assert flight.end("11-1") is None
    assert flight.end("10-0") == "11-18446744073709551615"
    assert flight.end("12-0") == "12-0"


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20, unique=True), st.randoms(use_true_random=False))
def test_the_cursor_never_passes_an_open_entry_and_ends_at_the_last(numbers: list[int], random: Any) -> None:
    entries = [f"{number}-0" for number in sorted(numbers)]
    flight = InFlight()
    for entry in entries:
        flight.begin(entry)
    still_open = list(entries)
    random.shuffle(entries)
    cursor = "0-0"
    for entry in entries:
        still_open.remove(entry)
        cursor = flight.end(entry) or cursor
        position = int(cursor.split("-")[0])
        assert all(position < int(other.split("-")[0]) for other in still_open)
    assert cursor == f"{max(numbers)}-0"
