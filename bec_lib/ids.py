"""Identifiers that sort by the time they were made.

Scans, requests and instructions are named by version-7 UUIDs (RFC 9562, section 5.7): 48 bits of
milliseconds, then random bits. Sorting them as text sorts them by time to the millisecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NewType
from uuid import UUID

if TYPE_CHECKING:
    from bec_lib.clock import Clock

ScanId = NewType("ScanId", str)
RequestId = NewType("RequestId", str)
InstructionId = NewType("InstructionId", str)


def uuid7(unix_seconds: float, random_bits: bytes) -> str:
    """The version-7 UUID of a moment, as 36 characters.

    unix_seconds: seconds since 1970 UTC, >= 0, stored to the millisecond.
    random_bits: at least 10 bytes; 74 of their bits are used.
    Raises ValueError if there are too few random bytes.
    """
    if len(random_bits) < 10:
        raise ValueError("a version-7 UUID needs 10 random bytes")
    value = (int(unix_seconds * 1000) & ((1 << 48) - 1)) << 80
    value |= int.from_bytes(random_bits[:10], "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(UUID(int=value))


def new_id(clock: Clock) -> str:
    """A fresh identifier, by the given clock."""
    return uuid7(clock.now(), clock.random_bytes(10))


def entry_order(entry_id: str) -> tuple[int, int]:
    """A stream entry's id as numbers, which sort like the stream: milliseconds and sequence."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def just_before(entry_id: str) -> str:
    """The stream position after which `entry_id` is the next entry to be read."""
    milliseconds, sequence = entry_order(entry_id)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{max(0, milliseconds - 1)}-{2**64 - 1 if milliseconds else 0}"
