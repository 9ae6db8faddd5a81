"""What is said about devices: instructions from the scan server, calls from clients, control, and what
devices tell.

Instructions go to one stream per device server, in order. Each is answered by exactly one
`DeviceInstructionResponse`. Stop, pause and resume go by `DeviceControlMessage` on a stream of their own,
which overtakes everything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from bec_lib.messages.base import ErrorInfo, Message, Part


class StageDevices(Part):
    """Stage devices for a scan and make them the scan's own. Answered with one `StagedDevice` per device.

    monitored, baseline: read at points and once, in this order, which becomes the order of the columns.
    triggered: triggered at every point. owned: all that the scan may move or configure (motors included);
    others' commands to them are refused until unstaged.
    scan_info: handed to device classes that ask for it (num_points, exp_time, file target ...).
    queue: whose interlocks hold its points.
    given: columns whose values come with the instructions and not from a device, which are the last of this server's
    columns. The reply's result repeats them as "given"; a server that does not know them yet says nothing.
    """

    kind: Literal["stage"] = "stage"
    monitored: list[str] = []
    baseline: list[str] = []
    triggered: list[str] = []
    owned: list[str] = []
    scan_name: str = ""
    scan_number: int = 0
    scan_info: dict[str, Any] = {}
    queue: str = "primary"
    given: list[str] = []


class UnstageDevices(Part):
    """Unstage all devices of the scan and give them up. Not an error if nothing is staged."""

    kind: Literal["unstage"] = "unstage"


class ReadBaseline(Part):
    """Read the staged baseline devices once, into the scan's readings. schema_version: of their columns."""

    kind: Literal["baseline"] = "baseline"
    schema_version: int = 1


class RunPoints(Part):
    """A piece of a trajectory: for each point move, settle, trigger, read. Obeys pause and stop between any
    two phases.

    first_index: of the scan's points. positions: device -> targets, one per point, absolute; devices that
    need not move may be absent.
    count: number of points (there may be no positions). settling_time_s after the move,
    settling_time_after_trigger_s before the read,
    exp_time_s: what a trigger is to take at least; frames_per_trigger and burst: readings as BEC defines
    them.
    at: the earliest server times of the points, seconds after the run's start, or empty (time_scan).
    want_reading: the reply's result carries the last point's reading (device -> signal -> {value,
    timestamp}).
    given: values of staged `given` columns, one per point, or one for all of them; a column which is not here has the
    target of the motor of its name. schema_version: of the columns.
    """

    kind: Literal["points"] = "points"
    first_index: int
    count: int
    positions: dict[str, list[float]] = {}
    exp_time_s: float = 0.0
    settling_time_s: float = 0.0
    settling_time_after_trigger_s: float = 0.0
    frames_per_trigger: int = 1
    burst_at_each_point: int = 1
    at: list[float] = []
    want_reading: bool = False
    attempt: int = 1
    given: dict[str, list[Any]] = {}
    schema_version: int = 1


class SweepDevice(Part):
    """Take points while a device is on its way; fields as in `bec_lib.scans.Sweep`. The reply's result is
    {"points": how many}. Obeys stop at any time; a pause before it begins.
    given, schema_version: as in `RunPoints`; the device's own targets are its marks.
    """

    kind: Literal["sweep"] = "sweep"
    first_index: int
    device: str
    start: float | None = None
    target: float | None = None
    velocity: float | None = None
    kickoff: dict[str, Any] | None = None
    marks: list[float] = []
    tolerance: float = 0.0
    on_update: bool = False
    counted: bool = False
    min_interval_s: float = 0.0
    max_interval_s: float = 0.0
    exp_time_s: float = 0.0
    frames_per_trigger: int = 1
    settling_time_after_trigger_s: float = 0.0
    given: dict[str, list[Any]] = {}
    schema_version: int = 1


class MoveDevices(Part):
    """Move devices to absolute targets, all at the same time; done when all have arrived. by: the user whose move it
    is, outside of scans.
    """

    kind: Literal["move"] = "move"
    targets: dict[str, Any]
    by: str = ""


class ReadDevices(Part):
    """Read devices now; the reply's result is device -> signal -> {value, timestamp}. Nothing goes to the
    scan's readings.
    """

    kind: Literal["read"] = "read"
    devices: list[str]


class CompleteDevices(Part):
    """Wait until all staged devices have completed what the scan made them do."""

    kind: Literal["complete"] = "complete"


