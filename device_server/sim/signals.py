"""A single simulated value with a unit: the signals all simulated devices are made of, and two devices of one signal.

`SimSignal` differs from ophyd's soft signal in three ways: its description carries unit, precision, limits and numpy
type; `set` completes at once instead of starting a thread; and it has limits of its own if they are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ophyd import DeviceStatus, Kind, Signal
from ophyd.utils import LimitError, ReadOnlyError

from device_server.sim.signature import with_arguments_of

_SCALAR_TYPES = {"float": ("number", "<f8"), "int": ("integer", "<i8"), "str": ("string", "")}


class SimSignal(Signal):
    """A value in memory: a number, a text or an array.

    dtype: "float", "int" or "str"; without it a text stays a text, an array an array, and any number becomes a float.
    egu: unit, as UDUNITS spells it ("mm", "s", "1/s"); empty if it has none.
    limits: inclusive (low, high), in the unit; None or low >= high for no limits.
    enum_strs: the names of the values 0, 1, ... of an "int" signal, which may then be written by name too.
    """

    def __init__(
        self,
        name: str,
        *,
        value: Any = 0.0,
        dtype: str | None = None,
        egu: str = "",
        precision: int | None = 3,
        limits: Sequence[float] | None = None,
        enum_strs: Sequence[str] = (),
        device_manager: Any = None,
        parent: Any = None,
        kind: Any = Kind.hinted,
        labels: Any = None,
        attr_name: str = "",
    ) -> None:
        if dtype is not None and dtype not in _SCALAR_TYPES:
            raise ValueError(f"dtype of {name} must be one of {', '.join(_SCALAR_TYPES)}, not {dtype!r}")
        self._enum_strs = tuple(enum_strs)
        self._array = dtype is None and isinstance(value, (list, tuple, np.ndarray))
        self._dtype = dtype or ("str" if isinstance(value, str) else "float")
        self._egu = egu
        self.precision = precision if self._dtype == "float" else None
        super().__init__(name=name, parent=parent, kind=kind, labels=labels, attr_name=attr_name)
        self._limits = (0.0, 0.0) if limits is None else (float(limits[0]), float(limits[1]))
        self._readback = self.coerced(value)

    @property
    def egu(self) -> str:
        """The unit of the value, empty if it has none."""
        return self._egu

    @property
    def limits(self) -> tuple[float, float]:
        """Inclusive (low, high) in the unit of the value; low >= high means none."""
        return self._limits

    def coerced(self, value: Any) -> Any:
        """`value` as this signal's type. Raises ValueError if it cannot be one."""
        if self._array:
            return np.asarray(value)
        if self._dtype == "str":
            return str(value)
        if isinstance(value, str) and value in self._enum_strs:
            return self._enum_strs.index(value)
        try:
            return int(value) if self._dtype == "int" else float(value)
        except (TypeError, ValueError):
            names = f" or one of {', '.join(self._enum_strs)}" if self._enum_strs else ""
            raise ValueError(f"{self.name} cannot be set to {value!r}: it takes a number{names}.") from None

    def check_value(self, value: Any) -> None:
        """Raises ValueError if the value has the wrong type, LimitError if it is outside the limits."""
        number = self.coerced(value)
        low, high = self.limits
        if self._enum_strs and number not in range(len(self._enum_strs)):
            raise LimitError(
                f"{self.name} cannot be set to {number}: choose one of {', '.join(self._enum_strs)}."
            )
        if low < high and not low <= number <= high:
            raise LimitError(
                f"{self.name} cannot be set to {with_unit(number, self.egu)}: "
                f"its limits are {with_unit(low)} to {with_unit(high, self.egu)}."
            )

    def put(self, value: Any, *, force: bool = False, **kwargs: Any) -> None:
        """Write the value and tell the subscribers. `force` leaves out the check.

        Raises ValueError, LimitError or, if the signal is read-only, ReadOnlyError.
        """
        if not force:
            if not self.write_access:
                raise ReadOnlyError(f"{self.name} is read-only.")
            self.check_value(value)
        super().put(self.coerced(value), force=True, **kwargs)

    def set(
        self, value: Any, *, timeout: float | None = None, settle_time: float | None = None
    ) -> DeviceStatus:
        """Write the value; the status is done when this returns. Raises what `put` raises."""
        self.put(value)
        status = DeviceStatus(self, call_stop_on_failure=False)
        status.set_finished()
        return status

    def read(self) -> dict[str, dict[str, Any]]:
        """{name: {"value", "timestamp"}}; as ophyd's, without its check of a connection that is always there."""
        value = self.get()
        return {self.name: {"value": value, "timestamp": self._metadata["timestamp"]}}

    def describe(self) -> dict[str, dict[str, Any]]:
        """ophyd's description with `units`, `precision`, `dtype_numpy`, control limits and enum names where known."""
        if self._array:
            array = np.asarray(self._readback)
            description: dict[str, Any] = {
                "source": self.source_name,
                "dtype": "array",
                "shape": list(array.shape),
                "dtype_numpy": array.dtype.str,
            }
        else:
            dtype, dtype_numpy = _SCALAR_TYPES[self._dtype]
            description = {"source": self.source_name, "dtype": dtype, "shape": []}
            if dtype != "string":
                description["dtype_numpy"] = dtype_numpy
        if self.egu:
            description["units"] = self.egu
        if self.precision is not None:
            description["precision"] = self.precision
        low, high = self.limits
        if low < high:
            description["lower_ctrl_limit"], description["upper_ctrl_limit"] = low, high
        if self._enum_strs:
            description["enum_strs"] = list(self._enum_strs)
        return {self.name: description}


class SetableSignal(SimSignal):
    """A device that is one value and takes any new value at once, within its limits if it has some."""

    USER_ACCESS: tuple[str, ...] = ("egu", "limits")


class ReadOnlySignal(SimSignal):
    """A device that is one value which clients cannot write."""

    USER_ACCESS: tuple[str, ...] = ("egu",)

    @with_arguments_of(SimSignal)
    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self._metadata["write_access"] = False


def with_unit(value: float, egu: str = "") -> str:
    """The number as a person writes it, with its unit if it has one: "12.0 mm"."""
    text = f"{value:.6g}"
    if "." not in text and "e" not in text and not isinstance(value, int) and math.isfinite(value):
        text += ".0"
    return f"{text} {egu}" if egu else text
