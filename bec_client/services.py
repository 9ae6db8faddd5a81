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
EXPIRES_S = 1.5  # a heartbeat
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
        """Role -> its latest heartbeat, with times by this host's clock; None for a role that is silent."""
        found = self._broker.get_many(MessageEndpoints.service_status(role) for role in self.roles)
        ahead = time.time() - self._broker.now()
        return {
            role: _by_our_clock(item.message, ahead) if item else None
            for role, item in zip(self.roles, found, strict=True)
        }

    def __getitem__(self, role: str) -> StatusMessage | None:
        item = self._broker.get(MessageEndpoints.service_status(role))
        return item.message if item else None

    @property
    def all_running(self) -> bool:
        return not self.missing(self.roles)

    def seen(self, role: str) -> None:
        """Note that a role has just answered."""
        self._seen[role] = time.monotonic()

    def missing(self, roles: Iterable[str], *, quickly: bool = False) -> list[str]:
        """Those of the roles that are silent. quickly: raises BrokerError if Redis does not answer at once."""
        now = time.monotonic()
        wanted = [role for role in roles if now - self._seen.get(role, 0.0) > FRESH_S]
        if not wanted:
            return []
        found = self._broker.get_many(
            [MessageEndpoints.service_status(role) for role in wanted], quickly=quickly
        )
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
        names = " and ".join(_spoken(role) for role in roles)
        ends = [f"{role} {why}" for role in roles if (why := self._why_silent(role))]
        why = f" ({'; '.join(ends)})" if ends else ""
        return (
            f"{what} needs the {names}, which is not running for deployment "
            f"{self._broker.deployment!r}{why}. See `bec status`, and start it with `bec-server start`."
        )

    def events(self, role: str) -> list[SupervisorMessage]:
        """What the supervisor has lately seen of a role, and of itself, oldest first."""
        return [item.message for item in self._deliveries(role)]

    def _deliveries(self, role: str) -> list[Delivery]:
        found = self._broker.entries(MessageEndpoints.supervisor_events, count=100, newest=True)
        return [
            item
            for item in found
            if isinstance(item, Delivery) and item.message.service in (role, SUPERVISOR)
        ]

    def _is_coming_back(self, role: str) -> bool:
        seen = self._deliveries(role)
        return (
            bool(seen)
            and seen[-1].message.service == role
            and seen[-1].message.event in ("started", "ended", "restarted")
            and self._broker.now() - _written(seen[-1]) < 2 * RESTART_S
        )

    def _why_silent(self, role: str) -> str:
        """What is known of a silent role: why it ended, if the supervisor saw that, else since when it is not heard,
        where it ran, and what it was doing. Empty if nothing is known.
        """
        heard = self._broker.get(MessageEndpoints.service_last_heard(role))
        seen = [item for item in self._deliveries(role) if item.message.service == role]
        ends = [item for item in seen if item.message.event == "ended"]
        # An end before its last heartbeat is not this one.
        is_this = bool(ends) and (heard is None or _written(ends[-1]) > heard.envelope.sent - EXPIRES_S)
        if is_this and ends[-1].message.reason:
            return f"ended: {ends[-1].message.reason}"
        if heard is None:
            return ""
        status: StatusMessage = heard.message
        was = status.busy.what if status.busy is not None else status.message
        silent_s = max(0.0, self._broker.now() - heard.envelope.sent)
        for_s = f"{silent_s:.1f} s" if silent_s < 60 else f"{silent_s / 60:.0f} min"
        silences = [
            item.message.reason
            for item in seen
            if item.message.event == "silent" and item.message.pid == status.pid
        ]
        # Whose code it is in the supervisor can tell, as it says nothing itself.
        _, is_known, whose = (silences[-1] if silences else "").partition(" (it is in the code of ")
        code = f"; it is in the code of {whose.removesuffix(')')}" if is_known else ""
        return f"not heard for {for_s}; it ran on {status.host} as process {status.pid}{' and was ' if was else ''}{was}{code}"

    def ends(self) -> dict[str, str]:
        """Role -> what is known of why it is silent, for those that are."""
        silent = [role for role, status in self.get().items() if status is None]
        return {role: why for role in silent if (why := self._why_silent(role))}

    def busy_with(self, role: str) -> str:
        """What a role says it is doing, for messages about waiting; empty if it says nothing."""
        item = self._broker.get_many([MessageEndpoints.service_status(role)], quickly=True)[0]
        status: StatusMessage | None = item.message if item else None
        if status is None:
            why = self._why_silent(role)
            return f"the {role.replace('_', ' ')} is silent{f' ({why})' if why else ''}"
        if status.busy is not None:
            return f"the {role.replace('_', ' ')} is busy: {status.busy.what}"
        if status.status is ServiceState.ERROR:
            return f"the {role.replace('_', ' ')} reports: {status.message}"
        return ""

    def __str__(self) -> str:
        from bec_client.tables import as_text, service_table

        return as_text(service_table(self.get(), self.ends()))

    __repr__ = __str__


def _written(item: Delivery) -> float:
    """When an entry came to its stream, seconds UTC by the server's clock."""
    return int(item.entry_id.partition("-")[0]) / 1000


def _by_our_clock(status: StatusMessage, ahead_s: float) -> StatusMessage:
    busy = status.busy
    if busy is not None:
        busy = busy.model_copy(update={"since": busy.since + ahead_s, "until": busy.until + ahead_s})
    return status.model_copy(update={"started": status.started + ahead_s, "busy": busy})


def _spoken(role: str) -> str:
    """A role as it is said: `device_server.optics` is the device server 'optics'."""
    kind, _, name = role.partition(".")
    return kind.replace("_", " ") + (f" {name!r}" if name else "")
