"""The frame of a service: one process, one role, one loop.

`run` reads the command line, opens the broker, takes the role's lease, and then turns the loop: wait in the
inbox, hand what came to the app, send the heartbeat. The heartbeat is sent by the loop that does the work: a
loop that is stuck falls silent and is seen to be.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from bec_lib.broker import Batch, Broker, Lease, Sender
from bec_lib.broker.broker import CLOCK_AGE_S
from bec_lib.clock import Clock, SystemClock
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import AlreadyRunning, BECError, Fenced
from bec_lib.ids import new_id
from bec_lib.messages import AlarmMessage, Busy, ErrorInfo, ServiceState, Severity, StatusMessage
from bec_lib.service.config import ServiceConfig, load_service_config
from bec_lib.service.inbox import DirectInbox, Event, Inbox, ThreadedInbox
from bec_lib.service.logs import StreamLines, set_up_logging

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.5
# A loop that comes so much too late makes sure that it still has the role: its heartbeat has expired.
LATE_S = 1.0
# A predecessor that was killed is silent after its last heartbeat expires.
TAKEOVER_S = 2.0

COMMANDS = {"data_pipeline": "dap"}
"""The roles whose command is not called as they are."""
EXIT_FAILED = 1
EXIT_FENCED = 3


class App(Protocol):
    """What a service adds to the frame. All methods are called by the main thread."""

    def start(self) -> None:
        """Restore state from the broker and follow streams. Called once, with the lease held."""

    def handle(self, events: list[Event]) -> None:
        """One turn: all that arrived, oldest first. Commits its own batch."""

    def deadline(self) -> float | None:
        """When `on_deadline` is wanted, by the monotonic clock; None: never. Asked before every wait."""

    def on_deadline(self) -> None:
        """The deadline has passed."""

    def stop(self) -> None:
        """End what was started, in reverse order."""


class Service:
    """A process in a role: its broker, lease, inbox and heartbeat."""

    def __init__(
        self,
        name: str,
        config: ServiceConfig,
        broker: Broker,
        *,
        clock: Clock | None = None,
        threaded: bool = True,
        lines: StreamLines | None = None,
    ):
        self.name = name
        self.config = config
        self.broker = broker
        self.clock: Clock = clock or SystemClock()
        self.instance = broker.sender.instance
        self.host = socket.gethostname()
        self.started = broker.now()
        self.inbox: Inbox = ThreadedInbox(broker, name=f"{name}-reader") if threaded else DirectInbox(broker)
        self.lease: Lease | None = None
        self.info: dict[str, Any] = {}
        self.options = argparse.Namespace()
        self._state = ServiceState.STARTING
        self._message = ""
        self._busy: Busy | None = None
        self._lines = lines
        self._stopping = False
        self._beat_due = 0.0
        # How the heartbeat is written; an app that must notice when the broker does not answer has its own way.
        self.commit: Callable[[Batch], Any] = Batch.commit

    # For apps

    def new_id(self) -> str:
        return new_id(self.clock)

    def batch(self) -> Batch:
        """A batch under this process's lease."""
        return self.broker.batch(self.lease)

    def cursors(self) -> dict[str, str]:
        """Endpoint key -> entry id, as committed by earlier batches of this role."""
        return self.broker.cursors(self.name)

    def set_status(self, state: ServiceState, message: str = "") -> None:
        """What the heartbeat says from now on; sent at once."""
        self._state, self._message = state, message
        self._beat()

    @contextlib.contextmanager
    def busy(self, what: str, for_s: float) -> Iterator[None]:
        """Say in the heartbeat that a long call is running (in another thread; the loop goes on), and until
        when it may.
        """
        self.begin_busy(what, for_s)
        try:
            yield
        finally:
            self.end_busy()

    def begin_busy(self, what: str, for_s: float) -> None:
        now = self.broker.now()
        self._busy = Busy(what=what, since=now, until=now + for_s)
        self._beat()

    def end_busy(self) -> None:
        self._busy = None
        self._beat()

    def alarm(
        self,
        severity: Severity,
        message: str,
        *,
        device: str | None = None,
        scan_id: str | None = None,
        details: str = "",
    ) -> None:
        """Tell people. Logged as well."""
        log.warning("%s", message)
        self.batch().append(
            MessageEndpoints.alarm,
            AlarmMessage(
                severity=severity,
                info=ErrorInfo(error_message=message, device=device, traceback=details),
                source=self.name,
                scan_id=scan_id,
                timestamp=self.clock.now(),
            ),
        ).commit()

    def request_stop(self) -> None:
        """End the loop after this turn. Safe in a signal handler."""
        self._stopping = True
        self.broker.give_up()
        self.inbox.wake()

    # The loop

    def take_role(self) -> None:
        """Become the one writer of the role.

        A predecessor on this host that is dead is replaced at once, a silent one elsewhere after its
        heartbeat has expired.
        Raises AlreadyRunning, naming host and process, if one is alive.
        """
        deadline = self.clock.monotonic() + TAKEOVER_S
        while True:
            found = self.broker.get(MessageEndpoints.service_status(self.name))
            if found is None or self._is_dead(found.message):
                break
            if self.clock.monotonic() > deadline:
                other: StatusMessage = found.message
                raise AlreadyRunning(
                    f"a {self.name} is already running for deployment {self.config.deployment!r} "
                    f"on {other.host} (process {other.pid}); stop it with `bec-server stop`, or choose another `deployment:`"
                )
            # Nothing else can be reacted to before the role is taken.
            time.sleep(0.1)
        self.lease = self.broker.acquire_lease(self.name)

    def loop(self, app: App) -> None:
        """Turn until asked to stop, or until something is broken that a turn cannot mend."""
        self.take_role()
        self._beat()
        app.start()
        try:
            self._state = ServiceState.RUNNING
            self._beat()
            log.info("%s is running for deployment %s", self.name, self.config.deployment)
            while not self._stopping:
                now = self.clock.monotonic()
                wake = self._beat_due
                due = app.deadline()
                if due is not None:
                    wake = min(wake, due)
                events = self.inbox.take(wake - now)
                if self.clock.monotonic() > self._beat_due + LATE_S:
                    # It was held up for so long that another may have the role: nothing is done before that is known.
                    self._beat()
                if events:
                    app.handle(events)
                now = self.clock.monotonic()
                due = app.deadline()
                if due is not None and now >= due:
                    app.on_deadline()
                if now >= self._beat_due:
                    self._beat()
        finally:
            self._state = ServiceState.STOPPING
            app.stop()

    def close(self) -> None:
        """Give up the role, so that a successor need not wait, and disconnect."""
        self.broker.give_up()
        if self.lease is not None:
            with contextlib.suppress(BECError):
                batch = self.batch()
                for line in self._lines.take() if self._lines else []:
                    batch.append(MessageEndpoints.log, line)
                batch.delete(MessageEndpoints.service_status(self.name)).commit()
        self.inbox.close()
        self.broker.close()

    def _beat(self) -> None:
        if self.lease is None:
            return
        # All services of a host in the same moment: the processors wake up once, not six times, and find the shared
        # code in their caches. It is a fifth of an idle fleet's CPU.
        self._beat_due = (self.clock.monotonic() // HEARTBEAT_S + 1) * HEARTBEAT_S
        if not self._stopping:
            self.broker.compare_clocks(CLOCK_AGE_S)
        status = StatusMessage(
            name=self.name,
            instance=self.instance,
            status=self._state,
            host=self.host,
            pid=os.getpid(),
            epoch=self.lease.epoch,
            started=self.started,
            message=self._message,
            busy=self._busy,
            info=self.info,
        )
        batch = self.batch().put(
            MessageEndpoints.service_status(self.name),
            status,
            also=MessageEndpoints.service_last_heard(self.name),
        )
        for line in self._lines.take() if self._lines else []:
            batch.append(MessageEndpoints.log, line)
        self.commit(batch)

    def _is_dead(self, status: StatusMessage) -> bool:
        if status.host != self.host:
            return False
        try:
            os.kill(status.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def run(
    name: str,
    build_app: Callable[[Service], App],
    *,
    threaded: bool = True,
    arguments: list[str] | None = None,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    rename: Callable[[argparse.Namespace], str] | None = None,
) -> int:
    """The main function of a service's command; the exit code.

    0: asked to stop. 1: failed, with one or two sentences on standard error. 3: a newer instance took over.
    build_app gets the service before `App.start`; import heavy libraries in it, not at module level.
    """
    parser = argparse.ArgumentParser(
        prog=f"bec-{COMMANDS.get(name, name.replace('_', '-'))}",
        description=f"The {name.replace('_', ' ')} of BEC.",
    )
    parser.add_argument("--config", help="service configuration (default: BEC_CONFIG, bec.yaml, or built-in)")
    parser.add_argument("--debug", action="store_true", help="log more, and show tracebacks")
    if add_arguments:
        add_arguments(parser)
    options = parser.parse_args(arguments)
    service: Service | None = None
    try:
        config = load_service_config(options.config)
        role = rename(options) if rename else name
        lines = set_up_logging(
            role,
            config.log_folder,
            "DEBUG" if options.debug else config.log.level,
            config.log.file_mb,
            config.log.files,
        )
        clock = SystemClock()
        broker = Broker(config.broker_settings, config.deployment, Sender(role, new_id(clock)), clock=clock)
        broker.is_patient = True
        broker.wait_until_reachable(config.broker_settings.give_up_after_s)
        for warning in broker.server_warnings():
            log.warning("%s", warning)
        broker.endures = True
        service = Service(role, config, broker, clock=clock, threaded=threaded, lines=lines)
        service.options = options
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: service.request_stop())
        app = build_app(service)
        service.loop(app)
        return 0
    except Fenced as error:
        log.error("%s", error)
        return EXIT_FENCED
    except BECError as error:
        return _failed(error, options.debug)
    finally:
        if service is not None:
            service.close()


def _failed(error: BECError, debug: bool) -> int:
    print(f"error: {error}", file=sys.stderr)
    if debug:
        traceback.print_exception(error)
    return EXIT_FAILED
