"""May points be taken, and was the one in hand spoilt? The interlocks as a device server sees them at its own devices.

A trip latches until the scan server releases it; why, and what that guarantees, is in docs/decisions/0300-interlocks.md.
Values come from devices' own threads, so everything here is replaced whole and only looked at by others: `mark` is a new
object whenever a latch came or went or the interlocks changed, so that a point that compares it knows whether to look.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bec_lib.conditions import STATES, Condition, Readings, device_of
from bec_lib.errors import ParameterError
from bec_lib.expressions import plain_value
from bec_lib.messages import (
    BeamlineStatus,
    ControlKind,
    DeviceControlMessage,
    InterlockAction,
    InterlockConfig,
    InterlockPhase,
    InterlocksMessage,
    InterlockStatusMessage,
    InterlockTripMessage,
)
from bec_lib.state_kinds import state_kinds
from bec_lib.states import BeamlineStateConfig

log = logging.getLogger(__name__)

# A verdict on what only the scan server can see takes this long at most: a read-back is published every 0.1 s.
REMOTE_S = 0.25
# A latch that was not released for so long is told again, so that no lost message holds a beamline for ever.
AGAIN_S = 5.0


@dataclass(frozen=True)
class Latch:
    """An interlock that holds here. serial: 0 if the scan server has tripped it."""

    config: InterlockConfig
    serial: int
    since: float


@dataclass(frozen=True)
class Watch:
    """What a scan of some queue has to do at each of its points: nothing, if it is falsy.

    devices: to be read at the end of a point. wait_s: before a point may be committed.
    """

    devices: tuple[str, ...] = ()
    wait_s: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.devices) or self.wait_s > 0


NOTHING = Watch()


@dataclass(frozen=True)
class _Guard:
    """devices: in the condition itself, and in the beamline states in it."""

    condition: Condition
    is_local: bool
    devices: frozenset[str]

    @property
    def config(self) -> InterlockConfig:
        return self.condition.config


@dataclass(frozen=True)
class Tripped:
    """Posted: an interlock has tripped here; the scan server is to be told."""

    trip: InterlockTripMessage


class Guards:
    """server: the name of this device server. holds: whether it has a device of this name. post: hands something to the
    main thread. wake: lets tasks that wait look again.
    """

    def __init__(
        self,
        server: str,
        has: Callable[[str], bool],
        post: Callable[[Any], None],
        wake: Callable[[], None],
        now: Callable[[], float],
    ):
        self._server = server
        self._has = has
        self._post = post
        self._wake = wake
        self._now = now
        self.mark: object = object()
        self.readings = Readings()
        self.watched: tuple[str, ...] = ()
        self._guards: tuple[_Guard, ...] = ()
        self._kinds: Mapping[str, type[BeamlineStateConfig]] | None = None
        self._by_device: Mapping[str, Sequence[_Guard]] = {}
        self._latched: dict[str, Latch] = {}
        self._told_again: dict[str, float] = {}
        # queue -> the last trip that spoils its points; "" for all queues.
        self._spoilt: Mapping[str, object] = {}
        # From the clock, so that the numbers of an earlier process are all lower.
        self._serials = itertools.count(int(now() * 1000))

    # By the main thread

    def define(self, message: InterlocksMessage, status: InterlockStatusMessage | None = None) -> None:
        """These are the interlocks from now on. status: what the scan server says of them, at the start of this process:
        those that are tripped hold here, too.
        """
        guards = []
        states = self._states(message)
        for config in message.interlocks.values():
            if not config.enabled or not config.holds:
                continue
            try:
                condition = Condition(config)
            except ParameterError as error:
                log.error("the interlock %s is passed over: %s", config.name, error)
                continue
            devices = set(condition.devices) - {STATES}
            for name in condition.names:
                device, _, state = name.partition(".")
                if device == STATES:
                    known = states.get(state)
                    devices |= {device_of(n) for n in known.names()} if known is not None else {STATES}
            is_local = all(self._has(device) for device in devices)
            guards.append(_Guard(condition, is_local, frozenset(devices)))
        self.readings.computed = {name: functools.partial(_status, state) for name, state in states.items()}
        self.readings.meanings = {name: list(meaning) for name, meaning in message.signals.items()}
        self.watched = tuple(message.watched)
        by_device: dict[str, list[_Guard]] = {}
        for guard in guards:
            if guard.is_local:
                for device in guard.devices:
                    by_device.setdefault(device, []).append(guard)
        self._guards, self._by_device = tuple(guards), by_device
        names = {guard.config.name for guard in guards}
        for name in list(self._latched):
            if name not in names:
                self._latched.pop(name, None)
        for guard in guards:
            if status is not None and guard.config.name in status.interlocks:
                phase = status.interlocks[guard.config.name].phase
                if phase in (InterlockPhase.TRIPPED, InterlockPhase.SETTLING, InterlockPhase.WAITING):
                    self._latch(guard.config, 0)
            # What has no reading yet is waited for by the scan server, too.
            if guard.is_local and guard.devices <= set(self.readings.devices):
                self._judge(guard)
        self._look_again()

    @property
    def is_armed(self) -> bool:
        return bool(self._guards)

    def overdue(self) -> list[InterlockTripMessage]:
        """What is to be said again: latches that were not released for a while."""
        now = self._now()
        found = []
        for name, latch in list(self._latched.items()):
            if now - max(latch.since, self._told_again.get(name, 0.0)) >= AGAIN_S:
                self._told_again[name] = now
                found.append(
                    InterlockTripMessage(
                        interlock=name,
                        server=self._server,
                        serial=latch.serial,
                        since=now,
                        why="still held by its device server",
                    )
                )
        return found

    def _states(self, message: InterlocksMessage) -> dict[str, BeamlineStateConfig]:
        """The beamline states in conditions that can be worked out here."""
        if not message.states:
            return {}
        if self._kinds is None:
            self._kinds, _ = state_kinds()
        found = {}
        for name, raw in message.states.items():
            kind = self._kinds.get(raw["kind"])
            try:
                if kind is not None:
                    found[name] = kind.model_validate(raw["config"])
            except ValidationError as error:
                log.error("the beamline state %s cannot be worked out here: %s", name, error)
        return found

    # By whoever has a new value

    def changed(self, device: str, reading: Mapping[str, Mapping[str, Any]]) -> None:
        """A device has new values. From any thread; costs one look-up if no interlock looks at the device."""
        guards = self._by_device.get(device)
        if guards is None:
            return
        self.readings.take(device, reading)
        for guard in guards:
            self._judge(guard)

    def failed(self, device: str, why: str) -> None:
        """A device cannot be read."""
        guards = self._by_device.get(device)
        if guards is None:
            return
        self.readings.lose(device, why)
        for guard in guards:
            self._judge(guard)

    # By the control thread

    def obey(self, message: DeviceControlMessage) -> None:
        """The scan server holds or releases an interlock. A release does not concern trips that it does not know of, nor
        an interlock that is tripped by what is known here.
        """
        config = next((g.config for g in self._guards if g.config.name == message.interlock), None)
        latch = self._latched.get(message.interlock)
        if message.kind is ControlKind.HOLD:
            if config is not None and latch is None:
                self._latch(config, 0)
            return
        if latch is not None and latch.serial <= message.trips.get(self._server, 0):
            self._latched.pop(message.interlock, None)
            # Only now: a value that came in between is seen here.
            for guard in self._guards:
                if guard.is_local and guard.config.name == message.interlock:
                    self._judge(guard)
            self._look_again()

    # By the points

    def watch(self, queue: str) -> Watch:
        """What a scan of this queue has to do."""
        guards = [guard for guard in self._guards if guard.config.applies_to(queue)]
        if not guards:
            return NOTHING
        devices = dict.fromkeys(d for g in guards if g.is_local for d in sorted(g.devices))
        is_remote = any(not g.is_local and g.config.action is InterlockAction.REPEAT for g in guards)
        return Watch(tuple(devices), REMOTE_S if is_remote else 0.0)

    def holds(self, queue: str) -> bool:
        """Whether points of this queue are held now."""
        return bool(self._latched) and any(
            latch.config.applies_to(queue) for latch in list(self._latched.values())
        )

    def last_trip(self, queue: str) -> object:
        """The last trip that spoils points of this queue: another object after each."""
        last = self._spoilt
        return (last.get(""), last.get(queue)) if last else None

    # Inside

    def _judge(self, guard: _Guard) -> None:
        if guard.config.name in self._latched or not guard.condition.is_tripped(self.readings):
            return
        verdict = guard.condition.judge(self.readings)
        serial = next(self._serials)
        self._latch(guard.config, serial)
        now = self._now()
        devices = guard.devices
        self._post(
            Tripped(
                InterlockTripMessage(
                    interlock=guard.config.name,
                    server=self._server,
                    serial=serial,
                    since=verdict.since if 0.0 <= now - verdict.since < 60.0 else now,
                    why=verdict.why,
                    readings={
                        device: _scalars(self.readings.devices[device])
                        for device in devices
                        if device in self.readings.devices and device not in self.readings.unreadable
                    },
                    unreadable={d: w for d, w in self.readings.unreadable.items() if d in devices},
                )
            )
        )

    def _latch(self, config: InterlockConfig, serial: int) -> None:
        self._latched[config.name] = Latch(config, serial, self._now())
        if config.action is InterlockAction.REPEAT:
            spoilt = object()
            self._spoilt = {**self._spoilt, **dict.fromkeys(config.queues or [""], spoilt)}
        self.mark = object()

    def _look_again(self) -> None:
        self.mark = object()
        self._wake()


def _status(state: BeamlineStateConfig, value: Callable[[str], Any]) -> str:
    """The status of a beamline state, as conditions see it; unknown if it cannot be told, whatever its kind raises."""
    try:
        return str(BeamlineStatus(state.evaluate(lambda name: plain_value(value(name), name))[0]).value)
    except Exception:  # noqa: BLE001 - a plugin may raise anything
        return BeamlineStatus.UNKNOWN.value


def _scalars(reading: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Those signals of a reading that conditions can use, as they travel."""
    return {
        signal: {"value": item.get("value"), "timestamp": item.get("timestamp")}
        for signal, item in reading.items()
        if item.get("value") is None or isinstance(item.get("value"), (bool, int, float, str))
    }
