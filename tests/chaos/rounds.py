"""One round: something runs, harm is done, and the oracle judges what came of it."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError, BrokerError, ScanAborted
from bec_lib.messages import PointsMessage, ScanState
from tests.chaos import faults, oracle
from tests.chaos.faults import Fault, Harm
from tests.chaos.stage import Stage

# A scan is given up after this, seconds: with a device server that has to be started several times it takes a while.
PATIENCE_S = 90.0
WORKLOADS = (
    "line",
    "grid",
    "fast",
    "slow",
    "adaptive",
    "time",
    "move",
    "idle",
    "config",
    "paused",
    "aborted",
    "tail",
)


@dataclass
class Result:
    """stall_s: the longest time without a new point from the harm on; None if no points were due. is_rested: none of
    the victims had been killed shortly before, so that the supervisor started them again at once.
    """

    workload: str
    fault: Fault
    when: str = ""
    harm: Harm = field(default_factory=Harm)
    stall_s: float | None = None
    is_rested: bool = True
    problems: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        return self.fault.num_kills if self.harm.at is not None else 0


@dataclass
class _Scan:
    submit: Callable[[], Any]
    num_points: int
    expected: dict[str, Any] | None = None


def _scan(stage: Stage, workload: str) -> _Scan:
    scans, dev = stage.client.scans, stage.client.device_manager.devices
    match workload:
        case "grid":
            columns, rows = np.linspace(-0.4, 0.4, 6), np.linspace(-0.3, 0.3, 7)
            expected = {"samx": np.repeat(columns, len(rows)).tolist()}
            return _Scan(
                lambda: scans.grid_scan(
                    dev.samx, -0.4, 0.4, 6, dev.samy, -0.3, 0.3, 7, exp_time=0.01, relative=False
                ),
                42,
                expected,
            )
        case "fast":
            # With a second device server each point is an instruction to both.
            steps = 600 if stage.far else 8000
            expected = {"m1": np.linspace(0, 10, steps).tolist()}
            return _Scan(lambda: scans.line_scan(dev.m1, 0, 10, steps=steps, relative=False), steps, expected)
        case "slow":
            expected = {"slow": [0.0, 0.6, 1.2, 1.8]}
            return _Scan(lambda: scans.line_scan(dev.slow, 0, 1.8, steps=4, relative=False), 4, expected)
        case "adaptive":
            return _Scan(
                lambda: scans.adaptive_line_scan(
                    dev.samx, -0.6, 1.2, dev.peak, points=30, exp_time=0.005, relative=False
                ),
                30,
            )
        case "time":
            return _Scan(lambda: scans.time_scan(points=40, interval=0.025), 40)
        case _:
            steps = 41 if workload != "tail" else 9
            expected = {"samx": np.linspace(-0.5, 0.5, steps).tolist()}
            return _Scan(
                lambda: scans.line_scan(dev.samx, -0.5, 0.5, steps=steps, exp_time=0.01, relative=False),
                steps,
                expected,
            )


def play(stage: Stage, workload: str, fault: Fault, dice: random.Random) -> Result:
    """One round. Whatever goes wrong is a problem of its result."""
    result = Result(workload, fault, is_rested=stage.are_rested(fault.names))
    try:
        match workload:
            case "idle":
                _idle(stage, result)
            case "config":
                _config(stage, result, dice)
            case "move":
                _move(stage, result, dice)
            case _:
                _scanning(stage, result, dice)
    except (BECError, OSError, AssertionError) as error:
        result.problems.append(f"{type(error).__name__}: {error}")
    result.problems += result.harm.problems
    if result.harm.at is not None:
        stage.note_killed(fault.names)
    return result


def _scanning(stage: Stage, result: Result, dice: random.Random) -> None:
    scan = _scan(stage, result.workload)
    client_id = stage.client.client_id
    # A crash point may lie before the first point.
    at = dice.choice([0, dice.randrange(scan.num_points)])
    delay = dice.uniform(0.0, 0.05)
    result.when = f"point {at} + {delay * 1000:.0f} ms"
    faults.prepare(stage, result.fault)
    report = _patiently(scan.submit)
    scan_id = report.scan.scan_id
    stage.scan_ids.append(scan_id)

    def reached() -> bool:
        return stage.num_points(scan_id) >= at or report.done

    if result.workload == "tail":
        result.when = f"end + {delay * 200:.0f} ms"
        _wait(lambda: _is_ended(stage, scan_id), PATIENCE_S)
        time.sleep(delay / 5)
    elif result.workload == "paused":
        at = 1 + at // 2
        result.when = f"paused after point {at}"
        _wait(reached, PATIENCE_S)
        _pause_and_harm(stage, result, report, scan_id, dice)
    else:
        _wait(reached, PATIENCE_S)
        time.sleep(delay)
    if result.workload != "paused":
        result.harm = faults.do(stage, result.fault, lambda: report.scan.filed.is_set())
    expected: dict[str, Any] | None = scan.expected
    may_end: tuple[ScanState, ...] = (ScanState.CLOSED,)
    if result.workload == "aborted":
        expected, may_end = None, (ScanState.CLOSED, ScanState.ABORTED)
        _abort(stage, report, scan_id)
    else:
        report.wait(timeout=PATIENCE_S)
    evidence = stage.evidence(scan_id, client_id, expected, may_end)
    result.problems += oracle.judge_scan(evidence, stage.witnessed())
    if result.harm.at is not None and result.workload not in ("paused", "tail", "aborted"):
        result.stall_s = _stall(stage, scan_id, result.harm.at)


def _patiently(ask: Callable[[], Any]) -> Any:
    """A client is told when Redis is away for longer; a script would ask again."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            return ask()
        except BrokerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _abort(stage: Stage, report: Any, scan_id: str) -> None:
    """While the harm is still felt. Its sender is told, and its file has what was measured."""
    try:
        _patiently(lambda: stage.client.queue.request_scan_abortion(scan_id=scan_id))
    except BECError:
        if not report.done:
            raise
    with contextlib.suppress(ScanAborted):
        report.wait(timeout=PATIENCE_S)
    report.wait_for_file()


