"""What a runner and its worker process say to each other: msgpack maps with a length in front, arrays as raw
float64.

Plain values only; never pickled objects. Used at both ends of a socket pair.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgpack
import numpy as np

_LENGTH = struct.Struct("<Q")
_ARRAY = 1


def send(connection: socket.socket, frame: dict[str, Any]) -> None:
    """Raises OSError if the other side is gone, TimeoutError if it does not read in time."""
    data = msgpack.packb(frame, default=_pack)
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """The next frame, None if the other side has closed. Raises TimeoutError after the socket's timeout."""
    head = _exactly(connection, _LENGTH.size)
    if head is None:
        return None
    data = _exactly(connection, _LENGTH.unpack(head)[0])
    if data is None:
        return None
    frame: dict[str, Any] = msgpack.unpackb(data, ext_hook=_unpack, strict_map_key=False)
    return frame


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(_ARRAY, np.ascontiguousarray(value, dtype=np.float64).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a frame cannot carry a {type(value).__name__}")


def _unpack(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        raise ValueError(f"extension type {code} is not known")
    return np.frombuffer(data, dtype=np.float64)
