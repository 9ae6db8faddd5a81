"""The supervisor: starts the services of a deployment on this host, watches them, starts again what dies.

    python -m deploy.supervisor --config bec.yaml        (what `bec-server start` runs)

It imports what all services share and forks them: that costs each only what is its own. It has one thread, and
waits in one place: for the end of a child, for words on the control socket, for a heartbeat while something
comes up, and once a second for the absence of one. What is decided when is in `deploy.watching`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from deploy.own_library import require_own_library

if TYPE_CHECKING:
    from bec_lib.broker import Broker
    from bec_lib.broker.pollable import PollableWatcher
    from bec_lib.messages import StatusMessage
    from bec_lib.service.config import ServiceConfig
    from deploy.places import Places
    from deploy.services import ServiceSpec

log = logging.getLogger("supervisor")

TICK_S = 1.0
START_S = 30.0
# The supervisor answers and restarts also while Redis hangs: it waits no longer than this for it.
REDIS_PATIENCE_S = 1.0
LEFTOVERS_S = 5.0
KEEPER_END_S = 25.0
ERR_BYTES = 5_000_000

# What several services import: loaded once, before the fork. Only modules that start no thread.
PRELOAD = (
    "argparse",
    "concurrent.futures",
    "inspect",
    "json",
    "logging.handlers",
    "multiprocessing",
    "queue",
    "uuid",
    "numpy",
    "bec_lib.service",
    "bec_lib.plugins",
    "bec_lib.devices.config",
    "bec_lib.scans",
)


class Interrupted(BaseException):
    """A signal to stop, before the loop is there to hear it."""


@dataclass
class Child:
    """One service and what is known of it. Owned by the supervisor's loop.

    started, due, kill_due: by the monotonic clock. state: starting, running, silent, waiting (to be started
    again), stopping, stopped. exits: its ends since it last was well.
    """

    spec: ServiceSpec
    pid: int = 0
    state: str = "waiting"
    started: float = 0.0
    since: float = 0.0
    due: float | None = 0.0
    kill_due: float | None = None
    ends: int = 0
    restarts: int = 0
    reason: str = ""
    status: StatusMessage | None = None
    silent_since: float | None = None
    told_silent: bool = False
    told_overdue: bool = False
    restart_asked: bool = False

    @property
    def is_up(self) -> bool:
        return self.state in ("running", "silent")


@dataclass
class Talk:
    """A connection of the control socket."""

    connection: socket.socket
    buffer: Any
    follows: bool = False


class KeeperEnd:
    """Our end of the keeper: its process, the socket to it, and the pipe that tells it of life: every service holds
    the write end, so that the keeper reads its end when the last of them is gone.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.channel: socket.socket | None = None
        self.life_read, self.life_write = os.pipe()

    def start(self, release: Callable[[], None]) -> None:
        """Fork the keeper. release: lets go, in the child, of what is only ours."""
        from deploy import keeper, process

        ours, theirs = socket.socketpair()

        def child() -> int:
            ours.close()
            return keeper.Keeper(theirs, self.life_read).run()

        self.pid = process.fork(child, release, tied=False)
        theirs.close()
        self.channel = ours


@dataclass
class Options:
    config: str | None
    only: list[str] = field(default_factory=list)
    service: list[str] = field(default_factory=list)
    report: int | None = None
    timeout_s: float = START_S
    keep_going: bool = False
    preload: bool = True
    tied: bool = False
    debug: bool = False


