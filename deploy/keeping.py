"""The supervisor's end of the keeper: its process, the socket to it, and what it says of Redis.

Imports only the standard library: the keeper is forked before anything else is loaded.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass

from deploy import process
from deploy.keeper import Keeper, Task
from deploy.lines import Line, LineBuffer, encode


@dataclass
class RedisState:
    """Of the private server. pid: 0 if there is none that we know of. failure: how it last ended."""

    pid: int = 0
    is_ready: bool = False
    restarts: int = 0
    failure: str = ""


class KeeperLink:
    """life_read, life_write: a pipe that tells the keeper of life. Every service holds the end that writes, so that
    the keeper reads the pipe's end when the last of them is gone.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.channel: socket.socket | None = None
        self.life_read, self.life_write = os.pipe()
        self._lines = LineBuffer()

    def fork(self, release: Callable[[], None]) -> None:
        """Start the keeper. release: lets go, in the child, of what is only ours."""
        ours, theirs = socket.socketpair()

        def child() -> int:
            ours.close()
            # Who waits for the end of a pipe must not hold it open.
            os.close(self.life_write)
            return Keeper(theirs, self.life_read).run()

        self.pid = process.fork(child, release, tied=False)
        theirs.close()
        self.channel = ours

    def begin(self, task: Task, lock: int) -> None:
        """Say what there is to keep; Redis is started now."""
        assert self.channel is not None
        socket.send_fds(self.channel, [encode({"begin": asdict(task)})], [lock])
        self.channel.setblocking(False)

    def tell(self, line: Line) -> None:
        if self.channel is not None:
            with contextlib.suppress(OSError):
                self.channel.sendall(encode(line))

    def hear(self) -> list[Line] | None:
        """What it has said; None if it is gone."""
        assert self.channel is not None
        try:
            data = self.channel.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        return self._lines.feed(data) if data else None

    def hang_up(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def release(self) -> None:
        """In a service: close our copies, but for the end that tells of life."""
        self.hang_up()
        os.close(self.life_read)
