"""The shared scheduler: calls come in order, cancelled ones do not come, an error does not end it."""

import queue
import threading

from device_server.sim.scheduler import Scheduler, StepScheduler


def test_calls_come_in_the_order_of_their_deadlines():
    scheduler, seen = StepScheduler(), []
    scheduler.call_later(2, lambda: seen.append(("late", scheduler.now())))
    scheduler.call_later(1, lambda: seen.append(("early", scheduler.now())))
    scheduler.call_later(1, lambda: seen.append(("early too", scheduler.now())))
    scheduler.advance(3)
    assert seen == [("early", 1), ("early too", 1), ("late", 2)]
    assert scheduler.now() == 3


def test_a_call_may_ask_for_another_within_the_same_step():
    scheduler, seen = StepScheduler(), []

    def again():
        seen.append(scheduler.now())
        if len(seen) < 3:
            scheduler.call_later(1, again)

    scheduler.call_later(1, again)
    scheduler.advance(10)
    assert seen == [1, 2, 3]


def test_a_cancelled_call_does_not_come():
    scheduler, seen = StepScheduler(), []
    scheduler.call_later(1, lambda: seen.append(1)).cancel()
    assert scheduler.pending == 0
    scheduler.advance(2)
    assert seen == []


def test_the_real_scheduler_runs_calls_on_one_thread_and_survives_an_error():
    scheduler, answers = Scheduler(), queue.SimpleQueue()
    try:
        scheduler.call_later(0.0, lambda: 1 / 0)
        scheduler.call_later(0.03, lambda: answers.put(("second", threading.current_thread().name)))
        scheduler.call_later(0.01, lambda: answers.put(("first", threading.current_thread().name)))
        assert answers.get(timeout=5) == ("first", "sim-scheduler")
        assert answers.get(timeout=5) == ("second", "sim-scheduler")
    finally:
        scheduler.close()


def test_a_closed_scheduler_starts_again_when_it_is_asked_to():
    scheduler, answers = Scheduler(), queue.SimpleQueue()
    for number in (1, 2):
        scheduler.call_later(0.0, lambda number=number: answers.put(number))
        assert answers.get(timeout=5) == number
        scheduler.close()
