"""A pool of worker processes on this host.

One thread per process, which starts it when it is first needed, hands it one fit at a time, kills it if a fit
takes too long, and ends it after it has been idle for long. The service's thread submits and gets the answer
through `deliver`; it never waits here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bec_lib.errors import ReasonCode
from data_pipeline.models.model import Floats
from data_pipeline.runners import frames

log = logging.getLogger(__name__)

FIT_TIMEOUT_S = 20.0
# Importing lmfit takes seconds of CPU, on a busy host many.
START_TIMEOUT_S = 120.0
IDLE_S = 300.0


@dataclass(frozen=True)
class Work:
    """A fit to do. key: of the job, comes back with the answer."""

    key: str
    models: list[str]
    x: Floats
    y: Floats
    parameters: dict[str, dict[str, Any]]
    x_min: float | None = None
    x_max: float | None = None


@dataclass(frozen=True)
class WorkDone:
    """The answer: fields of an `Outcome`, or an error."""

    key: str
    outcome: dict[str, Any] | None = None
    error: str = ""
    code: ReasonCode = ReasonCode.INTERNAL
    traceback: str = ""


class LocalRunner:
    """`processes` workers at most; none until the first fit.

    deliver: called from the pool's threads with a WorkDone for each Work.
    """

    def __init__(
        self,
        deliver: Callable[[WorkDone], None],
        *,
        processes: int = 1,
        fit_timeout_s: float = FIT_TIMEOUT_S,
        idle_s: float = IDLE_S,
    ):
        self._deliver = deliver
        self._mailbox: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._processes = processes
        self._fit_timeout_s = fit_timeout_s
        self._idle_s = idle_s
        self._seats: list[_Seat] = []
        # Keys of works not answered yet; added by the owner, discarded by the seats.
        self._open: set[str] = set()

    def submit(self, work: Work) -> None:
        self._open.add(work.key)
        if len(self._seats) < min(len(self._open), self._processes):
            self._hire()
        self._mailbox.put(work)

    def warm(self) -> None:
        """Start the first worker, if there is none, so that the first fit need not wait for its imports."""
        if not self._seats:
            self._hire()

    @property
    def pids(self) -> list[int]:
        """Of the worker processes that run."""
        return [seat.child.pid for seat in list(self._seats) if seat.child is not None]

    def stop(self) -> None:
        """Kill the workers; answers to what is still running are not delivered."""
        seats, self._seats = self._seats, []
        for seat in seats:
            seat.end()
        for _ in seats:
            self._mailbox.put(None)
        for seat in seats:
            seat.join()

    def _answer(self, done: WorkDone) -> None:
        self._open.discard(done.key)
        self._deliver(done)

    def _hire(self) -> None:
        seat = _Seat(self._mailbox, self._answer, self._fit_timeout_s, self._idle_s)
        self._seats.append(seat)
        seat.start()


class _Seat(threading.Thread):
    """A thread and its worker process. The thread starts the process itself, because a process with a
    parent-death signal dies with the thread that started it.
    """

    def __init__(
        self,
        mailbox: queue.SimpleQueue[Work | None],
        deliver: Callable[[WorkDone], None],
        fit_timeout_s: float,
        idle_s: float,
    ):
        super().__init__(name="fit-worker", daemon=True)
        self.child: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._mailbox = mailbox
        self._deliver = deliver
        self._fit_timeout_s = fit_timeout_s
        self._idle_s = idle_s
        self._ending = False
        self._problem = ""

    def end(self) -> None:
        """From another thread: kill the process, which ends whatever the thread waits for."""
        self._ending = True
        child = self.child
        if child is not None:
            child.kill()

    def run(self) -> None:
        self._begin()
        while not self._ending:
            try:
                work = self._mailbox.get(timeout=self._idle_s if self.child is not None else None)
            except queue.Empty:
                log.info("the fit worker (process %s) was idle and is ended", self.child and self.child.pid)
                self._dismiss()
                continue
            if work is None:
                break
            done = self._do(work)
            if not self._ending:
                self._deliver(done)
        self._dismiss()

    def _do(self, work: Work) -> WorkDone:
        if self._connection is None:
            self._begin()
        if self._connection is None:
            return WorkDone(work.key, error=self._problem)
        began = time.monotonic()
        self._connection.settimeout(self._fit_timeout_s)
        try:
            frames.send(
                self._connection,
                {
                    "models": work.models,
                    "x": work.x,
                    "y": work.y,
                    "parameters": work.parameters,
                    "x_min": work.x_min,
                    "x_max": work.x_max,
                },
            )
            reply = frames.receive(self._connection)
        except TimeoutError:
            self._dismiss()
            return WorkDone(
                work.key,
                error=f"the fit of {' + '.join(work.models)} to {len(work.x)} points took longer than "
                f"{self._fit_timeout_s:g} s and was ended; narrow the range, fix parameters or give start values",
                code=ReasonCode.TIMEOUT,
            )
        except OSError:
            reply = None
        if reply is None:
            ended = self._dismiss()
            return WorkDone(
                work.key,
                error=f"the process that fitted {' + '.join(work.models)} ended {ended} after "
                f"{time.monotonic() - began:.1f} s; the next fit gets a new one",
            )
        if "outcome" in reply:
            return WorkDone(work.key, outcome=reply["outcome"])
        return WorkDone(
            work.key, error=reply["error"], code=ReasonCode(reply["code"]), traceback=reply["traceback"]
        )

    def _begin(self) -> None:
        """Start the process and wait until it has its imports; `_problem` says why if it does not come up."""
        ours, theirs = socket.socketpair()
        try:
            self.child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "data_pipeline.runners.worker",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # LAPACK prints its complaints about odd data there.
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                # One thread a process: fits are small, and each thread of a BLAS costs memory.
                env=os.environ
                | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        except OSError as error:
            self._problem = f"no process for fits can be started: {error}"
            ours.close()
            return
        finally:
            theirs.close()
        if self._ending:
            self.child.kill()
        ours.settimeout(START_TIMEOUT_S)
        try:
            ready = frames.receive(ours)
        except OSError:
            ready = None
        if ready is None:
            ended = self._dismiss()
            self._problem = (
                f"the process for fits did not start ({ended}); is lmfit installed (the data-pipeline extra)? "
                "The log of the data pipeline says more"
            )
            log.error("%s", self._problem)
            ours.close()
            return
        self._connection = ours
        if self._ending:
            self._dismiss()

    def _dismiss(self) -> str:
        """End the process; how it ended, in words."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        child, self.child = self.child, None
        if child is None:
            return ""
        # One that has crashed is about to end by itself, and its own exit code tells more than our kill.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.2)
        if child.poll() is None:
            child.kill()
        code = child.wait()
        return f"by signal {-code}" if code < 0 else f"with exit code {code}"
