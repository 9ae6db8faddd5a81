"""The device session: how does a wanted change become the session in force, on all device servers or on none?

Pure: a request gives a `Change`, replies move it on. PREPARING (every server builds beside what runs) -> COMMITTING
-> done, or back by a rollback if a server cannot. Devices that fail to build or connect are named and kept in the
session; the others load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from bec_lib.devices.config import DeviceConfig, config_hash, validate_devices
from bec_lib.errors import ConfigError, ReasonCode
from bec_lib.messages import (
    CommitSession,
    ConfigAction,
    DeviceConfigMessage,
    DeviceInstructionResponse,
    DeviceSessionMessage,
    InstructionStatus,
    PrepareSession,
    RollbackSession,
)
from bec_lib.scans.signature import did_you_mean
from scan_server.guard import Rejected

# On top of the longest connection timeout: imports, construction, and a device server that is just starting.
PATIENCE_S = 60.0

SessionAction = PrepareSession | CommitSession | RollbackSession


class Stage(Enum):
    PREPARING = "preparing"
    COMMITTING = "committing"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True)
class Change:
    """A change under way. session: what will be in force. waiting: servers that owe a reply. patience_s: for each of
    the two steps. problem: why it was refused.
    """

    request_id: str
    client_id: str
    user: str
    session: DeviceSessionMessage
    prepare: Mapping[str, PrepareSession]
    patience_s: float
    stage: Stage = Stage.PREPARING
    waiting: frozenset[str] = frozenset()
    ready: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    code: ReasonCode = ReasonCode.CONFIG

    @property
    def result(self) -> dict[str, Any]:
        return {
            "version": self.session.version,
            "loaded": sorted(name for name in self.session.devices if name not in self.session.failed),
            "failed": dict(self.session.failed),
        }


def plan_change(
    request: DeviceConfigMessage,
    current: DeviceSessionMessage | None,
    servers: Sequence[str],
    *,
    user: str,
    now: float,
) -> Change | Rejected:
    """What a request would change, checked as a whole; or all its problems."""
    old = dict(current.devices) if current else {}
    try:
        wanted, build, remove = _wanted(request, old)
        devices = validate_devices(wanted, source="the device configuration")
    except ConfigError as error:
        return Rejected(ReasonCode.CONFIG, error.message)
    strangers = {
        name: device.deviceServer for name, device in devices.items() if device.deviceServer not in servers
    }
    if strangers:
        told = "; ".join(f"{name} wants {server!r}" for name, server in strangers.items())
        return Rejected(
            ReasonCode.CONFIG,
            f"no device server of that name is configured: {told}. There are: {', '.join(servers)} "
            "(`device_servers:` in the service configuration).",
        )
    is_whole = request.action in (ConfigAction.SET, ConfigAction.RESET, ConfigAction.RELOAD)
    failed = {} if is_whole or current is None else {n: w for n, w in current.failed.items() if n in devices}
    session = DeviceSessionMessage(
        version=(current.version if current else 0) + 1,
        devices={name: device.as_raw() for name, device in devices.items()},
        failed={name: why for name, why in failed.items() if name not in build},
        hash=config_hash(devices),
        source=request.source or (current.source if current and not is_whole else ""),
        user=user,
        timestamp=now,
    )
    prepare = _prepare(session, build, remove, old, servers, is_whole)
    longest = max((devices[name].connectionTimeout for name in build), default=0.0)
    return Change(
        request.request_id,
        request.client_id,
        user,
        session,
        prepare,
        patience_s=longest + PATIENCE_S,
        waiting=frozenset(prepare),
    )


def take_reply(change: Change, server: str, reply: DeviceInstructionResponse) -> Change:
    """The change after a server's reply to what it was last told. When nobody is waited for any more, `next_actions`
    says what follows.
    """
    if server not in change.waiting:
        return change
    change = replace(change, waiting=change.waiting - {server})
    if reply.status is not InstructionStatus.COMPLETED:
        why = reply.error.error_message if reply.error else f"it answered {reply.status}"
        return refuse(change, f"the device server {server} could not take the configuration: {why}")
    if change.stage is Stage.PREPARING:
        result = reply.result or {}
        change = replace(
            change,
            ready=(*change.ready, *result.get("ready", [])),
            failed={**change.failed, **result.get("failed", {})},
        )
        if not change.waiting:
            session = change.session.model_copy(update={"failed": {**change.session.failed, **change.failed}})
            return replace(change, session=session, stage=Stage.COMMITTING, waiting=frozenset(change.prepare))
    elif change.stage is Stage.COMMITTING and not change.waiting:
        return replace(change, stage=Stage.DONE)
    return change


def was_lost(reply: DeviceInstructionResponse) -> bool:
    """Did a device server start anew meanwhile? Then it has the session in force, nothing is prepared, and it is to be
    asked again, from preparing on.
    """
    return (
        reply.status is InstructionStatus.STOPPED
        and reply.error is not None
        and reply.error.code is ReasonCode.SERVICE_DOWN
    )


def refuse(change: Change, problem: str, code: ReasonCode = ReasonCode.CONFIG) -> Change:
    """Give the change up; the session in force stays."""
    return replace(change, stage=Stage.REFUSED, problem=problem, code=code)


def actions(change: Change) -> dict[str, SessionAction]:
    """What each server is to be told on entering the change's stage."""
    match change.stage:
        case Stage.PREPARING:
            return dict(change.prepare)
        case Stage.COMMITTING:
            return {server: CommitSession(version=change.session.version) for server in change.prepare}
        case Stage.REFUSED:
            return {server: RollbackSession() for server in change.prepare}
    return {}


def _wanted(
    request: DeviceConfigMessage, old: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """All devices of the new session, the names to build, the names to drop."""
    given = request.devices
    match request.action:
        case ConfigAction.SET:
            return dict(given), list(given), []
        case ConfigAction.RESET:
            return {}, [], []
        case ConfigAction.RELOAD:
            names = list(given) or list(old)
            _must_be_known(names, old)
            return old, list(old), []
        case ConfigAction.ADD:
            there = [name for name in given if name in old]
            if there:
                raise ConfigError(
                    f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} in the session already; update or remove "
                    "before adding"
                )
            return {**old, **given}, list(given), []
        case ConfigAction.UPDATE:
            _must_be_known(given, old)
            return {**old, **{name: {**old[name], **new} for name, new in given.items()}}, list(given), []
        case ConfigAction.REMOVE:
            _must_be_known(given, old)
            return {name: raw for name, raw in old.items() if name not in given}, [], list(given)


def _must_be_known(names: Any, old: Mapping[str, Any]) -> None:
    unknown = [name for name in names if name not in old]
    if unknown:
        raise ConfigError(
            " ".join(
                f"There is no device {name!r} in the session.{did_you_mean(name, old)}" for name in unknown
            )
        )


def _prepare(
    session: DeviceSessionMessage,
    build: Sequence[str],
    remove: Sequence[str],
    old: Mapping[str, Any],
    servers: Sequence[str],
    is_whole: bool,
) -> dict[str, PrepareSession]:
    def server_of(raw: Mapping[str, Any]) -> str:
        return str(raw.get("deviceServer", DeviceConfig.model_fields["deviceServer"].default))

    found = {}
    for server in servers:
        mine = {name: session.devices[name] for name in build if server_of(session.devices[name]) == server}
        gone = [
            name
            for name in old
            if server_of(old[name]) == server and (name in remove or (name in build and name not in mine))
        ]
        if is_whole or mine or gone:
            found[server] = PrepareSession(devices=mine, replace=is_whole, remove=gone)
    return found
