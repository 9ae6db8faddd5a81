"""What did a device say? Its `read()` and `describe()` as columns with unit, shape and dtype, and as plain values.

Takes dictionaries in ophyd's format and gives back records of `bec_lib.messages`. Knows no device and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from bec_lib.errors import DeviceError, MessageTooLarge, ParameterError, ReasonCode
from bec_lib.messages import Message, StagedSignal

Units = str | Mapping[str, str] | None
Reading = Mapping[str, Mapping[str, Any]]

# Above this an array is not carried by messages (see `Message.max_array_bytes`).
MAX_ARRAY_BYTES = Message.max_array_bytes


@dataclass(frozen=True)
class Columns:
    """The columns of a group of devices, in order. keys[k]: (device, signal) of column k."""

    keys: tuple[tuple[str, str], ...]

    def as_reading(self, values: Sequence[Any], times: Sequence[Any]) -> dict[str, dict[str, dict[str, Any]]]:
        """One row as device -> signal -> {value, timestamp}; columns without a value are left out."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for (device, signal), value, time in zip(self.keys, values, times, strict=True):
            if value is not None:
                found.setdefault(device, {})[signal] = {"value": value, "timestamp": time}
        return found


def staged_signals(
    description: Mapping[str, Mapping[str, Any]],
    *,
    device: str = "",
    hinted: Sequence[str] = (),
    units: Units = None,
    default_unit: str = "",
    reading: Reading | None = None,
) -> tuple[list[StagedSignal], dict[str, str]]:
    """The columns of one device, in the order of its description, and signal -> why it cannot be one.

    units: of the device file; takes precedence over what the device says. default_unit: of a positioner, for its
    position and setpoint if they say nothing. hinted: names of the signals that people look at. reading: used for
    what the description leaves open (the dtype of an array).
    """
    signals: list[StagedSignal] = []
    refused: dict[str, str] = {}
    for name, item in description.items():
        value = reading[name]["value"] if reading is not None and name in reading else None
        shape = [int(length) for length in item.get("shape") or ()]
        dtype = dtype_of(item, value)
        if shape:
            size = int(np.prod(shape)) * (np.dtype(dtype).itemsize if dtype != "str" else 64)
            if size > MAX_ARRAY_BYTES:
                refused[name] = (
                    f"{name} gives arrays of {size / 1e6:.3g} MB ({'x'.join(map(str, shape))} {dtype}), which are too "
                    f"large to be recorded with the points (limit {MAX_ARRAY_BYTES / 1e3:.3g} kB)"
                )
                continue
        signals.append(
            StagedSignal(
                signal=name,
                dtype=dtype,
                shape=shape,
                unit=unit_of(name, item, units, default_unit if is_position(name, device) else ""),
                kind="hinted" if name in hinted else "normal",
                precision=_precision(item.get("precision")),
            )
        )
    return signals, refused


def is_position(signal: str, device: str) -> bool:
    """Whether a positioner's unit is meant for this signal of it, by ophyd's names."""
    return signal == device or signal.endswith("setpoint")


def unit_of(name: str, description: Mapping[str, Any], units: Units, default: str = "") -> str:
    """The unit of a signal: the device file's, else the device's own, else `default`. Empty if nobody says one."""
    if isinstance(units, str):
        return units
    if units is not None and name in units:
        return units[name]
    said = description.get("units", description.get("egu"))
    return str(said) if said else default


def dtype_of(description: Mapping[str, Any], value: Any = None) -> str:
    """The numpy name of a signal's type, or "str".

    "integer" without a numpy type comes from soft signals, which infer it from the value they hold at that moment;
    the next may be 0.5, so such a column is float64, which holds every integer up to 2**53.
    """
    exact = description.get("dtype_numpy")
    if exact:
        try:
            dtype = np.dtype(exact)
        except TypeError:
            dtype = np.dtype("float64")
        return _dtype_name(dtype)
    match description.get("dtype", "number"):
        case "string":
            return "str"
        case "boolean":
            return "bool"
        case "array":
            return _dtype_name(np.asarray(value).dtype) if value is not None else "float64"
        case _:
            return "float64"


