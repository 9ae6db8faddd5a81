"""Which services are alive? Answers from their heartbeats, which expire by themselves when a service falls silent.

Knows nothing of what the services do. A service that has answered within the last second counts as alive without
being asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import ServiceDown
from bec_lib.messages import ServiceState, StatusMessage, SupervisorMessage

SUPERVISOR = "supervisor"
FRESH_S = 1.0
# A supervised service that has crashed is back within this time.
RESTART_S = 6.0


def device_server_role(server: str) -> str:
    """The role name of a device server, by the `deviceServer` of its devices."""
    return "device_server" if server == "main" else f"device_server.{server}"


class ServiceStatus:
    """Heartbeats, on demand. Printed, it is a table."""

    def __init__(self, broker: Broker, device_servers: Iterable[str] = ("main",)):
        self._broker = broker
        self._seen: dict[str, float] = {}
        self.roles = [
            "scan_server",
            *[device_server_role(server) for server in device_servers],
            "scan_bundler",
            "file_writer",
            "scihub",
            "data_pipeline",
        ]

    def get(self) -> dict[str, StatusMessage | None]:
        """Role -> its latest heartbeat, None for a role that is silent."""
        found = self._broker.get_many(MessageEndpoints.service_status(role) for role in self.roles)
        return {role: item.message if item else None for role, item in zip(self.roles, found, strict=True)}

    def __getitem__(self, role: str) -> StatusMessage | None:
        item = self._broker.get(MessageEndpoints.service_status(role))
        return item.message if item else None

    @property
    def all_running(self) -> bool:
        return not self.missing(self.roles)

    def seen(self, role: str) -> None:
        """Note that a role has just answered."""
        self._seen[role] = time.monotonic()

    def missing(self, roles: Iterable[str]) -> list[str]:
        """Those of the roles that are silent."""
        now = time.monotonic()
        wanted = [role for role in roles if now - self._seen.get(role, 0.0) > FRESH_S]
        if not wanted:
            return []
        found = self._broker.get_many(MessageEndpoints.service_status(role) for role in wanted)
        for role, item in zip(wanted, found, strict=True):
            if item is not None:
                self._seen[role] = now
        return [role for role, item in zip(wanted, found, strict=True) if item is None]

    def require(self, roles: Iterable[str], what: str) -> None:
        """Raises ServiceDown at once if one of the roles is silent, unless the supervisor has just begun to restart it:
        then after it had the time for that.
        """
        roles = list(roles)
        missing = self.missing(roles)
        deadline = time.monotonic() + RESTART_S
        while missing and time.monotonic() < deadline and all(self._is_coming_back(role) for role in missing):
            # A heartbeat is a latest value: its return is seen by looking.
            time.sleep(0.1)
            missing = self.missing(roles)
        if missing:
            raise ServiceDown(self.sentence(missing, what))

    def sentence(self, missing: Iterable[str], what: str) -> str:
        """What needs whom, why they ended if that is known, and the way out."""
        roles = list(missing)
        names = " and ".join(roles)
        ends = [
            f"{role} ended: {event.reason}" for role in roles if (event := self._end_of(role)) is not None
        ]
        why = f" ({'; '.join(ends)})" if ends else ""
        return (
            f"{what} needs the {names.replace('_', ' ')}, which is not running for deployment "
            f"{self._broker.deployment!r}{why}. See `bec status`, and start it with `bec-server start`."
        )

    def events(self, role: str) -> list[SupervisorMessage]:
        """What the supervisor has lately seen of a role, and of itself, oldest first."""
        found = self._broker.entries(MessageEndpoints.supervisor_events, count=100, newest=True)
        messages = [item.message for item in found if isinstance(item, Delivery)]
        return [message for message in messages if message.service in (role, SUPERVISOR)]

    def _is_coming_back(self, role: str) -> bool:
        seen = self.events(role)
        return (
            bool(seen)
            and seen[-1].service == role
            and seen[-1].event in ("started", "ended", "restarted")
            and time.time() - seen[-1].timestamp < 2 * RESTART_S
        )

    def _end_of(self, role: str) -> SupervisorMessage | None:
        seen = [event for event in self.events(role) if event.service == role and event.event == "ended"]
        return seen[-1] if seen and seen[-1].reason else None

    def ends(self) -> dict[str, str]:
        """Role -> why it ended, for those that are silent and of which it is known."""
        silent = [role for role, status in self.get().items() if status is None]
        return {role: event.reason for role in silent if (event := self._end_of(role)) is not None}

    def busy_with(self, role: str) -> str:
        """What a role says it is doing, for messages about waiting; empty if it says nothing."""
        status = self[role]
        if status is None:
            return f"the {role.replace('_', ' ')} is silent"
        if status.busy is not None:
            return f"the {role.replace('_', ' ')} is busy: {status.busy.what}"
        if status.status is ServiceState.ERROR:
            return f"the {role.replace('_', ' ')} reports: {status.message}"
        return ""

    def __str__(self) -> str:
        from bec_client.tables import as_text, service_table

        return as_text(service_table(self.get(), self.ends()))

    __repr__ = __str__
