"""What did this call print? Standard output captured per call, not for the whole process.

`install` puts a stream in place of `sys.stdout` that asks, at each write, whether the writing thread is inside a
captured call; so calls that run at the same time do not mix, and everything else prints as before.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TextIO

# More than a person reads, less than a message bears.
MAX_CHARACTERS = 100_000

_captured: ContextVar[io.StringIO | None] = ContextVar("captured", default=None)


class _Dispatcher(io.TextIOBase):
    def __init__(self, real: TextIO):
        self._real = real

    def write(self, text: str) -> int:
        buffer = _captured.get()
        return self._real.write(text) if buffer is None else buffer.write(text)

    def flush(self) -> None:
        if _captured.get() is None:
            self._real.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def install() -> None:
    """Once per process; a second call changes nothing."""
    if not isinstance(sys.stdout, _Dispatcher):
        sys.stdout = _Dispatcher(sys.stdout)  # type: ignore[assignment]


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """Collects what this thread prints; the text is in the buffer's `getvalue()`."""
    install()
    buffer = io.StringIO()
    token = _captured.set(buffer)
    try:
        yield buffer
    finally:
        _captured.reset(token)


def text_of(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "\n... (cut)\n"
