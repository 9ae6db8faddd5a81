"""What exactly will a request do? Request -> the scan and its plan.

The plan has all positions as one array, the limits of every point checked, who is read when, and an estimate. Touches
nothing: current positions and limits come in with the registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bec_lib.devices import InterruptPolicy
from bec_lib.devices.registry import DeviceRecord, Registry
from bec_lib.errors import BECError, ReasonCode
from bec_lib.messages import ReadoutGroups, ScanInfo, ScanQueueMessage, ScanStatusMessage
from bec_lib.scans import Exposure, Label, Scan, describe_scan
from bec_lib.scans.modifier import Hooks, Modification, hooks_of
from bec_lib.scans.signature import BoundCall, bind, devices_of_call
from scan_server.guard import Rejected, rejected

_MANY = 5  # of the points outside of a device's limits, so many are named
_POINT_OVERHEAD_S = 0.0003


@dataclass(frozen=True)
class ScanPlan:
    """All that is known of a scan before it runs.

    positions: (points, motors), absolute, device units, None if not known in advance. start: where the motors stand.
    owned: devices that are the scan's own while it runs. servers: device servers that have to do with it, in order;
    server_of: each device's. asks: devices on which nothing is repeated after a crash before somebody was asked
    (`onInterrupt: ask`). devices: records of the motors, for limits of targets found while it runs. labels: that the scan
    puts on its points.
    """

    motors: tuple[str, ...] = ()
    positions: np.ndarray | None = None
    shape: tuple[int, ...] = ()
    num_points: int | None = None
    relative: bool = False
    returns_to_start: bool = False
    start: Mapping[str, float] = field(default_factory=dict)
    groups: ReadoutGroups = field(default_factory=ReadoutGroups)
    triggered: tuple[str, ...] = ()
    owned: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    servers: tuple[str, ...] = ("main",)
    server_of: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, DeviceRecord] = field(default_factory=dict)
    exposure: Exposure = field(default_factory=Exposure)
    labels: Mapping[str, Label] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    estimated_s: float | None = None
    config_hash: str = ""
    session_version: int = 0


@dataclass(frozen=True)
class Assembled:
    """A scan that may run, and its plan. hooks: the modifiers that have steps for it; is_over: it is only to be ended,
    and of their steps those of the clean-up are made.
    """

    scan: Scan
    plan: ScanPlan
    hooks: Hooks | None = None
    is_over: bool = False


def devices_needed(info: ScanInfo, request: ScanQueueMessage) -> list[str]:
    """Devices whose limits and positions `assemble` wants to know."""
    return devices_of_call(info, request.args, request.kwargs)


def assemble(
    kind: type[Scan],
    request: ScanQueueMessage,
    devices: Registry,
    start: Mapping[str, float] | None = None,
    modification: Modification | None = None,
) -> Assembled | Rejected:
    """The scan and its plan, or why it cannot run. The request has passed the guard.

    start: where the motors stand, if it is known better than by the registry (a scan that is resumed).
    modification: what modifiers make of it.
    A scan whose code raises is rejected with what it raised.
    """
    info = describe_scan(kind) if modification is None else modification.info
    name = request.scan_type
    if modification is not None and modification.problem:
        return Rejected(ReasonCode.CONFIG, f"{name} cannot run: {modification.problem}.")
    call = bind(info, request.args, request.kwargs)
    if modification is not None:
        call = BoundCall(call.bundles, {**call.parameters, **modification.hidden})
    hooks: Hooks | None = None
    try:
        motors = kind(call).motors
        known = {motor: devices[motor].position for motor in motors} | dict(start or {})
        scan = kind(call, {motor: value for motor, value in known.items() if value is not None})
        problems = [
            (ReasonCode.NOT_ALLOWED, f"{problem}.")
            for motor in motors
            if (problem := devices[motor].move_problem())
        ]
        problems += [(ReasonCode.INVALID_ARGUMENT, problem) for problem in scan.problems()]
        problems += [
            (
                ReasonCode.CONFIG,
                f"{name} puts the label {label} on its points, and there is a device of that name; rename one of them.",
            )
            for label in scan.point_labels
            if label in devices
        ]
        if not problems and scan.is_relative:
            problems = [
                (
                    ReasonCode.WRONG_STATE,
                    f"{name} is relative, and where {motor} stands is not known yet; read it first, or give "
                    "absolute positions.",
                )
                for motor in motors
                if known[motor] is None
            ]
        if problems:
            return _must(rejected(name, problems))
        scan.fill_targets()
        reach = scan.targets
        if reach is None:
            reach = scan.reach()
            reach = None if reach is None else scan.absolute(reach)
        shape = tuple(scan.shape) + ((scan.burst,) if scan.burst > 1 and len(scan.shape) > 0 else ())
        num_points = scan.num_points
        exposure = scan.exposure
        hooks = hooks_of(modification, scan, frozenset(devices))
    except BECError as error:
        return Rejected(error.reason, f"{name}: {error.message}")
    except Exception as error:  # noqa: BLE001 - a user's class may raise anything; only its own request fails
        return Rejected(ReasonCode.INTERNAL, f"the scan {name} failed to work out its points: {_told(error)}")
    records = {motor: devices[motor] for motor in motors}
    if reach is not None:
        outside = limit_problems(records, motors, reach, numbered=scan.targets is not None)
        if outside:
            return _must(rejected(name, [(ReasonCode.LIMIT, problem) for problem in outside]))
    if not scan.is_scan:
        return Assembled(scan, _plan_of_move(scan, records, devices))
    # A device that a call names takes part in the scan, so it is read with it.
    named = [device for device in devices_needed(info, request) if device not in motors]
    groups = devices.readout_groups(motors, [*named, *request.monitored], request.on_request)
    if not groups.monitored and not groups.async_:
        return Rejected(
            ReasonCode.CONFIG,
            f"{name} would read nothing: no device is monitored. Load a configuration with monitored devices, or name "
            "some by monitored=[...].",
        )
    triggered = devices.triggered(groups)
    used = hooks.devices if hooks else []
    missing = _problems_of_hooks(name, hooks, devices)
    if missing:
        return _must(rejected(name, missing))
    involved = dict.fromkeys([*motors, *groups.monitored, *groups.async_, *groups.baseline, *used])
    server_of = {device: devices[device].server for device in involved}
    owned = tuple(dict.fromkeys([*motors, *groups.monitored, *groups.async_, *used]))
    return Assembled(
        scan,
        ScanPlan(
            motors=tuple(motors),
            positions=scan.targets,
            shape=shape,
            num_points=num_points,
            relative=scan.is_relative,
            returns_to_start=scan.returns_to_start,
            start=dict(scan.start_positions),
            groups=groups,
            triggered=tuple(triggered),
            owned=owned,
            asks=_that_ask(owned, devices),
            servers=tuple(dict.fromkeys(server_of.values())),
            server_of=server_of,
            devices=records | {device: devices[device] for device in used},
            exposure=exposure,
            labels=dict(scan.point_labels),
            parameters=call.parameters,
            estimated_s=_estimate(scan, num_points, exposure),
            config_hash=devices.hash,
            session_version=devices.version,
        ),
        hooks,
    )


def plan_on_record(
    intent: ScanStatusMessage, start: Mapping[str, float], owned: Sequence[str], devices: Registry
) -> ScanPlan:
    """As much of a scan's plan as is known without its code: enough to end it. intent: its `open`; start: where its
    motors stood. Devices that are not in the session any more are left out.
    """
    groups = intent.readout.model_copy(
        update={
            name: [device for device in getattr(intent.readout, name) if device in devices]
            for name in ("monitored", "baseline", "on_request", "async_")
        }
    )
    motors = tuple(name for name in intent.motors if name in devices)
    kept = tuple(name for name in owned if name in devices)
    involved = dict.fromkeys([*motors, *groups.monitored, *groups.async_, *groups.baseline, *kept])
    server_of = {name: devices[name].server for name in involved}
    return ScanPlan(
        motors=motors,
        shape=tuple(intent.shape),
        num_points=intent.num_points,
        relative=intent.relative,
        returns_to_start=intent.relative,
        start={name: start[name] for name in motors if name in start},
        groups=groups,
        triggered=tuple(devices.triggered(groups)),
        owned=kept,
        servers=tuple(dict.fromkeys(server_of.values())) or ("main",),
        server_of=server_of,
        devices={name: devices[name] for name in motors},
        parameters=intent.scan_parameters,
        estimated_s=intent.estimated_s,
        config_hash=intent.config_hash,
        session_version=devices.version,
    )


def _problems_of_hooks(name: str, hooks: Hooks | None, devices: Registry) -> list[tuple[ReasonCode, str]]:
    """Devices that modifiers use and cannot have."""
    found = []
    for modifier in hooks.modifiers if hooks else ():
        label = f"the modifier {type(modifier).__name__} of {name}"
        for device in modifier.devices:
            if device not in devices:
                problem = f"{label} needs the device {device}, which is not in the session; load it."
                found.append((ReasonCode.UNKNOWN_DEVICE, problem))
            elif problem := devices[device].problem():
                found.append((ReasonCode.DEVICE_DISABLED, f"{label} needs {device}: {problem}."))
    return found


def limit_problems(
    devices: Mapping[str, DeviceRecord],
    motors: Sequence[str],
    positions: np.ndarray,
    *,
    numbered: bool = True,
) -> list[str]:
    """One sentence for each motor that would leave its limits, with all that is outside. positions: (points, motors),
    absolute. numbered: the positions are the scan's points, told by number from 1, as in the table of a running scan.
    """
    found = []
    for column, motor in enumerate(motors):
        record = devices[motor]
        values = positions[:, column]
        if not np.isfinite(values).all():
            index = int(np.flatnonzero(~np.isfinite(values))[0])
            found.append(
                f"{motor} cannot move to {values[index]} (point {index + 1}): it is no finite number."
            )
            continue
        if record.limits is None:
            continue
        low, high = record.limits
        outside = np.flatnonzero((values < low) | (values > high))
        if not len(outside):
            continue
        unit = f" {record.unit}" if record.unit else ""
        named = [f"{values[index]:g}{unit}" for index in outside[:_MANY]]
        if numbered and len(positions) > 1:
            named = [f"{text} (point {index + 1})" for text, index in zip(named, outside, strict=False)]
        more = ""
        if len(outside) > _MANY:
            rest = values[outside[_MANY:]]
            more = f" and {len(outside) - _MANY} more points between {rest.min():g} and {rest.max():g}{unit}"
            if not numbered:
                more = more.replace(" more points", " more")
        found.append(
            f"{motor} cannot move to {', '.join(named)}{more}: its limits are {low:g} to {high:g}{unit}. "
            f"Choose positions within them, or change dev.{motor}.limits."
        )
    return found


def _that_ask(names: Sequence[str], devices: Registry) -> tuple[str, ...]:
    return tuple(name for name in names if devices[name].config.onInterrupt is InterruptPolicy.ASK)


def _plan_of_move(scan: Scan, records: Mapping[str, DeviceRecord], devices: Registry) -> ScanPlan:
    server_of = {name: record.server for name, record in records.items()}
    return ScanPlan(
        motors=tuple(records),
        positions=scan.targets,
        relative=scan.is_relative,
        start=dict(scan.start_positions),
        owned=tuple(records),
        asks=_that_ask(tuple(records), devices),
        servers=tuple(dict.fromkeys(server_of.values())),
        server_of=server_of,
        devices=records,
        session_version=devices.version,
    )


def _estimate(scan: Scan, num_points: int | None, exposure: Exposure) -> float | None:
    """Seconds for exposures and waiting; travel is not known here, so it is a lower bound."""
    if num_points is None:
        return None
    interval = float(getattr(scan, "interval", 0.0) or 0.0)
    return num_points * max(exposure.point_s + _POINT_OVERHEAD_S, interval)


def _must(refusal: Rejected | None) -> Rejected:
    assert refusal is not None
    return refusal


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
