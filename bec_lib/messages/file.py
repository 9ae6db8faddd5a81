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
