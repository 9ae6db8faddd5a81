"""Services, clients, alarms, log, account: the running of the system itself."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any, ClassVar

from bec_lib.messages.base import ErrorInfo, Message, Part


class ServiceState(StrEnum):
    """BUSY: in a long call, `busy` says which. ERROR: alive and unable to work, `message` says why."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BUSY = "BUSY"
    ERROR = "ERROR"
    STOPPING = "STOPPING"


class Busy(Part):
    """what is being done, since and until when (seconds UTC); past `until` the supervisor may restart the
    process.
    """

    what: str
    since: float
    until: float


class StatusMessage(Message):
    """A service's heartbeat. It expires 1.5 s after it was sent: no heartbeat, no service."""

    msg_type: ClassVar[str] = "status_message"

    name: str
    instance: str
    status: ServiceState
    host: str
    pid: int
    epoch: int = 0
    started: float = 0.0
    version: str = ""
    message: str = ""
    busy: Busy | None = None
    info: dict[str, Any] = {}


class ClientHelloMessage(Message):
    """A client of this user exists; services begin to read the user's request streams."""

    msg_type: ClassVar[str] = "client_hello"

    user: str
    client_id: str
    host: str = ""
    pid: int = 0
    program: str = ""


class Severity(IntEnum):
    """BEC's three."""

    WARNING = 0
    MINOR = 1
    MAJOR = 2


class AlarmMessage(Message):
    """Something a person should know. Never a substitute for an answer: who asked gets the error in the
    answer, too.
    """

    msg_type: ClassVar[str] = "alarm_message"

    severity: Severity
    info: ErrorInfo
    source: str = ""
    scan_id: str | None = None
    timestamp: float = 0.0


class LogMessage(Message):
    """A line of a service's log, WARNING and above."""

    msg_type: ClassVar[str] = "log_message"

    level: str
    service: str
    text: str
    timestamp: float
    logger: str = ""
    details: str = ""


class AccountMessage(Message):
    """The account (proposal) in force, frozen into each scan when it opens."""

    msg_type: ClassVar[str] = "account"

    account: str


class GlobalVariableMessage(Message):
    """A variable that all clients share. value: what a message can carry."""

    msg_type: ClassVar[str] = "global_variable"

    value: Any


class GlobalVariableNameMessage(Message):
    """A global variable of this name was made; it may have been deleted since."""

    msg_type: ClassVar[str] = "global_variable_name"

    name: str


class DatasetMessage(Message):
    """A dataset was begun. Its entry in the stream is `{number}-0`, so that each number is given once."""

    msg_type: ClassVar[str] = "dataset"

    number: int


class SupervisorMessage(Message):
    """What the supervisor saw: a service's process started, ended, was restarted. reason: why it died, in
    words.
    """

    msg_type: ClassVar[str] = "supervisor"

    service: str
    event: str
    pid: int = 0
    exit_code: int | None = None
    reason: str = ""
    timestamp: float = 0.0
