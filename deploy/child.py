"""One service of the fleet, and what the supervisor knows of it. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bec_lib.messages import StatusMessage
from deploy.services import ServiceSpec


class ChildState(StrEnum):
    """waiting: for its start. starting: no heartbeat yet. silent: no heartbeat any more. killed: by us, it is
    about to end. stopped: it ended as it was asked to.
    """

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    SILENT = "silent"
    KILLED = "killed"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass
class Child:
    """Owned by the fleet's loop.

    pid: 0 if there is no process. started, due, kill_due, silent_since: by the monotonic clock; since: seconds UTC.
    due: when it is to be started. ends: in a row, for the delay before the next start. reason: why it last ended, or
    what is wrong with it. status: its last heartbeat.
    """

    spec: ServiceSpec
    pid: int = 0
    state: ChildState = ChildState.WAITING
    started: float = 0.0
    since: float = 0.0
    due: float | None = 0.0
    kill_due: float | None = None
    ends: int = 0
    restarts: int = 0
    reason: str = ""
    status: StatusMessage | None = None
    silent_since: float | None = None
    was_told_silent: bool = False
    was_told_overdue: bool = False
    is_restart_asked: bool = False

    @property
    def role(self) -> str:
        return self.spec.role

    @property
    def is_up(self) -> bool:
        return self.state in (ChildState.RUNNING, ChildState.SILENT)
