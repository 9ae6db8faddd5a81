"""What is left of a sweep that was interrupted? Known to whoever has it gone on: a scan server after a crash, a device
server after an interlock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bec_lib.messages import SweepDevice


def rest_of_sweep(sweep: SweepDevice, committed: int, position: float | None) -> SweepDevice | None:
    """What is left when so many of the scan's points are taken; None if it is known that nothing is.

    With marks it goes back to its start and takes the others; a flyer is sent to the positions that are left; any other
    goes on where its last point was. position: of that point, device units; None: it is not known, and goes on from
    where the device is.
    """
    done = committed - sweep.first_index
    if done <= 0:
        return sweep
    known = len(sweep.marks)
    kickoff = sweep.kickoff
    if kickoff is not None:
        lengths = {len(value) for value in kickoff.values() if isinstance(value, list)}
        known = lengths.pop() if len(lengths) == 1 else 0
        kickoff = {
            name: value[done:] if isinstance(value, list) and known else value
            for name, value in kickoff.items()
        }
    if known and done >= known:
        return None
    start = sweep.start
    if not sweep.marks:
        start = None if kickoff is not None else position
    return sweep.model_copy(
        update={
            "first_index": committed,
            "marks": sweep.marks[done:],
            "start": start,
            "kickoff": kickoff,
            "given": without_first(sweep.given, done, len(sweep.marks)),
        }
    )


def without_first(given: Mapping[str, list[Any]], done: int, count: int) -> dict[str, list[Any]]:
    """Columns of `count` points without the first of them; one value for all stays."""
    return {name: values[done:] if len(values) == count else values for name, values in given.items()}
