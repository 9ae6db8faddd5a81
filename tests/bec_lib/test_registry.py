"""Who is read when, and who may be moved."""

from __future__ import annotations

from typing import Any

from bec_lib.devices.registry import Registry, main_value
from bec_lib.messages import DeviceInfoMessage, DeviceMessage, DeviceSessionMessage


def raw(priority: str, **more: Any) -> dict[str, Any]:
    return {"deviceClass": "a.B", "enabled": True, "readoutPriority": priority, **more}


REGISTRY = Registry.of_session(
    DeviceSessionMessage(
        version=3,
        devices={
            "samx": raw("baseline"),
            "samy": raw("baseline", readOnly=True),
            "bpm": raw("monitored"),
            "eiger": raw("monitored", softwareTrigger=True),
            "falcon": raw("async", softwareTrigger=True),
            "temp": raw("on_request"),
            "off": raw("monitored", enabled=False),
            "dead": raw("baseline"),
        },
        failed={"dead": "it does not answer within 5 s"},
        hash="h",
    )
)


def test_motors_come_first_then_those_named_then_the_sessions_own() -> None:
    groups = REGISTRY.readout_groups(["samx"], monitored=["temp", "samx"])
    assert groups.monitored == ["samx", "temp", "bpm", "eiger"]
    assert groups.baseline == ["samy"]
    assert groups.async_ == ["falcon"]
    assert groups.on_request == []
    assert REGISTRY.triggered(groups) == ["eiger", "falcon"]


def test_on_request_leaves_out_but_never_a_motor() -> None:
    groups = REGISTRY.readout_groups(["samx"], on_request=["bpm", "samx", "falcon"])
    assert groups.monitored == ["samx", "eiger"]
    assert groups.on_request == ["bpm", "falcon", "temp"]
    assert groups.async_ == []


def test_why_a_device_cannot_be_moved() -> None:
    assert REGISTRY["samx"].move_problem() == ""
    assert "read-only" in REGISTRY["samy"].move_problem()
    known = REGISTRY.with_facts({"bpm": DeviceInfoMessage(name="bpm", settable=False)})
    assert "bpm (a.B) cannot be moved: it has no set()" in known["bpm"].move_problem()
    assert "off is disabled" in REGISTRY["off"].move_problem()
    assert "dead is not available: it does not answer" in REGISTRY["dead"].move_problem()


def test_newer_facts_replace_older_ones() -> None:
    readings = {"samx": DeviceMessage(signals={"samx": {"value": 1.5}, "samx_setpoint": {"value": 9}})}
    infos = {
        "samx": DeviceInfoMessage(name="samx", limits=[-1, 2], unit="mm"),
        "dead": DeviceInfoMessage(name="dead", state="ready"),
        "bpm": DeviceInfoMessage(name="bpm", state="failed", error="the cable is out"),
        "stranger": DeviceInfoMessage(name="stranger"),
    }
    known = REGISTRY.with_facts(infos, readings)
    assert (known["samx"].position, known["samx"].limits, known["samx"].unit) == (1.5, (-1, 2), "mm")
    assert known["dead"].is_usable
    assert "the cable is out" in known["bpm"].problem()
    assert "bpm" not in known.readout_groups().monitored
    assert "stranger" not in known
    assert REGISTRY["samx"].position is None  # a value: the old one is as it was


def test_equal_limits_are_none() -> None:
    known = REGISTRY.with_facts({"samx": DeviceInfoMessage(name="samx", limits=[0, 0])})
    assert known["samx"].limits is None


def test_the_main_value_of_a_reading() -> None:
    info = DeviceInfoMessage(name="m", hints=["m_value"])
    assert main_value("m", info, DeviceMessage(signals={"m": {"value": 1}, "m_value": {"value": 2}})) == 1
    assert main_value("m", info, DeviceMessage(signals={"x": {"value": 1}, "m_value": {"value": 2}})) == 2
    assert main_value("m", None, DeviceMessage(signals={"x": {"value": "7"}})) == 7
    assert main_value("m", None, DeviceMessage(signals={"x": {"value": "open"}})) is None
    assert main_value("m", None, DeviceMessage(signals={})) is None


def test_unknown_names_get_a_suggestion() -> None:
    (problem,) = REGISTRY.unknown(["samx", "eigr"])
    assert "'eigr'" in problem and "Did you mean eiger?" in problem
