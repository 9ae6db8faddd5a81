"""One thread per queue: its mailbox -> `ScanRun` -> instructions.

The thread waits in its mailbox alone, into which the device servers' replies and the main thread's orders come. It
writes under a lease of its own, one batch a turn, and tells the main thread what came of it. A plugin's code runs
here, so that it can hold up nobody but its own queue.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bec_lib.broker import Batch, Broker, Delivery, Lease, Malformed
from bec_lib.clock import Clock
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError, MessageError, ReasonCode
from bec_lib.messages import DeviceInstructionResponse, ErrorInfo, QueueAction, ScanState
from bec_lib.service import ThreadedInbox
from scan_server.assembler import Assembled
from scan_server.restore import count_committed, patiently, reading_of
from scan_server.run import (
    GIVE_UP_S,
    Append,
    Ask,
    CodeMark,
    Count,
    Counted,
    Effect,
    Finish,
    Moment,
    Order,
    Phase,
    Put,
    Recall,
    Resumed,
    ScanRun,
)

log = logging.getLogger(__name__)

# How long a reply may be out before the heartbeat of who owes it is looked at.
LOOK_S = 0.4


@dataclass(frozen=True)
class Run:
    """From the main thread: run this. mark: for code that is not ours."""

    order: Order
    assembled: Assembled
    resumed: Resumed | None = None
    mark: CodeMark | None = None


@dataclass(frozen=True)
class Break:
    """From the main thread: the scan that runs cannot go on, for this reason."""

    scan_id: str
    error: ErrorInfo


@dataclass(frozen=True)
class Command:
    """From the main thread: a user's command for the scan that runs."""

    scan_id: str
    action: QueueAction
    message: str = ""


@dataclass(frozen=True)
class Held:
    """From the main thread: interlocks hold what runs since some time (seconds UTC); an empty text: they do not."""

    why: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class Stop:
    """From the main thread: end the thread."""


@dataclass(frozen=True)
class RunEnded:
    """To the main thread."""

    queue: str
    scan_id: str
    state: ScanState
    success: bool
    message: str = ""


@dataclass(frozen=True)
class RunAsks:
    """To the main thread: the run has paused itself, for this reason."""

    queue: str
    scan_id: str
    message: str


@dataclass(frozen=True)
class WorkerNote:
    """To the main thread: what a person should know; empty if it is over."""

    queue: str
    message: str


@dataclass(frozen=True)
class WorkerBroke:
    """To the main thread: the worker cannot go on at all."""

    queue: str
    error: BECError


def service_of(server: str) -> str:
    """The role under which a device server sends its heartbeat."""
    return "device_server" if server == "main" else f"device_server.{server}"


