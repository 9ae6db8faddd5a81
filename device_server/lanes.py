"""On which thread does a device's method run? Lanes, one per device and direction, on a small pool.

A lane lets one call at a time into a device, in the order in which they came; reads and writes have lanes of their
own, so that a read never waits behind a move. The pool has few threads and grows while calls block, so that a lane
that blocks has, in effect, a thread of its own. Waiting for an ophyd Status takes no thread at all: a `Task` is a
generator that yields what it waits for, and goes on, on any thread of the pool, when that has happened.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

log = logging.getLogger(__name__)

MAX_THREADS = 64
# A thread that found nothing to do for this long ends, unless it is one of the first two.
IDLE_S = 10.0


class Pool:
    """Threads that run functions. Grows to MAX_THREADS while all are busy; idle threads beyond two end.

    enter: called once by each thread as it starts (a control layer wants to know its threads).
    """

    def __init__(self, name: str = "lane", *, enter: Callable[[], None] = lambda: None):
        self._name = name
        self._enter = enter
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = 0
        self._threads = 0
        self._closed = False
        # Guards the two counts. Held for a few instructions only.
        self._mutex = threading.Lock()
        self._numbers = itertools.count(1)

    def submit(self, function: Callable[[], None]) -> None:
        """Run it soon, on another thread. What it raises is logged."""
        with self._mutex:
            grow = self._idle <= 0 and self._threads < MAX_THREADS and not self._closed
            if grow:
                self._threads += 1
            else:
                self._idle -= 1
        self._work.put(function)
        if grow:
            threading.Thread(
                target=self._run, name=f"{self._name}-{next(self._numbers)}", daemon=True
            ).start()

    def close(self) -> None:
        """No more threads are started, idle ones end. Threads inside a device are daemons and end with the process."""
        self._closed = True
        for _ in range(self._threads):
            self._work.put(None)

    def _run(self) -> None:
        self._enter()
        while True:
            try:
                function = self._work.get(timeout=None if self._threads <= 2 else IDLE_S)
            except queue.Empty:
                with self._mutex:
                    if self._idle <= 0 or self._threads <= 2:
                        continue
                    self._threads -= 1
                    self._idle -= 1
                return
            if function is None:
                return
            try:
                function()
            except Exception:
                log.exception("a call on a device's lane failed")
            with self._mutex:
                self._idle += 1


class Timers:
    """Calls functions at times, from one thread that waits for the next. Functions must return quickly."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[float, Timer] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call_at(self, deadline: float, function: Callable[[], None]) -> Timer:
        """deadline: by time.monotonic()."""
        timer = Timer(function)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
            self._thread.start()
        self._requests.put((deadline, timer))
        return timer

    def close(self) -> None:
        self._requests.put(None)

    def _run(self) -> None:
        heap: list[tuple[float, int, Timer]] = []
        order = itertools.count()
        while True:
            wait = max(0.0, heap[0][0] - time.monotonic()) if heap else None
            try:
                request = self._requests.get(timeout=wait)
            except queue.Empty:
                pass
            else:
                if request is None:
                    return
                heapq.heappush(heap, (request[0], next(order), request[1]))
            now = time.monotonic()
            while heap and (heap[0][0] <= now or heap[0][2].cancelled):
                timer = heapq.heappop(heap)[2]
                if not timer.cancelled:
                    try:
                        timer.function()
                    except Exception:
                        log.exception("a timer failed")


