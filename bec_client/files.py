"""Having the file of a scan written again: when its disk was full, or somebody has deleted it."""

from __future__ import annotations

import time

from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import HOUR
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, ReasonCode, StorageError
from bec_lib.messages import FileMessage, FileRequestMessage, ScanStatusMessage, SealMessage


def rewrite(broker: Broker, number: int, timeout_s: float = 60.0) -> FileMessage:
    """Have the file of the latest scan of this number written from the data that Redis still has.

    Raises BECError if it has none, or the scan is not over, and StorageError if the file writer fails or does not answer.
    """
    found = [
        (item.entry_id, item.message)
        for item in broker.entries(Endpoints.scan_status)
        if isinstance(item, Delivery)
        and isinstance(item.message, ScanStatusMessage)
        and item.message.scan_number == number
    ]
    if not found:
        raise BECError(f"nothing is known of a scan {number} any more", code=ReasonCode.NOT_FOUND)
    scan_id = found[-1][1].scan_id
    entries = [(entry_id, message) for entry_id, message in found if message.scan_id == scan_id]
    if not entries[-1][1].status.is_terminal:
        raise BECError(
            f"scan {number} is not over; its file is written while it runs", code=ReasonCode.WRONG_STATE
        )
    points = Endpoints.scan_points(scan_id)
    last = broker.entries(points, newest=True, count=1)
    if not any(isinstance(item, Delivery) and isinstance(item.message, SealMessage) for item in last):
        kept = (points.expires_s or 0.0) / HOUR
        raise BECError(
            f"the data of scan {number} are not in Redis any more: they stay for {kept:g} h after its file is final",
            code=ReasonCode.NOT_FOUND,
        )
    cursor = broker.last_id(Endpoints.file_event)
    request = FileRequestMessage(scan_id=scan_id, entries=[entries[0][0], entries[-1][0]])
    broker.append(Endpoints.file_request, request)
    return _answer(broker, scan_id, number, cursor, timeout_s)


def _answer(broker: Broker, scan_id: str, number: int, cursor: str, timeout_s: float) -> FileMessage:
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        for item in broker.read({Endpoints.file_event: cursor}, block_s=left):
            cursor = item.entry_id
            if not isinstance(item, Delivery) or item.message.scan_id != scan_id:
                continue
            message: FileMessage = item.message
            if not message.done:
                continue
            if not message.successful:
                raise StorageError(f"the file of scan {number} could not be written: {message.error}")
            return message
    raise StorageError(
        f"the file of scan {number} was not written within {timeout_s:g} s; `bec-server status` shows whether the file "
        "writer runs, `bec alarms` what keeps it"
    )
