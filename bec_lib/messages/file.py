"""What the file writer says about a scan's file."""

from __future__ import annotations

from typing import Any, ClassVar

from bec_lib.messages.base import Message


class FileMessage(Message):
    """A file of a scan. done False: it can be opened while it grows (SWMR). done True: it is final;
    successful False: error says why.
    """

    msg_type: ClassVar[str] = "file_message"

    scan_id: str
    file_path: str
    done: bool
    successful: bool = True
    is_master_file: bool = True
    device_name: str | None = None
    file_type: str = "h5"
    num_points: int | None = None
    error: str = ""
    scan_number: int = 0
    size_bytes: int | None = None
    metadata: dict[str, Any] = {}


class FileRequestMessage(Message):
    """Write the file of a scan that is over, again or at last, from its streams. entries: ids of its first and its last
    `ScanStatusMessage`. One that cannot be met any more is passed over.
    """

    msg_type: ClassVar[str] = "file_request"

    scan_id: str
    entries: list[str]
