"""One round: something runs, harm is done, and the oracle judges what came of it."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError, BrokerError, ScanAborted, ServiceDown
from bec_lib.messages import PointsMessage, ScanState
from bec_lib.scans import round_positions
from tests.chaos import faults, oracle
from tests.chaos.faults import Fault, Harm
from tests.chaos.oracle import Route, Way
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
    # In motion
    "marks",
    "fly",
    "sweep",
    "flight",
    # With what others have to say
    "hooked",
    "hooked aborted",
    "interlock",
    "held marks",
    "held fly",
    "held flight",
    "align",
    "queues",
    # With what people do meanwhile
    "resumed",
    "resumed fly",
    "ctrl-c",
    "acquire",
)
# Where the motors of relative scans stand before.
HOME = 1.5
# A sweep has no longer gap, mm, which is as many seconds.
MOST_LEFT_OUT = 0.5
ENDED_EARLY = ("aborted", "hooked aborted", "ctrl-c")
RESUMED = ("resumed", "resumed fly")
WITH_BEAM = ("interlock", "held marks", "held fly", "held flight")
INTERLOCK = "beam_gone"


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
    """num_points: so many at least, if it is not ended before. facts: of the evidence, as the oracle wants them."""

    submit: Callable[[], Any]
    num_points: int
    expected: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def _scan(stage: Stage, workload: str) -> _Scan:
    scans, dev = stage.client.scans, stage.client.device_manager.devices
    if workload.startswith("held "):
        scan = _scan(stage, workload.removeprefix("held "))
        return replace(scan, facts=scan.facts | {"always": {"beam": 1.0}})
    if workload == "resumed fly":
        return _in_motion(stage, "fly")
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
        case "align":
            return _Scan(
                lambda: scans.align(dev.samx, -0.7, 1.1, dev.peak, steps=11, exp_time=0.005, relative=False),
                22,
                facts={"left": {"samx": 0.3}},
            )
        case "marks" | "fly" | "sweep":
            return _in_motion(stage, workload)
        case "flight":
            rings = round_positions((0.0, 0.0), 1.0, 2.0, 3, 6)
            return _Scan(
                lambda: scans.round_scan_fly(
                    dev.flyer, 1.0, 2.0, number_of_rings=3, pos_in_first_ring=6, **_nearby(stage)
                ),
                len(rings),
                facts={"route": Route(("flyer_x", "flyer_y"), [tuple(at) for at in rings.tolist()])},
            )
        case "hooked" | "hooked aborted":
            steps = 31
            return _Scan(
                lambda: scans.hooked_scan(dev.samx, -0.4, 0.4, steps=steps, exp_time=0.01, relative=False),
                steps,
                {"samx": np.linspace(-0.4, 0.4, steps).tolist()},
                {"always": {"gate": 1.0}, "left": {"gate": 0.0}, "notes": ("begins", "ends", "closed")},
            )
        case "ctrl-c":
            steps = 31
            return _Scan(
                lambda: scans.line_scan(dev.samx, -0.5, 0.5, steps=steps, exp_time=0.01, relative=True),
                steps,
                {"samx": (HOME + np.linspace(-0.5, 0.5, steps)).tolist()},
                {"left": {"samx": HOME}},
            )
        case "interlock":
            steps = 61
            return _Scan(
                lambda: scans.line_scan(dev.samx, -0.5, 0.5, steps=steps, exp_time=0.02, relative=False),
                steps,
                {"samx": np.linspace(-0.5, 0.5, steps).tolist()},
                {"always": {"beam": 1.0}},
            )
        case "acquire":
            return _Scan(lambda: scans.acquire(exp_time=0.02, burst_at_each_point=40), 40)
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


def _nearby(stage: Stage) -> dict[str, Any]:
    """What is on another device server cannot be read on the way."""
    return {"on_request": ["farcount"]} if stage.far else {}


def _in_motion(stage: Stage, workload: str) -> _Scan:
    """1.2 mm in a little more than a second, with points that are told beforehand, or as many as there will be."""
    scans, dev = stage.client.scans, stage.client.device_manager.devices
    line: dict[str, Any] = {"relative": False, **_nearby(stage)}
    way = Way("slow", 0.0, 1.2, velocity=1.0)
    match workload:
        case "marks":
            marks = np.linspace(0.0, 1.2, 25).tolist()
            return _Scan(
                lambda: scans.cont_line_scan(dev.slow, 0.0, 1.2, steps=25, exp_time=0.06, **line),
                len(marks),
                # It runs up and out by two steps, and more slowly than the motor would.
                facts={
                    "way": replace(way, start=-0.1, stop=1.3, marks=marks),
                    "left": {"slow_velocity": 1.0},
                },
            )
        case "fly":
            return _Scan(
                lambda: scans.cont_line_fly_scan(dev.slow, 0.0, 1.2, exp_time=0.02, **line),
                30,
                facts={"way": way},
            )
        case _:
            name = "line_sweep_scan" if stage.scan_ids[-1:] else "monitor_scan"
            return _Scan(
                lambda: getattr(scans, name)(dev.slow, 0.0, 1.2, max_update=0.1, **line),
                12,
                facts={"way": way},
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
            case "queues":
                _queues(stage, result, dice)
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
    noted = len(stage.notes())
    _before(stage, result.workload)
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
    beam = None
    if result.workload in WITH_BEAM:
        beam = _trip(stage, result, dice)
    elif result.workload in RESUMED:
        _interrupt(stage, result, report, dice)
    if result.workload != "paused":
        result.harm = faults.do(stage, result.fault, lambda: report.scan.filed.is_set())
    expected: dict[str, Any] | None = scan.expected
    may_end: tuple[ScanState, ...] = (ScanState.CLOSED,)
    if result.workload in ENDED_EARLY:
        may_end = (ScanState.CLOSED, ScanState.ABORTED)
        if result.workload == "ctrl-c":
            _interrupt(stage, result, report, dice)
        _abort(stage, report, scan_id)
    elif result.workload in RESUMED:
        _continue(stage, report)
        _await(report)
    else:
        _await(report)
    if beam is not None:
        beam.join()
    facts = dict(scan.facts)
    ended = [status for status in stage.statuses() if status.scan_id == scan_id][-1]
    if ended.status is ScanState.ABORTED:
        expected = None
        if "notes" in facts:
            facts["notes"] = ("closed",)
    if result.harm.at is None or ended.timestamp > result.harm.at:
        # Simulated motors that are killed later forget where they were.
        facts |= _left(stage, facts.get("left", {}))
    else:
        facts.pop("left", None)
    if "way" in facts and not facts["way"].marks and stage.is_quiet and result.fault.kind != "stop":
        facts["way"] = replace(facts["way"], most=MOST_LEFT_OUT)
    facts["noted"] = stage.notes()[noted:]
    evidence = stage.evidence(scan_id, client_id, expected, may_end, **facts)
    result.problems += oracle.judge_scan(evidence, stage.witnessed())
    if result.workload in WITH_BEAM:
        _patiently(lambda: stage.client.interlocks.remove(INTERLOCK))
    if result.harm.at is not None and result.workload not in (
        "paused",
        "tail",
        *RESUMED,
        *WITH_BEAM,
        *ENDED_EARLY,
    ):
        result.stall_s = _stall(stage, scan_id, result.harm.at)


def _before(stage: Stage, workload: str) -> None:
    """What has to be there when the scan begins."""
    if workload == "ctrl-c":
        samx = stage.client.device_manager.devices.samx
        _await(_patiently(lambda: stage.client.scans.mv(samx, HOME, relative=False)))
    elif workload in WITH_BEAM:
        interlocks = stage.client.interlocks
        _patiently(lambda: interlocks.add(INTERLOCK, "beam.beam < 1", settle_time=0.1))
        _wait(lambda: interlocks.status[INTERLOCK].phase == "clear", PATIENCE_S)


def _trip(stage: Stage, result: Result, dice: random.Random) -> threading.Thread:
    """The beam goes and comes back, before or after the harm, for a while that people would notice."""
    before_s, for_s = dice.uniform(-0.4, 0.6), dice.uniform(0.4, 2.0)
    result.when += f", beam off {before_s:+.1f} s for {for_s:.1f} s"

    def switch() -> None:
        time.sleep(max(0.0, before_s))
        stage.switch_beam(on=False)
        time.sleep(for_s)
        stage.switch_beam(on=True)

    thread = threading.Thread(target=switch)
    thread.start()
    time.sleep(max(0.0, -before_s))
    return thread


def _interrupt(stage: Stage, result: Result, report: Any, dice: random.Random) -> None:
    """A pause by a person, who does not wait for anything; too late is no harm."""
    deferred = dice.random() < 0.7
    result.when += ", paused" if deferred else ", paused at once"
    try:
        # By its id: if it is over, its queue is not to be paused.
        scan_id = report.scan.scan_id
        _patiently(
            lambda: stage.client.queue.request_scan_interruption(deferred_pause=deferred, scan_id=scan_id)
        )
    except BECError:
        if not report.done and not _is_ended(stage, report.scan.scan_id):
            raise


def _continue(stage: Stage, report: Any) -> None:
    try:
        _patiently(lambda: stage.client.queue.request_scan_continuation(scan_id=report.scan.scan_id))
    except BECError:
        if not report.done and not _is_ended(stage, report.scan.scan_id):
            raise


def _left(stage: Stage, motors: Mapping[str, float]) -> dict[str, Any]:
    """Where motors are now, as the oracle wants it, and whether the witness is staged."""
    dev = stage.client.device_manager.devices
    problems = stage.wait_until_well()
    assert not problems, problems
    there = {}
    for name in motors:
        device = dev[name.removesuffix("_velocity")]
        read = device.read if device.name == name else device.read_configuration
        there[name] = _patiently(read)[name]["value"]
    return {"there": there, "is_staged": stage.is_staged()}


def _queues(stage: Stage, result: Result, dice: random.Random) -> None:
    """Two queues want the witness, one after the other; a third one moves what nobody else wants."""
    scans, dev = stage.client.scans, stage.client.device_manager.devices
    at, delay = dice.randrange(20), dice.uniform(0.0, 0.05)
    result.when = f"point {at} + {delay * 1000:.0f} ms"
    line: dict[str, Any] = {"steps": 21, "exp_time": 0.01, "relative": False}
    faults.prepare(stage, result.fault)
    reports = [
        _patiently(lambda: scans.line_scan(dev.samx, -0.5, 0.5, **line)),
        _patiently(lambda: scans.line_scan(dev.samy, -0.5, 0.5, scan_queue="second", **line)),
    ]
    move = _patiently(
        lambda: scans.umv(dev.m1, round(dice.uniform(1, 9), 3), relative=False, scan_queue="third")
    )
    scan_ids = [report.scan.scan_id for report in reports]
    stage.scan_ids += scan_ids
    _wait(lambda: stage.num_points(dice.choice(scan_ids)) >= at or all(r.done for r in reports), PATIENCE_S)
    time.sleep(delay)
    result.harm = faults.do(stage, result.fault, lambda: all(r.done for r in reports))
    expected = np.linspace(-0.5, 0.5, 21).tolist()
    files = {}
    for motor, report in zip(("samx", "samy"), reports, strict=True):
        _await(report)
        evidence = stage.evidence(report.scan.scan_id, stage.client.client_id, {motor: expected})
        result.problems += oracle.judge_scan(evidence, stage.witnessed())
        if evidence.file is not None:
            files[f"the scan of {motor}"] = evidence.file
    _await(move)
    result.problems += oracle.judge_apart(files)


def _patiently(ask: Callable[[], Any]) -> Any:
    """A client is told when Redis is away for longer; a script would ask again."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return ask()
        except (BrokerError, ServiceDown):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _await(report: Any) -> None:
    """Whoever waits is told who is silent, if that takes long; here it is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            report.wait(timeout=PATIENCE_S)
            return
        except ServiceDown:
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
        _await(report)
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
    _await(report)
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
    _await(report)
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
