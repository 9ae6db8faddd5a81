"""Does a condition hold, by the latest readings? What the scan server and the device servers share.

`Readings` keeps the latest value of each signal, and answers what a name in a condition stands for; `Condition` adds the
sentences. Knows no device, no stream, no clock: times come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bec_lib.expressions import Expression, Unknown, parse, plain_value
from bec_lib.messages import DeviceInfoMessage, InterlockConfig

# Of the device "states": beamline states by their name.
STATES = "states"
# A reading that claims to be older than the one before by up to this is one that was overtaken on its way.
_OVERTAKEN_S = 5.0

Reading = Mapping[str, Mapping[str, Any]]


def device_of(name: str) -> str:
    """The device of a dotted name."""
    return name.partition(".")[0]


def candidates(name: str, info: DeviceInfoMessage | None = None) -> list[str]:
    """[device, signal, signal ...]: what a name in a condition may mean, the likeliest first."""
    device, _, rest = name.partition(".")
    if device == STATES:
        return [STATES, rest]
    if not rest:
        return [device, device, *(info.hints if info else [])]
    named = (
        [signal.obj_name for signal in info.signals if rest in (signal.name, signal.obj_name)] if info else []
    )
    return [device, *named, rest, f"{device}_{rest.replace('.', '_')}"]


@dataclass
class Readings:
    """The latest values: device -> signal -> {"value", "timestamp"}. Owned by whoever holds it; entries are replaced
    whole, so that other threads may read.
    """

    devices: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    meanings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # Beamline states that are worked out here, by name, from what the others are.
    computed: Mapping[str, Callable[[Callable[[str], Any]], Any]] = field(default_factory=dict)

    def take(self, device: str, reading: Reading) -> None:
        """A reading of some or all signals of a device has come. One that was overtaken is left out."""
        known = self.devices.get(device, {})
        fresh = dict(known)
        for signal, item in reading.items():
            before = known.get(signal)
            if before is not None and 0 < _time(before) - _time(item) < _OVERTAKEN_S:
                continue
            fresh[signal] = item
        self.devices[device] = fresh
        self.unreadable.pop(device, None)

    def lose(self, device: str, why: str) -> None:
        """Its values are not to be relied on until it is read again."""
        self.unreadable[device] = why

    def forget(self, device: str) -> None:
        self.devices.pop(device, None)
        self.unreadable.pop(device, None)

    def value(self, name: str) -> Any:
        """What a name in a condition stands for. Raises Unknown, with a sentence."""
        if self.computed and name.startswith(f"{STATES}."):
            compute = self.computed.get(name.partition(".")[2])
            if compute is not None:
                return compute(self.value)
        return self._item(name)["value"]

    def timestamp(self, names: Iterable[str]) -> float:
        """The newest time stamp of what these names stand for, 0.0 if nothing is known."""
        found = 0.0
        for name in names:
            try:
                found = max(found, _time(self._item(name)))
            except Unknown:
                continue
        return found

    def _item(self, name: str) -> Mapping[str, Any]:
        device, *signals = self.meanings.get(name) or candidates(name)
        why = self.unreadable.get(device)
        if why:
            raise Unknown(why)
        reading = self.devices.get(device)
        if reading is None:
            raise Unknown(
                f"there is no beamline state {name!r}"
                if device == STATES
                else f"there is no reading of {device}"
            )
        for signal in signals:
            item = reading.get(signal)
            if item is not None:
                return item
        if name == device and reading:
            return next(iter(reading.values()))
        if device == STATES:
            raise Unknown(f"there is no beamline state {signals[0]!r}")
        raise Unknown(
            f"{device} has no signal {name.partition('.')[2]!r} in its readings ({', '.join(reading)})"
        )


@dataclass(frozen=True)
class Verdict:
    """tripped, clear: by the two conditions; an interlock that is neither stays what it is. why: a sentence. since:
    time stamp of the newest reading involved, seconds UTC, 0.0 if unknown.
    """

    tripped: bool
    clear: bool
    why: str
    since: float = 0.0


class Condition:
    """The two conditions of an interlock, parsed. Raises ParameterError in its constructor if they are no conditions."""

    def __init__(self, config: InterlockConfig):
        self.config = config
        self.trips: Expression = parse(config.trips_when)
        self.clears: Expression | None = parse(config.clears_when) if config.clears_when.strip() else None
        names = [*self.trips.names, *(self.clears.names if self.clears else ())]
        self.names: tuple[str, ...] = tuple(dict.fromkeys(names))
        self.devices: frozenset[str] = frozenset(device_of(name) for name in self.names)

    def is_tripped(self, readings: Readings) -> bool:
        """By the first condition alone, without sentences. What cannot be told counts as tripped."""
        try:
            return self.trips.holds(readings.value)
        except Unknown:
            return True

    def judge(self, readings: Readings, unit: Callable[[str], str] = lambda name: "") -> Verdict:
        """What the readings say. What cannot be told counts as tripped, and is not clear."""
        since = readings.timestamp(self.names)
        try:
            tripped = self.trips.holds(readings.value)
            clear = not tripped and (self.clears is None or self.clears.holds(readings.value))
        except Unknown as unknown:
            return Verdict(True, False, str(unknown), since)
        return Verdict(tripped, clear, "" if clear else self._sentence(readings, unit), since)

    def _sentence(self, readings: Readings, unit: Callable[[str], str]) -> str:
        """`curr.curr = 80 mA, must be >= 100 mA`."""
        if self.config.message:
            return self.config.message
        expression = self.clears or self.trips
        shown = []
        for name in expression.names:
            try:
                value = plain_value(readings.value(name), name)
            except Unknown as unknown:
                return str(unknown)
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            shown.append(f"{name} = {text} {unit(name)}".rstrip())
        must = self.clears.text if self.clears else self.trips.opposite
        if len(expression.names) == 1:
            name = expression.names[0]
            head, _, rest = must.removeprefix("dev.").partition(" ")
            if head == name and not any(word in rest.split() for word in ("and", "or", "not", "in")):
                return f"{shown[0]}, must be {rest} {unit(name)}".rstrip()
        return f"{', '.join(shown)}; must hold: {must}"


def _time(item: Mapping[str, Any]) -> float:
    time = item.get("timestamp")
    return float(time) if isinstance(time, (int, float)) else 0.0
