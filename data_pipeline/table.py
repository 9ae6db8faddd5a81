"""The points of a scan as columns, as far as somebody wants them.

Folds `PointsMessage` blocks into float arrays, each point once, whatever is delivered twice. Knows which
columns of the schema a name means. Knows nothing of fits, streams or time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from bec_lib.errors import ParameterError, ReasonCode
from bec_lib.messages import PointsMessage, ScanSchemaMessage, SignalSchema

FIRST_ROWS = 64
# 16 MB a column. Above it every second point is dropped, again and again.
MAX_ROWS = 2_000_000

Floats = NDArray[np.float64]


class Table:
    """Columns of one scan, filled from its points.

    columns: indices into the schema's signals. Memory grows by doubling up to `max_rows` a column; beyond, only
    every `stride`-th point is kept. `count` is the number of points seen, kept or not.
    """

    def __init__(self, columns: Iterable[int], max_rows: int = MAX_ROWS):
        self.columns = sorted(set(columns))
        self.count = 0
        self.stride = 1
        self._max_rows = max_rows
        self._rows = 0
        self._data = np.empty((len(self.columns), min(FIRST_ROWS, max_rows)))

    def append(self, block: PointsMessage, places: Mapping[int, int | None] | None = None) -> bool:
        """Take in a block; points already there are passed over. False if points between are missing.

        places: where the block has the columns, if it follows another version of the schema; None: nowhere.
        """
        skip = self.count - block.first_index
        if skip < 0:
            return False
        if skip >= block.count:
            return True
        first = self.count + -self.count % self.stride
        offset = first - block.first_index
        rows = len(range(offset, block.count, self.stride))
        if rows > 0:
            self._reserve(rows)
            for place, column in enumerate(self.columns):
                found = column if places is None else places[column]
                self._data[place, self._rows : self._rows + rows] = (
                    np.nan
                    if found is None
                    else _numbers(block.values[found], block.count)[offset :: self.stride]
                )
            self._rows += rows
        self.count = block.first_index + block.count
        while self._rows > self._max_rows:
            self._thin()
        return True

    def column(self, index: int) -> Floats:
        """The kept values of a column of the schema, in order, NaN where there was no number."""
        values: Floats = self._data[self.columns.index(index), : self._rows]
        return values

    @property
    def rows(self) -> int:
        """How many points are kept."""
        return self._rows

    @property
    def nbytes(self) -> int:
        return int(self._data.nbytes)

    def _reserve(self, rows: int) -> None:
        needed = self._rows + rows
        if needed > self._data.shape[1]:
            grown = np.empty((len(self.columns), max(needed, 2 * self._data.shape[1])))
            grown[:, : self._rows] = self._data[:, : self._rows]
            self._data = grown

    def _thin(self) -> None:
        kept = self._data[:, : self._rows : 2].copy()
        self._rows = kept.shape[1]
        self._data = np.empty((len(self.columns), max(self._max_rows, self._rows)))
        self._data[:, : self._rows] = kept
        self.stride *= 2


def resolve(schema: ScanSchemaMessage, name: str) -> int:
    """The column that is meant by "device" or "device.signal" (for a signal also its bare name).

    A device alone means its signal of the same name, else its first hinted one, else its first.
    Raises ParameterError if there is none of numbers, with what there is.
    """
    usable = {index: signal for index, signal in enumerate(schema.signals) if _is_number(signal)}
    device, _, wanted = name.partition(".")
    for index, signal in enumerate(schema.signals):
        if wanted and signal.device == device and signal.signal in (wanted, f"{device}_{wanted}"):
            if index not in usable:
                shape = "x".join(map(str, signal.shape))
                raise ParameterError(
                    f"{name} cannot be fitted: it has {f'shape {shape}' if shape else f'type {signal.dtype}'} "
                    "at each point, and a fit needs one number"
                )
            return index
    if not wanted:
        of_device = [index for index, signal in usable.items() if signal.device == name]
        of_device.sort(key=lambda i: (usable[i].signal != name, usable[i].kind != "hinted", i))
        by_signal = [index for index, signal in usable.items() if signal.signal == name]
        if of_device or by_signal:
            return (of_device or by_signal)[0]
    names = sorted({signal.device for signal in usable.values()} | {label(s) for s in usable.values()})
    close = get_close_matches(name, names, n=1)
    if close:
        hint = f"did you mean {close[0]}?"
    elif usable:
        hint = f"there are {', '.join(label(signal) for signal in usable.values())}"
    else:
        hint = "it records no numbers at its points"
    raise ParameterError(f"the scan's points have no signal {name!r}; {hint}", code=ReasonCode.NOT_FOUND)


def places_in(
    schema: ScanSchemaMessage, other: ScanSchemaMessage, columns: Iterable[int]
) -> dict[int, int | None]:
    """Where another version of a scan's schema has these columns; None where it has lost one."""
    there = {label(signal): index for index, signal in enumerate(other.signals)}
    return {column: there.get(label(schema.signals[column])) for column in columns}


def default_x(schema: ScanSchemaMessage) -> int:
    """The first motor's column. Raises ParameterError if the scan moves nothing."""
    if not schema.motors:
        raise ParameterError("the scan moves no motor; name the signal to use as x")
    return resolve(schema, schema.motors[0])


def default_y(schema: ScanSchemaMessage) -> int:
    """The first hinted number of a device that is not a motor of the scan, else the first one. Raises
    ParameterError if there is none.
    """
    found = [
        index
        for index, signal in enumerate(schema.signals)
        if signal.device not in schema.motors and _is_number(signal) and not signal.given
    ]
    found.sort(key=lambda index: schema.signals[index].kind != "hinted")
    if not found:
        raise ParameterError(
            "the scan reads no detector with one number a point; name the signal to use as y"
        )
    return found[0]


def label(signal: SignalSchema) -> str:
    return f"{signal.device}.{signal.signal}"


def _is_number(signal: SignalSchema) -> bool:
    return not signal.shape and not signal.dtype.startswith(("str", "<U", "|S", "U", "S", "object"))


def _numbers(values: object, count: int) -> Floats:
    """A column of a block as floats, NaN for what is no number."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.array([_number(value) for value in values], dtype=np.float64)  # type: ignore[attr-defined]
    return found if found.shape == (count,) else np.full(count, np.nan)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
