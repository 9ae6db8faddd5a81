"""Requests out, answers in: who asked what, and has it been answered?

One reader thread follows the client's answer streams and the events of scans, files and alarms, and hands each
entry to whom it concerns. Threads that wait do so on an event, with a deadline, and look at the heartbeats of
those they wait for: nobody waits for a service that is gone.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from bec_lib.broker import Broker, Delivery, Malformed, StreamReader
from bec_lib.clock import SystemClock
from bec_lib.endpoints import Endpoint
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BrokerError, DeadlineExceeded, ServiceDown
from bec_lib.ids import new_id
from bec_lib.messages import (
    AlarmMessage,
    DAPResponseMessage,
    DeviceRPCResponse,
    DeviceSessionMessage,
    FileMessage,
    Message,
    RequestDoneMessage,
    RequestResponseMessage,
    ScanStatusMessage,
)

log = logging.getLogger(__name__)

_T = TypeVar("_T")

WATCH_S = 1.0  # while nothing comes, how often the heartbeats are looked at
PATIENCE_S = 30.0  # a service that is silent for so long is given up
BROKER = "broker (Redis)"
NO_BROKER = "Redis cannot be reached"
NOTICE_S = 5.0  # a wait for a call that takes longer says so


@dataclass(eq=False)
class Ticket:
    """A request on its way. answer: the one reply; done: the `RequestDoneMessage` that ends a queued request.

    on_answer: called by the reader thread, must be quick.
    """

    request_id: str
    what: str
    answer: Any = None
    done: RequestDoneMessage | None = None
    answered: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    on_answer: Callable[[Any], None] | None = None


class Connection:
    """The client's wires: one broker, one reader thread. Owned state: the tickets; both threads only add or look up
    single entries.
    """

    def __init__(self, broker: Broker, client_id: str, user: str, services: Any):
        self.broker = broker
        self.client_id = client_id
        self.services = services
        self.clock = SystemClock()
        self.become(user)
        self._tickets: weakref.WeakValueDictionary[str, Ticket] = weakref.WeakValueDictionary()
        self._kept: dict[str, Ticket] = {}
        self.on_scan_status: Callable[[ScanStatusMessage], None] = lambda message: None
        self.on_file: Callable[[FileMessage], None] = lambda message: None
        self.on_session: Callable[[DeviceSessionMessage], None] = lambda message: None
        self.on_alarm: Callable[[AlarmMessage], None] = lambda message: None
        self.notify: Callable[[str], None] = lambda text: log.warning("%s", text)
        self._reader = StreamReader(broker, self._deliver, name="bec-client-reader")

    def become(self, user: str) -> None:
        """Send requests as this user from now on; answers come to the client all the same."""
        self.user = user
        self.queue_requests = Endpoints.scan_queue_request(user)
        self.device_calls = Endpoints.device_rpc_request(user)
        self.fit_requests = Endpoints.dap_request(user)

    # Life

    def start(self) -> None:
        """Follow the answer streams from their beginning, and what happens from now on."""
        events = (
            Endpoints.scan_status,
            Endpoints.file_event,
            Endpoints.device_session_history,
            Endpoints.alarm,
        )
        streams: dict[Endpoint, str] = {endpoint: self.broker.last_id(endpoint) for endpoint in events}
        for family in (Endpoints.request_response, Endpoints.device_rpc_response, Endpoints.dap_response):
            streams[family(self.client_id)] = "0"
        self._reader.follow_many(streams)
        self._reader.start()

    def stop(self) -> None:
        self._reader.stop()
        self.broker.close()

    def new_id(self) -> str:
        return new_id(self.clock)

    # Asking

    def ticket(self, what: str, keep: bool = False) -> Ticket:
        """A ticket to send a request under. keep: hold it until it is answered even if the caller forgets it."""
        ticket = Ticket(self.new_id(), what)
        self._tickets[ticket.request_id] = ticket
        if keep:
            self._kept[ticket.request_id] = ticket
        return ticket

    def send(self, endpoint: Endpoint, message: Message, *, repeatable: bool = True) -> None:
        """Append a request. One that may be repeated (its request id makes a repeat harmless) is sent again over a
        lost connection, as long as the configuration's `give_up_after_s` says.
        """
        deadline = time.monotonic() + (self.broker.settings.give_up_after_s if repeatable else 0.0)
        pause = 0.02
        while True:
            try:
                self.broker.append(endpoint, message)
                return
            except BrokerError as error:
                if "cannot be reached" not in error.message or time.monotonic() + pause > deadline:
                    raise
                # Nothing else can be done before the broker is back.
                time.sleep(pause)
                pause = min(pause * 2, 0.5)

    # Waiting

    def wait(
        self,
        event: threading.Event,
        what: str,
        needs: Iterable[str],
        timeout: float | None = None,
        *,
        patience_s: float = PATIENCE_S,
        is_lost: Callable[[], bool] | None = None,
        notice: bool = False,
        concerned: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """Wait until the event is set.

        timeout: seconds, None for as long as those who are needed are alive. is_lost: asked about once a second,
        ends the wait when it is true twice in a row. notice: tell the user when it takes long. concerned: gives further
        roles, of whom is told if they are silent, and which are waited for all the same.
        Raises DeadlineExceeded at the timeout, naming who was asked, and ServiceDown when one of `needs` has been
        silent for `patience_s`.
        """
        started = time.monotonic()
        if event.wait(WATCH_S if timeout is None else max(0.0, min(WATCH_S, timeout))):
            return
        needs = list(needs)
        others: list[str] | None = None
        silent_since: float | None = None
        noticed = False
        lost = 0
        missing: list[str] = []
        while True:
            now = time.monotonic()
            if timeout is not None and now - started >= timeout:
                doing = NO_BROKER if missing == [BROKER] else self._doing([*needs, *(others or ())])
                raise DeadlineExceeded(
                    f"{what} was not done within {timeout:g} s{'; ' + doing if doing else ''}. "
                    "It may still be going on; `bec status` shows who is at work."
                )
            if others is None:
                others = self._unless_broken(
                    lambda: [role for role in concerned() if role not in needs], None
                )
            missing = self._missing([*needs, *(others or ())])
            if missing and not noticed:
                self.notify(
                    f"{what}: the {' and '.join(missing).replace('_', ' ')} is silent, waiting for it"
                )
                noticed = True
            missing = [name for name in missing if name in (*needs, BROKER)]
            if missing:
                silent_since = silent_since or now
                if now - silent_since > patience_s:
                    raise ServiceDown(
                        self._unless_broken(partial(self.services.sentence, missing, what), what)
                    )
            else:
                silent_since = None
                if notice and not noticed and now - started > NOTICE_S:
                    doing = self._doing(needs)
                    self.notify(
                        f"still waiting for {what}{' (' + doing + ')' if doing else ''}; Ctrl-C to stop"
                    )
                    noticed = True
            if is_lost is not None and not missing:
                lost = lost + 1 if self._unless_broken(is_lost, False) else 0
                if lost >= 2 and not event.is_set():
                    raise ServiceDown(f"{what} is not known to the services any more; please ask again")
            left = WATCH_S if timeout is None else min(WATCH_S, max(0.001, started + timeout - now))
            if event.wait(left):
                return

    def _missing(self, roles: list[str]) -> list[str]:
        try:
            return list(self.services.missing(roles, quickly=True))
        except BrokerError:
            return [BROKER]

    def _doing(self, roles: list[str]) -> str:
        return self._unless_broken(
            lambda: "; ".join(filter(None, (self.services.busy_with(role) for role in roles))),
            NO_BROKER,
        )

    @staticmethod
    def _unless_broken(ask: Callable[[], _T], otherwise: _T) -> _T:
        """The answer, or something else while the broker cannot be asked."""
        try:
            return ask()
        except BrokerError:
            return otherwise

    # The reader thread

    def _deliver(self, found: list[Delivery | Malformed]) -> None:
        for item in found:
            if isinstance(item, Malformed):
                log.warning("%s: %s", item.endpoint.key, item.error)
                continue
            try:
                self._route(item)
            except Exception:
                log.exception("an entry of %s could not be handled", item.endpoint.key)

    def _route(self, item: Delivery) -> None:
        message = item.message
        match message:
            case DeviceRPCResponse():
                self._answer(item, message.request_id, message, is_end=True)
            case RequestResponseMessage():
                self._answer(item, message.request_id, message, is_end=not message.accepted)
            case RequestDoneMessage():
                self.services.seen("scan_server")
                ticket = self._tickets.get(message.request_id)
                self._kept.pop(message.request_id, None)
                if ticket is not None:
                    ticket.done = message
                    ticket.finished.set()
            case DAPResponseMessage():
                self._answer(item, message.request_id, message, is_end=True)
            case ScanStatusMessage():
                self.on_scan_status(message)
            case FileMessage():
                self.on_file(message)
            case DeviceSessionMessage():
                self.on_session(message)
            case AlarmMessage():
                self.on_alarm(message)

    def _answer(self, item: Delivery, request_id: str, message: Any, *, is_end: bool) -> None:
        self.services.seen(item.envelope.service)
        ticket = self._tickets.get(request_id)
        self._kept.pop(request_id, None)
        if ticket is None:
            return
        ticket.answer = message
        ticket.answered.set()
        if is_end:
            ticket.finished.set()
        if ticket.on_answer is not None:
            ticket.on_answer(message)
