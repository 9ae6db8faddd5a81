"""Threads that wait on Redis and hand over what comes: `StreamReader` for streams, `LatestWatcher` for latest
values.

Each waits in exactly one place, on a connection of its own, and calls `deliver` from its thread; `deliver`
puts into an inbox and returns. Lost connections are reported once, retried with growing pauses, and reading
goes on where it stood.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import redis

from bec_lib.broker.broker import Broker, Delivery, Malformed
from bec_lib.endpoints import Endpoint, Kind

log = logging.getLogger(__name__)

# A watcher that has heard nothing for so long asks whether its connection lives; a network that was cut says nothing.
QUIET_S = 5.0

Deliver = Callable[[list[Delivery | Malformed]], None]


class StreamReader:
    """Reads a changing set of streams in one blocking call.

    deliver: gets a list of entries, oldest first within each stream, never an empty one. Owned state: the
    cursors, by the reader's thread; other threads ask for changes through `follow` and `forget`, which return
    when the change is in force.
    failed: told what ended the thread, if anything but `stop` does; a reader that ends unnoticed would leave its
    owner deaf.
    """

    def __init__(
        self,
        broker: Broker,
        deliver: Deliver,
        *,
        name: str = "stream-reader",
        count: int = 1000,
        failed: Callable[[BaseException], None] | None = None,
    ):
        self._broker = broker
        self._failed = failed
        self._deliver = deliver
        self._count = count
        self._wanted: dict[Endpoint, str | None] = {}
        self._changed = threading.Event()
        self._in_force = threading.Event()
        self._stopping = threading.Event()
        self._mutex = threading.Lock()
        self._client = broker.connect_own(broker.longest_block_s + broker.settings.answer_timeout_s)
        self._client_id: int | None = None
        self._connection: redis.Redis | None = None
        broker.add_waiting(self)
        self._thread = threading.Thread(target=self._guarded_run, name=name, daemon=True)

    def start(self) -> StreamReader:
        self._thread.start()
        return self

    def follow(self, endpoint: Endpoint, after: str) -> None:
        """Read this stream, too, after the given entry id ("0": all of it)."""
        self._broker.check(endpoint, Kind.STREAM)
        self._request({endpoint: after})

    def follow_many(self, streams: dict[Endpoint, str]) -> None:
        self._request(dict(streams))

    def forget(self, *endpoints: Endpoint) -> None:
        """Read these streams no more."""
        self._request(dict.fromkeys(endpoints))

    def stop(self) -> None:
        self._stopping.set()
        self._changed.set()
        self._wake()
        if threading.current_thread() is not self._thread:
            # The reader may be just about to block when its connection is taken from it: until it has ended.
            wait = 0.0005
            while self._thread.is_alive() and wait < self._broker.longest_block_s:
                self._thread.join(timeout=min(wait, 0.05))
                if not self.hang_up():
                    self._wake()
                wait *= 1.5
        self._client.close()

    def _request(self, change: dict[Endpoint, str | None]) -> None:
        with self._mutex:
            self._wanted.update(change)
            self._in_force.clear()
            self._changed.set()
        if not self._thread.is_alive() or threading.current_thread() is self._thread:
            return
        # The reader may be just about to block when it is woken: wake it until it has seen the change.
        wait = 0.0005
        self._wake()
        while not self._in_force.wait(wait):
            if self._stopping.is_set() or not self._thread.is_alive():
                return
            self._wake()
            wait = min(wait * 2, 0.05)

    def _wake(self) -> None:
        if self._client_id is not None:
            try:
                self._broker.redis.client_unblock(self._client_id)
            except redis.RedisError:
                log.debug("the reader could not be woken; it is made to connect again")
                self.hang_up()

    def hang_up(self) -> bool:
        """Let a read that waits fail at once, without asking a server that may be out of reach. False if there is no
        socket (yet).
        """
        connection: Any = self._connection
        sock = getattr(getattr(connection, "connection", None), "_sock", None)
        if not isinstance(sock, socket.socket):
            return False
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        return True

    def _guarded_run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            if self._stopping.is_set():
                return
            log.critical("reading streams has ended", exc_info=True)
            if self._failed is not None:
                self._failed(error)

    def _run(self) -> None:
        cursors: dict[str, str] = {}
        endpoints: dict[bytes, Endpoint] = {}
        pause = 0.05
        block = int(self._broker.longest_block_s * 1000)
        while not self._stopping.is_set():
            if self._changed.is_set():
                with self._mutex:
                    self._changed.clear()
                    change, self._wanted = self._wanted, {}
                    self._in_force.set()
                for endpoint, after in change.items():
                    key = self._broker.key(endpoint)
                    if after is None:
                        cursors.pop(key, None)
                        endpoints.pop(key.encode(), None)
                    else:
                        cursors[key] = after
                        endpoints[key.encode()] = endpoint
            if not cursors:
                self._changed.wait()
                continue
            try:
                if self._connection is None:
                    self._connection = self._client.client()
                    self._client_id = self._connection.client_id()
                    if self._changed.is_set():
                        continue
                reply: Any = self._connection.xread(cast(Any, cursors), count=self._count, block=block)
                pause = 0.05
            except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
                if self._stopping.is_set():
                    return
                if pause == 0.05:
                    log.warning(
                        "%s Reading goes on when it is back.",
                        self._broker.explain(redis.ConnectionError(str(error))),
                    )
                self._connection = None
                self._client_id = None
                self._stopping.wait(pause)
                pause = min(pause * 2, 0.5)
                continue
            except redis.ResponseError as error:
                if "UNBLOCKED" in str(error):
                    continue
                log.error("%s", self._broker.explain(error))
                self._stopping.wait(1.0)
                continue
            found = self._broker._entries(endpoints, reply)
            if not found:
                continue
            for item in found:
                cursors[self._broker.key(item.endpoint)] = item.entry_id
            self._deliver(found)


class LatestWatcher:
    """Watches latest values and broadcasts: delivers the current value of each at once, then every change.

    Intermediate values may be missed when the connection is lost; the current ones are delivered again when
    it is back.
    """

    def __init__(self, broker: Broker, deliver: Deliver, *, name: str = "latest-watcher"):
        self._broker = broker
        self._deliver = deliver
        self._endpoints: dict[bytes, Endpoint] = {}
        self._stopping = threading.Event()
        self._client = broker.connect_own()
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        self._name = name
        self._thread: threading.Thread | None = None
        self._mutex = threading.Lock()

    def watch(self, endpoints: Iterable[Endpoint]) -> None:
        """Watch these, too. Starts the thread at the first call."""
        new = [
            endpoint for endpoint in endpoints if self._broker.key(endpoint).encode() not in self._endpoints
        ]
        if not new:
            return
        for endpoint in new:
            self._endpoints[self._broker.key(endpoint).encode()] = endpoint
        with self._mutex:
            self._pubsub.subscribe(*[self._broker.key(endpoint) for endpoint in new])
        self._deliver_current(new)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def unwatch(self, endpoints: Iterable[Endpoint]) -> None:
        keys = [self._broker.key(endpoint) for endpoint in endpoints]
        for key in keys:
            self._endpoints.pop(key.encode(), None)
        if keys and self._thread is not None:
            with self._mutex:
                self._pubsub.unsubscribe(*keys)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            # The answer to this wakes the thread; without a connection it wakes by itself.
            with self._mutex, contextlib.suppress(redis.RedisError, OSError):
                self._pubsub.unsubscribe()
            self._thread.join(timeout=2.0)
        self._pubsub.close()
        self._client.close()

    def _deliver_current(self, endpoints: list[Endpoint]) -> None:
        latest = [endpoint for endpoint in endpoints if endpoint.kind is Kind.LATEST]
        found = [item for item in self._broker.get_many(latest) if item is not None]
        if found:
            self._deliver(list(found))

    def _run(self) -> None:
        lost = False
        heard = time.monotonic()
        asked = False
        while not self._stopping.is_set():
            try:
                if lost:
                    # Connects and subscribes again: first of all, so that no change falls into a gap.
                    self._ask()
                    self._deliver_current(list(self._endpoints.values()))
                    lost, heard = False, time.monotonic()
                reply = self._pubsub.get_message(timeout=1.0)
                quiet_s = time.monotonic() - heard
                if reply is not None:
                    heard, asked = time.monotonic(), False
                elif not asked and quiet_s > QUIET_S:
                    self._ask()
                    asked = True
                elif asked and quiet_s > QUIET_S + self._broker.settings.answer_timeout_s:
                    asked = False
                    raise redis.TimeoutError("the connection gives no answer")
            except Exception as error:  # noqa: BLE001 - whatever breaks the subscription, it is made again
                if self._stopping.is_set():
                    return
                if not lost:
                    log.warning("watching %s was interrupted: %s", self._broker.settings.address(), error)
                lost = True
                with self._mutex:
                    connection: Any = self._pubsub.connection
                    if connection is not None:
                        connection.disconnect()
                self._stopping.wait(0.2)
                continue
            if not reply or reply.get("type") != "message":
                continue
            endpoint = self._endpoints.get(reply["channel"])
            if endpoint is not None:
                self._deliver([self._broker.decode(endpoint, "", reply["data"])])

    def _ask(self) -> None:
        with self._mutex:
            self._pubsub.ping()
