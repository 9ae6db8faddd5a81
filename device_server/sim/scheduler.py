"""When does the next simulated thing happen? One thread and one heap of deadlines for all simulated devices.

A device asks for a function to be called at a time and forgets about it. Whoever calls owns nothing but the `Call`
that comes back; the heap belongs to the scheduler's thread alone, and requests reach it through a queue. The thread
starts with the first request and waits without a time limit while nothing is due, so an idle beamline costs nothing.

Knows nothing of devices, and not of wall-clock time: deadlines are seconds of a monotonic clock.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Call:
    """A function that is due at `deadline` (seconds of the scheduler's clock), until it is cancelled."""

    __slots__ = ("cancelled", "deadline", "function")

    def __init__(self, deadline: float, function: Callable[[], None]) -> None:
        self.deadline = deadline
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call it any more; without effect once the call has begun."""
        self.cancelled = True

    def run(self) -> None:
        """Call the function unless cancelled; an error is logged, for one device must not stop the others."""
        if self.cancelled:
            return
        try:
            self.function()
        except Exception:
            logger.exception("A scheduled step of a simulated device failed.")


class Scheduler:
    """Runs calls in the order of their deadlines on one daemon thread, those of equal deadline in order of request."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()  # guards only the first start of the thread

    def now(self) -> float:
        """Seconds of a monotonic clock with an arbitrary origin."""
        return time.monotonic()

    def call_at(self, deadline: float, function: Callable[[], None]) -> Call:
        """Call `function()` on the scheduler's thread at `deadline` or as soon as possible after it.

        The function must return quickly: every simulated device waits for it.
        """
        call = Call(deadline, function)
        self._requests.put(call)
        if self._thread is None:
            self._start()
        return call

    def call_later(self, delay: float, function: Callable[[], None]) -> Call:
        """Call `function()` after `delay` seconds."""
        return self.call_at(self.now() + delay, function)

    def close(self) -> None:
        """End the thread; calls that are not yet due are dropped. A later request starts it again."""
        with self._start_lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._requests.put(None)
            thread.join(timeout=5)

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sim-scheduler", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        heap: list[tuple[float, int, Call]] = []
        order = itertools.count()
        while True:
            wait = max(0.0, heap[0][0] - self.now()) if heap else None
            try:
                request = self._requests.get(timeout=wait)
            except queue.Empty:
                pass
            else:
                if request is None:
                    return
                heapq.heappush(heap, (request.deadline, next(order), request))
            now = self.now()
            while heap and (heap[0][2].cancelled or heap[0][0] <= now):
                heapq.heappop(heap)[2].run()


class StepScheduler:
    """A scheduler whose time stands still until a test moves it on with `advance`; it has no thread."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._heap: list[tuple[float, int, Call]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """The time as of the last `advance`, seconds."""
        return self._now

    def call_at(self, deadline: float, function: Callable[[], None]) -> Call:
        """As `Scheduler.call_at`; the call happens inside a later `advance`."""
        call = Call(deadline, function)
        heapq.heappush(self._heap, (deadline, next(self._order), call))
        return call

    def call_later(self, delay: float, function: Callable[[], None]) -> Call:
        """As `Scheduler.call_later`."""
        return self.call_at(self._now + delay, function)

    def close(self) -> None:
        """Drop all calls."""
        self._heap.clear()

    @property
    def pending(self) -> int:
        """How many calls are waiting, cancelled ones not counted."""
        return sum(not call.cancelled for _, _, call in self._heap)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, making every call that falls due at its own time, on this thread."""
        end = self._now + seconds
        while self._heap and self._heap[0][0] <= end:
            deadline, _, call = heapq.heappop(self._heap)
            self._now = max(self._now, deadline)
            call.run()
        self._now = end


AnyScheduler = Scheduler | StepScheduler

_shared = Scheduler()


def shared_scheduler() -> Scheduler:
    """The scheduler of this process, which all simulated devices use unless they are given another."""
    return _shared
