"""What `bec-server status` shows, as plain values: process table, heartbeats and Redis in one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bec_lib.broker import Broker
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BrokerError
from bec_lib.messages import StatusMessage
from deploy.child import Child, ChildState


def heartbeats_of(broker: Broker, roles: Iterable[str]) -> dict[str, StatusMessage]:
    """The heartbeats that are there. Raises BECError if Redis does not answer."""
    found = broker.get_many(MessageEndpoints.service_status(role) for role in roles)
    return {item.message.name: item.message for item in found if item is not None}


def describe(role: str, child: Child | None, heard: StatusMessage | None, host: str) -> dict[str, Any]:
    """One service. child: None if this host does not run it; heard: None if it sends no heartbeat.

    state: as the heartbeat says, or SILENT (there is a process, and no heartbeat), DOWN (it is about to be started
    again), STOPPED, down (not run by this host, and nobody sends a heartbeat).
    """
    row: dict[str, Any] = {
        "service": role,
        "state": "down",
        "pid": None,
        "host": "",
        "since": None,
        "message": "",
        "busy": None,
        "restarts": child.restarts if child else 0,
        "reason": child.reason if child else "",
        "here": child is not None,
    }
    if heard is not None:
        row |= {"state": heard.status.value, "pid": heard.pid, "host": heard.host, "since": heard.started}
        row |= {"message": heard.message, "busy": heard.busy.model_dump() if heard.busy else None}
    if child is None:
        return row
    if child.pid:
        if heard is not None and heard.pid == child.pid and heard.host == host:
            return row
        if heard is not None and heard.host != host:
            # Another instance has the role; ours waits for it.
            row["message"] = f"runs on {heard.host}; this host stands by"
            return row
        # No heartbeat, or one of its predecessor.
        row |= {"pid": child.pid, "host": host, "since": child.since, "message": "", "busy": None}
        row["state"] = "SILENT" if child.status is not None else "STARTING"
    elif heard is None or heard.host == host:
        row |= {"pid": None, "since": None, "message": "", "busy": None}
        row["state"] = "STOPPED" if child.state is ChildState.STOPPED else "DOWN"
    return row


def redis_facts(broker: Broker) -> dict[str, Any]:
    """Version, persistence and memory of the server. Raises BrokerError if it does not answer."""
    try:
        info: Any = broker.redis.info()
    except Exception as error:
        raise BrokerError(f"Redis at {broker.settings.address()} does not answer: {error}") from error
    try:
        settings: Any = broker.redis.config_get("appendfsync")
    except Exception:  # noqa: BLE001 - a server may refuse to tell its settings
        settings = {}
    return {
        "version": str(info.get("redis_version", "")),
        "memory_bytes": int(info.get("used_memory", 0)),
        "memory_limit_bytes": int(info.get("maxmemory", 0)),
        "append_only": bool(info.get("aof_enabled", 0)),
        "appendfsync": str(settings.get("appendfsync", "")),
        "clients": int(info.get("connected_clients", 0)),
    }