class PreScanDevices(Part):
    """Call `pre_scan` on staged devices that have it."""

    kind: Literal["pre_scan"] = "pre_scan"


class CallDevice(Part):
    """Call a method or read or set a property of a device from a scan. The reply's result is what it
    returned.
    """

    kind: Literal["call"] = "call"
    device: str
    func: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class PrepareSession(Part):
    """Build and connect the devices of a configuration beside those that run. devices: name -> raw
    configuration; replace: the new session has only these, else they are added to or changed in the running
    one; remove: names to drop.
    rebuild: names to build anew though nothing of them has changed, from the source of their classes as it is now. One
    for which that fails stays as it is, as long as it works.
    continues: more devices for the session that is being prepared, not another one. others: devices of other servers
    that these need -> why they failed, empty if they did not.
    Answered with {"ready": [names], "failed": {name: sentence}, "kept": {name: why it was not built anew}}; nothing
    changes until `CommitSession`.
    """

    kind: Literal["prepare_session"] = "prepare_session"
    devices: dict[str, dict[str, Any]]
    replace: bool = True
    remove: list[str] = []
    rebuild: list[str] = []
    continues: bool = False
    others: dict[str, str] = {}


class CommitSession(Part):
    """Put the prepared devices into force, all of them or (with keep_failed False) without those that failed."""

    kind: Literal["commit_session"] = "commit_session"
    version: int = 0


class RollbackSession(Part):
    """Forget the prepared devices."""

    kind: Literal["rollback_session"] = "rollback_session"


DeviceAction = Annotated[
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
    | PrepareSession
    | CommitSession
    | RollbackSession,
    Field(discriminator="kind"),
]


class DeviceInstructionMessage(Message):
    """One instruction to one device server. run_epoch: of the run; instructions older than the last stop are
    answered `stopped`.

    scan_id: None outside of scans. deadline: seconds UTC after which it need not be begun, None for no
    deadline.
    """

    msg_type: ClassVar[str] = "device_instruction"

    instruction_id: str
    scan_id: str | None = None
    run_epoch: int = 0
    action: DeviceAction


class InstructionStatus(StrEnum):
    COMPLETED = "completed"
    ERROR = "error"
    STOPPED = "stopped"


class DeviceInstructionResponse(Message):
    """The one terminal reply to an instruction. boot_id: of the device server's process, so that the worker
    sees a restart.
    """

    msg_type: ClassVar[str] = "device_instruction_response"

    instruction_id: str
    status: InstructionStatus
    scan_id: str | None = None
    error: ErrorInfo | None = None
    result: Any = None
    server: str = "main"
    boot_id: str = ""


class StagedSignal(Part):
    """A signal as its device describes it; same fields as `scan.SignalSchema` without device and server."""

    signal: str
    dtype: str = "float64"
    shape: list[int] = []
    unit: str = ""
    kind: str = "hinted"
    precision: int | None = None


class StagedDevice(Part):
    """What a device said when it was staged: its signals, in column order, and its configuration."""

    name: str
    signals: list[StagedSignal] = []
    role: str = "signal"
    device_class: str = ""
    description: str = ""
    hints: list[str] = []
    limits: list[float] | None = None
    configuration: dict[str, Any] = {}
    user_parameter: dict[str, Any] = {}
    files: list[dict[str, Any]] = []


class ControlKind(StrEnum):
    """hold, release: of an interlock, for all scans of its queues."""

    STOP = "stop"
    PAUSE = "pause"
    PAUSE_AFTER_POINT = "pause_after_point"
    RESUME = "resume"
    HOLD = "hold"
    RELEASE = "release"


class DeviceControlMessage(Message):
    """Stop, pause or resume, obeyed between any two phases; a pause_after_point, between two points.

    A stop raises the device server's epoch to `run_epoch` + 1 (or by one, if 0), answers running and later
    instructions of older runs `stopped`, and calls `stop()` on `devices`; None: on all devices that move or
    are owned. scan_id None: whatever runs.
    """

    msg_type: ClassVar[str] = "device_control"

    kind: ControlKind
    run_epoch: int = 0
    scan_id: str | None = None
    devices: list[str] | None = None
    request_id: str = ""
    client_id: str = ""
    interlock: str = ""
    trips: dict[str, int] = {}


