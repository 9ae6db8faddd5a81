"""What is on record? What an earlier life of the scan server left, and how far a scan's points are committed.

Reads the streams and the data folder, and writes nothing; what follows is decided by the app and the workers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bec_lib.broker import Broker, Delivery, Malformed
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BrokerError, MessageError
from bec_lib.file_paths import ACCOUNT, numbers_in
from bec_lib.messages import (
    ReadingsMessage,
    RequestDoneMessage,
    RequestResponseMessage,
    ScanJournalMessage,
    ScanSchemaMessage,
    ScanStatusMessage,
    SupervisorMessage,
)
from scan_server.run import Counted, Resumed

log = logging.getLogger(__name__)

_THOUSAND = re.compile(r"S\d{5,}-\d{5,}")
# Scans that began before these many changes of state are over.
_STATUS_ENTRIES = 500
_NEWEST = 64
# The kind of a journal entry that says that the scan was taken up by another life of the scan server.
TAKEN_UP = "taken_up"


@dataclass(frozen=True)
class Traces:
    """What is found of an item that was running. over: its end is on record. intent: its `open`. taken_up: when it was
    taken up before, and with how many points: (seconds UTC, points).
    """

    over: bool = False
    intent: ScanStatusMessage | None = None
    resumed: Resumed = field(default_factory=Resumed)
    taken_up: tuple[tuple[float, int], ...] = ()


T = TypeVar("T")


def patiently(broker: Broker, read: Callable[[], T]) -> T:
    """Read from a broker that may be away for a moment. Raises BrokerError if it stays away, as writing does."""
    try:
        return read()
    except BrokerError:
        broker.wait_until_reachable(broker.settings.give_up_after_s)
        return read()


def traces_of(broker: Broker, scan_id: str, client_id: str, *, is_scan: bool) -> Traces:
    """Look an item up in the streams."""
    if not is_scan:
        replies = broker.entries(MessageEndpoints.request_response(client_id))
        over = any(
            isinstance(item, Delivery)
            and isinstance(item.message, RequestDoneMessage)
            and item.message.scan_id == scan_id
            for item in replies
        )
        return Traces(over=over, resumed=Resumed(opened=True))
    intent: ScanStatusMessage | None = None
    last: ScanStatusMessage | None = None
    for item in broker.entries(MessageEndpoints.scan_status, count=_STATUS_ENTRIES, newest=True):
        if not isinstance(item, Delivery) or item.message.scan_id != scan_id:
            continue
        if item.message.status.is_terminal:
            return Traces(over=True, intent=intent)
        intent = intent or item.message
        last = item.message
    schemas = [
        item.message
        for item in broker.entries(MessageEndpoints.scan_schema(scan_id))
        if isinstance(item, Delivery) and isinstance(item.message, ScanSchemaMessage)
    ]
    noted: list[ScanJournalMessage] = [
        item.message
        for item in broker.entries(MessageEndpoints.scan_journal(scan_id))
        if isinstance(item, Delivery)
    ]
    journal = {entry.step: entry.result for entry in noted if entry.kind == "result"}
    return Traces(
        intent=intent,
        resumed=Resumed(
            opened=intent is not None,
            started=intent.started if intent else 0.0,
            dead_time_s=last.dead_time_s if last else 0.0,
            held_since=last.timestamp if last and last.reason == "interlock" else None,
            schema=schemas[-1] if schemas else None,
            journal=journal,
        ),
        taken_up=tuple((entry.result[0], entry.result[1]) for entry in noted if entry.kind == TAKEN_UP),
    )


def count_committed(broker: Broker, scan_id: str, readers: Sequence[str]) -> Counted:
    """How many points of each of these device servers are in a scan's readings, and whose baseline is.

    Looks at the newest entries, at all only if those do not tell.
    """
    readings = MessageEndpoints.scan_readings(scan_id)
    oldest = broker.entries(readings, count=4 * len(readers))
    newest = broker.entries(readings, count=_NEWEST, newest=True)
    points = _points(newest)
    if len(newest) == _NEWEST and not set(readers) <= set(points):
        points = _points(broker.entries(readings))
    baseline = {message.server for message in _readings([*oldest, *newest], "baseline")}
    return Counted(points, frozenset(baseline))


def reading_of(
    broker: Broker, scan_id: str, index: int, schema: ScanSchemaMessage
) -> dict[str, dict[str, dict[str, Any]]] | None:
    """What was read at a point, as a device server reports it: device -> signal -> {"value", "timestamp"}; None if it
    is not on record, or not of every device server of the schema.
    """
    readings = MessageEndpoints.scan_readings(scan_id)
    for newest in (_NEWEST, None):
        found: dict[str, ReadingsMessage] = {}
        items = broker.entries(readings, count=newest, newest=newest is not None)
        for message in _readings(items, "monitored"):
            if not 0 <= index - message.first_index < message.count:
                continue
            earlier = found.get(message.server)
            if earlier is None or message.attempt > earlier.attempt:
                found[message.server] = message
        if found.keys() >= set(schema.servers):
            return _as_reading(found, index, schema)
    return None


def _as_reading(
    found: Mapping[str, ReadingsMessage], index: int, schema: ScanSchemaMessage
) -> dict[str, dict[str, dict[str, Any]]]:
    reading: dict[str, dict[str, dict[str, Any]]] = {}
    for server, message in found.items():
        row = index - message.first_index
        columns = [signal for signal in schema.signals if signal.server == server]
        for signal, values, times in zip(columns, message.values, message.device_times, strict=True):
            if values[row] is not None and not signal.given:
                item = {"value": values[row], "timestamp": times[row]}
                reading.setdefault(signal.device, {})[signal.signal] = item
    return reading


def _readings(items: Sequence[Delivery | Malformed], group: str) -> list[ReadingsMessage]:
    return [
        item.message
        for item in items
        if isinstance(item, Delivery)
        and isinstance(item.message, ReadingsMessage)
        and item.message.group == group
    ]


def _points(items: Sequence[Delivery | Malformed]) -> dict[str, int]:
    """Server -> number of its points, by its blocks."""
    found: dict[str, int] = {}
    for message in _readings(items, "monitored"):
        found[message.server] = max(found.get(message.server, 0), message.first_index + message.count)
    return found


def answers_of(broker: Broker, client_id: str) -> list[RequestResponseMessage]:
    """What a client was answered, oldest first."""
    return [
        item.message
        for item in broker.entries(MessageEndpoints.request_response(client_id))
        if isinstance(item, Delivery) and isinstance(item.message, RequestResponseMessage)
    ]


def ends_of(broker: Broker, role: str) -> dict[int, str]:
    """Process id -> how it ended, of the processes of a role, as the supervisor has told: "killed by SIGSEGV"."""
    found = broker.entries(MessageEndpoints.supervisor_events, count=_STATUS_ENTRIES, newest=True)
    messages: list[SupervisorMessage] = [item.message for item in found if isinstance(item, Delivery)]
    return {
        m.pid: m.reason.partition(" (")[0] if m.exit_code is None else f"ended with code {m.exit_code}"
        for m in messages
        if m.service == role and m.event == "ended"
    }


def highest_number_in_redis(broker: Broker) -> int:
    """The last scan number given out; 0 if none was."""
    try:
        found = broker.get(MessageEndpoints.scan_number)
    except MessageError as error:
        log.error("the scan number in Redis cannot be read: %s", error)
        return 0
    return int(found.message.scan_number) if found else 0


def highest_number_in_files(folder: Path) -> int:
    """The highest number among the scan folders below the data folder, with or without a level for the account; 0 if
    there is none, or the folder cannot be read.
    """
    parts = [part for part in folder.parts if ACCOUNT not in part] if ACCOUNT in str(folder) else folder.parts
    base = Path(*parts)
    highest = 0
    for level in [base, *_folders(base)]:
        thousands = sorted((f for f in _folders(level) if _THOUSAND.fullmatch(f.name)), reverse=True)
        for thousand in thousands:
            number = numbers_in(path.name for path in _folders(thousand))
            if number:
                highest = max(highest, number)
                break
    return highest


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []
