"""Which services are heard, and which have fallen silent.

While something comes up its heartbeats are heard as they are sent. After that nothing is listened to: once a second one
look at all heartbeats finds those that are missing, which no event could tell. What follows from that is decided in
`deploy.watching`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from bec_lib.broker import Broker, Delivery
from bec_lib.broker.pollable import PollableWatcher
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError
from bec_lib.messages import ServiceState, StatusMessage
from bec_lib.service.foreign_code import calls_of
from deploy import process, watching
from deploy.announcer import Announcer
from deploy.child import Child, ChildState

log = logging.getLogger("supervisor")

# Long enough for the tracebacks of a process that hangs to get into its .err file.
DUMP_S = 0.5
FORGET_REASON_S = 60.0


class Health:
    """Changes the children's state by what is heard and not heard; belongs to the fleet's loop."""

    def __init__(
        self,
        broker: Broker,
        selector: selectors.BaseSelector,
        announcer: Announcer,
        children: list[Child],
        foreign: Path,
    ):
        """foreign: where services say whose code they run."""
        self._broker = broker
        self._selector = selector
        self._announcer = announcer
        self._children = children
        self._foreign = foreign
        self._host = socket.gethostname()
        self._watcher: PollableWatcher | None = None

    def listen(self, starting: Iterable[Child]) -> None:
        """Hear the heartbeats of these as they come; of none: listen to nothing."""
        if self._watcher is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._watcher)
            self._watcher.close()
            self._watcher = None
        endpoints = [MessageEndpoints.service_status(child.role) for child in starting]
        if not endpoints:
            return
        try:
            self._watcher = PollableWatcher(self._broker, endpoints)
            self._selector.register(self._watcher, selectors.EVENT_READ, self._hear)
        except BECError as error:
            log.warning("%s", error)

    def release(self) -> None:
        """In a forked child: close our copies."""
        if self._watcher is not None:
            self._watcher.close()

    def look(self, now: float) -> None:
        """Look for the heartbeats of all who should send them."""
        watched = [child for child in self._children if child.pid and child.state is not ChildState.STOPPING]
        if not watched:
            return
        try:
            found = self._broker.get_many(MessageEndpoints.service_status(child.role) for child in watched)
        except BECError:
            # Without Redis nobody can be heard; that is not their silence.
            for child in watched:
                child.silent_since = None
            return
        for child, item in zip(watched, found, strict=True):
            if item is not None and item.message.pid == child.pid:
                self._heard(child, item.message, now)
            elif child.is_up and child.silent_since is None:
                child.silent_since = now
            self._judge(child, now)

    def _hear(self) -> None:
        assert self._watcher is not None
        try:
            found = self._watcher.take()
        except BECError as error:
            log.warning("%s", error)
            self.listen([])
            return
        for item in found:
            for child in self._children:
                if isinstance(item, Delivery) and child.role == item.message.name:
                    self._heard(child, item.message, time.monotonic())

    def _heard(self, child: Child, status: StatusMessage, now: float) -> None:
        """A heartbeat of this child's role. It may be of its predecessor, or of an instance elsewhere."""
        if status.pid != child.pid or status.host != self._host:
            return
        child.status = status
        child.silent_since = None
        if child.was_told_silent:
            child.was_told_silent = False
            self._announcer.record(child.role, "heard again", child.pid)
        if child.state is ChildState.SILENT:
            child.state = ChildState.RUNNING
        if child.state is ChildState.STARTING and status.status in (ServiceState.RUNNING, ServiceState.BUSY):
            child.state = ChildState.RUNNING
            self._announcer.record(child.role, "running", child.pid)
            if not any(other.state is ChildState.STARTING for other in self._children):
                self.listen([])
        if child.is_up and now - child.started > FORGET_REASON_S:
            child.reason = ""

    def _judge(self, child: Child, now: float) -> None:
        if not child.is_up or child.status is None:
            return
        busy = child.status.busy
        silent_s = 0.0 if child.silent_since is None else max(now - child.silent_since, 0.001)
        overdue_s = None if busy is None else self._broker.now() - busy.until
        doing = f" (busy: {busy.what})" if busy is not None else ""
        # Only one thread at a time holds the interpreter: if that is why nothing is heard, it is the one that began last.
        foreign = calls_of(self._foreign, child.role, child.pid) if silent_s else []
        if foreign:
            # By the clock of this host, as it is written there.
            late_s = time.time() - foreign[-1].until
            overdue_s = late_s if overdue_s is None else max(overdue_s, late_s)
            doing += f" (it is in the code of {foreign[-1]})"
        pulse = watching.Pulse(silent_s, overdue_s)
        name = f"{child.role} (process {child.pid})"
        match watching.judge(pulse):
            case watching.Verdict.SILENT if not child.was_told_silent:
                child.was_told_silent = True
                child.state = ChildState.SILENT
                child.reason = f"has sent no heartbeat for 2 s{doing}"
                self._announcer.record(child.role, "silent", child.pid, reason=child.reason)
                self._announcer.alarm(f"{name} {child.reason}; it may hang.")
            case watching.Verdict.OVERDUE if not child.was_told_overdue:
                child.was_told_overdue = True
                self._announcer.alarm(f"{name} takes longer than it said{doing}.")
            case watching.Verdict.KILL:
                how = (
                    f"silent for {pulse.silent_s:.0f} s" if pulse.silent_s else "busy for longer than it said"
                )
                child.reason = f"killed by the supervisor: {how}{doing}"
                child.state = ChildState.KILLED
                with contextlib.suppress(OSError):
                    os.kill(child.pid, process.DUMP_SIGNAL)
                child.kill_due = now + DUMP_S
