"""Messages as rows: what a database keeps of scans, files and device sessions.

Values are plain (numbers, text, datetimes with zone, JSON). Knows no database and no connection; a row with
the same key as an earlier one brings its values up to date.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bec_lib.codec import plain
from bec_lib.messages import (
    DeviceSessionMessage,
    FileMessage,
    ScanHistoryMessage,
    ScanStatusMessage,
)
from scihub_connector.outbox import Entry


@dataclass(frozen=True)
class Row:
    """key: the columns by which the row is found; values: what it is to hold. A row without values is only
    made if it is not there.
    """

    table: str
    key: dict[str, Any]
    values: dict[str, Any] = field(default_factory=dict)


def rows(entry: Entry, deployment: str) -> list[Row]:
    """The rows of a message; none for a message that leaves no trace, or a device session (`session_rows`)."""
    match entry.message:
        case ScanStatusMessage() as status:
            return _scan(status, deployment)
        case FileMessage() as file:
            return _file(file, deployment, entry.sent)
        case ScanHistoryMessage() as history:
            return _history(history, deployment)
        case _:
            return []


def session_rows(
    session: DeviceSessionMessage, entry_id: str, deployment: str, previous: Mapping[str, Any] | None
) -> list[Row]:
    """The rows of a device session: itself, and one for each device that differs from the `previous` devices
    (None: there was no session before).
    """
    devices = json_value(session.devices)
    changes = difference(previous or {}, devices)
    key = {"deployment": deployment, "entry": entry_id}
    changed_at = moment(session.timestamp)
    return [
        Row(
            "device_sessions",
            key,
            {
                "version": session.version,
                "hash": session.hash,
                "source": text(session.source),
                "user_name": text(session.user),
                "committed": changed_at,
                "devices": devices,
                "failed": json_value(session.failed),
                "changes": {
                    kind: sorted(name for name, change in changes.items() if change["kind"] == kind)
                    for kind in ("added", "changed", "removed")
                },
            },
        ),
        *(
            Row(
                "device_changes",
                {**key, "device": name},
                {
                    "version": session.version,
                    "committed": changed_at,
                    "kind": change["kind"],
                    "config": change["config"],
                    "changes": change["changes"],
                },
            )
            for name, change in changes.items()
        ),
    ]


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Device -> what happened to it: kind (added, changed, removed), config (the new one, None if removed),
    changes (field -> [old, new], for kind changed). Devices that are the same are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({*before, *after}):
        if name not in before:
            found[name] = {"kind": "added", "config": after[name], "changes": {}}
        elif name not in after:
            found[name] = {"kind": "removed", "config": None, "changes": {}}
        elif before[name] != after[name]:
            old, new = before[name], after[name]
            found[name] = {
                "kind": "changed",
                "config": new,
                "changes": {
                    key: [old.get(key), new.get(key)]
                    for key in sorted({*old, *new})
                    if old.get(key) != new.get(key)
                },
            }
    return found


def moment(seconds: float | None) -> datetime | None:
    """Seconds UTC as a datetime; None for None, 0 and what is no time."""
    if not seconds or not math.isfinite(seconds):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def text(value: str) -> str:
    """Without what no database's text can hold: NUL and lone surrogates."""
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def json_value(value: Any) -> Any:
    """A value as JSON has it: arrays as lists, bytes and unknown things as text, NaN and infinities as text."""
    return _json(plain(value))


def _json(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return text(value)
        case dict():
            return {text(str(key)): _json(item) for key, item in value.items()}
        case list():
            return [_json(item) for item in value]
        case bytes():
            return value.decode("utf-8", "replace").replace("\x00", "\ufffd")
        case _:
            return text(str(value))


def _scan(status: ScanStatusMessage, deployment: str) -> list[Row]:
    readout = status.readout
    error = status.error
    scan = Row(
        "scans",
        {"scan_id": status.scan_id},
        {
            "deployment": deployment,
            "scan_number": status.scan_number,
            "scan_name": text(status.scan_name),
            "scan_type": text(status.scan_type),
            "status": status.status.value,
            "reason": text(status.reason or ""),
            "message": text(status.message),
            "error": text(error.error_message) if error else "",
            "error_code": error.code.value if error else "",
            "error_device": text(error.device or "") if error else "",
            "user_name": text(status.user),
            "account": text(status.account),
            "queue": text(status.queue),
            "request_id": text(status.request_id),
            "session_id": text(status.session_id),
            "dataset_number": status.dataset_number,
            "args": json_value(status.args),
            "kwargs": json_value(status.kwargs),
            "parameters": json_value(status.scan_parameters),
            "motors": json_value(status.motors),
            "shape": json_value(status.shape),
            "readout": {
                "monitored": readout.monitored,
                "baseline": readout.baseline,
                "async": readout.async_,
                "on_request": readout.on_request,
            },
            "metadata": json_value(status.user_metadata),
            "num_points": status.num_points,
            "started": moment(status.started),
            "ended": moment(status.ended),
            "config_hash": status.config_hash,
            "code_hash": status.code_hash,
            **({"num_readouts": status.num_readouts} if status.num_readouts is not None else {}),
        },
    )
    # Baseline devices are those of every scan; they are in `readout`.
    roles = {"motor": status.motors, "monitored": readout.monitored, "async": readout.async_}
    devices = [
        Row("scan_devices", {"scan_id": status.scan_id, "device": text(device), "role": role})
        for role, names in roles.items()
        for device in dict.fromkeys(names)
    ]
    return [scan, *devices]


def _file(file: FileMessage, deployment: str, sent: float) -> list[Row]:
    found = [
        Row(
            "files",
            {"scan_id": file.scan_id, "file_path": text(file.file_path)},
            {
                "deployment": deployment,
                "scan_number": file.scan_number,
                "device": text(file.device_name or ""),
                "is_master": file.is_master_file,
                "file_type": text(file.file_type),
                "is_final": file.done,
                "successful": file.successful,
                "error": text(file.error),
                "num_points": file.num_points,
                "size_bytes": file.size_bytes,
                "updated": moment(sent),
                "metadata": json_value(file.metadata),
            },
        )
    ]
    if file.is_master_file:
        found.append(
            Row(
                "scans",
                {"scan_id": file.scan_id},
                {
                    "deployment": deployment,
                    "file_path": text(file.file_path),
                    "file_is_final": file.done and file.successful,
                },
            )
        )
    return found


def _history(history: ScanHistoryMessage, deployment: str) -> list[Row]:
    return [
        Row(
            "scans",
            {"scan_id": history.scan_id},
            {
                "deployment": deployment,
                "scan_number": history.scan_number,
                "scan_name": text(history.scan_name),
                "status": history.status.value,
                "file_path": text(history.file_path),
                "file_is_final": not history.file_error,
                "num_readouts": history.num_points,
                "started": moment(history.started),
                "ended": moment(history.ended),
            },
        )
    ]
