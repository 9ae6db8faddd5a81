"""The keeper: a small process beside the supervisor that looks after what must outlive it.

It runs the private Redis (if there is one), syncs its append-only file to the disk every second, and starts it
again when it dies. When the supervisor is killed, the kernel tells the services to end; the keeper waits for
them, kills what does not end, and takes Redis down last, so that nobody's last writes are lost. It is not told
to end by signals: only by the supervisor's word, or by the supervisor's end.

It talks with the supervisor over one socket. To it: {"watch": pid} for each service that was started, {"stop":
true}. From it: {"redis": "ready" | "ended" | "failed", "pid", "text"}.
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
from pathlib import Path

from bec_lib.broker import embedded
from deploy import process, watching
from deploy.lines import LineBuffer, encode

SYNC_S = 1.0
SERVICES_END_S = 10.0
REDIS_STOP_S = 15.0
LOG_BYTES = 5_000_000


class Keeper:
    """Owned state: the Redis process, and the list of services to be ended. One thread.

    channel: to the supervisor. life: the read end of a pipe whose write end every service holds; it ends when
    the last of them is gone. lock: the deployment's lock, which Redis holds as well, so that a new fleet never
    meets the old one's Redis. leftovers: removed when a killed supervisor could not.
    """

    def __init__(
        self,
        launch: embedded.Launch | None,
        channel: socket.socket,
        life: int,
        lock: int,
        log_folder: Path,
        leftovers: list[Path],
    ):
        self._launch = launch
        self._channel = channel
        self._life = life
        self._lock = lock
        self._log_path = log_folder / embedded.LOG_FILE
        self._leftovers = leftovers
        self._services: dict[int, int | None] = {}
        self._redis: subprocess.Popen[bytes] | None = None
        self._redis_started = 0.0
        self._ends = 0
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
        if self._launch is not None:
            self._start_redis()
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
            data = self._channel.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(self._channel)
            self._channel.close()
            return False
        stop = False
        for line in self._commands.feed(data):
            if "watch" in line:
                self._services[line["watch"]] = process.start_ticks(line["watch"])
            if "gone" in line:
                self._services.pop(line["gone"], None)
            stop = stop or bool(line.get("stop"))
        return stop

    def _tell(self, state: str, text: str = "") -> None:
        pid = self._redis.pid if self._redis else 0
        with contextlib.suppress(OSError):
            self._channel.sendall(encode({"redis": state, "pid": pid, "text": text}))

    # Redis

    def _start_redis(self) -> None:
        assert self._launch is not None
        self._start_due = None
        parent = os.getpid()
        self._redis_started = time.monotonic()
        self._last_lines.clear()
        try:
            self._redis = subprocess.Popen(
                self._launch.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._launch.folder,
                start_new_session=True,
                pass_fds=(self._lock,),
                preexec_fn=lambda: process.die_with_parent(parent),  # noqa: PLW1509 - one thread only
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._tell("failed", f"{self._launch.binary.path} does not start: {error}")
            return
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
        with contextlib.suppress(OSError):
            if self._log_path.exists() and self._log_path.stat().st_size > LOG_BYTES:
                self._log_path.replace(self._log_path.with_suffix(".log.1"))
            with self._log_path.open("ab") as file:
                file.write(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip()
            if text:
                self._last_lines.append(text)
            if "ready to accept connections" in text.lower():
                self._tell("ready")

    def _look_after_redis(self) -> None:
        now = time.monotonic()
        if self._redis is not None and self._redis.poll() is not None:
            self._redis_ended(now)
        if self._start_due is not None and now >= self._start_due:
            self._start_redis()
        if self._sync_due is not None and now >= self._sync_due:
            self._sync()
            self._sync_due = now + SYNC_S if self._redis is not None else None

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
        self._tell("ended", text)
        self._ends = watching.ends_in_a_row(self._ends, now - self._redis_started)
        self._start_due = now + watching.restart_delay(self._ends)
        self._redis = None

    def _sync(self) -> None:
        """Bring the append-only file to the disk, if it has grown."""
        if self._launch is None:
            return
        for path in embedded.append_only_files(self._launch.folder):
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
        print("the supervisor is gone; taking the fleet down", file=sys.stderr, flush=True)
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
        for path in self._leftovers:
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
