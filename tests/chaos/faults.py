"""The harm that is done: which, to whom, and how it is seen that everybody knows of it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import redis

from tests.chaos.oracle import STATE_S
from tests.chaos.stage import ROLES, Stage

CRASH_POINTS = (
    *((f"{role}.{when}", 12) for role in ROLES for when in ("before_commit", "after_commit")),
    ("scan_server.primary.before_commit", 12),
    ("scan_server.primary.after_commit", 12),
    ("file_writer.before_publish", 1),
    ("file_writer.after_publish", 1),
    ("file_writer.before_final", 1),
    ("file_writer.after_final", 1),
    ("scihub.before_database", 3),
    ("scihub.after_database", 3),
)


@dataclass
class Fault:
    """kind: kill, stop, cut or crash. victims: roles, "redis", "keeper" or a crash point. for_s: of a stop. again: who
    is killed while the others recover, and how long after, seconds.
    """

    kind: str
    victims: tuple[str, ...]
    for_s: float = 0.0
    count: int = 1
    again: tuple[str, float] | None = None

    def __str__(self) -> str:
        names = "everybody" if set(ROLES) <= set(self.victims) else "+".join(self.victims)
        match self.kind:
            case "kill":
                then = f", {self.again[0]} {self.again[1]:.1f} s later" if self.again else ""
                return f"kill {names}{then}"
            case "stop":
                return f"stop {names} {self.for_s:.1f} s"
            case "cut":
                return "cut all connections"
            case _:
                return f"crash {names}:{self.count}"

    @property
    def names(self) -> list[str]:
        """The roles that suffer."""
        if self.kind == "crash":
            role = self.victims[0].rpartition(".")[0]
            return ["scan_server" if role.startswith("scan_server") else role]
        if self.kind == "stop":
            return []
        return [*self.victims, *([self.again[0]] if self.again else [])]

    @property
    def num_kills(self) -> int:
        return len(self.victims) + (self.again is not None) if self.kind in ("kill", "stop") else 1


@dataclass
class Harm:
    """What was done. at: when, seconds UTC; None if the crash point was not reached. seen_s: until the status showed
    it, None if it was not looked at.
    """

    at: float | None = None
    seen_s: float | None = None
    problems: list[str] = field(default_factory=list)


def choose(dice: random.Random, roles: Sequence[str] = ROLES) -> Fault:
    """A fault, by the weights of what is most worth trying."""
    kind = dice.choices(
        [
            "service",
            "several",
            "all",
            "redis",
            "redis+",
            "twice",
            "keeper",
            "stop",
            "stop redis",
            "cut",
            "crash",
        ],
        [22, 10, 6, 8, 6, 14, 2, 8, 2, 4, 30],
    )[0]
    match kind:
        case "service":
            return Fault("kill", (dice.choice(roles),))
        case "several":
            return Fault("kill", tuple(dice.sample(roles, dice.randint(2, 3))))
        case "all":
            return Fault("kill", tuple(roles))
        case "redis":
            return Fault("kill", ("redis",))
        case "redis+":
            return Fault("kill", ("redis", *dice.sample(roles, dice.randint(1, 3))))
        case "twice":
            later = (dice.choice([*roles, "redis"]), dice.uniform(0.05, 1.5))
            return Fault("kill", (dice.choice([*roles, "redis"]),), again=later)
        case "keeper":
            return Fault("kill", ("keeper",))
        case "stop":
            return Fault("stop", (dice.choice(roles),), for_s=dice.choice([0.3, 1.0, 2.5, 4.0]))
        case "stop redis":
            return Fault("stop", ("redis",), for_s=dice.choice([0.3, 1.8, 4.0]))
        case "cut":
            return Fault("cut", ())
        case _:
            point, most = dice.choice(CRASH_POINTS)
            return Fault("crash", (point,), count=dice.randint(1, most))


def do(stage: Stage, fault: Fault, is_over: Callable[[], bool]) -> Harm:
    """Do it, and look whether the status tells of it. A crash was prepared before; is_over: its place will not be
    reached any more.
    """
    match fault.kind:
        case "kill":
            return _kill(stage, fault)
        case "stop":
            return _stop(stage, fault)
        case "cut":
            return _cut(stage)
        case _:
            return _crash(stage, is_over)


def _kill(stage: Stage, fault: Fault) -> Harm:
    pids = stage.pids()
    victims = {name: pids[name] for name in fault.victims if pids.get(name)}
    harm = Harm(at=time.time())
    begun = time.monotonic()
    for pid in victims.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _watch_status(stage, victims, begun, harm)
    if fault.again is not None:
        name, later = fault.again
        time.sleep(max(0.0, begun + later - time.monotonic()))
        # It may not be there at all just now: then it is not needed to kill it.
        pid = stage.pids().get(name)
        if pid:
            harm.at = time.time()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return harm


def _watch_status(stage: Stage, victims: dict[str, int], begun: float, harm: Harm) -> None:
    """Until the status shows none of these processes as running."""
    while True:
        shown = stage.pids()
        untrue = [name for name, pid in victims.items() if shown.get(name) == pid]
        harm.seen_s = time.monotonic() - begun
        if not untrue:
            break
        if harm.seen_s > STATE_S:
            harm.problems.append(f"{', '.join(untrue)} shown as running {STATE_S:g} s after the kill")
            return
        time.sleep(0.01)
    named = {
        row["service"]: row["reason"] for row in stage.fleet.status()["services"] if row["service"] in victims
    }
    for name, reason in named.items():
        if "SIGKILL" not in reason and "taken over" not in reason:
            harm.problems.append(f"the status does not say why {name} ended: {reason!r}")


def _stop(stage: Stage, fault: Fault) -> Harm:
    (name,) = fault.victims
    pid = stage.pids()[name]
    if not pid:
        return Harm()
    harm = Harm(at=time.time())
    begun = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    wake = threading.Timer(fault.for_s, _continue, [pid])
    wake.start()
    if fault.for_s > STATE_S:
        while harm.seen_s is None:
            status = stage.fleet.status()
            after = time.monotonic() - begun
            states = {row["service"]: row["state"] for row in status["services"]}
            states["redis"] = "SILENT" if "error" in status["redis"] else "RUNNING"
            if states[name] != "RUNNING":
                harm.seen_s = after
            elif after > STATE_S:
                harm.problems.append(f"{name} is stopped and shown as RUNNING after {STATE_S:g} s")
                break
            time.sleep(0.02)
    wake.join()
    return harm


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _cut(stage: Stage) -> Harm:
    harm = Harm(at=time.time())
    for kind in ("normal", "pubsub"):
        with contextlib.suppress(redis.RedisError):
            stage.broker.redis.execute_command("CLIENT", "KILL", "TYPE", kind)
    return harm


def prepare(stage: Stage, fault: Fault) -> None:
    """Give the order for a crash; from now on whoever reaches the place dies."""
    if fault.kind == "crash":
        temporary = stage.orders.with_suffix(".new")
        temporary.write_text(f"{fault.victims[0]}:{fault.count}", encoding="utf-8")
        temporary.rename(stage.orders)


def _crash(stage: Stage, is_over: Callable[[], bool]) -> Harm:
    deadline = time.monotonic() + 5.0
    while stage.orders.exists():
        if is_over() or time.monotonic() > deadline:
            with contextlib.suppress(FileNotFoundError):
                stage.orders.unlink()
                return Harm()
        time.sleep(0.005)
    return Harm(at=time.time())
