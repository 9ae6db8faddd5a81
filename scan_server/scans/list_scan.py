"""Motors in lock-step through lists of positions."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from bec_lib.scans import Bundle, Device, StepScan, argument, list_positions


class ListScan(StepScan):
    """Move one or more motors through lists of positions, all of the same length, and read at each point.

    >>> scans.list_scan(dev.samx, [0, 1, 3, 4], dev.samy, [4, 3, 2, 1], exp_time=0.1)
    """

    scan_name = "list_scan"
    arguments = Bundle(
        argument("device", Device, doc="A motor."),
        argument("positions", list, of="device", doc="Its positions, in order."),
    )

    def problems(self) -> list[str]:
        found = problems_of_lists(self.bundles)
        lengths = {device: len(values) for device, values in self.bundles}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{length} for {device}" for device, length in lengths.items())
            found.append(f"all lists of positions must have the same length; there are {told}")
        return found

    def positions(self) -> np.ndarray:
        return list_positions([values for _, values in self.bundles])

    @property
    def shape(self) -> list[int]:
        return [len(self.bundles[0][1])]


def problems_of_lists(bundles: Iterable[tuple[Any, ...]]) -> list[str]:
    """What is wrong with (device, positions), the first few."""
    return [
        f"the positions of {device} must be numbers, not {value!r}"
        for device, values in bundles
        for value in values
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number))
    ][:5]
