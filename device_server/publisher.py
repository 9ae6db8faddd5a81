"""Which read-backs are to be published now? The latest reading of each device, at most so often, and only if it changed.

Devices tell changes from whatever thread (`changed`); the main thread asks what is due and publishes it. While
nothing changes, nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bec_lib.errors import MessageTooLarge, ParameterError
from device_server import readings

INTERVAL_S = 0.1
# With hundreds of devices changing at once, all together are published at most this often a second.
TOTAL_RATE = 1000.0


class Publisher:
    """wake: called, from any thread, when something changed after nothing had; it must make the main thread ask."""

    def __init__(self, wake: Callable[[], None]):
        self._wake = wake
        self._latest: dict[str, dict[str, Any]] = {}
        self._dirty: dict[str, None] = {}
        self._published: dict[str, float] = {}
        self._awake = False

    def changed(self, device: str, signal: str, value: Any, timestamp: float) -> None:
        """A signal has a new value. Called by devices, on any thread; returns at once."""
        self._latest.setdefault(device, {})[signal] = {"value": value, "timestamp": timestamp}
        self._dirty[device] = None
        if not self._awake:
            self._awake = True
            self._wake()

    def deadline(self, now: float) -> float | None:
        """When something is due, by the clock of `now`; None: nothing has changed."""
        if not self._dirty:
            return None
        interval = self._interval()
        return min(self._published.get(device, -interval) + interval for device in list(self._dirty))

    def due(self, now: float) -> dict[str, dict[str, Any]]:
        """Device -> reading to be published now. Called by the main thread."""
        interval = self._interval()
        found = {}
        for device in list(self._dirty):
            if self._published.get(device, -interval) + interval <= now:
                # Taken out first: a change from now on makes it dirty again.
                self._dirty.pop(device, None)
                self._published[device] = now
                found[device] = _plain(self._latest.get(device, {}))
        if not self._dirty:
            self._awake = False
            if self._dirty:
                self._awake = True
        return found

    def publish(self, device: str, reading: Mapping[str, Any], now: float) -> dict[str, Any]:
        """A reading is being published with something else; what is to be sent."""
        self._latest[device] = {**self._latest.get(device, {}), **reading}
        self._dirty.pop(device, None)
        self._published[device] = now
        return _plain(self._latest[device])

    def forget(self, device: str) -> None:
        for table in (self._latest, self._dirty, self._published):
            table.pop(device, None)

    def _interval(self) -> float:
        return max(INTERVAL_S, len(self._dirty) / TOTAL_RATE)


def _plain(reading: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for signal, item in list(reading.items()):
        try:
            found[signal] = {
                "value": readings.sendable(item["value"], signal),
                "timestamp": float(item["timestamp"] or 0.0),
            }
        except (ParameterError, MessageTooLarge):
            continue
    return found
