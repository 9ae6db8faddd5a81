"""Which instruction runs, which waits, which is answered without running? Epochs, owners and order, as plain state.

Instructions of one scan run one after the other, in the order of the stream; different scans run side by side. A stop
makes all instructions up to an epoch void, whether they have come already or not. Staging makes devices a scan's own.

| Event          | Instruction                              | Effects                                             |
|----------------|------------------------------------------|-----------------------------------------------------|
| `receive`      | void by epoch                            | Reply(stopped)                                      |
|                | device owned by another scan             | Reply(error)                                        |
|                | its scan is idle                         | Run                                                 |
|                | its scan is running                      | none: it waits                                      |
| `finish`       | running                                  | Reply, then Run or Reply of those that waited       |
| `apply_stop`   | waiting and void                         | Reply(stopped); a running one is ended by its runner|
| `forget`       | appended before this process was started | Reply(stopped, service_down)                        |

Knows no thread, clock or broker; `DispatchState` is owned by whoever calls it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bec_lib.errors import DeviceError, ReasonCode
from bec_lib.ids import entry_order, just_before
from bec_lib.messages import (
    CommitSession,
    DeviceInstructionMessage,
    DeviceInstructionResponse,
    ErrorInfo,
    InstructionStatus,
    MoveDevices,
    PrepareSession,
    RollbackSession,
    RunPoints,
    StageDevices,
    UnstageDevices,
)

SESSION_ACTIONS = (PrepareSession, CommitSession, RollbackSession)
# Stops of single scans that are remembered; a stream holds far fewer scans at a time.
_KEEP_STOPS = 200


@dataclass(frozen=True)
class Epochs:
    """Which instructions are void, and which scans are held. A value: the control thread replaces it, all others read.

    floor: the lowest epoch that is still obeyed. stopped: scan -> the highest epoch of it that is void. paused: scans
    that are held between two phases; None in it: all. after_point: those that are held between two points.
    """

    floor: int = 0
    stopped: Mapping[str, int] = field(default_factory=dict)
    paused: frozenset[str | None] = frozenset()
    after_point: frozenset[str | None] = frozenset()

    def admits(self, scan_id: str | None, run_epoch: int) -> bool:
        """Whether an instruction of this scan and epoch may run."""
        if run_epoch < self.floor:
            return False
        return scan_id is None or run_epoch > self.stopped.get(scan_id, -1)

    def holds(self, scan_id: str | None, *, within_point: bool = False) -> bool:
        """Whether a scan is paused. within_point: it has begun a point, and not ended it."""
        held = self.paused if within_point else self.paused | self.after_point
        return bool(held) and (None in held or scan_id in held)

    def stop(self, scan_id: str | None, run_epoch: int, seen: int) -> Epochs:
        """After a stop. seen: the highest epoch that has come so far. A stop also ends a pause."""
        if scan_id is None:
            floor = max(self.floor, seen + 1, run_epoch + 1)
            return Epochs(floor, self.stopped, frozenset())
        stopped = dict(self.stopped)
        # Without an epoch of its own, a stop is meant for all that has come.
        last = run_epoch if run_epoch > 0 else seen
        stopped[scan_id] = max(last, stopped.pop(scan_id, -1))
        while len(stopped) > _KEEP_STOPS:
            del stopped[next(iter(stopped))]
        return Epochs(self.floor, stopped, self.paused - {scan_id}, self.after_point - {scan_id})

    def pause(self, scan_id: str | None, *, after_point: bool = False) -> Epochs:
        if after_point:
            return replace(self, after_point=self.after_point | {scan_id})
        return replace(self, paused=self.paused | {scan_id})

    def resume(self, scan_id: str | None) -> Epochs:
        """Of one scan; None: of all."""
        if scan_id is None:
            return replace(self, paused=frozenset(), after_point=frozenset())
        over = {scan_id, None}
        return replace(self, paused=self.paused - over, after_point=self.after_point - over)


@dataclass(frozen=True)
class Owner:
    """The scan (or move) that a device belongs to."""

    scan_id: str
    scan_name: str = ""
    scan_number: int = 0
    user: str = ""

    @property
    def what(self) -> str:
        name = self.scan_name or "a scan"
        return f"scan {self.scan_number} ({name})" if self.scan_number else name

    def __str__(self) -> str:
        return f"{self.what} of {self.user}" if self.user else self.what


@dataclass(frozen=True)
class Run:
    """Effect: begin this instruction."""

    instruction: DeviceInstructionMessage


@dataclass(frozen=True)
class Reply:
    """Effect: answer an instruction."""

    response: DeviceInstructionResponse


Effect = Run | Reply


class InFlight:
    """How far a stream has been dealt with: entries in order, each done at some time.

    `cursor` is the last entry before which nothing is open; None if nothing has been done yet.
    """

    def __init__(self) -> None:
        self._open: dict[str, None] = {}
        self._last: str | None = None
        self._cursor: str | None = None

    def begin(self, entry_id: str) -> None:
        self._open[entry_id] = None
        self._last = entry_id

    def end(self, entry_id: str) -> str | None:
        """The new cursor, or None if it has not moved."""
        self._open.pop(entry_id, None)
        before = self._cursor
        if not self._open:
            self._cursor = self._last
        else:
            first = next(iter(self._open))
            passed = just_before(first)
            if self._cursor is None or entry_order(passed) > entry_order(self._cursor):
                self._cursor = passed
        return self._cursor if self._cursor != before else None


class DispatchState:
    """Instructions in flight, and owners of devices."""

    def __init__(self, server: str, boot_id: str):
        self._server = server
        self._boot_id = boot_id
        self._queues: dict[str, deque[DeviceInstructionMessage]] = {}
        self._running: dict[str, DeviceInstructionMessage] = {}
        self._entries: dict[str, str] = {}
        self._positions = InFlight()
        self._broken: dict[str, int] = {}
        self.owners: dict[str, Owner] = {}
        # How often that has changed.
        self.owners_version = 0
        self.seen = 0

    # Events

    def receive(self, entry_id: str, message: DeviceInstructionMessage, epochs: Epochs) -> list[Effect]:
        """An instruction has come."""
        if message.instruction_id in self._entries:
            return []
        self.seen = max(self.seen, message.run_epoch)
        self._positions.begin(entry_id)
        self._entries[message.instruction_id] = entry_id
        key = _queue_of(message)
        queue = self._queues.setdefault(key, deque())
        queue.append(message)
        return [] if key in self._running else self._advance(key, epochs)

    def finish(
        self,
        instruction_id: str,
        epochs: Epochs,
        *,
        error: ErrorInfo | None = None,
        result: Any = None,
        stopped: bool = False,
    ) -> list[Effect]:
        """A running instruction has ended."""
        key = next((k for k, m in self._running.items() if m.instruction_id == instruction_id), None)
        if key is None:
            return []
        message = self._running.pop(key)
        action = message.action
        if isinstance(action, MoveDevices):
            self._release(message.instruction_id)
        elif isinstance(action, UnstageDevices) and message.scan_id:
            self._release(message.scan_id)
        if (error or stopped) and isinstance(action, RunPoints) and message.scan_id:
            # The points behind a point that failed must not be taken: there would be a gap.
            self._broken[message.scan_id] = message.run_epoch
            while len(self._broken) > _KEEP_STOPS:
                del self._broken[next(iter(self._broken))]
        if stopped:
            effect = self._stopped(message, error)
        elif error is not None:
            effect = self._reply(message, InstructionStatus.ERROR, error)
        else:
            effect = self._reply(message, InstructionStatus.COMPLETED, None, result)
        return [effect, *self._advance(key, epochs)]

    def apply_stop(self, epochs: Epochs) -> list[Effect]:
        """The epochs have changed: whatever waits and is void is answered now."""
        effects: list[Effect] = []
        for key in list(self._queues):
            queue = self._queues[key]
            void = [message for message in queue if not _admitted(message, epochs)]
            if not void:
                continue
            kept = deque(message for message in queue if _admitted(message, epochs))
            self._queues[key] = kept
            effects += [self._stopped(message) for message in void]
            if not kept and key not in self._running:
                del self._queues[key]
        return effects

    def forget(self, entry_id: str, message: DeviceInstructionMessage) -> Reply:
        """An instruction that was appended before this process was started: nobody knows how far it went."""
        self.seen = max(self.seen, message.run_epoch)
        self._positions.begin(entry_id)
        self._entries[message.instruction_id] = entry_id
        error = ErrorInfo(
            error_message=f"the device server {self._server!r} was started anew before this was done",
            code=ReasonCode.SERVICE_DOWN,
        )
        return self._reply(message, InstructionStatus.STOPPED, error)

    # Questions

    def cursor_after(self, instruction_id: str) -> str | None:
        """Note that the reply to an instruction is being written; the cursor to write with it, if it moves."""
        entry = self._entries.pop(instruction_id, None)
        return self._positions.end(entry) if entry is not None else None

    def skip(self, entry_id: str) -> str | None:
        """An entry that is no instruction has been passed over; the cursor, if it moves."""
        self._positions.begin(entry_id)
        return self._positions.end(entry_id)

    def running(self) -> list[DeviceInstructionMessage]:
        return list(self._running.values())

    def owner_of(self, device: str) -> Owner | None:
        return self.owners.get(device)

    def refuse_if_owned(self, device: str, doing: str) -> None:
        """Raises DeviceError if a scan owns the device."""
        owner = self.owners.get(device)
        if owner is not None:
            raise DeviceError(
                f"{device} is held by {owner}; wait for it to end, or stop it, before you {doing}",
                code=ReasonCode.DEVICE_OWNED,
                device=device,
            )

    # Inside

    def _advance(self, key: str, epochs: Epochs) -> list[Effect]:
        """Take from a queue until one runs."""
        effects: list[Effect] = []
        queue = self._queues.get(key)
        while queue:
            message = queue.popleft()
            if not _admitted(message, epochs) or self._is_behind_a_failure(message):
                effects.append(self._stopped(message))
                continue
            refused = self._claim(message, epochs)
            if refused is not None:
                effects.append(self._reply(message, InstructionStatus.ERROR, refused))
                continue
            self._running[key] = message
            effects.append(Run(message))
            return effects
        self._queues.pop(key, None)
        return effects

    def _is_behind_a_failure(self, message: DeviceInstructionMessage) -> bool:
        return (
            isinstance(message.action, RunPoints)
            and message.scan_id is not None
            and message.run_epoch <= self._broken.get(message.scan_id, -1)
        )

    def _claim(self, message: DeviceInstructionMessage, epochs: Epochs) -> ErrorInfo | None:
        """Make the devices of a stage or move the instruction's own; why not, if another scan has one."""
        action = message.action
        if isinstance(action, StageDevices):
            scan_id = message.scan_id or message.instruction_id
            owner = Owner(
                scan_id, action.scan_name, action.scan_number, str(action.scan_info.get("user") or "")
            )
            wanted = action.owned
        elif isinstance(action, MoveDevices):
            owner = Owner(message.scan_id or message.instruction_id, "a move", user=action.by)
            wanted = [name for name in action.targets if name not in self.owners]
            taken = self._taken(list(action.targets), owner.scan_id, epochs)
            if taken is not None:
                return taken
            self._own(wanted, replace(owner, scan_id=message.instruction_id))
            return None
        else:
            return None
        refused = self._taken(wanted, owner.scan_id, epochs)
        if refused is not None:
            return refused
        self._release(owner.scan_id)
        self._own(wanted, owner)
        return None

    def _own(self, names: Iterable[str], owner: Owner) -> None:
        for name in names:
            self.owners[name] = owner
            self.owners_version += 1

    def _taken(self, names: Iterable[str], scan_id: str, epochs: Epochs) -> ErrorInfo | None:
        for name in names:
            owner = self.owners.get(name)
            if owner is None or owner.scan_id == scan_id:
                continue
            if self._is_abandoned(owner, epochs):
                self._release(owner.scan_id)
                continue
            return ErrorInfo(
                error_message=f"{name} is held by {owner}, which has not given it up",
                code=ReasonCode.DEVICE_OWNED,
                device=name,
            )
        return None

    def _is_abandoned(self, owner: Owner, epochs: Epochs) -> bool:
        """A scan that was stopped and has nothing in flight will not unstage any more."""
        in_flight = any(
            owner.scan_id in (message.scan_id, message.instruction_id) for message in self._running.values()
        )
        return not in_flight and (owner.scan_id in epochs.stopped or epochs.floor > self.seen)

    def _release(self, scan_id: str) -> None:
        for name in [name for name, owner in self.owners.items() if owner.scan_id == scan_id]:
            del self.owners[name]
            self.owners_version += 1

    def _stopped(self, message: DeviceInstructionMessage, error: ErrorInfo | None = None) -> Reply:
        error = error or ErrorInfo(error_message="stopped before it was done", code=ReasonCode.STOPPED)
        return self._reply(message, InstructionStatus.STOPPED, error)

    def _reply(
        self,
        message: DeviceInstructionMessage,
        status: InstructionStatus,
        error: ErrorInfo | None,
        result: Any = None,
    ) -> Reply:
        return Reply(
            DeviceInstructionResponse(
                instruction_id=message.instruction_id,
                status=status,
                scan_id=message.scan_id,
                error=error,
                result=result,
                server=self._server,
                boot_id=self._boot_id,
            )
        )


def _admitted(message: DeviceInstructionMessage, epochs: Epochs) -> bool:
    # A change of the session moves nothing and carries no epoch.
    return isinstance(message.action, SESSION_ACTIONS) or epochs.admits(message.scan_id, message.run_epoch)


def _queue_of(message: DeviceInstructionMessage) -> str:
    if isinstance(message.action, SESSION_ACTIONS):
        return "session"
    return message.scan_id or message.instruction_id
