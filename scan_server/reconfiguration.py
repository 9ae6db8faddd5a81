"""A change of the device session, from its request to its end, with all device servers.

session.py decides what follows from what; this sends it, takes the replies, and gives up on servers that are silent.
One change at a time, and the queues stand still meanwhile, which is the caller's to see to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import ReasonCode
from bec_lib.messages import (
    DeviceConfigMessage,
    DeviceInstructionMessage,
    DeviceInstructionResponse,
    DeviceSessionMessage,
    InstructionStatus,
)
from bec_lib.service import Service, ThreadedInbox
from scan_server import session as s
from scan_server.guard import Rejected
from scan_server.restore import patiently
from scan_server.turn import Turn
from scan_server.worker import LOOK_S, service_of

# A device server that has no heartbeat for so long is not just starting.
ABSENT_S = 10.0


class Reconfiguration:
    """change: the one that is under way. next_epoch: numbers for instructions. ended: called with what was reached, when
    nothing is under way any more; the session is in the turn's batch then, if it is a new one.
    """

    def __init__(
        self,
        service: Service,
        inbox: ThreadedInbox,
        next_epoch: Callable[[], int],
        ended: Callable[[s.Change, Turn], None],
    ):
        self._service = service
        self._broker = service.broker
        self._inbox = inbox
        self._next_epoch = next_epoch
        self._ended = ended
        self.change: s.Change | None = None
        self._ids: dict[str, str] = {}
        # Device servers that were started anew while the others commit; they prepare first.
        self._behind: set[str] = set()
        self._due = 0.0
        self._ends = 0.0
        self._silent_since: float | None = None

    def planned(
        self,
        request: DeviceConfigMessage,
        user: str,
        running: Sequence[str],
        session: DeviceSessionMessage | None,
    ) -> s.Change | Rejected:
        """What would be changed in the session; running: what stands against it, by name."""
        if self.change is not None:
            return Rejected(
                ReasonCode.WRONG_STATE,
                f"the device session is being changed by {self.change.user}; try again when that is done",
            )
        if running:
            return Rejected(
                ReasonCode.WRONG_STATE,
                f"the device session cannot change while {', '.join(running)} is running; wait for its end, or abort it",
            )
        servers = list(self._service.config.device_servers)
        return s.plan_change(request, session, servers, user=user, now=self._service.clock.now())

    def begin(self, change: s.Change, turn: Turn) -> None:
        for server in change.servers:
            replies = MessageEndpoints.device_instructions_response(server)
            self._inbox.follow(replies, self._broker.last_id(replies))
        self._move(change, turn, entered=True)

    def take(self, reply: DeviceInstructionResponse, turn: Turn) -> None:
        """A device server's reply, if it is to one of ours."""
        if self.change is None or reply.instruction_id not in self._ids:
            return
        server = self._ids.pop(reply.instruction_id)
        before = self.change
        if s.was_lost(reply) and before.stage in (s.Stage.PREPARING, s.Stage.COMMITTING):
            if before.stage is s.Stage.COMMITTING:
                self._behind.add(server)
            self._tell(server, before.prepare[server], turn)
            return
        if server in self._behind and reply.status is InstructionStatus.COMPLETED:
            self._behind.discard(server)
            self._tell(server, s.actions(before)[server], turn)
            return
        changed = s.take_reply(before, server, reply)
        entered = (changed.stage, changed.step) != (before.stage, before.step)
        self._move(changed, turn, entered=entered)

    @property
    def deadline(self) -> float | None:
        """When `look` is due, by the monotonic clock."""
        return None if self.change is None else self._due

    def look(self, now: float, turn: Turn) -> None:
        """Device servers owe replies: give the change up if one does not run, or takes too long."""
        if self.change is None or now < self._due:
            return
        change = self.change
        self._due = now + LOOK_S
        waiting = sorted(change.waiting)
        beats = [MessageEndpoints.service_status(service_of(server)) for server in waiting]
        found = patiently(self._broker, lambda: self._broker.get_many(beats))
        silent = [server for server, beat in zip(waiting, found, strict=True) if beat is None]
        if not silent:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        if silent and self._silent_since is not None and now - self._silent_since >= ABSENT_S:
            problem = (
                f"the device server {', '.join(silent)} is not running, so nothing was changed; start it with "
                "`bec-server start`, see `bec-server status`"
            )
            self._move(s.refuse(change, problem, ReasonCode.SERVICE_DOWN), turn, entered=True)
        elif now >= self._ends:
            problem = f"the device server {', '.join(waiting)} did not answer within {change.patience_s:g} s"
            self._move(s.refuse(change, problem, ReasonCode.TIMEOUT), turn, entered=True)

    def _move(self, change: s.Change, turn: Turn, *, entered: bool) -> None:
        """entered: a stage or a step of it has begun."""
        self.change = change
        if not entered:
            return
        self._ids = {}
        self._behind.clear()
        for server, action in s.actions(change).items():
            self._tell(server, action, turn)
        now = self._service.clock.monotonic()
        self._due, self._ends, self._silent_since = now + LOOK_S, now + change.patience_s, None
        if not change.servers and change.stage is s.Stage.PREPARING:
            change = replace(change, stage=s.Stage.DONE)
        if change.stage not in (s.Stage.DONE, s.Stage.REFUSED):
            return
        if change.stage is s.Stage.DONE:
            turn.batch.put(MessageEndpoints.device_session, change.session)
            turn.batch.append(MessageEndpoints.device_session_history, change.session)
        self.change = None
        self._ids = {}
        replies = [MessageEndpoints.device_instructions_response(server) for server in change.servers]
        turn.afterwards.append(lambda: self._inbox.forget(*replies))
        self._ended(change, turn)

    def _tell(self, server: str, action: s.SessionAction, turn: Turn) -> None:
        instruction_id = self._service.new_id()
        self._ids[instruction_id] = server
        turn.batch.append(
            MessageEndpoints.device_instructions(server),
            DeviceInstructionMessage(
                instruction_id=instruction_id, run_epoch=self._next_epoch(), action=action
            ),
        )
