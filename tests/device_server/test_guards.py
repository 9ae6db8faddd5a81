"""Interlocks where the points are taken: held, thrown away and taken again, released; and never a point without beam."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bec_lib.endpoints import MessageEndpoints
from bec_lib.messages import (
    ControlKind,
    DeviceControlMessage,
    InstructionStatus,
    InterlockConfig,
    InterlockPhase,
    InterlocksMessage,
    InterlockState,
    InterlockStatusMessage,
    RunPoints,
    StageDevices,
    UnstageDevices,
)

TRIPS = "beam.beam < 100"


@pytest.fixture
def devices(zero: dict[str, Any], device: Any) -> dict[str, Any]:
    return {**zero, "beam": device("SetableSignal", value=400.0, egu="mA", readoutPriority="on_request")}


class Line:
    """A bench with a beam that the test switches, and the scan server's side of one interlock."""

    def __init__(self, bench: Any, devices: dict[str, Any], **config: Any):
        self.bench = bench
        bench.load(devices)
        self.beam = bench.app.devices["beam"].obj
        self.without_beam: list[tuple[float, float]] = []
        self.define(**config)

    def define(self, **config: Any) -> None:
        fields = {"name": "beam", "trips_when": TRIPS, **config}
        states = fields.pop("states", {})
        message = InterlocksMessage(
            interlocks={"beam": InterlockConfig(**fields)}, watched=["beam"], states=states
        )
        self.bench.broker.append(MessageEndpoints.interlocks, message)
        self.bench.until(lambda: self.bench.app._interlocks == message)
        self.bench.until(lambda: not self.bench.app._refreshing)

    def dip(self, wait: Callable[[], Any], low: float = 50.0, high: float = 400.0) -> None:
        """The beam goes, and comes back after `wait`."""
        self.beam.put(low)
        gone = time.time()
        wait()
        back = time.time()
        self.beam.put(high)
        self.without_beam.append((gone, back))

    @property
    def trips(self) -> list[Any]:
        return self.bench.messages(MessageEndpoints.interlock_trips)

    def release(self, serial: int | None = None) -> None:
        known = serial if serial is not None else max((t.serial for t in self.trips), default=0)
        self.control(ControlKind.RELEASE, trips={"main": known})

    def control(self, kind: ControlKind, **more: Any) -> None:
        self.bench.broker.append(
            MessageEndpoints.device_control, DeviceControlMessage(kind=kind, interlock="beam", **more)
        )

    def stage(
        self, scan: str = "s1", queue: str = "primary", monitored: tuple[str, ...] = ("m1", "beam")
    ) -> None:
        action = StageDevices(
            monitored=list(monitored), owned=["m1"] if "m1" in monitored else [], queue=queue
        )
        reply = self.bench.do(action, scan_id=scan)
        assert reply.status is InstructionStatus.COMPLETED, reply.error

    def start(self, count: int, scan: str = "s1", **more: Any) -> str:
        positions = {"m1": [float(k) for k in range(count)]}
        return self.bench.send(
            RunPoints(first_index=0, count=count, positions=positions, **more), scan_id=scan
        )

    def blocks(self, scan: str = "s1") -> list[Any]:
        return self.bench.messages(MessageEndpoints.scan_readings(scan))

    def count(self) -> int:
        return sum(block.count for block in self.blocks())

    def check(self, count: int) -> None:
        """Every point once, in order, at its place, and with beam."""
        expected = 0
        for block in self.blocks():
            assert block.first_index == expected
            expected += block.count
        assert expected == count
        assert [v for b in self.blocks() for v in b.values[0]] == [float(k) for k in range(count)]
        assert all(v >= 100 for b in self.blocks() for v in b.values[2])
        taken = [span for b in self.blocks() for span in zip(b.acq_start, b.acq_end, strict=True)]
        for gone, back in self.without_beam:
            assert not [span for span in taken if span[0] < back and span[1] > gone]


