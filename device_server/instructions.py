"""How is an instruction carried out? Each as steps of a task: what is done, and what is waited for.

Runs on the threads of the pool. Tells the main thread by posting `Block`, `Finished` and `Warn`; changes nothing else
that others own. A stop or pause is obeyed between any two phases; a stop during a wait, too.
"""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from bec_lib.clock import Clock
from bec_lib.devices import FailurePolicy
from bec_lib.errors import BECError, DeviceError, ReasonCode
from bec_lib.messages import (
    CallDevice,
    CommitSession,
    CompleteDevices,
    DeviceInfoMessage,
    DeviceInstructionMessage,
    ErrorInfo,
    MoveDevices,
    PrepareSession,
    PreScanDevices,
    ReadBaseline,
    ReadDevices,
    RollbackSession,
    RunPoints,
    StageDevices,
    SweepDevice,
    UnstageDevices,
)
from bec_lib.sweeps import rest_of_sweep
from device_server import failures, readings
from device_server.adapter import DeviceAdapter
from device_server.control import Control
from device_server.guards import NOTHING, Guards, Watch
from device_server.lanes import WOKEN, Ending, FutureEnding, Lane, Pool, Steps, Task, Timers, Until
from device_server.loader import Loader, Prepared, ScanInfo
from device_server.sweep import LOOK_S, MarkPace, UpdatePace

log = logging.getLogger(__name__)

# A block of points is committed when it has this many, or when its first is this old, or when there is time.
BLOCK_POINTS = 64
BLOCK_S = 0.02
# Blocks that may be on their way to the broker before points are held back.
BLOCKS_AHEAD = 4
# The same while a device is on its way, which waits for nobody: more than there can be before it is stopped.
SWEEP_BLOCKS_AHEAD = 256
# Above this a slice of reads is looked at device by device, to find those that are slow.
SLICE_S = 0.002


@dataclass(slots=True)
class Block:
    """Posted: rows of readings of one scan, to be committed. rows[i], times[i]: of one point, by column."""

    scan_id: str
    run: StagedRun
    group: str
    first_index: int
    rows: list[list[Any]]
    times: list[list[Any]]
    server_times: list[float]
    acq_start: list[float]
    acq_end: list[float]
    attempt: int
    # Columns that came with the instruction.
    given: list[list[Any]] = field(default_factory=list)


@dataclass(slots=True)
class Finished:
    """Posted: an instruction has ended. read_backs: device -> reading, of what it moved."""

    instruction_id: str
    error: ErrorInfo | None = None
    result: Any = None
    stopped: bool = False
    read_backs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    session: SessionChange | None = None


@dataclass(slots=True)
class SessionChange:
    """What a commit did: the names in force, those that were dropped, and the raw configurations."""

    raw: dict[str, Any]
    version: int
    dropped: Sequence[DeviceAdapter]
    infos: dict[str, DeviceInfoMessage]


@dataclass(slots=True)
class Warn:
    """Posted: something a person should know, which does not stop the scan."""

    text: str
    device: str | None = None
    scan_id: str | None = None
    details: str = ""


class Failed(Exception):
    """An instruction cannot be done. Carries what is answered."""

    def __init__(self, info: ErrorInfo):
        super().__init__(info.error_message)
        self.info = info


class _Held(Exception):
    """An interlock holds a scan whose device is on its way."""


class Stopped(Exception):
    """An instruction has become void while it ran, or, with a text, was void from the beginning."""


@dataclass(slots=True)
class _Source:
    """One call that gives the values of some columns. wanted: (column, signal, is float)."""

    adapter: DeviceAdapter
    lane: Lane
    read: Callable[[], Mapping[str, Mapping[str, Any]]]
    wanted: list[tuple[int, str, bool]]


@dataclass(slots=True)
class _Group:
    """The columns of monitored or baseline devices, and how they are read."""

    columns: readings.Columns
    sources: list[_Source]
    # Devices that take so long that each is read in a thread of its own.
    slow: set[int] = field(default_factory=set)
    last: tuple[list[Any], list[Any]] | None = None


@dataclass
class StagedRun:
    """A scan that is staged here. Owned by the task that runs the scan's instructions, one at a time; `uncommitted`
    is lowered by the main thread.
    """

    scan_id: str
    staged: list[DeviceAdapter]
    triggered: list[DeviceAdapter]
    monitored: _Group
    baseline: _Group
    targets: dict[str, float] = field(default_factory=dict)
    uncommitted: list[None] = field(default_factory=list)
    started: float | None = None
    schema_version: int = 1
    queue: str = "primary"
    warned: set[str] = field(default_factory=set)
    # Columns whose values come with the instructions.
    given: tuple[str, ...] = ()
    # By the main thread: when read-backs of the monitored devices were last published.
    published: float = 0.0


