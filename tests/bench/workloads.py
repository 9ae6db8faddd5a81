"""What is measured: sizes, devices, targets, and what comparable systems cost. No measuring here.

Sizes and devices are the same for every system that was compared: all devices answer at once, so that the wall time is what the
software adds. Figures of the released BEC 4.3.2 and of bluesky 1.15 were recorded on two cores, medians of quiet series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

W1_POINTS = (200, 1000)
W1_LONG = 10_000
W1_EACH = 300
W2_SCANS = 20
W3_CALLS = 500
W4_MOVES = 100
STOPS = 100
ABORTS = 30
TWO_POINTS = 300
FAR = "far"
W5_DEVICES = (10, 100, 300)
W5_POINTS = 50
W8_IDLE_S = 20.0
W10_GRID = (30, 30)
GROWTH_POINTS = (1_000, 10_000, 100_000)
GROWTH_SCANS = 1_000


@dataclass(frozen=True)
class Row:
    """One line of the table. target, released and bluesky are in `unit`; None where nothing is promised or known."""

    key: str
    what: str
    unit: str
    target: float | None
    released: str
    bluesky: str


ROWS = (
    Row("w1_200", "W1 line scan 200 points, to the final file", "ms/point", None, "12.8", "10"),
    Row("w1_1000", "W1 line scan 1000 points, to the final file", "ms/point", 0.3, "11-12.5", "6.3-8.5"),
    Row("w1_10000", "W1 line scan 10 000 points, to the final file", "ms/point", 0.3, "", ""),
    Row("w1_each", "W1, every result used by the scan", "ms/point", 1.5, "", ""),
    Row("w2", "W2 scan of 1-3 points, submit to final file", "ms", 30.0, "200-300", "20-30"),
    Row("w3_p50", "W3 dev.x.read() from a client, p50", "ms", 2.0, "34", ""),
    Row("w3_p99", "W3 dev.x.read() from a client, p99", "ms", 6.0, "130", ""),
    Row("w3_scan_p50", "W3 while a scan runs, p50", "ms", 2.0, "", ""),
    Row("w3_scan_p99", "W3 while a scan runs, p99", "ms", 6.0, "", ""),
    Row("w4", "W4 mv of a zero-delay motor, done at the client, p50", "ms", 3.0, "108", ""),
    Row("w5_10", "W5 10 signals", "ms/point", None, "20", "14"),
    Row("w5_100", "W5 100 signals", "ms/point", 1.5, "92", "95"),
    Row("w5_300", "W5 300 signals", "ms/point", 4.0, "163", "390"),
    Row("w5_300_file", "W5 300 signals, seal to final file", "ms", 50.0, "42000", ""),
    Row("w8_start", "W8 cold start until all services run", "s", 4.0, "17", ""),
    Row("w8_memory", "W8 memory of the fleet (PSS)", "MB", 450.0, "901 (RSS)", ""),
    Row("w8_idle", "W8 CPU of the idle fleet", "% of a core", 1.0, "7.4", ""),
    Row("w9", "W9 last point to final file (1000 points)", "ms", 20.0, "100-250", ""),
    Row("stop_p50", "Stop: command to the device's stop(), p50", "ms", None, "", ""),
    Row("stop_p99", "Stop: command to the device's stop(), p99", "ms", 50.0, "", ""),
    Row("stop_scan", "Stop while a scan takes points, longest of 30", "ms", 50.0, "", ""),
    Row("stop_abort_p50", "Abort of a scan to the device's stop(), p50", "ms", None, "", ""),
    Row("stop_abort", "Abort of a scan to the device's stop(), longest of 30", "ms", 50.0, "", ""),
    Row("w10", "W10 grid 30 x 30, 2 motors", "ms/point", 0.4, "12-16", "9-16"),
)


def motor() -> dict[str, Any]:
    return {
        "deviceClass": "device_server.sim.ZeroMotor",
        "enabled": True,
        "readoutPriority": "baseline",
        "deviceConfig": {},
        "readOnly": False,
    }


def detector(readout: str = "monitored") -> dict[str, Any]:
    return {
        "deviceClass": "device_server.sim.ConstSignal",
        "enabled": True,
        "readoutPriority": readout,
        "deviceConfig": {"value": 1.0},
        "readOnly": True,
    }


def never_there() -> dict[str, Any]:
    """A motor whose moves only a stop ends."""
    return {**motor(), "deviceClass": "tests.bench.devices.NeverThere", "readoutPriority": "on_request"}


def session(detectors: int) -> dict[str, dict[str, Any]]:
    """Two motors and this many monitored scalars."""
    return {"m1": motor(), "m2": motor(), **{f"d{n + 1}": detector() for n in range(detectors)}}