class Supervisor:
    """The fleet of one deployment on this host. Everything in it belongs to the main thread."""

    def __init__(self, config: ServiceConfig, places: Places, lock: int, options: Options, keeper: KeeperEnd):
        from deploy.lines import LineBuffer
        from deploy.services import fleet, parse_spec

        self.config = config
        self.places = places
        self._lock = lock
        self._options = options
        specs = (
            [parse_spec(text) for text in options.service]
            if options.service
            else fleet(config.device_servers, options.only)
        )
        self.children = [Child(spec) for spec in specs]
        self._since = time.time()
        self._began = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._keeper = keeper
        self._keeper_lines = LineBuffer()
        self._redis_pid = 0
        self._redis_ready = not config.is_embedded
        self._redis_restarts = 0
        self._redis_failure = ""
        self._redis_version = ""
        self._warnings: list[str] = []
        self._control: socket.socket | None = None
        self._talks: list[Talk] = []
        self._broker: Broker | None = None
        self._watcher: PollableWatcher | None = None
        self._signals: list[int] = []
        self._leftovers: dict[int, float] = {}
        self._is_starting = True
        self._wave: int | None = None
        self._failure = ""
        self._tick_due = 0.0
        self._forks = False

    # Coming up

    def begin_keeping(self) -> None:
        """Tell the keeper what it keeps; for an embedded deployment it starts Redis.

        Raises BrokerError if there is no server that could be started.
        """
        from bec_lib.broker import embedded
        from deploy.lines import encode
        from deploy.places import leftovers

        command = None
        if self.config.is_embedded:
            launch = embedded.prepare(self.places.redis_socket, self.places.redis)
            command = launch.command
            self._redis_version = launch.binary.version_text
            self._redis_ready = False
        task = {
            "command": command,
            "folder": str(self.places.redis),
            "logs": str(self.places.logs),
            "leftovers": [str(path) for path in leftovers(self.places)],
        }
        channel = self._keeper.channel
        assert channel is not None
        socket.send_fds(channel, [encode({"begin": task})], [self._lock])
        channel.setblocking(False)
        self._selector.register(channel, selectors.EVENT_READ, self._hear_keeper)

    def preload(self) -> None:
        """Import what the services share. If that has started a thread, nothing is forked: services are begun
        as programs of their own instead, which costs time and memory but not safety.
        """
        from deploy import process

        if self._options.preload:
            for name in PRELOAD:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
            self._forks = process.thread_count() == 1
            if not self._forks:
                log.warning("a preloaded module has started a thread; services are started as new programs")

    def connect(self) -> None:
        """Wait for Redis. Raises BrokerError with the reason if it does not come up or refuses us."""
        from bec_lib.broker import Broker, Sender
        from bec_lib.clock import SystemClock
        from bec_lib.errors import BrokerError
        from bec_lib.ids import new_id

        deadline = time.monotonic() + self._options.timeout_s
        while not self._redis_ready:
            left = deadline - time.monotonic()
            if left <= 0 or self._redis_failure:
                reason = self._redis_failure or f"it was not ready after {self._options.timeout_s:g} s"
                raise BrokerError(
                    f"the private Redis in {self.places.redis} does not come up: {reason}. "
                    f"Its log is {self.places.logs / 'redis.log'}."
                )
            for key, _ in self._selector.select(left):
                key.data()
        clock = SystemClock()
        settings = self.config.broker_settings
        self._broker = Broker(
            settings, self.config.deployment, Sender("supervisor", new_id(clock)), clock=clock
        )
        self._broker.redis.connection_pool.connection_kwargs["socket_timeout"] = REDIS_PATIENCE_S
        self._broker.wait_until_reachable(settings.give_up_after_s)
        with contextlib.suppress(Exception):
            self._redis_version = str(self._broker.redis.info("server")["redis_version"])  # type: ignore[index]
        major = self._redis_version.split(".")[:2]
        if len(major) == 2 and all(part.isdigit() for part in major) and tuple(map(int, major)) < (6, 2):
            raise BrokerError(
                f"Redis at {settings.address()} is version {self._redis_version}; 6.2 or newer is needed."
            )
        self._warn(self._broker.server_warnings())

    def listen(self) -> None:
        """Open the control socket."""
        with contextlib.suppress(FileNotFoundError):
            self.places.control.unlink()
        self._control = socket.socket(socket.AF_UNIX)
        before = os.umask(0o077)
        try:
            self._control.bind(str(self.places.control))
        finally:
            os.umask(before)
        self._control.listen(16)
        self._control.setblocking(False)
        self._selector.register(self._control, selectors.EVENT_READ, self._accept)

    def hear_signals(self) -> None:
        """From now on signals are words to the loop."""
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._signal_arrived)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain_wake)

    def _signal_arrived(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 512):
                pass

    # The loop

    def run(self) -> int:
        """Until everything has been stopped; the exit code."""
        gc.collect()
        # Objects that the collector never visits stay in pages that parent and children share.
        gc.freeze()
        while True:
            now = time.monotonic()
            if self._signals:
                self._obey_signals()
            self._reap(now)
            self._start_due_children(now)
            if now >= self._tick_due:
                self._tick(now)
                self._tick_due = now + TICK_S
            self._kill_due_children(now)
            self._check_start(now)
            if self._wave is not None and self._stop_wave(now):
                break
            for key, _ in self._selector.select(self._wait_s()):
                key.data()
        return self._finish()

    def _wait_s(self) -> float:
        due = [self._tick_due, *self._leftovers.values()]
        for child in self.children:
            due += [moment for moment in (child.due, child.kill_due) if moment is not None]
        return max(0.0, min(due) - time.monotonic())

    def _obey_signals(self) -> None:
        self._signals.clear()
        if self._wave is None:
            self.stop("asked to by a signal")
        else:
            for child in self.children:
                if child.pid:
                    child.kill_due = 0.0

    def _start_due_children(self, now: float) -> None:
        for child in self.children:
            if child.due is not None and now >= child.due and not child.pid and self._wave is None:
                self._start(child)

    def _start(self, child: Child) -> None:
        from deploy import process

        is_restart = child.started > 0
        child.due = None
        child.status = None
        child.silent_since = None
        child.told_silent = child.told_overdue = False
        child.kill_due = None
        self._watch([*(c for c in self.children if c.state == "starting"), child])
        child.pid = process.fork(lambda: self._be(child.spec), self._release)
        child.started = time.monotonic()
        child.since = time.time()
        child.state = "starting"
        child.restarts += is_restart
        self._tell_keeper({"watch": child.pid})
        self._record(child, "restarted" if is_restart else "started")

    def _be(self, spec: ServiceSpec) -> int:
        """The life of a forked child."""
        from deploy import process

        process.redirect_output(self.places.logs / f"{spec.role}.err")
        os.environ["BEC_LOG_STDERR"] = "no"
        arguments = list(spec.arguments)
        if self.config.source_file is not None:
            arguments += ["--config", str(self.config.source_file)]
        if self._options.debug:
            arguments.append("--debug")
        if not self._forks:
            os.set_inheritable(self._keeper.life_write, True)
            os.execv(sys.executable, [sys.executable, "-m", spec.package, *arguments])
        title = spec.command if not spec.arguments else f"{spec.command} {' '.join(spec.arguments)}"
        return process.run_module_main(spec.package, arguments, title)

    def _release(self, *keep: int) -> None:
        """In a child: let go of what is the supervisor's. Objects are closed, so that none of them closes a
        number later that by then is something else. The pipe that tells of life stays open.
        """
        self._selector.close()
        for talk in self._talks:
            talk.connection.close()
        for each in (self._control, self._keeper.channel):
            if each is not None:
                each.close()
        if self._watcher is not None:
            self._watcher.close()
        if self._broker is not None:
            self._broker.close()
        for number in (self._lock, self._keeper.life_read, self._wake_read, self._wake_write):
            if number not in keep:
                os.close(number)
        if self._options.report is not None:
            os.close(self._options.report)
        if self._keeper.life_read in keep:
            # The keeper: who waits for the end of a pipe must not hold it open.
            os.close(self._keeper.life_write)

    # Ends

    def _reap(self, now: float) -> None:
        while True:
            try:
                pid, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(raw)
            child = next((child for child in self.children if child.pid == pid), None)
            if child is not None:
                self._ended(child, code, now)
            elif pid == self._keeper.pid:
                self._keeper_ended(code)
            elif pid == self._redis_pid:
                self._redis_pid = 0

    def _ended(self, child: Child, code: int, now: float) -> None:
        from deploy import watching

        exit_code, number = (code, None) if code >= 0 else (None, -code)
        self._sweep(child.pid, now)
        pid, child.pid = child.pid, 0
        child.kill_due = None
        self._tell_keeper({"gone": pid})
        if self._wave is not None or child.state == "stopping":
            again = child.restart_asked and self._wave is None
            child.restart_asked = False
            child.state, child.due = ("waiting", now) if again else ("stopped", None)
            self._record(child, "stopped", pid=pid, exit_code=exit_code)
            return
        killed_by_us = child.reason if child.state == "killed" else ""
        reason = killed_by_us or watching.describe_end(exit_code, number, self._last_words(child.spec.role))
        child.reason = reason
        child.ends = watching.ends_in_a_row(child.ends, now - child.started)
        delay = watching.restart_delay(child.ends, fenced=exit_code == watching.EXIT_FENCED)
        child.state, child.due = "waiting", now + delay
        again_text = "it is started again" + (f" in {delay:g} s" if delay else "")
        self._record(child, "ended", pid=pid, exit_code=exit_code, reason=reason)
        if self._is_starting:
            refused = exit_code in (1, 2, watching.EXIT_FENCED)
            if (refused or child.ends > 1) and not self._options.keep_going:
                self._fail(f"{child.spec.role} does not start: {_without_prefix(reason)}")
                return
        self._alarm(f"{child.spec.role} (process {pid}): {reason}; {again_text}.", major=child.ends > 2)

    def _sweep(self, session: int, now: float) -> None:
        """End what a dead service has left in its session (pool workers, sinks): SIGTERM, and 5 s later SIGKILL."""
        from deploy import process

        members = process.processes_in_session(session)
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        if members:
            self._leftovers[session] = now + LEFTOVERS_S

    def _kill_due_children(self, now: float) -> None:
        from deploy import process

        for child in self.children:
            if child.pid and child.kill_due is not None and now >= child.kill_due:
                child.kill_due = None
                with contextlib.suppress(OSError):
                    os.kill(child.pid, signal.SIGKILL)
        for session, due in list(self._leftovers.items()):
            members = process.processes_in_session(session) if now >= due else []
            for pid in members:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if now >= due:
                del self._leftovers[session]

    def _last_words(self, role: str) -> str:
        """The last line that the process wrote to standard error, or else its last error in the log."""
        for name, wanted in ((f"{role}.err", ""), (f"{role}.log", " ERROR ")):
            with contextlib.suppress(OSError):
                with open(self.places.logs / name, "rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
                    lines = file.read().decode(errors="replace").splitlines()
                fatal = [line for line in lines if line.startswith("Fatal Python error")]
                found = fatal or [line for line in lines if line.strip() and wanted in line]
                if found:
                    return found[-1].strip()[:500]
        return ""

    # Health

    def _watch(self, starting: Iterable[Child]) -> None:
        """Hear the heartbeats of these at once; of none: watch nothing, the tick is enough."""
        from bec_lib.broker.pollable import PollableWatcher
        from bec_lib.endpoints import MessageEndpoints
        from bec_lib.errors import BECError

        if self._watcher is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._watcher)
            self._watcher.close()
            self._watcher = None
        endpoints = [MessageEndpoints.service_status(child.spec.role) for child in starting]
        if endpoints and self._broker is not None:
            try:
                self._watcher = PollableWatcher(self._broker, endpoints)
                self._selector.register(self._watcher, selectors.EVENT_READ, self._hear_heartbeats)
            except BECError as error:
                log.warning("%s", error)

    def _hear_heartbeats(self) -> None:
        from bec_lib.errors import BECError

        assert self._watcher is not None
        try:
            found = self._watcher.take()
        except BECError as error:
            log.warning("%s", error)
            self._watch([])
            return
        for item in found:
            message = getattr(item, "message", None)
            for child in self.children:
                if message is not None and child.spec.role == message.name:
                    self._heard(child, message, time.monotonic())

    def _heard(self, child: Child, status: StatusMessage, now: float) -> None:
        """A heartbeat of this child's role; it may be somebody else's."""
        if status.pid != child.pid or status.host != socket.gethostname():
            return
        if child.told_silent:
            self._record(child, "heard again")
        child.status = status
        child.silent_since = None
        child.told_silent = False
        if child.state == "starting" and status.status in ("RUNNING", "BUSY"):
            child.state = "running"
            self._record(child, "running")
            if not any(other.state == "starting" for other in self.children):
                self._watch([])
        elif child.state == "silent":
            child.state = "running"
        if child.is_up and now - child.started > 60:
            child.reason = ""

    def _tick(self, now: float) -> None:
        """Look for heartbeats that are missing."""
        from bec_lib.endpoints import MessageEndpoints
        from bec_lib.errors import BECError

        if self._broker is None or not self._redis_ready:
            return
        watched = [child for child in self.children if child.pid and child.state != "stopping"]
        if not watched:
            return
        try:
            found = self._broker.get_many(
                MessageEndpoints.service_status(child.spec.role) for child in watched
            )
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
        for child in self.children:
            with contextlib.suppress(OSError):
                path = self.places.logs / f"{child.spec.role}.err"
                if path.stat().st_size > ERR_BYTES:
                    os.truncate(path, 0)

    def _judge(self, child: Child, now: float) -> None:
        from deploy import process, watching

        if not child.is_up or child.status is None:
            return
        busy = child.status.busy
        pulse = watching.Pulse(
            silent_s=0.0 if child.silent_since is None else max(now - child.silent_since, 0.001),
            overdue_s=None if busy is None else time.time() - busy.until,
        )
        verdict = watching.judge(pulse)
        doing = f" (busy: {busy.what})" if busy is not None else ""
        if verdict is watching.Verdict.SILENT and not child.told_silent:
            child.told_silent = True
            child.state = "silent"
            child.reason = f"has sent no heartbeat for 2 s{doing}"
            self._record(child, "silent", reason=child.reason)
            self._alarm(f"{child.spec.role} (process {child.pid}) {child.reason}; it may hang.", major=False)
        elif verdict is watching.Verdict.OVERDUE and busy is not None and not child.told_overdue:
            child.told_overdue = True
            self._alarm(
                f"{child.spec.role} (process {child.pid}) takes longer than it said: {busy.what}.",
                major=False,
            )
        elif verdict is watching.Verdict.KILL:
            silent = f"silent for {pulse.silent_s:.0f} s" if pulse.silent_s else "longer than it said"
            child.reason = f"killed by the supervisor: {silent}{doing}"
            child.state = "killed"
            # Where it hangs, for the .err file; then the end.
            with contextlib.suppress(OSError):
                os.kill(child.pid, process.DUMP_SIGNAL)
            child.kill_due = now + 0.5

    # Start and stop as a whole

    def _check_start(self, now: float) -> None:
        if not self._is_starting or self._wave is not None:
            return
        if all(child.state == "running" for child in self.children):
            self._is_starting = False
            text = f"{len(self.children)} services are running after {now - self._began:.1f} s"
            log.info("%s", text)
            self._report({"event": "up", "after_s": now - self._began, "pid": os.getpid()})
            self._end_report()
            _notify_systemd("READY=1")
            return
        for child in self.children:
            if child.status is not None and child.status.status == "ERROR" and not self._options.keep_going:
                self._fail(f"{child.spec.role} cannot work: {child.status.message}")
                return
        if now - self._began > self._options.timeout_s:
            late = [child.spec.role for child in self.children if child.state != "running"]
            self._fail(
                f"{', '.join(late)} did not come up within {self._options.timeout_s:g} s; "
                f"the logs are in {self.places.logs}"
            )

    def _fail(self, text: str) -> None:
        self._is_starting = False
        log.error("%s", text)
        if self._options.keep_going:
            self._report({"event": "warning", "text": text})
            self._report({"event": "up", "after_s": time.monotonic() - self._began, "pid": os.getpid()})
            self._end_report()
            _notify_systemd("READY=1")
        else:
            self._report({"event": "failed", "text": text})
            self._failure = text
            self.stop("the start has failed")

    def stop(self, why: str) -> None:
        """Begin to stop everything."""
        if self._wave is None:
            log.info("stopping the fleet: %s", why)
            _notify_systemd("STOPPING=1")
            self._wave = max((child.spec.wave for child in self.children), default=0)
            self._watch([])
            self._begin_wave(time.monotonic())

    def _begin_wave(self, now: float) -> None:
        for child in self.children:
            child.due = None
            if child.pid and child.spec.wave == self._wave:
                child.state = "stopping"
                child.kill_due = now + child.spec.stop_s
                with contextlib.suppress(OSError):
                    os.kill(child.pid, signal.SIGTERM)
                    # One that was stopped by a signal would never hear the other.
                    os.kill(child.pid, signal.SIGCONT)

    def _stop_wave(self, now: float) -> bool:
        """Go on with the stop; true when all services and what they left are gone."""
        from deploy import process

        while self._wave is not None and self._wave >= 0:
            if any(child.pid and child.spec.wave >= self._wave for child in self.children):
                return False
            self._wave -= 1
            self._begin_wave(now)
        for session in list(self._leftovers):
            if not process.processes_in_session(session):
                del self._leftovers[session]
        return not self._leftovers

    def _finish(self) -> int:
        """Take down Redis and leave nothing behind."""
        from deploy.places import leftovers

        self._record(None, "stopped")
        if self._broker is not None:
            self._broker.close()
        self._tell_keeper({"stop": True})
        deadline = time.monotonic() + KEEPER_END_S
        while self._keeper.pid and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                key.data()
            self._reap(time.monotonic())
        log.info("stopped")
        self._say({"event": "stopped"})
        for path in leftovers(self.places):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        self._end_report()
        return 1 if self._failure else 0

    def abandon(self) -> None:
        """End before the loop has begun."""
        from deploy.places import leftovers

        self._tell_keeper({"stop": True})
        if self._keeper.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._keeper.pid, 0)
        for path in leftovers(self.places):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()

    # The keeper

    def _tell_keeper(self, line: dict[str, Any]) -> None:
        from deploy.lines import encode

        if self._keeper.channel is not None:
            with contextlib.suppress(OSError):
                self._keeper.channel.sendall(encode(line))

    def _hear_keeper(self) -> None:
        assert self._keeper.channel is not None
        try:
            data = self._keeper.channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(self._keeper.channel)
            self._keeper.channel.close()
            self._keeper.channel = None
            return
        for line in self._keeper_lines.feed(data):
            self._redis_changed(line)

    def _redis_changed(self, line: dict[str, Any]) -> None:
        state, text = line.get("redis"), str(line.get("text", ""))
        if state == "ready":
            self._redis_pid = int(line["pid"])
            was_up, self._redis_ready = self._redis_restarts > 0, True
            self._say({"event": "redis", "version": self._redis_version, "pid": self._redis_pid})
            if was_up and self._broker is not None:
                self._alarm(
                    f"Redis {self._redis_failure or 'ended'} and runs again (process {self._redis_pid}).",
                    major=False,
                )
        elif self._wave is None:
            self._redis_ready = False
            self._redis_failure = text
            self._redis_restarts += 1
            self._redis_pid = 0
            log.error("Redis %s; it is started again", text)

    def _keeper_ended(self, code: int) -> None:
        self._keeper.pid = 0
        if self._keeper.channel is not None:
            self._selector.unregister(self._keeper.channel)
            self._keeper.channel.close()
            self._keeper.channel = None
        if self._wave is None:
            log.error("the keeper has ended (%s); it is started again", code)
            # Its Redis ends with it, and the next one may not meet it on the same data.
            redis, self._redis_pid = self._redis_pid, 0
            deadline = time.monotonic() + 5.0
            while redis:
                with contextlib.suppress(ChildProcessError):
                    if os.waitpid(redis, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                        time.sleep(0.01)
                        continue
                    if time.monotonic() >= deadline:
                        os.kill(redis, signal.SIGKILL)
                        os.waitpid(redis, 0)
                break
            self._redis_restarts += 1
            # This one is as large as we are by now; it is not often that a keeper dies.
            self._keeper.start(lambda: self._release(self._keeper.life_read))
            self.begin_keeping()
            for known in self.children:
                if known.pid:
                    self._tell_keeper({"watch": known.pid})

    # Words: to the one who starts, to those who follow, to the streams

    def _report(self, line: dict[str, Any]) -> None:
        """To `bec-server start`, which waits for it."""
        from deploy.lines import encode

        if self._options.report is not None:
            with contextlib.suppress(OSError):
                os.write(self._options.report, encode(line))

    def _end_report(self) -> None:
        if self._options.report is not None:
            os.close(self._options.report)
            self._options.report = None

    def _say(self, line: dict[str, Any]) -> None:
        from deploy.lines import encode

        self._report(line)
        for talk in list(self._talks):
            if talk.follows:
                try:
                    talk.connection.send(encode(line))
                except OSError:
                    self._hang_up(talk)

    def _warn(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            log.warning("%s", sentence)
            self._warnings.append(sentence)
            self._report({"event": "warning", "text": sentence})

    def _record(
        self,
        child: Child | None,
        event: str,
        *,
        pid: int | None = None,
        exit_code: int | None = None,
        reason: str = "",
    ) -> None:
        from bec_lib.endpoints import MessageEndpoints
        from bec_lib.errors import BECError
        from bec_lib.messages import SupervisorMessage

        role = child.spec.role if child else "supervisor"
        number = pid if pid is not None else (child.pid if child else os.getpid())
        log.info("%s (process %d) %s%s", role, number, event, f": {reason}" if reason else "")
        self._say(
            {
                "event": event,
                "service": role,
                "pid": number,
                "reason": reason,
                "after_s": time.monotonic() - self._began,
            }
        )
        if self._broker is not None and self._redis_ready:
            message = SupervisorMessage(
                service=role,
                event=event,
                pid=number,
                exit_code=exit_code,
                reason=reason,
                timestamp=time.time(),
            )
            try:
                self._broker.append(MessageEndpoints.supervisor_events, message)
            except BECError as error:
                log.warning("not recorded: %s", error)

    def _alarm(self, text: str, *, major: bool) -> None:
        from bec_lib.endpoints import MessageEndpoints
        from bec_lib.errors import BECError, ReasonCode
        from bec_lib.messages import AlarmMessage, ErrorInfo, Severity

        log.error("%s", text)
        if self._broker is None or not self._redis_ready:
            return
        message = AlarmMessage(
            severity=Severity.MAJOR if major else Severity.MINOR,
            info=ErrorInfo(error_message=text, code=ReasonCode.SERVICE_DOWN),
            source="supervisor",
            timestamp=time.time(),
        )
        try:
            self._broker.append(MessageEndpoints.alarm, message)
        except BECError as error:
            log.warning("no alarm was raised: %s", error)

    # The control socket

    def _accept(self) -> None:
        from deploy.lines import LineBuffer

        assert self._control is not None
        try:
            connection, _ = self._control.accept()
        except OSError:
            return
        connection.setblocking(False)
        talk = Talk(connection, LineBuffer())
        self._talks.append(talk)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hear(talk))

    def _hang_up(self, talk: Talk) -> None:
        if talk in self._talks:
            self._talks.remove(talk)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(talk.connection)
            talk.connection.close()

    def _hear(self, talk: Talk) -> None:
        try:
            data = talk.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(talk)
            return
        for line in talk.buffer.feed(data):
            self._obey(talk, line)

    def _obey(self, talk: Talk, line: dict[str, Any]) -> None:
        from deploy.lines import encode

        match line.get("do"):
            case "status":
                answer = self.status()
            case "stop":
                talk.follows = True
                self.stop("asked to")
                answer = {"event": "stopping", "pid": os.getpid()}
            case "restart":
                answer = self._restart(str(line.get("service", "")))
                talk.follows = "error" not in answer
            case other:
                answer = {"error": f"the supervisor cannot {other!r}"}
        talk.connection.setblocking(True)
        talk.connection.settimeout(1.0)
        try:
            talk.connection.sendall(encode(answer))
            talk.connection.setblocking(False)
        except OSError:
            self._hang_up(talk)

    def _restart(self, role: str) -> dict[str, Any]:
        child = next((child for child in self.children if child.spec.role == role), None)
        if child is None:
            known = ", ".join(child.spec.role for child in self.children)
            return {"error": f"this fleet has no service called {role!r}; it has {known}."}
        if self._wave is not None:
            return {"error": "the fleet is stopping"}
        if child.pid:
            child.state, child.restart_asked = "stopping", True
            child.kill_due = time.monotonic() + child.spec.stop_s
            with contextlib.suppress(OSError):
                os.kill(child.pid, signal.SIGTERM)
                os.kill(child.pid, signal.SIGCONT)
        else:
            child.due = 0.0
        return {"event": "restarting", "service": role}

    def status(self) -> dict[str, Any]:
        """Everything that `bec-server status` shows, as plain values."""
        from bec_lib.endpoints import MessageEndpoints
        from bec_lib.errors import BECError
        from deploy.services import fleet

        heartbeats: dict[str, StatusMessage] = {}
        roles = [child.spec.role for child in self.children]
        if not self._options.service:
            roles += [spec.role for spec in fleet(self.config.device_servers) if spec.role not in roles]
        redis: dict[str, Any] = {
            "address": self.config.broker_settings.address(),
            "embedded": self.config.is_embedded,
            "version": self._redis_version,
            "pid": self._redis_pid or None,
            "restarts": self._redis_restarts,
        }
        if self._broker is not None:
            try:
                found = self._broker.get_many(MessageEndpoints.service_status(role) for role in roles)
                heartbeats = {item.message.name: item.message for item in found if item is not None}
                redis |= redis_facts(self._broker)
            except BECError as error:
                redis["error"] = str(error)
        services = []
        for role in roles:
            child = next((child for child in self.children if child.spec.role == role), None)
            heard = heartbeats.get(role)
            services.append(_describe(role, child, heard, socket.gethostname()))
        return {
            "deployment": self.config.deployment,
            "supervisor": {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": self._since,
                "keeper": self._keeper.pid,
                "forks": self._forks,
            },
            "services": services,
            "redis": redis,
            "config": str(self.config.source_file or ""),
            "state_folder": str(self.places.state),
            "data_folder": str(self.config.data_folder),
            "log_folder": str(self.places.logs),
            "warnings": self._warnings,
        }


def _describe(role: str, child: Child | None, heard: StatusMessage | None, host: str) -> dict[str, Any]:
    """One row of the status: what the process table says, and what the heartbeat says."""
    row: dict[str, Any] = {"service": role, "state": "down", "pid": None, "host": "", "since": None}
    row |= {"message": "", "busy": None, "restarts": 0, "reason": "", "here": child is not None}
    if heard is not None:
        row |= {
            "state": str(heard.status.value),
            "pid": heard.pid,
            "host": heard.host,
            "since": heard.started,
        }
        row |= {"message": heard.message, "busy": heard.busy.model_dump() if heard.busy else None}
    if child is None:
        return row
    row |= {"restarts": child.restarts, "reason": child.reason}
    if heard is not None and (heard.pid != child.pid or heard.host != host):
        # Another instance has the role; ours waits for it.
        row["message"] = row["message"] or "runs elsewhere; this host stands by"
    elif child.pid:
        row |= {"pid": child.pid, "host": host, "since": child.since}
        if heard is None:
            row["state"] = "SILENT" if child.status is not None else "STARTING"
    else:
        row["state"] = "STOPPED" if child.state == "stopped" else "DOWN"
    return row


def redis_facts(broker: Broker) -> dict[str, Any]:
    """Version, persistence and memory of the server, for people. Raises BECError if it does not answer."""
    from bec_lib.errors import BrokerError

    try:
        info: dict[str, Any] = broker.redis.info()  # type: ignore[assignment]
    except Exception as error:
        raise BrokerError(f"Redis at {broker.settings.address()} does not answer: {error}") from error
    facts = {
        "version": str(info.get("redis_version", "")),
        "memory_bytes": int(info.get("used_memory", 0)),
        "memory_limit_bytes": int(info.get("maxmemory", 0)),
        "append_only": bool(info.get("aof_enabled", 0)),
        "clients": int(info.get("connected_clients", 0)),
    }
    try:
        settings: Any = broker.redis.config_get("appendfsync")
        facts["appendfsync"] = settings.get("appendfsync", "")
    except Exception:  # noqa: BLE001 - a server may refuse to tell its settings
        facts["appendfsync"] = ""
    return facts


def _without_prefix(reason: str) -> str:
    """ "ended with code 1: error: SENTENCE" -> "SENTENCE": who refuses says all that is needed."""
    return (
        reason.partition("error: ")[2]
        if reason.startswith("ended with code") and "error: " in reason
        else reason
    )


def _notify_systemd(state: str) -> None:
    """Tell systemd (Type=notify), if it has started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def _parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="bec-supervisor", description="Runs the fleet in the foreground.")
    parser.add_argument("--config", help="service configuration")
    parser.add_argument("--only", action="append", default=[], help="a service to start; may be repeated")
    parser.add_argument("--service", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--timeout", dest="timeout_s", type=float, default=START_S, help="for the start, seconds"
    )
    parser.add_argument("--keep-going", action="store_true", help="keep the others if one does not start")
    parser.add_argument(
        "--no-preload", dest="preload", action="store_false", help="start services as new programs"
    )
    parser.add_argument(
        "--tied", action="store_true", help="stop when the process that started this one ends"
    )
    parser.add_argument("--debug", action="store_true", help="log more")
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: list[str] | None = None) -> int:
    """Run until asked to stop. 0: stopped as asked; 1: the fleet could not be started."""
    require_own_library()
    options = _parse(arguments)
    if options.tied:
        from deploy import process

        process.die_with_parent(os.getppid())
    # Before numpy is loaded: a pool of threads in every process helps none of them.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

    def interrupted(number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupted)

    keeper = KeeperEnd()

    def release() -> None:
        os.close(keeper.life_write)
        if options.report is not None:
            os.close(options.report)

    # While this process is still small.
    keeper.start(release)

    from bec_lib.errors import BECError

    try:
        return _supervise(options, keeper)
    except Interrupted:
        return 1
    except BECError as error:
        text = str(error)
        if logging.getLogger().handlers:
            log.error("%s", text)
    except Exception as error:
        log.exception("the supervisor has failed")
        text = f"the supervisor has failed: {type(error).__name__}: {error}"
    if options.report is not None:
        os.write(options.report, json.dumps({"event": "failed", "text": text}).encode() + b"\n")
    else:
        print(f"error: {text}", file=sys.stderr)
    return 1


def _supervise(options: Options, keeper: KeeperEnd) -> int:
    from bec_lib.service.config import load_service_config
    from bec_lib.service.logs import set_up_logging
    from deploy import places as places_module
    from deploy import process

    config = load_service_config(options.config)
    places = places_module.places_of(config)
    places_module.make_state_folder(places)
    lock = places_module.take_lock(places, config.deployment)
    set_up_logging("supervisor", places.logs, "DEBUG" if options.debug else config.log.level)
    process.set_title(f"bec-supervisor {config.deployment}")
    process.adopt_orphans()
    supervisor = Supervisor(config, places, lock, options, keeper)
    is_up = False
    try:
        if any(child.spec.role == "file_writer" for child in supervisor.children):
            supervisor._warn(places_module.check_data_folder(config.data_folder))
        supervisor.begin_keeping()
        supervisor.preload()
        supervisor.connect()
        supervisor.listen()
        supervisor.hear_signals()
        is_up = True
    finally:
        if not is_up:
            supervisor.abandon()
    return supervisor.run()


if __name__ == "__main__":
    # Under its own name, so that forked services and their pools do not carry this file as their main program.
    run: Callable[[], int] = importlib.import_module("deploy.supervisor").main
    sys.exit(run())