class Instructions:
    """post: hands something to the main thread."""

    def __init__(
        self,
        *,
        server: str,
        loader: Loader,
        scan_info: ScanInfo,
        pool: Pool,
        timers: Timers,
        control: Control,
        guards: Guards,
        clock: Clock,
        post: Callable[[Any], None],
    ):
        self._server = server
        self._loader = loader
        self._scan_info = scan_info
        self._pool = pool
        self._timers = timers
        self._control = control
        self._guards = guards
        self._clock = clock
        self._post = post
        self._lanes: dict[tuple[str, bool], Lane] = {}
        self._prepared: tuple[Prepared, dict[str, Any], bool] | None = None
        self._raw: dict[str, Any] = {}
        self.runs: dict[str, StagedRun] = {}
        # Devices that clients are calling, by the main thread.
        self.calls: Mapping[str, int] = {}
        # Device -> who moves it, of those that clients do; from any thread.
        self.in_use: Callable[[], Mapping[str, str]] = dict
        # Scans that were ever staged on this process.
        self._known: dict[str, None] = {}

    @property
    def is_changing(self) -> bool:
        """Whether a session is prepared and not yet in force."""
        return self._prepared is not None

    def lane(self, device: str, *, writes: bool = False) -> Lane:
        """The lane for reading or for moving and configuring a device."""
        key = (device, writes)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes.setdefault(key, Lane(device, self._pool))
        return lane

    def submit(self, function: Callable[[], Any], then: Callable[[Future[Any]], None]) -> None:
        """Run it on the pool, past all lanes."""
        future: Future[Any] = Future()
        future.add_done_callback(then)

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - belongs to whoever waits for the future
                future.set_exception(error)

        self._pool.submit(run)

    def begin(self, message: DeviceInstructionMessage) -> None:
        """Carry it out; a `Finished` will be posted."""
        was_lost = self._control.losses_since()

        def ended(result: Any, error: BaseException | None) -> None:
            self._control.tasks.pop(message.instruction_id, None)
            if isinstance(error, Failed) and was_lost():
                error = _interrupted(message, error)
            self._post(self._finished(message, result, error))

        task = Task(self._pool, self._timers, self._steps(message), ended)
        self._control.tasks[message.instruction_id] = task
        task.start()

    def load(self, number: str, action: PrepareSession, version: int) -> None:
        """Build and connect devices and put them into force; a `Finished` of this number will be posted."""

        def steps() -> Steps:
            yield from self._prepare(action)
            return (yield from self._commit(CommitSession(version=version)))

        def ended(result: Any, error: BaseException | None) -> None:
            if error is not None:
                log.error("the session could not be loaded", exc_info=error)
                info = failures.failure(error, None, "load the session")
                self._post(Finished(number, error=info))
            else:
                self._post(Finished(number, session=result))

        Task(self._pool, self._timers, steps(), ended).start()

    def load_more(
        self, number: str, devices: Mapping[str, dict[str, Any]], others: Mapping[str, str], version: int
    ) -> None:
        """Try some devices of the session in force again; a `Finished` of this number will be posted."""
        known = {
            other: others.get(other, "")
            for raw in (*self._raw.values(), *devices.values())
            for other in raw.get("needs") or ()
        }
        action = PrepareSession(devices=dict(devices), replace=False, others=known)
        self.load(number, action, version)

    def committed(self, run: StagedRun) -> None:
        """A block of this run is in the broker. Called by the main thread."""
        held = len(run.uncommitted) >= BLOCKS_AHEAD
        run.uncommitted.pop()
        if held:
            self._control.wake_all()

    # One method per kind

    def _steps(self, message: DeviceInstructionMessage) -> Steps:
        match message.action:
            case RunPoints():
                return self._points(message, message.action)
            case SweepDevice():
                return self._sweep(message, message.action)
            case StageDevices():
                return self._stage(message, message.action)
            case UnstageDevices():
                return self._unstage(message)
            case ReadBaseline():
                return self._baseline(message, message.action)
            case MoveDevices():
                return self._move(message, message.action)
            case ReadDevices():
                return self._read(message, message.action)
            case CompleteDevices():
                return self._for_staged(message, "complete", lambda adapter: adapter.complete())
            case PreScanDevices():
                return self._for_staged(message, "pre_scan", lambda adapter: adapter.pre_scan())
            case CallDevice():
                return self._call(message, message.action)
            case PrepareSession():
                return self._prepare(message.action)
            case CommitSession():
                return self._commit(message.action)
            case RollbackSession():
                return self._rollback()

    def _stage(self, message: DeviceInstructionMessage, action: StageDevices) -> Steps:
        scan_id = message.scan_id or message.instruction_id
        self._known[scan_id] = None
        while len(self._known) > 1000:
            del self._known[next(iter(self._known))]
        if scan_id in self.runs:
            yield from self._unstage_run(self.runs.pop(scan_id))
        names = list(dict.fromkeys([*action.monitored, *action.baseline, *action.triggered, *action.owned]))
        adapters = {adapter.name: adapter for adapter in self._usable(names)}
        self._scan_info.begin(scan_id, action.scan_name, action.scan_number, action.scan_info)
        to_stage = [
            adapters[name]
            for name in dict.fromkeys([*action.monitored, *action.triggered, *action.owned])
            if adapters[name].can("stage")
        ]
        done: list[DeviceAdapter] = []
        problems: list[ErrorInfo] = []
        try:
            results = yield from self._each(
                message, "stage", to_stage, _stage_afresh, quick=lambda adapter: not adapter.has_own("stage")
            )
            for adapter, endings, error in results:
                if error is not None:
                    problems.append(failures.failure(error, adapter.name, "be staged"))
                    continue
                done.append(adapter)
                for ending in endings:
                    yield from self._finish(message, ending)
                    found = failure_of(ending)
                    if found is not None:
                        problems.append(failures.failure(found, adapter.name, "be staged"))
            described: dict[str, Any] = {}
            if not problems:
                results = yield from self._each(
                    message, "describe", list(adapters.values()), lambda adapter: adapter.staged()
                )
                for adapter, found, error in results:
                    if error is not None:
                        problems.append(failures.failure(error, adapter.name, "describe itself"))
                    else:
                        described[adapter.name] = found
            if problems:
                raise Failed(_joined(problems))
        except (Failed, Stopped):
            run = StagedRun(
                scan_id, done, [], _Group(readings.Columns(()), []), _Group(readings.Columns(()), [])
            )
            yield from self._unstage_run(run)
            raise
        for name, (_, refused) in described.items():
            for why in refused.values():
                self._post(Warn(why, name, scan_id))
        self.runs[scan_id] = StagedRun(
            scan_id,
            to_stage,
            [adapters[name] for name in action.triggered],
            self._group([adapters[name] for name in action.monitored], described),
            self._group([adapters[name] for name in action.baseline], described),
            queue=action.queue,
            given=tuple(action.given),
        )
        devices = [described[name][0].model_dump() for name in names]
        return {"devices": devices, "given": list(action.given)} if action.given else {"devices": devices}

    def _unstage(self, message: DeviceInstructionMessage) -> Steps:
        run = self.runs.pop(message.scan_id or message.instruction_id, None)
        if run is not None:
            problems = yield from self._unstage_run(run)
            if problems:
                raise Failed(_joined(problems))
        return None

    def _unstage_run(self, run: StagedRun) -> Steps:
        """Unstage all, whatever fails; the failures. Not ended by a stop: it is part of cleaning up."""
        problems: list[ErrorInfo] = []
        results = yield from self._each(
            None,
            "unstage",
            list(reversed(run.staged)),
            lambda adapter: adapter.unstage(),
            quick=lambda adapter: not adapter.has_own("unstage"),
        )
        for adapter, endings, error in results:
            for ending in endings or ():
                while not ending.done:
                    yield ending
                error = error or failure_of(ending)
            if error is not None:
                problems.append(failures.failure(error, adapter.name, "be unstaged"))
        return problems

    def _for_staged(
        self,
        message: DeviceInstructionMessage,
        operation: str,
        function: Callable[[DeviceAdapter], list[Ending]],
    ) -> Steps:
        run = self._run_of(message)
        having = [adapter for adapter in run.staged if adapter.has_own(operation)]
        problems: list[ErrorInfo] = []
        results = yield from self._each(message, operation, having, function, quick=lambda adapter: False)
        for adapter, endings, error in results:
            if error is None:
                for ending in endings:
                    yield from self._finish(message, ending)
                    error = error or failure_of(ending)
            if error is not None:
                problems.append(failures.failure(error, adapter.name, operation.replace("_", "-")))
        if problems:
            raise Failed(_joined(problems))
        return None

    def _baseline(self, message: DeviceInstructionMessage, action: ReadBaseline) -> Steps:
        run = self._run_of(message)
        run.schema_version = action.schema_version
        group = run.baseline
        values: list[Any] = [None] * len(group.columns.keys)
        times: list[Any] = [0.0] * len(values)
        results = yield from self._each_source(message, group.sources)
        for source, found, error in results:
            name = source.adapter.name
            if error is None:
                try:
                    _fill(source, found, values, times)
                    continue
                except DeviceError as missing:
                    error = missing
            for column, _, _ in source.wanted:
                values[column] = None
            info = failures.failure(error, name, "be read for the baseline")
            self._post(Warn(info.error_message, name, run.scan_id, info.traceback))
        now = self._clock.now()
        self._hand_over(Block(run.scan_id, run, "baseline", 0, [values], [times], [now], [], [], 1))
        return None

    def _points(self, message: DeviceInstructionMessage, action: RunPoints) -> Steps:
        run = self._run_of(message)
        run.schema_version = action.schema_version
        control, clock = self._control, self._clock
        monotonic, now = clock.monotonic, clock.now
        group = run.monitored
        motors = self._motors_of(run, action)
        minimum_exposure = action.exp_time_s * max(1, action.frames_per_trigger)
        width = len(group.columns.keys)
        targets = run.targets
        block: Block | None = None
        begun = 0.0
        epochs = None
        guards, watch = self._guards, NOTHING
        mark: object = None
        trip: object = None
        if run.started is None:
            run.started = now() - (action.at[0] if action.at else 0.0)

        given = _given(run, action, action.positions)

        def flush() -> None:
            nonlocal block
            if block is not None:
                full, block = block, None
                self._hand_over(full, given, full.first_index - action.first_index)

        try:
            number = 0
            while number < action.count:
                if control.epochs is not epochs:
                    flush()
                    yield from self._obey(message)
                    epochs = control.epochs
                if guards.mark is not mark:
                    mark, trip, watch = guards.mark, guards.last_trip(run.queue), guards.watch(run.queue)
                    if guards.holds(run.queue):
                        flush()
                        yield from self._wait_for_release(message, run)
                        mark = None
                        continue
                if len(run.uncommitted) >= BLOCKS_AHEAD:
                    yield from self._hold_back(message, run)
                if action.at:
                    wanted = run.started + action.at[number]
                    if wanted > now():
                        flush()
                        yield from self._sleep(message, monotonic() + wanted - now())
                # Move
                moving = [
                    (adapter, line[number])
                    for adapter, line in motors
                    if targets.get(adapter.name) != line[number]
                ]
                if moving:
                    waits = self._start_moves(message, moving, targets)
                    if waits:
                        flush()
                        yield from self._arrive(message, waits, targets)
                if action.settling_time_s > 0:
                    flush()
                    yield from self._sleep(message, monotonic() + action.settling_time_s)
                if control.epochs is not epochs:
                    # Looked at again before the next point, where more may hold it.
                    flush()
                    yield from self._obey(message, within_point=True)
                if guards.mark is not mark and (yield from self._is_spoilt(message, run, trip, flush)):
                    continue
                # Trigger
                acq_start = now()
                exposed = monotonic() + minimum_exposure
                if run.triggered:
                    exposures = yield from self._trigger(message, run.triggered)
                    if exposures:
                        flush()
                        yield from self._expose(message, exposures)
                if minimum_exposure > 0 and monotonic() < exposed:
                    flush()
                    yield from self._sleep(message, exposed)
                if action.settling_time_after_trigger_s > 0:
                    flush()
                    yield from self._sleep(message, monotonic() + action.settling_time_after_trigger_s)
                if control.epochs is not epochs:
                    # Looked at again before the next point, where more may hold it.
                    flush()
                    yield from self._obey(message, within_point=True)
                if guards.mark is not mark and (yield from self._is_spoilt(message, run, trip, flush)):
                    continue
                # Read
                values: list[Any] = [None] * width
                times: list[Any] = [0.0] * width
                if group.slow:
                    flush()
                    yield from self._read_in_parallel(message, run, group, values, times)
                else:
                    self._read_in_series(run, group, values, times)
                if watch:
                    yield from self._look_at(message, watch)
                if guards.mark is not mark and guards.last_trip(run.queue) is not trip:
                    continue
                group.last = (values, times)
                if self.calls:
                    # Points that take no time would keep the interpreter to this thread; a client's call comes first.
                    # Not at every point: giving it up costs twice the point.
                    time.sleep(0)
                read = now()
                if block is None:
                    begun = monotonic()
                    block = Block(
                        run.scan_id,
                        run,
                        "monitored",
                        action.first_index + number,
                        [values],
                        [times],
                        [read],
                        [acq_start],
                        [read],
                        action.attempt,
                    )
                else:
                    block.rows.append(values)
                    block.times.append(times)
                    block.server_times.append(read)
                    block.acq_start.append(acq_start)
                    block.acq_end.append(read)
                    if len(block.rows) >= BLOCK_POINTS or monotonic() - begun >= BLOCK_S:
                        flush()
                number += 1
        finally:
            flush()
        if action.want_reading and group.last is not None:
            return group.columns.as_reading(*group.last)
        return None

    def _sweep(self, message: DeviceInstructionMessage, action: SweepDevice) -> Steps:
        """Points while one device moves. Once it moves a pause is not obeyed; a stop is, at any time, and so is an
        interlock: the device is stopped, and goes the rest of its way when it is released.
        """
        run = self._run_of(message)
        run.schema_version = action.schema_version
        (adapter,) = self._usable([action.device])
        for end in (action.start, action.target):
            if end is not None:
                self._checked_target(adapter, end)
        taken = 0
        rest: SweepDevice | None = action
        while rest is not None:
            yield from self._obey(message)
            # Before it is looked whether one holds: what trips from now on is noticed by the points.
            taking = _Taking(self, message, rest, run)
            if self._guards.holds(run.queue):
                yield from self._wait_for_release(message, run)
                continue
            is_held = yield from self._go_the_way(message, rest, adapter, run, taking)
            taken += taking.count
            rest = rest_of_sweep(rest, rest.first_index + taking.count, taking.position) if is_held else None
        results = yield from self._each(None, "read", [adapter], lambda device: device.read(), writes=False)
        read_backs = {adapter.name: reading for adapter, reading, problem in results if problem is None}
        return _WithReadBacks({"points": taken}, read_backs)

    def _go_the_way(
        self,
        message: DeviceInstructionMessage,
        action: SweepDevice,
        adapter: DeviceAdapter,
        run: StagedRun,
        taking: _Taking,
    ) -> Steps:
        """Returns whether an interlock has ended it before its end."""
        if action.start is not None:
            waits = self._start_moves(message, [(adapter, action.start)], run.targets)
            yield from self._arrive(message, waits, run.targets)
        updates = itertools.count(1)

        def told() -> None:
            # One thread tells a device's positions, so that none is lost in counting.
            taking.updates = next(updates)
            self._wake(message.instruction_id)

        arrived = False
        ending: Ending | None = None
        to_undo: list[Callable[[], None]] = []
        try:
            if action.velocity is not None:
                to_undo.append(adapter.slow_down(action.velocity))
            to_undo.append(adapter.watch(told))
            ending = yield from self._set_off(message, action, adapter, run)
            if action.marks:
                yield from self._at_marks(message, action, adapter, ending, taking)
            else:
                yield from self._at_updates(message, action, ending, taking)
            if ending is not None:
                taking.flush()
                yield from self._finish(message, ending)
                error = failure_of(ending)
                if error is not None:
                    raise Failed(failures.failure(error, adapter.name, "go its way"))
            arrived = True
        except _Held:
            taking.flush()
            # Until it stands, and nothing of this is left that could stop it on the rest of its way.
            for future in self._control.stop_devices([adapter.name]):
                yield from self._finish(message, FutureEnding(future))
            if ending is not None:
                yield from self._finish(message, ending)
            arrived = True
            return True
        finally:
            taking.flush()
            run.targets.pop(adapter.name, None)
            if not arrived:
                self._control.stop_devices([adapter.name])
            for undo in to_undo:
                undo()
        return False

    def _at_marks(
        self,
        message: DeviceInstructionMessage,
        action: SweepDevice,
        adapter: DeviceAdapter,
        ending: Ending | None,
        taking: _Taking,
    ) -> Steps:
        monotonic = self._clock.monotonic
        direction = 1 if len(action.marks) < 2 or action.marks[-1] > action.marks[0] else -1
        if len(action.marks) == 1 and action.target is not None and action.target < action.marks[0]:
            direction = -1
        pace = MarkPace(action.marks, direction, action.tolerance, action.velocity)
        while not pace.is_done:
            # Asked first: a device that was there already has passed all that it will pass.
            there = ending is None or ending.done
            position = adapter.position
            wait = pace.wait(monotonic(), position)
            if wait > 0 and there:
                break
            if wait > 0:
                taking.flush()
                yield Until(monotonic() + wait)
                self._unless_stopped(message)
                taking.unless_held()
                continue
            pace.take(position)
            yield from taking.point()
        if ending is not None and ending.done and failure_of(ending) is None and not pace.is_done:
            left = len(action.marks) - pace.next
            raise Failed(
                ErrorInfo(
                    error_message=f"{adapter.name} ended its way at {_number(adapter, adapter.position)}, before "
                    f"{left} of {len(action.marks)} points; choose an offset that takes it further",
                    code=ReasonCode.DEVICE_FAILED,
                    device=adapter.name,
                )
            )
        if pace.late:
            text = (
                f"{adapter.name} was more than {_number(adapter, action.tolerance)} past the wanted position at "
                f"{pace.late} of {len(action.marks)} points; where it was is in the data. Choose fewer steps, or a "
                "longer exp_time, which makes it move more slowly"
            )
            self._post(Warn(text, adapter.name, message.scan_id))

    def _at_updates(
        self,
        message: DeviceInstructionMessage,
        action: SweepDevice,
        ending: Ending | None,
        taking: _Taking,
    ) -> Steps:
        monotonic = self._clock.monotonic
        pace = UpdatePace(action.on_update, action.counted, action.min_interval_s, action.max_interval_s)
        if ending is not None:
            ending.add_callback(lambda *_: self._wake(message.instruction_id))
        while ending is not None and not ending.done:
            wait = pace.wait(monotonic(), taking.updates)
            if wait is None or wait > 0:
                if wait is None or wait > LOOK_S:
                    taking.flush()
                yield WOKEN if wait is None else Until(monotonic() + wait)
                self._unless_stopped(message)
                taking.unless_held()
                continue
            pace.take(monotonic(), taking.updates)
            yield from taking.point()
        if ending is not None and failure_of(ending) is not None:
            return
        # A flyer's last positions may have come while points were taken; of others the end is of interest.
        expected = max((len(v) for v in (action.kickoff or {}).values() if isinstance(v, list)), default=0)
        for _ in range(max(0, expected - taking.count) if action.counted else 1):
            yield from taking.point()

    def _set_off(
        self,
        message: DeviceInstructionMessage,
        action: SweepDevice,
        adapter: DeviceAdapter,
        run: StagedRun,
    ) -> Steps:
        """Let it go; what ends its way, None if it is there already."""
        if action.kickoff is None:
            waits = self._start_moves(message, [(adapter, action.target)], run.targets)
            return waits[0][2] if waits else None
        for operation, function in (
            ("kickoff", functools.partial(adapter.kickoff, action.kickoff)),
            ("complete", adapter.complete),
        ):
            future = self.lane(adapter.name, writes=True).submit(operation, function)
            yield from self._finish(message, FutureEnding(future))
            error = future.exception()
            endings: Sequence[Ending] = () if error is not None else future.result()
            if operation == "complete" and endings:
                return endings[0]
            for ending in endings:
                yield from self._finish(message, ending)
                error = error or failure_of(ending)
            if error is not None:
                raise Failed(failures.failure(error, adapter.name, operation))
        return None

    def _checked_target(self, adapter: DeviceAdapter, target: float) -> None:
        try:
            adapter.check_target(target)
        except Exception as error:
            raise Failed(failures.failure(error, adapter.name, f"move to {target!r}")) from error

    def _wake(self, instruction_id: str) -> None:
        task = self._control.tasks.get(instruction_id)
        if task is not None:
            task.wake()

    def _move(self, message: DeviceInstructionMessage, action: MoveDevices) -> Steps:
        adapters = {adapter.name: adapter for adapter in self._usable(action.targets)}
        problems = []
        for name, target in action.targets.items():
            try:
                adapters[name].check_target(target)
            except Exception as error:  # noqa: BLE001 - devices raise anything; it is told
                problems.append(failures.failure(error, name, f"move to {target!r}"))
        if problems:
            raise Failed(_joined(problems))
        run = self.runs.get(message.scan_id or "")
        targets: dict[str, float] = run.targets if run is not None else {}
        moving = [(adapters[name], target) for name, target in action.targets.items()]
        waits = self._start_moves(message, moving, targets)
        stopped: BaseException | None = None
        try:
            yield from self._arrive(message, waits, targets)
        except (Failed, Stopped) as error:
            stopped = error
        read_backs = {}
        results = yield from self._each(
            None, "read", list(adapters.values()), lambda adapter: adapter.read(), writes=False
        )
        for adapter, reading, problem in results:
            if problem is None:
                read_backs[adapter.name] = reading
        if stopped is not None:
            raise stopped
        return _WithReadBacks(None, read_backs)

    def _read(self, message: DeviceInstructionMessage, action: ReadDevices) -> Steps:
        results = yield from self._each(
            message, "read", self._usable(action.devices), lambda adapter: adapter.read(), writes=False
        )
        problems = [
            failures.failure(error, adapter.name, "be read")
            for adapter, _, error in results
            if error is not None
        ]
        if problems:
            raise Failed(_joined(problems))
        read_backs = {adapter.name: reading for adapter, reading, _ in results}
        plain = {name: readings.plain_reading(reading) for name, reading in read_backs.items()}
        return _WithReadBacks(plain, read_backs)

    def _call(self, message: DeviceInstructionMessage, action: CallDevice) -> Steps:
        (adapter,) = self._usable([action.device])
        call = adapter.permitted(action.func, assign=False)
        if message.scan_id in self.runs:
            self.runs[message.scan_id].targets.pop(action.device, None)
        results = yield from self._each(
            message,
            f"call {action.func}",
            [adapter],
            lambda adapter: adapter.call(call, action.args, action.kwargs),
            quick=lambda adapter: False,
        )
        _, result, error = results[0]
        if error is None and hasattr(result, "add_callback"):
            yield from self._finish(message, result)
            result, error = None, failure_of(result)
        if error is not None:
            raise Failed(failures.failure(error, action.device, f"do {action.func}"))
        return result

    def _prepare(self, action: PrepareSession) -> Steps:
        before: tuple[Prepared, dict[str, Any]] | None = None
        if action.continues:
            if self._prepared is None:
                text = "there is no session being prepared that could be continued"
                raise Failed(ErrorInfo(error_message=text, code=ReasonCode.WRONG_STATE))
            before = self._prepared[:2]
        elif self._prepared is not None:
            yield from self._rollback()
        earlier, raw = before or (None, {} if action.replace else self._raw)
        raw = {**raw, **action.devices}
        for name in action.remove:
            raw.pop(name, None)
        prepared = self._loader.prepare(
            raw,
            None if action.replace else action.devices,
            rebuild=action.rebuild,
            others=action.others,
            in_use=self.in_use(),
            earlier=earlier,
        )
        self._prepared = (prepared, raw, action.replace)
        kept = {name: f"{name} stays as it was: {why}" for name, why in prepared.kept.items()}
        return {"ready": prepared.ready, "failed": dict(prepared.failed), "kept": kept}

    def _commit(self, action: CommitSession) -> Steps:
        if self._prepared is None:
            raise Failed(
                ErrorInfo(error_message="there is no prepared session to commit", code=ReasonCode.WRONG_STATE)
            )
        yield from ()
        (prepared, raw, whole), self._prepared = self._prepared, None
        dropped = self._loader.commit(prepared, raw, whole=whole)
        self._raw = raw
        infos = {name: adapter.info() for name, adapter in prepared.adapters.items()}
        return SessionChange(raw, action.version, dropped, infos)

    def _rollback(self) -> Steps:
        yield from ()
        if self._prepared is not None:
            (prepared, _, _), self._prepared = self._prepared, None
            for adapter in self._loader.discard(prepared):
                adapter.destroy()
        return None

    # Phases

    def _start_moves(
        self,
        message: DeviceInstructionMessage,
        moving: Sequence[tuple[DeviceAdapter, Any]],
        targets: dict[str, float],
    ) -> list[tuple[DeviceAdapter, Any, Ending]]:
        """Send motors on their way; those that are to be waited for. What fails to start stops those that did."""
        waits: list[tuple[DeviceAdapter, Any, Ending]] = []
        for adapter, target in moving:
            name = adapter.name
            lane = self.lane(name, writes=True)
            try:
                if lane.is_quick("set") and lane.try_enter():
                    begun = time.perf_counter()
                    try:
                        ending = adapter.set(target)
                    finally:
                        lane.leave()
                        lane.note("set", time.perf_counter() - begun)
                else:
                    ending = _Submitted(lane.submit("set", functools.partial(adapter.set, target)))
            except Exception as error:
                targets.pop(name, None)
                self._control.stop_devices([other.name for other, _, _ in waits])
                raise Failed(failures.failure(error, name, f"move to {_number(adapter, target)}")) from error
            targets[name] = target
            if ending is not None:
                waits.append((adapter, target, ending))
        return waits

    def _arrive(
        self,
        message: DeviceInstructionMessage,
        waits: Sequence[tuple[DeviceAdapter, Any, Ending]],
        targets: dict[str, float],
    ) -> Steps:
        """Wait until all motors are there. The first that fails stops the others."""
        for adapter, target, ending in waits:
            while not ending.done:
                yield ending
                if not self._control.epochs.admits(message.scan_id, message.run_epoch):
                    for other, _, _ in waits:
                        targets.pop(other.name, None)
                    raise Stopped
            error = failure_of(ending)
            if error is None:
                continue
            for other, _, _ in waits:
                targets.pop(other.name, None)
            if not self._control.epochs.admits(message.scan_id, message.run_epoch):
                raise Stopped
            self._control.stop_devices([other.name for other, _, left in waits if not left.done])
            raise Failed(failures.failure(error, adapter.name, f"reach {_number(adapter, target)}"))

    def _trigger(self, message: DeviceInstructionMessage, adapters: list[DeviceAdapter]) -> Steps:
        """Trigger all; (device, ending) of those that take time."""
        results = yield from self._each(message, "trigger", adapters, lambda adapter: adapter.trigger())
        exposures = []
        for adapter, ending, error in results:
            if error is not None:
                raise Failed(failures.failure(error, adapter.name, "be triggered"))
            if ending is not None:
                exposures.append((adapter, ending))
        return exposures

    def _expose(
        self, message: DeviceInstructionMessage, exposures: Sequence[tuple[DeviceAdapter, Ending]]
    ) -> Steps:
        for adapter, ending in exposures:
            yield from self._finish(message, ending)
            error = failure_of(ending)
            if error is not None:
                raise Failed(failures.failure(error, adapter.name, "be triggered"))

    def _read_in_series(self, run: StagedRun, group: _Group, values: list[Any], times: list[Any]) -> None:
        """One slice: all devices after each other on this thread."""
        begun = time.perf_counter()
        for source in group.sources:
            lane = source.lane
            entered = lane.try_enter()
            try:
                found = source.read() if entered else lane.submit("points", source.read).result()
                for column, signal, is_float in source.wanted:
                    item = found[signal]
                    value = item["value"]
                    values[column] = value if type(value) is float else readings.value_for(value, is_float)
                    times[column] = item["timestamp"]
            except Exception as error:  # noqa: BLE001 - devices raise anything; it is told
                self._again(run, group, source, values, times, error)
            finally:
                if entered:
                    lane.leave()
        if time.perf_counter() - begun > SLICE_S + 2e-5 * len(group.sources):
            # Next time each is timed, and those that are slow get threads of their own.
            group.slow = set(range(len(group.sources)))

    def _read_in_parallel(
        self,
        message: DeviceInstructionMessage,
        run: StagedRun,
        group: _Group,
        values: list[Any],
        times: list[Any],
    ) -> Steps:
        results = yield from self._each_source(message, group.sources)
        for source, found, error in results:
            if error is None:
                try:
                    _fill(source, found, values, times)
                    continue
                except DeviceError as missing:
                    error = missing
            self._again(run, group, source, values, times, error)
        group.slow = {
            number for number, source in enumerate(group.sources) if not source.lane.is_quick("points")
        }

    def _again(
        self,
        run: StagedRun,
        group: _Group,
        source: _Source,
        values: list[Any],
        times: list[Any],
        error: BaseException,
    ) -> None:
        """A reading has failed: what the device's `onFailure` says."""
        adapter = source.adapter
        policy = adapter.config.onFailure
        if isinstance(error, KeyError):
            error = readings.missing_signal(adapter.name, str(error.args[0]), ())
        if policy is FailurePolicy.RETRY:
            try:
                _fill(source, source.read(), values, times)
                log.warning("%s", failures.sentence(error, adapter.name, "be read at first"))
                return
            except Exception as second:  # noqa: BLE001 - devices raise anything; it is told
                error = second
        elif policy is FailurePolicy.BUFFER and group.last is not None:
            for column, _, _ in source.wanted:
                values[column], times[column] = group.last[0][column], group.last[1][column]
            if adapter.name not in run.warned:
                run.warned.add(adapter.name)
                text = failures.sentence(error, adapter.name, "be read")
                self._post(
                    Warn(f"{text}; its last value is used (onFailure: buffer)", adapter.name, run.scan_id)
                )
            return
        raise Failed(failures.failure(error, adapter.name, "be read")) from error

    # Doing the same to many

    def _each(
        self,
        message: DeviceInstructionMessage | None,
        operation: str,
        adapters: Sequence[DeviceAdapter],
        function: Callable[[DeviceAdapter], Any],
        *,
        writes: bool = True,
        quick: Callable[[DeviceAdapter], bool] = lambda adapter: True,
    ) -> Steps:
        """[(device, result, error)]. Slow ones side by side on the pool, quick ones in series here.

        quick: what to think of a device that has not been asked before. message: ended by its stop; None: not ended.
        """
        jobs = [
            (
                self.lane(adapter.name, writes=writes),
                functools.partial(function, adapter),
                quick(adapter),
            )
            for adapter in adapters
        ]
        results = yield from self._all(message, operation, jobs)
        return [(adapter, *result) for adapter, result in zip(adapters, results, strict=True)]

    def _each_source(self, message: DeviceInstructionMessage | None, sources: Sequence[_Source]) -> Steps:
        jobs = [(source.lane, source.read, True) for source in sources]
        results = yield from self._all(message, "points", jobs)
        return [(source, *result) for source, result in zip(sources, results, strict=True)]

    def _all(
        self,
        message: DeviceInstructionMessage | None,
        operation: str,
        jobs: Sequence[tuple[Lane, Callable[[], Any], bool]],
    ) -> Steps:
        results: list[tuple[Any, BaseException | None]] = [(None, None)] * len(jobs)
        inline: list[int] = []
        waiting: list[tuple[int, Any]] = []
        for number, (lane, function, quick) in enumerate(jobs):
            if lane.is_quick(operation, quick):
                inline.append(number)
            else:
                waiting.append((number, lane.submit(operation, function)))
        for number in inline:
            lane, function, _ = jobs[number]
            if not lane.try_enter():
                waiting.append((number, lane.submit(operation, function)))
                continue
            begun = time.perf_counter()
            try:
                results[number] = (function(), None)
            except Exception as error:  # noqa: BLE001 - devices raise anything; it is told
                results[number] = (None, error)
            finally:
                lane.leave()
            lane.note(operation, time.perf_counter() - begun)
        for number, future in waiting:
            while not future.done():
                yield FutureEnding(future)
                self._unless_stopped(message)
            problem = future.exception()
            results[number] = (None, problem) if problem is not None else (future.result(), None)
        return results

    # Waiting

    def _finish(self, message: DeviceInstructionMessage | None, ending: Ending) -> Steps:
        while not ending.done:
            yield ending
            self._unless_stopped(message)

    def _sleep(self, message: DeviceInstructionMessage, deadline: float) -> Steps:
        while self._clock.monotonic() < deadline:
            yield Until(deadline)
            self._unless_stopped(message)

    def _hold_back(self, message: DeviceInstructionMessage, run: StagedRun) -> Steps:
        while len(run.uncommitted) >= BLOCKS_AHEAD:
            yield WOKEN
            self._unless_stopped(message)

    def _obey(self, message: DeviceInstructionMessage, *, within_point: bool = False) -> Steps:
        """Wait while the scan is paused. Raises Stopped if it is void."""
        while True:
            self._unless_stopped(message)
            if not self._control.epochs.holds(message.scan_id, within_point=within_point):
                return
            yield WOKEN

    def _wait_for_release(self, message: DeviceInstructionMessage, run: StagedRun) -> Steps:
        """Wait while an interlock holds the scan's queue. Points at given times are that much later."""
        held = self._clock.now()
        while self._guards.holds(run.queue):
            yield WOKEN
            self._unless_stopped(message)
        if run.started is not None:
            run.started += self._clock.now() - held

    def _is_spoilt(
        self, message: DeviceInstructionMessage, run: StagedRun, trip: object, flush: Callable[[], None]
    ) -> Steps:
        """Whether an interlock that has points taken again has tripped since `trip`. Others are waited for."""
        if self._guards.last_trip(run.queue) is trip and self._guards.holds(run.queue):
            flush()
            yield from self._wait_for_release(message, run)
        return self._guards.last_trip(run.queue) is not trip

    def _look_at(self, message: DeviceInstructionMessage, watch: Watch) -> Steps:
        """The verdict on a point: read the devices in the conditions of interlocks, which may trip by it."""
        adapters = []
        for name in watch.devices:
            try:
                adapters.append(usable(self._loader.in_force, name, self._server))
            except DeviceError as error:
                self._guards.failed(name, error.message)
        results = yield from self._each(
            message, "read", adapters, lambda adapter: adapter.read(), writes=False
        )
        for adapter, reading, failure in results:
            if failure is None:
                self._guards.changed(adapter.name, reading)
            else:
                self._guards.failed(adapter.name, failures.sentence(failure, adapter.name, "be read"))
        if watch.wait_s > 0:
            yield from self._sleep(message, self._clock.monotonic() + watch.wait_s)

    def _unless_stopped(self, message: DeviceInstructionMessage | None) -> None:
        if message is not None and not self._control.epochs.admits(message.scan_id, message.run_epoch):
            raise Stopped

    # Pieces

    def _hand_over(self, block: Block, given: Sequence[Sequence[Any]] = (), first: int = 0) -> None:
        """first: of the block's points, in the columns that were given."""
        block.given = [_part(column, first, len(block.rows)) for column in given]
        block.run.uncommitted.append(None)
        self._post(block)

    def _run_of(self, message: DeviceInstructionMessage) -> StagedRun:
        scan_id = message.scan_id or message.instruction_id
        run = self.runs.get(scan_id)
        if run is not None:
            return run
        if scan_id in self._known:
            raise Failed(
                ErrorInfo(
                    error_message=f"the scan is not staged on the device server {self._server!r}",
                    code=ReasonCode.WRONG_STATE,
                )
            )
        # Staged on a predecessor of this process, most likely: whoever sent it stages again.
        raise Stopped(
            f"the scan is not staged on the device server {self._server!r}, which has been started anew"
        )

    def _usable(self, names: Iterable[str]) -> list[DeviceAdapter]:
        """Devices by name. Raises Failed that names all that cannot be used, with the reasons."""
        problems = []
        found = []
        for name in names:
            try:
                found.append(usable(self._loader.in_force, name, self._server))
            except DeviceError as error:
                problems.append(failures.failure(error, name, "be used"))
        if problems:
            raise Failed(_joined(problems))
        return found

    def _motors_of(self, run: StagedRun, action: RunPoints) -> list[tuple[DeviceAdapter, list[float]]]:
        adapters = self._usable(action.positions)
        problems = []
        motors = []
        for adapter in adapters:
            line = action.positions[adapter.name]
            if len(line) < action.count:
                text = f"{len(line)} positions of {adapter.name} were given for {action.count} points"
                problems.append(
                    ErrorInfo(error_message=text, code=ReasonCode.INVALID_ARGUMENT, device=adapter.name)
                )
                continue
            try:
                adapter.check_target(line[0])
                adapter.check_targets(line)
            except Exception as error:  # noqa: BLE001 - devices raise anything; it is told
                problems.append(failures.failure(error, adapter.name, "be moved"))
            motors.append((adapter, line))
        if problems:
            raise Failed(_joined(problems))
        return motors

    def _group(self, adapters: Sequence[DeviceAdapter], described: Mapping[str, Any]) -> _Group:
        keys: list[tuple[str, str]] = []
        sources: list[_Source] = []
        for adapter in adapters:
            columns = {}
            for signal in described[adapter.name][0].signals:
                columns[signal.signal] = (len(keys), signal.dtype.startswith("float") and not signal.shape)
                keys.append((adapter.name, signal.signal))
            for read, signals in adapter.reads():
                wanted = [
                    (columns[signal][0], signal, columns[signal][1])
                    for signal in signals
                    if signal in columns
                ]
                if wanted:
                    sources.append(_Source(adapter, self.lane(adapter.name), read, wanted))
        return _Group(readings.Columns(tuple(keys)), sources)

    def _finished(
        self, message: DeviceInstructionMessage, result: Any, error: BaseException | None
    ) -> Finished:
        number = message.instruction_id
        if isinstance(error, Stopped):
            text = str(error)
            info = ErrorInfo(error_message=text, code=ReasonCode.SERVICE_DOWN) if text else None
            return Finished(number, stopped=True, error=info)
        if isinstance(error, Failed):
            if error.info.traceback:
                log.debug("%s\n%s", error.info.error_message, error.info.traceback)
            return Finished(number, error=error.info)
        if error is not None:
            log.error("%s failed", message.action.kind, exc_info=error)
            device = getattr(message.action, "device", None)
            return Finished(number, error=failures.failure(error, device, message.action.kind))
        if isinstance(result, _WithReadBacks):
            return Finished(number, result=result.result, read_backs=result.read_backs)
        if isinstance(result, SessionChange):
            return Finished(number, session=result)
        return Finished(number, result=result)


