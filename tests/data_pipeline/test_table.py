"""Points as columns, and which column a name means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bec_lib.errors import ParameterError
from bec_lib.messages import PointsMessage, ScanSchemaMessage, SignalSchema
from data_pipeline.table import Table, default_x, default_y, places_in, resolve


def block(first, *columns):
    count = len(columns[0])
    return PointsMessage(
        scan_id="s",
        first_index=first,
        count=count,
        values=list(columns),
        device_times=[],
        server_times=[0.0] * count,
    )


SCHEMA = ScanSchemaMessage(
    scan_id="s",
    motors=["samx"],
    signals=[
        SignalSchema(device="samx", signal="samx_setpoint", kind="normal"),
        SignalSchema(device="samx", signal="samx"),
        SignalSchema(device="cam", signal="cam_image", shape=[3, 4]),
        SignalSchema(device="cam", signal="cam_name", dtype="str"),
        SignalSchema(device="bpm", signal="bpm_gain", kind="normal"),
        SignalSchema(device="bpm", signal="bpm_sum", kind="hinted"),
    ],
)


@pytest.mark.parametrize(
    "name, index",
    [
        ("samx", 1),
        ("samx.samx", 1),
        ("samx.setpoint", 0),
        ("samx.samx_setpoint", 0),
        ("samx_setpoint", 0),
        ("bpm", 5),
        ("bpm.bpm_gain", 4),
    ],
)
def test_a_name_means_a_column(name, index):
    assert resolve(SCHEMA, name) == index


@pytest.mark.parametrize(
    "name, words",
    [
        ("smax", "did you mean samx"),
        ("xyzzy", "there are samx.samx_setpoint, samx.samx, bpm.bpm_gain, bpm.bpm_sum"),
        ("cam.cam_image", "shape 3x4"),
        ("cam.name", "type str"),
        ("cam", "no signal 'cam'"),
    ],
)
def test_a_name_that_means_no_number_is_refused_with_what_there_is(name, words):
    with pytest.raises(ParameterError, match=words):
        resolve(SCHEMA, name)


def test_without_names_the_first_motor_and_the_first_hinted_detector_are_meant():
    assert default_x(SCHEMA) == 1
    assert default_y(SCHEMA) == 5
    alone = SCHEMA.model_copy(update={"motors": [], "signals": []})
    for default in (default_x, default_y):
        with pytest.raises(ParameterError, match="name the signal"):
            default(alone)


def test_points_become_columns():
    table = Table([2, 0])
    assert table.append(block(0, [1, 2], ["a", "b"], [5.0, 6.0]))
    assert table.append(block(2, [3], ["c"], [7.0]))
    assert table.column(0).tolist() == [1, 2, 3]
    assert table.column(2).tolist() == [5, 6, 7]
    assert table.count == table.rows == 3


def test_points_that_come_again_are_passed_over_and_a_gap_is_noticed():
    table = Table([0])
    table.append(block(0, [1, 2, 3]))
    assert table.append(block(0, [9, 9, 9]))
    assert table.append(block(2, [9, 4]))
    assert not table.append(block(7, [8]))
    assert table.column(0).tolist() == [1, 2, 3, 4]


def test_what_is_no_number_is_not_a_number():
    table = Table([0])
    table.append(block(0, [1, None, "x", "2.5"]))
    table.append(block(4, [np.zeros(3)]))
    np.testing.assert_array_equal(table.column(0), [1, np.nan, np.nan, 2.5, np.nan])


def test_another_version_of_the_schema_has_the_columns_elsewhere():
    other = SCHEMA.model_copy(update={"version": 2, "signals": SCHEMA.signals[:0:-1]})
    places = places_in(SCHEMA, other, [0, 1])
    assert places == {0: None, 1: 4}
    table = Table([0, 1])
    table.append(block(0, [1], [10]))
    table.append(block(1, *[[n] for n in (20, 21, 22, 23, 24)]), places)
    np.testing.assert_array_equal(table.column(0), [1, np.nan])
    np.testing.assert_array_equal(table.column(1), [10, 24])


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 50))
def test_memory_is_bounded_and_what_is_kept_is_evenly_spread(sizes, limit):
    table = Table([0], max_rows=limit)
    total = 0
    for size in sizes:
        table.append(block(total, list(range(total, total + size))))
        total += size
        assert table.rows <= limit and table.count == total
    assert table.column(0).tolist() == list(range(0, total, table.stride))
    assert table.stride == 1 or total > limit


def test_memory_grows_by_doubling():
    table, sizes = Table([0]), set()
    for index in range(5000):
        table.append(block(index, [0.0]))
        sizes.add(table.nbytes)
    assert len(sizes) == 8, "64, 128 ... 8192 rows"
