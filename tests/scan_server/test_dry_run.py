"""The answer to a dry run: from the plan of the scan itself, and nothing is run by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bec_lib import messages as m
from bec_lib.devices.registry import Registry
from bec_lib.scans import Point, Points, PointScan, Scan, Steps, describe_scan
from scan_server.assembler import Assembled, assemble
from scan_server.catalogue import load_catalogue
from scan_server.dry_run import SHOWN_POINTS, course_of, plan_of
from scan_server.timing import Learned, learn_move


def device(priority: str, **more: Any) -> dict[str, Any]:
    return {"deviceClass": "a.B", "enabled": True, "readoutPriority": priority, **more}


def signal(name: str, **more: Any) -> m.SignalInfo:
    return m.SignalInfo(name=name, obj_name=name, **more)


SESSION = m.DeviceSessionMessage(
    version=1,
    devices={
        "samx": device("baseline", deviceConfig={"velocity": 2.0}),
        "samy": device("baseline"),
        "eiger": device("monitored", softwareTrigger=True),
    },
)
FRAME = [signal("total"), signal("frame", dtype="uint16", shape=[100, 100]), signal("gain", kind="config")]
REGISTRY = Registry.of_session(SESSION).with_facts(
    {
        "samx": m.DeviceInfoMessage(name="samx", limits=[-10, 10], unit="mm", signals=[signal("samx")]),
        "samy": m.DeviceInfoMessage(name="samy", unit="mm", signals=[signal("samy")]),
        "eiger": m.DeviceInfoMessage(name="eiger", signals=FRAME),
    },
    {name: m.DeviceMessage(signals={name: {"value": 1.0}}) for name in ("samx", "samy")},
)
CATALOGUE = load_catalogue()


def planned(name: str, *args: Any, kind: type[Scan] | None = None, **kwargs: Any) -> m.ScanPlan:
    request = m.ScanQueueMessage(
        request_id="r", client_id="c", scan_type=name, args=list(args), kwargs=kwargs
    )
    made = assemble(kind or CATALOGUE.classes[name], request, REGISTRY)
    assert isinstance(made, Assembled), made
    return plan_of(made, REGISTRY, Learned())


def test_a_line_scan() -> None:
    plan = planned("line_scan", "samx", -1, 1, steps=11, exp_time=0.1, relative=True)
    (samx,) = plan.motors
    assert plan.num_points == 11 and plan.shape == [11]
    assert (samx.start, samx.low, samx.high, samx.travel) == pytest.approx((1.0, 0.0, 2.0, 3.0))
    assert (samx.limits, samx.unit, samx.velocity, samx.learned) == ([-10, 10], "mm", 2.0, False)
    assert plan.positions["samx"] == pytest.approx(np.linspace(0, 2, 11))
    # There, along, and back to where it stood.
    assert plan.moves_s == pytest.approx((1 + 2 + 1) / 2)
    assert plan.estimated_s is not None and plan.estimated_s > 11 * 0.1 + plan.moves_s
    assert plan.guessed == ["what a point with eiger takes", "samx"]
    assert plan.settings == ["exposed for 0.1 s at each point by eiger"]
    assert plan.steps == ["11 points along positions of samx"]
    assert plan.returns_to_start and plan.relative
    assert (plan.monitored, plan.triggered, plan.baseline) == (["samx", "eiger"], ["eiger"], ["samy"])


def test_the_storage_counts_what_is_read() -> None:
    plan = planned("line_scan", "samx", -1, 1, steps=11)
    assert plan.data_bytes == 11 * (16 + 16 + 20_008)
    assert plan.file_bytes is not None and plan.file_bytes > plan.data_bytes


def test_of_a_long_scan_some_points_are_shown_with_the_first_and_the_last() -> None:
    plan = planned("line_scan", "samx", 0, 1, steps=100_000)
    assert len(plan.index) == len(plan.positions["samx"]) == SHOWN_POINTS
    assert (plan.index[0], plan.index[-1], plan.positions["samx"][-1]) == (0, 99_999, 1.0)
    assert plan.num_points == 100_000


def test_a_time_scan_takes_its_time() -> None:
    plan = planned("time_scan", points=5, interval=2.0)
    assert plan.num_points == 5 and plan.estimated_s == pytest.approx(8.0, abs=0.1)


def test_what_is_learned_from_knows_of_the_clock_without_a_preview() -> None:
    request = m.ScanQueueMessage(
        request_id="r", client_id="c", scan_type="time_scan", kwargs={"points": 5, "interval": 2.0}
    )
    made = assemble(CATALOGUE.classes["time_scan"], request, REGISTRY)
    assert isinstance(made, Assembled)
    assert course_of(made, None).at_least_s == 2.0


def test_a_move_needs_no_file_and_no_points() -> None:
    plan = planned("mv", "samx", 5)
    assert plan.num_points is None and plan.file_bytes is None and plan.notes == []
    assert plan.estimated_s == pytest.approx(2.0)
    assert plan.guessed == ["samx"] and plan.steps == ["moves samx to 5"]


def test_what_was_learned_is_used() -> None:
    request = m.ScanQueueMessage(request_id="r", client_id="c", scan_type="mv", args=["samx", 5])
    made = assemble(CATALOGUE.classes["mv"], request, REGISTRY)
    assert isinstance(made, Assembled)
    plan = plan_of(made, REGISTRY, learn_move(Learned(), "samx", 4.0, 3.3))
    assert plan.estimated_s == pytest.approx(3.3) and plan.guessed == [] and plan.motors[0].learned


class Deciding(PointScan):
    """Looks at its first point."""

    scan_name = "deciding"

    def run(self) -> Steps:
        yield Point()
        raise RuntimeError("a preview must not come here without the reading")


class Failing(PointScan):
    """Fails at once."""

    scan_name = "failing"

    def run(self) -> Steps:
        if not self.exp_time:
            raise RuntimeError("no beam")
        yield Points(1)


def test_a_scan_that_decides_as_it_goes_is_told_up_to_there() -> None:
    describe_scan(Deciding, "test")
    plan = planned("deciding", kind=Deciding)
    assert plan.steps == ["a point, whose reading it looks at", "what follows is decided while it runs"]
    assert plan.num_points is None and plan.estimated_s is None and plan.data_bytes is None
    assert "decided while it runs" in plan.notes[0]


def test_a_scan_whose_code_fails_has_a_plan_that_says_so() -> None:
    plan = planned("failing", kind=Failing)
    assert "RuntimeError: no beam" in plan.notes[-1]


EXAMPLES: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "acquire": ([], {}),
    "grid_scan": (["samx", -1, 1, 5, "samy", -1, 1, 4], {"snaked": True}),
    "adaptive_line_scan": (["samx", -1, 1], {}),
    "cont_line_scan": (["samx", -1, 1], {"steps": 5}),
    "list_scan": (["samx", [0, 1, 2]], {}),
}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_scans_of_all_kinds_have_a_plan(name: str) -> None:
    args, kwargs = EXAMPLES[name]
    info = CATALOGUE.infos[name]
    required = {p.name for p in info.parameters if p.required} - set(kwargs)
    kwargs = {
        **kwargs,
        **{p.name: "eiger" for p in info.parameters if p.name in required and p.type == "device"},
    }
    plan = planned(name, *args, **kwargs)
    assert plan.steps and not [note for note in plan.notes if "cannot be told" in note]