class _Taking:
    """Takes the points of a sweep one by one, and hands them over in blocks."""

    def __init__(
        self,
        instructions: Instructions,
        message: DeviceInstructionMessage,
        action: SweepDevice,
        run: StagedRun,
    ):
        self._of = instructions
        self._message = message
        self._action = action
        self._run = run
        self._given = _given(run, action, {action.device: action.marks})
        self._block: Block | None = None
        self._begun = 0.0
        self.count = 0
        # Positions told so far.
        self.updates = 0
        # Where the last point was, if its device is read.
        self.position: float | None = None
        self._column = _column_of(run.monitored, action.device)
        self._mark = instructions._guards.mark
        self._trip = instructions._guards.last_trip(run.queue)
        # What another device server or the scan server judges cannot be waited for on the way.
        self._watch = replace(instructions._guards.watch(run.queue), wait_s=0.0)

    def unless_held(self) -> None:
        """Raises _Held if an interlock holds the scan."""
        guards, queue = self._of._guards, self._run.queue
        if guards.mark is not self._mark and (guards.holds(queue) or self._is_spoilt):
            raise _Held

    @property
    def _is_spoilt(self) -> bool:
        guards = self._of._guards
        return guards.mark is not self._mark and guards.last_trip(self._run.queue) is not self._trip

    def flush(self) -> None:
        if self._block is not None:
            full, self._block = self._block, None
            self._of._hand_over(full, self._given, full.first_index - self._action.first_index)

    def point(self) -> Steps:
        of, message, action, run = self._of, self._message, self._action, self._run
        clock, group = of._clock, run.monitored
        # The device does not wait while the broker is away; if that is for long it is stopped.
        if len(run.uncommitted) >= SWEEP_BLOCKS_AHEAD:
            yield from of._hold_back(message, run)
        begun = clock.now()
        exposed = clock.monotonic() + action.exp_time_s * max(1, action.frames_per_trigger)
        if run.triggered:
            exposures = yield from of._trigger(message, run.triggered)
            yield from of._expose(message, exposures)
        if action.exp_time_s > 0:
            yield from of._sleep(message, exposed)
        if action.settling_time_after_trigger_s > 0:
            yield from of._sleep(message, clock.monotonic() + action.settling_time_after_trigger_s)
        width = len(group.columns.keys)
        values: list[Any] = [None] * width
        times: list[Any] = [0.0] * width
        if group.slow:
            yield from of._read_in_parallel(message, run, group, values, times)
        else:
            of._read_in_series(run, group, values, times)
        if self._watch:
            yield from of._look_at(message, self._watch)
        if self._is_spoilt:
            raise _Held
        group.last = (values, times)
        if self._column is not None:
            self.position = values[self._column]
        read = clock.now()
        if self._block is None:
            self._begun = clock.monotonic()
            first = action.first_index + self.count
            self._block = Block(run.scan_id, run, "monitored", first, [], [], [], [], [], 1)
        block = self._block
        block.rows.append(values)
        block.times.append(times)
        block.server_times.append(read)
        block.acq_start.append(begun)
        block.acq_end.append(read)
        self.count += 1
        if len(block.rows) >= BLOCK_POINTS or clock.monotonic() - self._begun >= BLOCK_S:
            self.flush()


