"""A stretch of network that can be cut: a TCP relay between one process and a server.

What is cut is not closed: connections stay open, new ones are accepted, and what is sent waits in the sender's kernel,
also when the sender has closed its end since. It is delivered when the network is back, as TCP does. What a relay cannot
show are the pauses of TCP's retransmission, which grow with the length of a cut.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

_CHUNK = 1 << 16


@dataclass(eq=False)
class _Way:
    """One direction of one connection. waiting: (when it is due, what)."""

    source: socket.socket
    sink: socket.socket
    is_up: bool
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    is_at_end: bool = False
    is_over: bool = False


class Relay:
    """Forwards between whoever connects to `port` and the server, from when it is made until `stop`.

    server: (host, port), or the path of a unix socket. One thread owns all connections; all others only set flags.
    """

    def __init__(self, server: tuple[str, int] | Path):
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._ears, self._mouth = os.pipe()
        self._ways: list[_Way] = []
        self._is_cut = {True: False, False: False}
        self._latency_s = 0.0
        self._orders: deque[str] = deque()
        self._asked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    # The network

    def cut(self, *, up: bool = True, down: bool = True) -> None:
        """Nothing is forwarded any more to the server (up) or from it (down), and nobody is told."""
        self._asked.clear()
        self._is_cut = {True: up, False: down}
        self._wake()

    def wait_until_asked(self, timeout_s: float = 20.0) -> None:
        """Until somebody wants a new connection while the network is cut."""
        assert self._asked.wait(timeout_s), "nobody wanted a new connection"

    def heal(self, *, forgetful: bool = False) -> None:
        """All is forwarded again. forgetful: but for the connections that there are, which stay dead, as behind a
        firewall that has been started anew.
        """
        if forgetful:
            self._order("forget")
        self._is_cut = {True: False, False: False}
        self._wake()

    def remember(self) -> None:
        """What was forgotten lives again: what lies in it is delivered now, after all that was sent since."""
        self._order("remember")

    def delay(self, each_way_s: float) -> None:
        """A longer way, from now on."""
        self._latency_s = each_way_s

    def reset(self) -> None:
        """Break all connections, and let both ends know."""
        self._order("reset")

    def stop(self) -> None:
        self._order("stop")
        self._thread.join(timeout=5.0)

    def _order(self, order: str) -> None:
        self._orders.append(order)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._mouth, b".")

    # The thread

    def _run(self) -> None:
        forgotten: list[_Way] = []
        try:
            while True:
                self._turn()
                while self._orders:
                    match self._orders.popleft():
                        case "stop":
                            return
                        case "forget":
                            forgotten += self._ways
                            self._ways = []
                        case "remember":
                            self._ways += forgotten
                            forgotten = []
                        case "reset":
                            for way in self._ways:
                                way.source.setsockopt(
                                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                                )
                                way.source.close()
                            self._ways = []
        finally:
            for way in [*self._ways, *forgotten]:
                way.source.close()
            self._listener.close()
            os.close(self._ears)
            os.close(self._mouth)

    def _turn(self) -> None:
        poller = select.poll()
        poller.register(self._ears, select.POLLIN)
        is_cut = any(self._is_cut.values())
        if not (is_cut and self._asked.is_set()):
            poller.register(self._listener, select.POLLIN)
        interest: dict[int, int] = {}
        next_due: float | None = None
        now = time.monotonic()
        for way in self._ways:
            if self._is_cut[way.is_up]:
                continue
            if not way.is_at_end and len(way.waiting) < 64:
                interest[way.source.fileno()] = interest.get(way.source.fileno(), 0) | select.POLLIN
            if way.waiting:
                due = way.waiting[0][0]
                if due <= now:
                    interest[way.sink.fileno()] = interest.get(way.sink.fileno(), 0) | select.POLLOUT
                else:
                    next_due = due if next_due is None else min(next_due, due)
        for number, events in interest.items():
            poller.register(number, events)
        timeout = None if next_due is None else max(1.0, (next_due - now) * 1000)
        ready = dict(poller.poll(timeout))
        if self._ears in ready:
            os.read(self._ears, _CHUNK)
        if self._listener.fileno() in ready:
            # While the network is cut it stays in the listener's queue.
            self._asked.set()
            if not is_cut:
                self._accept()
        for way in self._ways:
            if self._is_cut[way.is_up]:
                continue
            if ready.get(way.source.fileno()) and not way.is_at_end:
                self._take(way)
            self._give(way)
        self._ways = [way for way in self._ways if not self._is_over(way)]

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            near, _ = self._listener.accept()
            if isinstance(self._server, Path):
                far = socket.socket(socket.AF_UNIX)
                address: tuple[str, int] | str = str(self._server)
            else:
                far = socket.socket()
                address = self._server
            try:
                far.connect(address)
            except OSError:
                near.close()
                far.close()
                return
            for end in (near, far):
                end.setblocking(False)
                if end.family != socket.AF_UNIX:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ways += [_Way(near, far, True), _Way(far, near, False)]

    def _take(self, way: _Way) -> None:
        try:
            data = way.source.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        way.is_at_end = not data
        way.waiting.append((time.monotonic() + self._latency_s, data))

    def _give(self, way: _Way) -> None:
        now = time.monotonic()
        try:
            while way.waiting and way.waiting[0][0] <= now:
                due, data = way.waiting.popleft()
                if not data:
                    way.is_over = True
                    way.sink.shutdown(socket.SHUT_WR)
                    return
                sent = way.sink.send(data)
                if sent < len(data):
                    way.waiting.appendleft((due, data[sent:]))
                    return
        except BlockingIOError:
            way.waiting.appendleft((due, data))
        except OSError:
            way.is_over = True

    def _is_over(self, way: _Way) -> bool:
        """A connection is over when both directions are."""
        other = next((w for w in self._ways if w.source is way.sink), None)
        if not way.is_over or (other is not None and not other.is_over):
            return False
        way.source.close()
        way.sink.close()
        return True
