"""What a supervisor decides: when a dead service is started again, and when a silent one is killed.

Pure: times come in as arguments (seconds of one monotonic clock, except where said), nothing is done here.

| What is seen | Decision |
|---|---|
| ended, for whatever reason, without being asked | start again: at once, then after 0.5, 1, 2, 5, 10, 30 s |
| had come up before it ended | no pause above 2 s for the first ten ends in a row: it did some work each time |
| ran for ten seconds before it ended | the count starts anew |
| exit code 3 (another instance took the role over) | start again after 5 s: it becomes the stand-by |
| silent for 2 s | say so, in the status and as an alarm |
| silent, in a call that may take until T, or in the code of a plugin that should be back by T | kill 5 s after T |
| silent without such a call | kill after 30 s |
| alive, but its long call is 30 s past its T | kill |
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

DELAYS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
DELAYS_IF_UP_S = (*DELAYS_S[:4], *[DELAYS_S[3]] * 6, *DELAYS_S[4:])
STEADY_S = 10.0
FENCED_S = 5.0
EXIT_FENCED = 3

SILENT_S = 2.0
KILL_SILENT_S = 30.0
KILL_OVERDUE_SILENT_S = 5.0
KILL_OVERDUE_S = 30.0


def restart_delay(ends: int, fenced: bool = False, *, came_up: bool = False) -> float:
    """Seconds to wait before a service is started again after it has ended `ends` times in a row, >= 1."""
    delays = DELAYS_IF_UP_S if came_up else DELAYS_S
    delay = delays[min(max(ends, 1), len(delays)) - 1]
    return max(delay, FENCED_S) if fenced else delay


def ends_in_a_row(before: int, ran_s: float) -> int:
    """The count after one more end; a run of ten seconds is long enough to forget the earlier ones."""
    return 1 if ran_s >= STEADY_S else before + 1


def describe_end(exit_code: int | None, signal_number: int | None, last_line: str) -> str:
    """Why a process ended, in words, e.g. "killed by SIGKILL", "ended with code 1: error: no space left"."""
    if signal_number is not None:
        try:
            name = signal.Signals(signal_number).name
        except ValueError:
            name = f"signal {signal_number}"
        text = f"killed by {name}"
    elif exit_code == EXIT_FENCED:
        text = "another instance has taken over its role"
    elif exit_code == 0:
        text = "ended without having been asked to"
    else:
        text = f"ended with code {exit_code}"
    return f"{text}: {last_line}" if last_line else text


class Verdict(StrEnum):
    WELL = "well"
    SILENT = "silent"
    OVERDUE = "overdue"
    KILL = "kill"


@dataclass(frozen=True)
class Pulse:
    """What is known of a process that should be sending heartbeats.

    silent_s: since the first look that found no heartbeat; 0 if there is one.
    overdue_s: how long ago the end of its call passed (the `busy.until` of its last heartbeat, or that of a plugin's code);
    negative if it has not, None without.
    """

    silent_s: float
    overdue_s: float | None


def judge(pulse: Pulse) -> Verdict:
    """What to do about a process with this pulse, by the table above."""
    if pulse.silent_s > 0:
        if pulse.overdue_s is None:
            limit = pulse.silent_s >= KILL_SILENT_S
        else:
            limit = pulse.overdue_s >= KILL_OVERDUE_SILENT_S and pulse.silent_s >= SILENT_S
        if limit:
            return Verdict.KILL
        return Verdict.SILENT
    if pulse.overdue_s is not None and pulse.overdue_s >= 0:
        return Verdict.KILL if pulse.overdue_s >= KILL_OVERDUE_S else Verdict.OVERDUE
    return Verdict.WELL
