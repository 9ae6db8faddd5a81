"""The supervisor's side of its control socket: who has connected, what they ask, what they are told.

Only the user who owns the fleet can connect: the socket is theirs. Knows nothing of what can be asked.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deploy.lines import Line, LineBuffer, encode

PATIENCE_S = 1.0


@dataclass(eq=False)
class _Talk:
    connection: socket.socket
    buffer: LineBuffer = field(default_factory=LineBuffer)
    follows: bool = False


class Reception:
    """obey: gets a request; what it answers is sent back, and true beside it makes the asker a follower. Callbacks
    are the data of what is registered in the selector.
    """

    def __init__(
        self, selector: selectors.BaseSelector, path: Path, obey: Callable[[Line], tuple[Line, bool]]
    ):
        self._selector = selector
        self._obey = obey
        self._talks: list[_Talk] = []
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        before = os.umask(0o077)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(before)
        self._listener.listen(16)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def tell_followers(self, line: Line) -> None:
        for talk in [talk for talk in self._talks if talk.follows]:
            try:
                talk.connection.send(encode(line))
            except OSError:
                self._hang_up(talk)

    def release(self) -> None:
        """In a forked child: close our copies."""
        self._listener.close()
        for talk in self._talks:
            talk.connection.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        talk = _Talk(connection)
        self._talks.append(talk)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hear(talk))

    def _hear(self, talk: _Talk) -> None:
        try:
            data = talk.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(talk)
            return
        for line in talk.buffer.feed(data):
            answer, follows = self._obey(line)
            talk.follows = talk.follows or follows
            # An answer may be longer than the socket's buffer; who does not read it is not waited for.
            talk.connection.settimeout(PATIENCE_S)
            try:
                talk.connection.sendall(encode(answer))
                talk.connection.setblocking(False)
            except OSError:
                self._hang_up(talk)
                return

    def _hang_up(self, talk: _Talk) -> None:
        if talk in self._talks:
            self._talks.remove(talk)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(talk.connection)
            talk.connection.close()
