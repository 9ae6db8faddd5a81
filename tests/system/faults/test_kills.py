"""A few of the rounds of `make chaos`: those that are hardest to survive, and some that the dice choose."""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos import faults
from tests.chaos.faults import Fault
from tests.chaos.oracle import RESUME_S
from tests.chaos.rounds import play
from tests.chaos.stage import ROLES, Stage

CHOSEN = [
    # Between a point and its journal, on either side of the commit.
    ("adaptive", Fault("crash", ("scan_server.primary.before_commit",), count=9)),
    ("adaptive", Fault("crash", ("scan_server.primary.after_commit",), count=10)),
    ("adaptive", Fault("crash", ("device_server.after_commit",), count=6)),
    ("grid", Fault("kill", tuple(ROLES))),
    ("fast", Fault("kill", ("redis",))),
    ("line", Fault("cut", ())),
    ("time", Fault("stop", ("device_server",), for_s=2.4)),
    ("paused", Fault("kill", ("device_server", "scan_server"))),
    ("aborted", Fault("kill", ("scan_server",))),
    ("config", Fault("crash", ("scan_server.after_commit",), count=1)),
    ("tail", Fault("crash", ("file_writer.before_final",))),
    ("tail", Fault("crash", ("file_writer.after_final",))),
    ("line", Fault("crash", ("scihub.before_database",))),
    ("marks", Fault("kill", ("device_server",))),
    ("sweep", Fault("kill", ("scan_server",))),
    ("flight", Fault("kill", ("device_server", "scan_bundler"))),
    ("hooked aborted", Fault("kill", ("device_server",))),
    ("interlock", Fault("kill", ("scan_server",))),
    ("held marks", Fault("kill", ("device_server",))),
    ("ctrl-c", Fault("kill", ("scan_server", "device_server"))),
    ("queues", Fault("kill", ("scan_server",))),
]


@pytest.mark.parametrize(("workload", "fault"), CHOSEN, ids=[f"{w}: {f}" for w, f in CHOSEN])
def test_every_promise_is_kept(stage: Stage, workload: str, fault: Fault) -> None:
    result = play(stage, workload, fault, random.Random(f"{workload} {fault}"))
    assert result.problems + stage.wait_until_well() == []
    assert result.harm.at is not None, "the crash point was not reached"
    if result.is_rested and result.stall_s is not None and fault.kind != "stop":
        assert result.stall_s < RESUME_S


def test_dice(stage: Stage) -> None:
    """Three rounds of a new seed each time; `make chaos` plays many."""
    seed = int(os.environ.get("BEC_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"BEC_TEST_SEED={seed} plays these again")
    for number in range(3):
        dice = random.Random(f"{seed}/{number}")
        workload = dice.choice(["line", "grid", "adaptive", "tail"])
        fault = faults.choose(dice)
        result = play(stage, workload, fault, dice)
        assert result.problems + stage.wait_until_well() == [], f"seed {seed}: {workload}, {fault}"
