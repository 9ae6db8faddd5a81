"""Kill sweeps: `make chaos SEED=1 KILLS=200`, or `python -m tests.chaos --seed 1 --kills 200`.

One line a round, and a table at the end. The same seed chooses the same workloads, faults and moments. Exit code 1 if
any promise was broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

from tests.chaos import faults, oracle
from tests.chaos.rounds import WORKLOADS, Result, play
from tests.chaos.stage import Stage

# A new fleet after so many rounds: what a stopped one leaves over is looked at, too.
ROUNDS_PER_FLEET = 20


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of the dice; one is chosen and printed")
    parser.add_argument("--kills", type=int, default=20, help="go on until so many processes were killed")
    parser.add_argument("--first", type=int, default=0, help="begin with this round of the seed")
    parser.add_argument("--rounds", type=int, default=None, help="at most so many rounds")
    parser.add_argument("--workload", choices=WORKLOADS, help="only this one")
    parser.add_argument("--far", action="store_true", help="with a second device server")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}, until {options.kills} kills", flush=True)
    results: list[Result] = []
    broken = 0
    number = options.first
    stage: Stage | None = None
    kills = 0
    try:
        while kills < options.kills and (options.rounds is None or number < options.first + options.rounds):
            # Each round has dice of its own, so that any of them can be played again alone.
            dice = random.Random(f"{seed}/{number}")
            workload = dice.choice(WORKLOADS)
            if stage is None:
                stage = Stage(far=options.far).start()
            fault = faults.choose(dice, stage.roles)
            workload = options.workload or workload
            result = play(stage, workload, fault, dice)
            problems = stage.wait_until_well()
            result.problems += problems
            results.append(result)
            kills += result.num_kills
            broken += bool(result.problems)
            _tell(number, kills, result)
            number += 1
            is_hurt = bool(result.problems)
            if is_hurt or len(results) % ROUNDS_PER_FLEET == 0:
                broken += _close(stage, judge=not is_hurt)
                stage = None
    finally:
        if stage is not None:
            broken += _close(stage, judge=True)
    _summary(seed, results, broken)
    return 1 if broken else 0


def _close(stage: Stage, *, judge: bool) -> int:
    problems = []
    if judge:
        problems += stage.judge_all()
    problems += stage.stop()
    for problem in problems:
        print(f"      VIOLATION {problem}", flush=True)
    return bool(problems)


def _tell(number: int, kills: int, result: Result) -> None:
    stall = "" if result.stall_s is None else f"{result.stall_s:5.2f} s"
    seen = "" if result.harm.seen_s is None else f"{result.harm.seen_s:5.2f} s"
    how = "not reached" if result.harm.at is None else "VIOLATION" if result.problems else "ok"
    print(
        f"{time.strftime('%H:%M:%S')} {number:4d} {kills:4d}  {result.workload:9} {result.when:22} "
        f"{result.fault!s:52} stall {stall:8} seen {seen:8} {how}",
        flush=True,
    )
    for problem in result.problems:
        print(f"      VIOLATION {problem}", flush=True)


def _summary(seed: int, results: list[Result], broken: int) -> None:
    print(f"\nseed {seed}: {len(results)} rounds, {sum(r.num_kills for r in results)} kills")
    for what, names in (
        ("workload", [result.workload for result in results]),
        ("fault", [result.fault.kind for result in results if result.harm.at is not None]),
    ):
        print(f"  {what:9}", ", ".join(f"{name} {count}" for name, count in Counter(names).most_common()))
    resumed = [r for r in results if r.is_rested and r.fault.kind in ("kill", "crash")]
    for what, values in (
        ("next point after a kill", [r.stall_s for r in results if r.stall_s is not None]),
        ("  of services that had run for a while", [r.stall_s for r in resumed if r.stall_s is not None]),
        ("shown in the status", [r.harm.seen_s for r in results if r.harm.seen_s is not None]),
    ):
        if values:
            ordered = sorted(values)
            p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.5, 0.99))
            print(
                f"  {what}: p50 {p50:.2f} s, p99 {p99:.2f} s, longest {ordered[-1]:.2f} s, of {len(ordered)}"
            )
            if "status" not in what:
                late = sum(value > oracle.RESUME_S for value in values)
                print(f"    later than {oracle.RESUME_S:g} s: {late}")
    print(f"  violations: {broken}")


if __name__ == "__main__":
    sys.exit(main())
