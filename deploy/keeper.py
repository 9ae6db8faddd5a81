"""The keeper: a small process beside the supervisor that looks after what must outlive it.

It runs the private Redis (if there is one), syncs its append-only file to the disk every second, and starts it
again when it dies. When the supervisor is killed, the kernel tells the services to end; the keeper waits for
them, kills what does not end, and takes Redis down last, so that nobody's last writes are lost. It is not told
to end by signals: only by the supervisor's word, or by the supervisor's end.

It is forked before the supervisor has imported anything, so it stays small, and imports the standard library only.
The two talk over one socket. To the keeper: {"begin": what `Task` says}, with the lock's descriptor; {"watch": pid}
and {"gone": pid} for each service; {"stop": true}. From it: {"redis": "started" | "ready" | "ended" | "failed",
"pid", "text"}.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from deploy import process, watching
from deploy.lines import LineBuffer, encode

SYNC_S = 1.0
SERVICES_END_S = 10.0
REDIS_STOP_S = 15.0
LOG_BYTES = 5_000_000


@dataclass(frozen=True)
class Task:
    """command: starts Redis, in the folder of its data; None: there is no private Redis. logs: the folder for them.
    leftovers: files and folders to remove when a killed supervisor could not.
    """

    command: list[str] | None
    folder: str
    logs: str
    leftovers: list[str]


class Keeper:
    """Owned state: the Redis process, and the list of services to be ended. One thread.

    channel: to the supervisor. life: the read end of a pipe whose write end every service holds; it ends when
    the last of them is gone.
    """

    def __init__(self, channel: socket.socket, life: int):
        self._channel = channel
        self._life = life
        self._task = Task(None, "", "", [])
        # The deployment's lock, which Redis holds as well: a new fleet never meets the old one's Redis.
        self._lock = -1
        self._services: dict[int, int | None] = {}
        self._redis: subprocess.Popen[bytes] | None = None
        self._redis_started = 0.0
        self._ends = 0
        self._came_up = False
        self._start_due: float | None = None
        self._sync_due: float | None = None
        self._synced: dict[Path, tuple[int, int]] = {}
        self._last_lines: deque[str] = deque(maxlen=5)
        self._partial = b""
        self._selector = selectors.DefaultSelector()
        self._commands = LineBuffer()

    def run(self) -> int:
        process.set_title("bec-keeper")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._channel, selectors.EVENT_READ, "channel")
        self._selector.register(wake_read, selectors.EVENT_READ, "signal")
        while True:
            for key, _ in self._selector.select(self._wait_s()):
                if key.data == "redis":
                    self._read_log()
                elif key.data == "signal":
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 512)
                elif self._obey():
                    self._stop_redis()
                    return 0
                elif self._channel.fileno() == -1:
                    self._take_down()
                    return 1
            self._look_after_redis()

    def _wait_s(self) -> float | None:
        due = [moment for moment in (self._start_due, self._sync_due) if moment is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _obey(self) -> bool:
        """Read the supervisor's words; true if it is time to stop. Closes the channel if there is nobody."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, 65536, 1)
        except OSError:
            data, descriptors = b"", []
        self._lock = descriptors[0] if descriptors else self._lock
        if not data:
            self._selector.unregister(self._channel)
            self._channel.close()
            return False
        stop = False
        for line in self._commands.feed(data):
            if "begin" in line:
                self._begin(Task(**line["begin"]))
            if "watch" in line:
                self._services[line["watch"]] = process.start_ticks(line["watch"])
            if "gone" in line:
                self._services.pop(line["gone"], None)
            stop = stop or bool(line.get("stop"))
        return stop

    def _begin(self, task: Task) -> None:
        self._task = task
        process.redirect_output(Path(task.logs) / "keeper.err")
        if task.command is not None:
            self._start_redis()

    def _tell(self, state: str, text: str = "") -> None:
        pid = self._redis.pid if self._redis else 0
        with contextlib.suppress(OSError):
            self._channel.sendall(encode({"redis": state, "pid": pid, "text": text}))

    # Redis

    def _start_redis(self) -> None:
        assert self._task.command is not None
        self._start_due = None
        parent = os.getpid()
        self._redis_started = time.monotonic()
        self._last_lines.clear()
        try:
            self._redis = subprocess.Popen(
                self._task.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._task.folder,
                start_new_session=True,
                pass_fds=(self._lock,),
                preexec_fn=lambda: process.die_with_parent(parent),  # noqa: PLW1509 - one thread only
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._tell("failed", f"{self._task.command[0]} does not start: {error}")
            return
        self._tell("started")
        assert self._redis.stdout is not None
        os.set_blocking(self._redis.stdout.fileno(), False)
        self._selector.register(self._redis.stdout, selectors.EVENT_READ, "redis")
        self._sync_due = time.monotonic() + SYNC_S

    def _read_log(self) -> None:
        assert self._redis is not None and self._redis.stdout is not None
        try:
            data = os.read(self._redis.stdout.fileno(), 65536)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(self._redis.stdout)
            self._redis.stdout.close()
            return
        path = Path(self._task.logs) / "redis.log"
        with contextlib.suppress(OSError):
            if path.exists() and path.stat().st_size > LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
            with path.open("ab") as file:
                file.write(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip()
            if text:
                self._last_lines.append(text)
            if "ready to accept connections" in text.lower():
                self._came_up = True
                self._tell("ready")

    def _look_after_redis(self) -> None:
        now = time.monotonic()
        if self._redis is not None and self._redis.poll() is not None:
            self._redis_ended(now)
        if self._start_due is not None and now >= self._start_due:
            self._start_redis()
        if self._sync_due is not None and now >= self._sync_due:
            self._sync()
            # Just behind the heartbeats, which are in step.
            self._sync_due = (now // SYNC_S + 1) * SYNC_S + 0.01 if self._redis is not None else None

    def _redis_ended(self, now: float) -> None:
        assert self._redis is not None
        if self._redis.stdout is not None and not self._redis.stdout.closed:
            self._read_log()
        if self._redis.stdout is not None and not self._redis.stdout.closed:
            self._selector.unregister(self._redis.stdout)
            self._redis.stdout.close()
        code = self._redis.returncode
        # Redis's lines begin with process id, role and time; a person wants the rest.
        last = self._last_lines[-1].split(" # ", 1)[-1] if self._last_lines else ""
        text = watching.describe_end(code if code >= 0 else None, -code if code < 0 else None, last)
        self._redis = None
        self._tell("ended", text)
        self._ends = watching.ends_in_a_row(self._ends, now - self._redis_started)
        self._start_due = now + watching.restart_delay(self._ends, came_up=self._came_up)
        self._came_up = False

    def _sync(self) -> None:
        """Bring the append-only file to the disk, if it has grown."""
        if self._task.command is None:
            return
        for path in append_only_files(Path(self._task.folder)):
            with contextlib.suppress(OSError):
                found = path.stat()
                state = (found.st_ino, found.st_size)
                if self._synced.get(path) == state:
                    continue
                file = os.open(path, os.O_RDONLY)
                try:
                    os.fdatasync(file)
                finally:
                    os.close(file)
                self._synced[path] = state

    def _stop_redis(self) -> None:
        if self._redis is None:
            return
        self._redis.terminate()
        try:
            # Its last lines are read, or it could wait for us to read them.
            self._redis.communicate(timeout=REDIS_STOP_S)
        except (subprocess.TimeoutExpired, ValueError):
            self._redis.kill()
            self._redis.wait()
        self._synced.clear()
        self._sync()

    # A killed supervisor

    def _take_down(self) -> None:
        if not self._task.logs:
            return  # nothing was begun
        print("the supervisor is gone; taking the fleet down", file=sys.stderr, flush=True)
        for pid in self._services:
            # One that is stopped would not hear the signal that the kernel has sent it.
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._life, selectors.EVENT_READ)
            deadline = time.monotonic() + SERVICES_END_S
            while (left := deadline - time.monotonic()) > 0:
                if waiting.select(left) and not os.read(self._life, 512):
                    break
        for pid, started in self._services.items():
            if started is None or process.start_ticks(pid) in (started, None):
                for member in process.processes_in_session(pid):
                    with contextlib.suppress(OSError):
                        os.kill(member, signal.SIGKILL)
        self._stop_redis()
        for path in map(Path, self._task.leftovers):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()


def append_only_files(folder: Path) -> list[Path]:
    """What has to be synced: one file up to Redis 6.2, a folder of them from 7 on."""
    single = folder / "appendonly.aof"
    several = folder / "appendonlydir"
    found = [single] if single.is_file() else []
    return found + (sorted(several.glob("*.aof")) if several.is_dir() else [])
