"""What a device said, as columns and plain values."""

from __future__ import annotations

import enum
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

from bec_lib.errors import MessageTooLarge, ParameterError
from device_server.readings import (
    Columns,
    configuration,
    dtype_of,
    plain_reading,
    sendable,
    staged_signals,
    unit_of,
    value_for,
)


@pytest.mark.parametrize(
    ("description", "value", "expected"),
    [
        ({"dtype": "number"}, 1.0, "float64"),
        # A soft signal that holds 0 may hold 0.5 next.
        ({"dtype": "integer"}, 0, "float64"),
        ({"dtype": "integer", "dtype_numpy": "<i8"}, 0, "int64"),
        ({"dtype": "integer", "dtype_numpy": "|u1"}, 0, "uint8"),
        ({"dtype": "string"}, "a", "str"),
        ({"dtype": "string", "dtype_numpy": "<U10"}, "a", "str"),
        ({"dtype": "boolean"}, True, "bool"),
        ({"dtype": "array", "shape": [3]}, np.zeros(3, np.int16), "int16"),
        ({"dtype": "array", "shape": [3]}, None, "float64"),
        ({"dtype": "number", "dtype_numpy": "nonsense"}, 1.0, "float64"),
        ({}, None, "float64"),
    ],
)
def test_types(description: dict[str, Any], value: Any, expected: str) -> None:
    assert dtype_of(description, value) == expected


@pytest.mark.parametrize(
    ("description", "units", "default", "expected"),
    [
        ({"units": "mm"}, None, "", "mm"),
        ({"egu": "deg"}, None, "", "deg"),
        ({}, None, "um", "um"),
        ({"units": "mm"}, "um", "deg", "um"),
        ({"units": "mm"}, {"x": "keV"}, "deg", "keV"),
        ({"units": "mm"}, {"y": "keV"}, "deg", "mm"),
        ({"units": None}, None, "", ""),
    ],
)
def test_the_device_file_has_the_last_word_on_units(
    description: dict[str, Any], units: Any, default: str, expected: str
) -> None:
    assert unit_of("x", description, units, default) == expected


def test_columns_keep_the_order_of_the_description_and_know_hints_and_units() -> None:
    signals, refused = staged_signals(
        {
            "samx": {"dtype": "number", "shape": [], "precision": 3},
            "samx_setpoint": {"dtype": "number", "shape": []},
            "samx_moving": {"dtype": "integer", "shape": [], "dtype_numpy": "<i8"},
            "samx_wave": {"dtype": "array", "shape": [4], "dtype_numpy": "<f4", "units": "V"},
        },
        device="samx",
        hinted=["samx"],
        default_unit="mm",
    )
    assert refused == {}
    assert [(s.signal, s.dtype, s.shape, s.unit, s.kind, s.precision) for s in signals] == [
        ("samx", "float64", [], "mm", "hinted", 3),
        ("samx_setpoint", "float64", [], "mm", "normal", None),
        ("samx_moving", "int64", [], "", "normal", None),
        ("samx_wave", "float32", [4], "V", "normal", None),
    ]


def test_an_array_that_is_too_large_is_refused_with_its_size() -> None:
    signals, refused = staged_signals(
        {"image": {"dtype": "array", "shape": [512, 512], "dtype_numpy": "<u2"}}, device="cam"
    )
    assert signals == []
    assert "image gives arrays of 0.524 MB (512x512 uint16)" in refused["image"]


def test_values_of_columns() -> None:
    assert np.isnan(value_for(None, True))
    assert value_for(None, False) is None
    assert type(value_for(np.float32(1.5), True)) is float
    assert value_for((1, 2), False) == [1, 2]
    assert value_for("open", False) == "open"


class Mode(enum.Enum):
    FAST = 2


def test_what_can_be_sent() -> None:
    pair = namedtuple("pair", "x y")
    assert sendable(pair(1, np.int16(2)), "p") == {"x": 1, "y": 2}
    assert sendable({"a": (1, Mode.FAST)}, "p") == {"a": [1, 2]}
    assert sendable({3, 1}, "p") == [1, 3]
    array = np.zeros(3)
    assert sendable(array, "p") is array
    assert sendable(np.array([1, "a", None], dtype=object), "p") == [1, "a", None]


def test_what_cannot_be_sent_is_named() -> None:
    with pytest.raises(ParameterError, match=r"samx\.thing gives a value of type object"):
        sendable({"a": [object()]}, "samx.thing")
    with pytest.raises(MessageTooLarge, match="8 MB"):
        sendable(np.zeros(1_000_000), "samx.wave")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ParameterError, match="nested too deeply"):
        sendable(endless, "samx.loop")


def test_a_reading_with_one_value_that_cannot_travel_keeps_the_others() -> None:
    reading = {"a": {"value": 1.0, "timestamp": 2.0}, "b": {"value": object(), "timestamp": None}}
    plain = plain_reading(reading)
    assert plain["a"] == {"value": 1.0, "timestamp": 2.0}
    assert "cannot be sent" in plain["b"]["value"]


def test_configuration_has_units_where_they_are_known() -> None:
    reading = {"v": {"value": 2.0, "timestamp": 1.0}, "n": {"value": "x", "timestamp": 1.0}}
    assert configuration(reading, {"v": {"units": "mm/s"}, "n": {}}, "mm") == {
        "v": {"value": 2.0, "timestamp": 1.0, "units": "mm/s"},
        "n": {"value": "x", "timestamp": 1.0},
    }


def test_a_row_as_a_reading() -> None:
    columns = Columns((("m", "m"), ("m", "m_sp"), ("d", "d")))
    assert columns.as_reading([1.0, 2.0, None], [10.0, 11.0, 0.0]) == {
        "m": {"m": {"value": 1.0, "timestamp": 10.0}, "m_sp": {"value": 2.0, "timestamp": 11.0}}
    }
