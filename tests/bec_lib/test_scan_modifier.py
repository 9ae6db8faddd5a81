"""What a modifier declares, what becomes of the signatures, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from bec_lib.errors import ParameterError, PluginError
from bec_lib.messages import ParameterInfo, ScanInfo
from bec_lib.scans import (
    Move,
    Points,
    Scan,
    ScanModifier,
    Steps,
    Wait,
    after,
    before,
    change,
    cleanup,
    hide,
    instead,
)
from bec_lib.scans.modifier import Hooks, Modification, Original, hooks_of, modify
from bec_lib.scans.signature import BoundCall

EXPOSURE = ParameterInfo(name="exp_time", type="float", default=0.0, ge=0.0, le=100.0, unit="s")
MODE = ParameterInfo(name="mode", type="str", default="fast", choices=["fast", "slow", "odd"])
STEPS = ParameterInfo(name="steps", type="int", required=True, ge=1)
INFOS = {
    "line_scan": ScanInfo(name="line_scan", parameters=[STEPS, EXPOSURE, MODE]),
    "line_list": ScanInfo(name="line_list", parameters=[EXPOSURE]),
    "time_scan": ScanInfo(name="time_scan", parameters=[EXPOSURE]),
    "mv": ScanInfo(name="mv", is_scan=False),
}


class Counting(Scan):
    scan_name = "line_scan"

    def run(self) -> Steps:
        yield Points(3)


class Shutter(ScanModifier):
    """The shutter."""

    @before("points", scans="line_*")
    def open(self) -> Steps:
        yield Move({"shutter": 1})

    @after("points", scans="line_*")
    @cleanup(scans="line_*")
    def close(self) -> Steps:
        yield Move({"shutter": 0})


class Polite(ScanModifier):
    @before("open")
    def a(self) -> Steps:
        yield Wait(1)

    @after("open")
    def b(self) -> Steps:
        yield Wait(2)

    @instead("points")
    def c(self, original: Any) -> Steps:
        yield Wait(3)
        yield from original()
        yield Wait(4)

    @instead("baseline")
    def d(self, original: Any) -> Steps:
        yield Wait(5)

    @before("close")
    def e(self) -> Steps:
        yield Wait(6)


def hooks(*kinds: type[ScanModifier]) -> Hooks:
    made = hooks_of(Modification(INFOS["line_scan"], modifiers=kinds), Counting(BoundCall((), {})), ["samx"])
    assert made is not None
    return made


def told(steps: Any) -> list[str]:
    def word(step: Any) -> str:
        match step:
            case Original():
                return str(step.phase)
            case Wait():
                return f"wait {step.seconds:g}"
            case Move():
                return f"shutter {step.targets['shutter']}"
        return type(step).__name__

    return [word(step) for step in steps]


def parameter_of(made: Modification, name: str) -> ParameterInfo:
    return next(p for p in made.info.parameters if p.name == name)


def test_steps_stand_where_they_belong() -> None:
    scan = Counting(BoundCall((), {}))
    assert told(hooks(Shutter).steps(scan)) == [
        "stage", "baseline", "shutter 1", "Points", "shutter 0", "complete", "return", "unstage",
    ]  # fmt: skip
    assert told(hooks(Polite).steps(scan)) == [
        "wait 1", "wait 2", "stage", "wait 5", "wait 3", "Points", "wait 4", "complete", "return", "unstage", "wait 6",
    ]  # fmt: skip
    assert told(hooks(Shutter, Polite).cleanup()) == ["shutter 0"]
    assert hooks(Shutter).told() == [
        "The modifier Shutter does open before points, close after points, close if it is aborted."
    ]


def test_the_original_can_be_done_once() -> None:
    class Twice(ScanModifier):
        @instead("points")
        def points(self, original: Any) -> Steps:
            yield from original()
            yield from original()

    with pytest.raises(ParameterError, match="second time"):
        list(hooks(Twice).steps(Counting(BoundCall((), {}))))


def test_a_modifier_that_does_not_apply_leaves_the_scan_alone() -> None:
    class Never(Shutter):
        def applies(self) -> bool:
            return "shutter" in self.known_devices

    made = Modification(INFOS["line_scan"], modifiers=(Never,))
    scan = Counting(BoundCall((), {}))
    assert hooks_of(made, scan, ["samx"]) is None
    assert hooks_of(made, scan, ["samx", "shutter"]) is not None
    assert hooks_of(None, scan, []) is None


def test_patterns_choose_the_scans_and_moves_are_none() -> None:
    class All(ScanModifier):
        @before("stage")
        def it(self) -> Steps:
            yield Wait()

    made, failed, about = modify(INFOS, [("mine", Shutter), ("mine", All)])
    assert not failed
    assert {name: [k.__name__ for k in m.modifiers] for name, m in made.items()} == {
        "line_scan": ["Shutter", "All"],
        "line_list": ["Shutter", "All"],
        "time_scan": ["All"],
    }
    assert made["line_scan"].info.modifiers == ["mine.Shutter", "mine.All"]
    assert about["mine.Shutter"].scans["line_scan"] == ["cleanup", "after points", "before points"]
    assert about["mine.Shutter"].doc == "The shutter."
    assert INFOS["line_scan"].modifiers == []


def test_defaults_bounds_choices_and_hidden_parameters_are_published() -> None:
    class House(ScanModifier):
        defaults = {"line_scan": {"steps": 11}, "*": {"exp_time": 0.1}}
        parameters = {"line_scan": {"mode": hide("slow"), "exp_time": change(ge=-5, le=2, doc="Short.")}}

    made, failed, about = modify(INFOS, [("mine", House)])
    assert not failed
    steps, exposure = (parameter_of(made["line_scan"], name) for name in ("steps", "exp_time"))
    assert (steps.required, steps.default) == (False, 11)
    # Bounds are narrowed, never widened.
    assert (exposure.ge, exposure.le, exposure.doc) == (0.0, 2, "Short.")
    assert made["line_scan"].hidden == {"mode": "slow"}
    assert [p.name for p in made["line_scan"].info.parameters] == ["steps", "exp_time"]
    assert parameter_of(made["time_scan"], "exp_time").default == 0.1
    assert made["line_scan"].modifiers == ()
    assert about["mine.House"].scans["line_scan"] == [
        "exp_time=0.1, exp_time >= -5, exp_time <= 2",
        "steps=11",
        "hides mode",
    ]


def test_two_modifiers_of_one_slot_are_refused_with_both_names() -> None:
    class Other(ScanModifier):
        @before("points", scans="line_scan")
        def open(self) -> Steps:
            yield Wait()

    made, failed, _ = modify(INFOS, [("a", Shutter), ("b", Other)])
    problem = made["line_scan"].problem
    assert "Shutter of the plugin a" in problem and "Other of the plugin b" in problem
    assert "before points of line_scan" in problem
    sentence = (
        "Shutter of the plugin a, and Other of the plugin b, both want to run before points of line_scan. "
        "These scans cannot run until one of them gives way"
    )
    assert failed == {"a": sentence, "b": sentence}
    assert made["line_list"].problem == ""


def test_two_modifiers_of_one_parameter_are_refused_too() -> None:
    class One(ScanModifier):
        defaults = {"line_scan": {"exp_time": 1.0}}

    class Two(ScanModifier):
        defaults = {"line_*": {"exp_time": 2.0}}

    made, failed, _ = modify(INFOS, [("a", One), ("b", Two)])
    assert "to change the parameter exp_time of line_scan" in made["line_scan"].problem
    assert set(failed) == {"a", "b"}


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"defaults": {"lin_scan": {"exp_time": 1}}}, "no scan 'lin_scan'. Did you mean line_scan"),
        ({"defaults": {"line_scan": {"expo": 1}}}, "no scan line_scan has a parameter 'expo'"),
        ({"defaults": {"line_scan": {"exp_time": -1}}}, "must be at least 0 s"),
        ({"defaults": {"line_scan": {"exp_time": "long"}}}, "must be a number"),
        ({"parameters": {"line_scan": {"steps": hide()}}}, "cannot be hidden without a default"),
        ({"parameters": {"line_scan": {"mode": change(choices=["new"])}}}, "can only be taken away"),
        ({"parameters": {"line_scan": {"mode": change(choices=["slow"])}}}, "must be one of 'slow'"),
        ({}, "it changes nothing"),
    ],
)
def test_a_wrong_declaration_is_named_and_left_out(declared: dict[str, Any], words: str) -> None:
    kind = type("Wrong", (ScanModifier,), declared)
    made, failed, about = modify(INFOS, [("mine", kind), ("yours", Shutter)])
    assert words in failed["mine"] and "Wrong of the plugin mine" in failed["mine"]
    assert set(failed) == {"mine"} and set(about) == {"yours.Shutter"}
    assert made["line_scan"].modifiers == (Shutter,)


def test_what_cannot_be_declared_is_refused_at_once() -> None:
    with pytest.raises(PluginError, match="Did you mean stage"):
        before("stages")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="the phase stage cannot be replaced"):
        instead("stage")
    with pytest.raises(PluginError, match="gives no steps"):

        @before("points")
        def nothing(self: Any) -> None:
            pass


def test_two_methods_of_one_modifier_for_one_slot_are_one_too_many() -> None:
    class Torn(ScanModifier):
        @before("points")
        def one(self) -> Steps:
            yield Wait()

        @before("points", scans="line_scan")
        def two(self) -> Steps:
            yield Wait()

    _, failed, _ = modify(INFOS, [("mine", Torn)])
    assert "two methods before points of line_scan" in failed["mine"]
