"""The life of one scan, or of one `mv`, around its generator of steps.

Plain values in (replies, commands, counts, the time), effects out. Knows no Redis and no thread: the worker carries
out the effects, in order and in one batch per turn, and brings back what came of them. One owner: the worker's thread.

    phase        what is in flight                         leaves it when
    STAGING      stage (after an unstage, when resumed)    all are answered -> RUNNING, or COUNTING when resumed
    RUNNING      pre_scan, baseline, pieces of trajectory  the generator ends -> FINISHING
    FINISHING    the last pieces, complete, return,        all are answered -> ENDED, `closed`
                 unstage: sent together
    CLEANING     after an error, abort, halt or            all are answered, or given up -> COUNTING
                 user_completed: stop; return, unstage
    RECOVERING   after a restart of a device server: what  all are answered -> COUNTING
                 it answers `stopped`
    COUNTING     nothing; the worker counts the points     CLEANING: -> ENDED. RECOVERING: -> STAGING.
                 that are committed                        Resumed: -> RUNNING
    ENDED        nothing

With hooks of modifiers the steps say when what the scan server does itself is due: it begins in RUNNING, and STAGING
comes when the step `Original("stage")` does; the baseline, complete, return and unstage likewise. Each begins when all
before it is answered, and nothing is sent until it is.

Pipelined steps (`Trajectory`, `Points`, `Move`) are sent ahead, `window` instructions at a time, because a device
server runs its instructions in order. Steps with a result are journalled, and the generator waits for them. What a
clean-up has lost with a device server is sent again to its successor.
With several device servers the barrier between moving and reading is held here: one point at a time, moves first. Where
all that moves and all that is read is on one of them, it does that itself, as if there were no other.
"""

from __future__ import annotations

import math
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

import numpy as np

from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import BECError, ParameterError, ReasonCode
from bec_lib.foreign import CLEANING_UP
from bec_lib.messages import (
    AlarmMessage,
    CallDevice,
    CompleteDevices,
    ControlKind,
    DeviceControlMessage,
    DeviceInstructionMessage,
    DeviceInstructionResponse,
    DeviceSchema,
    ErrorInfo,
    FileTarget,
    InstructionStatus,
    Message,
    MoveDevices,
    PreScanDevices,
    QueueAction,
    ReadBaseline,
    ReadDevices,
    RequestDoneMessage,
    RunPoints,
    ScanJournalMessage,
    ScanPositionsMessage,
    ScanQueueMessage,
    ScanSchemaMessage,
    ScanState,
    ScanStatusMessage,
    Severity,
    SignalSchema,
    StagedDevice,
    StageDevices,
    SweepDevice,
    UnstageDevices,
)
from bec_lib.scans import (
    Call,
    Exposure,
    Move,
    Point,
    Points,
    Read,
    Scan,
    Step,
    Steps,
    Sweep,
    Trajectory,
    Wait,
)
from bec_lib.scans.estimate import main_value
from bec_lib.scans.labels import label_columns
from bec_lib.scans.modifier import Hooks, Original
from bec_lib.sweeps import rest_of_sweep, without_first
from scan_server.assembler import ScanPlan, limit_problems

CHUNK = 64
WINDOW = 4
# A halted scan ends after this even if a device server does not answer; so does an aborted one whose device server is
# silent.
HALT_S = 3.0
# A clean-up in which a device server ends more often is given up: it may be what ends it.
MOST_LOSSES = 3
GIVE_UP_S = 10.0


class Phase(Enum):
    STAGING = "staging"
    RUNNING = "running"
    FINISHING = "finishing"
    CLEANING = "cleaning"
    RECOVERING = "recovering"
    COUNTING = "counting"
    ENDED = "ended"


@dataclass(frozen=True)
class Moment:
    """now: seconds since 1970 UTC, for messages. tick: seconds of a clock that never goes back, for deadlines."""

    now: float
    tick: float


@dataclass(frozen=True)
class Order:
    """What is to be run, for whom, and under which name and number."""

    request: ScanQueueMessage
    scan_id: str
    number: int = 0
    user: str = ""
    account: str = ""
    file: FileTarget | None = None
    code_hash: str = ""
    is_scan: bool = True


