"""Points to arrays: a block of columns as the rows of a file's datasets.

Answers how a value is stored that does not fit its column; knows no file. A device may fail to answer, give a
text where it announced a number, or an array of another length: the point is kept, and the cell becomes the
fill value or is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bec_lib.messages import PointsMessage, ScanSchemaMessage
from file_writer.layout import Column, Source

# A column of the file as `hdf5.LiveFile.columns` gives it: where from, the type and the shape of one row.
FileColumn = tuple[Column, np.dtype[Any], tuple[int, ...]]


def merged_schema(schemas: Mapping[int, ScanSchemaMessage]) -> ScanSchemaMessage:
    """One schema with the columns of all versions, the newest version's description of each.

    Columns keep their place; those that a later version adds come last.
    """
    newest = schemas[max(schemas)]
    if len(schemas) == 1:
        return newest
    ordered = [schemas[version] for version in sorted(schemas)]
    signals = {(item.device, item.signal): item for schema in ordered for item in schema.signals}
    baseline = {(item.device, item.signal): item for schema in ordered for item in schema.baseline}
    devices = {item.name: item for schema in ordered for item in schema.devices}
    return newest.model_copy(
        update={
            "signals": list(signals.values()),
            "baseline": list(baseline.values()),
            "devices": list(devices.values()),
        }
    )


def places(schema: ScanSchemaMessage, merged: ScanSchemaMessage) -> list[int | None]:
    """For each column of the merged schema where it stands in this version; None where it is absent."""
    found = {(item.device, item.signal): index for index, item in enumerate(schema.signals)}
    return [found.get((item.device, item.signal)) for item in merged.signals]


def row_arrays(
    blocks: Sequence[PointsMessage],
    columns: Sequence[FileColumn],
    schemas: Mapping[int, ScanSchemaMessage],
    started: float,
) -> tuple[list[np.ndarray], dict[int, int]]:
    """The rows of some blocks, an array for each column, and column of the merged schema -> how many of its
    values did not fit.

    started: of the scan, seconds UTC, from which elapsed times count.
    """
    merged = merged_schema(schemas)
    by_version = {
        block.schema_version: None
        if schemas.get(block.schema_version, merged) is merged
        else places(schemas[block.schema_version], merged)
        for block in blocks
    }
    misfits: dict[int, int] = {}
    arrays: list[np.ndarray] = []
    elapsed = np.array([time for block in blocks for time in block.server_times], dtype=np.float64) - started
    for column, dtype, shape in columns:
        match column.source:
            case Source.ELAPSED_S:
                arrays.append(elapsed)
            case Source.ELAPSED_NS:
                arrays.append(np.round(elapsed * 1e9).astype(np.int64))
            case _:
                values = _values(blocks, column, by_version)
                data, misfit = as_rows(values, dtype, shape)
                arrays.append(data)
                if misfit:
                    misfits[column.index] = misfits.get(column.index, 0) + misfit
    return arrays, misfits


def _values(
    blocks: Sequence[PointsMessage], column: Column, by_version: Mapping[int, list[int | None] | None]
) -> Any:
    parts = []
    for block in blocks:
        place = by_version[block.schema_version]
        index = column.index if place is None else place[column.index]
        cells = block.values if column.source is Source.VALUE else block.device_times
        parts.append([None] * block.count if index is None else cells[index])
    return parts[0] if len(parts) == 1 else [value for part in parts for value in part]


def as_rows(values: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """A column of values as it is stored, and how many of them did not fit.

    None and what is no number becomes the fill value, a text is cut at a character, an array of another
    length is cut or filled up.
    """
    if dtype.kind == "S":
        return _texts(values, dtype)
    try:
        data = np.asarray(values)
        if data.shape == (len(values), *shape) and _is_kept(data.dtype, dtype):
            return np.ascontiguousarray(data, dtype=dtype), 0
    except (ValueError, TypeError, OverflowError):
        pass
    return _one_by_one(values, dtype, shape)


def _is_kept(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """No value changes by more than rounding when the one type is stored as the other."""
    return found == wanted or (
        found.kind in "biuf" and (wanted.kind == "f" or np.can_cast(found, wanted, "safe"))
    )


def _one_by_one(values: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    result = np.full((len(values), *shape), fill_value(dtype), dtype=dtype)
    changed = 0
    for row, value in enumerate(values):
        try:
            data = np.asarray(value)
            if dtype.kind in "iu" and data.dtype.kind in "iufb":
                limits = np.iinfo(dtype)
                if not np.all((data >= limits.min) & (data <= limits.max) & (data == np.trunc(data))):
                    changed += 1
                    continue
            elif data.dtype.kind not in "biuf":
                changed += 1
                continue
            if data.shape == shape:
                result[row] = data.astype(dtype)
                continue
            changed += 1
            if data.ndim == len(shape):
                part: tuple[Any, ...] = tuple(
                    slice(min(a, b)) for a, b in zip(data.shape, shape, strict=True)
                )
                result[row][part] = data[part].astype(dtype)
        except (ValueError, TypeError, OverflowError):
            changed += 1
    return result, changed


def _texts(values: Any, dtype: np.dtype[Any]) -> tuple[np.ndarray, int]:
    texts, changed = [], 0
    for value in values:
        text = ("" if value is None else str(value)).encode()
        if len(text) > dtype.itemsize:
            text = text[: dtype.itemsize].decode(errors="ignore").encode()
            changed += 1
        texts.append(text)
    return np.array(texts, dtype=dtype), changed


def fill_value(dtype: np.dtype[Any]) -> Any:
    """What stands where there is no value."""
    match dtype.kind:
        case "f" | "c":
            return np.nan
        case "i":
            return np.iinfo(dtype).min
        case "S":
            return b""
        case _:
            return 0
