"""Sweeps carried out by a device server: a motor at marks and at updates, a flyer, and what ends them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from bec_lib.endpoints import MessageEndpoints
from bec_lib.messages import ControlKind, DeviceControlMessage, StageDevices, SweepDevice
from tests.device_server.test_guards import Line


@pytest.fixture
def staged(bench: Any, device: Any) -> Any:
    bench.load(
        {
            "samx": device(
                "SimPositioner", velocity=20.0, acceleration=2000.0, update_frequency=100, limits=[-9, 9]
            ),
            "flyer": device("SimFlyer", move_time=0.004),
            "mon": device("ConstSignal", value=1.0),
        }
    )
    bench.hello()
    names = ["samx", "flyer", "mon"]
    assert bench.do(StageDevices(monitored=names, owned=names), scan_id="s1").status == "completed"
    return bench


def column(bench: Any, signal: int) -> list[float]:
    found: list[float] = []
    for message in bench.messages(MessageEndpoints.scan_readings("s1")):
        assert message.first_index == len(found)
        found += message.values[signal]
    return found


def test_points_are_taken_where_they_were_wanted_and_the_velocity_is_put_back(staged: Any) -> None:
    marks = [0.1 * n for n in range(11)]
    action = SweepDevice(
        first_index=0, device="samx", start=-0.5, target=1.5, marks=marks, velocity=5.0, tolerance=0.05
    )
    reply = staged.do(action, scan_id="s1")
    assert (reply.status, reply.result) == ("completed", {"points": 11})
    assert column(staged, 0) == [pytest.approx(mark, abs=0.05) for mark in marks]
    assert staged.app._loader.in_force["samx"].obj.velocity.get() == 20.0
    assert staged.call("samx", "position").return_val == pytest.approx(1.5)


def test_points_at_updates_end_where_the_motor_ends(staged: Any) -> None:
    reply = staged.do(SweepDevice(first_index=0, device="samx", target=2.0, on_update=True), scan_id="s1")
    at = column(staged, 0)
    assert reply.result == {"points": len(at)} and 5 <= len(at) <= 40
    assert at == sorted(at) and at[-1] == 2.0


def test_a_sweep_to_where_the_motor_is_has_its_last_point(staged: Any) -> None:
    for extra in ({"on_update": True}, {}):
        reply = staged.do(
            SweepDevice(first_index=len(column(staged, 0)), device="samx", target=0.0, **extra), scan_id="s1"
        )
        assert reply.result == {"points": 1}


def test_a_flyer_gives_a_point_for_each_of_its_positions(staged: Any) -> None:
    route = [[float(n), -float(n)] for n in range(12)]
    action = SweepDevice(
        first_index=0,
        device="flyer",
        kickoff={"positions": route, "exp_time": 0.0},
        on_update=True,
        counted=True,
    )
    reply = staged.do(action, scan_id="s1")
    assert (reply.status, reply.result) == ("completed", {"points": 12})


def test_what_is_no_flyer_or_has_no_velocity_says_so(staged: Any) -> None:
    reply = staged.do(SweepDevice(first_index=0, device="samx", kickoff={"positions": []}), scan_id="s1")
    assert reply.status == "error" and "samx" in reply.error.error_message
    assert "no flyer" in reply.error.error_message
    reply = staged.do(
        SweepDevice(first_index=0, device="mon", target=1.0, velocity=1.0), scan_id="s1", epoch=2
    )
    assert reply.status == "error" and "mon" in reply.error.error_message


def test_targets_outside_of_the_limits_move_nothing(staged: Any) -> None:
    reply = staged.do(SweepDevice(first_index=0, device="samx", start=-1.0, target=10.0), scan_id="s1")
    assert reply.status == "error" and "its limits are -9 to 9 mm" in reply.error.error_message
    assert staged.call("samx", "position").return_val == 0.0


def test_marks_beyond_the_end_of_the_way_are_an_error(staged: Any) -> None:
    reply = staged.do(
        SweepDevice(first_index=0, device="samx", target=1.0, marks=[0.5, 1.5, 2.5]), scan_id="s1"
    )
    assert reply.status == "error"
    assert "ended its way at 1 mm, before 2 of 3 points" in reply.error.error_message


def test_a_stop_ends_the_way_and_puts_the_velocity_back(staged: Any) -> None:
    number = staged.send(
        SweepDevice(first_index=0, device="samx", target=8.0, velocity=1.0, on_update=True), scan_id="s1"
    )
    staged.until(lambda: len(column(staged, 0)) > 3)
    staged.app._control.obey(DeviceControlMessage(kind=ControlKind.STOP, scan_id="s1", run_epoch=1))
    assert staged.reply(number).status == "stopped"
    samx = staged.app._loader.in_force["samx"].obj
    staged.until(lambda: not samx.moving)
    assert samx.velocity.get() == 20.0 and samx.position < 4


ROUTE = [[float(n), -float(n)] for n in range(1, 31)]


@pytest.mark.parametrize(
    "sweep",
    [
        {
            "device": "samx",
            "start": 0.0,
            "target": 8.0,
            "velocity": 10.0,
            "marks": [float(n) for n in range(1, 8)],
        },
        {"device": "samx", "start": 0.0, "target": 8.0, "on_update": True},
        {
            "device": "flyer",
            "kickoff": {"positions": ROUTE, "exp_time": 0.0},
            "on_update": True,
            "counted": True,
        },
    ],
    ids=["marks", "updates", "flight"],
)
def test_an_interlock_stops_the_device_which_goes_the_rest_of_its_way_when_it_is_released(
    bench: Any, device: Any, sweep: dict[str, Any]
) -> None:
    motor = device("SimPositioner", velocity=20.0, acceleration=2000.0, update_frequency=100, limits=[-9, 9])
    flyer = device("SimFlyer", move_time=0.02)
    beam = device("SetableSignal", value=400.0, readoutPriority="on_request")
    line = Line(bench, {"samx": motor, "flyer": flyer, "beam": beam})
    names = ["samx", "flyer", "beam"]
    assert bench.do(StageDevices(monitored=names, owned=names), scan_id="s1").status == "completed"
    number = bench.send(SweepDevice(first_index=0, **sweep), scan_id="s1")
    bench.until(lambda: line.count() > 2)
    line.dip(lambda: bench.until(lambda: line.trips and not bench.app._loader.in_force["samx"].obj.moving))
    bench.turn(0.1)
    before = line.count()
    bench.turn(0.05)
    assert line.count() == before
    line.release()
    reply = bench.reply(number)
    assert reply.result == {"points": line.count()} and line.count() > before
    columns = [name for block in line.blocks() for name in zip(*block.values, strict=True)]
    spans = [span for b in line.blocks() for span in zip(b.acq_start, b.acq_end, strict=True)]
    for gone, back in line.without_beam:
        assert not [span for span in spans if span[0] < back and span[1] > gone]
    there = [row[0] for row in columns]
    if "marks" in sweep:
        assert len(there) == 7 and all(at >= n - 0.1 for n, at in zip(sweep["marks"], there, strict=True))
    elif sweep["device"] == "samx":
        assert there == sorted(there) and there[-1] == 8.0
        # It goes on where it was: what it ran on until it stood is gone over again.
        assert max(after - before for before, after in itertools.pairwise(there)) < 2.0
    else:
        assert line.count() == len(ROUTE)
    assert bench.app._loader.in_force["samx"].obj.velocity.get() == 20.0
