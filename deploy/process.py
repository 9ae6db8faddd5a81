"""Processes as Linux sees them: becoming a service in a forked child, dying with the parent, memory, sessions.

Knows nothing of roles, Redis or configuration.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

# For a dump of all threads' tracebacks into the process's .err file: `kill -USR1 PID`.
DUMP_SIGNAL = signal.SIGUSR1

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, number: int = signal.SIGTERM) -> None:
    """Have the kernel send this signal when the thread that started us ends. Exits if it already has.

    The kernel watches the *thread* that forked: fork from one that lives as long as the process.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def adopt_orphans() -> None:
    """Make descendants whose parent ends our children, so that their ends are told to us, too."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_title(title: str) -> None:
    """Show this name in `ps` and `top`: a forked process has its parent's otherwise."""
    _libc.prctl(_PR_SET_NAME, title.encode()[:15], 0, 0, 0)
    # The command line that ps shows is this process's own memory, between two addresses the kernel tells.
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        if 0 < start < end:
            text = title.encode()[: end - start - 1]
            ctypes.memmove(start, text + bytes(end - start - len(text)), end - start)


def fork(child: Callable[[], int], release: Callable[[], None], *, tied: bool = True) -> int:
    """Fork; in the child release what belongs to the parent, run `child`, and exit with its result.

    The child leads a session of its own and gets SIGTERM when we end (tied=False: it does not).
    Only to be called while no other thread runs: a lock that one of them held would stay locked in the child.
    Returns the child's process id.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # No signal may arrive in the child before it has dropped its parent's handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        release()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        if tied:
            die_with_parent(parent)
        code = child()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - the last chance to say why the process ends
        traceback.print_exc()
        code = 1
    finally:
        _finish(code)
    raise AssertionError("unreachable")


def _finish(code: int) -> None:
    """End a forked process as the interpreter would end one: threads, atexit, buffers; then without return."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - nothing is left that could be told
        traceback.print_exc()
    finally:
        os._exit(code)


def redirect_output(path: Path) -> None:
    """Standard output and error to this file, begun anew; standard input from nothing.

    What the process before has left there is kept beside it, as FILE.1.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size:
            path.replace(path.with_name(path.name + ".1"))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def run_module_main(package: str, arguments: Sequence[str], title: str) -> int:
    """Be the package's command in this (forked) process: import its `__main__` and call `main`."""
    set_title(title)
    sys.argv = [title, *arguments]
    faulthandler.enable(file=2, all_threads=True)
    faulthandler.register(DUMP_SIGNAL, file=2, all_threads=True)
    module = importlib.import_module(f"{package}.__main__")
    # A pool that spawns processes asks which program this is.
    sys.modules["__main__"] = module
    return int(module.main(list(arguments)) or 0)


def thread_count() -> int:
    """Threads of this process, also those that Python does not know of."""
    return len(os.listdir("/proc/self/task"))


def is_alive(pid: int) -> bool:
    """Does it exist, and is it no zombie?"""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def start_ticks(pid: int) -> int | None:
    """When the process started, in kernel ticks: with the pid it names a process for good."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return None


def processes_in_session(session: int) -> list[int]:
    """The live processes of a session: a service and all that it started and that stayed in its session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    found.append(int(entry))
    return found


def memory_bytes(pid: int) -> int | None:
    """Proportional share (PSS) of a process: pages that several share are counted once among them."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None


def memory_of_session(session: int) -> int | None:
    """PSS of a service with its own children."""
    shares = [share for pid in processes_in_session(session) if (share := memory_bytes(pid)) is not None]
    return sum(shares) if shares else None


def cpu_seconds(pid: int) -> float | None:
    """User and system time that the process has used."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return None
