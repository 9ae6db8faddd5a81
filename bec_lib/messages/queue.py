"""Requests to the scan server, its answers, and the state of the queues.

Clients write requests and commands to their own `personal/{user}/...` stream; the answer goes to the stream
of the client that asked. The snapshot is the fold of all queue events and is always complete.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from bec_lib.errors import ReasonCode
from bec_lib.messages.base import ErrorInfo, Message, Part


class ScanQueueMessage(Message):
    """Please run this scan.

    request_id is made by the client; a repeat with the same id gets the first answer. args are the positional
    arguments as typed, devices by name. client_id: whose reply stream gets the answer.
    """

    msg_type: ClassVar[str] = "scan_queue_message"

    request_id: str
    client_id: str
    scan_type: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    queue: str = "primary"
    metadata: dict[str, Any] = {}
    monitored: list[str] = []
    on_request: list[str] = []
    file_suffix: str = ""
    file_directory: str = ""
    dry_run: bool = False


class QueueAction(StrEnum):
    """Commands to a queue, with BEC's names. pause: at once, between two phases; deferred_pause: after the point;
    pause_after_scan: the queue, behind what runs. The last seven are for what waits, by its scan_id.
    """

    PAUSE = "pause"
    DEFERRED_PAUSE = "deferred_pause"
    PAUSE_AFTER_SCAN = "pause_after_scan"
    CONTINUE = "continue"
    ABORT = "abort"
    HALT = "halt"
    CLEAR = "clear"
    RESTART = "restart"
    USER_COMPLETED = "user_completed"
    LOCK = "lock"
    RELEASE_LOCK = "release_lock"
    SHOW = "show"
    MOVE_UP = "move_up"
    MOVE_DOWN = "move_down"
    MOVE_TOP = "move_top"
    MOVE_BOTTOM = "move_bottom"
    MOVE_TO = "move_to"
    EDIT = "edit"
    REMOVE = "remove"

    @property
    def is_move(self) -> bool:
        return self.value.startswith("move_")


class ScanQueueModificationMessage(Message):
    """Please do this to the queue, or to one scan in it. scan_id None: the active scan.

    parameter, by action:
      lock, release_lock  identifier: the lock's name; reason
      move_to             position: 1 is the first that waits
      edit                what is to change of the request: scan_type, args, kwargs (those named), metadata (those named),
                          monitored, on_request, file_suffix, file_directory
      show                first: 1 is the head of the queue; count, at most 1000. The answer's result is a
                          `QueueSnapshot` of these.
    """

    msg_type: ClassVar[str] = "scan_queue_modification"

    request_id: str
    client_id: str
    action: QueueAction
    queue: str = "primary"
    scan_id: str | None = None
    parameter: dict[str, Any] = {}


class PluginReloadMessage(Message):
    """Please import the plugins with scans and modifiers again. The answer's result is a `PluginsReloaded`."""

    msg_type: ClassVar[str] = "plugin_reload"

    request_id: str
    client_id: str


class PluginsReloaded(Part):
    """Names of plugins: new ones, those whose code is another, those that are gone; failed: name -> why it, or a part of
    it, is not used. kept: of those, the ones of which the version before stays in force.
    """

    loaded: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    failed: dict[str, str] = {}
    kept: list[str] = []


class RequestResponseMessage(Message):
    """The one answer to a request or a command.

    A scan request is answered when it is queued (with its scan_id); `mv` is answered when it is queued, too,
    and its end is seen in `RequestDoneMessage`. result: what the request asked for, e.g. the plan of a dry
    run.
    """

    msg_type: ClassVar[str] = "request_response"

    request_id: str
    accepted: bool
    code: ReasonCode | None = None
    message: str = ""
    scan_id: str | None = None
    result: Any = None


class RequestDoneMessage(Message):
    """A request that was accepted has ended. For scans sent when the scan is closed, not when its file is
    written.
    """

    msg_type: ClassVar[str] = "request_done"

    request_id: str
    success: bool
    scan_id: str | None = None
    error: ErrorInfo | None = None


