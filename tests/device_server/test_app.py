"""A device server from its streams: what is asked, what is answered, what is published."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from bec_lib.clock import SystemClock
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import ReasonCode
from bec_lib.messages import (
    CallDevice,
    ClientHelloMessage,
    CommitSession,
    CompleteDevices,
    ControlKind,
    DeviceControlMessage,
    DeviceInfoMessage,
    DeviceInstructionMessage,
    DeviceSessionMessage,
    InstructionStatus,
    MoveDevices,
    PrepareSession,
    PreScanDevices,
    ReadBaseline,
    ReadDevices,
    RollbackSession,
    RunPoints,
    StageDevices,
    UnstageDevices,
)

# `bench` is conftest's Bench, `device` its function that makes a configuration.
Config = dict[str, Any]


def stage(bench: Any, scan: str = "s1", **groups: Any) -> Any:
    fields = {"monitored": [], "owned": [], "scan_name": "line_scan", "scan_number": 7, **groups}
    reply = bench.do(StageDevices(**fields), scan_id=scan)
    assert reply.status == InstructionStatus.COMPLETED, reply.error
    return reply.result["devices"]


def points(bench: Any, scan: str = "s1") -> list[Any]:
    return [b for b in bench.messages(MessageEndpoints.scan_readings(scan)) if b.group == "monitored"]


def columns(bench: Any, scan: str = "s1") -> list[list[Any]]:
    """All values of each column, over all blocks."""
    blocks = points(bench, scan)
    return [[v for block in blocks for v in block.values[k]] for k in range(len(blocks[0].values))]


# A scan


def test_columns_that_come_with_the_instructions_are_behind_those_that_are_read(
    bench: Any, zero: Config
) -> None:
    bench.load(zero)
    stage_action = StageDevices(monitored=["m1", "d1"], owned=["m1"], given=["m1", "image_key"])
    assert bench.do(stage_action, scan_id="s1").result["given"] == ["m1", "image_key"]
    targets = [float(i) for i in range(100)]
    keys = [i % 3 for i in range(100)]
    bench.do(
        RunPoints(first_index=0, count=100, positions={"m1": targets}, given={"image_key": keys}),
        scan_id="s1",
    )
    bench.do(RunPoints(first_index=100, count=3, given={"m1": [7.0], "image_key": [3]}), scan_id="s1")
    found = columns(bench)
    assert found[3] == [*targets, 7.0, 7.0, 7.0]
    assert found[4] == [*keys, 3, 3, 3]
    block = points(bench)[-1]
    assert block.device_times[4] == block.server_times
    assert block.schema_version == 1
    bench.do(RunPoints(first_index=103, count=1, schema_version=2), scan_id="s1")
    assert points(bench)[-1].schema_version == 2


def test_a_scan_from_stage_to_unstage(bench: Any, zero: Config) -> None:
    assert bench.load(zero)["loaded"] == ["m1", "d1", "d2"]
    staged = stage(bench, monitored=["m1", "d1"], baseline=["d2"], owned=["m1"])
    assert [(d["name"], [s["signal"] for s in d["signals"]]) for d in staged] == [
        ("m1", ["m1", "m1_setpoint"]),
        ("d1", ["d1"]),
        ("d2", ["d2"]),
    ]
    assert staged[0]["signals"][0]["unit"] == "mm"
    assert staged[0]["role"] == "positioner"
    bench.do(ReadBaseline(), scan_id="s1")
    assert bench.do(PreScanDevices(), scan_id="s1").status == "completed"
    targets = [float(i) for i in range(100)]
    done = bench.do(RunPoints(first_index=0, count=100, positions={"m1": targets}), scan_id="s1")
    assert (done.status, done.result) == ("completed", None)
    assert bench.do(CompleteDevices(), scan_id="s1").status == "completed"
    assert bench.do(UnstageDevices(), scan_id="s1").status == "completed"
    baseline = bench.messages(MessageEndpoints.scan_readings("s1"))[0]
    assert (baseline.group, baseline.values, baseline.count) == ("baseline", [[2.0]], 1)
    assert columns(bench)[0] == targets
    assert columns(bench)[2] == [1.0] * 100
    blocks = points(bench)
    expected = 0
    for block in blocks:
        assert block.first_index == expected
        assert block.count == len(block.server_times) <= 64
        expected += block.count
    assert expected == 100
    assert bench.latest(MessageEndpoints.device_readback("m1")).signals["m1"]["value"] >= 0.0


def test_chunks_in_flight_follow_each_other(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["m1"], owned=["m1"])
    numbers = [
        bench.send(
            RunPoints(first_index=k, count=10, positions={"m1": [k + i for i in range(10)]}), scan_id="s1"
        )
        for k in range(0, 100, 10)
    ]
    assert all(bench.reply(number).status == "completed" for number in numbers)
    assert columns(bench)[0] == [float(i) for i in range(100)]


def test_points_without_positions_read_only(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["d1"])
    bench.do(RunPoints(first_index=5, count=3), scan_id="s1")
    assert [(b.first_index, b.count) for b in points(bench)] == [(5, 3)]


def test_a_scan_that_uses_the_results_gets_the_last_reading(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["m1", "d1"], owned=["m1"])
    reply = bench.do(
        RunPoints(first_index=0, count=1, positions={"m1": [2.5]}, want_reading=True), scan_id="s1"
    )
    assert reply.result["m1"]["m1"]["value"] == 2.5
    assert reply.result["d1"]["d1"]["value"] == 1.0


def test_points_wait_for_motors_exposure_and_settling(bench: Any, device: Any) -> None:
    bench.load(
        {
            "samx": device("SimPositioner", velocity=100.0, acceleration=10000.0),
            "mon": device("SimMonitor", softwareTrigger=True, exp_time=0.02),
        }
    )
    stage(bench, monitored=["samx", "mon"], triggered=["mon"], owned=["samx", "mon"])
    action = RunPoints(
        first_index=0, count=3, positions={"samx": [1.0, 2.0, 3.0]}, settling_time_s=0.01, exp_time_s=0.02
    )
    assert bench.do(action, scan_id="s1").status == "completed"
    assert columns(bench)[0] == [1.0, 2.0, 3.0]
    blocks = points(bench)
    assert [block.count for block in blocks] == [1, 1, 1]
    for block in blocks:
        assert block.acq_end[0] - block.acq_start[0] >= 0.019


def test_points_come_no_earlier_than_their_times(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["d1"])
    bench.do(RunPoints(first_index=0, count=3, at=[0.0, 0.03, 0.06]), scan_id="s1")
    times = [t for block in points(bench) for t in block.server_times]
    assert times[1] - times[0] >= 0.025
    assert times[2] - times[0] >= 0.055


def test_points_of_a_scan_that_a_predecessor_staged_are_stopped(bench: Any, zero: Config) -> None:
    bench.load(zero)
    reply = bench.do(RunPoints(first_index=0, count=1), scan_id="s1")
    assert reply.status == InstructionStatus.STOPPED
    assert reply.error.code == ReasonCode.SERVICE_DOWN
    assert "started anew" in reply.error.error_message


def test_points_of_a_scan_that_was_unstaged_are_an_error(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["d1"])
    bench.do(UnstageDevices(), scan_id="s1")
    assert bench.do(RunPoints(first_index=0, count=1), scan_id="s1").error.code == ReasonCode.WRONG_STATE


def test_positions_outside_the_limits_are_refused_before_anything_moves(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", delay=False, limits=[-10, 10])})
    stage(bench, monitored=["samx"], owned=["samx"])
    action = RunPoints(first_index=0, count=3, positions={"samx": [1.0, 2.0, 12.0]})
    reply = bench.do(action, scan_id="s1")
    assert reply.error.code == ReasonCode.LIMIT
    assert "samx cannot move to 12 mm: its limits are -10 to 10 mm" in reply.error.error_message
    assert points(bench) == []
    assert bench.app.devices["samx"].read()["samx"]["value"] == 0.0


def test_a_slow_device_is_read_beside_the_others(bench: Any, device: Any, zero: Config) -> None:
    bench.load(
        {
            **zero,
            "slow": device("SlowMonitor", read_time=0.02),
            "slow2": device("SlowMonitor", read_time=0.02),
        }
    )
    stage(bench, monitored=["m1", "slow", "slow2", "d1"], owned=["m1"])
    bench.do(RunPoints(first_index=0, count=4, positions={"m1": [1.0, 2.0, 3.0, 4.0]}), scan_id="s1")
    assert columns(bench)[0] == [1.0, 2.0, 3.0, 4.0]
    assert len(columns(bench)[-1]) == 4


# What goes wrong in a scan


def test_a_device_that_fails_to_stage_undoes_the_others(bench: Any, device: Any, zero: Config) -> None:
    bench.load({**zero, "bad": device("FailingStage")})
    reply = bench.do(StageDevices(monitored=["m1", "bad"], owned=["m1", "bad"]), scan_id="s1")
    assert reply.status == InstructionStatus.ERROR
    assert reply.error.device == "bad"
    assert "bad" in reply.error.error_message
    assert "Traceback" in reply.error.traceback
    assert bench.do(RunPoints(first_index=0, count=1), scan_id="s1").error.code == ReasonCode.WRONG_STATE
    bench.do(UnstageDevices(), scan_id="s1")
    stage(bench, "s2", monitored=["m1"], owned=["m1"])


def test_all_devices_that_cannot_be_staged_are_named(bench: Any, device: Any) -> None:
    bench.load({"off": device("ConstSignal", enabled=False), "gone": device("NoSuchClass")})
    reply = bench.do(StageDevices(monitored=["off", "gone", "never"]), scan_id="s1")
    for expected in ("off is disabled", "gone cannot be used", "there is no device 'never'"):
        assert expected in reply.error.error_message


def test_a_failed_point_is_told_and_the_points_behind_it_are_not_taken(bench: Any, device: Any) -> None:
    bench.load({"bad": device("FlakyMonitor", every=10, onFailure="raise")})
    stage(bench, monitored=["bad"], owned=["bad"])
    first = bench.send(RunPoints(first_index=0, count=20), scan_id="s1")
    second = bench.send(RunPoints(first_index=20, count=20), scan_id="s1")
    error = bench.reply(first).error
    assert error.device == "bad"
    assert error.error_message.startswith("bad ")
    assert bench.reply(second).status == InstructionStatus.STOPPED
    # One reading was made after connecting, so the tenth is that of the ninth point.
    assert len(columns(bench)[0]) == 8


def test_a_device_that_answers_the_second_time_is_retried(bench: Any, device: Any) -> None:
    bench.load({"bad": device("FlakyMonitor", every=4, onFailure="retry")})
    stage(bench, monitored=["bad"], owned=["bad"])
    assert bench.do(RunPoints(first_index=0, count=10), scan_id="s1").status == "completed"
    assert sum(block.count for block in points(bench)) == 10


def test_a_buffered_device_repeats_its_last_value_with_one_warning(bench: Any, device: Any) -> None:
    bench.load({"bad": device("FlakyMonitor", every=4, onFailure="buffer")})
    stage(bench, monitored=["bad"], owned=["bad"])
    assert bench.do(RunPoints(first_index=0, count=10), scan_id="s1").status == "completed"
    assert len(columns(bench)[0]) == 10
    alarms = [
        a for a in bench.messages(MessageEndpoints.alarm) if "last value is used" in a.info.error_message
    ]
    assert len(alarms) == 1


def test_a_baseline_device_that_fails_leaves_a_hole_and_a_warning(
    bench: Any, device: Any, zero: Config
) -> None:
    bench.load({**zero, "bad": device("FlakyMonitor", every=1)})
    stage(bench, baseline=["d1", "bad", "d2"])
    assert bench.do(ReadBaseline(), scan_id="s1").status == "completed"
    (baseline,) = bench.messages(MessageEndpoints.scan_readings("s1"))
    assert baseline.values[0] == [1.0]
    assert baseline.values[1] == [None]
    assert baseline.values[-1] == [2.0]
    (alarm,) = bench.messages(MessageEndpoints.alarm)
    assert alarm.info.device == "bad"


def test_a_move_that_fails_names_device_target_and_reason(bench: Any, device: Any) -> None:
    bench.load({"bad": device("FailingPositioner", delay=False)})
    reply = bench.do(MoveDevices(targets={"bad": 1.5}), scan_id="mv1")
    assert reply.status == InstructionStatus.ERROR
    assert reply.error.device == "bad"
    assert reply.error.error_message == "bad lost its position on the way to 1.5: following error."


# Stop and pause


def control(bench: Any, kind: ControlKind, **fields: Any) -> None:
    bench.broker.append(MessageEndpoints.device_control, DeviceControlMessage(kind=kind, **fields))


def moving(bench: Any, name: str) -> bool:
    return bool(bench.app.devices[name].obj.moving)


def test_a_stop_in_the_middle_of_a_move_ends_all_of_the_scan(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", velocity=0.1)})
    stage(bench, monitored=["samx"], owned=["samx"])
    first = bench.send(RunPoints(first_index=0, count=1, positions={"samx": [5.0]}), scan_id="s1")
    second = bench.send(RunPoints(first_index=1, count=1, positions={"samx": [6.0]}), scan_id="s1")
    bench.until(lambda: moving(bench, "samx"))
    control(bench, ControlKind.STOP, scan_id="s1", run_epoch=1)
    assert bench.reply(first).status == InstructionStatus.STOPPED
    assert bench.reply(second).status == InstructionStatus.STOPPED
    bench.until(lambda: not moving(bench, "samx"))
    # A late one of the stopped epoch is void, one of a newer epoch is not.
    late = RunPoints(first_index=2, count=1, positions={"samx": [7.0]})
    assert bench.do(late, scan_id="s1").status == InstructionStatus.STOPPED
    assert bench.do(UnstageDevices(), scan_id="s1", epoch=2).status == "completed"
    assert points(bench) == []


def test_a_stop_that_comes_late_does_not_stop_what_the_scan_does_after_it(bench: Any, device: Any) -> None:
    """Instructions and stops come on streams of their own. The first epoch has ended, as after a network was cut."""
    bench.load({name: device("SimPositioner", velocity=0.1) for name in ("samx", "samy")})
    stage(bench, monitored=["samx"], owned=["samx", "samy"])
    bench.app.devices["samy"].obj.set(5.0)
    again = bench.send(MoveDevices(targets={"samx": 5.0}), scan_id="s1", epoch=2)
    bench.until(lambda: moving(bench, "samx"))
    control(bench, ControlKind.STOP, scan_id="s1", run_epoch=1)
    bench.until(lambda: not moving(bench, "samy"))
    assert bench.do(ReadDevices(devices=["samx"]), scan_id="another", epoch=2).status == "completed"
    assert moving(bench, "samx")
    control(bench, ControlKind.STOP, scan_id="s1", run_epoch=2)
    assert bench.reply(again).status == InstructionStatus.STOPPED
    assert not moving(bench, "samx")


def test_a_client_stops_everything_and_later_runs_go_on(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", velocity=0.1), "samy": device("SimPositioner", velocity=0.1)})
    bench.hello()
    number = bench.send(MoveDevices(targets={"samx": 5.0}), scan_id="mv", epoch=4)
    call = bench.request("samy", "set", 5.0)
    bench.until(lambda: moving(bench, "samx") and moving(bench, "samy"))
    bench.broker.append(MessageEndpoints.device_stop, DeviceControlMessage(kind=ControlKind.STOP))
    assert bench.reply(number).status == InstructionStatus.STOPPED
    assert not bench.answer(call).success
    assert not moving(bench, "samx") and not moving(bench, "samy")
    bench.until(lambda: bench.latest(MessageEndpoints.device_server_info("main")).run_epoch == 5)
    assert bench.do(MoveDevices(targets={"samx": 5.0}), epoch=4).status == InstructionStatus.STOPPED
    assert bench.do(ReadDevices(devices=["samx"]), epoch=5).status == "completed"


def test_a_stop_of_one_device_ends_only_the_scans_that_hold_it(bench: Any, device: Any) -> None:
    bench.load({name: device("SimPositioner", velocity=0.1) for name in ("m1", "m2", "m3")})
    stage(bench, monitored=["m1"], owned=["m1"])
    scan = bench.send(RunPoints(first_index=0, count=1, positions={"m1": [5.0]}), scan_id="s1")
    moves = [
        bench.send(MoveDevices(targets={name: 5.0}), scan_id=f"move {name}", epoch=4) for name in ("m2", "m3")
    ]
    bench.until(lambda: all(moving(bench, name) for name in ("m1", "m2", "m3")))
    for name in ("m2", "m1"):
        stop = DeviceControlMessage(kind=ControlKind.STOP, devices=[name])
        bench.broker.append(MessageEndpoints.device_stop, stop)
        bench.until(lambda: not moving(bench, name))
        assert moving(bench, "m3")
        assert moving(bench, "m1") == (name == "m2")
    assert bench.reply(moves[0]).status == InstructionStatus.STOPPED
    assert bench.reply(scan).status == InstructionStatus.STOPPED
    assert bench.do(ReadDevices(devices=["m3"]), scan_id="another", epoch=4).status == "completed"


def test_pause_on_the_stop_stream_is_not_obeyed(bench: Any, zero: Config) -> None:
    bench.load(zero)
    bench.broker.append(MessageEndpoints.device_stop, DeviceControlMessage(kind=ControlKind.PAUSE))
    assert bench.do(ReadDevices(devices=["d1"])).status == "completed"
    assert not bench.app._control.epochs.paused


def test_a_paused_scan_takes_no_point_until_it_is_resumed(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["d1"])
    control(bench, ControlKind.PAUSE, scan_id="s1")
    bench.until(lambda: bench.app._control.epochs.holds("s1"))
    number = bench.send(RunPoints(first_index=0, count=3), scan_id="s1")
    for _ in range(5):
        bench.turn()
    assert points(bench) == []
    control(bench, ControlKind.RESUME, scan_id="s1")
    assert bench.reply(number).status == "completed"
    assert len(columns(bench)[0]) == 3


@pytest.mark.parametrize(("kind", "taken"), [(ControlKind.PAUSE, 0), (ControlKind.PAUSE_AFTER_POINT, 1)])
def test_a_pause_in_the_middle_of_a_point(bench: Any, device: Any, kind: ControlKind, taken: int) -> None:
    bench.load({"samx": device("SimPositioner", velocity=50.0)})
    stage(bench, monitored=["samx"], owned=["samx"])
    number = bench.send(RunPoints(first_index=0, count=2, positions={"samx": [5.0, 6.0]}), scan_id="s1")
    bench.until(lambda: moving(bench, "samx"))
    control(bench, kind, scan_id="s1")
    bench.until(lambda: bench.app._control.epochs.holds("s1"))
    bench.until(lambda: not moving(bench, "samx"))
    for _ in range(5):
        bench.turn()
    bench.until(lambda: sum(block.count for block in points(bench)) == taken)
    control(bench, ControlKind.RESUME, scan_id="s1")
    assert bench.reply(number).status == "completed"
    assert len(columns(bench)[0]) == 2


def test_a_paused_scan_can_be_stopped(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["d1"])
    control(bench, ControlKind.PAUSE, scan_id="s1")
    bench.until(lambda: bench.app._control.epochs.holds("s1"))
    number = bench.send(RunPoints(first_index=0, count=3), scan_id="s1")
    control(bench, ControlKind.STOP, scan_id="s1", run_epoch=1)
    assert bench.reply(number).status == InstructionStatus.STOPPED


def test_a_read_only_device_is_never_stopped(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", readOnly=True), "samy": device("SimPositioner")})
    stopped: list[str] = []
    done = threading.Event()
    bench.app.devices["samx"].obj.stop = lambda **_: stopped.append("samx")
    bench.app.devices["samy"].obj.stop = lambda **_: (stopped.append("samy"), done.set())
    control(bench, ControlKind.STOP, devices=["samx", "samy"])
    assert done.wait(5)
    assert stopped == ["samy"]


def test_devices_of_a_scan_are_stopped_when_the_broker_is_lost(
    bench: Any, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread hangs in a commit; what a scan has set in motion stops all the same."""
    monkeypatch.setattr("device_server.app.BROKER_LOST_S", 0.02)
    bench.load({"samx": device("SimPositioner", velocity=0.1), "samy": device("SimPositioner", velocity=0.1)})
    stage(bench, monitored=["samx"], owned=["samx"])
    first = bench.send(RunPoints(first_index=0, count=1, positions={"samx": [5.0]}), scan_id="s1")
    bench.until(lambda: moving(bench, "samx"))
    bench.app.devices["samy"].obj.set(5.0)
    stopped = threading.Event()
    status = bench.app.devices["samx"].obj._move.status
    status.add_callback(lambda _: stopped.set())

    class Hanging:
        operations = ["something"]

        def commit(self) -> None:
            assert stopped.wait(5)

    # As the heartbeat is written, which may be the first to hang.
    bench.service.commit(Hanging())
    assert not moving(bench, "samx")
    assert moving(bench, "samy")
    # That is no failure of the device: the scan server takes the point again.
    reply = bench.reply(first)
    assert (reply.status, reply.error.code) == (InstructionStatus.STOPPED, ReasonCode.SERVICE_DOWN)


