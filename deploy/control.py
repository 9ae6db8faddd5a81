"""The other end of the supervisor's control socket, for `bec-server`, the demo and tests."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bec_lib.errors import BECError, DeadlineExceeded, ServiceDown
from deploy import process
from deploy.lines import Line, LineBuffer, encode

ANSWER_S = 5.0
STOP_S = 90.0

# Supervisors that this process has started: its own children, which nobody else can clear away.
_started: dict[int, subprocess.Popen[bytes]] = {}


class NotRunning(ServiceDown):
    """There is no supervisor for this deployment on this host."""


def _lines(connection: socket.socket | int, deadline: float) -> Iterator[Line]:
    """The lines that come until the other side hangs up. Raises DeadlineExceeded."""
    buffer = LineBuffer()
    number = connection if isinstance(connection, int) else connection.fileno()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([number], [], [], left)[0]:
            raise DeadlineExceeded(
                "the supervisor does not answer; see its log, or end its process and start anew"
            )
        data = os.read(number, 65536)
        if not data:
            return
        yield from buffer.feed(data)


def talk(control: Path, request: Line, timeout_s: float = ANSWER_S) -> Iterator[Line]:
    """Say something to the supervisor; what it answers, until it hangs up or we stop listening.

    Raises NotRunning or DeadlineExceeded.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(timeout_s)
            connection.connect(str(control))
            connection.sendall(encode(request))
        except (FileNotFoundError, ConnectionError):
            raise NotRunning("no fleet is running here") from None
        connection.setblocking(False)
        yield from _lines(connection, time.monotonic() + timeout_s)


def ask(control: Path, request: Line, timeout_s: float = ANSWER_S) -> Line:
    """One answer. Raises NotRunning, DeadlineExceeded, or BECError with what the supervisor objects to."""
    for line in talk(control, request, timeout_s):
        if "error" in line:
            raise BECError(str(line["error"]))
        return line
    raise NotRunning("the supervisor has just ended")


def stop(control: Path, tell: Callable[[Line], None] = lambda line: None) -> None:
    """Stop the fleet, and return when its supervisor is gone. Raises NotRunning or DeadlineExceeded."""
    supervisor = 0
    for line in talk(control, {"do": "stop"}, STOP_S):
        supervisor = int(line.get("pid", 0)) if line.get("event") == "stopping" else supervisor
        tell(line)
    wait_gone(supervisor, 5.0)


def wait_gone(pid: int, timeout_s: float) -> None:
    """Until this process, which is about to end, has ended."""
    if pid in _started:
        _started.pop(pid).wait(timeout_s)
        return
    deadline = time.monotonic() + timeout_s
    with contextlib.suppress(OSError, AttributeError):
        handle = os.pidfd_open(pid)
        try:
            select.select([handle], [], [], timeout_s)
            return
        finally:
            os.close(handle)
    # A kernel without pidfd (before 5.3).
    while process.is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)


def start(
    arguments: Sequence[str],
    log_path: Path | None,
    tell: Callable[[Line], None] = lambda line: None,
    timeout_s: float = 120.0,
) -> int:
    """Start a supervisor in the background and wait until its fleet is up; its process id.

    arguments: for `deploy.supervisor` (with "--tied" the fleet ends when the calling thread does). log_path: where
    its standard error goes; None: nowhere.
    An exception here (Ctrl-C, too) stops what has been started. Raises BECError with the reason if it fails.
    """
    supervisor: subprocess.Popen[bytes] | None = None
    read, write = os.pipe()
    command = [sys.executable, "-m", "deploy.supervisor", *arguments, "--report", str(write)]
    try:
        with signals_later(), open(log_path or os.devnull, "ab") as output:
            supervisor = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(write,),
                env={"BEC_LOG_STDERR": "no", "MALLOC_ARENA_MAX": "2", **os.environ},
            )
            os.close(write)
        failure = ""
        for line in _lines(read, time.monotonic() + timeout_s):
            tell(line)
            if line.get("event") == "up":
                _started[supervisor.pid] = supervisor
                return supervisor.pid
            if line.get("event") == "failed":
                failure = str(line["text"])
        supervisor.wait()
        raise BECError(
            failure or f"the supervisor has ended with code {supervisor.returncode}; see {log_path}"
        )
    except BaseException:
        if supervisor is not None and supervisor.poll() is None:
            supervisor.send_signal(signal.SIGTERM)
            supervisor.wait()
        raise
    finally:
        os.close(read)


@contextlib.contextmanager
def signals_later() -> Iterator[None]:
    """Signals that arrive inside are heard at its end: a process must not be made and lost in the same moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda n, _: arrived.append(n)) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in arrived:
            signal.raise_signal(late)
