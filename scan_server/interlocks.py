"""Which interlocks are tripped, settling or clear, and what do they hold? The owner of that state, as plain values.

Readings, trips that device servers saw, definitions and the time come in; changes of phase come out. Knows no stream and
no clock: ticks are of a clock that never goes back, `now` is seconds UTC. Owner: the scan server's main thread.

    phase      what comes                                             next
    waiting    first verdict clear / tripped                          clear / tripped
               no reading for STALE_S since it was defined            tripped
    clear      verdict tripped, a device server's trip, stale         tripped
    tripped    verdict clear                                          settling, or clear without a settle time
    settling   verdict not clear, a device server's trip, stale       tripped (since it tripped first)
               settle_time_s have passed                              clear
    disabled   -                                                      enabled again: waiting

A reading older than STALE_S, a value that is missing and a condition that cannot be worked out count as tripped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from bec_lib.conditions import STATES, Condition, Readings, candidates
from bec_lib.messages import (
    DeviceInfoMessage,
    InterlockAction,
    InterlockConfig,
    InterlockPhase,
    InterlockState,
    InterlockStatusMessage,
    InterlockTripMessage,
)

# Watched devices are read about once a second, whether they change or not.
STALE_S = 5.0
# While an interlock is tripped, what is said of it follows the readings this often at most.
RETELL_S = 5.0

CLEAR, WAITING = InterlockPhase.CLEAR, InterlockPhase.WAITING
TRIPPED, SETTLING, DISABLED = InterlockPhase.TRIPPED, InterlockPhase.SETTLING, InterlockPhase.DISABLED
_HELD = (WAITING, TRIPPED, SETTLING)


@dataclass(frozen=True)
class Hold:
    """What a tripped interlock holds. text: a sentence. queues: empty for all. running: also scans that run, since
    `since` (seconds UTC).
    """

    interlock: str
    text: str
    queues: tuple[str, ...] = ()
    running: bool = True
    since: float = 0.0

    def applies_to(self, queue: str) -> bool:
        return not self.queues or queue in self.queues


@dataclass(frozen=True)
class Transition:
    """An interlock came into another phase."""

    interlock: InterlockConfig
    before: InterlockPhase
    after: InterlockPhase
    why: str


@dataclass
class _Interlock:
    condition: Condition
    phase: InterlockPhase
    entered: float
    entered_tick: float
    tripped_since: float | None = None
    why: str = ""
    told_tick: float = 0.0
    trips: int = 0
    serials: dict[str, int] = field(default_factory=dict)

    @property
    def config(self) -> InterlockConfig:
        return self.condition.config


class Interlocks:
    """All of them, and the readings that they look at. unit: of a name in a condition, for sentences."""

    def __init__(self, unit: Callable[[str], str] = lambda name: ""):
        self.readings = Readings()
        self._unit = unit
        self._table: dict[str, _Interlock] = {}
        self._arrived: dict[str, float] = {}

    # Definitions

    @property
    def definitions(self) -> dict[str, InterlockConfig]:
        return {name: item.config for name, item in self._table.items()}

    @property
    def devices(self) -> frozenset[str]:
        """Those that are looked at; beamline states are not devices."""
        used = [item.condition.devices for item in self._table.values() if item.config.enabled]
        return frozenset().union(*used) - {STATES}

    @property
    def names(self) -> list[str]:
        """Dotted names in all conditions."""
        return list(dict.fromkeys(name for item in self._table.values() for name in item.condition.names))

    def define(
        self, config: InterlockConfig, now: float, tick: float, before: InterlockState | None = None
    ) -> None:
        """Put an interlock in, or in the place of the one of its name. before: its state in an earlier life; what was
        tripped then has to settle. Raises ParameterError if its conditions are none.
        """
        condition = Condition(config)
        phase = WAITING if config.enabled else DISABLED
        known = self._table.get(config.name)
        item = _Interlock(condition, phase, now, tick, trips=known.trips if known else 0)
        if phase is WAITING:
            item.why = "waits for the first readings"
            if before is not None:
                item.serials = dict(before.serials)
            if before is not None and before.phase in (TRIPPED, SETTLING):
                item.phase, item.tripped_since, item.why = TRIPPED, before.tripped_since, before.why
        if known is not None:
            item.serials = known.serials
        self._table[config.name] = item

    def remove(self, name: str) -> None:
        self._table.pop(name, None)

    def mean(self, infos: Mapping[str, DeviceInfoMessage | None], more: Iterable[str] = ()) -> None:
        """Work out what the names mean, from what is known of the devices. more: names besides those in conditions."""
        self.readings.meanings = {
            name: candidates(name, infos.get(name.partition(".")[0])) for name in [*self.names, *more]
        }

    # What comes

    def take(self, device: str, reading: Mapping[str, Mapping[str, object]], tick: float) -> None:
        """A reading; `judge` says what follows from it."""
        self.readings.take(device, reading)
        if device != STATES:
            self._arrived[device] = max(tick, self._arrived.get(device, tick))

    def forget(self, device: str) -> None:
        self.readings.forget(device)
        self._arrived.pop(device, None)

    def trip(self, trip: InterlockTripMessage, now: float, tick: float) -> list[Transition]:
        """A device server saw it trip, and holds its points. It says so again if it is not released: one that is known
        of is, in whatever way the release was lost.
        """
        item = self._table.get(trip.interlock)
        if item is None:
            return []
        if trip.serial <= item.serials.get(trip.server, 0):
            is_over = item.phase in (CLEAR, DISABLED)
            return [Transition(item.config, item.phase, CLEAR, "is released again")] if is_over else []
        item.serials[trip.server] = trip.serial
        for device, reading in trip.readings.items():
            self.take(device, reading, tick)
        if item.phase is DISABLED:
            return []
        since = trip.since if 0.0 < now - trip.since < 60.0 else now
        # In our words if we see the same: they have units.
        verdict = item.condition.judge(self.readings, self._unit)
        return self._enter(item, TRIPPED, verdict.why if verdict.tripped else trip.why, now, tick, since)

    def judge(self, now: float, tick: float, devices: Iterable[str] | None = None) -> list[Transition]:
        """Look at the interlocks of these devices; None: at all. After readings, and when `due` has come."""
        stale = self._note_stale(tick)
        wanted = None if devices is None else frozenset(devices) | stale
        found: list[Transition] = []
        for item in self._table.values():
            if item.phase is DISABLED or (wanted is not None and not wanted & item.condition.devices):
                continue
            found += self._judge_one(item, now, tick)
        return found

    def due(self) -> float | None:
        """The tick at which `judge` may have something to say although nothing comes."""
        dues = [
            item.entered_tick + item.config.settle_time_s
            for item in self._table.values()
            if item.phase is SETTLING
        ]
        for item in self._table.values():
            if item.phase is WAITING:
                dues.append(item.entered_tick + STALE_S)
            if item.phase in (CLEAR, SETTLING, WAITING):
                dues += [
                    self._arrived[device] + STALE_S
                    for device in item.condition.devices
                    if device in self._arrived and device not in self.readings.unreadable
                ]
        return min(dues, default=None)

    # What is shown

    def holds(self) -> tuple[Hold, ...]:
        """What is held now."""
        return tuple(
            Hold(
                item.config.name,
                self._text(item),
                tuple(item.config.queues),
                item.config.holds,
                item.tripped_since if item.tripped_since is not None else item.entered,
            )
            for item in self._table.values()
            if item.phase in _HELD and item.config.action is not InterlockAction.ALARM
        )

    def serials(self, name: str) -> dict[str, int]:
        """Server -> serial of the last trip known of an interlock."""
        item = self._table.get(name)
        return dict(item.serials) if item else {}

    def status(self) -> InterlockStatusMessage:
        return InterlockStatusMessage(
            interlocks={
                name: InterlockState(
                    phase=item.phase,
                    since=item.entered,
                    tripped_since=item.tripped_since,
                    why=item.why,
                    trips=item.trips,
                    serials=dict(item.serials),
                )
                for name, item in self._table.items()
            }
        )

    # Inside

    def _text(self, item: _Interlock) -> str:
        start = f"held by interlock {item.config.name}: {item.why}"
        if item.phase is SETTLING:
            return f"{start}; goes on {item.config.settle_time_s:g} s after it has become clear"
        return start

    def _judge_one(self, item: _Interlock, now: float, tick: float) -> list[Transition]:
        verdict = item.condition.judge(self.readings, self._unit)
        patient = tick < item.entered_tick + STALE_S
        if item.phase is WAITING and not verdict.clear and self._lacks(item) and patient:
            return []
        since = verdict.since if 0.0 <= now - verdict.since < 60.0 else now
        match item.phase:
            case InterlockPhase.WAITING:
                if verdict.clear:
                    return self._enter(item, CLEAR, "", now, tick)
                return self._enter(item, TRIPPED, verdict.why, now, tick, since)
            case InterlockPhase.CLEAR:
                if verdict.tripped:
                    return self._enter(item, TRIPPED, verdict.why, now, tick, since)
            case InterlockPhase.TRIPPED:
                if verdict.clear:
                    if item.config.settle_time_s > 0:
                        return self._enter(item, SETTLING, "is clear again", now, tick)
                    return self._enter(item, CLEAR, "", now, tick)
                if tick >= item.told_tick + RETELL_S:
                    item.why, item.told_tick = verdict.why, tick
            case InterlockPhase.SETTLING:
                if not verdict.clear:
                    return self._enter(item, TRIPPED, verdict.why, now, tick, since)
                if tick >= item.entered_tick + item.config.settle_time_s:
                    return self._enter(item, CLEAR, "", now, tick)
        return []

    def _lacks(self, item: _Interlock) -> bool:
        """No reading of one of its devices has come yet."""
        return any(d not in self.readings.devices for d in item.condition.devices)

    def _enter(
        self,
        item: _Interlock,
        phase: InterlockPhase,
        why: str,
        now: float,
        tick: float,
        since: float | None = None,
    ) -> list[Transition]:
        before, item.why = item.phase, why
        if phase is before:
            return []
        item.phase, item.entered, item.entered_tick, item.told_tick = phase, now, tick, tick
        if phase is CLEAR:
            item.tripped_since = None
        elif phase is TRIPPED:
            item.trips += 1
            if item.tripped_since is None:
                item.tripped_since = now if since is None else since
        return [Transition(item.config, before, phase, why)]

    def _note_stale(self, tick: float) -> frozenset[str]:
        """Devices whose readings have just become too old to be relied on."""
        stale = [
            device
            for device, arrived in self._arrived.items()
            if tick - arrived >= STALE_S and device not in self.readings.unreadable
        ]
        for device in stale:
            self.readings.lose(
                device,
                f"there was no reading of {device} for {tick - self._arrived[device]:.0f} s; is its device server running?",
            )
        return frozenset(stale)