def test_a_stop_for_want_of_the_broker_may_hit_what_begins_after_it(
    bench: Any, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_server.app.BROKER_LOST_S", 0.02)
    bench.load({"samx": device("SimPositioner", velocity=0.1)})
    stage(bench, monitored=["samx"], owned=["samx"])
    samx = bench.app.devices["samx"].obj
    called, slow, stop = threading.Event(), threading.Event(), samx.stop

    def stop_slowly(**options: Any) -> None:
        called.set()
        assert slow.wait(10)
        stop(**options)

    samx.stop = stop_slowly

    class Hanging:
        operations = ["something"]

        def commit(self) -> None:
            assert called.wait(10)

    bench.service.commit(Hanging())
    number = bench.send(RunPoints(first_index=0, count=1, positions={"samx": [5.0]}), scan_id="s1")
    bench.until(lambda: moving(bench, "samx"))
    slow.set()
    reply = bench.reply(number)
    assert (reply.status, reply.error.code) == (InstructionStatus.STOPPED, ReasonCode.SERVICE_DOWN)
    # What begins when that is over is the device's own.
    monkeypatch.setattr("device_server.app.BROKER_LOST_S", 60.0)
    samx.stop = stop
    again = RunPoints(first_index=0, count=1, positions={"samx": [5.0]})
    number = bench.send(again, scan_id="s1", epoch=2)
    bench.until(lambda: moving(bench, "samx"))
    samx.stop()
    assert bench.reply(number).status == InstructionStatus.ERROR


def test_points_are_held_back_while_nothing_can_be_written(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["d1"])
    bench.send(RunPoints(first_index=0, count=5000), scan_id="s1")
    # The events are taken and not handled, as if the broker did not answer.
    held: list[Any] = []
    bench.until(lambda: bench.app.handle if bench.app._dispatch.running() else None)
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        held += bench.service.inbox.take(0.05)
    assert 1 <= len(held) <= 4
    bench.app.handle(held)
    bench.until(lambda: sum(block.count for block in points(bench)) == 5000)


def test_a_stop_that_raises_is_an_alarm(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner")})

    def fail(**_: Any) -> None:
        raise RuntimeError("drive off")

    bench.app.devices["samx"].obj.stop = fail
    control(bench, ControlKind.STOP, devices=["samx"])
    (alarm,) = bench.until(lambda: bench.messages(MessageEndpoints.alarm))
    assert alarm.info.error_message == "samx could not be stopped: drive off"


# Who owns a device


def test_a_scan_owns_its_devices_and_reads_pass(bench: Any, zero: Config) -> None:
    bench.load(zero)
    bench.hello()
    stage(bench, monitored=["m1", "d1"], owned=["m1"], scan_info={"user": "berta"})
    refused = bench.call("m1", "set", 3.0)
    assert refused.error.code == ReasonCode.DEVICE_OWNED
    assert "m1 is held by scan 7 (line_scan) of berta" in refused.error.error_message
    assert not bench.call("m1", "limits", [0, 1], kind="set").success
    assert bench.call("m1", "read").return_val["m1"]["value"] == 0.0
    assert bench.call("m1", "stop").success
    other = bench.do(StageDevices(monitored=["m1"], owned=["m1"]), scan_id="s2")
    assert other.error.code == ReasonCode.DEVICE_OWNED
    assert bench.do(MoveDevices(targets={"m1": 1.0}), scan_id="s1").status == "completed"
    bench.do(UnstageDevices(), scan_id="s1")
    assert bench.call("m1", "set", 3.0).success


def holders(bench: Any) -> dict[str, list[str]]:
    message = bench.latest(MessageEndpoints.device_holders("main"))
    return {str(holder): holder.devices for holder in message.holders}


def test_who_has_a_device_is_published_while_he_has_it(bench: Any, device: Any, zero: Config) -> None:
    bench.load({**zero, "samx": device("SimPositioner", velocity=1.0)})
    bench.hello()
    assert holders(bench) == {}
    stage(bench, monitored=["m1", "d1"], owned=["m1", "d1"], scan_info={"user": "berta"})
    assert holders(bench) == {"scan 7 (line_scan) of berta": ["m1", "d1"]}
    told = bench.broker.get(MessageEndpoints.device_holders("main")).envelope.message_id
    # Neither a point nor a reading changes that, so nothing is written because of them.
    bench.do(RunPoints(first_index=0, count=2, positions={"m1": [1.0, 2.0]}), scan_id="s1")
    assert bench.call("m1", "read").success
    assert bench.broker.get(MessageEndpoints.device_holders("main")).envelope.message_id == told
    call = bench.request("samx", "set", 50.0)
    bench.until(lambda: "dev.samx.set of anna" in holders(bench))
    move = bench.send(MoveDevices(targets={"m1": 1.0}, by="carla"))
    assert "m1 is held by scan 7" in bench.reply(move).error.error_message
    assert bench.call("samx", "stop").success
    bench.answer(call)
    bench.do(UnstageDevices(), scan_id="s1")
    assert holders(bench) == {}
    move = bench.send(MoveDevices(targets={"samx": 70.0}, by="carla"))
    bench.until(lambda: holders(bench) == {"a move of carla": ["samx"]})
    assert "samx is held by a move of carla" in bench.call("samx", "set", 3.0).error.error_message
    control(bench, ControlKind.STOP)
    bench.reply(move)
    assert holders(bench) == {}


def test_what_is_moved_by_a_predecessor_is_held_by_nobody(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["m1"], owned=["m1"])
    assert holders(bench)
    bench.boot()
    assert holders(bench) == {}


def test_a_positioner_is_one_by_its_class_also_if_it_failed(bench: Any, device: Any) -> None:
    bench.load(
        {
            "samx": device("SimPositioner"),
            "knob": {**device("ConstSignal", value=1.0, limits=[0, 5])},
            "gone": device("SimPositioner", velocity=-1.0),
        }
    )
    infos = {name: bench.latest(MessageEndpoints.device_info(name)) for name in ("samx", "knob", "gone")}
    assert infos["gone"].state == "failed"
    assert {name: info.role for name, info in infos.items()} == {
        "samx": "positioner",
        "knob": "signal",
        "gone": "positioner",
    }
    assert infos["knob"].limits == [0.0, 5.0]


def test_a_stopped_scan_that_never_unstaged_does_not_keep_its_devices(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["m1"], owned=["m1"])
    control(bench, ControlKind.STOP, scan_id="s1", run_epoch=1)
    bench.until(lambda: "s1" in bench.app._control.epochs.stopped)
    assert bench.do(StageDevices(monitored=["m1"], owned=["m1"]), scan_id="s2", epoch=2).status == "completed"


# Calls


def test_calls_of_a_client(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", delay=False, limits=[-10, 10], velocity=5.0)})
    bench.hello()
    assert bench.call("samx", "set", 2.5).success
    assert bench.call("samx", "read").return_val["samx"]["value"] == 2.5
    assert bench.call("samx", "get").return_val["readback"] == 2.5
    assert bench.call("samx", "position").return_val == 2.5
    assert bench.call("samx", "velocity.get").return_val == 5.0
    assert bench.call("samx", "velocity.put", 7.0).success
    assert bench.call("samx", "velocity").return_val == 7.0
    assert bench.call("samx", "read_configuration").return_val["samx_velocity"]["value"] == 7.0
    assert bench.call("samx", "describe").return_val["samx"]["units"] == "mm"
    assert bench.call("samx", "sim_state").return_val["target"] == 2.5
    assert bench.call("samx", "limits").return_val == [-10.0, 10.0]
    assert bench.latest(MessageEndpoints.device_readback("samx")).signals["samx"]["value"] == 2.5


def test_set_is_answered_when_the_move_is_done(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", velocity=100.0, acceleration=1e4)})
    bench.hello()
    answer = bench.call("samx", "set", 2.0)
    assert answer.success and answer.return_val is None
    assert bench.call("samx", "read").return_val["samx"]["value"] == 2.0


def test_a_read_does_not_wait_for_a_move(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", velocity=0.1)})
    bench.hello()
    moving_call = bench.request("samx", "set", 9.0)
    assert bench.call("samx", "read").success
    assert not [
        m for m in bench.messages(MessageEndpoints.device_rpc_response("c1")) if m.request_id == moving_call
    ]
    assert bench.call("samx", "stop").success
    answer = bench.answer(moving_call)
    assert not answer.success
    assert answer.error.error_message.startswith("samx was stopped at")


def test_limits_are_checked_set_and_published(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", delay=False, limits=[-10, 10])})
    bench.hello()
    refused = bench.call("samx", "set", 12.0)
    assert refused.error.code == ReasonCode.LIMIT
    assert "samx cannot move to 12 mm: its limits are -10 to 10 mm" in refused.error.error_message
    assert bench.call("samx", "limits", [-20, 20], kind="set").success
    assert bench.call("samx", "set", 12.0).success
    assert bench.latest(MessageEndpoints.device_info("samx")).limits == [-20.0, 20.0]
    assert bench.call("samx", "high_limit", 15.0, kind="set").success
    assert bench.call("samx", "limits").return_val == [-20.0, 15.0]


def test_what_is_not_open_is_refused_with_what_is(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner")})
    bench.hello()
    for func in ("_run_subs", "destroy", "readback.subscribe", "__class__", "parent.read", "name.upper"):
        refused = bench.call("samx", func)
        assert refused.error.code == ReasonCode.NOT_ALLOWED, func
        assert "sim_state" in refused.error.error_message
    assert not bench.call("samx", "position", 3, kind="set").success


def test_wrong_arguments_are_told_with_the_signature(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner")})
    bench.hello()
    answer = bench.call("samx", "home", 1, 2)
    assert answer.error.code == ReasonCode.INVALID_ARGUMENT
    assert "samx.home" in answer.error.error_message and "too many positional" in answer.error.error_message
    assert bench.call("samx", "position", 1).error.code == ReasonCode.INVALID_ARGUMENT


def test_a_read_only_device_refuses_writes(bench: Any, device: Any) -> None:
    bench.load({"curr": device("ConstSignal", value=400.0, readOnly=True)})
    bench.hello()
    assert bench.call("curr", "put", 1.0).error.code == ReasonCode.NOT_ALLOWED
    assert bench.call("curr", "get").return_val == 400.0
    assert bench.do(MoveDevices(targets={"curr": 1.0})).error.code == ReasonCode.NOT_ALLOWED


def test_calls_of_devices_that_cannot_be_used_say_why(bench: Any, device: Any) -> None:
    bench.load({"off": device("ConstSignal", enabled=False), "late": device("NeverConnects")})
    bench.hello()
    assert bench.call("off", "read").error.code == ReasonCode.DEVICE_DISABLED
    late = bench.call("late", "read").error
    assert late.code == ReasonCode.NOT_CONNECTED and "did not connect within 0.3 s" in late.error_message
    assert bench.call("nobody", "read").error.code == ReasonCode.UNKNOWN_DEVICE


def test_what_cannot_be_sent_is_an_error_in_words(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner")})
    bench.hello()
    kind = type(bench.app.devices["samx"].obj)
    kind.strange = lambda self: object()
    kind.huge = lambda self: __import__("numpy").zeros(1_000_000)
    before = kind.USER_ACCESS
    kind.USER_ACCESS = (*before, "strange", "huge")
    try:
        assert (
            "a value of type object, which cannot be sent"
            in bench.call("samx", "strange").error.error_message
        )
        assert bench.call("samx", "huge").error.code == ReasonCode.TOO_LARGE
    finally:
        kind.USER_ACCESS = before
        del kind.strange, kind.huge


def test_what_a_method_prints_comes_with_its_answer(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner")})
    bench.hello()
    kind = type(bench.app.devices["samx"].obj)
    before = kind.USER_ACCESS
    kind.speak = lambda self: print("hello from", self.name)
    kind.USER_ACCESS = (*before, "speak")
    try:
        assert bench.call("samx", "speak").out == "hello from samx\n"
        assert bench.call("samx", "read").out == ""
    finally:
        kind.USER_ACCESS = before
        del kind.speak


def test_a_scan_calls_a_device(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", delay=False, home_pos=1.0)})
    stage(bench, monitored=["samx"], owned=["samx"])
    assert bench.do(CallDevice(device="samx", func="home"), scan_id="s1").status == "completed"
    assert bench.do(CallDevice(device="samx", func="position"), scan_id="s1").result == 1.0
    refused = bench.do(CallDevice(device="samx", func="destroy"), scan_id="s1")
    assert refused.error.code == ReasonCode.NOT_ALLOWED


# The session


def test_broken_devices_are_reported_and_the_others_load(bench: Any, device: Any, zero: Config) -> None:
    broken = {
        "raises": device("RaisesInConstructor"),
        "late": device("NeverConnects"),
        "unknown": device("NoSuchClass"),
        "typo": device("SimPositioner", velocty=3),
        "orphan": device("ConstSignal", needs=["raises"]),
    }
    prepared = bench.do(PrepareSession(devices={**zero, **broken}))
    assert prepared.result["ready"] == ["m1", "d1", "d2"]
    failed = prepared.result["failed"]
    assert set(failed) == set(broken)
    assert "did not connect within 0.3 s" in failed["late"]
    assert "has no 'NoSuchClass'" in failed["unknown"]
    assert "'velocty'" in failed["typo"] and "did you mean 'velocity'" in failed["typo"]
    assert "raised" in failed["raises"]
    assert "needs raises, which failed" in failed["orphan"]
    committed = bench.do(CommitSession(version=4))
    assert committed.result["loaded"] == ["m1", "d1", "d2"]
    info = bench.latest(MessageEndpoints.device_info("late"))
    assert (info.state, info.config["deviceClass"]) == ("failed", "device_server.sim.NeverConnects")
    assert bench.latest(MessageEndpoints.device_info("m1")).state == "ready"
    assert bench.latest(MessageEndpoints.device_readback("d2")).signals["d2"]["value"] == 2.0
    assert bench.latest(MessageEndpoints.device_server_info("main")).session_version == 4


def test_a_session_that_is_rolled_back_changes_nothing(bench: Any, device: Any, zero: Config) -> None:
    bench.load(zero)
    before = dict(bench.app.devices)
    bench.do(PrepareSession(devices={"other": device("ConstSignal")}))
    assert bench.do(RollbackSession()).status == "completed"
    assert bench.app.devices == before
    assert bench.do(CommitSession()).error.code == ReasonCode.WRONG_STATE


def test_devices_that_did_not_change_are_kept(bench: Any, device: Any, zero: Config) -> None:
    bench.load(zero)
    before = dict(bench.app.devices)
    changed = {
        **zero,
        "d1": {**zero["d1"], "userParameter": {"a": 1}, "readOnly": True},
        "d2": device("ConstSignal", value=9.0),
    }
    bench.load(changed)
    after = bench.app.devices
    assert after["m1"] is before["m1"] and after["d1"] is before["d1"]
    assert after["d2"] is not before["d2"]
    assert after["d1"].config.userParameter == {"a": 1} and after["d1"].read_only
    assert bench.latest(MessageEndpoints.device_info("d1")).config["userParameter"] == {"a": 1}


def test_devices_are_added_and_removed(bench: Any, device: Any, zero: Config) -> None:
    bench.load(zero)
    action = PrepareSession(devices={"d3": device("ConstSignal")}, replace=False, remove=["d1"])
    assert bench.do(action).result["ready"] == ["m1", "d2", "d3"]
    bench.do(CommitSession(version=2))
    assert list(bench.app.devices) == ["m1", "d2", "d3"]
    assert bench.latest(MessageEndpoints.device_info("d1")) is None


def test_changed_limits_are_applied_to_the_running_device(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", limits=[-1, 1])})
    before = bench.app.devices["samx"]
    bench.load({"samx": device("SimPositioner", limits=[-5, 5])})
    assert bench.app.devices["samx"] is before
    assert before.limits == (-5.0, 5.0)


def test_limits_changed_by_hand_are_the_files_again_when_it_is_loaded(bench: Any, device: Any) -> None:
    devices = {"samx": device("SimPositioner", limits=[-5, 5])}
    bench.load(devices)
    bench.app.devices["samx"].set_limits((-1, 1))
    bench.do(PrepareSession(devices={"d": device("ConstSignal")}, replace=False))
    bench.do(CommitSession())
    assert bench.app.devices["samx"].limits == (-1.0, 1.0)
    bench.load(devices)
    assert bench.app.devices["samx"].limits == (-5.0, 5.0)


def test_devices_of_another_server_are_left_alone(bench: Any, zero: Config) -> None:
    bench.load({**zero, "far": {**zero["d1"], "deviceServer": "hutch2"}})
    assert list(bench.app.devices) == ["m1", "d1", "d2"]
    bench.hello()
    bench.broker.put(MessageEndpoints.device_info("far"), DeviceInfoMessage(name="far", server="hutch2"))
    bench.request("far", "read")
    assert bench.call("d1", "read").success
    assert len(bench.messages(MessageEndpoints.device_rpc_response("c1"))) == 1


# Starting


def test_the_session_in_force_is_loaded_at_start(bench: Any, zero: Config) -> None:
    bench.close()
    bench.broker.put(MessageEndpoints.device_session, DeviceSessionMessage(version=9, devices=zero))
    bench.boot()
    # Work is taken up only when the devices are there.
    assert bench.do(ReadDevices(devices=["d1"])).result["d1"]["d1"]["value"] == 1.0
    assert bench.latest(MessageEndpoints.device_server_info("main")).session_version == 9


def test_at_its_start_a_device_waits_for_what_it_needs_of_another_server(bench: Any, zero: Config) -> None:
    """As when both start at the same time: what others need of this one is there, what this one needs is not yet."""
    devices = {
        **zero,
        "far": {**zero["m1"], "deviceServer": "hutch"},
        "m2": {**zero["m1"], "needs": ["far"]},
        "m3": {**zero["m1"], "needs": ["m2"]},
    }
    bench.broker.put(MessageEndpoints.device_session, DeviceSessionMessage(version=3, devices=devices))
    bench.close()
    bench.boot()
    bench.until(lambda: set(bench.app.devices) == {*zero, "m2", "m3"})
    told = bench.until(lambda: bench.latest(MessageEndpoints.device_info("m2")))
    assert told.error == "m2 needs far, which failed: the device server hutch has not loaded it yet"
    loads = bench.latest(MessageEndpoints.device_server_info("main")).loads
    kept = bench.app.devices["m1"]
    far = DeviceInfoMessage(
        name="far", server="hutch", state="failed", error="far did not connect within 5 s"
    )
    bench.broker.put(MessageEndpoints.device_info("far"), far)
    bench.hello()
    assert "m2 needs far" in bench.call("m2", "read").error.error_message
    bench.broker.put(MessageEndpoints.device_info("far"), far.model_copy(update={"state": "ready"}))
    bench.until(lambda: bench.latest(MessageEndpoints.device_info("m3")).state == "ready")
    assert bench.call("m2", "read").success and bench.app.devices["m1"] is kept
    info = bench.latest(MessageEndpoints.device_server_info("main"))
    assert info.loads > loads and info.session_version == 3


def test_devices_are_rebuilt_and_what_a_client_moves_stays(bench: Any, device: Any, zero: Config) -> None:
    devices = {**zero, "samx": device("SimPositioner", velocity=1.0)}
    bench.load(devices)
    bench.hello()
    before = dict(bench.app.devices)
    call = bench.request("samx", "set", 50.0)
    bench.until(lambda: bench.app._calls.in_use())
    prepared = bench.do(PrepareSession(devices=devices, rebuild=list(devices))).result
    assert prepared["kept"] == {
        "samx": "samx stays as it was: it is held by dev.samx.set of anna; stop that first"
    }
    bench.do(CommitSession(version=2))
    after = bench.app.devices
    assert after["samx"] is before["samx"] and all(after[name] is not before[name] for name in zero)
    assert bench.call("m1", "read").success
    bench.call("samx", "stop")
    bench.answer(call)


def test_a_session_is_prepared_in_steps_of_which_none_can_be_left_out(bench: Any, zero: Config) -> None:
    bench.load(zero)
    more = {"m2": {**zero["m1"], "needs": ["far"]}}
    lost = bench.do(PrepareSession(devices=more, continues=True, others={"far": ""}))
    assert lost.error.code == ReasonCode.WRONG_STATE and set(bench.app.devices) == set(zero)
    bench.do(PrepareSession(devices=zero))
    answer = bench.do(PrepareSession(devices=more, continues=True, others={"far": ""}))
    assert set(answer.result["ready"]) == {*zero, "m2"}
    bench.do(CommitSession(version=2))
    assert set(bench.app.devices) == {*zero, "m2"}
    # A change that is about others leaves it as it is, whatever has become of what it needs.
    bench.do(PrepareSession(devices={"d1": zero["d1"]}, replace=False, others={"far": "gone"}))
    assert bench.do(CommitSession(version=3)).result["failed"] == {}


def test_instructions_of_a_predecessor_are_answered_and_not_done(bench: Any, zero: Config) -> None:
    bench.load(zero)
    bench.close()
    number = bench.send(MoveDevices(targets={"m1": 5.0}))
    bench.broker.put(MessageEndpoints.device_session, DeviceSessionMessage(version=1, devices=zero))
    bench.boot()
    reply = bench.reply(number)
    assert reply.status == InstructionStatus.STOPPED
    assert reply.error.code == ReasonCode.SERVICE_DOWN
    bench.until(lambda: bench.app.devices)
    assert bench.app.devices["m1"].read()["m1"]["value"] == 0.0
    # And not answered once more by the next.
    bench.close()
    bench.boot()
    replies = bench.messages(MessageEndpoints.device_instructions_response("main"))
    assert [m.instruction_id for m in replies].count(number) == 1


class WrongClock(SystemClock):
    """Of a client's host."""

    def __init__(self, ahead_s: float):
        self._ahead_s = ahead_s

    def now(self) -> float:
        return super().now() + self._ahead_s


@pytest.mark.parametrize("ahead_s", [0.0, 300.0])
def test_calls_to_a_predecessor_are_answered_and_not_done(bench: Any, zero: Config, ahead_s: float) -> None:
    bench.broker.clock = WrongClock(ahead_s)
    bench.broker.put(MessageEndpoints.device_session, DeviceSessionMessage(version=1, devices=zero))
    bench.hello()
    bench.close()
    number = bench.request("m1", "set", 5.0)
    bench.boot()
    answer = bench.answer(number)
    assert answer.error.code == ReasonCode.SERVICE_DOWN
    assert bench.call("m1", "read").return_val["m1"]["value"] == 0.0


def test_a_call_of_a_client_whose_clock_is_behind_is_not_taken_for_an_old_one(
    bench: Any, zero: Config
) -> None:
    bench.load(zero)
    bench.broker.clock = WrongClock(-300.0)
    bench.hello("berta")
    assert bench.call("m1", "read", user="berta").return_val["m1"]["value"] == 0.0


def test_a_stop_is_remembered_by_the_next_process(bench: Any, zero: Config) -> None:
    bench.load(zero)
    bench.do(ReadDevices(devices=["d1"]), epoch=8)
    bench.broker.append(MessageEndpoints.device_stop, DeviceControlMessage(kind=ControlKind.STOP))
    bench.until(lambda: bench.latest(MessageEndpoints.device_server_info("main")).run_epoch == 9)
    bench.close()
    bench.boot()
    assert bench.app._control.epochs.floor == 9


# Strangers


def test_malformed_entries_are_passed_over_and_answered_where_it_can_be(bench: Any, zero: Config) -> None:
    bench.load(zero)
    bench.hello()
    bench.call("d1", "read")
    key = bench.broker.key(MessageEndpoints.device_rpc_request("anna"))
    bench.broker.redis.xadd(key, {"d": b"\xc1 nonsense"})
    wrong = bench.broker.encode(
        DeviceInstructionMessage.model_construct(
            instruction_id="x", scan_id=None, run_epoch=0, action={"kind": "dance"}
        )
    )
    bench.broker.redis.xadd(bench.broker.key(bench.app._instruction_stream), {"d": wrong})
    bench.broker.redis.xadd(key, {"d": bench.broker.encode(ClientHelloMessage(user="a", client_id="b"))})
    bench.broker.redis.xadd(bench.broker.key(MessageEndpoints.device_stop), {"d": b"junk"})
    reply = bench.reply("x")
    assert reply.error.code == ReasonCode.MALFORMED
    assert bench.call("d1", "read").success
    assert bench.do(ReadDevices(devices=["d1"])).status == "completed"


def test_a_value_that_no_message_carries_leaves_a_hole_and_a_warning(bench: Any, zero: Config) -> None:
    bench.load(zero)
    stage(bench, monitored=["d1", "d2"])
    bench.app.devices["d2"].obj._readback = object()
    assert bench.do(RunPoints(first_index=0, count=2), scan_id="s1").status == "completed"
    assert columns(bench) == [[1.0, 1.0], [None, None]]
    (alarm,) = bench.until(lambda: bench.messages(MessageEndpoints.alarm))
    assert "d2 is not recorded" in alarm.info.error_message


# Read-backs


def test_read_backs_follow_a_move_and_end_at_its_end(bench: Any, device: Any) -> None:
    bench.load({"samx": device("SimPositioner", velocity=20.0, update_frequency=100)})
    assert bench.do(MoveDevices(targets={"samx": 5.0})).status == "completed"
    assert bench.latest(MessageEndpoints.device_readback("samx")).signals["samx"]["value"] == 5.0


def test_a_change_outside_of_any_request_is_published(bench: Any, zero: Config) -> None:
    bench.load(zero)
    endpoint = MessageEndpoints.device_readback("d1")
    bench.app.devices["d1"].obj.put(42.0)
    bench.until(lambda: bench.latest(endpoint).signals["d1"]["value"] == 42.0)


def test_nothing_is_written_while_nothing_changes(bench: Any, zero: Config) -> None:
    bench.load(zero)
    for _ in range(5):
        bench.turn()
    assert bench.app.deadline() is None
