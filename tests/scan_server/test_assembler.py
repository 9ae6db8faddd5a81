"""From request to plan: every limit before anything moves, and who is read when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bec_lib.devices.registry import Registry
from bec_lib.errors import ReasonCode
from bec_lib.messages import DeviceInfoMessage, DeviceMessage, DeviceSessionMessage, ScanQueueMessage
from bec_lib.scans import Device, PointScan, Scan, describe_scan, parameter
from scan_server.assembler import Assembled, assemble, devices_needed, limit_problems
from scan_server.guard import Rejected, check, is_name
from scan_server.scans import Acquire, GridScan, LineScan, ListScan, Mv, TimeScan


def raw(priority: str, **more: Any) -> dict[str, Any]:
    return {"deviceClass": "a.B", "enabled": True, "readoutPriority": priority, **more}


SESSION = DeviceSessionMessage(
    version=3,
    devices={
        "samx": raw("baseline"),
        "samy": raw("baseline", deviceServer="far"),
        "free": raw("baseline"),
        "bpm": raw("monitored"),
        "off": raw("monitored", enabled=False),
        "ro": raw("monitored", readOnly=True),
    },
    hash="h",
)
REGISTRY = Registry.of_session(SESSION).with_facts(
    {
        "samx": DeviceInfoMessage(name="samx", limits=[-10, 10], unit="mm"),
        "samy": DeviceInfoMessage(name="samy", limits=[0, 5], unit="deg"),
    },
    {"samx": DeviceMessage(signals={"samx": {"value": 9.0}})},
)
SCANS = {
    kind.scan_name: describe_scan(kind) for kind in (Acquire, GridScan, LineScan, ListScan, Mv, TimeScan)
}


def request(name: str, *args: Any, fields: dict[str, Any] | None = None, **kwargs: Any) -> ScanQueueMessage:
    return ScanQueueMessage(
        request_id="r", client_id="c", scan_type=name, args=list(args), kwargs=kwargs, **(fields or {})
    )


def plan(kind: type[Scan], *args: Any, devices: Registry = REGISTRY, **kwargs: Any) -> Any:
    made = assemble(kind, request(kind.scan_name, *args, **kwargs), devices)
    assert isinstance(made, Assembled), made
    return made.plan


def refused(kind: type[Scan], *args: Any, devices: Registry = REGISTRY, **kwargs: Any) -> Rejected:
    made = assemble(kind, request(kind.scan_name, *args, **kwargs), devices)
    assert isinstance(made, Rejected)
    return made


def test_a_plan_of_a_line() -> None:
    made = plan(LineScan, "samx", -1, 1, steps=3, exp_time=0.5, settling_time=0.25)
    assert made.motors == ("samx",) and made.positions.tolist() == [[-1], [0], [1]]
    assert (made.shape, made.num_points, made.relative) == ((3,), 3, False)
    assert made.groups.monitored == ["samx", "bpm", "ro"] and made.groups.baseline == ["samy", "free"]
    assert made.servers == ("main", "far") and made.server_of["samy"] == "far"
    assert made.estimated_s == pytest.approx(2.25, abs=0.01)
    assert made.config_hash == "h" and made.session_version == 3
    assert made.parameters["exp_time"] == 0.5


def test_bursts_repeat_each_position_and_show_in_the_shape() -> None:
    made = plan(GridScan, "samx", 0, 1, 2, "samy", 0, 1, 2, burst_at_each_point=3)
    assert made.shape == (2, 2, 3) and made.num_points == 12
    assert made.positions[:4, 0].tolist() == [0, 0, 0, 0]
    assert plan(Acquire, burst_at_each_point=4).num_points == 4


def test_every_point_of_every_motor_is_checked_and_all_are_told_at_once() -> None:
    refusal = refused(GridScan, "samx", 0, 12, 4, "samy", -1, 5, 4, snaked=False)
    assert refusal.code is ReasonCode.LIMIT
    assert "samx cannot move to 12 mm (point 13)" in refusal.message
    assert "its limits are -10 to 10 mm" in refusal.message
    assert "samy cannot move to -1 deg (point 1)" in refusal.message
    assert "dev.samy.limits" in refusal.message


def test_many_points_outside_are_summed_up() -> None:
    (problem,) = limit_problems({"samx": REGISTRY["samx"]}, ["samx"], np.arange(0.0, 30.0).reshape(-1, 1))
    assert "11 mm (point 12), 12 mm (point 13)" in problem
    assert "and 14 more points between 16 and 29 mm" in problem


def test_numbers_that_are_none_never_reach_a_motor() -> None:
    (problem,) = limit_problems({"free": REGISTRY["free"]}, ["free"], np.array([[0.0], [np.nan]]))
    assert "nan (point 2)" in problem


def test_a_relative_scan_counts_from_where_the_motor_stands() -> None:
    made = plan(LineScan, "samx", -1, 1, steps=3, relative=True)
    assert made.positions.tolist() == [[8], [9], [10]] and made.start == {"samx": 9.0}
    assert made.returns_to_start
    assert (
        "samx cannot move to 11 mm (point 3)"
        in refused(LineScan, "samx", -2, 2, steps=3, relative=True).message
    )
    assert "where samy stands is not known" in refused(LineScan, "samy", 0, 1, steps=2, relative=True).message


def test_a_resumed_scan_keeps_its_old_start() -> None:
    made = assemble(
        LineScan, request("line_scan", "samx", -1, 1, steps=3, relative=True), REGISTRY, {"samx": 2.0}
    )
    assert isinstance(made, Assembled) and made.plan.positions is not None
    assert made.plan.positions.tolist() == [[1], [2], [3]]


def test_a_move_is_checked_too_and_reads_nothing() -> None:
    made = plan(Mv, "samx", 3, "samy", 1)
    assert made.owned == ("samx", "samy") and made.groups.monitored == []
    assert refused(Mv, "samx", 11).code is ReasonCode.LIMIT


def test_only_what_is_moved_must_be_movable_and_what_is_named_is_read() -> None:
    class Edge(PointScan):
        scan_name = "edge"
        detector: Device = parameter()
        motor: Device = parameter()

        @property
        def motors(self) -> list[str]:
            return [self.motor]

    made = plan(Edge, detector="ro", motor="samx")
    assert made.groups.monitored == ["samx", "ro", "bpm"] and made.motors == ("samx",)
    refusal = refused(Edge, detector="bpm", motor="ro")
    assert refusal.code is ReasonCode.NOT_ALLOWED and "ro is read-only" in refusal.message


def test_a_scan_that_would_read_nothing_is_refused() -> None:
    nothing = replace(REGISTRY, devices={"samx": REGISTRY["samx"]})
    assert "would read nothing" in refused(Acquire, devices=nothing).message
    assert plan(LineScan, "samx", 0, 1, steps=2, devices=nothing).groups.monitored == ["samx"]


def test_what_a_scans_own_check_says_is_told() -> None:
    refusal = refused(ListScan, "samx", [1, 2], "samy", [1, "a", 2])
    assert "3 for samy" in refusal.message and "not 'a'" in refusal.message
    assert "does not fit into the interval of 0.1 s" in refused(TimeScan, 3, 0.1, exp_time=0.5).message


def test_a_scan_whose_code_raises_is_refused_and_named() -> None:
    class Bad(PointScan):
        scan_name = "bad"

        def positions(self) -> np.ndarray:
            raise KeyError("oh")

    refusal = refused(Bad)
    assert refusal.code is ReasonCode.INTERNAL and "the scan bad failed" in refusal.message
    assert "KeyError" in refusal.message


def test_devices_needed_are_those_in_the_call() -> None:
    assert devices_needed(SCANS["line_scan"], request("line_scan", "samx", 0, 1, "samy", 0, 1, steps=2)) == [
        "samx",
        "samy",
    ]


# The guard


def verdict(name: str, *args: Any, fields: dict[str, Any] | None = None, **kwargs: Any) -> Rejected | None:
    return check(
        request(name, *args, fields=fields, **kwargs),
        SCANS,
        REGISTRY,
        failed_plugins={"mine": "it is broken"},
    )


def test_the_guard_lets_a_good_request_pass() -> None:
    assert (
        verdict("line_scan", "samx", 0, 1, steps=3, fields={"monitored": ["free"], "file_suffix": "a1"})
        is None
    )


def test_an_unknown_scan_tells_what_there_is_and_which_plugins_failed() -> None:
    refusal = verdict("lin_scan")
    assert refusal is not None and refusal.code is ReasonCode.UNKNOWN_SCAN
    assert "Did you mean line_scan" in refusal.message and "mine: it is broken" in refusal.message


def test_every_problem_is_listed_at_once() -> None:
    refusal = verdict(
        "line_scan",
        "samx", 0, 1,
        fields={"monitored": ["off", "nope"], "file_suffix": "a/b", "file_directory": "../x", "queue": "a b"},
        exp_time=-1,
    )  # fmt: skip
    assert refusal is not None
    for text in (
        "needs steps",
        "at least 0 s",
        "off is disabled",
        "'nope'",
        "suffix",
        "leads out of the data folder",
        "queue 'a b'",
    ):
        assert text in refusal.message, text
    assert refusal.message.startswith("line_scan has 6 problems:")


def test_names_that_may_be_part_of_a_key() -> None:
    assert is_name("ada-1.2_x")
    assert not any(is_name(name) for name in ("", "a/b", "a*", "a b", "x" * 65, "{y}"))
