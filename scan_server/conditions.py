"""Interlocks and beamline states, wired: read-backs and requests in; definitions, states, holds and alarms out.

What follows from what is in `interlocks` and `states`. Everything here belongs to the scan server's main thread; the watcher
of the read-backs only posts into its inbox.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import cast

from bec_lib.broker import Batch, Delivery, LatestWatcher
from bec_lib.conditions import STATES, Condition, candidates, device_of
from bec_lib.devices.registry import Registry
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import BECError, MessageError, ParameterError, ReasonCode
from bec_lib.messages import (
    AlarmMessage,
    BeamlineStateMessage,
    BeamlineStateRequestMessage,
    BeamlineStatus,
    ControlKind,
    DeviceControlMessage,
    DeviceMessage,
    ErrorInfo,
    InterlockConfig,
    InterlockPhase,
    InterlockRequestMessage,
    InterlocksMessage,
    InterlockStatusMessage,
    InterlockTripMessage,
    Severity,
)
from bec_lib.scans.signature import did_you_mean
from bec_lib.service import Service, ThreadedInbox
from scan_server.interlocks import STALE_S, Hold, Interlocks, Transition
from scan_server.reload import StatePlugins, load_states
from scan_server.states import BeamlineStates

log = logging.getLogger(__name__)

Request = InterlockRequestMessage | BeamlineStateRequestMessage
# An interlock that trips again and again is told of this often at most.
ALARM_S = 10.0
FROM_CONFIG = "service configuration"


class Refused(BECError):
    """A request that cannot be carried out."""


class Conditions:
    """registry: the devices of the session in force. states: the kinds there are; None: those of this environment."""

    def __init__(
        self, service: Service, registry: Callable[[], Registry], states: StatePlugins | None = None
    ):
        self._service = service
        self._broker = service.broker
        self._clock = service.clock
        self._registry = registry
        self._interlocks = Interlocks(self._unit)
        found = states or load_states()
        self._states = BeamlineStates(found.kinds, self._interlocks.readings, found.failed)
        self._watcher: LatestWatcher | None = None
        self._watched: dict[str, Endpoint] = {}
        self._alarmed: dict[str, float] = {}
        self._definitions = InterlocksMessage()
        self._status = InterlockStatusMessage()
        self._changed_states: list[BeamlineStateMessage] = []
        self._states_told = False
        self._transitions: list[Transition] = []
        self._removed: list[str] = []
        self._user = ""
        # Whether there may be something to write.
        self._touched = True

    # The frame

    def start(self) -> None:
        """Take up what is defined, in the service configuration and by clients, and what was tripped."""
        for plugin, why in self._states.message().failed.items():
            self._service.alarm(Severity.WARNING, f"The beamline state plugin {plugin} cannot be used: {why}")
        before: dict[str, InterlockConfig] = {}
        status = InterlockStatusMessage()
        now, tick = self._now()
        try:
            for item in self._broker.entries(MessageEndpoints.interlocks, count=1, newest=True):
                if isinstance(item, Delivery):
                    self._definitions = item.message
                    before = dict(item.message.interlocks)
            found = self._broker.get(MessageEndpoints.interlock_status)
            status = found.message if found else status
            known = self._broker.get(MessageEndpoints.beamline_states)
            for state in known.message.states.values() if known else ():
                self._restore_state(state, now)
        except MessageError as error:
            log.error("what is known of interlocks in Redis cannot be read: %s", error)
        self._status = status
        configured = {config.name: config for config in self._service.config.interlocks}
        for name, config in before.items():
            if name not in configured and config.source != FROM_CONFIG:
                self._define(config, now, tick, status)
        for name, config in configured.items():
            enabled = before[name].enabled if name in before else config.enabled
            made = InterlockConfig(**{**config.model_dump(), "enabled": enabled, "source": FROM_CONFIG})
            self._define(made, now, tick, status)
        self._follow_devices()
        cursors = self._service.cursors()
        trips = MessageEndpoints.interlock_trips
        self._service.inbox.follow(trips, cursors.get(trips.key) or self._broker.last_id(trips))
        self._judge(None)

    def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()

    def deadline(self) -> float | None:
        return self._interlocks.due()

    def on_deadline(self) -> None:
        due = self._interlocks.due()
        if due is not None and self._clock.monotonic() >= due:
            self._judge(None)

    @property
    def holds(self) -> tuple[Hold, ...]:
        return self._interlocks.holds()

    # What comes

    def read_back(self, item: Delivery) -> None:
        """A device's read-back. One that was published long ago says nothing of now: nobody looked at the device."""
        device = item.endpoint.key.rsplit("/", 1)[-1]
        message: DeviceMessage = item.message
        if device not in self._watched or self._broker.now() - item.envelope.sent > STALE_S:
            return
        self._interlocks.take(device, message.signals, self._clock.monotonic())
        self._judge([device])

    def tripped(self, trip: InterlockTripMessage) -> None:
        now, tick = self._now()
        self._transitions += self._interlocks.trip(trip, now, tick)
        self._judge([*trip.readings])

    def session_changed(self) -> None:
        """Other devices are in force: names may mean something else."""
        for device in list(self._watched):
            if device not in self._registry():
                self._interlocks.forget(device)
        self._follow_devices()
        self._judge(None)

    def request(self, message: Request, user: str) -> tuple[str, object]:
        """Carry a client's request out: what it is told, and the result. Raises BECError with why not."""
        self._user = user
        if isinstance(message, BeamlineStateRequestMessage):
            return self._change_state(message)
        return self._change_interlock(message)

    # Requests

    def _change_interlock(self, message: InterlockRequestMessage) -> tuple[str, object]:
        now, tick = self._now()
        known = self._interlocks.definitions
        if message.action == "add":
            config = message.interlock
            if config is None:
                raise ParameterError("add needs an interlock")
            if config.name in known and known[config.name].source == FROM_CONFIG:
                raise Refused(
                    f"the interlock {config.name} is defined in the service configuration; change it there, or disable it",
                    code=ReasonCode.NOT_ALLOWED,
                )
            config = config.model_copy(update={"source": user_source(self._user)})
            self._check_names(Condition(config).names)
            self._interlocks.define(config, now, tick)
            self._follow_devices()
            self._take_fresh()
            self._judge(None)
            told = f"the interlock {config.name} is {'armed' if config.enabled else 'defined and disabled'}"
            return told, {"interlock": config.name}
        names = message.names or list(known)
        unknown = [name for name in names if name not in known]
        if unknown:
            hints = did_you_mean(unknown[0], known)
            raise Refused(
                f"there is no interlock {', '.join(map(repr, unknown))}.{hints} There are: {', '.join(known) or 'none'}.",
                code=ReasonCode.NOT_FOUND,
            )
        for name in names:
            if message.action == "remove":
                if known[name].source == FROM_CONFIG:
                    if not message.names:
                        continue
                    raise Refused(
                        f"the interlock {name} is defined in the service configuration, so it can be disabled, not removed",
                        code=ReasonCode.NOT_ALLOWED,
                    )
                self._interlocks.remove(name)
                self._removed.append(name)
            elif known[name].enabled != (message.action == "enable"):
                changed = known[name].model_copy(update={"enabled": message.action == "enable"})
                self._interlocks.define(changed, now, tick)
                if not changed.enabled:
                    self._removed.append(name)
        self._follow_devices()
        self._take_fresh()
        self._judge(None)
        done = {"remove": "removed", "enable": "enabled", "disable": "disabled"}[message.action]
        shown = ", ".join(names) or "nothing"
        return f"{shown} {done}", {"interlocks": names}

    def _change_state(self, message: BeamlineStateRequestMessage) -> tuple[str, object]:
        now, _ = self._now()
        name = message.name
        self._states_told = False
        if message.action == "remove":
            used = [
                interlock
                for interlock, config in self._interlocks.definitions.items()
                if f"{STATES}.{name}" in Condition(config).names
            ]
            if used:
                raise Refused(
                    f"the beamline state {name} is watched by the interlock {', '.join(used)}; change that first",
                    code=ReasonCode.WRONG_STATE,
                )
            self._states.remove(name)
            self._follow_devices()
            self._judge(None)
            return f"the beamline state {name} is removed", None
        if message.action == "update":
            config = self._states.updated(name, message.config)
        else:
            config = self._states.config_of(message.kind, {**message.config, "name": name})
        self._check_names(config.names())
        self._changed_states.append(self._states.define(config, now))
        self._follow_devices()
        self._take_fresh()
        self._judge(None)
        return f"the beamline state {name} is defined", {"state": name}

    def _check_names(self, names: Iterable[str]) -> None:
        """Raises if a name stands for no signal of a device of the session. All problems at once."""
        problems: list[tuple[ReasonCode, str]] = []
        registry = self._registry()
        for name in names:
            device, _, rest = name.partition(".")
            if device == STATES:
                if rest not in self._states:
                    problems.append((ReasonCode.NOT_FOUND, f"there is no beamline state {rest!r}"))
                continue
            if device not in registry:
                hint = did_you_mean(device, registry)
                problems.append(
                    (ReasonCode.UNKNOWN_DEVICE, f"there is no device {device!r} in the session.{hint}")
                )
                continue
            problem = registry[device].problem()
            if problem:
                problems.append((ReasonCode.DEVICE_DISABLED, problem))
                continue
            try:
                found = self._broker.get(MessageEndpoints.device_readback(device))
            except MessageError:
                found = None
            signals = list(found.message.signals) if found else []
            if rest and signals and not set(candidates(name, registry[device].info)[1:]) & set(signals):
                hint = did_you_mean(rest, signals)
                problems.append(
                    (
                        ReasonCode.INVALID_ARGUMENT,
                        f"{device} has no signal {rest!r} in its readings.{hint} There are: {', '.join(signals)}.",
                    )
                )
        if problems:
            raise Refused("\n".join(text for _, text in problems), code=problems[0][0])

    def use(self, states: StatePlugins) -> None:
        """Beamline states of other kinds, or with other code, from now on."""
        self._states.use(states.kinds, states.failed, self._now()[0])
        self._states_told = False
        self._touched = True
        self._follow_devices()
        self._take_fresh()
        self._judge(None)

    # Devices

    def _follow_devices(self) -> None:
        """Watch the read-backs of the devices that are looked at, and tell the device servers which these are."""
        registry = self._registry()
        wanted = sorted((self._interlocks.devices | self._states.devices) - {STATES})
        endpoints = {}
        for device in wanted:
            try:
                endpoints[device] = MessageEndpoints.device_readback(device)
            except ValueError:
                continue
        self._interlocks.mean(
            {device: registry[device].info if device in registry else None for device in wanted},
            self._states.names,
        )
        new = {device: endpoint for device, endpoint in endpoints.items() if device not in self._watched}
        old = {device: endpoint for device, endpoint in self._watched.items() if device not in endpoints}
        self._watched = endpoints
        for device in old:
            self._interlocks.forget(device)
        if new and self._watcher is None:
            inbox = cast(ThreadedInbox, self._service.inbox)
            self._watcher = LatestWatcher(self._broker, inbox.post_many, name="read-backs")
        if self._watcher is not None:
            self._watcher.unwatch(old.values())
            self._watcher.watch(new.values())

    def _take_fresh(self) -> None:
        """What has been published just now is known at once, not only when it comes."""
        try:
            for item in self._broker.get_many(list(self._watched.values())):
                if isinstance(item, Delivery) and self._broker.now() - item.envelope.sent <= STALE_S:
                    device = item.endpoint.key.rsplit("/", 1)[-1]
                    self._interlocks.take(device, item.message.signals, self._clock.monotonic())
        except MessageError as error:
            log.error("read-backs cannot be read: %s", error)

    def _unit(self, name: str) -> str:
        registry = self._registry()
        device = device_of(name)
        info = registry[device].info if device in registry else None
        if info is None:
            return ""
        wanted = candidates(name, info)[1:]
        main = info.unit if name in (device, f"{device}.{device}") else ""
        return next((signal.unit for signal in info.signals if signal.obj_name in wanted), "") or main

    # What follows

    def _judge(self, devices: Iterable[str] | None) -> None:
        self._touched = True
        now, tick = self._now()
        wanted = None if devices is None else list(devices)
        # Before the states: it notes what has become too old.
        self._transitions += self._interlocks.judge(now, tick, wanted)
        changed = self._states.judge(now, wanted)
        self._changed_states += changed
        if changed or devices is None:
            self._interlocks.take(STATES, self._states.reading(), tick)
            self._transitions += self._interlocks.judge(now, tick, [STATES])

    def write(self, batch: Batch) -> None:
        """What has changed since the last time."""
        if not self._touched:
            return
        self._touched = False
        transitions, self._transitions = self._transitions, []
        removed, self._removed = self._removed, []
        for transition in transitions:
            self._tell(transition, batch)
        for name in removed:
            batch.append(
                MessageEndpoints.device_control,
                DeviceControlMessage(
                    kind=ControlKind.RELEASE, interlock=name, trips=self._interlocks.serials(name)
                ),
            )
        definitions = InterlocksMessage(
            interlocks=self._interlocks.definitions,
            watched=list(self._watched),
            signals={name: list(m) for name, m in self._interlocks.readings.meanings.items()},
            states=self._states.definitions(self._interlocks.names),
            user=self._definitions.user,
        )
        if definitions != self._definitions:
            self._definitions = definitions.model_copy(update={"user": self._user})
            batch.append(MessageEndpoints.interlocks, self._definitions)
        status = self._interlocks.status()
        if status != self._status:
            self._status = status
            batch.put(MessageEndpoints.interlock_status, status)
        changed, self._changed_states = self._changed_states, []
        for state in changed:
            batch.append(MessageEndpoints.beamline_state_events, state)
        if changed or not self._states_told:
            self._states_told = True
            batch.put(MessageEndpoints.beamline_states, self._states.message())

    def _tell(self, transition: Transition, batch: Batch) -> None:
        config, after = transition.interlock, transition.after
        log.info("interlock %s: %s -> %s %s", config.name, transition.before, after, transition.why)
        if config.holds and after in (InterlockPhase.TRIPPED, InterlockPhase.CLEAR):
            batch.append(
                MessageEndpoints.device_control,
                DeviceControlMessage(
                    kind=ControlKind.RELEASE if after is InterlockPhase.CLEAR else ControlKind.HOLD,
                    interlock=config.name,
                    trips=self._interlocks.serials(config.name),
                ),
            )
        now, tick = self._now()
        if after is InterlockPhase.TRIPPED and tick - self._alarmed.get(config.name, -ALARM_S) >= ALARM_S:
            self._alarmed[config.name] = tick
            batch.append(
                MessageEndpoints.alarm,
                AlarmMessage(
                    # What holds is seen where it holds; what only tells has to be told.
                    severity=Severity.MINOR if config.holds else Severity.MAJOR,
                    info=ErrorInfo(error_message=f"interlock {config.name} has tripped: {transition.why}"),
                    source=self._service.name,
                    timestamp=now,
                ),
            )

    def _define(
        self, config: InterlockConfig, now: float, tick: float, status: InterlockStatusMessage
    ) -> None:
        try:
            self._interlocks.define(config, now, tick, status.interlocks.get(config.name))
        except ParameterError as error:
            self._service.alarm(
                Severity.MAJOR, f"The interlock {config.name} cannot be used: {error.message}"
            )

    def _restore_state(self, state: BeamlineStateMessage, now: float) -> None:
        try:
            self._states.define(self._states.config_of(state.kind, state.config), now)
        except ParameterError as error:
            self._service.alarm(
                Severity.MAJOR, f"The beamline state {state.name} cannot be used: {error.message}"
            )
            self._states.keep(
                state.model_copy(update={"status": BeamlineStatus.UNKNOWN, "label": error.message})
            )

    def _now(self) -> tuple[float, float]:
        return self._clock.now(), self._clock.monotonic()


def user_source(user: str) -> str:
    return user or "a client"
