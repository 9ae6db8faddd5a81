"""The device session: how does a wanted change become the session in force, on all device servers or on none?

Pure: a request gives a `Change`, replies move it on. PREPARING (every server builds beside what runs) -> COMMITTING
-> done, or back by a rollback if a server cannot. Devices that fail to build or connect are named and kept in the
session; the others load. What needs a device of another server is prepared in a later step than that, and is told
whether it failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from bec_lib.devices.config import DeviceConfig, build_order, config_hash, validate_devices
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
    """A change under way. session: what will be in force. steps: what is prepared, one after the other; all servers that
    are concerned are in the first. waiting: servers that owe a reply. patience_s: for each step, and for the commit.
    kept: devices that were to be built anew and stay as they were -> why. problem: why it was refused.
    """

    request_id: str
    client_id: str
    user: str
    session: DeviceSessionMessage
    steps: tuple[Mapping[str, PrepareSession], ...]
    patience_s: float
    step: int = 0
    stage: Stage = Stage.PREPARING
    waiting: frozenset[str] = frozenset()
    ready: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    code: ReasonCode = ReasonCode.CONFIG

    @property
    def servers(self) -> list[str]:
        """All that are concerned."""
        return list(self.steps[0])

    @property
    def prepare(self) -> dict[str, PrepareSession]:
        """For each server, what it has been told to prepare so far, as one."""
        found: dict[str, PrepareSession] = {}
        for number in range(self.step + 1):
            for server, action in _addressed(self, number).items():
                before = found.get(server)
                if before is None:
                    found[server] = action
                    continue
                found[server] = before.model_copy(
                    update={
                        "devices": {**before.devices, **action.devices},
                        "rebuild": [*before.rebuild, *action.rebuild],
                    }
                )
        return found

    @property
    def result(self) -> dict[str, Any]:
        return {
            "version": self.session.version,
            "loaded": sorted(name for name in self.session.devices if name not in self.session.failed),
            "failed": dict(self.session.failed),
            "kept": dict(self.kept),
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
        wanted, build, remove, rebuild = _wanted(request, old)
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
    is_whole = request.action in (ConfigAction.SET, ConfigAction.RESET) or (
        request.action is ConfigAction.RELOAD and not request.devices
    )
    if current is not None and not is_whole:
        build = _with_those_that_wait(build, devices, current.failed)
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
    steps = _steps(session, build, remove, rebuild, devices, old, servers, is_whole)
    longest = max((devices[name].connectionTimeout for name in build), default=0.0)
    in_a_row = max(_depths(build, devices, lambda name, other: 1).values(), default=0) + 1
    return Change(
        request.request_id,
        request.client_id,
        user,
        session,
        steps,
        patience_s=longest * in_a_row + PATIENCE_S,
        waiting=frozenset(steps[0]),
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

        def with_news(told: Mapping[str, str], what: str) -> dict[str, str]:
            """A server's reply is about all that it has prepared so far."""
            devices = change.session.devices
            others = {
                n: why for n, why in told.items() if n not in devices or _server_of(devices[n]) != server
            }
            return {**others, **result.get(what, {})}

        change = replace(
            change,
            ready=tuple(dict.fromkeys([*change.ready, *result.get("ready", [])])),
            failed=with_news(change.failed, "failed"),
            kept=with_news(change.kept, "kept"),
        )
        if not change.waiting and change.step + 1 < len(change.steps):
            return replace(change, step=change.step + 1, waiting=frozenset(change.steps[change.step + 1]))
        if not change.waiting:
            session = change.session.model_copy(update={"failed": {**change.session.failed, **change.failed}})
            return replace(change, session=session, stage=Stage.COMMITTING, waiting=frozenset(change.servers))
    elif change.stage is Stage.COMMITTING and not change.waiting:
        return replace(change, stage=Stage.DONE)
    return change


def was_lost(reply: DeviceInstructionResponse) -> bool:
    """Did a device server start anew meanwhile? Then it has the session in force, nothing is prepared, and it is to be
    asked again, from preparing on. One that was started before it was asked says that nothing is prepared.
    """
    if reply.error is None:
        return False
    return (reply.status, reply.error.code) in (
        (InstructionStatus.STOPPED, ReasonCode.SERVICE_DOWN),
        (InstructionStatus.ERROR, ReasonCode.WRONG_STATE),
    )


def refuse(change: Change, problem: str, code: ReasonCode = ReasonCode.CONFIG) -> Change:
    """Give the change up; the session in force stays."""
    return replace(change, stage=Stage.REFUSED, problem=problem, code=code)