class Worker:
    """The thread of one queue. Everything but `post` and `stop` belongs to it."""

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        queue: str,
        servers: Sequence[str],
        epochs: Iterator[int],
        tell: Callable[[Any], None],
    ):
        self.queue = queue
        # Since when the thread has been at work, by the monotonic clock; None: it waits. Read by the main thread.
        self.working_since: float | None = None
        self._broker = broker
        self._clock = clock
        self._servers = list(servers)
        self._epochs = epochs
        self._tell = tell
        self._lease: Lease = broker.acquire_lease(f"scan_server.{queue}")
        self._inbox = ThreadedInbox(broker, name=f"replies-{queue}")
        for server in self._servers:
            replies = MessageEndpoints.device_instructions_response(server)
            self._inbox.follow(replies, broker.last_id(replies))
        self._run: ScanRun | None = None
        self._held = Held()
        self._note = ""
        self._silent_since: float | None = None
        self._silence = ""
        self._thread = threading.Thread(target=self._work, name=f"queue-{queue}", daemon=True)

    def start(self) -> Worker:
        self._thread.start()
        return self

    def post(self, order: Run | Break | Command | Held | Stop) -> None:
        """From any thread."""
        self._inbox.post(order)

    def stop(self) -> None:
        """Let the thread end; what it runs goes on when the scan server is back."""
        self._inbox.post(Stop())
        self._thread.join(timeout=2.0)
        self._inbox.close()

    def abandon(self) -> None:
        """Do not wait for a thread that is stuck in a scan's code. Whoever takes its place has a newer lease, so that
        nothing that it may still want to write is written.
        """
        self._tell = lambda _: None
        self._inbox.close()

    @property
    def is_alive(self) -> bool:
        """Does its thread still run?"""
        return self._thread.is_alive()

    # The thread

    def _work(self) -> None:
        try:
            while self._turn():
                pass
        except BECError as error:
            self._tell(WorkerBroke(self.queue, error))
        except Exception as error:  # the thread must not end in silence
            log.exception("the worker of the queue %s failed", self.queue)
            text = f"the worker of the queue {self.queue} failed: {type(error).__name__}: {error}"
            self._tell(WorkerBroke(self.queue, BECError(text)))

    def _turn(self) -> bool:
        self.working_since = None
        events = self._inbox.take(self._timeout())
        moment = self._moment()
        self.working_since = moment.tick
        effects: list[Effect] = []
        for event in events:
            match event:
                case Stop():
                    return False
                case Run():
                    self._run = ScanRun(
                        event.order,
                        event.assembled.scan,
                        event.assembled.plan,
                        self._epochs,
                        resumed=event.resumed,
                        hooks=event.assembled.hooks,
                        is_over=event.assembled.is_over,
                        mark=event.mark,
                    )
                    effects += self._guarded(ScanRun.begin, moment)
                    effects += self._guarded(ScanRun.held, self._held.why, self._held.since, moment)
                case Held() as held:
                    self._held = held
                    if self._run is not None:
                        effects += self._guarded(ScanRun.held, held.why, held.since, moment)
                case Break(scan_id, error):
                    if self._run is not None and self._run.order.scan_id == scan_id:
                        effects += self._guarded(ScanRun.broke, error, moment)
                case Command(scan_id, action, message):
                    if self._run is not None and self._run.order.scan_id == scan_id:
                        effects += self._guarded(ScanRun.command, action, message, moment)
                case Delivery(message=DeviceInstructionResponse() as reply):
                    if self._run is not None and reply.scan_id == self._run.order.scan_id:
                        effects += self._guarded(ScanRun.answered, reply, moment)
                case Malformed():
                    log.error("a reply of a device server cannot be read: %s", event.error)
                case _:
                    pass
        if self._run is not None and not events:
            effects += self._look_after()
        if effects:
            self._carry_out(effects)
            self._say()
        return True

    def _timeout(self) -> float:
        run = self._run
        if run is None:
            return 60.0
        timeout = LOOK_S if run.waiting_for else 60.0
        if run.wake_at is not None:
            timeout = min(timeout, run.wake_at - self._clock.monotonic())
        return max(0.0, timeout)

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic())

    def _guarded(self, call: Callable[..., list[Effect]], *arguments: Any) -> list[Effect]:
        """Our own mistakes end the scan that met them, with their text, and nothing else."""
        assert self._run is not None
        try:
            return call(self._run, *arguments)
        except Exception as error:
            log.exception("the scan %s failed in the scan server", self._run.order.scan_id)
            info = ErrorInfo(
                error_message=f"the scan server failed in this scan: {type(error).__name__}: {error}",
                code=ReasonCode.INTERNAL,
                exception_type=type(error).__name__,
            )
            return self._run.broke(info, self._moment())

    def _carry_out(self, effects: list[Effect]) -> None:
        """Write in one batch; then count, end, and what follows from that."""
        while effects:
            batch = self._broker.batch(self._lease)
            following: list[Effect] = []
            finished: Finish | None = None
            count: Count | None = None
            recall: Recall | None = None
            asks: RunAsks | None = None
            for effect in effects:
                match effect:
                    case Append() | Put():
                        following += self._write(batch, effect)
                    case Count():
                        count = effect
                    case Recall():
                        recall = effect
                    case Ask(message):
                        assert self._run is not None
                        asks = RunAsks(self.queue, self._run.order.scan_id, message)
                    case Finish():
                        finished = effect
            batch.commit()
            if asks is not None:
                self._tell(asks)
            if count is not None:
                run = self._run
                assert run is not None
                counted = patiently(self._broker, partial(self._counted, run, count))
                moment = self._moment()
                following += self._guarded(ScanRun.counted, counted, moment)
            if recall is not None:
                run = self._run
                assert run is not None
                reading = patiently(
                    self._broker,
                    partial(reading_of, self._broker, run.order.scan_id, recall.index, recall.schema),
                )
                following += self._guarded(ScanRun.recalled, recall.index, reading, self._moment())
            if finished is not None:
                self._finish(finished)
                return
            effects = following

    def _counted(self, run: ScanRun, count: Count) -> Counted:
        scan_id = run.order.scan_id
        counted = count_committed(self._broker, scan_id, run.readers)
        last = min((counted.points.get(server, 0) for server in run.readers), default=0) - 1
        if count.schema is None or last < 0:
            return counted
        return replace(counted, last=reading_of(self._broker, scan_id, last, count.schema) or {})

    def _write(self, batch: Batch, effect: Append | Put) -> list[Effect]:
        try:
            if isinstance(effect, Append):
                batch.append(effect.endpoint, effect.message)
            else:
                batch.put(effect.endpoint, effect.message)
        except MessageError as error:
            info = ErrorInfo(error_message=error.message, code=error.reason)
            moment = self._moment()
            return self._guarded(ScanRun.broke, info, moment)
        return []

    def _finish(self, finished: Finish) -> None:
        assert self._run is not None
        order = self._run.order
        scan_id = order.scan_id
        if order.is_scan:
            log.info(
                "scan %d (%s) of %s: %s, %d points%s",
                order.number,
                order.request.scan_type,
                order.user or "a client",
                finished.state,
                self._run.committed,
                f"; {finished.message}" if finished.message else "",
            )
        self._run = None
        self._say("")
        self._silent_since = None
        self._tell(RunEnded(self.queue, scan_id, finished.state, finished.success, finished.message))

    def _look_after(self) -> list[Effect]:
        """Nothing came for a while: has the time come for something, and do those who owe a reply live?"""
        run = self._run
        assert run is not None
        moment = self._moment()
        if run.wake_at is not None and moment.tick >= run.wake_at:
            return self._guarded(ScanRun.woke, moment)
        servers = sorted(run.waiting_for)
        try:
            beats = self._broker.get_many(
                [MessageEndpoints.service_status(service_of(server)) for server in servers]
            )
        except BECError as error:
            log.warning("the heartbeats of device servers cannot be read: %s", error)
            return []
        dead = [server for server, beat in zip(servers, beats, strict=True) if beat is None]
        if not dead:
            self._silent_since = None
            self._say("")
            return []
        if self._silent_since is None:
            self._silent_since = moment.tick
        silent_s = moment.tick - self._silent_since
        names = ", ".join(dead)
        follows = (
            f"the scan ends without it after {GIVE_UP_S:g} s"
            if run.phase is Phase.CLEANING
            else "the scan goes on when it is back, or can be aborted"
        )
        self._say(f"waiting for the device server {names}, which is not running; {follows}")
        if silent_s >= GIVE_UP_S:
            return self._guarded(ScanRun.silent, dead, moment)
        return []

    def _say(self, silence: str | None = None) -> None:
        """Tell what people should know, if it has changed. silence: which device server is; None: as before."""
        self._silence = self._silence if silence is None else silence
        message = self._silence or (self._run.note if self._run is not None else "")
        if message != self._note:
            self._note = message
            self._tell(WorkerNote(self.queue, message))
