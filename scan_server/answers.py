"""What was answered first? A repeated request must get the same answer, whatever has happened since.

Pure. The stream of a client's answers is the record; this is its copy in memory, filled from the stream when a client
is met for the first time after a start.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from bec_lib.messages import RequestResponseMessage

KEEP = 5000
KEEP_CLIENTS = 200


class Answers:
    """Client -> request -> its first answer. Owner: the scan server's main thread."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, OrderedDict[str, RequestResponseMessage]] = OrderedDict()

    def knows(self, client_id: str) -> bool:
        return client_id in self._clients

    def load(self, client_id: str, answers: Iterable[RequestResponseMessage]) -> None:
        """What the client's stream holds, oldest first."""
        known = self._clients.setdefault(client_id, OrderedDict())
        for answer in answers:
            known.setdefault(answer.request_id, answer)
        self._forget_old(client_id)

    def first(self, client_id: str, request_id: str) -> RequestResponseMessage | None:
        """The answer that was given, or None."""
        return self._clients.get(client_id, OrderedDict()).get(request_id)

    def remember(self, client_id: str, answer: RequestResponseMessage) -> None:
        self.load(client_id, [answer])

    def _forget_old(self, client_id: str) -> None:
        self._clients.move_to_end(client_id)
        known = self._clients[client_id]
        while len(known) > KEEP:
            known.popitem(last=False)
        while len(self._clients) > KEEP_CLIENTS:
            self._clients.popitem(last=False)
