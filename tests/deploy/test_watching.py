"""When a dead service is started again, and when a silent one is killed."""

from __future__ import annotations

import pytest

from deploy.watching import Pulse, Verdict, describe_end, ends_in_a_row, judge, restart_delay


def test_the_first_end_is_followed_by_a_start_at_once_and_a_loop_is_slowed_down() -> None:
    assert [restart_delay(n) for n in range(1, 10)] == [0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0]


def test_who_had_come_up_is_not_left_waiting_long() -> None:
    delays = [restart_delay(n, came_up=True) for n in range(1, 15)]
    assert delays == [0.0, 0.5, 1.0, *[2.0] * 7, 5.0, 10.0, 30.0, 30.0]


def test_one_that_was_fenced_off_stands_by() -> None:
    assert restart_delay(1, fenced=True) == 5.0
    assert restart_delay(1, fenced=True, came_up=True) == 5.0
    assert restart_delay(7, fenced=True) == 30.0


def test_ten_seconds_of_work_forget_earlier_ends() -> None:
    assert ends_in_a_row(4, ran_s=9.0) == 5
    assert ends_in_a_row(4, ran_s=10.0) == 1


@pytest.mark.parametrize(
    ("exit_code", "number", "last", "text"),
    [
        (None, 9, "", "killed by SIGKILL"),
        (
            None,
            11,
            "Fatal Python error: Segmentation fault",
            "killed by SIGSEGV: Fatal Python error: Segmentation fault",
        ),
        (None, 63, "", "killed by signal 63"),
        (1, None, "error: no space left", "ended with code 1: error: no space left"),
        (0, None, "", "ended without having been asked to"),
        (3, None, "", "another instance has taken over its role"),
    ],
)
def test_an_end_is_told_in_words(exit_code: int | None, number: int | None, last: str, text: str) -> None:
    assert describe_end(exit_code, number, last) == text


@pytest.mark.parametrize(
    ("silent_s", "overdue_s", "verdict"),
    [
        (0.0, None, Verdict.WELL),
        (0.0, -10.0, Verdict.WELL),
        (0.001, None, Verdict.SILENT),
        (29.9, None, Verdict.SILENT),
        (30.0, None, Verdict.KILL),
        # In a call that may take its time: silence alone is no reason.
        (100.0, -1.0, Verdict.SILENT),
        (100.0, 4.9, Verdict.SILENT),
        (100.0, 5.0, Verdict.KILL),
        # The heartbeat of a moment ago may be the last one that will be seen as missing.
        (0.5, 20.0, Verdict.SILENT),
        (0.0, 0.0, Verdict.OVERDUE),
        (0.0, 30.0, Verdict.KILL),
    ],
)
def test_only_what_is_past_its_time_is_killed(
    silent_s: float, overdue_s: float | None, verdict: Verdict
) -> None:
    assert judge(Pulse(silent_s, overdue_s)) is verdict