class DeviceRPCMessage(Message):
    """A client calls a device. func: dotted name below the device, e.g. "read", "get", "set", "velocity.put",
    "limits".

    kind "call" calls it, or reads it if it is a property; "set" assigns args[0] to the property.
    """

    msg_type: ClassVar[str] = "device_rpc"

    request_id: str
    client_id: str
    device: str
    func: str
    kind: Literal["call", "set"] = "call"
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class DeviceRPCResponse(Message):
    """The answer to a call. For `set` it is sent when the move is done. out: what the method printed."""

    msg_type: ClassVar[str] = "device_rpc_response"

    request_id: str
    success: bool
    device: str = ""
    return_val: Any = None
    out: str = ""
    error: ErrorInfo | None = None


class DeviceMessage(Message):
    """A device's latest reading: signal -> {"value", "timestamp"}."""

    msg_type: ClassVar[str] = "device_message"

    signals: dict[str, Any]
    metadata: dict[str, Any] = {}


class SignalInfo(Part):
    """A signal of a device, as published to clients. name: below the device, dotted. obj_name: as in
    readings.
    """

    name: str
    obj_name: str
    kind: str = "normal"
    unit: str = ""
    dtype: str = "float64"
    shape: list[int] = []
    writable: bool = True
    doc: str = ""


class MethodInfo(Part):
    """A method or property within the class's USER_ACCESS. signature: as text, e.g. "(velocity: float)";
    empty for properties.
    """

    name: str
    kind: Literal["method", "property"] = "method"
    signature: str = ""
    doc: str = ""
    writable: bool = False


class DeviceInfoMessage(Message):
    """A device of the running session, as clients and the assembler know it.

    state: ready, disabled, failed (error says why). config: the validated device configuration. limits:
    [low, high] in `unit`, None if it has none. server: the device server that has it. Who uses it now is in
    `DeviceHoldersMessage`.
    """

    msg_type: ClassVar[str] = "device_info"

    name: str
    device_class: str = ""
    role: str = "signal"
    state: str = "ready"
    error: str = ""
    signals: list[SignalInfo] = []
    methods: list[MethodInfo] = []
    hints: list[str] = []
    limits: list[float] | None = None
    unit: str = ""
    precision: int | None = None
    config: dict[str, Any] = {}
    server: str = "main"
    doc: str = ""
    settable: bool = True  # it has a set(), so that a scan can move it


class Holder(Part):
    """A scan, a move or a call of a client, and the devices that it moves or has to itself. what: in words, for people.
    scan_id: empty of what is no scan.
    """

    what: str
    devices: list[str]
    user: str = ""
    scan_id: str = ""

    def __str__(self) -> str:
        return f"{self.what} of {self.user}" if self.user else self.what


class DeviceHoldersMessage(Message):
    """Who has devices of a device server now."""

    msg_type: ClassVar[str] = "device_holders"

    server: str
    holders: list[Holder] = []

    def of(self, device: str) -> str:
        """In words; empty if nobody has it."""
        return "; ".join(str(holder) for holder in self.holders if device in holder.devices)


class DeviceSessionMessage(Message):
    """The session in force: every device's configuration. version grows with every change; hash identifies
    its content.

    failed: devices that are part of the session and could not be built or connected -> why.
    """

    msg_type: ClassVar[str] = "device_session"

    version: int
    devices: dict[str, dict[str, Any]]
    failed: dict[str, str] = {}
    hash: str = ""
    source: str = ""
    user: str = ""
    timestamp: float = 0.0


class ConfigAction(StrEnum):
    SET = "set"
    ADD = "add"
    UPDATE = "update"
    REMOVE = "remove"
    RESET = "reset"
    RELOAD = "reload"


class DeviceConfigMessage(Message):
    """Please change the session. devices: name -> configuration (for update: the fields to change; for
    remove: name -> {}; for reload: name -> {}, none for all). rebuild: with set, build all of them anew, also those
    that are in force unchanged.

    Answered by a `RequestResponseMessage` whose result is {"version", "loaded": [names], "failed": {name:
    sentence}, "kept": {name: why it was not built anew}}.
    """

    msg_type: ClassVar[str] = "device_config"

    request_id: str
    client_id: str
    action: ConfigAction
    devices: dict[str, dict[str, Any]] = {}
    source: str = ""
    rebuild: bool = False


class DeviceServerInfoMessage(Message):
    """A device server says that it is there. boot_id: new with every process. run_epoch: the lowest that it
    still obeys. loads: how often this process has put devices into force.
    """

    msg_type: ClassVar[str] = "device_server_info"

    server: str
    boot_id: str
    run_epoch: int = 0
    session_version: int = 0
    loads: int = 0