def actions(change: Change) -> dict[str, SessionAction]:
    """What each server is to be told on entering the change's stage, or its next step of preparing."""
    match change.stage:
        case Stage.PREPARING:
            return dict(_addressed(change, change.step))
        case Stage.COMMITTING:
            return {server: CommitSession(version=change.session.version) for server in change.servers}
        case Stage.REFUSED:
            return {server: RollbackSession() for server in change.servers}
    return {}


def _addressed(change: Change, step: int) -> dict[str, PrepareSession]:
    """The actions of a step, with what has become of the devices of other servers that are needed."""
    failed = {**change.session.failed, **change.failed}
    found = {}
    for server, action in change.steps[step].items():
        needed = [
            other
            for raw in change.session.devices.values()
            if _server_of(raw) == server
            for other in raw.get("needs") or ()
            if _server_of(change.session.devices[other]) != server
        ]
        others = {other: failed.get(other, "") for other in needed}
        found[server] = action.model_copy(update={"others": others}) if others else action
    return found


def _wanted(
    request: DeviceConfigMessage, old: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], list[str], list[str], list[str]]:
    """All devices of the new session, the names to build, the names to drop, the names to build anew in any case."""
    given = request.devices
    match request.action:
        case ConfigAction.SET:
            return dict(given), list(given), [], list(given) if request.rebuild else []
        case ConfigAction.RESET:
            return {}, [], [], []
        case ConfigAction.RELOAD:
            names = list(given) or list(old)
            _must_be_known(names, old)
            return old, names, [], names
        case ConfigAction.ADD:
            there = [name for name in given if name in old]
            if there:
                raise ConfigError(
                    f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} in the session already; update or remove "
                    "before adding"
                )
            return {**old, **given}, list(given), [], []
        case ConfigAction.UPDATE:
            _must_be_known(given, old)
            return {**old, **{name: {**old[name], **new} for name, new in given.items()}}, list(given), [], []
        case ConfigAction.REMOVE:
            _must_be_known(given, old)
            return {name: raw for name, raw in old.items() if name not in given}, [], list(given), []


def _must_be_known(names: Any, old: Mapping[str, Any]) -> None:
    unknown = [name for name in names if name not in old]
    if unknown:
        raise ConfigError(
            " ".join(
                f"There is no device {name!r} in the session.{did_you_mean(name, old)}" for name in unknown
            )
        )


def _with_those_that_wait(
    build: Sequence[str], devices: Mapping[str, DeviceConfig], failed: Mapping[str, str]
) -> list[str]:
    """The names, and those that failed and need one of them: they may have failed for that."""
    found = list(build)
    for name in found:
        found += [n for n in failed if n in devices and n not in found and name in devices[n].needs]
    return found


def _steps(
    session: DeviceSessionMessage,
    build: Sequence[str],
    remove: Sequence[str],
    rebuild: Sequence[str],
    devices: Mapping[str, DeviceConfig],
    old: Mapping[str, Any],
    servers: Sequence[str],
    is_whole: bool,
) -> tuple[dict[str, PrepareSession], ...]:
    """What each server prepares, so that what a device needs of another server is prepared in an earlier step."""
    depths = _depths(
        build, devices, lambda name, other: int(devices[name].deviceServer != devices[other].deviceServer)
    )
    steps: list[dict[str, PrepareSession]] = [{} for _ in range(max(depths.values(), default=0) + 1)]
    for server in servers:
        mine = [name for name in build if devices[name].deviceServer == server]
        gone = [
            name
            for name in old
            if _server_of(old[name]) == server and (name in remove or (name in build and name not in mine))
        ]
        if not (is_whole or mine or gone):
            continue
        for number, step in enumerate(steps):
            now = [name for name in mine if depths[name] == number]
            if now or number == 0:
                step[server] = PrepareSession(
                    devices={name: session.devices[name] for name in now},
                    replace=is_whole,
                    remove=gone,
                    rebuild=[name for name in now if name in rebuild],
                    continues=number > 0,
                )
    return tuple(steps)


def _depths(
    names: Sequence[str], devices: Mapping[str, DeviceConfig], weight: Callable[[str, str], int]
) -> dict[str, int]:
    """For each name the heaviest way along what it needs, among these names. There are no circles in it."""
    found: dict[str, int] = {}
    for name in build_order(devices):
        if name in names:
            needed = [other for other in devices[name].needs if other in found]
            found[name] = max((found[other] + weight(name, other) for other in needed), default=0)
    return found


def _server_of(raw: Mapping[str, Any]) -> str:
    return str(raw.get("deviceServer", DeviceConfig.model_fields["deviceServer"].default))