def _column_of(group: _Group, device: str) -> int | None:
    """Of a device's main signal; None if it is not read."""
    columns = [number for number, (name, _) in enumerate(group.columns.keys) if name == device]
    main = [number for number in columns if group.columns.keys[number][1] == device]
    return next(iter([*main, *columns]), None)


@dataclass(slots=True)
class _WithReadBacks:
    result: Any
    read_backs: dict[str, Mapping[str, Any]]


class _Submitted:
    """An `Ending` of a `set` that was handed to a lane: done when the status that it returns is done."""

    def __init__(self, future: Any):
        self._future = future

    @property
    def done(self) -> bool:
        if not self._future.done():
            return False
        status = self._status()
        return status is None or status.done

    def add_callback(self, callback: Callable[[Any], None]) -> None:
        def chain(_: Any) -> None:
            status = self._status()
            if status is None:
                callback(self)
            else:
                status.add_callback(callback)

        self._future.add_done_callback(chain)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        error = self._future.exception()
        if error is not None:
            return error  # type: ignore[no-any-return]
        status = self._status()
        return None if status is None else failure_of(status)

    def _status(self) -> Any:
        return None if self._future.exception() is not None else self._future.result()


def _interrupted(message: DeviceInstructionMessage, error: Failed) -> BaseException:
    """What failed after its devices had been stopped for want of a broker has not failed by itself: whoever sent it does it
    again. What a device was called to do may not be repeatable, and has failed.
    """
    if isinstance(message.action, CallDevice):
        return error
    return Stopped(f"the broker did not answer, so what moved was stopped ({error.info.error_message})")


