"""A request to the scan server, from the user's side: is it queued, running, done, and what went wrong?

Each failure is raised where it is waited for, as the exception that says it. Knows nothing of how it is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bec_client.connection import Ticket
from bec_client.scan_item import ScanItem
from bec_lib.errors import BECError, DeadlineExceeded, ReasonCode, ScanAborted, ScanFailed, error_for
from bec_lib.messages import ErrorInfo, QueueAction, RequestResponseMessage, ScanQueueMessage

if TYPE_CHECKING:
    from bec_client.client import BECClient

ANSWER_S = 10.0  # the scan server answers a request at once
FILE_S = 60.0  # for a file, after the scan's end
SETTLE_S = 2.0  # between two events that are told together, on two streams
CALLBACKS_S = 10.0  # for the last points to reach them, after a scan's end
LOOK_S = 0.1  # while somebody waits who also runs callbacks


class ReportStatus(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class ScanInterruption(BECError):
    """The user has paused a scan that was being watched; it waits for %resume."""

    code = ReasonCode.STOPPED


def raise_error(error: ErrorInfo | None, fallback: str, *, scan: bool = False) -> None:
    """Raise what an answer says went wrong. scan: of a scan, so that it is a ScanFailed when nothing closer fits."""
    if error is None:
        raise ScanFailed(fallback) if scan else BECError(fallback)
    text = error.error_message or fallback
    code = error.code
    if scan and code in (ReasonCode.INTERNAL, ReasonCode.STOPPED, ReasonCode.NOT_ALLOWED):
        kind = ScanAborted if code is ReasonCode.STOPPED else ScanFailed
        raise kind(text, code=code, device=error.device, details=error.traceback)
    raise error_for(code, text, device=error.device, details=error.traceback)


class ScanReport:
    """Returned by every `scans.<name>(...)`."""

    def __init__(self, client: BECClient, request: ScanQueueMessage, ticket: Ticket, is_scan: bool):
        self._client = client
        self._ticket = ticket
        self.request = request
        self.is_scan = is_scan
        self.scan: ScanItem | None = None
        self.rows_shown = 0  # of the live table
        self._handed_out: threading.Event | None = None  # all points, to the callbacks

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def what(self) -> str:
        return self._ticket.what

    @property
    def done(self) -> bool:
        """True when it has ended, well or not."""
        return self._ticket.finished.is_set()

    @property
    def succeeded(self) -> bool:
        """True when it has ended well."""
        return self._ticket.done is not None and self._ticket.done.success

    @property
    def status(self) -> str:
        """PENDING, RUNNING, PAUSED, COMPLETED or FAILED."""
        if self._ticket.finished.is_set():
            return ReportStatus.COMPLETED if self.succeeded else ReportStatus.FAILED
        if self.scan is None or not self.scan.opened.is_set():
            return ReportStatus.PENDING
        return ReportStatus.PAUSED if self.scan.status == "paused" else ReportStatus.RUNNING

    @property
    def queue_item(self) -> Any:
        """Its place in the queue as the scan server tells it, None if it is not (or no longer) queued."""
        return self._client.queue.item(self.request_id)

    @property
    def answer_result(self) -> Any:
        """What the scan server's answer carries, e.g. the plan of a dry run."""
        return getattr(self._ticket.answer, "result", None)

    def accepted(self, timeout: float = ANSWER_S) -> RequestResponseMessage:
        """Wait for the scan server's answer. Raises what it says if it refuses; all problems are in one text."""
        self._client.connection.wait(self._ticket.answered, self.what, ["scan_server"], timeout)
        answer: RequestResponseMessage = self._ticket.answer
        if not answer.accepted:
            raise error_for(
                answer.code or ReasonCode.NOT_ALLOWED, answer.message or f"{self.what} was refused"
            )
        if answer.scan_id and self.is_scan:
            self.scan = self._client.scan_storage.item(answer.scan_id)
        return answer

    def wait(
        self, timeout: float | None = None, num_points: bool = False, file_written: bool = True
    ) -> ScanReport:
        """Wait until it has ended, and (for a scan) until its file is final.

        timeout: seconds for everything, None: as long as the services it needs are alive.
        file_written: False to return as soon as the scan has ended. num_points: accepted and ignored, a wait is
        always for all points.
        Raises what went wrong (ScanAborted, ScanFailed, LimitError, DeviceError ...) with its text,
        DeadlineExceeded at the timeout, ServiceDown when a service is gone, StorageError if there is no file.
        """
        connection = self._client.connection
        begun = connection.clock.monotonic()
        finished: Any = self._ticket.finished
        if self._handed_out is not None:
            finished = _Meanwhile(finished, self._client.callbacks.poll)
        connection.wait(
            finished,
            self.what,
            ["scan_server"],
            timeout,
            is_lost=self._is_lost,
            concerned=self._concerned,
        )
        self.run_callbacks()
        self._raise_if_failed()
        if self.scan is None or not self.is_scan:
            return self
        if not self.scan.ended.wait(SETTLE_S):
            self._client.notify(f"{self.what} is done, and its closing is late")
        if file_written:
            left = FILE_S if timeout is None else timeout - (connection.clock.monotonic() - begun)
            self.wait_for_file(max(0.0, left))
        return self

    def wait_for_file(self, timeout: float = FILE_S) -> str:
        """Wait until the scan's file is final; its path. Raises StorageError if it could not be written."""
        if self.scan is None:
            raise BECError(f"{self.what} writes no file")
        name = f"the file of scan {self.scan.scan_number or self.scan.scan_id}"
        try:
            self._client.connection.wait(
                self.scan.filed, name, ["file_writer"], timeout, concerned=lambda: ["scan_bundler"]
            )
        except DeadlineExceeded:
            # The event may have been missed if it was written before this client followed it.
            self.scan.status_message = None
            self._client.scan_storage.recall(self.scan.scan_id)
            if not self.scan.filed.is_set():
                raise
        message = self.scan.file_message
        if message is not None and not message.successful:
            from bec_lib.errors import StorageError

            raise StorageError(f"{name} was not written: {message.error or 'the file writer gave no reason'}")
        return self.scan.file_path or ""

    def call_for_points(
        self, functions: Iterable[Callable[..., Any]], later: Iterable[Callable[..., Any]]
    ) -> None:
        """Call `functions` for each point while this is shown or waited for, and `later` in the thread of the callbacks;
        all of them have been called for all points when `wait` returns.
        """
        if self.scan is None:
            raise BECError(f"{self.what} has no points")
        self._handed_out = self._client.callbacks.follow_scan(self.scan, functions, later)

    def run_callbacks(self) -> None:
        """Of a scan that is over: call what is still to be called for its points."""
        if self._handed_out is None:
            return
        if self.scan is None or not self.scan.opened.is_set():
            self._client.callbacks.forget_scan(self.request_id if self.scan is None else self.scan.scan_id)
        elif not self._handed_out.wait(CALLBACKS_S):
            self._client.notify(f"the last points of {self.what} are late; its callbacks may miss some")
        self._handed_out = None
        self._client.callbacks.poll()

    def cancel(self) -> None:
        """End it: taken out of the queue if it waits, aborted if it runs. No error if it is already over."""
        if self.done:
            return
        answer = self._ticket.answer
        scan_id = answer.scan_id if answer is not None else None
        self._client.queue.command(QueueAction.ABORT, scan_id=scan_id, queue=self.request.queue)

    def _raise_if_failed(self) -> None:
        done = self._ticket.done
        if done is None:
            self.accepted(0.1)
            return
        if not done.success:
            raise_error(done.error, self._why(), scan=self.is_scan)

    def _why(self) -> str:
        message = self.scan.status_message if self.scan else None
        if message is not None and (message.error or message.message):
            return message.error.error_message if message.error else message.message
        return f"{self.what} failed, and the scan server gave no reason; see `bec alarms`"

    def _concerned(self) -> list[str]:
        roles = self._client.session.server_roles()
        return [*roles, "scan_bundler", "file_writer"] if self.is_scan else roles

    def _is_lost(self) -> bool:
        return not self.done and not self._client.queue.may_hold(self.request_id)

    def __repr__(self) -> str:
        if self.scan is not None and self.scan.scan_number is not None:
            return f"<{self.what}: scan {self.scan.scan_number}, {self.status.lower()}>"
        return f"<{self.what}: {self.status.lower()}>"


class _Meanwhile:
    """An event to wait for, with something to be done while one waits."""

    def __init__(self, event: threading.Event, do: Callable[[], None]):
        self._event = event
        self._do = do

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float) -> bool:
        left = timeout
        while True:
            self._do()
            if self._event.wait(min(LOOK_S, left)):
                return True
            left -= LOOK_S
            if left <= 0:
                return False
