"""Interlocks and beamline states: what is to hold before and while scans run, and whether it does.

Clients ask the scan server for changes; it owns the definitions and decides when an interlock is tripped, settles and is
clear. A device server says at once what it sees of its own devices (`InterlockTripMessage`), and holds its points.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from bec_lib.messages.base import Message, Part


class InterlockAction(StrEnum):
    """What a tripped interlock does. Each does what those before it do, too.

    alarm: people are told. block: no scan starts. hold: a running scan is held between two phases of a point.
    repeat: the point in flight is thrown away and taken again.
    """

    ALARM = "alarm"
    BLOCK = "block"
    HOLD = "hold"
    REPEAT = "repeat"


class InterlockPhase(StrEnum):
    """waiting: for the first readings since it was defined; counts as tripped. settling: clear again, not yet for
    long enough. disabled: not looked at.
    """

    CLEAR = "clear"
    WAITING = "waiting"
    TRIPPED = "tripped"
    SETTLING = "settling"
    DISABLED = "disabled"


class InterlockConfig(Part):
    """An interlock. trips_when, clears_when: conditions over signals, such as `curr.curr < 100`; clears_when empty:
    when it no longer trips. settle_time_s: how long it must be clear before scans go on. queues: to which it applies;
    empty: to all. message: for people, in place of a sentence made from the condition.
    """

    name: str
    trips_when: str
    clears_when: str = ""
    settle_time_s: float = Field(0.0, ge=0.0, le=86_400.0)
    action: InterlockAction = InterlockAction.REPEAT
    queues: list[str] = []
    enabled: bool = True
    message: str = ""
    source: str = ""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value or len(value) > 64 or not all(c.isalnum() or c in "_-." for c in value):
            raise ValueError("must have 1 to 64 letters, digits, '_', '-' or '.'")
        return value

    @property
    def holds(self) -> bool:
        """Whether a running scan is held by it."""
        return self.action in (InterlockAction.HOLD, InterlockAction.REPEAT)

    def applies_to(self, queue: str) -> bool:
        return not self.queues or queue in self.queues


class InterlockRequestMessage(Message):
    """Please change the interlocks. add: `interlock` is put in, or replaces the one of its name. names: of those to
    remove, enable or disable; empty: all.
    """

    msg_type: ClassVar[str] = "interlock_request"

    request_id: str
    client_id: str
    action: Literal["add", "remove", "enable", "disable"]
    interlock: InterlockConfig | None = None
    names: list[str] = []


class InterlocksMessage(Message):
    """The interlocks as they are defined; the newest entry counts. watched: devices that are to be read about once a
    second if they do not update by themselves. signals: name in a condition -> [device, signal, signal ...], of which
    the first that the device has is meant. states: beamline states in conditions -> {"kind", "config"}.
    """

    msg_type: ClassVar[str] = "interlocks"

    interlocks: dict[str, InterlockConfig] = {}
    watched: list[str] = []
    signals: dict[str, list[str]] = {}
    states: dict[str, dict[str, Any]] = {}
    user: str = ""


class InterlockState(Part):
    """since: when it came into its phase; tripped_since: when it tripped, None if it is clear; both seconds UTC. why:
    a sentence. trips: how often it has tripped since the scan server was started. serials: server -> serial of the
    last trip known from it.
    """

    phase: InterlockPhase
    since: float = 0.0
    tripped_since: float | None = None
    why: str = ""
    trips: int = 0
    serials: dict[str, int] = {}


class InterlockStatusMessage(Message):
    """All interlocks as they are now."""

    msg_type: ClassVar[str] = "interlock_status"

    interlocks: dict[str, InterlockState] = {}


class InterlockTripMessage(Message):
    """A device server saw an interlock trip, and holds the points of its queues until it is released; said again every
    few seconds until then.

    serial: grows with each trip on this server. since: time stamp of the reading. readings: device -> signal ->
    {"value", "timestamp"} that made it trip. unreadable: device -> why it cannot be read.
    """

    msg_type: ClassVar[str] = "interlock_trip"

    interlock: str
    server: str
    serial: int
    since: float
    why: str
    readings: dict[str, dict[str, Any]] = {}
    unreadable: dict[str, str] = {}


class BeamlineStatus(StrEnum):
    """BEC's four."""

    VALID = "valid"
    INVALID = "invalid"
    WARNING = "warning"
    UNKNOWN = "unknown"


class BeamlineStateRequestMessage(Message):
    """Please change the beamline states. config: of the state's kind, with its name; for update the fields to
    change.
    """

    msg_type: ClassVar[str] = "beamline_state_request"

    request_id: str
    client_id: str
    action: Literal["add", "update", "remove"]
    name: str
    kind: str = ""
    config: dict[str, Any] = {}


class BeamlineStateMessage(Message):
    """A beamline state. label: what is the matter, a sentence. since: of this status, seconds UTC."""

    msg_type: ClassVar[str] = "beamline_state"

    name: str
    status: BeamlineStatus
    label: str = ""
    since: float = 0.0
    kind: str = ""
    config: dict[str, Any] = {}


class BeamlineStatesMessage(Message):
    """All beamline states as they are now, and the kinds there are. failed: plugin -> why it cannot be used."""

    msg_type: ClassVar[str] = "beamline_states"

    states: dict[str, BeamlineStateMessage] = {}
    kinds: list[str] = []
    failed: dict[str, str] = {}