class Timer:
    __slots__ = ("cancelled", "function")

    def __init__(self, function: Callable[[], None]):
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Lane:
    """Lets one call at a time into a device, in order. `seconds`: how long calls take, a running mean by operation."""

    __slots__ = ("_inside", "_pool", "_waiting", "name", "seconds")

    def __init__(self, name: str, pool: Pool):
        self.name = name
        self.seconds: dict[str, float] = {}
        self._pool = pool
        # Held by the thread that is inside the device; taken without waiting by slices.
        self._inside = threading.Lock()
        self._waiting: deque[tuple[str, Callable[[], Any], Future[Any]]] = deque()

    def is_quick(self, operation: str, unknown: bool = True) -> bool:
        """Whether a call may be made in a slice, in series with others. unknown: what to think of the first call."""
        seconds = self.seconds.get(operation)
        return unknown if seconds is None else seconds < 0.002

    def try_enter(self) -> bool:
        """Enter now, if nobody is inside and nobody waits; then `leave`."""
        return not self._waiting and self._inside.acquire(blocking=False)

    def leave(self) -> None:
        self._inside.release()
        if self._waiting:
            self._pool.submit(self._drain)

    def note(self, operation: str, seconds: float) -> None:
        """A call took this long."""
        before = self.seconds.get(operation)
        # Slow is believed at once, quick only after some calls.
        self.seconds[operation] = (
            seconds if before is None or seconds > before else before + (seconds - before) * 0.3
        )

    def submit(self, operation: str, function: Callable[[], Any]) -> Future[Any]:
        """Call it on a thread of the pool, after those that came before."""
        future: Future[Any] = Future()
        self._waiting.append((operation, function, future))
        self._pool.submit(self._drain)
        return future

    def share(self, operation: str, function: Callable[[], Any]) -> Future[Any]:
        """As `submit`, but if the same operation is already waiting, its result serves both."""
        for waiting, _, future in list(self._waiting):
            if waiting == operation:
                return future
        return self.submit(operation, function)

    def _drain(self) -> None:
        while self._waiting and self._inside.acquire(blocking=False):
            try:
                while True:
                    try:
                        operation, function, future = self._waiting.popleft()
                    except IndexError:
                        break
                    begun = time.perf_counter()
                    try:
                        result = function()
                    except BaseException as error:  # noqa: BLE001 - belongs to whoever waits for the future
                        self.note(operation, time.perf_counter() - begun)
                        future.set_exception(error)
                    else:
                        self.note(operation, time.perf_counter() - begun)
                        future.set_result(result)
            finally:
                self._inside.release()


class Ending(Protocol):
    """What a task can wait for: an ophyd Status, or a Future in its clothes."""

    @property
    def done(self) -> bool: ...

    def add_callback(self, callback: Callable[[Any], None]) -> None: ...

    def exception(self, timeout: float | None = None) -> BaseException | None: ...


class FutureEnding:
    """A future as an `Ending`."""

    __slots__ = ("future",)

    def __init__(self, future: Future[Any]):
        self.future = future

    @property
    def done(self) -> bool:
        return self.future.done()

    def add_callback(self, callback: Callable[[Any], None]) -> None:
        self.future.add_done_callback(callback)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self.future.exception(timeout)


class Until:
    """Wait until this time by the monotonic clock."""

    __slots__ = ("deadline",)

    def __init__(self, deadline: float):
        self.deadline = deadline


class Woken:
    """Wait until `Task.wake` is called."""


WOKEN = Woken()
Waited = Ending | Until | Woken
Steps = Generator[Waited, None, Any]


class Task:
    """Runs a generator on the pool. What it yields is waited for without a thread.

    The generator must look again after each wait whether what it waited for is true: a task is also woken by
    `wake`. on_end: called with (result, None) or (None, exception), on the thread that ran the last step.
    """

    def __init__(
        self,
        pool: Pool,
        timers: Timers,
        steps: Steps,
        on_end: Callable[[Any, BaseException | None], None],
    ):
        self._pool = pool
        self._timers = timers
        self._steps = steps
        self._on_end = on_end
        # Whoever takes the one item resumes the task. A list's pop is one step for all threads.
        self._ticket: list[None] = []
        self._woken = False

    def start(self) -> None:
        self._pool.submit(self._turn)

    def wake(self) -> None:
        """Let the task look again at what it waits for."""
        self._woken = True
        self._resume(self._ticket)

    def _resume(self, ticket: list[None]) -> None:
        try:
            ticket.pop()
        except IndexError:
            return
        self._pool.submit(self._turn)

    def _waker(self, ticket: list[None]) -> Callable[..., None]:
        return lambda *_: self._resume(ticket)

    def _turn(self) -> None:
        while True:
            self._woken = False
            try:
                waited = next(self._steps)
            except StopIteration as end:
                self._on_end(end.value, None)
                return
            except BaseException as error:  # noqa: BLE001 - belongs to whoever started the task
                self._on_end(None, error)
                return
            ticket: list[None] = [None]
            timer: Timer | None = None
            self._ticket = ticket
            if isinstance(waited, Until):
                timer = self._timers.call_at(waited.deadline, self._waker(ticket))
            elif not isinstance(waited, Woken):
                waited.add_callback(self._waker(ticket))
            if self._woken:
                # Woken between the step and the wait.
                try:
                    ticket.pop()
                except IndexError:
                    return
                if timer is not None:
                    timer.cancel()
                continue
            return


def wait_for(endings: list[Ending]) -> Iterator[Waited]:
    """Steps that end when all are done. Raises nothing: ask each for its exception."""
    for ending in endings:
        while not ending.done:
            yield ending