def test_the_point_in_flight_is_thrown_away_and_taken_again(bench: Any, devices: Any) -> None:
    line = Line(bench, devices)
    line.stage()
    number = line.start(4, exp_time_s=0.05)
    bench.until(lambda: line.count() >= 1)
    line.dip(lambda: bench.until(lambda: line.trips))
    before = line.count()
    # The beam is back, and nobody has released it yet.
    bench.turn(0.15)
    bench.turn(0.05)
    assert line.count() == before < 4
    (trip,) = line.trips
    assert (trip.interlock, trip.server, trip.readings["beam"]["beam"]["value"]) == ("beam", "main", 50.0)
    line.release()
    assert bench.reply(number).status is InstructionStatus.COMPLETED
    line.check(4)


def test_a_release_does_not_concern_a_newer_trip_nor_what_is_still_tripped(bench: Any, devices: Any) -> None:
    line = Line(bench, devices)
    line.stage()
    line.beam.put(50.0)
    bench.until(lambda: line.trips)
    number = line.start(3)
    line.release()
    # Still tripped: it latches again, and says so.
    second = bench.until(lambda: line.trips[1:])[0]
    line.beam.put(400.0)
    line.release(second.serial - 1)
    bench.turn(0.1)
    assert line.count() == 0
    line.release(second.serial)
    assert bench.reply(number).status is InstructionStatus.COMPLETED
    line.check(3)


def test_hold_keeps_the_point_in_hand(bench: Any, devices: Any) -> None:
    line = Line(bench, devices, action="hold")
    line.stage(monitored=("m1",))
    number = line.start(3, exp_time_s=0.05)
    bench.until(lambda: line.count() >= 1)
    line.beam.put(50.0)
    bench.until(lambda: line.trips)
    line.beam.put(400.0)
    line.release()
    assert bench.reply(number).status is InstructionStatus.COMPLETED
    assert [v for b in line.blocks() for v in b.values[0]] == [0.0, 1.0, 2.0]


def test_other_queues_and_those_that_only_block_go_on(bench: Any, devices: Any) -> None:
    line = Line(bench, devices, queues=["side"])
    line.beam.put(50.0)
    bench.until(lambda: line.trips)
    line.stage(monitored=("m1",))
    assert bench.reply(line.start(3)).status is InstructionStatus.COMPLETED
    bench.do(UnstageDevices(), scan_id="s1")
    line.define(action="block")
    line.stage("s2", "side", monitored=("m1",))
    assert bench.reply(line.start(3, "s2")).status is InstructionStatus.COMPLETED


def test_a_held_scan_can_be_stopped(bench: Any, devices: Any) -> None:
    line = Line(bench, devices)
    line.stage()
    line.beam.put(50.0)
    number = line.start(3)
    bench.until(lambda: line.trips)
    stop = DeviceControlMessage(kind=ControlKind.STOP, run_epoch=1, scan_id="s1")
    bench.broker.append(MessageEndpoints.device_control, stop)
    assert bench.reply(number).status is InstructionStatus.STOPPED
    assert line.count() == 0


