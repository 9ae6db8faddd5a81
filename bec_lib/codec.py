"""Messages to bytes and back.

On the wire: one msgpack map {v, t, i, s, u, a, ts, b} of envelope and body; numpy arrays as an extension type
of (dtype, shape, raw bytes in C order). Knows no endpoint and no Redis. Never pickles.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from enum import Enum
from typing import Any

import msgpack
import numpy as np
from pydantic import BaseModel, ValidationError

from bec_lib import PROTOCOL_VERSION
from bec_lib.errors import MessageError, MessageTooLarge, UnsupportedMessage
from bec_lib.messages import REGISTRY, Envelope, Message

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
_ARRAY = 1
# Object arrays would need pickle, void arrays carry their own layout: neither is data that a reading can be.
_KINDS = frozenset("biufcSUM m".replace(" ", ""))


def encode(message: Message, envelope: Envelope) -> bytes:
    """The bytes of a message in its envelope.

    Raises MessageTooLarge if an array exceeds the class's `max_array_bytes`, MessageError if a value has no
    representation (only None, bool, numbers, text, bytes, lists, dicts, enums, models and numeric arrays have
    one).
    """
    limit = type(message).max_array_bytes

    def default(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return _pack_array(value, limit, type(message).__name__)
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, BaseModel):
            return value.__dict__
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, (set, frozenset)):
            return sorted(value)
        raise MessageError(f"{type(message).__name__} cannot carry a value of type {type(value).__name__}")

    try:
        packed: bytes = msgpack.packb(
            {
                "v": envelope.version,
                "t": envelope.msg_type,
                "i": envelope.message_id,
                "s": (envelope.service, envelope.instance, envelope.epoch),
                "u": envelope.user,
                "a": envelope.account,
                "ts": envelope.sent,
                "b": message.__dict__,
            },
            default=default,
        )
        return packed
    except (OverflowError, ValueError, TypeError) as error:
        raise MessageError(f"{type(message).__name__} cannot be encoded: {error}") from error


def decode(data: bytes) -> tuple[Message, Envelope]:
    """The message and its envelope.

    Raises MessageError if the bytes are not a message or a field is wrong (the sentence names the fields),
    UnsupportedMessage if the type or the protocol version is unknown here.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(f"a message of {len(data)} bytes is above the limit of {MAX_MESSAGE_BYTES}")
    try:
        raw = msgpack.unpackb(data, ext_hook=_unpack_ext, strict_map_key=False)
        service, instance, epoch = raw["s"]
        envelope = Envelope(
            version=int(raw["v"]),
            msg_type=str(raw["t"]),
            message_id=str(raw["i"]),
            service=str(service),
            instance=str(instance),
            epoch=int(epoch),
            user=str(raw["u"]),
            account=str(raw["a"]),
            sent=float(raw["ts"]),
        )
        body = raw["b"]
    except MessageError:
        raise
    except Exception as error:
        raise MessageError(f"not a message: {type(error).__name__}: {error}") from error
    if envelope.version > PROTOCOL_VERSION:
        raise UnsupportedMessage(
            f"{envelope.service or 'a client'} speaks protocol version {envelope.version}, "
            f"this service knows up to {PROTOCOL_VERSION}; update this service"
        )
    kind = REGISTRY.get(envelope.msg_type)
    if kind is None:
        raise UnsupportedMessage(f"messages of type {envelope.msg_type!r} are not known to this release")
    try:
        return kind.model_validate(body), envelope
    except ValidationError as error:
        problem = MessageError(f"{envelope.msg_type} is malformed: {describe_validation(error)}")
        # Enough of it was understood to answer the sender.
        problem.body = body if isinstance(body, dict) else {}
        raise problem from error


def describe_validation(error: ValidationError, known: Collection[str] = ()) -> str:
    """All problems that pydantic found, in one line: `field: what is wrong; ...`.

    known: field names of the outermost model, to guess what a misspelt one was meant to be.
    """
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'message'}: {_in_words(item, known)}"
        for item in error.errors()
    )


def _in_words(item: Any, known: Collection[str]) -> str:
    if item["type"] == "missing":
        return "is missing"
    if item["type"] != "extra_forbidden":
        return str(item["msg"])
    close = difflib.get_close_matches(str(item["loc"][-1]), known, 1) if len(item["loc"]) == 1 else []
    return "is not known" + (f"; did you mean {close[0]}?" if close else "")


def plain(value: Any) -> Any:
    """A message, model, enum or array as plain dicts, lists and numbers, for JSON and printing."""
    if isinstance(value, BaseModel):
        return {key: plain(item) for key, item in value.__dict__.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


def _pack_array(array: np.ndarray, limit: int, owner: str) -> msgpack.ExtType:
    if array.nbytes > limit:
        raise MessageTooLarge(
            f"{owner} carries an array of {array.nbytes} bytes (shape {array.shape}); above {limit} bytes "
            "arrays go into the device's own file and only a reference travels"
        )
    if array.dtype.kind not in _KINDS:
        raise MessageError(f"{owner} cannot carry an array of dtype {array.dtype}")
    return msgpack.ExtType(
        _ARRAY, msgpack.packb((array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes()))
    )


def _unpack_ext(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        raise MessageError(f"extension type {code} is not known")
    dtype_name, shape, raw = msgpack.unpackb(data)
    dtype = np.dtype(dtype_name)
    if dtype.kind not in _KINDS:
        raise MessageError(f"arrays of dtype {dtype_name} are not accepted")
    return np.frombuffer(raw, dtype=dtype).reshape(shape)