def usable(devices: Mapping[str, DeviceAdapter], name: str, server: str) -> DeviceAdapter:
    """A device that can be used now. Raises DeviceError with the reason."""
    adapter = devices.get(name)
    if adapter is None:
        raise DeviceError(
            f"there is no device {name!r} on the device server {server!r}",
            code=ReasonCode.UNKNOWN_DEVICE,
            device=name,
        )
    if adapter.state == "failed":
        raise DeviceError(
            f"{name} cannot be used: {adapter.error}", code=ReasonCode.NOT_CONNECTED, device=name
        )
    if adapter.state == "disabled":
        raise DeviceError(
            f"{name} is disabled; set `enabled: true` in its configuration (dev.{name}.enabled = True)",
            code=ReasonCode.DEVICE_DISABLED,
            device=name,
        )
    return adapter


def _stage_afresh(adapter: DeviceAdapter) -> list[Ending]:
    """Stage; a device that an earlier scan left staged is unstaged first."""
    try:
        return adapter.stage()
    except Exception as error:
        if type(error).__name__ != "RedundantStaging":
            raise
        log.warning("%s was still staged; it is unstaged and staged again", adapter.name)
        adapter.unstage()
        return adapter.stage()


def _given(
    run: StagedRun, action: RunPoints | SweepDevice, targets: Mapping[str, Sequence[float]]
) -> list[Sequence[Any]]:
    """The columns of a run that are not read, in their order: one value per point, one for all, or none."""
    return [action.given.get(name) or targets.get(name, ()) for name in run.given]


