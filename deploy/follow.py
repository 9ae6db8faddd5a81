"""Follow growing files: what is new in any file of a folder, as it comes.

Waits for the kernel's word (inotify) instead of looking again and again. Rotated files are followed on.
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Iterator
from pathlib import Path

_MODIFY, _MOVED_TO, _CREATE = 0x2, 0x80, 0x100
_libc = ctypes.CDLL(None, use_errno=True)


class _Tail:
    """One file from a position on."""

    def __init__(self, path: Path, from_end_bytes: int | None):
        self.path = path
        self._rest = b""
        self._inode = 0
        self._position = 0
        if from_end_bytes is not None:
            found = path.stat()
            self._inode = found.st_ino
            self._position = max(0, found.st_size - from_end_bytes)
            if self._position:
                # The first line is likely to be half a line.
                with path.open("rb") as file:
                    file.seek(self._position)
                    self._position += len(file.readline())

    def new_lines(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._inode or found.st_size < self._position:
                    self._inode, self._position, self._rest = found.st_ino, 0, b""
                file.seek(self._position)
                data = file.read()
        except OSError:
            return []
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


def follow(
    folder: Path, suffixes: tuple[str, ...] = (".log", ".err"), back_bytes: int = 2000
) -> Iterator[tuple[str, str]]:
    """File name and line, for every line that is added to any such file of the folder; first the last ones.

    Ends never. Raises OSError if the folder cannot be watched.
    """
    notify = _libc.inotify_init1(os.O_CLOEXEC)
    if notify < 0 or _libc.inotify_add_watch(notify, os.fsencode(folder), _MODIFY | _MOVED_TO | _CREATE) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    try:
        tails = {
            path.name: _Tail(path, back_bytes) for path in sorted(folder.iterdir()) if path.suffix in suffixes
        }
        for name, tail in tails.items():
            for line in tail.new_lines():
                yield name, line
        while True:
            select.select([notify], [], [])
            # Which file it was is in the event; looking at all of a handful costs as little.
            os.read(notify, 65536)
            for path in sorted(folder.iterdir()):
                if path.suffix in suffixes and path.name not in tails:
                    tails[path.name] = _Tail(path, None)
            for name, tail in tails.items():
                for line in tail.new_lines():
                    yield name, line
    finally:
        os.close(notify)
