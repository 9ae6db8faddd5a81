"""Where are the points? Pure generators: numbers in, one float array (points, motors) out.

They know no device and no limits. Values are absolute or relative as their caller means them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bec_lib.errors import ParameterError

# A scan above this would not fit into a message, nor into anybody's beam time.
MAX_POINTS = 1_000_000


def line_positions(ranges: Sequence[tuple[float, float]], steps: int) -> np.ndarray:
    """All axes in lock-step from start to stop, both included; one step stays at the start.

    Raises ParameterError above MAX_POINTS, as all functions here do.
    """
    check_count(steps)
    return np.column_stack([np.linspace(start, stop, steps) for start, stop in ranges])


def grid_positions(axes: Sequence[tuple[float, float, int]], snaked: bool = True) -> np.ndarray:
    """Every combination of the axes' positions, the last axis fastest.

    axes: (start, stop, steps), both ends included. snaked: every axis but the first turns round after each of its
    passes, so that neighbours in time are neighbours in space, in any number of dimensions.
    """
    shape = [steps for _, _, steps in axes]
    count = check_count(math.prod(shape))
    columns = []
    passes = np.arange(count)
    size = count
    for start, stop, steps in axes:
        nth_pass, within = passes // size, passes % size
        size //= steps
        index = within // size
        if snaked:
            index = np.where(nth_pass % 2, steps - 1 - index, index)
        columns.append(np.linspace(start, stop, steps)[index])
    return np.column_stack(columns)


def list_positions(lists: Sequence[Sequence[float]]) -> np.ndarray:
    """All axes in lock-step through their lists. Raises ParameterError if the lists differ in length."""
    lengths = sorted({len(values) for values in lists})
    if len(lengths) > 1:
        raise ParameterError(
            f"all lists of positions must have the same length; these have {', '.join(map(str, lengths))}"
        )
    check_count(lengths[0])
    return np.column_stack([np.asarray(values, dtype=float) for values in lists])


def check_count(count: int) -> int:
    """The count, if it is at most MAX_POINTS. Asked before anything is allocated."""
    if count > MAX_POINTS:
        raise ParameterError(
            f"{count:,} points are too many for one scan; at most {MAX_POINTS:,} are possible, "
            "so split it into several"
        )
    return count