def _part(column: Sequence[Any], first: int, count: int) -> list[Any]:
    """The values of `count` points; None where there are no more."""
    if len(column) == 1 and first + count > 1:
        return [column[0]] * count
    part = list(column[first : first + count])
    return part + [None] * (count - len(part))


def _fill(
    source: _Source, found: Mapping[str, Mapping[str, Any]], values: list[Any], times: list[Any]
) -> None:
    """Put a reading into its columns. Raises DeviceError if it has not all that was described."""
    for column, signal, is_float in source.wanted:
        try:
            item = found[signal]
        except KeyError:
            raise readings.missing_signal(source.adapter.name, signal, list(found)) from None
        values[column] = readings.value_for(item["value"], is_float)
        times[column] = item["timestamp"]


def failure_of(ending: Any) -> BaseException | None:
    """Why an ending that is done has failed. Statuses of old make have only `success`."""
    ask = getattr(ending, "exception", None)
    error = ask() if ask is not None else None
    if error is not None:
        return error if isinstance(error, BaseException) else error()  # type: ignore[no-any-return]
    if getattr(ending, "success", True):
        return None
    return BECError("it failed without saying why", code=ReasonCode.DEVICE_FAILED)


def _joined(problems: Sequence[ErrorInfo]) -> ErrorInfo:
    """All problems as one, with the code and device of the first."""
    first = problems[0]
    if len(problems) == 1:
        return first
    return first.model_copy(
        update={
            "error_message": "; ".join(problem.error_message for problem in problems),
            "traceback": "\n".join(problem.traceback for problem in problems if problem.traceback),
        }
    )


def _number(adapter: DeviceAdapter, target: Any) -> str:
    try:
        text = f"{float(target):.6g}"
    except (TypeError, ValueError):
        return repr(target)
    return f"{text} {adapter.unit}" if adapter.unit else text
