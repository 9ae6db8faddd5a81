"""Lanes, the pool, timers and tasks. Threads are real; nothing sleeps to synchronise."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from device_server.lanes import WOKEN, FutureEnding, Lane, Pool, Steps, Task, Timers, Until, wait_for


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool("test")
    yield made
    made.close()


@pytest.fixture
def timers() -> Iterator[Timers]:
    made = Timers()
    yield made
    made.close()


class Ended:
    def __init__(self) -> None:
        self.event = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def __call__(self, result: Any, error: BaseException | None) -> None:
        self.result, self.error = result, error
        self.event.set()

    def get(self) -> Any:
        assert self.event.wait(5)
        if self.error is not None:
            raise self.error
        return self.result


def test_calls_of_a_lane_run_one_at_a_time_and_in_order(pool: Pool) -> None:
    lane = Lane("m", pool)
    order: list[int] = []
    inside: list[int] = []
    most: list[int] = []

    def call(number: int) -> None:
        inside.append(number)
        most.append(len(inside))
        order.append(number)
        inside.pop()

    futures = [lane.submit("x", lambda n=n: call(n)) for n in range(200)]
    for future in futures:
        future.result(5)
    assert order == list(range(200))
    assert max(most) == 1


def test_many_blocked_lanes_do_not_hold_up_another(pool: Pool) -> None:
    release = threading.Event()
    blocked = [Lane(f"b{n}", pool).submit("x", lambda: release.wait(5)) for n in range(20)]
    assert Lane("free", pool).submit("x", lambda: 42).result(5) == 42
    release.set()
    assert all(future.result(5) for future in blocked)


def test_a_slice_does_not_enter_a_lane_that_is_in_use(pool: Pool) -> None:
    lane = Lane("m", pool)
    inside, release = threading.Event(), threading.Event()
    future = lane.submit("x", lambda: (inside.set(), release.wait(5)))
    assert inside.wait(5)
    assert not lane.try_enter()
    release.set()
    future.result(5)


def test_who_waits_for_a_slice_is_served_when_it_leaves(pool: Pool) -> None:
    lane = Lane("m", pool)
    assert lane.try_enter()
    future = lane.submit("x", lambda: 1)
    lane.leave()
    assert future.result(5) == 1


def test_an_error_belongs_to_whoever_called(pool: Pool) -> None:
    lane = Lane("m", pool)
    with pytest.raises(ZeroDivisionError):
        lane.submit("x", lambda: 1 // 0).result(5)
    assert lane.submit("x", lambda: 2).result(5) == 2


def test_identical_calls_that_wait_share_one_result(pool: Pool) -> None:
    lane = Lane("m", pool)
    calls: list[int] = []
    assert lane.try_enter()
    futures = [lane.share("read", lambda: calls.append(1) or len(calls)) for _ in range(5)]
    other = lane.share("get", lambda: "other")
    lane.leave()
    assert [future.result(5) for future in futures] == [1] * 5
    assert other.result(5) == "other"
    assert calls == [1]


def test_a_lane_learns_that_an_operation_is_slow_at_once_and_forgets_slowly(pool: Pool) -> None:
    lane = Lane("m", pool)
    assert lane.is_quick("read") and not lane.is_quick("stage", unknown=False)
    lane.note("read", 0.0001)
    assert lane.is_quick("read")
    lane.note("read", 0.5)
    assert not lane.is_quick("read")
    lane.note("read", 0.0001)
    assert not lane.is_quick("read")
    for _ in range(30):
        lane.note("read", 0.0001)
    assert lane.is_quick("read")


def test_timers_fire_in_order_unless_cancelled(timers: Timers) -> None:
    fired: list[str] = []
    done = threading.Event()
    now = time.monotonic()
    timers.call_at(now + 0.03, lambda: (fired.append("late"), done.set()))
    timers.call_at(now + 0.01, lambda: fired.append("early"))
    timers.call_at(now + 0.02, lambda: fired.append("never")).cancel()
    assert done.wait(5)
    assert fired == ["early", "late"]


def test_a_task_that_waits_for_nothing_runs_on(pool: Pool, timers: Timers) -> None:
    def steps() -> Steps:
        yield from wait_for([])
        return 7

    ended = Ended()
    Task(pool, timers, steps(), ended).start()
    assert ended.get() == 7


def test_a_task_goes_on_when_what_it_waits_for_is_done(pool: Pool, timers: Timers) -> None:
    lane = Lane("m", pool)
    release = threading.Event()
    future = lane.submit("x", lambda: release.wait(5))

    def steps() -> Steps:
        yield from wait_for([FutureEnding(future)])
        deadline = time.monotonic() + 0.01
        while time.monotonic() < deadline:
            yield Until(deadline)
        return "done"

    ended = Ended()
    Task(pool, timers, steps(), ended).start()
    assert not ended.event.wait(0.02)
    release.set()
    assert ended.get() == "done"


def test_a_task_can_be_woken_at_any_moment(pool: Pool, timers: Timers) -> None:
    wanted = [0]

    def steps() -> Steps:
        seen = 0
        while seen < 2000:
            if wanted[0] <= seen:
                yield WOKEN
            seen = wanted[0]
        return seen

    ended = Ended()
    task = Task(pool, timers, steps(), ended)
    task.start()
    for _ in range(2000):
        wanted[0] += 1
        task.wake()
    assert ended.get() == 2000


def test_what_a_task_raises_is_told(pool: Pool, timers: Timers) -> None:
    def steps() -> Steps:
        yield from wait_for([])
        raise RuntimeError("broken")

    ended = Ended()
    Task(pool, timers, steps(), ended).start()
    with pytest.raises(RuntimeError, match="broken"):
        ended.get()
