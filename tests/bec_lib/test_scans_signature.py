"""A call is judged against a published signature: all problems at once, in the user's words."""

import math

import numpy as np
import pytest

from bec_lib.messages import BundleInfo, ParameterInfo, ScanInfo
from bec_lib.scans.signature import (
    bind,
    devices_of_call,
    did_you_mean,
    help_text,
    problems_of_call,
    signature_of,
    signature_text,
    split_keywords,
)

LINE = ScanInfo(
    name="line_scan",
    doc="A line.",
    bundle=BundleInfo(
        parameters=[
            ParameterInfo(name="device", type="device", required=True),
            ParameterInfo(name="start", type="float", required=True, reference_unit="device"),
            ParameterInfo(name="stop", type="float", required=True, reference_unit="device"),
        ],
        at_least=1,
    ),
    parameters=[
        ParameterInfo(name="steps", type="int", required=True, ge=1, doc="Number of points."),
        ParameterInfo(name="relative", type="bool", default=False),
        ParameterInfo(name="exp_time", type="float", default=0.0, ge=0, unit="s"),
        ParameterInfo(name="order", type="str", default="up", choices=["up", "down"]),
    ],
)
TIME = ScanInfo(
    name="time_scan",
    parameters=[
        ParameterInfo(name="points", type="int", required=True, ge=1),
        ParameterInfo(name="interval", type="float", required=True, gt=0, unit="s"),
        ParameterInfo(name="exp_time", type="float", default=0.0),
    ],
)
LIST = ScanInfo(
    name="list_scan",
    bundle=BundleInfo(
        parameters=[
            ParameterInfo(name="device", type="device"),
            ParameterInfo(name="positions", type="list"),
        ],
        at_least=1,
        at_most=2,
    ),
)
DEVICES = {"samx", "samy", "bpm4i"}


def problems(info: ScanInfo, *args: object, **kwargs: object) -> list[str]:
    return problems_of_call(info, args, kwargs, DEVICES)


def test_a_good_call_has_no_problems() -> None:
    assert problems(LINE, "samx", -1, 1, steps=11, exp_time=0.1) == []
    assert problems(LINE, "samx", -1, 1.5, "samy", np.float64(0), np.int64(2), steps=11.0) == []
    assert problems(TIME, 10, 0.5) == []
    assert problems(TIME, 10, interval=0.5) == []
    assert problems(LIST, "samx", [1, 2], "samy", np.array([3.0, 4.0])) == []


def test_an_incomplete_group_names_the_group_and_what_was_given() -> None:
    (problem,) = problems(LINE, "samx", -1, steps=3)
    assert "groups of 3 (device, start, stop), at least once; 2 given" in problem


def test_no_groups_at_all_and_too_many_groups() -> None:
    assert any("at least once; 0 given" in p for p in problems(LINE, steps=3))
    assert any("1 to 2 times; 6 given" in p for p in problems(LIST, "samx", [1], "samy", [1], "bpm4i", [1]))


def test_an_unknown_device_gets_a_suggestion() -> None:
    (problem,) = problems(LINE, "smax", -1, 1, steps=3)
    assert "no device 'smax'" in problem and "Did you mean samx" in problem


def test_everything_is_listed_at_once() -> None:
    found = problems(LINE, "nope", "a", math.nan, stepz=3, exp_time=-1, order="left")
    text = "\n".join(found)
    assert len(found) == 7
    assert "start for nope of line_scan (argument 2) must be a number, not 'a'" in text
    assert "is nan; it must be a finite number" in text
    assert "no keyword 'stepz'. Did you mean steps?" in text
    assert "exp_time of line_scan is -1 s; it must be at least 0 s" in text
    assert "must be one of 'up', 'down'" in text
    assert "line_scan needs steps=..., a whole number (Number of points)." in text


@pytest.mark.parametrize("value", [True, "3", None, [3], 10.5, math.inf, -math.inf, 0])
def test_steps_takes_whole_positive_numbers_only(value: object) -> None:
    assert len(problems(LINE, "samx", 0, 1, steps=value)) == 1


def test_one_device_twice_is_a_problem() -> None:
    assert any("samx twice" in p for p in problems(LINE, "samx", 0, 1, "samx", 0, 1, steps=3))


def test_positions_and_keywords_of_a_scan_without_groups() -> None:
    assert any("takes at most 3 arguments" in p for p in problems(TIME, 1, 2, 3, 4))
    assert any("points twice" in p for p in problems(TIME, 1, 2, points=3))
    assert any("greater than 0 s" in p for p in problems(TIME, 1, 0))


def test_lists_must_hold_finite_numbers() -> None:
    assert any("[1] = nan" in p for p in problems(LIST, "samx", [0.0, math.nan]))
    assert any("is empty" in p for p in problems(LIST, "samx", []))
    assert any("must be a list" in p for p in problems(LIST, "samx", 3))


def test_bind_splits_groups_and_fills_defaults() -> None:
    call = bind(LINE, ["samx", -1, 1, "samy", 0, 2], {"steps": 11.0})
    assert call.bundles == (("samx", -1.0, 1.0), ("samy", 0.0, 2.0))
    assert call.parameters == {"steps": 11, "relative": False, "exp_time": 0.0, "order": "up"}
    assert isinstance(call.parameters["steps"], int)
    assert bind(TIME, [5], {"interval": 1}).parameters == {"points": 5, "interval": 1.0, "exp_time": 0.0}
    assert devices_of_call(LINE, ["samx", -1, 1, "samy", 0, 2], {"steps": 3}) == ["samx", "samy"]


def test_keywords_of_every_scan_are_kept_apart() -> None:
    own, client = split_keywords({"steps": 3, "metadata": {"a": 1}, "scan_queue": "second"})
    assert own == {"steps": 3}
    assert client == {"metadata": {"a": 1}, "scan_queue": "second"}


def test_the_signature_is_shown_as_one_would_type_it() -> None:
    assert signature_text(LINE).startswith("line_scan(device, start, stop, ..., steps=..., relative=False")
    assert signature_text(TIME) == "time_scan(points, interval, exp_time=0.0)"
    signature = signature_of(LINE)
    assert list(signature.parameters)[:3] == ["device_start_stop", "steps", "relative"]
    assert "metadata" in signature.parameters
    text = help_text(LINE)
    assert "exp_time (float, in s, >= 0, default 0.0)" in text
    assert "start (float, in the unit of the device)" in text


def test_no_suggestion_where_nothing_is_near() -> None:
    assert did_you_mean("zzzz", DEVICES) == ""
