"""Where entries go: what a database, a logbook or a catalogue has to be able to do, and the thread that talks
to it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bec_lib.errors import BECError, ReasonCode
from scihub_connector.outbox import Entry, Open, Send

log = logging.getLogger(__name__)


class Unavailable(BECError):
    """The target cannot be reached or cannot work now; the same will be tried again. One sentence."""

    code = ReasonCode.SERVICE_DOWN


class Refused(BECError):
    """The target works and will never take these entries as they are."""

    code = ReasonCode.INVALID_ARGUMENT


class Target(Protocol):
    """A place for entries. Called by one thread. Both methods may block for long."""

    def open(self) -> dict[str, str] | None:
        """Connect; stream -> the last entry that the target has, or None if it does not remember, in which
        case the cursor in Redis counts. Raises Unavailable.
        """

    def send(self, entries: Sequence[Entry]) -> None:
        """Take all of them or none, for good on return. Taking the same ones again changes nothing. Raises
        Unavailable or Refused.
        """

    def close(self) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """What became of an action. positions: after Open. error: why it failed."""

    target: str
    action: Open | Send
    positions: dict[str, str] | None = None
    error: Unavailable | Refused | None = None


class Courier:
    """The thread of a target. connect: makes the target, in the thread; imports that take long belong in it.
    deliver: gets an Outcome for each action, from the thread.
    """

    def __init__(self, name: str, connect: Callable[[], Target], deliver: Callable[[Outcome], None]):
        self._name = name
        self._connect = connect
        self._deliver = deliver
        self._mailbox: queue.SimpleQueue[Open | Send | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"courier-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def do(self, action: Open | Send) -> None:
        self._mailbox.put(action)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the action in hand. What was not sent is sent by the next process."""
        self._mailbox.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        target: Target | None = None
        while (action := self._mailbox.get()) is not None:
            positions = None
            error: Unavailable | Refused | None = None
            try:
                if target is None:
                    target = self._connect()
                if isinstance(action, Open):
                    positions = target.open()
                else:
                    target.send(action.entries)
            except (Unavailable, Refused) as known:
                error = known
            except Exception as unknown:
                # The loop of the thread: whatever a driver raises, the entry stays and is tried again.
                log.exception("the %s failed", self._name)
                error = Unavailable(f"The {self._name} failed: {type(unknown).__name__}: {unknown}.")
            self._deliver(Outcome(self._name, action, positions, error))
        if target is not None:
            target.close()


def without_password(url: str) -> str:
    """An address as people may see it: user, host and database, or the file of SQLite."""
    scheme, _, rest = url.partition("://")
    if scheme.startswith("sqlite"):
        return rest.removeprefix("/") or "in memory"
    credentials, at, place = rest.partition("?")[0].rpartition("@")
    return f"{scheme.split('+')[0]}://{credentials.partition(':')[0]}{at}{place}"
