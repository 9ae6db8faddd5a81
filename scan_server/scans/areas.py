"""What scans over an area of two motors have in common: is there an area, and where is it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Range = tuple[float, float]


def problems_of_ranges(ranges: Sequence[tuple[str, float, float]]) -> list[str]:
    """ranges: (motor, start, stop). One sentence for each that has no extent, and for a motor that is given twice."""
    found = [
        f"the region of {motor} from {start:g} to {stop:g} is empty; choose another start or stop"
        for motor, start, stop in ranges
        if start == stop
    ]
    return found + problems_of_motors([motor for motor, _, _ in ranges])


def problems_of_motors(motors: Sequence[str]) -> list[str]:
    return [
        f"{motor} is given twice; give each motor once"
        for motor in dict.fromkeys(motors)
        if list(motors).count(motor) > 1
    ]


def middle(*ranges: Range) -> list[float]:
    return [(start + stop) / 2 for start, stop in ranges]


def extent(*ranges: Range) -> list[float]:
    return [abs(stop - start) for start, stop in ranges]


def problem_of_region(region: Any, label: str) -> str:
    """What is wrong with a (start, stop, steps), or nothing."""
    wanted = f"{label} must be (start, stop, steps): two numbers and a whole number of at least 1"
    if not isinstance(region, (list, tuple)) or len(region) != 3:
        return f"{wanted}, not {region!r}"
    start, stop, steps = region
    for value in (start, stop):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"{wanted}, not {region!r}"
        if not abs(value) < float("inf"):
            return f"{label} is not finite: {region!r}"
    if (
        isinstance(steps, bool)
        or not isinstance(steps, (int, float))
        or steps != steps // 1
        or not steps >= 1
    ):
        return f"{wanted}, not {region!r}"
    if start == stop and steps > 1:
        return f"{label} is empty: {steps:g} steps from {start:g} to {stop:g}"
    return ""
