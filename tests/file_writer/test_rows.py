from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bec_lib.messages import PointsMessage, ScanSchemaMessage
from file_writer.layout import Column, Source
from file_writer.rows import as_rows, merged_schema, places, row_arrays
from tests.file_writer.samples import COUNTER, DIODE, SAMX, STARTED, points_of, schema_of

F8, I8 = np.dtype("float64"), np.dtype("int64")


def test_columns_become_arrays() -> None:
    schema = schema_of((SAMX, COUNTER))
    columns = [
        (Column(Source.VALUE, 1), I8, ()),
        (Column(Source.TIMESTAMP, 0), F8, ()),
        (Column(Source.ELAPSED_S), F8, ()),
        (Column(Source.ELAPSED_NS), I8, ()),
    ]

    arrays, misfits = row_arrays(
        [points_of(schema, 0, 2), points_of(schema, 2, 1)], columns, {1: schema}, STARTED
    )

    assert arrays[0].tolist() == [0, 1, 2]
    assert arrays[1].tolist() == [STARTED, STARTED + 0.5, STARTED + 1.0]
    assert arrays[2].tolist() == [0.0, 0.5, 1.0]
    assert arrays[3].tolist() == [0, 500_000_000, 1_000_000_000]
    assert misfits == {}


@pytest.mark.parametrize(
    ("values", "dtype", "shape", "stored", "misfits"),
    [
        ([1.5, None], F8, (), [1.5, np.nan], 1),
        ([1, 2], F8, (), [1.0, 2.0], 0),
        ([True, False], F8, (), [1.0, 0.0], 0),
        (["open", 2.0], F8, (), [np.nan, 2.0], 1),
        ([1, 2.0], I8, (), [1, 2], 0),
        ([1, 2.5], I8, (), [1, np.iinfo(I8).min], 1),
        ([1, np.nan], I8, (), [1, np.iinfo(I8).min], 1),
        ([1, 300], np.dtype("uint8"), (), [1, 0], 1),
        ([1, None], np.dtype("uint8"), (), [1, 0], 1),
        ([[1, 2], [3, 4]], F8, (2,), [[1, 2], [3, 4]], 0),
        ([[1, 2], [3, 4, 5]], F8, (2,), [[1, 2], [3, 4]], 1),
        ([[1, 2], [3]], F8, (2,), [[1, 2], [3, np.nan]], 1),
        ([[1, 2], None], F8, (2,), [[1, 2], [np.nan, np.nan]], 1),
        (["a", "bcdefg", None], np.dtype("S3"), (), [b"a", b"bcd", b""], 1),
        (["äöü"], np.dtype("S3"), (), ["ä".encode()], 1),
        ([], F8, (), [], 0),
    ],
)
def test_a_cell_that_does_not_fit_is_blank_or_cut_and_counted(
    values: list[Any], dtype: np.dtype[Any], shape: tuple[int, ...], stored: list[Any], misfits: int
) -> None:
    array, found = as_rows(values, dtype, shape)

    assert array.dtype == dtype
    assert array.shape == (len(values), *shape)
    if dtype.kind == "S":
        assert array.tolist() == stored
    else:
        np.testing.assert_array_equal(array, np.array(stored, dtype=dtype).reshape(array.shape))
    assert found == misfits


def test_the_schemas_of_all_versions_make_one() -> None:
    first = schema_of((SAMX, DIODE))
    second = schema_of((DIODE.model_copy(update={"unit": "uA"}), COUNTER), version=2)

    merged = merged_schema({1: first, 2: second})

    assert [signal.signal for signal in merged.signals] == ["samx", "diode", "counter"]
    assert merged.signals[1].unit == "uA"
    assert places(first, merged) == [0, 1, None]
    assert places(second, merged) == [None, 0, 1]


def test_points_of_an_older_schema_leave_later_columns_blank() -> None:
    schemas: dict[int, ScanSchemaMessage] = {
        1: schema_of((SAMX, DIODE)),
        2: schema_of((COUNTER, DIODE), version=2),
    }
    blocks: list[PointsMessage] = [points_of(schemas[1], 0, 1), points_of(schemas[2], 1, 1)]
    columns = [(Column(Source.VALUE, index), F8, ()) for index in range(3)]

    arrays, _ = row_arrays(blocks, columns, schemas, STARTED)

    np.testing.assert_array_equal(arrays, [[0.0, np.nan], [0.0, 1.0], [np.nan, 1.0]])
