"""Latest values and broadcasts without a thread: for a program that waits in a selector of its own.

The supervisor forks, and may fork only while it has one thread; so it cannot use `LatestWatcher`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis

from bec_lib.broker.broker import Broker, Delivery, Malformed
from bec_lib.endpoints import Endpoint, Kind
from bec_lib.errors import BrokerError


class PollableWatcher:
    """Changes of some endpoints, to be taken when `fileno()` is readable. Owned by the thread that made it.

    A lost connection raises BrokerError in `take` and ends the watcher: make a new one.
    """

    def __init__(self, broker: Broker, endpoints: Iterable[Endpoint]):
        self._broker = broker
        self._endpoints = {broker.key(endpoint).encode(): endpoint for endpoint in endpoints}
        self._client = broker.connect_own()
        self._pubsub = self._client.pubsub()
        try:
            self._pubsub.subscribe(*self._endpoints)
        except (redis.RedisError, OSError) as error:
            self.close()
            raise BrokerError(f"Redis at {broker.settings.address()} cannot be watched: {error}") from error

    def fileno(self) -> int:
        connection: Any = self._pubsub.connection
        return int(connection._sock.fileno())

    def current(self) -> list[Delivery]:
        """The values as they are now; ask once after the watcher was made, so that none is missed."""
        latest = [endpoint for endpoint in self._endpoints.values() if endpoint.kind is Kind.LATEST]
        return [found for found in self._broker.get_many(latest) if found is not None]

    def take(self) -> list[Delivery | Malformed]:
        """All changes that have arrived, without waiting."""
        found: list[Delivery | Malformed] = []
        try:
            while (item := self._pubsub.get_message(timeout=0.0)) is not None:
                endpoint = self._endpoints.get(item["channel"]) if item["type"] == "message" else None
                if endpoint is not None:
                    found.append(self._broker.decode(endpoint, "", item["data"]))
        except (redis.RedisError, OSError, AttributeError) as error:
            raise BrokerError(
                f"watching Redis at {self._broker.settings.address()} was interrupted: {error}"
            ) from error
        return found

    def close(self) -> None:
        self._pubsub.close()
        self._client.close()
