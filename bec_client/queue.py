"""Commands to the scan queue, and the queue as it is: `bec.queue.request_scan_abortion()`, `print(bec.queue)`.

Each command waits for the scan server's answer and raises what it refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import ParameterError, ReasonCode, RequestRejected, StreamConflict, error_for
from bec_lib.messages import (
    DatasetMessage,
    ItemState,
    QueueAction,
    QueueItem,
    QueueSnapshot,
    RequestResponseMessage,
    ScanQueueModificationMessage,
    ScanQueueStatusMessage,
)
from bec_lib.scans.signature import split_keywords

if TYPE_CHECKING:
    from bec_client.client import BECClient
    from bec_client.scan_item import ScanStorage

ANSWER_S = 10.0
PAGE = 500  # requests that are asked for at once


class Told(str):
    """What the scan server says that it does. scan_id: of the scan that it concerns; of a restart, of the new one."""

    scan_id: str | None

    def __new__(cls, answer: RequestResponseMessage) -> Told:
        text = answer.message
        # Names of scans and interlocks stay as they are.
        begins = f"{text[:1].upper()}{text[1:]}" if text.startswith(("the ", "scan ")) else text
        made = super().__new__(cls, f"{begins.rstrip('.')}." if text else "Done.")
        made.scan_id = answer.scan_id
        return made

    __repr__ = str.__str__


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
        for name, snapshot in self.status.items():
            hidden = snapshot.num_items > len(snapshot.items)
            for item in self.items(queue=name) if hidden else snapshot.items:
                if item.request_id == request_id:
                    return item
        return None

    def may_hold(self, request_id: str) -> bool:
        """False if a request is for certain in no queue. Asks nobody."""
        return any(
            snapshot.num_items > len(snapshot.items)
            or any(item.request_id == request_id for item in snapshot.items)
            for snapshot in self.status.values()
        )

    def items(self, first: int = 1, count: int | None = None, queue: str | None = None) -> list[QueueItem]:
        """What is in a queue, from its head (1) on. `status` has the first few only."""
        found: list[QueueItem] = []
        while count is None or len(found) < count:
            wanted = PAGE if count is None else min(PAGE, count - len(found))
            parameter = {"first": first + len(found), "count": wanted}
            result = self.command(QueueAction.SHOW, queue=queue, parameter=parameter).result
            part = QueueSnapshot.model_validate(result)
            found += part.items
            if first - 1 + len(found) >= part.num_items or not part.items:
                break
        return found

    def find(self, which: Any, queue: str | None = None) -> str:
        """The scan id of a request that is meant: a report of it, its scan id or a part of it with at least six
        characters, or its place among those that wait (1 is the next, as in the table).

        Raises ParameterError if there is none, or if it may be several.
        """
        answer = getattr(getattr(which, "_ticket", None), "answer", None)
        if answer is not None:
            return str(answer.scan_id)
        if isinstance(which, str) and len(which) == len("00000000-0000-7000-8000-000000000000"):
            return which
        name = queue or self.default_queue
        if isinstance(which, str) and len(which) >= 6:
            ids = [item.scan_id for item in self.items(queue=name)]
            found = [scan_id for scan_id in ids if scan_id.startswith(which) or scan_id.endswith(which)]
            if len(found) == 1:
                return found[0]
            told = "several" if found else "no"
            raise ParameterError(f"{told} requests in the queue {name} have {which!r} in their scan id")
        if not isinstance(which, int) or isinstance(which, bool):
            raise ParameterError(
                f"{which!r} names no request of a queue: give its place among those that wait, a scan id, or a report"
            )
        head = self.items(1, 1, name)
        behind = 1 if head and head[0].status is not ItemState.PENDING else 0
        found_items = self.items(which + behind, 1, name) if which >= 1 else []
        if not found_items:
            raise ParameterError(f"there is no number {which} among those that wait in the queue {name}")
        return found_items[0].scan_id

    @property
    def next_scan_number(self) -> int:
        """The number that the next scan will get, if nobody is quicker."""
        found = self._client.broker.get(Endpoints.scan_number)
        return (found.message.scan_number if found else 0) + 1

    @next_scan_number.setter
    def next_scan_number(self, value: int) -> None:
        raise ParameterError(
            "scan numbers cannot be set: the scan server counts them, so that none is given twice"
        )

    @property
    def next_dataset_number(self) -> int:
        """The number that the next dataset will get, if nobody is quicker."""
        return self._last_dataset() + 1

    @next_dataset_number.setter
    def next_dataset_number(self, value: int) -> None:
        last = self._last_dataset()
        if not isinstance(value, int) or isinstance(value, bool) or value <= last:
            raise ParameterError(
                f"the next dataset number cannot be {value!r}: numbers up to {last} are given out; it may be {last + 1} or more"
            )
        if value > last + 1:
            self.take_dataset_number(value - 1)

    def take_dataset_number(self, number: int | None = None) -> int:
        """A dataset number that nobody else gets: the next one, or this one."""
        broker = self._client.broker
        while True:
            last = self._last_dataset()
            taken = last + 1 if number is None else number
            message = DatasetMessage(number=taken)
            batch = broker.batch().append_at(Endpoints.datasets, message, f"{taken}-0", after=f"{last}-0")
            try:
                batch.commit()
            except StreamConflict:
                if number is not None and self._last_dataset() >= number:
                    return number
                continue
            return taken

    def _last_dataset(self) -> int:
        return int(self._client.broker.last_id(Endpoints.datasets).partition("-")[0])

    def get_default_scan_queue(self) -> str:
        return self.default_queue

    def set_default_scan_queue(self, name: str) -> None:
        """The queue for scans and commands of this client that name none."""
        self.default_queue = name

    # By the names of the released BEC

    @property
    def queue_storage(self) -> Queue:
        """`bec.queue.queue_storage.current_scan_queue["primary"]` is what is in a queue now."""
        return self

    @property
    def current_scan_queue(self) -> dict[str, QueueSnapshot]:
        return self.status

    @property
    def scan_storage(self) -> ScanStorage:
        """The latest scans of all clients: `.current_scan`, `.current_scan_id`."""
        return self._client.scan_storage

    # Commands

    def request_scan_interruption(
        self,
        deferred_pause: bool = True,
        scan_id: str | None = None,
        queue: str | None = None,
        *,
        after_scan: bool = False,
    ) -> Told:
        """Pause the running scan: after the point in hand (deferred_pause), or at once, between two phases of a point.
        after_scan: let it end, and pause the queue behind it.
        """
        action = QueueAction.DEFERRED_PAUSE if deferred_pause else QueueAction.PAUSE
        if after_scan:
            action = QueueAction.PAUSE_AFTER_SCAN
        return self._tell(action, scan_id=scan_id, queue=queue)

    def request_scan_continuation(self, scan_id: str | None = None, queue: str | None = None) -> Told:
        """Go on with a paused scan and a paused queue."""
        return self._tell(QueueAction.CONTINUE, scan_id=scan_id, queue=queue)

    def request_scan_abortion(self, scan_id: str | None = None, queue: str | None = None) -> Told:
        """End the running scan, or take a waiting one out of the queue. Its points so far stay in its file."""
        return self._tell(QueueAction.ABORT, scan_id=scan_id, queue=queue)

    def request_scan_halt(self, scan_id: str | None = None, queue: str | None = None) -> Told:
        """End the running scan without its clean-up moves."""
        return self._tell(QueueAction.HALT, scan_id=scan_id, queue=queue)

    def request_scan_restart(self, scan_id: str | None = None, queue: str | None = None) -> Told:
        """Abort the running scan and run its request again, next in the queue; the answer has the new `scan_id`."""
        return self._tell(QueueAction.RESTART, scan_id=scan_id, queue=queue)

    def request_set_completed(self, scan_id: str | None = None, queue: str | None = None) -> Told:
        """End the running scan early and count it as good."""
        return self._tell(QueueAction.USER_COMPLETED, scan_id=scan_id, queue=queue)

    def request_queue_reset(self, queue: str | None = None) -> Told:
        """Abort what runs and empty the queue."""
        return self._tell(QueueAction.CLEAR, queue=queue)

    def request_queue_order_modification(
        self,
        scan_id: Any,
        action: str,
        position: int | None = None,
        queue: str | None = None,
        wait_for_response: bool = True,
    ) -> Told:
        """Move a waiting request: action is move_up, move_down, move_top, move_bottom, or move_to a position (1 is next);
        `move_` may be left out. scan_id: or what else `find` understands. wait_for_response: accepted and ignored, the
        answer is always waited for.
        """
        try:
            command = QueueAction(action if action.startswith("move_") else f"move_{action}")
        except ValueError:
            raise ParameterError(
                f"{action!r} is no way to move a request; use up, down, top, bottom, or to with a position"
            ) from None
        return self._tell(
            command, scan_id=self.find(scan_id, queue), queue=queue, parameter={"position": position}
        )

    def request_removal(self, scan_id: Any, queue: str | None = None) -> Told:
        """Take a waiting request out of the queue. scan_id: or what else `find` understands."""
        return self._tell(QueueAction.REMOVE, scan_id=self.find(scan_id, queue), queue=queue)

    def request_edit(self, scan_id: Any, *args: Any, queue: str | None = None, **kwargs: Any) -> Told:
        """Change a waiting request: all of its positional arguments, if some are given, and those keywords that are named;
        what is not right is refused, and nothing is changed. scan_id: or what else `find` understands.

            bec.queue.request_edit(1, steps=21)
        """
        from bec_client.scans import plain_argument

        own, common = split_keywords(kwargs)
        changes: dict[str, Any] = {name: plain_argument(value) for name, value in common.items()}
        if args:
            changes["args"] = plain_argument(args)
        if own:
            changes["kwargs"] = plain_argument(own)
        return self._tell(QueueAction.EDIT, scan_id=self.find(scan_id, queue), queue=queue, parameter=changes)

    def add_queue_lock(
        self,
        *words: str,
        reason: str = "",
        lock_id: str | None = None,
        identifier: str | None = None,
        queue: str | None = None,
    ) -> Told:
        """Let nothing start until the lock is removed: add_queue_lock(reason), or add_queue_lock(queue, reason, lock_id).

        lock_id: the lock's name, the user's by default; identifier is the same.
        """
        match words:
            case ():
                pass
            case (text,):
                reason = text
            case (name, text, lock):
                queue, reason, lock_id = name, text, lock
            case _:
                raise ParameterError(
                    "add_queue_lock takes a reason, or a queue, a reason and the name of the lock; use reason=, lock_id= "
                    "and queue= for others"
                )
        if not reason:
            raise ParameterError(
                "a lock needs a reason, which others are shown: add_queue_lock('beam is off')"
            )
        parameter = {"identifier": lock_id or identifier or self._client.username, "reason": reason}
        return self._tell(QueueAction.LOCK, queue=queue, parameter=parameter)

    def remove_queue_lock(
        self,
        *words: str,
        lock_id: str | None = None,
        identifier: str | None = None,
        queue: str | None = None,
    ) -> Told:
        """Remove a lock: remove_queue_lock() one's own, remove_queue_lock(lock_id), or remove_queue_lock(queue, lock_id)."""
        match words:
            case ():
                pass
            case (lock,):
                lock_id = lock
            case (name, lock):
                queue, lock_id = name, lock
            case _:
                raise ParameterError(
                    "remove_queue_lock takes the name of a lock, or a queue and the name of a lock"
                )
        parameter = {"identifier": lock_id or identifier or self._client.username}
        return self._tell(QueueAction.RELEASE_LOCK, queue=queue, parameter=parameter)

    def _tell(self, action: QueueAction, **more: Any) -> Told:
        return Told(self.command(action, **more))

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
