"""The queue's reducer: its table row by row, and what holds after any events whatever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        == "samx is in use by scan 1 (scan) of ada in the queue primary"
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


# Whatever happens

_queues = st.sampled_from(["primary", "second", "third"])
_names = st.sampled_from([f"s{k}" for k in range(12)])
_owned = st.lists(st.sampled_from(["samx", "samy", "bpm"]), max_size=2, unique=True).map(tuple)


def _submissions(draw: Any) -> q.Event:
    return q.Submitted(draw(_queues), item(draw(_names), is_scan=draw(st.booleans()), owned=draw(_owned)))


@st.composite
def events(draw: Any) -> q.Event:
    kind = draw(st.integers(0, 9))
    if kind <= 3:
        return _submissions(draw)
    if kind <= 6:
        action = draw(st.sampled_from(list(QueueAction)))
        parameter = {"lock": draw(st.sampled_from(["one", "two"]))}
        return q.Commanded(
            "r",
            "c",
            "ada",
            action,
            draw(_queues),
            draw(st.none() | _names),
            parameter,
            draw(_names) + "-copy",
        )
    if kind <= 8:
        return q.Ended(draw(_names))
    return draw(
        st.sampled_from(
            [q.Configuring("ada"), q.Configuring(""), q.DevicesStopped("bob"), q.Expired("second")]
        )
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(events(), max_size=60))
def test_whatever_happens_the_promises_hold(happened: list[q.Event]) -> None:
    state = q.State()
    running: set[str] = set()
    started: set[str] = set()
    given_numbers: list[int] = []
    known: set[str] = set()
    for event in happened:
        if isinstance(event, q.Submitted):
            if event.item.scan_id in known:
                continue  # the app makes ids, each once
            known.add(event.item.scan_id)
        if isinstance(event, q.Commanded):
            if event.new_scan_id in known:
                continue
            known.add(event.new_scan_id)
        if isinstance(event, q.Ended):
            if event.scan_id not in running:
                continue  # only what was started ends
            running.discard(event.scan_id)
        before = state
        state, effects = q.reduce(state, event)
        # Every request and command has exactly one answer.
        asked = isinstance(event, (q.Submitted, q.Commanded))
        assert len(of(effects, q.Answer)) == (1 if asked else 0)
        for start in of(effects, q.Start):
            assert start.item.scan_id not in started, "started twice"
            started.add(start.item.scan_id)
            running.add(start.item.scan_id)
            if start.item.scan_number is not None:
                given_numbers.append(start.item.scan_number)
        for cancelled in of(effects, q.Cancelled):
            assert cancelled.item.scan_id not in started
        for tell in of(effects, q.Tell):
            assert tell.scan_id in running
        # At most one active item per queue, and it is the first; active is what was started and has not ended.
        active = [
            i for queue in state.queues.values() for i in queue.items if i.status is not ItemState.PENDING
        ]
        assert {i.scan_id for i in active} == running
        for queue in state.queues.values():
            assert all(i.status is ItemState.PENDING for i in queue.items[1:])
        # No two queues hold one device.
        owned = [device for i in active for device in i.owned]
        assert len(owned) == len(set(owned))
        # Nothing vanishes but by an end or a cancellation.
        gone = {i.scan_id for queue in before.queues.values() for i in queue.items} - {
            i.scan_id for queue in state.queues.values() for i in queue.items
        }
        ended = {event.scan_id} if isinstance(event, q.Ended) else set()
        assert gone == ended | {c.item.scan_id for c in of(effects, q.Cancelled)}
        # Nothing that could run is left standing.
        for name, queue in state.queues.items():
            free = not queue.locks and queue.status is QueueState.RUNNING and not state.configuring
            if free and queue.items and queue.active is None:
                kept = {device for other in state.queues.values() for i in other.items[:1] for device in i.owned}
                assert set(queue.items[0].owned) & kept, name
        # What is written is what comes back.
        assert q.from_plain(q.to_plain(state)) == state
    assert given_numbers == list(range(1, len(given_numbers) + 1))