@dataclass(frozen=True)
class Resumed:
    """What an earlier life of this scan has left. opened: its `open` was told; paused: it waits for somebody to
    continue it; dead_time_s: for how long interlocks had held it; held_since: and did when it ended, seconds UTC;
    schema: the last one told, if any; journal: step -> result.
    """

    opened: bool = False
    paused: bool = False
    dead_time_s: float = 0.0
    held_since: float | None = None
    started: float = 0.0
    schema: ScanSchemaMessage | None = None
    journal: Mapping[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Counted:
    """What is committed in the scan's readings. points: server -> number of its points; baseline: servers whose
    baseline is there; last: the reading of the last point, device -> signal -> {"value", "timestamp"}, if it was asked
    for.
    """

    points: Mapping[str, int]
    baseline: frozenset[str] = frozenset()
    last: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


# Effects


@dataclass(frozen=True)
class Append:
    endpoint: Endpoint
    message: Message


@dataclass(frozen=True)
class Put:
    endpoint: Endpoint
    message: Message


@dataclass(frozen=True)
class Count:
    """Look what is committed, and call `counted`. schema: of the columns, if the last point is of interest, too."""

    schema: ScanSchemaMessage | None = None


@dataclass(frozen=True)
class Recall:
    """Look up what was read at a point that is committed, and call `recalled`. schema: of the columns."""

    index: int
    schema: ScanSchemaMessage


@dataclass(frozen=True)
class Ask:
    """The run has paused itself, and goes on when somebody continues it. message: why."""

    message: str


@dataclass(frozen=True)
class Finish:
    """The run is over."""

    state: ScanState
    success: bool
    message: str = ""


Effect = Append | Put | Count | Recall | Ask | Finish


class CodeMark(Protocol):
    """Told when the scan's code, or a modifier's, begins and ends to run: so that it is known if it ends the process."""

    def enter(self, where: int) -> None:
        """where: a step (>= 0), or CLEANING_UP."""

    def leave(self) -> None: ...


class Unmarked:
    """For code that is ours."""

    def enter(self, where: int) -> None:
        pass

    def leave(self) -> None:
        pass


Action = (
    StageDevices
    | UnstageDevices
    | ReadBaseline
    | RunPoints
    | SweepDevice
    | MoveDevices
    | ReadDevices
    | CompleteDevices
    | PreScanDevices
    | CallDevice
)


@dataclass(frozen=True)
class _Sent:
    """awaited: the generator waits for its result. cleans: it is part of the clean-up. alone: with several device servers,
    whole points that this one takes without the others.
    """

    server: str
    action: Action
    awaited: bool = False
    cleans: bool = False
    alone: bool = False


@dataclass
class _Walk:
    """A run of points that is being cut into chunks. first_index: of its first point in the scan; offset: points
    already sent; base: the first of them that this life of the run takes. given: columns of labels and of targets that
    stay, one value per point or one for all.
    """

    first_index: int
    count: int
    columns: dict[str, np.ndarray]
    exposure: Exposure
    interval: float = 0.0
    offset: int = 0
    base: int = 0
    given: Mapping[str, list[Any]] = field(default_factory=dict)


class ScanRun:
    """One run. Every public method returns the effects, in order."""

    def __init__(
        self,
        order: Order,
        scan: Scan,
        plan: ScanPlan,
        epochs: Iterator[int],
        *,
        resumed: Resumed | None = None,
        hooks: Hooks | None = None,
        is_over: bool = False,
        mark: CodeMark | None = None,
        chunk: int = CHUNK,
        window: int = WINDOW,
    ):
        """is_over: it is only to be ended, so that of the hooks the clean-up alone is run."""
        self.order = order
        self.plan = plan
        self.phase = Phase.STAGING
        self.wake_at: float | None = None
        self._scan = scan
        self._epochs = epochs
        self._chunk = chunk
        self._window = window
        self._epoch = 0
        self._serial = 0
        self._out: list[Effect] = []
        self._in_flight: dict[str, _Sent] = {}
        self._boots: dict[str, str] = {}
        # Groups of instructions of which each waits for all before it; used with several device servers.
        self._groups: deque[list[_Sent]] = deque()
        self._backlog: deque[_Sent] = deque()
        self._walk: _Walk | None = None
        self._hooks = None if is_over else hooks
        self._cleaning = hooks
        self._mark: CodeMark = mark or Unmarked()
        # What the scan server does itself: what comes next of it, what has been begun, and must all be answered first?
        self._due: Original | None = None
        self._entered: set[str] = set()
        self._barrier = False
        self._steps = _steps_of(scan) if self._hooks is None else self._hooks.steps(scan)
        self._step = -1
        self._begun = False
        self._exhausted = False
        self._awaited: str | None = None
        self._awaits_all = False
        self._wait_s = 0.0
        self._result: Any = None
        # Where `Move` steps have brought devices that no point has moved since.
        self._moved: dict[str, Any] = {}
        # Where the steps so far want the scan's motors to be.
        self._wanted: dict[str, float] = {}
        self._given: list[str] = []
        # A point of which some device servers' replies were lost.
        self._to_recall: int | None = None
        # Devices are to be moved again when the pause is over.
        self._moves_due = False
        # Paused after the point in hand, which is not read yet by all device servers.
        self._finishes_point = False
        self._next_index = 0
        self._sweep_index = 0
        self._last: Mapping[str, Mapping[str, Any]] = {}
        self._paused = resumed is not None and resumed.paused
        # Why an interlock holds it, and since when (seconds UTC); empty if none does.
        self._held_since: float | None = resumed.held_since if resumed else None
        self._held = "held by an interlock" if self._held_since is not None else ""
        self._dead_time_s = resumed.dead_time_s if resumed else 0.0
        self.readers = self._servers_that_read()
        self._points = dict.fromkeys(self.readers, 0)
        self._baseline_done: set[str] = set()
        self._staged: dict[str, StagedDevice] = {}
        self._schema: ScanSchemaMessage | None = resumed.schema if resumed else None
        self._resumed = resumed
        # An earlier life of it may have moved its motors.
        self._is_resumed = resumed is not None
        # Of the clean-up: what was lost with a device server, the life that says so, and how often that was.
        self._lost: list[tuple[_Sent, str]] = []
        self._losses = 0
        self._journal: Mapping[int, Any] = resumed.journal if resumed else {}
        self._skip = 0
        self._skipped_moves: dict[str, Any] = {}
        self._terminal = ScanState.CLOSED
        self._error: ErrorInfo | None = None
        self._message = ""
        self._reason: str | None = None
        self._after_count = Phase.ENDED
        self._status: ScanStatusMessage | None = None

    # What the worker calls

    def begin(self, moment: Moment) -> list[Effect]:
        """Open the scan, or take it up again, and send the first instructions."""
        self._epoch = next(self._epochs)
        if not self.order.is_scan:
            self.phase = Phase.RUNNING
            return self._turn(moment)
        self._status = self._intent(moment.now)
        if self._resumed is not None:
            self._control(ControlKind.STOP, self._epoch)
            self._epoch = next(self._epochs)
            for server in self.plan.servers:
                self._send(server, UnstageDevices())
        if self._resumed is None or not self._resumed.opened:
            self._out.append(Append(MessageEndpoints.scan_status, self._status))
        if self._paused or self._held:
            self._tell_state(ScanState.PAUSED, moment)
        if self.plan.positions is not None:
            self._out.append(
                Put(
                    MessageEndpoints.scan_positions(self.order.scan_id),
                    ScanPositionsMessage(
                        scan_id=self.order.scan_id,
                        motors=list(self.plan.motors),
                        positions=self.plan.positions,
                    ),
                )
            )
        if self._hooks is None or self._schema is not None:
            self._stage()
        else:
            self.phase = Phase.RUNNING
        return self._turn(moment)

    def answered(self, reply: DeviceInstructionResponse, moment: Moment) -> list[Effect]:
        """A device server's reply. One to an instruction that is not in flight is passed over."""
        note = self.note
        sent = self._in_flight.pop(reply.instruction_id, None)
        if sent is None:
            return []
        if reply.status is InstructionStatus.COMPLETED:
            self._completed(sent, reply)
        elif reply.status is InstructionStatus.STOPPED:
            self._was_stopped(sent, reply)
        else:
            self._failed(sent, reply)
        # Paused now, at the end of a sweep, or on its way if its device server is lost.
        if note and not self.note and self.phase in (Phase.RUNNING, Phase.RECOVERING):
            self._tell_state(ScanState.PAUSED, moment)
        return self._turn(moment)

    def command(self, action: QueueAction, message: str, moment: Moment) -> list[Effect]:
        """A user's command. Contradictory ones have been refused before; what makes no sense now is passed over."""
        match action:
            case QueueAction.PAUSE | QueueAction.DEFERRED_PAUSE:
                if self.order.is_scan and self.phase is not Phase.CLEANING and not self._paused:
                    self._paused = True
                    at_once = action is QueueAction.PAUSE
                    self._finishes_point = not at_once and self._is_within_point
                    # A device server that has not begun with its part of the point would hold it.
                    if not self._finishes_point:
                        self._control(
                            ControlKind.PAUSE if at_once else ControlKind.PAUSE_AFTER_POINT, self._epoch
                        )
                    self._tell_state(ScanState.PAUSED, moment)
            case QueueAction.CONTINUE:
                if self._paused:
                    self._paused = self._finishes_point = False
                    self._control(ControlKind.RESUME, self._epoch)
                    self._tell_state(ScanState.PAUSED if self._held else ScanState.OPEN, moment)
            case QueueAction.ABORT:
                self._stop(ScanState.ABORTED, "user", message, ReasonCode.ABORTED)
            case QueueAction.USER_COMPLETED:
                self._stop(ScanState.USER_COMPLETED, "user", message, None)
            case QueueAction.HALT:
                self._halt(message, moment)
            case _:
                pass
        return self._turn(moment)

    def held(self, why: str, since: float, moment: Moment) -> list[Effect]:
        """Interlocks hold the scan since some time (seconds UTC); an empty text: none does any more. A user's pause is
        another matter: each can begin and end while the other lasts.
        """
        if not self.order.is_scan or why == self._held or self._status is None:
            return []
        before, self._held = self._held, why
        if why and before:
            return []
        if why:
            self._held_since = min(moment.now, max(since, self._status.started))
        else:
            self._dead_time_s = self._dead_time(moment)
            self._held_since = None
        if self.phase not in (Phase.CLEANING, Phase.ENDED):
            self._tell_state(ScanState.PAUSED if why or self._paused else ScanState.OPEN, moment)
        return self._turn(moment)

    def _dead_time(self, moment: Moment) -> float:
        """Seconds for which interlocks have held it up to now."""
        running = 0.0 if self._held_since is None else max(0.0, moment.now - self._held_since)
        return round(self._dead_time_s + running, 3)

    def counted(self, counted: Counted, moment: Moment) -> list[Effect]:
        """The answer to `Count`."""
        if self.phase is not Phase.COUNTING:
            return []
        self._points = {server: counted.points.get(server, 0) for server in self.readers}
        self._baseline_done = set(counted.baseline)
        self._last = counted.last
        if self._after_count is Phase.ENDED:
            self._end(moment)
        elif self._after_count is Phase.STAGING:
            self._restage(moment)
        else:
            self._skip = self.committed
            self._enter_running()
        return self._turn(moment)

    def recalled(
        self, index: int, reading: Mapping[str, Mapping[str, Any]] | None, moment: Moment
    ) -> list[Effect]:
        """The answer to `Recall`: device -> signal -> {"value", "timestamp"}; None if it is not there."""
        if self._awaited != _recalling(index):
            return []
        if reading is None:
            self._stop(
                ScanState.ABORTED,
                "alarm",
                f"{self._label} cannot go on: point {index + 1} was taken, but its reading is not on record any more; "
                "run it again",
                ReasonCode.INTERNAL,
            )
        else:
            self._resume_generator(dict(reading))
        return self._turn(moment)

    def woke(self, moment: Moment) -> list[Effect]:
        """`wake_at` has passed."""
        if self.wake_at is None or moment.tick < self.wake_at:
            return []
        self.wake_at = None
        if self.phase is Phase.CLEANING:
            self._give_up("the device server did not answer in time")
        elif self._awaits_all:
            self._resume_generator(self.committed)
        return self._turn(moment)

    def silent(self, servers: Sequence[str], moment: Moment) -> list[Effect]:
        """These device servers have had no heartbeat for GIVE_UP_S. A running scan waits for them; an ending one does
        not.
        """
        if self.phase is Phase.CLEANING and any(s.server in servers for s in self._in_flight.values()):
            self._give_up(f"the device server {', '.join(servers)} is not running")
        return self._turn(moment)

    @property
    def note(self) -> str:
        """What whoever waits for the run should know; empty if it is nothing."""
        on_way = [s.action.device for s in self._in_flight.values() if isinstance(s.action, SweepDevice)]
        if not self._paused or not on_way or self.phase is not Phase.RUNNING:
            return ""
        return f"pauses after the sweep of {on_way[0]}"

    def broke(self, error: ErrorInfo, moment: Moment) -> list[Effect]:
        """The worker met a fault that is not a device's: the scan's code raised, or ours did."""
        self._stop(ScanState.ABORTED, "alarm", error.error_message, error.code, error)
        return self._turn(moment)

    @property
    def waiting_for(self) -> set[str]:
        """Device servers that owe a reply."""
        return {sent.server for sent in self._in_flight.values()}

    @property
    def committed(self) -> int:
        """Points of which every device server has committed its part."""
        return min(self._points.values(), default=0)

    # The turn

    def _turn(self, moment: Moment) -> list[Effect]:
        self._go_on(moment)
        effects, self._out = self._out, []
        return effects

    def _go_on(self, moment: Moment) -> None:
        if self.phase is Phase.RUNNING:
            self._pump(moment)
        if self._in_flight:
            return
        match self.phase:
            case Phase.STAGING:
                if self._resumed is not None:
                    self._resumed = None
                    self._tell_schema()
                    self._count_then(Phase.RUNNING)
                else:
                    self._tell_schema()
                    self._enter_running()
                    self._pump(moment)
            case Phase.FINISHING:
                if not self._groups:
                    self._end(moment)
                else:
                    self._send_group()
            case Phase.CLEANING:
                if self._lost:
                    self._clean_again()
                    self._go_on(moment)
                elif self.order.is_scan:
                    self._count_then(Phase.ENDED)
                else:
                    self._end(moment)
            case Phase.RECOVERING:
                self._count_then(Phase.STAGING)
            case _:
                pass

    def _count_then(self, phase: Phase) -> None:
        self.phase = Phase.COUNTING
        self._after_count = phase
        self.wake_at = None
        self._out.append(Count(None if phase is Phase.ENDED else self._schema))

    # Opening

    def _stage(self) -> None:
        self.phase = Phase.STAGING
        self._entered.add("stage")
        self._staged = {}
        groups, plan = self.plan.groups, self.plan
        info = {
            "scan_id": self.order.scan_id,
            "scan_number": self.order.number,
            "scan_name": self.order.request.scan_type,
            "num_points": plan.num_points,
            "scan_parameters": dict(plan.parameters),
            "motors": list(plan.motors),
            "file": None if self.order.file is None else self.order.file.__dict__,
            "user": self.order.user,
            "account": self.order.account,
            "user_metadata": self.order.request.metadata,
        }
        # Staged again, the columns stay what they were told to be.
        given = [*dict.fromkeys(plan.motors), *plan.labels]
        if self._schema is not None:
            given = [signal.device for signal in self._schema.signals if signal.given]
        for server in plan.servers:
            self._send(
                server,
                StageDevices(
                    monitored=self._on(server, groups.monitored),
                    baseline=self._on(server, groups.baseline),
                    triggered=self._on(server, plan.triggered),
                    owned=self._on(server, plan.owned),
                    scan_name=self.order.request.scan_type,
                    scan_number=self.order.number,
                    scan_info=info,
                    queue=self.order.request.queue,
                    given=given if server == self.readers[0] else [],
                ),
            )

    def _tell_schema(self) -> None:
        """Tell the columns, unless they are told already and the same. A change gives a new version."""
        made = self._schema_of(version=1)
        if self._schema is not None:
            if made.model_copy(update={"version": self._schema.version}) == self._schema:
                return
            made = made.model_copy(update={"version": self._schema.version + 1})
        self._schema = made
        self._out.append(Append(MessageEndpoints.scan_schema(self.order.scan_id), made))

    def _schema_of(self, version: int) -> ScanSchemaMessage:
        groups = self.plan.groups
        readout = {
            **dict.fromkeys(groups.baseline, "baseline"),
            **dict.fromkeys(groups.async_, "async"),
            **dict.fromkeys(groups.monitored, "monitored"),
        }
        return ScanSchemaMessage(
            scan_id=self.order.scan_id,
            version=version,
            signals=[*self._columns(groups.monitored), *self._given_columns()],
            baseline=self._columns(groups.baseline),
            devices=[
                DeviceSchema(
                    name=name,
                    device_class=staged.device_class,
                    description=staged.description,
                    role=staged.role,
                    readout=readout.get(name, "on_request"),
                    hints=staged.hints,
                    limits=staged.limits,
                    configuration=staged.configuration,
                    user_parameter=staged.user_parameter,
                    files=staged.files,
                )
                for name, staged in self._staged.items()
            ],
            motors=list(self.plan.motors),
            servers=list(self.readers),
        )

    def _columns(self, devices: Sequence[str]) -> list[SignalSchema]:
        return [
            SignalSchema(device=name, server=self._server(name), **signal.__dict__)
            for name in devices
            if name in self._staged
            for signal in self._staged[name].signals
        ]

    def _given_columns(self) -> list[SignalSchema]:
        """Columns that no device says: those which the first device server that reads has agreed to put behind its own."""
        found = []
        for name in self._given:
            label = self.plan.labels.get(name)
            server = self.readers[0]
            if label is not None:
                found.append(
                    SignalSchema(
                        device=name,
                        signal=name,
                        dtype=label.dtype,
                        unit=label.unit,
                        server=server,
                        given="label",
                        doc=label.doc,
                    )
                )
                continue
            signals = self._staged[name].signals if name in self._staged else []
            main = next((s for s in signals if s.signal == name), signals[0] if signals else None)
            found.append(
                SignalSchema(
                    device=name,
                    signal=f"{name}_target",
                    unit=main.unit if main else "",
                    precision=main.precision if main else None,
                    kind="normal",
                    server=server,
                    given="target",
                )
            )
        return found

    def _enter_running(self) -> None:
        """Staged: prepare the devices, read the baseline, then go on where the run stands."""
        self.phase = Phase.RUNNING
        for server in self.plan.servers:
            self._send(server, PreScanDevices())
        if self._hooks is None or "baseline" in self._entered:
            self._read_baseline()
        if not self._paused and not self._held:
            self._send_backlog()
        elif not self._backlog and self._exhausted and self._walk is None:
            self.phase = Phase.FINISHING

    def _read_baseline(self) -> None:
        for server in self.plan.servers:
            if server not in self._baseline_done and self._on(server, self.plan.groups.baseline):
                self._send(server, ReadBaseline())

    def _enter(self, phase: str) -> None:
        """What the scan server does itself in a phase, where the steps of modifiers have left it to that."""
        if phase == "stage":
            if not self._is_staged:
                self._stage()
            return
        self._entered.add(phase)
        if phase == "baseline":
            self._read_baseline()
            return
        self._flush_skipped_moves()
        if phase == "complete":
            for server in self.plan.servers:
                self._send(server, CompleteDevices())
        elif phase == "return" and self._returns:
            for sent in self._moves(self._returns):
                self._send(sent.server, sent.action)
        elif phase == "unstage":
            self._unstage()

    @property
    def _is_staged(self) -> bool:
        """With hooks of modifiers: is it staged, or being staged?"""
        return "stage" in self._entered and "unstage" not in self._entered

    def _unstage(self) -> None:
        for server in self.plan.servers:
            self._send(server, UnstageDevices())

    def _send_backlog(self) -> None:
        """What was in flight when a device server was restarted. A device server that was has forgotten a pause, so
        nothing is sent while there is one.
        """
        while self._backlog:
            sent = self._backlog.popleft()
            instruction_id = self._send(sent.server, sent.action, alone=sent.alone)
            if sent.awaited:
                self._awaited = instruction_id
        if self._exhausted and self._walk is None:
            self.phase = Phase.FINISHING

    # Points

    def _pump(self, moment: Moment) -> None:
        """Send as much as the window holds."""
        if self._finishes_point:
            self._finish_point()
        while self.phase is Phase.RUNNING and not self._paused and not self._held:
            if self._moves_due:
                self._move_again()
                continue
            if self._backlog:
                if self._in_flight and len(self.plan.servers) > 1:
                    return
                self._send_backlog()
                continue
            if self._groups:
                if self._in_flight:
                    return
                self._send_group()
                continue
            if self._awaited is not None:
                return
            if self._barrier:
                if self._in_flight:
                    return
                self._barrier = False
            if self._due is not None:
                due, self._due = self._due, None
                self._barrier = True
                self._enter(due.phase)
                continue
            if self._awaits_all:
                if self._in_flight or self.wake_at is not None:
                    return
                if self._wait_s > 0:
                    self.wake_at = moment.tick + self._wait_s
                    self._wait_s = 0.0
                    return
                if self._to_recall is not None:
                    index, self._to_recall = self._to_recall, None
                    self._recall(index)
                    return
                self._resume_generator(self.committed)
                continue
            if self._is_window_full():
                return
            if self._walk is not None:
                self._send_piece(self._walk)
            elif not self._advance():
                return

    @property
    def _is_within_point(self) -> bool:
        """With several device servers: a point is begun, and not read by all of them."""
        if len(self.plan.servers) == 1:
            return False
        if self._groups and _is_one_point(self._groups[0][0]):
            return True
        return any(_is_one_point(sent) for sent in self._in_flight.values())

    def _finish_point(self) -> None:
        """Of a scan that is paused: send the rest of the point in hand, and nothing behind it."""
        if self._in_flight or self._held:
            return
        if self._groups and _is_one_point(self._groups[0][0]):
            self._send_group()
        else:
            self._finishes_point = False

    def _is_window_full(self) -> bool:
        if len(self._in_flight) < self._window:
            return False
        pieces = sum(isinstance(sent.action, (RunPoints, MoveDevices)) for sent in self._in_flight.values())
        return pieces >= self._window

    def _send_piece(self, walk: _Walk) -> None:
        together = not walk.columns or self._alone(walk.columns)
        size = min(self._chunk, walk.count - walk.offset) if together else 1
        start, stop = walk.offset, walk.offset + size
        positions = {name: column[start:stop].tolist() for name, column in walk.columns.items()}
        piece = RunPoints(
            first_index=walk.first_index + start,
            count=size,
            positions=positions,
            exp_time_s=walk.exposure.exp_time,
            settling_time_s=walk.exposure.settling_time,
            settling_time_after_trigger_s=walk.exposure.settling_time_after_trigger,
            frames_per_trigger=walk.exposure.frames_per_trigger,
            at=[(i - walk.base) * walk.interval for i in range(start, stop)] if walk.interval else [],
            given={
                name: values[start:stop] if len(values) == walk.count else values
                for name, values in walk.given.items()
            },
        )
        walk.offset = stop
        if walk.offset >= walk.count:
            self._walk = None
        self._send_points(piece)

    def _send_points(self, piece: RunPoints) -> str:
        """The id of the (last) instruction."""
        if len(self.plan.servers) == 1:
            return self._send(self.plan.servers[0], piece)
        alone = self._alone(piece.positions)
        if alone:
            # Behind whatever is in flight, unless that is the piece before.
            if (
                not piece.want_reading
                and self._in_flight
                and all(
                    isinstance(sent.action, RunPoints) and sent.server == alone
                    for sent in self._in_flight.values()
                )
            ):
                return self._send(alone, piece, alone=True)
            self._groups.append([_Sent(alone, piece, alone=True)])
            return ""
        targets = {name: values[0] for name, values in piece.positions.items()}
        if targets:
            self._groups.append(self._moves(targets))
        wanted = {name: values for name, values in piece.positions.items() if name in self.plan.motors}
        reading = piece.model_copy(update={"positions": {}, "given": {**wanted, **piece.given}})
        self._groups.append([_Sent(server, reading) for server in self.readers])
        return ""

    def _alone(self, motors: Iterable[str]) -> str:
        """The device server that moves all of these and reads all that is read; empty if there is none."""
        involved = {*self.readers, *(self._server(name) for name in motors)}
        return involved.pop() if len(involved) == 1 else ""

    def _send_group(self) -> None:
        for sent in self._groups.popleft():
            self._send(sent.server, sent.action, alone=sent.alone)

    def _moves(self, targets: Mapping[str, Any]) -> list[_Sent]:
        by_server: dict[str, dict[str, Any]] = {}
        for name, target in targets.items():
            by_server.setdefault(self._server(name), {})[name] = target
        by = "" if self.order.is_scan else self.order.user
        return [_Sent(server, MoveDevices(targets=part, by=by)) for server, part in by_server.items()]

    # The generator

    def _advance(self) -> bool:
        """Take the generator's next step and send what it needs. False if the run left RUNNING by it."""
        result, self._result = self._result, None
        self._step += 1
        self._mark.enter(self._step)
        try:
            step = self._steps.send(result if self._begun else None)
            self._begun = True
        except StopIteration:
            self._exhausted = True
            self._flush_skipped_moves()
            self._close_down()
            return False
        except BECError as error:
            self._stop(ScanState.ABORTED, "alarm", error.message, error.reason)
            return False
        except BaseException as error:  # noqa: BLE001 - a user's scan; only its own run ends
            name = self.order.request.scan_type
            text = f"the scan {name} failed: {type(error).__name__}: {error}"
            info = ErrorInfo(
                error_message=text,
                code=ReasonCode.INTERNAL,
                exception_type=type(error).__name__,
                traceback=traceback.format_exc(),
            )
            self._stop(ScanState.ABORTED, "alarm", text, ReasonCode.INTERNAL, info)
            return False
        finally:
            self._mark.leave()
        problem = self._problem_of(step)
        if problem:
            self._stop(ScanState.ABORTED, "alarm", problem, ReasonCode.LIMIT)
            return False
        self._perform(step)
        return self.phase is Phase.RUNNING

    def _perform(self, step: Step | Original) -> None:
        match step:
            case Trajectory():
                columns = {name: step.positions[:, k] for k, name in enumerate(step.motors)}
                given = self._given_with(step, step.count, columns)
                self._walk_over(step.count, columns, step.exposure, given)
                if step.count:
                    self._wanted.update({name: float(column[-1]) for name, column in columns.items()})
            case Points():
                given = self._given_with(step, step.count)
                self._walk_over(step.count, {}, step.exposure, given, step.interval)
            case Point():
                self._perform_point(step)
            case Sweep():
                self._perform_sweep(step)
            case Move():
                self._want(step.targets)
                if self._next_index < self._skip:
                    self._skipped_moves.update(step.targets)
                else:
                    self._flush_skipped_moves()
                    self._send_moves(step.targets)
            case Read() | Call():
                if isinstance(step, Call):
                    self._wanted.pop(step.device, None)
                if not self._replayed():
                    self._flush_skipped_moves()
                    self._perform_query(step)
            case Wait():
                if not self._replayed():
                    self._flush_skipped_moves()
                    self._awaits_all = True
                    self._wait_s = step.seconds
            case Original():
                self._due = step
                self._barrier = True

    def _walk_over(
        self,
        count: int,
        columns: dict[str, np.ndarray],
        exposure: Exposure | None,
        given: Mapping[str, list[Any]],
        interval: float = 0.0,
    ) -> None:
        walk = _Walk(self._next_index, count, columns, exposure or self.plan.exposure, interval, given=given)
        self._next_index += count
        walk.offset = walk.base = min(count, max(0, self._skip - walk.first_index))
        if walk.offset < count:
            self._flush_skipped_moves()
            self._walk = walk

    def _want(self, targets: Mapping[str, Any]) -> None:
        """The devices are to be there from now on; where that is no number, nobody can say."""
        for name, target in targets.items():
            if isinstance(target, (int, float)):
                self._wanted[name] = float(target)
            else:
                self._wanted.pop(name, None)

    def _given_with(
        self, step: Trajectory | Points | Point | Sweep, count: int | None, moved: Iterable[str] = ()
    ) -> dict[str, list[Any]]:
        """What is said of a step's points that is not read: labels, and where motors that it does not move are to be."""
        stay = {
            name: [self._wanted.get(name, math.nan)] for name in self.plan.motors if name not in set(moved)
        }
        return {**stay, **label_columns(self.plan.labels, step.labels, count)}

    def _perform_point(self, step: Point) -> None:
        given = self._given_with(step, 1, step.positions)
        self._want(step.positions)
        index = self._next_index
        self._next_index += 1
        if self._replayed():
            return
        if index < self._skip:
            # Taken in an earlier life, which ended before it came to the journal.
            self._recall(index)
            return
        self._flush_skipped_moves()
        exposure = step.exposure or self.plan.exposure
        piece = RunPoints(
            first_index=index,
            count=1,
            positions={name: [float(target)] for name, target in step.positions.items()},
            exp_time_s=exposure.exp_time,
            settling_time_s=exposure.settling_time,
            settling_time_after_trigger_s=exposure.settling_time_after_trigger,
            frames_per_trigger=exposure.frames_per_trigger,
            want_reading=True,
            given=given,
        )
        self._awaited = self._send_points(piece)
        if len(self.plan.servers) > 1:
            self._result = {}
            self._awaited = None
            self._awaits_all = True

    def _recall(self, index: int) -> None:
        """The result of the point in hand is what was read at it and is committed."""
        assert self._schema is not None
        self._awaited = _recalling(index)
        self._awaits_all = False
        self._result = None
        self._out.append(Recall(index, self._schema))

    def _perform_sweep(self, step: Sweep) -> None:
        """Its points are counted when it is done; what an earlier life has taken of it is not taken again."""
        given = self._given_with(step, len(step.marks) or None, [step.device])
        self._want({step.device: step.target})
        self._sweep_index = self._next_index
        if self._replayed():
            self._next_index += int(self._result["points"])
            return
        self._flush_skipped_moves()
        exposure = step.exposure or self.plan.exposure
        whole = SweepDevice(
            first_index=self._sweep_index,
            device=step.device,
            start=step.start,
            target=step.target,
            velocity=step.velocity,
            kickoff=None if step.kickoff is None else dict(step.kickoff),
            marks=[float(mark) for mark in step.marks],
            tolerance=step.tolerance,
            on_update=step.on_update,
            counted=step.counted,
            min_interval_s=step.min_interval,
            max_interval_s=step.max_interval,
            exp_time_s=exposure.exp_time,
            frames_per_trigger=exposure.frames_per_trigger,
            settling_time_after_trigger_s=exposure.settling_time_after_trigger,
            given=given if step.marks else {step.device: [math.nan], **given},
        )
        action = self._rest_of_sweep(whole, self._skip)
        if action is None:
            self._resume_generator(self._swept(self._skip))
        else:
            self._awaited = self._send(self._server(step.device), action)

    def _rest_of_sweep(self, sweep: SweepDevice, committed: int) -> SweepDevice | None:
        return rest_of_sweep(sweep, committed, self._recorded_position(sweep))

    def _recorded_position(self, sweep: SweepDevice) -> float | None:
        """Where the last point of a sweep was taken, within what the device may be sent to; None if it is not known."""
        try:
            position = main_value(self._last, sweep.device)
        except ParameterError:
            return None
        ends = [end for end in (sweep.start, sweep.target) if end is not None]
        if len(ends) == 2:
            return min(max(position, min(ends)), max(ends))
        record = self.plan.devices.get(sweep.device)
        # A read-back may lie a little outside of the limits, where the device would not go.
        low, high = record.limits if record is not None and record.limits else (position, position)
        return min(max(position, low), high)

    def _swept(self, until: int) -> dict[str, int]:
        """The result of the sweep in hand: its points end before the index `until`."""
        self._next_index = max(self._sweep_index, until)
        return {"points": self._next_index - self._sweep_index}

    def _perform_query(self, step: Read | Call) -> None:
        if isinstance(step, Call):
            action: Action = CallDevice(
                device=step.device, func=step.func, args=list(step.args), kwargs=dict(step.kwargs)
            )
            self._awaited = self._send(self._server(step.device), action)
            return
        by_server: dict[str, list[str]] = {}
        for name in step.devices:
            by_server.setdefault(self._server(name), []).append(name)
        if len(by_server) == 1:
            ((server, names),) = by_server.items()
            self._awaited = self._send(server, ReadDevices(devices=names))
            return
        self._result = {}
        self._awaits_all = True
        for server, names in by_server.items():
            self._send(server, ReadDevices(devices=names))

    def _resume_generator(self, result: Any) -> None:
        """A step with a result is done: journal it, and let the generator go on with it."""
        if self._awaits_all and isinstance(self._result, dict) and self._result:
            result = self._result
        self._awaited = None
        self._awaits_all = False
        self._result = result
        self._out.append(
            Append(
                MessageEndpoints.scan_journal(self.order.scan_id),
                ScanJournalMessage(scan_id=self.order.scan_id, step=self._step, kind="result", result=result),
            )
        )

    def _replayed(self) -> bool:
        """Take the step's result from the journal of an earlier life, if it is there."""
        if self._step not in self._journal:
            return False
        self._result = self._journal[self._step]
        return True

    def _flush_skipped_moves(self) -> None:
        if self._skipped_moves:
            targets, self._skipped_moves = self._skipped_moves, {}
            self._send_moves(targets)

    def _send_moves(self, targets: Mapping[str, Any]) -> None:
        moves = self._moves(targets)
        if len(self.plan.servers) == 1:
            for sent in moves:
                self._send(sent.server, sent.action)
        else:
            self._groups.append(moves)

    def _problem_of(self, step: Any) -> str:
        """Why a step cannot be done, found before anything of it is sent; empty if it can."""
        takes_points = isinstance(step, (Trajectory, Points, Point, Sweep))
        if takes_points and self._hooks is not None and not self._is_staged:
            return f"{self._label} cannot take points here: its devices are not staged"
        problem = self._problem_of_labels(step) if takes_points else ""
        if problem:
            return problem
        match step:
            case Trajectory():
                if step.positions is self.plan.positions:
                    return ""
                return self._outside(list(step.motors), np.asarray(step.positions, dtype=float))
            case Point(positions=targets) | Move(targets=targets):
                numbers = {n: float(t) for n, t in targets.items() if isinstance(t, (int, float))}
                return self._outside(list(numbers), np.array([list(numbers.values())], dtype=float))
            case Sweep():
                ends = [end for end in (step.start, step.target, *step.marks) if end is not None]
                elsewhere = [name for name in self.readers if name != self._server(step.device)]
                if elsewhere:
                    return (
                        f"{step.device} cannot be read on its way together with devices of another device server "
                        f"({', '.join(elsewhere)}); leave those out with on_request=[...]"
                    )
                return self._outside([step.device], np.array(ends, dtype=float)[:, None]) if ends else ""
            case Points() | Read() | Call() | Wait() | Original():
                return ""
        return f"the scan {self.order.request.scan_type} gave a step that is none: {step!r}"

    def _problem_of_labels(self, step: Trajectory | Points | Point | Sweep) -> str:
        count = (
            1
            if isinstance(step, Point)
            else len(step.marks) or None
            if isinstance(step, Sweep)
            else step.count
        )
        try:
            label_columns(self.plan.labels, step.labels, count)
        except ParameterError as error:
            return f"{self._label} cannot take points as it wants to: {error.message}"
        return ""

    def _outside(self, motors: list[str], positions: np.ndarray) -> str:
        known = [name for name in motors if name in self.plan.devices]
        if not known:
            return ""
        columns = [motors.index(name) for name in known]
        return " ".join(limit_problems(self.plan.devices, known, positions[:, columns]))

    # Replies

    def _completed(self, sent: _Sent, reply: DeviceInstructionResponse) -> None:
        action = sent.action
        if isinstance(action, RunPoints):
            self._points[sent.server] = max(
                self._points.get(sent.server, 0), action.first_index + action.count
            )
            for name in action.positions:
                self._moved.pop(name, None)
        elif isinstance(action, MoveDevices):
            self._moved.update(action.targets)
        elif isinstance(action, SweepDevice):
            self._moved.pop(action.device, None)
            result = self._swept(action.first_index + int(reply.result["points"]))
            self._points[sent.server] = max(self._points.get(sent.server, 0), self._next_index)
            reply = reply.model_copy(update={"result": result})
        elif isinstance(action, StageDevices):
            self._boots[sent.server] = reply.boot_id
            for raw in (reply.result or {}).get("devices", []):
                staged = StagedDevice.model_validate(raw)
                self._staged[staged.name] = staged
            if sent.server == self.readers[0]:
                self._given = list((reply.result or {}).get("given", []))
        elif isinstance(action, ReadBaseline):
            self._baseline_done.add(sent.server)
        if self.phase is not Phase.RUNNING:
            return
        if reply.instruction_id == self._awaited:
            self._resume_generator(reply.result)
        elif self._awaits_all and isinstance(self._result, dict) and isinstance(reply.result, dict):
            self._result.update(reply.result)

    def _failed(self, sent: _Sent, reply: DeviceInstructionResponse) -> None:
        error = reply.error or ErrorInfo(
            error_message=f"the device server {sent.server} reported an error without saying which",
            code=ReasonCode.DEVICE_FAILED,
        )
        if self.phase is Phase.CLEANING:
            # The same cause may have ended the scan.
            if error.error_message not in self._message:
                self._message = f"{self._message}; cleaning up failed, too: {error.error_message}"
            return
        self._stop(ScanState.ABORTED, "alarm", error.error_message, error.code, error)

    def _was_stopped(self, sent: _Sent, reply: DeviceInstructionResponse) -> None:
        boot = self._boots.get(sent.server)
        restarted = bool(boot) and bool(reply.boot_id) and reply.boot_id != boot
        # Started anew, or cut off from the broker for so long that it stopped what moved.
        interrupted = reply.error is not None and reply.error.code is ReasonCode.SERVICE_DOWN
        if self.phase is Phase.CLEANING:
            if sent.cleans and (restarted or interrupted) and self._terminal is not ScanState.HALTED:
                self._lost.append((sent, reply.boot_id))
            return
        if self.phase is Phase.RECOVERING or restarted or interrupted:
            self._recover(replace(sent, awaited=reply.instruction_id == self._awaited))
            return
        self._stop(
            ScanState.ABORTED,
            "user",
            f"{self._label} ended because its devices were stopped",
            ReasonCode.STOPPED,
        )

    # After a restart of a device server

    def _recover(self, sent: _Sent) -> None:
        self._backlog.append(sent)
        if self.phase is Phase.RECOVERING:
            return
        self.phase = Phase.RECOVERING
        self._finishes_point = False
        # What other device servers still do belongs to the same points: stop it, too, and take it again.
        self._control(ControlKind.STOP, self._epoch)

    def _restage(self, moment: Moment) -> None:
        """Stage again, then send what was not done: pieces of trajectory from their first uncommitted point."""
        waiting = list(self._backlog)
        self._backlog.clear()
        if not self.order.is_scan:
            why = self._not_to_repeat(waiting)
            if why:
                self._stop(ScanState.ABORTED, "alarm", f"{self._label} {why}", ReasonCode.SERVICE_DOWN)
                return
            self.phase = Phase.RUNNING
            self._epoch = next(self._epochs)
            for sent in waiting:
                self._send(sent.server, sent.action)
            return
        if self._hooks is not None and not self._is_staged:
            self.phase = Phase.RUNNING
            self._ask_before(waiting, moment)
            self._epoch = next(self._epochs)
            self._move_again()
            self._backlog.extend(waiting)
            return
        taken: int | None = None
        for sent in waiting:
            action = sent.action
            if isinstance(action, (StageDevices, PreScanDevices, ReadBaseline)):
                continue  # these are part of going on anyway
            if isinstance(action, UnstageDevices) and not self._exhausted:
                continue  # of a resumed scan, before it was staged again
            if isinstance(action, SweepDevice):
                rest = self._rest_of_sweep(action, self._points.get(sent.server, 0))
                if rest is None:
                    self._resume_generator(self._swept(self._points.get(sent.server, 0)))
                else:
                    self._backlog.append(replace(sent, action=rest))
            elif isinstance(action, RunPoints):
                trimmed = _trimmed(action, self._points.get(sent.server, 0))
                if trimmed is not None:
                    self._backlog.append(replace(sent, action=trimmed))
                elif action.want_reading and (self._awaited is not None or self._awaits_all):
                    taken = action.first_index
            else:
                self._backlog.append(sent)
        if taken is not None:
            # Between a point and the report of its reading. With several device servers others may still owe theirs.
            if taken < self.committed:
                self._recall(taken)
            else:
                self._to_recall = taken
        self._ask_before(self._backlog, moment)
        self._epoch = next(self._epochs)
        self._move_again()
        self._stage()

    def _move_again(self) -> None:
        """A device that lives in the device server may have forgotten where it was; for others this is no way. Nothing
        moves as long as the scan is paused.
        """
        self._moves_due = self._paused or bool(self._held)
        if self._moves_due:
            return
        for sent in self._moves(self._moved):
            self._send(sent.server, sent.action)

    def _ask_before(self, waiting: Iterable[_Sent], moment: Moment) -> None:
        """Pause, if what was interrupted must not be done again by itself."""
        why = self._not_to_repeat(waiting)
        if why and not self._paused:
            self._paused = True
            self._tell_state(ScanState.PAUSED, moment)
            self._out.append(Ask(f"{self._label} is paused, because it {why}; continue or abort it"))

    def _not_to_repeat(self, waiting: Iterable[_Sent]) -> str:
        """Why what was interrupted must not be done again without asking; empty if it may."""
        for sent in waiting:
            match sent.action:
                case CallDevice(device=device):
                    asking = [device] if device in self.plan.asks else []
                case MoveDevices(targets=targets):
                    asking = [name for name in targets if name in self.plan.asks]
                case RunPoints() | SweepDevice():
                    asking = list(self.plan.asks)
                case _:
                    continue
            if asking:
                return f"was interrupted, and {', '.join(asking)} has `onInterrupt: ask`"
        return ""

    # Ending

    def _close_down(self) -> None:
        """The generator has ended: complete, return, unstage, all behind what is still in flight."""
        if not self.order.is_scan or self._hooks is not None:
            self.phase = Phase.FINISHING
            return
        groups = [[_Sent(server, CompleteDevices()) for server in self.plan.servers]]
        if self._returns:
            groups.append(self._moves(self._returns))
        groups.append([_Sent(server, UnstageDevices()) for server in self.plan.servers])
        self.phase = Phase.FINISHING
        if len(self.plan.servers) > 1:
            self._groups.extend(groups)
            return
        for group in groups:
            for sent in group:
                self._send(sent.server, sent.action)

    @property
    def _returns(self) -> dict[str, float]:
        if not self.plan.returns_to_start:
            return {}
        return {name: self.plan.start[name] for name in self.plan.motors if name in self.plan.start}

    def _stop(
        self,
        state: ScanState,
        reason: str,
        message: str,
        code: ReasonCode | None,
        error: ErrorInfo | None = None,
    ) -> None:
        """Stop what is in flight, and clean up under a newer epoch. The first cause stands."""
        if self.phase in (Phase.CLEANING, Phase.ENDED) or (
            self.phase is Phase.COUNTING and self._after_count is Phase.ENDED
        ):
            return
        self._terminal, self._reason, self._message = state, reason, message
        if code is not None:
            self._error = error or ErrorInfo(error_message=message, code=code)
        self._clean_up(with_return=state is not ScanState.HALTED)

    def _clean_up(self, with_return: bool) -> None:
        self.phase = Phase.CLEANING
        self._groups.clear()
        self._backlog.clear()
        self._walk = None
        self._awaited = None
        self._awaits_all = False
        self.wake_at = None
        self._mark.enter(CLEANING_UP)
        try:
            self._steps.close()
        except BaseException:  # noqa: BLE001 - a user's scan that will not end; it is not asked again
            self._exhausted = True
        finally:
            self._mark.leave()
        self._control(ControlKind.STOP, self._epoch)
        self._epoch = next(self._epochs)
        self._due = None
        self._barrier = False
        if not self.order.is_scan:
            return
        if with_return and self._cleaning is not None:
            self._run_cleanup(self._cleaning)
        if with_return and self._returns and (self._begun or self._is_resumed):
            for sent in self._moves(self._returns):
                self._send(sent.server, sent.action)
        for server in self.plan.servers:
            self._send(server, UnstageDevices())

    def _clean_again(self) -> None:
        """What a device server did not come to before it died is done by its successor."""
        self._boots.update({sent.server: boot for sent, boot in self._lost if boot})
        lost, self._lost = [sent for sent, _ in self._lost], []
        self._losses += 1
        if self._losses > MOST_LOSSES:
            self._message = (
                f"{self._message}; the clean-up was given up, because the device server "
                f"{', '.join(dict.fromkeys(sent.server for sent in lost))} ended {self._losses} times in it"
            )
            return
        why = self._not_to_repeat(lost)
        if why:
            self._message = f"{self._message}; its clean-up {why}: look where it is"
        self._epoch = next(self._epochs)
        for sent in lost:
            if not self._not_to_repeat([sent]):
                self._send(sent.server, sent.action)

    def _run_cleanup(self, hooks: Hooks) -> None:
        """What modifiers want to be done after an abort. Nothing waits for results, as nothing is to stop it any more."""
        self._mark.enter(CLEANING_UP)
        try:
            for step in hooks.cleanup():
                if isinstance(step, Call):
                    action = CallDevice(
                        device=step.device, func=step.func, args=list(step.args), kwargs=dict(step.kwargs)
                    )
                    self._send(self._server(step.device), action)
                elif isinstance(step, Move):
                    for sent in self._moves(step.targets):
                        self._send(sent.server, sent.action)
                else:
                    raise TypeError(f"{type(step).__name__} is no step of a clean-up; Move and Call are")
        except BaseException as error:  # noqa: BLE001 - a plugin's code; the rest of the clean-up goes on
            self._message = f"{self._message}; a modifier's clean-up failed: {type(error).__name__}: {error}"
        finally:
            self._mark.leave()

    def _halt(self, message: str, moment: Moment) -> None:
        if self.phase is Phase.ENDED:
            return
        if self.phase is Phase.CLEANING:
            self._control(ControlKind.STOP, self._epoch)
            self._epoch = next(self._epochs)
            for server in self.plan.servers if self.order.is_scan else ():
                self._send(server, UnstageDevices())
            self._terminal, self._reason, self._message = ScanState.HALTED, "user", message
            self._error = ErrorInfo(error_message=message, code=ReasonCode.HALTED)
        else:
            self._stop(ScanState.HALTED, "user", message, ReasonCode.HALTED)
        if self.phase is Phase.CLEANING:
            self.wake_at = moment.tick + HALT_S

    def _give_up(self, why: str) -> None:
        if self._in_flight:
            self._message = f"{self._message}; the clean-up was given up, because {why}"
            self._in_flight.clear()

    def _end(self, moment: Moment) -> None:
        self.phase = Phase.ENDED
        self.wake_at = None
        success = self._error is None
        if self._error is not None and self._message.startswith(self._error.error_message):
            self._error = self._error.model_copy(update={"error_message": self._message})
        if self._status is not None:
            self._out.append(
                Append(
                    MessageEndpoints.scan_status,
                    self._status.model_copy(
                        update={
                            "status": self._terminal,
                            "reason": self._reason,
                            "message": self._message,
                            "error": self._error,
                            "num_readouts": self.committed,
                            "ended": moment.now,
                            "timestamp": moment.now,
                            "dead_time_s": self._dead_time(moment),
                        }
                    ),
                )
            )
        self._out.append(
            Append(
                MessageEndpoints.request_response(self.order.request.client_id),
                RequestDoneMessage(
                    request_id=self.order.request.request_id,
                    success=success,
                    scan_id=self.order.scan_id,
                    error=self._error,
                ),
            )
        )
        if self._error is not None and self._reason == "alarm":
            self._out.append(
                Append(
                    MessageEndpoints.alarm,
                    AlarmMessage(
                        severity=Severity.MAJOR,
                        info=self._error.model_copy(
                            update={"error_message": f"{self._label} failed: {self._error.error_message}"}
                        ),
                        source="scan_server",
                        scan_id=self.order.scan_id,
                        timestamp=moment.now,
                    ),
                )
            )
        self._out.append(Finish(self._terminal, success, self._message))

    # Small things

    def _send(self, server: str, action: Action, *, alone: bool = False) -> str:
        version = 1 if self._schema is None else self._schema.version
        if isinstance(action, (RunPoints, SweepDevice, ReadBaseline)) and action.schema_version != version:
            action = action.model_copy(update={"schema_version": version})
        self._serial += 1
        instruction_id = f"{self.order.scan_id}:{self._epoch}:{self._serial}"
        self._in_flight[instruction_id] = _Sent(
            server, action, cleans=self.phase is Phase.CLEANING, alone=alone
        )
        self._out.append(
            Append(
                MessageEndpoints.device_instructions(server),
                DeviceInstructionMessage(
                    instruction_id=instruction_id,
                    scan_id=self.order.scan_id,
                    run_epoch=self._epoch,
                    action=action,
                ),
            )
        )
        return instruction_id

    def _control(self, kind: ControlKind, epoch: int) -> None:
        self._out.append(
            Append(
                MessageEndpoints.device_control,
                DeviceControlMessage(kind=kind, run_epoch=epoch, scan_id=self.order.scan_id),
            )
        )

    def _tell_state(self, state: ScanState, moment: Moment) -> None:
        if self._status is not None:
            self._out.append(
                Append(
                    MessageEndpoints.scan_status,
                    self._status.model_copy(
                        update={
                            "status": state,
                            "timestamp": moment.now,
                            "dead_time_s": self._dead_time(moment),
                            "message": self._held or self.note,
                            "reason": "interlock" if self._held else None,
                        }
                    ),
                )
            )

    def _intent(self, now: float) -> ScanStatusMessage:
        order, plan = self.order, self.plan
        started = self._resumed.started if self._resumed and self._resumed.started else now
        return ScanStatusMessage(
            scan_id=order.scan_id,
            scan_number=order.number,
            status=ScanState.OPEN,
            scan_name=order.request.scan_type,
            request_id=order.request.request_id,
            queue=order.request.queue,
            user=order.user,
            account=order.account,
            args=order.request.args,
            kwargs=order.request.kwargs,
            scan_parameters=dict(plan.parameters),
            motors=list(plan.motors),
            shape=list(plan.shape),
            num_points=plan.num_points,
            readout=plan.groups,
            scan_report_devices=list(plan.motors),
            user_metadata=order.request.metadata,
            dataset_number=_dataset_of(order.request.metadata),
            file=order.file,
            relative=plan.relative,
            estimated_s=plan.estimated_s,
            config_hash=plan.config_hash,
            code_hash=order.code_hash,
            started=started,
            timestamp=now,
        )

    def _servers_that_read(self) -> list[str]:
        read = [*self.plan.groups.monitored, *self.plan.triggered]
        return list(dict.fromkeys(self._server(name) for name in read)) or list(self.plan.servers[:1])

    def _on(self, server: str, devices: Sequence[str]) -> list[str]:
        return [name for name in devices if self._server(name) == server]

    def _server(self, device: str) -> str:
        return self.plan.server_of.get(device, self.plan.servers[0])

    @property
    def _label(self) -> str:
        name = self.order.request.scan_type
        return f"scan {self.order.number} ({name})" if self.order.is_scan else name


def _dataset_of(metadata: Mapping[str, Any]) -> int | None:
    """As the client gives it; anything else that stands under the name is the user's own."""
    number = metadata.get("dataset_number")
    return number if type(number) is int and 0 < number < 2**63 else None


def _steps_of(scan: Scan) -> Steps:
    """Its steps; whatever is wrong with `run` comes out where the first step is asked for."""
    yield from scan.run()


def _is_one_point(sent: _Sent) -> bool:
    """The reading of a point whose moves, if it has any, were sent before."""
    return isinstance(sent.action, RunPoints) and sent.action.count == 1 and not sent.alone


def _recalling(index: int) -> str:
    """What the generator waits for while a reading is looked up; no instruction has such an id."""
    return f"the reading of point {index}"


def _trimmed(piece: RunPoints, committed: int) -> RunPoints | None:
    """What is left of a piece when so many of the scan's points are committed; None if nothing is."""
    done = max(0, committed - piece.first_index)
    if done >= piece.count:
        return None
    return piece.model_copy(
        update={
            "first_index": piece.first_index + done,
            "count": piece.count - done,
            "positions": {name: values[done:] for name, values in piece.positions.items()},
            "given": without_first(piece.given, done, piece.count),
            "at": [moment - piece.at[done] for moment in piece.at[done:]],
        }
    )