def _is_ended(stage: Stage, scan_id: str) -> bool:
    return any(s.scan_id == scan_id and s.status.is_terminal for s in stage.statuses())


def _pause_and_harm(stage: Stage, result: Result, report: Any, scan_id: str, dice: random.Random) -> None:
    try:
        deferred = dice.random() < 0.5
        _patiently(lambda: stage.client.queue.request_scan_interruption(deferred_pause=deferred))
    except BECError:
        if not report.done:
            raise
        result.when += " (too late)"
        return
    if not _comes_to_rest(stage, scan_id):
        result.problems.append("a paused scan goes on")
    before = stage.num_points(scan_id)
    result.harm = faults.do(stage, result.fault, lambda: False)
    result.problems += stage.wait_until_well()
    time.sleep(0.3)
    # Points that were taken before the pause, and are acknowledged only now, are not many.
    after = stage.num_points(scan_id)
    if not _comes_to_rest(stage, scan_id) or stage.num_points(scan_id) > before + 3:
        result.problems.append(f"a paused scan went on, from point {before} to {after}")
    status = [s.status for s in stage.statuses() if s.scan_id == scan_id][-1]
    if status != "paused" and not report.done:
        result.problems.append(f"a paused scan is said to be {status}")
    _patiently(stage.client.queue.request_scan_continuation)


def _comes_to_rest(stage: Stage, scan_id: str) -> bool:
    for _ in range(20):
        before = stage.num_points(scan_id)
        time.sleep(0.2)
        if stage.num_points(scan_id) == before:
            return True
    return False


def _idle(stage: Stage, result: Result) -> None:
    result.when = "idle"
    faults.prepare(stage, result.fault)
    result.harm = faults.do(stage, result.fault, lambda: False)
    # At once: whoever is not there yet is waited for.
    scan = _scan(stage, "tail")
    report = _patiently(scan.submit)
    report.wait(timeout=PATIENCE_S)
    stage.scan_ids.append(report.scan.scan_id)
    evidence = stage.evidence(report.scan.scan_id, stage.client.client_id, scan.expected)
    result.problems += oracle.judge_scan(evidence, stage.witnessed())


def _config(stage: Stage, result: Result, dice: random.Random) -> None:
    """A session is loaded; it is answered, and what is in force is what is said to be."""
    delay = dice.uniform(0.0, 0.08)
    result.when = f"loading + {delay * 1000:.0f} ms"
    found: list[Any] = []

    def load() -> None:
        try:
            found.append(stage.client.config.reload())
        except BECError as error:
            found.append(error)

    faults.prepare(stage, result.fault)
    loader = threading.Thread(target=load, daemon=True)
    loader.start()
    time.sleep(delay)
    result.harm = faults.do(stage, result.fault, lambda: not loader.is_alive())
    loader.join(PATIENCE_S)
    if not found:
        result.problems.append(f"loading the session was not answered within {PATIENCE_S:g} s")
        return
    if isinstance(found[0], BECError):
        result.problems.append(f"loading the session failed: {found[0]}")
    result.problems += stage.wait_until_well()
    said = stage.broker.get(MessageEndpoints.device_session)

    def in_force() -> Any:
        info = stage.broker.get(MessageEndpoints.device_server_info("main"))
        return info.message.session_version if info else None

    wanted = said.message.version if said else None
    deadline = time.monotonic() + 5.0
    while in_force() != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    if in_force() != wanted:
        result.problems.append(f"session {wanted} is said to be in force, the device server has {in_force()}")


def _move(stage: Stage, result: Result, dice: random.Random) -> None:
    dev = stage.client.device_manager.devices
    target = round(dice.uniform(-15, 15), 3)
    delay = dice.uniform(0.0, 0.4)
    result.when = f"moving + {delay * 1000:.0f} ms"
    faults.prepare(stage, result.fault)
    report = stage.client.scans.mv(dev.samx, target, relative=False)
    report.accepted()
    time.sleep(delay)
    result.harm = faults.do(stage, result.fault, lambda: report.done)
    report.wait(timeout=PATIENCE_S)
    result.problems += stage.wait_until_well()
    there = dev.samx.read()["samx"]["value"]
    if abs(there - target) > oracle.TOLERANCE:
        result.problems.append(f"samx is at {there:g} after a move to {target:g} was said to be done")


def _stall(stage: Stage, scan_id: str, at: float) -> float | None:
    sent = [item.envelope.sent for item in stage.points(scan_id) if isinstance(item.message, PointsMessage)]
    after = [moment for moment in sent if moment >= at]
    if not after:
        return None
    edges = [at, *after]
    return max(later - earlier for earlier, later in itertools.pairwise(edges))


def _wait(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"nothing happened for {timeout_s:g} s"
        time.sleep(0.003)
