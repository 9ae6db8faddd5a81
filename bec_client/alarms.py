"""What went wrong in the services since this client started, newest last: `bec.alarms`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.messages import AlarmMessage, Severity

KEPT = 100


class Alarms:
    """The alarms of this session. Printed, it is a table; called with a severity, the alarms of at least that."""

    def __init__(self, broker: Broker):
        self._broker = broker
        self._alarms: deque[AlarmMessage] = deque(maxlen=KEPT)

    def on_alarm(self, message: AlarmMessage) -> None:
        """By the reader thread."""
        self._alarms.append(message)

    def __call__(self, severity: Severity | int = Severity.WARNING) -> list[AlarmMessage]:
        return [alarm for alarm in self._alarms if alarm.severity >= severity]

    def __iter__(self) -> Iterator[AlarmMessage]:
        return iter(list(self._alarms))

    def __len__(self) -> int:
        return len(self._alarms)

    def __getitem__(self, index: int) -> AlarmMessage:
        return list(self._alarms)[index]

    def clear(self) -> None:
        self._alarms.clear()

    def earlier(self, count: int = 50) -> list[AlarmMessage]:
        """The latest alarms of the deployment, also from before this client started."""
        found: list[Any] = self._broker.entries(Endpoints.alarm, count=count, newest=True)
        return [item.message for item in found if isinstance(item, Delivery)]

    def __str__(self) -> str:
        from bec_client.tables import alarm_table, as_text

        return as_text(alarm_table(list(self._alarms)))

    __repr__ = __str__
