"""Beamline states as plain values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest

from bec_lib.conditions import Readings
from bec_lib.errors import ParameterError
from bec_lib.messages import BeamlineStatus
from bec_lib.states import BeamlineStateConfig, ConditionStateConfig, DeviceWithinLimitsStateConfig
from scan_server.states import BeamlineStates


class Moody(BeamlineStateConfig):
    kind: ClassVar[str] = "moody"

    def names(self) -> Sequence[str]:
        return ["samx"]

    def evaluate(self, value: Callable[[str], Any]) -> tuple[BeamlineStatus, str]:
        raise RuntimeError("not today")


def made() -> BeamlineStates:
    kinds = {k.kind: k for k in (DeviceWithinLimitsStateConfig, ConditionStateConfig, Moody)}
    return BeamlineStates(kinds, Readings(), {"other": "cannot be imported"})


def read(states: BeamlineStates, value: Any) -> list[str]:
    states._readings.take("samx", {"samx": {"value": value, "timestamp": 1.0}})
    return [f"{s.name} {s.status}" for s in states.judge(1.0, ["samx"])]


def test_within_limits() -> None:
    states = made()
    raw = {"name": "at_sample", "device": "samx", "low_limit": -1, "high_limit": 1, "tolerance": 0.1}
    assert states.define(states.config_of("device_within_limits", raw), 0.0).status is BeamlineStatus.UNKNOWN
    assert read(states, 0.0) == ["at_sample valid"]
    assert read(states, 0.5) == []
    assert read(states, 0.95) == ["at_sample warning"]
    assert read(states, 1.2) == ["at_sample invalid"]
    assert read(states, None) == ["at_sample unknown"]
    assert states.reading()["at_sample"]["value"] == "unknown"
    wider = states.updated("at_sample", {"high_limit": 2.0})
    states.define(wider, 0.0)
    assert read(states, 1.2) == ["at_sample valid"]


def test_conditions_and_plugins() -> None:
    states = made()
    states.define(
        states.config_of("condition", {"name": "c", "valid_when": "samx > 0", "warning_when": "samx > 5"}), 0
    )
    states.define(states.config_of("moody", {"name": "m"}), 0)
    assert read(states, 1.0) == ["c valid"]
    assert read(states, 6.0) == ["c warning"]
    assert read(states, -6.0) == ["c invalid"]
    assert states.message().states["m"].status is BeamlineStatus.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "raw", "why"),
    [
        ("device_within_limit", {}, "Did you mean device_within_limits.*other could not be loaded"),
        ("device_within_limits", {"name": "a", "device": "samx"}, "low_limit"),
        ("device_within_limits", {"name": "a b", "device": "samx", "low_limit": 1}, "name"),
        (
            "device_within_limits",
            {"name": "a", "device": "samx", "low_limit": 2, "high_limit": 1},
            "not below",
        ),
        ("condition", {"name": "a", "valid_when": "samx <"}, "not understood"),
    ],
)
def test_what_is_no_state_is_refused(kind: str, raw: dict[str, Any], why: str) -> None:
    with pytest.raises(ParameterError, match=why):
        made().config_of(kind, raw)


def test_unknown_states_are_named() -> None:
    with pytest.raises(ParameterError, match="no beamline state 'x'"):
        made().remove("x")
