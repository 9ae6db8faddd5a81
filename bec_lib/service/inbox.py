"""The one place in which a service's main thread waits.

`DirectInbox` makes the blocking Redis call itself: for services that live from streams alone. `ThreadedInbox`
is fed by a reader
thread and by anybody who posts: for services that also wait for devices, processes or people.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable
from typing import Any, Protocol

from bec_lib.broker import Broker, Delivery, Malformed, StreamReader
from bec_lib.endpoints import Endpoint

# A Delivery or Malformed from a stream, or whatever the service's own threads post.
Event = Any


class Inbox(Protocol):
    """Where events arrive."""

    def follow(self, endpoint: Endpoint, after: str) -> None:
        """Receive this stream's entries after the given id ("0": all)."""

    def forget(self, *endpoints: Endpoint) -> None: ...

    def take(self, timeout_s: float) -> list[Event]:
        """All that has arrived, oldest first; waits up to `timeout_s` for the first, then may return an empty
        list.
        """

    def wake(self) -> None:
        """Let a `take` that waits return, if it can be done; safe in a signal handler."""

    def close(self) -> None: ...


class DirectInbox:
    """Waits in a blocking multi-stream read. Not for use from other threads."""

    def __init__(self, broker: Broker, *, count: int = 1000):
        self._broker = broker
        self._count = count
        self._cursors: dict[Endpoint, str] = {}

    def follow(self, endpoint: Endpoint, after: str) -> None:
        self._cursors[endpoint] = after

    def forget(self, *endpoints: Endpoint) -> None:
        for endpoint in endpoints:
            self._cursors.pop(endpoint, None)

    def take(self, timeout_s: float) -> list[Event]:
        block = timeout_s if timeout_s > 0.001 else None
        found = self._broker.read(self._cursors, block_s=block, count=self._count)
        for item in found:
            self._cursors[item.endpoint] = item.entry_id
        return list(found)

    def wake(self) -> None:
        """Nothing reaches a blocking read; it ends by itself when the heartbeat is due."""

    def close(self) -> None:
        self._cursors.clear()


class ThreadedInbox:
    """A queue, fed by a `StreamReader` and by `post`. `take` raises what ended the reader, if that ever happens: a
    service that hears nothing any more must not look healthy.
    """

    def __init__(self, broker: Broker, *, name: str = "reader"):
        self._queue: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()
        self._broken: BaseException | None = None
        self._reader = StreamReader(broker, self._queue.put, name=name, failed=self._break)
        self._reader.start()

    def post(self, event: Event) -> None:
        """Put in an event; from any thread."""
        self._queue.put([event])

    def wake(self) -> None:
        """Without it a `SimpleQueue.get` that a signal interrupts just at its deadline waits for ever (seen with
        Python 3.11): the time that is left comes out negative, which means no limit.
        """
        self._queue.put([])

    def post_many(self, events: Iterable[Delivery | Malformed | Event]) -> None:
        self._queue.put(list(events))

    def follow(self, endpoint: Endpoint, after: str) -> None:
        self._reader.follow(endpoint, after)

    def forget(self, *endpoints: Endpoint) -> None:
        self._reader.forget(*endpoints)

    def take(self, timeout_s: float) -> list[Event]:
        try:
            found = list(self._queue.get(timeout=max(0.0, timeout_s)))
        except queue.Empty:
            return []
        if self._broken is not None:
            raise self._broken
        while True:
            try:
                found += self._queue.get_nowait()
            except queue.Empty:
                return found

    def close(self) -> None:
        self._reader.stop()

    def _break(self, error: BaseException) -> None:
        self._broken = error
        self._queue.put([])
