"""JSON lines over a socket or pipe: how supervisor, keeper and `bec-server` talk on one host."""

from __future__ import annotations

import json
from typing import Any

Line = dict[str, Any]
_LIMIT = 1_000_000


def encode(line: Line) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


class LineBuffer:
    """Bytes in, whole lines out. What is no JSON object is passed over: nobody but us writes here."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Line]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LIMIT:
            self._rest = b""
        found = []
        for text in whole:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                found.append(line)
        return found
