"""Commands to the scan queue, and the queue as it is: `bec.queue.request_scan_abortion()`, `print(bec.queue)`.

Each command waits for the scan server's answer and raises what it refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import ReasonCode, RequestRejected, error_for
from bec_lib.messages import (
    QueueAction,
    QueueItem,
    QueueSnapshot,
    RequestResponseMessage,
    ScanQueueModificationMessage,
    ScanQueueStatusMessage,
)

if TYPE_CHECKING:
    from bec_client.client import BECClient

ANSWER_S = 10.0


class Queue:
    """The scan queues. Printed, it is a table."""

    def __init__(self, client: BECClient):
        self._client = client
        self.default_queue = "primary"

    # Looking

    @property
    def status(self) -> dict[str, QueueSnapshot]:
        """Queue name -> what is in it now."""
        found = self._client.broker.get(Endpoints.scan_queue_status)
        if found is None:
            return {}
        message: ScanQueueStatusMessage = found.message
        return message.queues

    @property
    def current(self) -> QueueItem | None:
        """The request at the head of the default queue, None if it is empty."""
        snapshot = self.status.get(self.default_queue)
        return snapshot.items[0] if snapshot and snapshot.items else None

    def item(self, request_id: str) -> QueueItem | None:
        """A request by its id, None if it is in no queue."""
        for snapshot in self.status.values():
            for item in snapshot.items:
                if item.request_id == request_id:
                    return item
        return None

    @property
    def next_scan_number(self) -> int:
        """The number that the next scan will get, if nobody is quicker."""
        found = self._client.broker.get(Endpoints.scan_number)
        return (found.message.scan_number if found else 0) + 1

    def set_default_scan_queue(self, name: str) -> None:
        """The queue for scans and commands of this client that name none."""
        self.default_queue = name

    # Commands

    def request_scan_interruption(
        self, deferred_pause: bool = True, scan_id: str | None = None, queue: str | None = None
    ) -> None:
        """Pause the running scan: after the point in hand (deferred_pause), or at once, with the motors stopped."""
        action = QueueAction.DEFERRED_PAUSE if deferred_pause else QueueAction.PAUSE
        self.command(action, scan_id=scan_id, queue=queue)

    def request_scan_continuation(self, scan_id: str | None = None, queue: str | None = None) -> None:
        """Go on with a paused scan and a paused queue."""
        self.command(QueueAction.CONTINUE, scan_id=scan_id, queue=queue)

    def request_scan_abortion(self, scan_id: str | None = None, queue: str | None = None) -> None:
        """End the running scan, or take a waiting one out of the queue. Its points so far stay in its file."""
        self.command(QueueAction.ABORT, scan_id=scan_id, queue=queue)

    def request_scan_halt(self, scan_id: str | None = None, queue: str | None = None) -> None:
        """End the running scan without its clean-up moves."""
        self.command(QueueAction.HALT, scan_id=scan_id, queue=queue)

    def request_scan_restart(self, scan_id: str | None = None, queue: str | None = None) -> Any:
        """Abort the running scan and run its request again, next in the queue."""
        return self.command(QueueAction.RESTART, scan_id=scan_id, queue=queue).result

    def request_set_completed(self, scan_id: str | None = None, queue: str | None = None) -> None:
        """End the running scan early and count it as good."""
        self.command(QueueAction.USER_COMPLETED, scan_id=scan_id, queue=queue)

    def request_queue_reset(self, queue: str | None = None) -> None:
        """Abort what runs and empty the queue."""
        self.command(QueueAction.CLEAR, queue=queue)

    def add_queue_lock(self, reason: str, identifier: str | None = None, queue: str | None = None) -> None:
        """Let nothing start until the lock is removed. identifier: its name, the user's by default."""
        name = identifier or self._client.username
        self.command(QueueAction.LOCK, queue=queue, parameter={"identifier": name, "reason": reason})

    def remove_queue_lock(self, identifier: str | None = None, queue: str | None = None) -> None:
        name = identifier or self._client.username
        self.command(QueueAction.RELEASE_LOCK, queue=queue, parameter={"identifier": name})

    def command(
        self,
        action: QueueAction,
        *,
        scan_id: str | None = None,
        queue: str | None = None,
        parameter: dict[str, Any] | None = None,
    ) -> RequestResponseMessage:
        """Send a command and wait until the scan server has taken it.

        Raises RequestRejected with its reason, ServiceDown if there is no scan server.
        """
        client = self._client
        what = str(action.value).replace("_", " ")
        client.service_status.require(["scan_server"], what)
        ticket = client.connection.ticket(what)
        client.connection.send(
            client.connection.queue_requests,
            ScanQueueModificationMessage(
                request_id=ticket.request_id,
                client_id=client.client_id,
                action=action,
                queue=queue or self.default_queue,
                scan_id=scan_id,
                parameter=parameter or {},
            ),
        )
        client.connection.wait(ticket.answered, what, ["scan_server"], ANSWER_S)
        answer: RequestResponseMessage = ticket.answer
        if not answer.accepted:
            code = answer.code or ReasonCode.NOT_ALLOWED
            if code is ReasonCode.ABORTED:
                raise RequestRejected(answer.message, code=code)
            raise error_for(code, answer.message or f"{what} was refused")
        return answer

    def __str__(self) -> str:
        from bec_client.tables import as_text, queue_table

        return as_text(queue_table(self.status))

    __repr__ = __str__