def configuration(
    reading: Reading, description: Mapping[str, Mapping[str, Any]], units: Units
) -> dict[str, Any]:
    """signal -> {"value", "timestamp", "units"}, as staged devices report it. Arrays that are too large are left out."""
    found: dict[str, Any] = {}
    for name, item in reading.items():
        try:
            value = sendable(item["value"], name)
        except (ParameterError, MessageTooLarge):
            continue
        entry = {"value": value, "timestamp": float(item.get("timestamp") or 0.0)}
        unit = unit_of(name, description.get(name, {}), units if not isinstance(units, str) else None)
        found[name] = {**entry, "units": unit} if unit else entry
    return found


def plain_reading(reading: Reading) -> dict[str, dict[str, Any]]:
    """A reading as it travels: signal -> {"value", "timestamp"}; a value that cannot travel is its description."""
    found = {}
    for name, item in reading.items():
        try:
            value = sendable(item["value"], name)
        except (ParameterError, MessageTooLarge) as error:
            value = f"<{error}>"
        found[name] = {"value": value, "timestamp": float(item.get("timestamp") or 0.0)}
    return found


def value_for(value: Any, is_float: bool) -> Any:
    """A reading's value as it goes into a column: plain, and None in a float column is NaN."""
    if value is None:
        return float("nan") if is_float else None
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return list(value)
    return value


def files_of(event: Any) -> list[dict[str, Any]]:
    """Files that a device writes during a scan, from its `file_event` once it is staged: {"path", "name", "dataset"} each.

    event: None, or a value or signal with `file_path` and, if it is not meant as a whole, `hinted_h5_entries`: name -> path
    of a dataset in it. Of the released BEC's FileEventSignal the value is a message with these.
    """
    if event is not None and not isinstance(event, Mapping) and callable(getattr(event, "get", None)):
        event = event.get()
    said = event if isinstance(event, Mapping) else getattr(event, "__dict__", {})
    path, entries = said.get("file_path"), said.get("hinted_h5_entries")
    if not path:
        return []
    if not isinstance(entries, Mapping) or not entries:
        entries = {"data": "/"}
    return [
        {"path": str(path), "name": str(name), "dataset": str(dataset)} for name, dataset in entries.items()
    ]


def missing_signal(device: str, signal: str, found: Sequence[str]) -> DeviceError:
    """A device that did not give what it described when it was staged."""
    return DeviceError(
        f"{device} gave no value for {signal}, which it described when the scan began (it gave "
        f"{', '.join(found) or 'nothing'})",
        code=ReasonCode.DEVICE_FAILED,
        device=device,
    )


def sendable(value: Any, what: str, depth: int = 0) -> Any:
    """A Python value as messages can carry it: named tuples become dicts, tuples lists, numpy scalars numbers.

    Raises ParameterError that names `what` for a value that has no representation, MessageTooLarge for a large array.
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, np.ndarray):
        if value.nbytes > MAX_ARRAY_BYTES:
            raise MessageTooLarge(
                f"{what} gives an array of {value.nbytes / 1e6:.3g} MB; above {MAX_ARRAY_BYTES / 1e3:.3g} kB arrays "
                "are not sent in messages"
            )
        if value.dtype.kind == "O":
            return [sendable(item, what, depth + 1) for item in value.tolist()]
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Enum):
        return value.value
    if depth > 20:
        raise ParameterError(f"{what} gives a value that is nested too deeply to be sent")
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {
            name: sendable(item, what, depth + 1) for name, item in zip(value._fields, value, strict=True)
        }
    if isinstance(value, Mapping):
        return {str(key): sendable(item, what, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [sendable(item, what, depth + 1) for item in items]
    raise ParameterError(
        f"{what} gives a value of type {type(value).__name__}, which cannot be sent; ask for a value of it "
        "(numbers, text, lists, dicts and arrays can be sent)"
    )


def _dtype_name(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "SUO":
        return "str"
    if dtype.kind not in "biufc":
        return "float64"
    return dtype.name


def _precision(value: Any) -> int | None:
    return (
        int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None
    )
