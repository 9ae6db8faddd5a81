"""Declaring a scan: what a class says is what is published, and mistakes in it are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bec_lib.errors import PluginError
from bec_lib.scans import Bundle, Device, PointScan, Scan, StepScan, argument, describe_scan, parameter
from bec_lib.scans.signature import BoundCall, bind


class Rock(StepScan):
    """Rock a motor about its place."""

    scan_name = "rock"
    arguments = Bundle(argument("device", Device), argument("width", float, of="device", gt=0), at_most=2)
    steps: int = parameter(ge=2, doc="Points.")
    mode: str = parameter("fast", choices=["fast", "slow"])
    temperature: float | None = parameter(None, unit="K")
    exp_time: float = parameter(0.5, gt=0, unit="s", doc="Longer than usual.")

    def positions(self) -> np.ndarray:
        return np.column_stack([np.linspace(-w, w, self.steps) for _, w in self.bundles])


def rock(*args: Any, start: dict[str, float] | None = None, **kwargs: Any) -> Rock:
    scan = Rock(bind(describe_scan(Rock), args, kwargs), start)
    scan.fill_targets()
    return scan


def test_a_class_is_published_as_it_is_declared() -> None:
    info = describe_scan(Rock)
    assert (info.name, info.doc, info.is_scan) == ("rock", "Rock a motor about its place.", True)
    assert [(p.name, p.type, p.reference_unit, p.gt) for p in info.bundle.parameters] == [
        ("device", "device", "", None),
        ("width", "float", "device", 0),
    ]
    assert (info.bundle.at_least, info.bundle.at_most) == (1, 2)
    by_name = {p.name: p for p in info.parameters}
    assert by_name["steps"].required and by_name["steps"].type == "int"
    assert by_name["mode"].choices == ["fast", "slow"]
    assert by_name["temperature"].type == "float" and by_name["temperature"].unit == "K"
    assert by_name["exp_time"].default == 0.5 and by_name["exp_time"].gt == 0  # the override, once
    assert [p.name for p in info.parameters].count("exp_time") == 1
    assert by_name["relative"].default is False


def test_positions_become_absolute_and_are_repeated_by_the_burst() -> None:
    assert rock("samx", 1, steps=3).targets.tolist() == [[-1], [0], [1]]  # type: ignore[union-attr]
    relative = rock("samx", 1, steps=2, relative=True, burst_at_each_point=2, start={"samx": 10.0})
    assert relative.targets.tolist() == [[9], [9], [11], [11]]  # type: ignore[union-attr]
    assert relative.num_points == 4 and relative.returns_to_start
    assert relative.motors == ["samx"]


def test_devices_may_stand_in_parameters_too() -> None:
    class Two(PointScan):
        scan_name = "two"
        motor: Device = parameter(doc="A motor.")

    info = describe_scan(Two)
    assert info.parameters[0].type == "device"
    assert Two(bind(info, ["samx"], {})).motors == ["samx"]


def test_a_scan_must_say_what_it_does() -> None:
    class Nothing(Scan):
        scan_name = "nothing"

    with pytest.raises(NotImplementedError, match="give it a run"):
        Nothing(BoundCall((), {})).run()


@pytest.mark.parametrize("name", ["", "Line Scan", "9lives", "x.y"])
def test_names_that_are_none_are_refused(name: str) -> None:
    kind = type("Bad", (StepScan,), {"scan_name": name})
    with pytest.raises(PluginError, match="scan_name is"):
        describe_scan(kind)


def test_a_parameter_without_a_usable_type_is_refused_by_name() -> None:
    class Untyped(StepScan):
        scan_name = "untyped"
        width = parameter(1.0)

    class Odd(StepScan):
        scan_name = "odd"
        width: complex = parameter(1.0)

    with pytest.raises(PluginError, match="the parameter width needs a type"):
        describe_scan(Untyped)
    with pytest.raises(PluginError, match=r"Odd\.width: .* is no type"):
        describe_scan(Odd)
