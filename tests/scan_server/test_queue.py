"""The queue's reducer: its table row by row. What holds after any events whatever: test_queue_random.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bec_lib.errors import ReasonCode
from bec_lib.messages import ItemState, QueueAction, QueueState, ScanQueueMessage
from scan_server import queue as q


def item(name: str, *, is_scan: bool = True, owned: tuple[str, ...] = (), user: str = "ada") -> q.Item:
    request = ScanQueueMessage(request_id=f"r-{name}", client_id="c", scan_type="scan")
    return q.Item(request, scan_id=name, user=user, is_scan=is_scan, owned=owned)


def command(
    action: QueueAction, scan_id: str | None = None, queue: str = "primary", **more: Any
) -> q.Commanded:
    return q.Commanded("r", "c", "ada", action, queue, scan_id, new_scan_id="copy", **more)


def after(*events: q.Event, state: q.State | None = None) -> tuple[q.State, list[q.Effect]]:
    """The state after all events, and the effects of the last."""
    state = state or q.State()
    effects: list[q.Effect] = []
    for event in events:
        state, effects = q.reduce(state, event)
    return state, effects


def submitted(*names: str, queue: str = "primary") -> list[q.Event]:
    return [q.Submitted(queue, item(name)) for name in names]


def of(effects: list[q.Effect], kind: type[Any]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


def answer(effects: list[q.Effect]) -> q.Answer:
    (only,) = of(effects, q.Answer)
    return only


def ids(state: q.State, queue: str = "primary") -> list[str]:
    return [i.scan_id for i in state.queues[queue].items]


# Row by row


def test_the_first_starts_at_once_with_a_number_and_the_second_waits() -> None:
    state, effects = after(*submitted("a"))
    (start,) = of(effects, q.Start)
    assert start.item.scan_number == 1 and start.item.status is ItemState.RUNNING
    state, effects = after(*submitted("b"), state=state)
    assert not of(effects, q.Start) and answer(effects).accepted and answer(effects).scan_id == "b"
    state, effects = after(q.Ended("a"), state=state)
    assert of(effects, q.Start)[0].item.scan_id == "b"
    assert state.last_number == 2


def test_a_move_takes_no_number() -> None:
    state, effects = after(q.Submitted("primary", item("m", is_scan=False)))
    assert of(effects, q.Start)[0].item.scan_number is None and state.last_number == 0


def test_pause_and_continue_of_a_running_scan() -> None:
    state, effects = after(*submitted("a", "b"), command(QueueAction.PAUSE))
    queue = state.queues["primary"]
    assert queue.status is QueueState.PAUSED and queue.active and queue.active.status is ItemState.PAUSED
    assert of(effects, q.Tell) == [q.Tell("primary", "a", QueueAction.PAUSE, "ada")]
    state, effects = after(command(QueueAction.CONTINUE), state=state)
    assert of(effects, q.Tell)[0].action is QueueAction.CONTINUE
    assert state.queues["primary"].active.status is ItemState.RUNNING  # type: ignore[union-attr]


def test_pause_of_an_empty_queue_holds_what_comes() -> None:
    state, effects = after(command(QueueAction.PAUSE), *submitted("a"))
    assert not of(effects, q.Start)
    assert state.queues["primary"].items[0].waiting_for == "the queue primary is paused"
    _, effects = after(command(QueueAction.CONTINUE), state=state)
    assert of(effects, q.Start)


def test_pause_while_a_move_runs_pauses_the_queue_behind_it() -> None:
    state, effects = after(q.Submitted("primary", item("m", is_scan=False)), command(QueueAction.PAUSE))
    assert not of(effects, q.Tell) and "goes on" in answer(effects).message
    state, effects = after(*submitted("a"), q.Ended("m"), state=state)
    assert not of(effects, q.Start)


def test_abort_stops_the_active_one_and_holds_the_others() -> None:
    state, effects = after(*submitted("a", "b"), command(QueueAction.ABORT))
    assert of(effects, q.Tell)[0].message == "scan 1 (scan) was aborted by ada"
    state, effects = after(q.Ended("a"), state=state)
    assert not of(effects, q.Start)
    assert state.queues["primary"].status is QueueState.PAUSED
    assert "continue" in state.queues["primary"].message
    _, effects = after(command(QueueAction.CONTINUE), state=state)
    assert of(effects, q.Start)


def test_a_queue_that_runs_empty_is_running() -> None:
    state, _ = after(*submitted("a"), command(QueueAction.PAUSE), command(QueueAction.ABORT), q.Ended("a"))
    assert state.queues["primary"] == q.Queue()


def test_abort_of_a_pending_item_touches_no_other() -> None:
    state, effects = after(*submitted("a", "b", "c"), command(QueueAction.ABORT, "b"))
    assert ids(state) == ["a", "c"]
    assert [e.item.scan_id for e in of(effects, q.Cancelled)] == ["b"]
    assert not of(effects, q.Tell) and state.queues["primary"].status is QueueState.RUNNING


def test_a_halt_after_an_abort_is_told_a_second_abort_refused() -> None:
    state, _ = after(*submitted("a"), command(QueueAction.ABORT))
    _, effects = after(command(QueueAction.ABORT), state=state)
    assert answer(effects).code is ReasonCode.WRONG_STATE
    state, effects = after(command(QueueAction.HALT), state=state)
    assert of(effects, q.Tell)[0].action is QueueAction.HALT
    _, effects = after(command(QueueAction.HALT), state=state)
    assert not answer(effects).accepted


def test_restart_puts_a_copy_next_under_the_commands_name() -> None:
    state, effects = after(*submitted("a", "b"), command(QueueAction.RESTART))
    assert ids(state) == ["a", "copy", "b"]
    assert answer(effects).scan_id == "copy"
    state, effects = after(q.Ended("a"), state=state)
    (start,) = of(effects, q.Start)
    assert start.item.request.request_id == "r" and start.item.scan_number == 2


def test_clear_empties_and_does_not_hold() -> None:
    state, effects = after(*submitted("a", "b", "c"), command(QueueAction.CLEAR))
    assert [e.item.scan_id for e in of(effects, q.Cancelled)] == ["b", "c"]
    assert of(effects, q.Tell)[0].action is QueueAction.ABORT
    state, effects = after(*submitted("d"), q.Ended("a"), state=state)
    assert of(effects, q.Start)[0].item.scan_id == "d"


def test_set_completed_lets_the_queue_go_on() -> None:
    state, effects = after(*submitted("a", "b"), command(QueueAction.USER_COMPLETED))
    assert of(effects, q.Tell)[0].action is QueueAction.USER_COMPLETED
    _, effects = after(q.Ended("a"), state=state)
    assert of(effects, q.Start)


def test_locks_hold_and_are_told() -> None:
    lock = command(QueueAction.LOCK, parameter={"lock": "shift", "reason": "beam is down"})
    state, effects = after(lock, *submitted("a"))
    assert not of(effects, q.Start)
    assert q.snapshot(state).queues["primary"].status is QueueState.LOCKED
    assert q.snapshot(state).queues["primary"].items[0].waiting_for == "locked by shift: beam is down"
    assert not answer(after(lock, state=state)[1]).accepted
    assert not answer(after(command(QueueAction.RELEASE_LOCK), state=state)[1]).accepted
    release = command(QueueAction.RELEASE_LOCK, parameter={"lock": "shift"})
    assert of(after(release, state=state)[1], q.Start)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (QueueAction.CONTINUE, "not paused"),
        (QueueAction.ABORT, "nothing runs"),
        (QueueAction.HALT, "nothing runs"),
        (QueueAction.USER_COMPLETED, "nothing runs"),
        (QueueAction.RESTART, "nothing runs"),
    ],
)
def test_commands_to_an_empty_queue_are_refused_in_words(action: QueueAction, text: str) -> None:
    state, effects = after(command(action))
    assert answer(effects).code is ReasonCode.WRONG_STATE and text in answer(effects).message
    assert state == q.State()


def test_unknown_queues_and_scans() -> None:
    assert "Did you mean primary?" in answer(after(command(QueueAction.ABORT, queue="primry"))[1]).message
    assert answer(after(command(QueueAction.ABORT, "x"))[1]).code is ReasonCode.NOT_FOUND


def test_two_queues_do_not_share_a_device() -> None:
    first = q.Submitted("primary", item("a", owned=("samx",)))
    second = q.Submitted("other", item("b", owned=("samy", "samx")))
    third = q.Submitted("third", item("c", owned=("samz",)))
    state, effects = after(first, second)
    assert not of(effects, q.Start)
    assert (
        state.queues["other"].items[0].waiting_for
        == "scan 1 (scan) of ada in the queue primary, which has samx"
    )
    state, effects = after(third, state=state)
    assert of(effects, q.Start)[0].item.scan_id == "c"
    state, effects = after(q.Ended("a"), state=state)
    assert of(effects, q.Start)[0].item.scan_id == "b"


def test_nothing_starts_while_the_session_changes() -> None:
    state, effects = after(q.Configuring("ada"), *submitted("a"))
    assert not of(effects, q.Start) and "being changed by ada" in state.queues["primary"].items[0].waiting_for
    assert of(after(q.Configuring(""), state=state)[1], q.Start)


def test_a_stop_of_all_devices_ends_what_runs_and_holds_what_waits() -> None:
    state, effects = after(*submitted("a", "b"), *submitted("x", queue="other"), q.DevicesStopped("bob"))
    assert {tell.scan_id for tell in of(effects, q.Tell)} == {"a", "x"}
    assert state.queues["primary"].status is QueueState.PAUSED
    assert state.queues["other"].status is QueueState.RUNNING


def test_a_full_queue_says_so() -> None:
    full = q.State(queues={"primary": q.Queue(items=(item("0"),) * q.MAX_ITEMS)})
    state, effects = after(*submitted("more"), state=full)
    assert "the queue primary is full with 10000 requests" in answer(effects).message
    assert state.num_items == q.MAX_ITEMS


def test_an_empty_queue_expires_primary_never() -> None:
    state, _ = after(*submitted("a", queue="other"), q.Ended("a"))
    state, effects = after(q.Expired("other"), state=state)
    assert list(state.queues) == ["primary"] and effects == [q.Dismiss("other")]
    state, effects = after(q.Expired("primary"), state=state)
    assert list(state.queues) == ["primary"] and effects == []


def test_a_note_of_the_worker_is_shown_and_taken_back() -> None:
    state, _ = after(*submitted("a"), q.Noted("primary", "waiting for the device server main"))
    assert q.snapshot(state).queues["primary"].message == "waiting for the device server main"
    state, _ = after(command(QueueAction.PAUSE), state=state)
    assert q.snapshot(state).queues["primary"].message == "waiting for the device server main"
    state, _ = after(q.Noted("primary", ""), state=state)
    assert q.snapshot(state).queues["primary"].message == "paused by ada"


def test_a_scan_that_pauses_itself_is_continued_by_a_command() -> None:
    state, effects = after(*submitted("a"), q.Asked("a", "samx was interrupted"))
    assert effects == []
    shown = q.snapshot(state).queues["primary"]
    assert (shown.status, shown.message) == (QueueState.PAUSED, "samx was interrupted")
    again, _ = after(q.Asked("a", "once more"), q.Asked("nobody", "x"), state=state)
    assert again == state
    state, effects = after(command(QueueAction.CONTINUE), state=state)
    assert [tell.action for tell in of(effects, q.Tell)] == [QueueAction.CONTINUE]


# Pause behind what runs


def test_a_pause_after_the_scan_lets_it_end_and_holds_what_comes() -> None:
    state, effects = after(*submitted("a", "b"), command(QueueAction.PAUSE_AFTER_SCAN))
    assert "paused after scan 1 (scan); scan 1 (scan) goes on" in answer(effects).message
    assert not of(effects, q.Tell)
    assert state.queues["primary"].active.status is ItemState.RUNNING  # type: ignore[union-attr]
    assert not answer(after(command(QueueAction.PAUSE_AFTER_SCAN), state=state)[1]).accepted
    state, effects = after(q.Ended("a"), state=state)
    assert not of(effects, q.Start)
    _, effects = after(command(QueueAction.CONTINUE), state=state)
    assert of(effects, q.Start)[0].item.scan_id == "b"


def test_a_queue_that_was_paused_itself_stays_so_when_it_runs_empty() -> None:
    state, _ = after(*submitted("a"), command(QueueAction.PAUSE_AFTER_SCAN), q.Ended("a"))
    assert state.queues["primary"].status is QueueState.PAUSED
    state, effects = after(*submitted("b"), state=state)
    assert not of(effects, q.Start)
    assert of(after(command(QueueAction.CONTINUE), state=state)[1], q.Start)


def test_a_pause_of_what_is_paused_is_refused() -> None:
    state, _ = after(*submitted("a"), command(QueueAction.PAUSE))
    for action in (QueueAction.PAUSE, QueueAction.DEFERRED_PAUSE, QueueAction.PAUSE_AFTER_SCAN):
        assert "paused already" in answer(after(command(action), state=state)[1]).message


# What waits


@pytest.mark.parametrize(
    ("action", "position", "order"),
    [
        (QueueAction.MOVE_UP, None, "aprqs"),
        (QueueAction.MOVE_DOWN, None, "apqsr"),
        (QueueAction.MOVE_TOP, None, "arpqs"),
        (QueueAction.MOVE_BOTTOM, None, "apqsr"),
        (QueueAction.MOVE_TO, 2, "aprqs"),
    ],
)
def test_a_waiting_item_is_moved(action: QueueAction, position: int | None, order: str) -> None:
    state, effects = after(*submitted(*"apqrs"), command(action, "r", parameter={"position": position}))
    assert ids(state) == list(order)
    assert f"is now {order.index('r')} of the 4 that wait" in answer(effects).message
    assert not of(effects, q.Start)


def test_an_item_that_cannot_be_moved_says_why() -> None:
    state, _ = after(*submitted(*"apq"))
    for sent, text in [
        (command(QueueAction.MOVE_UP, "a"), "has begun, so it cannot be moved"),
        (command(QueueAction.MOVE_UP, "p"), "is first already"),
        (command(QueueAction.MOVE_BOTTOM, "q"), "is last already"),
        (command(QueueAction.MOVE_TO, "q", parameter={"position": 3}), "from 1 to 2"),
        (command(QueueAction.MOVE_TO, "q", parameter={"position": 1.5}), "1.5 is no place"),
        (command(QueueAction.MOVE_TO, "q"), "None is no place"),
        (command(QueueAction.MOVE_TOP), "Give the scan id"),
        (command(QueueAction.REMOVE, "a"), "has begun, so it cannot be removed"),
        (command(QueueAction.EDIT, "a"), "has begun, so it cannot be edited"),
    ]:
        after_it, effects = after(sent, state=state)
        assert not answer(effects).accepted and text in answer(effects).message
        assert after_it == state


def test_the_first_that_waits_starts_when_it_is_moved_in_front_of_one_that_cannot() -> None:
    state, _ = after(
        q.Submitted("other", item("o", owned=("samx",))),
        q.Submitted("primary", item("a", owned=("samx",))),
        q.Submitted("primary", item("b", owned=("samy",))),
    )
    state, effects = after(command(QueueAction.MOVE_TOP, "b"), state=state)
    assert of(effects, q.Start)[0].item.scan_id == "b"
    assert state.queues["primary"].items[1].waiting_for == ""


def test_remove_tells_the_sender_of_the_request() -> None:
    state, effects = after(*submitted("a", "b"), command(QueueAction.REMOVE, "b"))
    (cancelled,) = of(effects, q.Cancelled)
    assert "removed from the queue primary by ada" in cancelled.message and ids(state) == ["a"]


def test_an_edit_keeps_place_and_id() -> None:
    edited = replace(item("b"), num_points=7)
    state, effects = after(*submitted("a", "b", "c"), command(QueueAction.EDIT, "b", edited=edited))
    assert answer(effects).accepted and ids(state) == ["a", "b", "c"]
    assert state.queues["primary"].items[1].num_points == 7


# Long queues


def test_the_snapshot_shows_the_first_items_and_how_many_there_are() -> None:
    state, _ = after(*submitted(*[f"s{k}" for k in range(q.SHOWN + 5)]))
    shown = q.snapshot(state).queues["primary"]
    assert len(shown.items) == q.SHOWN and shown.num_items == q.SHOWN + 5
    rest = command(QueueAction.SHOW, parameter={"first": q.SHOWN + 1, "count": 100})
    told = answer(after(rest, state=state)[1])
    assert [i.scan_id for i in told.result.items] == [f"s{k}" for k in range(q.SHOWN, q.SHOWN + 5)]
    assert not answer(after(command(QueueAction.SHOW, parameter={"first": 0}), state=state)[1]).accepted


def test_full_queues_leave_room_in_those_that_have_few() -> None:
    full = {f"f{k}": q.Queue(items=(item("0"),) * q.MAX_ITEMS) for k in range(3)}
    full["some"] = q.Queue(items=(item("0"),) * q.FEW)
    state = q.State(queues={**full, "primary": q.Queue()})
    assert (
        "the queues are full with 30100"
        in answer(after(*submitted("x", queue="some"), state=state)[1]).message
    )
    assert answer(after(*submitted("x"), state=state)[1]).accepted


def test_who_has_waited_longest_for_devices_comes_next() -> None:
    def sent(name: str, queue: str, at: float, *owned: str) -> q.Event:
        return q.Submitted(queue, replace(item(name, owned=owned), submitted=at))

    state, _ = after(
        sent("a", "primary", 1, "samx"),
        sent("b", "second", 2, "samy"),
        sent("c", "third", 3, "samx", "samy"),
        sent("d", "primary", 4, "samx"),
    )
    state, effects = after(q.Ended("a"), state=state)
    assert not of(effects, q.Start)
    waits = state.queues["primary"].items[0].waiting_for
    assert waits == "scan of ada in the queue third, which has waited longer for samx"
    _, effects = after(q.Ended("b"), state=state)
    assert [start.item.scan_id for start in of(effects, q.Start)] == ["c"]