class ItemState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"


class QueueState(StrEnum):
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    LOCKED = "LOCKED"


class QueueItem(Part):
    """One request in a queue. scan_number is None until it starts. progress: points done."""

    request_id: str
    scan_id: str
    scan_name: str
    status: ItemState
    is_scan: bool = True
    scan_number: int | None = None
    user: str = ""
    client_id: str = ""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    submitted: float = 0.0
    num_points: int | None = None
    estimated_s: float | None = None
    motors: list[str] = []
    waiting_for: str = ""


class QueueSnapshot(Part):
    """items: the first of the queue, from its head on. num_items: how many there are in all; with the command `show` one
    sees the others. held: interlock -> sentence, of those that are tripped for this queue.
    """

    status: QueueState = QueueState.RUNNING
    items: list[QueueItem] = []
    locks: dict[str, str] = {}
    message: str = ""
    num_items: int = 0
    held: dict[str, str] = {}


class ScanQueueStatusMessage(Message):
    """All queues as they are now. revision grows by one with every change."""

    msg_type: ClassVar[str] = "scan_queue_status"

    queues: dict[str, QueueSnapshot]
    revision: int = 0


class ScanNumberMessage(Message):
    """The last scan number that was given out."""

    msg_type: ClassVar[str] = "scan_number"

    scan_number: int


class QueueStateMessage(Message):
    """The scan server's own durable state: what it needs to go on after a restart, but for what `QueueLogMessage`s with
    a higher revision say. Opaque to others.
    """

    msg_type: ClassVar[str] = "queue_state"
    max_array_bytes: ClassVar[int] = 256 * 1024 * 1024

    state: dict[str, Any]


class MotorPlan(Part):
    """Where a scan that is planned moves a motor. start: where it stands; low, high: the least and the greatest target;
    travel: the whole way, without the return; limits: its own. All in `unit`. velocity: as configured, None if it is not.
    learned: how fast it is, is known from recorded moves.
    """

    name: str
    unit: str = ""
    start: float | None = None
    low: float | None = None
    high: float | None = None
    travel: float = 0.0
    limits: list[float] | None = None
    velocity: float | None = None
    learned: bool = False


class ScanPlan(Part):
    """What a scan would do, as the answer to a dry run.

    num_points: None if it is decided while it runs. index, positions: up to a few thousand of the points (from 0) and the
    targets there, by motor, absolute. estimated_s and its band: seconds, None if it cannot be told; guessed: what nothing
    was learned for yet. data_bytes: of the points; file_bytes: of the file, about. settings: what is set; steps: what the
    scan does; notes: what else is to be known; one sentence each. file: if it began now. waiting: requests before it.
    """

    scan_name: str
    num_points: int | None = None
    shape: list[int] = []
    motors: list[MotorPlan] = []
    index: list[int] = []
    positions: dict[str, list[float]] = {}
    relative: bool = False
    returns_to_start: bool = False
    estimated_s: float | None = None
    estimated_low_s: float | None = None
    estimated_high_s: float | None = None
    moves_s: float = 0.0
    points_s: float = 0.0
    guessed: list[str] = []
    data_bytes: int | None = None
    file_bytes: int | None = None
    monitored: list[str] = []
    baseline: list[str] = []
    async_: list[str] = []
    triggered: list[str] = []
    parameters: dict[str, Any] = {}
    settings: list[str] = []
    steps: list[str] = []
    notes: list[str] = []
    file: str = ""
    queue: str = "primary"
    waiting: int = 0


class ScanTimingMessage(Message):
    """What finished scans and moves have shown of how long things take. Opaque to others."""

    msg_type: ClassVar[str] = "scan_timing"

    learned: dict[str, Any]


class QueueLogMessage(Message):
    """What happened to the queues in one turn, in order: pairs of a name and its facts. Opaque to others.

    rest: what else is durable and small, as in the state.
    """

    msg_type: ClassVar[str] = "queue_log"

    revision: int
    events: list[Any] = []
    rest: dict[str, Any] = {}
