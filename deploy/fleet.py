"""The fleet of one deployment on one host, and the loop that keeps it running.

One thread, which waits in one place: for the end of a child, for words on the control socket or from the keeper, for
a heartbeat while something comes up, and once a second for the absence of one. Services are forked from this process,
which has imported what they share; so it must have no other thread.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import selectors
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

from bec_lib.broker import Broker, Sender, embedded
from bec_lib.clock import SystemClock
from bec_lib.errors import BECError, BrokerError
from bec_lib.ids import new_id
from bec_lib.messages import ServiceState
from bec_lib.service.config import ServiceConfig
from bec_lib.service.foreign_code import calls_of, folder_of
from deploy import process, watching
from deploy.announcer import Announcer
from deploy.child import Child, ChildState
from deploy.health import Health
from deploy.keeper import Task
from deploy.keeping import KeeperLink, RedisState
from deploy.lines import Line
from deploy.options import Options
from deploy.places import Places, leftovers
from deploy.reception import Reception
from deploy.services import ServiceSpec, fleet, parse_spec
from deploy.status import describe, heartbeats_of, redis_facts

log = logging.getLogger("supervisor")

TICK_S = 1.0
# The supervisor answers and restarts also while Redis hangs: it waits no longer than this for it.
REDIS_PATIENCE_S = 1.0
# For what a dead service has left behind, to end by itself.
LEFTOVERS_S = 5.0
# For the Redis of a dead keeper.
ORPHANED_REDIS_S = 5.0
KEEPER_END_S = 25.0
ERR_BYTES = 5_000_000

# What several services import, beyond what this module does: loaded once, before the fork. Only modules that start no
# thread: ophyd and pyepics do, and are dead in a forked child.
PRELOAD = (
    "concurrent.futures",
    "inspect",
    "multiprocessing",
    "uuid",
    "bec_lib.service",
    "bec_lib.plugins",
    "bec_lib.devices.config",
    "bec_lib.scans",
)


class Fleet:
    """Everything in it belongs to the main thread."""

    def __init__(
        self, config: ServiceConfig, places: Places, lock: int, options: Options, keeper: KeeperLink
    ):
        self._config = config
        self._places = places
        self._lock = lock
        self._options = options
        self._keeper = keeper
        self._redis = RedisState(is_ready=not config.is_embedded)
        self._redis_version = ""
        self._orphaned_redis_due: float | None = None
        self.announcer = Announcer(options.report)
        self.children = [Child(spec) for spec in self._specs()]
        self._since = time.time()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._signals: list[int] = []
        self._broker: Broker | None = None
        self._health: Health | None = None
        self._reception: Reception | None = None
        # Session -> when what is left of it is killed.
        self._leftovers: dict[int, float] = {}
        self._is_starting = True
        self._failure = ""
        # The wave that is being stopped; None: nobody has asked for a stop.
        self._wave: int | None = None
        self._tick_due = 0.0
        self._can_fork = False

    def _specs(self) -> list[ServiceSpec]:
        if self._options.service:
            return [parse_spec(text) for text in self._options.service]
        return fleet(self._config.device_servers, self._options.only)

    # Coming up

    def begin_keeping(self) -> None:
        """Tell the keeper what it keeps; for an embedded deployment it starts Redis.

        Raises BrokerError if there is no server that could be started.
        """
        command = None
        if self._config.is_embedded:
            launch = embedded.prepare(self._places.redis_socket, self._places.redis)
            command = launch.command
            self._redis_version = launch.binary.version_text
            self._redis.is_ready = False
        self._keeper.begin(
            Task(
                command=command,
                folder=str(self._places.redis),
                logs=str(self._places.logs),
                leftovers=[str(path) for path in leftovers(self._places)],
            ),
            self._lock,
        )
        assert self._keeper.channel is not None
        self._selector.register(self._keeper.channel, selectors.EVENT_READ, self._hear_keeper)

    def preload(self) -> None:
        """Import what the services share. If that has started a thread, nothing is forked: services are begun
        as programs of their own instead, which costs time and memory but not safety.
        """
        if not self._options.preload:
            return
        for name in PRELOAD:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self._can_fork = process.thread_count() == 1
        if not self._can_fork:
            log.warning("a preloaded module has started a thread; services are started as new programs")

    def connect(self) -> None:
        """Wait for Redis. Raises BrokerError with the reason if it does not come up or refuses us."""
        deadline = time.monotonic() + self._options.timeout_s
        while not self._redis.is_ready:
            left = deadline - time.monotonic()
            if left <= 0 or self._redis.failure:
                reason = self._redis.failure or f"it was not ready after {self._options.timeout_s:g} s"
                raise BrokerError(
                    f"the private Redis in {self._places.redis} does not come up: {reason}. "
                    f"Its log is {self._places.logs / 'redis.log'}."
                )
            for key, _ in self._selector.select(left):
                key.data()
        clock = SystemClock()
        settings = self._config.broker_settings
        sender = Sender("supervisor", new_id(clock))
        broker = Broker(settings, self._config.deployment, sender, clock=clock)
        broker.redis.connection_pool.connection_kwargs["socket_timeout"] = REDIS_PATIENCE_S
        broker.wait_until_reachable(settings.give_up_after_s)
        self._redis_version = redis_facts(broker)["version"] or self._redis_version
        version = embedded.parse_version(f"v={self._redis_version}")
        if version is not None and version < embedded.OLDEST:
            raise BrokerError(
                f"Redis at {settings.address()} is version {self._redis_version}; 6.2 or newer is needed."
            )
        self.announcer.warn(broker.server_warnings())
        self.announcer.broker = self._broker = broker
        foreign = folder_of(self._places.state)
        self._health = Health(broker, self._selector, self.announcer, self.children, foreign)

    def open(self) -> None:
        """Take requests on the control socket, and signals as words to the loop."""
        self._reception = Reception(self._selector, self._places.control, self._obey)
        self.announcer.followers = self._reception.tell_followers
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._signal_arrived)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain_wake)

    def abandon(self) -> None:
        """End before the loop has begun."""
        self._keeper.tell({"stop": True})
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._keeper.pid, 0)
        self._remove_leftovers()

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
            self._start_who_is_due(now)
            if now >= self._tick_due:
                # With the heartbeats of the services, while the processors are awake.
                self._tick_due = (now // TICK_S + 1) * TICK_S
                self._tick(now)
            self._kill_who_is_due(now)
            self._check_start(now)
            if self._wave is not None and self._is_stopped(now):
                return self._finish()
            for key, _ in self._selector.select(self._wait_s()):
                key.data()

    def _wait_s(self) -> float:
        due = [self._tick_due, *self._leftovers.values()]
        for child in self.children:
            due += [moment for moment in (child.due, child.kill_due) if moment is not None]
        return max(0.0, min(due) - time.monotonic())

    def _signal_arrived(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 512):
                pass

    def _obey_signals(self) -> None:
        self._signals.clear()
        if self._wave is None:
            self.stop("asked to by a signal")
        else:
            # Asked twice: at once.
            for child in self.children:
                child.kill_due = 0.0

    def _tick(self, now: float) -> None:
        if self._health is not None and self._redis.is_ready:
            self._health.look(now)
        for child in self.children:
            with contextlib.suppress(OSError):
                path = self._places.logs / f"{child.role}.err"
                if path.stat().st_size > ERR_BYTES:
                    os.truncate(path, 0)

    # Starts

    def _start_who_is_due(self, now: float) -> None:
        for child in self.children:
            if child.due is not None and now >= child.due and not child.pid and self._wave is None:
                self._start(child)

    def _start(self, child: Child) -> None:
        is_restart = child.started > 0
        child.due = child.kill_due = child.status = child.silent_since = None
        child.was_told_silent = child.was_told_overdue = False
        child.state = ChildState.STARTING
        if self._health is not None:
            self._health.listen(each for each in self.children if each.state is ChildState.STARTING)
        child.pid = process.fork(lambda: self._be(child.spec), self._release)
        child.started = time.monotonic()
        child.since = time.time()
        child.restarts += is_restart
        self._keeper.tell({"watch": child.pid})
        self.announcer.record(child.role, "restarted" if is_restart else "started", child.pid)

    def _be(self, spec: ServiceSpec) -> int:
        """The life of a forked child."""
        process.redirect_output(self._places.logs / f"{spec.role}.err")
        os.environ["BEC_LOG_STDERR"] = "no"
        arguments = list(spec.arguments)
        if self._config.source_file is not None:
            arguments += ["--config", str(self._config.source_file)]
        if self._options.debug:
            arguments.append("--debug")
        if not self._can_fork:
            os.set_inheritable(self._keeper.life_write, True)
            os.execv(sys.executable, [sys.executable, "-m", spec.package, *arguments])
        return process.run_module_main(spec.package, arguments, " ".join([spec.command, *spec.arguments]))

    def _release(self) -> None:
        """In a child: let go of what is the supervisor's. The objects are closed, rather than all numbers above 2,
        so that none of them closes a number later which by then is something else.
        """
        self._selector.close()
        if self._reception is not None:
            self._reception.release()
        if self._health is not None:
            self._health.release()
        if self._broker is not None:
            self._broker.close()
        self._keeper.release()
        for number in (self._lock, self._wake_read, self._wake_write):
            os.close(number)
        self.announcer.end_report()

    def _release_in_keeper(self) -> None:
        life = os.dup(self._keeper.life_read)
        self._release()
        os.dup2(life, self._keeper.life_read)
        os.close(life)

    # Ends

    def _reap(self, now: float) -> None:
        while True:
            try:
                pid, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = next((child for child in self.children if child.pid == pid), None)
            if child is not None:
                self._ended(child, os.waitstatus_to_exitcode(raw), now)
            elif pid == self._keeper.pid:
                self._keeper_ended(now)
            elif pid == self._redis.pid:
                self._orphaned_redis_ended()

    def _ended(self, child: Child, code: int, now: float) -> None:
        exit_code, number = (code, None) if code >= 0 else (None, -code)
        pid, child.pid = child.pid, 0
        came_up = child.is_up
        self._sweep(pid, now)
        self._keeper.tell({"gone": pid})
        child.kill_due = None
        if self._wave is not None or child.state is ChildState.STOPPING:
            child.state = ChildState.STOPPED
            if child.is_restart_asked and self._wave is None:
                child.state, child.due = ChildState.WAITING, now
            child.is_restart_asked = False
            self.announcer.record(child.role, "stopped", pid, exit_code=exit_code)
            return
        foreign = calls_of(folder_of(self._places.state), child.role, pid)
        if child.state is not ChildState.KILLED:
            # Who is killed has no say in it; what it had written last is of something else.
            words = "" if number == signal.SIGKILL else self._last_words(child.role)
            child.reason = watching.describe_end(exit_code, number, words)
            if foreign:
                # An exit code is that code's then, and says nothing of ours.
                how = f"ended with code {exit_code}" if number is None else child.reason
                child.reason = f"{how} (it was in the code of {foreign[-1]})"
        child.ends = watching.ends_in_a_row(child.ends, now - child.started)
        fenced = exit_code == watching.EXIT_FENCED and not foreign
        delay = watching.restart_delay(child.ends, fenced, came_up=came_up)
        child.state, child.due = ChildState.WAITING, now + delay
        self.announcer.record(child.role, "ended", pid, exit_code=exit_code, reason=child.reason)
        refuses = exit_code in (1, 2, watching.EXIT_FENCED) and not foreign
        if self._is_starting and not self._options.keep_going and (refuses or child.ends > 1):
            self._fail(f"{child.role} does not start: {_plain(child.reason)}")
            return
        when = f" in {delay:g} s" if delay else ""
        self.announcer.alarm(
            f"{child.role} (process {pid}): {child.reason.rstrip('.')}; it is started again{when}.",
            is_major=child.ends > 2,
        )

    def _sweep(self, session: int, now: float) -> None:
        """End what a dead service has left in its session (pool workers, sinks): SIGTERM, and later SIGKILL."""
        members = process.processes_in_session(session)
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        if members:
            self._leftovers[session] = now + LEFTOVERS_S

    def _kill_who_is_due(self, now: float) -> None:
        for child in self.children:
            if child.pid and child.kill_due is not None and now >= child.kill_due:
                child.kill_due = None
                with contextlib.suppress(OSError):
                    os.kill(child.pid, signal.SIGKILL)
        for session in [session for session, due in self._leftovers.items() if now >= due]:
            del self._leftovers[session]
            for pid in process.processes_in_session(session):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        if self._orphaned_redis_due is not None and now >= self._orphaned_redis_due and self._redis.pid:
            self._orphaned_redis_due = None
            with contextlib.suppress(OSError):
                os.kill(self._redis.pid, signal.SIGKILL)

    def _last_words(self, role: str) -> str:
        """The last line that the process wrote to standard error, or else its last error in the log."""
        for name, wanted in ((f"{role}.err", ""), (f"{role}.log", " ERROR ")):
            with contextlib.suppress(OSError):
                with open(self._places.logs / name, "rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
                    lines = file.read().decode(errors="replace").splitlines()
                fatal = [line for line in lines if line.startswith("Fatal Python error")]
                found = fatal or [line for line in lines if line.strip() and wanted in line]
                if found:
                    return found[-1].strip()[:500]
        return ""

    # Start and stop as a whole

    def _check_start(self, now: float) -> None:
        if not self._is_starting or self._wave is not None:
            return
        if all(child.state is ChildState.RUNNING for child in self.children):
            log.info("%d services are running after %.1f s", len(self.children), self.announcer.after_s)
            self._is_up()
            return
        for child in self.children:
            is_in_error = child.status is not None and child.status.status is ServiceState.ERROR
            # Who had come up and is in trouble since, as with a full disk or a database that is away, keeps nobody back.
            if is_in_error and not child.is_up and child.status is not None and not self._options.keep_going:
                self._fail(f"{child.role} cannot work: {child.status.message}")
                return
        if self.announcer.after_s > self._options.timeout_s:
            late = [child.role for child in self.children if child.state is not ChildState.RUNNING]
            self._fail(
                f"{', '.join(late)} did not come up within {self._options.timeout_s:g} s; "
                f"the logs are in {self._places.logs}"
            )

    def _is_up(self) -> None:
        self._is_starting = False
        self.announcer.report({"event": "up", "after_s": self.announcer.after_s, "pid": os.getpid()})
        self.announcer.end_report()
        _notify_systemd("READY=1")

    def _fail(self, text: str) -> None:
        """The start has failed: all of it, unless we are to keep going."""
        log.error("%s", text)
        if self._options.keep_going:
            self.announcer.report({"event": "warning", "text": text})
            self._is_up()
        else:
            self._is_starting = False
            self._failure = text
            self.announcer.report({"event": "failed", "text": text})
            self.stop("the start has failed")

    def stop(self, why: str) -> None:
        """Begin to stop everything."""
        if self._wave is None:
            log.info("stopping the fleet: %s", why)
            _notify_systemd("STOPPING=1")
            if self._health is not None:
                self._health.listen([])
            self._wave = max((child.spec.wave for child in self.children), default=0)
            self._begin_wave(time.monotonic())

    def _begin_wave(self, now: float) -> None:
        for child in self.children:
            child.due = None
            if child.pid and child.spec.wave == self._wave:
                self._ask_to_end(child, now)

    def _ask_to_end(self, child: Child, now: float) -> None:
        child.state = ChildState.STOPPING
        child.kill_due = now + child.spec.stop_s
        with contextlib.suppress(OSError):
            os.kill(child.pid, signal.SIGTERM)
            # One that was stopped by a signal would never hear the other.
            os.kill(child.pid, signal.SIGCONT)

    def _is_stopped(self, now: float) -> bool:
        """Go on with the stop; true when all services and what they left are gone."""
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
        self.announcer.record("supervisor", "stopped", os.getpid())
        if self._broker is not None:
            self._broker.close()
        self.announcer.broker = None
        self._keeper.tell({"stop": True})
        deadline = time.monotonic() + KEEPER_END_S
        while self._keeper.pid and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                key.data()
            self._reap(time.monotonic())
        log.info("stopped")
        self._remove_leftovers()
        self.announcer.say({"event": "stopped"})
        self.announcer.end_report()
        return 1 if self._failure else 0

    def _remove_leftovers(self) -> None:
        for path in leftovers(self._places):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()

    # The keeper and Redis

    def _hear_keeper(self) -> None:
        lines = self._keeper.hear()
        if lines is None:
            self._forget_keeper()
            return
        for line in lines:
            self._hear_of_redis(str(line.get("redis")), int(line.get("pid", 0)), str(line.get("text", "")))

    def _forget_keeper(self) -> None:
        if self._keeper.channel is not None:
            self._selector.unregister(self._keeper.channel)
            self._keeper.hang_up()

    def _hear_of_redis(self, state: str, pid: int, text: str) -> None:
        redis = self._redis
        redis.pid = pid
        if state == "ready":
            redis.is_ready = True
            self.announcer.say({"event": "redis", "version": self._redis_version, "pid": pid})
            if redis.restarts:
                self.announcer.alarm(f"Redis {redis.failure}; it runs again (process {pid}).")
        elif state in ("ended", "failed") and self._wave is None:
            redis.is_ready = False
            redis.failure = text
            redis.restarts += 1
            log.error("Redis %s", text)

    def _keeper_ended(self, now: float) -> None:
        """Its Redis ends with it, and becomes our child for its last moments."""
        self._keeper.pid = 0
        self._forget_keeper()
        if self._wave is not None:
            return
        log.error("the keeper has ended; it is started again")
        self._redis.is_ready = not self._config.is_embedded
        self._redis.failure = "ended together with the supervisor's keeper"
        if self._redis.pid:
            self._redis.restarts += 1
            self._orphaned_redis_due = now + ORPHANED_REDIS_S
        else:
            self._restart_keeper()

    def _orphaned_redis_ended(self) -> None:
        self._redis.pid = 0
        self._orphaned_redis_due = None
        if not self._keeper.pid and self._wave is None:
            # Not before: two servers on one folder would write into each other's file.
            self._restart_keeper()

    def _restart_keeper(self) -> None:
        # This one is as large as we are by now; it is not often that a keeper dies.
        self._keeper.fork(self._release_in_keeper)
        self.begin_keeping()
        for child in self.children:
            if child.pid:
                self._keeper.tell({"watch": child.pid})

    # Requests

    def _obey(self, line: Line) -> tuple[Line, bool]:
        match line.get("do"):
            case "status":
                return self.status(), False
            case "stop":
                self.stop("asked to")
                return {"event": "stopping", "pid": os.getpid()}, True
            case "restart":
                return self._restart(str(line.get("service", "")))
            case other:
                return {"error": f"the supervisor cannot {other!r}"}, False

    def _restart(self, role: str) -> tuple[Line, bool]:
        child = next((child for child in self.children if child.role == role), None)
        if child is None:
            known = ", ".join(child.role for child in self.children)
            return {"error": f"this fleet has no service called {role!r}; it has {known}."}, False
        if self._wave is not None:
            return {"error": "the fleet is stopping"}, False
        if child.pid:
            child.is_restart_asked = True
            self._ask_to_end(child, time.monotonic())
        else:
            child.due = 0.0
        return {"event": "restarting", "service": role}, True

    def status(self) -> dict[str, Any]:
        """Everything that `bec-server status` shows, as plain values."""
        here = {child.role: child for child in self.children}
        roles = list(here)
        if not self._options.service:
            elsewhere = (spec.role for spec in fleet(self._config.device_servers))
            roles += [role for role in elsewhere if role not in here]
        redis: dict[str, Any] = {
            "address": self._config.broker_settings.address(),
            "embedded": self._config.is_embedded,
            "version": self._redis_version,
            "pid": self._redis.pid or None,
            "restarts": self._redis.restarts,
        }
        heard = {}
        if self._broker is not None:
            try:
                heard = heartbeats_of(self._broker, roles)
                redis |= redis_facts(self._broker)
            except BECError as error:
                redis["error"] = str(error)
        host = socket.gethostname()
        return {
            "deployment": self._config.deployment,
            "supervisor": {
                "pid": os.getpid(),
                "host": host,
                "since": self._since,
                "keeper": self._keeper.pid,
                "forks": self._can_fork,
            },
            "services": [describe(role, here.get(role), heard.get(role), host) for role in roles],
            "redis": redis,
            "config": str(self._config.source_file or ""),
            "state_folder": str(self._places.state),
            "data_folder": str(self._config.data_folder),
            "log_folder": str(self._places.logs),
            "warnings": self.announcer.warnings,
        }


def _plain(reason: str) -> str:
    """ "ended with code 1: error: SENTENCE" -> "SENTENCE": who refuses says all that is needed."""
    head, _, sentence = reason.partition("error: ")
    return sentence if head.startswith("ended with code") and sentence else reason


def _notify_systemd(state: str) -> None:
    """Tell systemd (Type=notify), if it has started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