def test_what_is_not_released_is_told_again(
    bench: Any, devices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that was lost, with whoever gave it, must not hold a beamline for ever."""
    monkeypatch.setattr("device_server.guards.AGAIN_S", 0.1)
    monkeypatch.setattr("device_server.app.REFRESH_S", 0.05)
    line = Line(bench, devices)
    line.beam.put(50.0)
    first = bench.until(lambda: line.trips)[0]
    line.beam.put(400.0)
    again = bench.until(lambda: line.trips[1:])[0]
    assert again.serial == first.serial
    line.release()
    bench.until(lambda: not bench.app._guards.holds("primary"))


def test_what_cannot_be_read_trips(bench: Any, devices: Any, device: Any) -> None:
    line = Line(bench, {**devices, "bad": device("FlakyMonitor", fail_every=1)})
    line.define(trips_when="bad.bad < 1")
    line.stage()
    line.start(3)
    assert "bad" in bench.until(lambda: line.trips)[0].why
    assert line.count() == 0


def test_the_scan_server_holds_what_only_it_can_see(bench: Any, devices: Any) -> None:
    """A device of another device server, or a state of a kind that is not known here."""
    line = Line(bench, devices, trips_when="elsewhere.x > 1")
    line.stage()
    line.control(ControlKind.HOLD)
    bench.until(lambda: bench.app._guards.holds("primary"))
    number = line.start(2)
    bench.turn(0.1)
    assert line.count() == 0
    line.control(ControlKind.RELEASE)
    bench.until(lambda: not bench.app._guards.holds("primary"))
    # A point is committed when the scan server has had the time to object: it does here.
    bench.until(lambda: line.blocks())
    line.control(ControlKind.HOLD)
    bench.until(lambda: bench.app._guards.holds("primary"))
    line.control(ControlKind.RELEASE)
    assert bench.reply(number).status is InstructionStatus.COMPLETED
    line.check(2)


def test_states_are_worked_out_here(bench: Any, devices: Any) -> None:
    config = {"name": "ok", "device": "beam", "low_limit": 100}
    line = Line(
        bench,
        devices,
        trips_when="states.ok != 'valid'",
        states={"ok": {"kind": "device_within_limits", "config": config}},
    )
    line.stage()
    assert bench.app._guards.watch("primary").wait_s == 0.0
    line.beam.put(50.0)
    bench.until(lambda: line.trips)


def test_after_a_restart_it_holds_what_is_tripped(bench: Any, devices: Any) -> None:
    line = Line(bench, devices)
    state = InterlockState(phase=InterlockPhase.SETTLING)
    bench.broker.put(MessageEndpoints.interlock_status, InterlockStatusMessage(interlocks={"beam": state}))
    bench.close()
    bench.boot()
    assert bench.app._guards.holds("primary")
    bench.load(devices)
    assert bench.app._guards.holds("primary")
    line.release(0)
    bench.until(lambda: not bench.app._guards.holds("primary"))


def test_watched_and_continuous_devices_are_read_about_once_a_second(
    bench: Any, devices: Any, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_server.app.REFRESH_S", 0.05)
    ring = {"current": 400, "top_up": 100, "lifetime": 1}
    line = Line(
        bench,
        {
            **devices,
            "curr": device("RingCurrent", **ring, readoutPriority="continuous"),
            "other": device("RingCurrent", **ring, readoutPriority="baseline"),
        },
    )

    def value(name: str) -> float:
        return float(bench.latest(MessageEndpoints.device_readback(name)).signals[name]["value"])

    curr, other = value("curr"), value("other")
    bench.until(lambda: value("curr") != curr)
    assert value("other") == other
    bench.broker.append(MessageEndpoints.interlocks, InterlocksMessage(watched=["other"]))
    bench.until(lambda: value("other") != other)
    assert not line.trips


def test_without_interlocks_nothing_is_done_for_them(bench: Any, devices: Any) -> None:
    bench.load(devices)
    assert not bench.app._guards.watch("primary")
    assert bench.app._refresh_due is None


def test_trips_at_any_instant(bench: Any, devices: Any) -> None:
    """The beam goes and comes back while points are moved to, exposed, read; no point is recorded without it."""
    line = Line(bench, devices)
    line.stage()
    dice = random.Random(5)
    gone = threading.Event()
    count = 150

    def machine() -> None:
        while not gone.wait(dice.expovariate(1 / 0.004)):
            line.dip(
                lambda: gone.wait(dice.expovariate(1 / 0.0005)), dice.uniform(0, 99), dice.uniform(100, 500)
            )

    thread = threading.Thread(target=machine, daemon=True)
    number = line.start(count, exp_time_s=0.001, settling_time_s=0.0005)
    thread.start()
    try:
        replies = MessageEndpoints.device_instructions_response("main")
        released = 0
        for _ in range(20_000):
            bench.turn(0.002)
            serial = max((t.serial for t in line.trips[-3:]), default=0)
            if serial > released and line.beam.get() >= 100:
                released = serial
                line.release(serial)
            elif bench.app._guards.holds("primary") and line.beam.get() >= 100:
                line.release(serial)
            if any(m.instruction_id == number for m in bench.messages(replies)):
                break
    finally:
        gone.set()
        thread.join()
    assert bench.reply(number).status is InstructionStatus.COMPLETED
    assert len(line.trips) > 20
    line.check(count)
