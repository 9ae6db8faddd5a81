"""Readings on their way to points.

Both travel in blocks of columns against the scan's `ScanSchemaMessage`: column k holds the values of signal
k, one per point. A software-triggered point is a block of one.
"""

from __future__ import annotations

from typing import Any, ClassVar

from bec_lib.messages.base import Message


class ReadingsMessage(Message):
    """A block of readings from one device server.

    first_index, count: which points. values[k]: list of `count` values of the k-th signal of this server in
    the schema (arrays for signals with a shape); device_times[k]: their device time stamps. server_times,
    acq_start, acq_end: `count` each, seconds UTC.
    attempt: of the point; the highest one counts. group: "monitored", or "baseline" (count 1, against the
    baseline columns).
    """

    msg_type: ClassVar[str] = "readings"

    scan_id: str
    schema_version: int = 1
    group: str = "monitored"
    server: str = "main"
    first_index: int = 0
    count: int = 1
    attempt: int = 1
    values: list[Any]
    device_times: list[Any]
    server_times: list[float]
    acq_start: list[float] = []
    acq_end: list[float] = []


class PointsMessage(Message):
    """A block of complete points, in order, none missing, none twice. Columns as in the schema; its stream id
    is `{first_index + count}-0`.
    """

    msg_type: ClassVar[str] = "points"

    scan_id: str
    schema_version: int = 1
    first_index: int
    count: int
    values: list[Any]
    device_times: list[Any]
    server_times: list[float]


class BaselineMessage(Message):
    """The baseline readings of a scan: one value per baseline column of the schema; None where a device
    failed to answer.
    """

    msg_type: ClassVar[str] = "baseline"

    scan_id: str
    values: list[Any]
    device_times: list[Any]


class SealMessage(Message):
    """The last entry of a scan's points: there are `count` points and no more will come. status: the scan's
    terminal state.
    """

    msg_type: ClassVar[str] = "seal"

    scan_id: str
    count: int
    status: str
    baseline: bool = False
    ended: float = 0.0


class ProgressMessage(Message):
    """How far a scan is. max_value 0: unknown."""

    msg_type: ClassVar[str] = "progress_message"

    value: float
    max_value: float = 0.0
    done: bool = False
    scan_id: str = ""
