"""Interlocks and beamline states in the scan server as a whole, on fakeredis; the test says what the devices read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import ReasonCode
from bec_lib.messages import (
    BeamlineStateRequestMessage,
    DeviceMessage,
    InterlockConfig,
    InterlockRequestMessage,
    InterlockTripMessage,
    QueueAction,
    ScanState,
)
from bec_lib.service import ServiceConfig
from tests.scan_server.test_app import WAIT_S, Beamline


class Watched(Beamline):
    def read(self, value: Any, device: str = "bpm4i") -> None:
        """The device server publishes a reading."""
        signals = {device: {"value": value, "timestamp": self.client.clock.now()}}
        self.client.put(MessageEndpoints.device_readback(device), DeviceMessage(signals=signals))

    def interlock(self, trips_when: str = "bpm4i < 100", name: str = "beam", **more: Any) -> Any:
        config = InterlockConfig(name=name, trips_when=trips_when, **more)
        return self.change("add", interlock=config)

    def change(self, action: Any, **more: Any) -> Any:
        request = InterlockRequestMessage(
            request_id=self.next_request(), client_id="c1", action=action, **more
        )
        return self.answer(self.send(request))

    def state(self, action: Any, name: str, **more: Any) -> Any:
        request = BeamlineStateRequestMessage(
            request_id=self.next_request(), client_id="c1", action=action, name=name, **more
        )
        return self.answer(self.send(request))

    def until(self, ready: Callable[[], Any]) -> Any:
        """Wait for the queues or the states to change until something is so."""
        streams = (
            MessageEndpoints.queue_events,
            MessageEndpoints.scan_status,
            MessageEndpoints.beamline_state_events,
        )
        cursors = {stream: self.client.last_id(stream) for stream in streams}
        deadline = self.client.clock.monotonic() + WAIT_S
        while self.client.clock.monotonic() < deadline:
            found = ready()
            if found:
                return found
            for item in self.client.read(cursors, block_s=0.05):
                cursors[item.endpoint] = item.entry_id
        raise AssertionError("it did not become so")

    def queue(self) -> Any:
        found = self.client.get(MessageEndpoints.scan_queue_status)
        assert found is not None
        return found.message.queues["primary"]

    def phase(self, name: str = "beam") -> str:
        found = self.client.get(MessageEndpoints.interlock_status)
        return (
            found.message.interlocks[name].phase.value if found and name in found.message.interlocks else ""
        )

    def controls(self) -> list[str]:
        return [m.kind.value for m in self.messages(MessageEndpoints.device_control) if m.interlock]


@pytest.fixture
def beamline(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.close()


def test_a_scan_does_not_start_and_starts_by_itself(beamline: Watched) -> None:
    beamline.read(50.0)
    assert beamline.interlock().accepted
    request = beamline.submit("line_scan", "samx", -1, 1, steps=3)
    assert beamline.answer(request).accepted
    item = beamline.until(lambda: beamline.phase() == "tripped" and beamline.queue().items)[0]
    assert item.waiting_for == "held by interlock beam: bpm4i = 50 mm, must be >= 100 mm"
    assert list(beamline.queue().held) == ["beam"]
    # A move may be what opens the shutter: it waits for nothing but its turn.
    assert beamline.done(beamline.submit("mv", "samx", 1, queue="side")).success
    told = beamline.command(QueueAction.CONTINUE)
    assert not told.accepted and "goes on by itself" in told.message
    beamline.read(200.0)
    assert beamline.done(request).success
    assert beamline.phase() == "clear"


def test_a_running_scan_is_held_and_goes_on(beamline: Watched) -> None:
    beamline.read(200.0)
    beamline.interlock(settle_time_s=0.1)
    beamline.until(lambda: beamline.phase() == "clear")
    beamline.devices.go.clear()
    request = beamline.submit("line_scan", "samx", -1, 1, steps=3)
    scan_id = beamline.answer(request).scan_id
    beamline.devices.at_points.wait(WAIT_S)
    beamline.read(50.0)
    beamline.until(lambda: beamline.statuses(scan_id)[-1].reason == "interlock")
    held = beamline.statuses(scan_id)[-1]
    assert held.status is ScanState.PAUSED and "bpm4i = 50" in held.message
    assert beamline.queue().items[0].status == "paused"
    beamline.read(200.0)
    beamline.until(lambda: beamline.statuses(scan_id)[-1].status is ScanState.OPEN)
    beamline.devices.go.set()
    assert beamline.done(request).success
    assert beamline.statuses(scan_id)[-1].dead_time_s >= 0.1
    assert beamline.controls()[-2:] == ["hold", "release"]
    alarms = [m.info.error_message for m in beamline.messages(MessageEndpoints.alarm)]
    assert any("interlock beam has tripped" in text for text in alarms)


def test_a_restart_forgets_nothing(beamline: Watched) -> None:
    beamline.read(200.0)
    beamline.interlock()
    beamline.until(lambda: beamline.phase() == "clear")
    beamline.devices.go.clear()
    running = beamline.submit("line_scan", "samx", -1, 1, steps=3)
    scan_id = beamline.answer(running).scan_id
    beamline.devices.at_points.wait(WAIT_S)
    beamline.read(50.0)
    beamline.until(lambda: beamline.statuses(scan_id)[-1].reason == "interlock")
    waiting = beamline.submit("acquire")
    beamline.answer(waiting)
    beamline.stop_server()
    beamline.start_server()
    beamline.devices.go.set()
    beamline.read(60.0)
    beamline.until(lambda: "bpm4i = " in beamline.queue().message)
    assert beamline.phase() == "tripped"
    assert beamline.statuses(scan_id)[-1].status is ScanState.PAUSED
    beamline.read(200.0)
    assert beamline.done(running).success and beamline.done(waiting).success
    assert beamline.statuses(scan_id)[-1].dead_time_s > 0.0


def test_a_dip_that_only_the_device_server_saw(beamline: Watched) -> None:
    beamline.read(200.0)
    beamline.interlock(settle_time_s=0.05)
    beamline.until(lambda: beamline.phase() == "clear")
    now = beamline.client.clock.now()
    trip = InterlockTripMessage(
        interlock="beam",
        server="main",
        serial=5,
        since=now,
        why="bpm4i = 1",
        readings={"bpm4i": {"bpm4i": {"value": 1.0, "timestamp": now}}},
    )
    beamline.client.append(MessageEndpoints.interlock_trips, trip)
    beamline.until(lambda: beamline.phase() == "tripped")
    beamline.read(200.0)
    beamline.until(lambda: "release" in beamline.controls()[-1:] and beamline.phase() == "clear")
    released = [m for m in beamline.messages(MessageEndpoints.device_control) if m.kind == "release"][-1]
    assert released.trips == {"main": 5}


@pytest.mark.parametrize(
    ("trips_when", "code", "text"),
    [
        ("bpm4i <", ReasonCode.INVALID_ARGUMENT, "not understood"),
        ("open('x')", ReasonCode.INVALID_ARGUMENT, "not allowed"),
        ("bpm4 < 1", ReasonCode.UNKNOWN_DEVICE, "Did you mean bpm4i"),
        ("off > 1", ReasonCode.DEVICE_DISABLED, "off is disabled"),
        ("samx.reedback > 1", ReasonCode.INVALID_ARGUMENT, "no signal 'reedback'"),
        ("states.nix == 'valid'", ReasonCode.NOT_FOUND, "no beamline state 'nix'"),
    ],
)
def test_what_is_no_interlock_is_refused(
    beamline: Watched, trips_when: str, code: ReasonCode, text: str
) -> None:
    answer = beamline.interlock(trips_when)
    assert not answer.accepted and answer.code == code and text in answer.message
    assert not beamline.client.entries(MessageEndpoints.interlocks)


def test_disable_enable_remove(beamline: Watched) -> None:
    beamline.read(50.0)
    beamline.interlock()
    beamline.until(lambda: beamline.queue().held)
    assert beamline.change("disable", names=["beam"]).accepted
    assert beamline.done(beamline.submit("acquire")).success
    assert beamline.change("enable").accepted
    beamline.until(lambda: beamline.queue().held)
    assert "no interlock 'beem'" in beamline.change("remove", names=["beem"]).message
    assert beamline.change("remove", names=["beam"]).accepted
    assert beamline.done(beamline.submit("acquire")).success


def test_interlocks_of_the_service_configuration(tmp_path: Path) -> None:
    class Configured(Watched):
        def start_server(self) -> None:
            raw = {"name": "beam", "trips_when": "bpm4i < 100"}
            self.config = ServiceConfig(data_path=tmp_path / "data", state_path=tmp_path, interlocks=[raw])
            super().start_server()

    beamline = Configured(tmp_path)
    try:
        beamline.read(50.0)
        beamline.until(lambda: beamline.phase() == "tripped")
        assert "service configuration" in beamline.change("remove", names=["beam"]).message
        assert "service configuration" in beamline.interlock("bpm4i < 1").message
        assert beamline.change("disable", names=["beam"]).accepted
        beamline.stop_server()
        beamline.start_server()
        beamline.until(lambda: beamline.phase() == "disabled")
    finally:
        beamline.close()


def test_beamline_states_and_an_interlock_that_watches_one(beamline: Watched) -> None:
    beamline.read(0.0)
    config = {"device": "bpm4i", "low_limit": -1, "high_limit": 1}
    assert beamline.state("add", "near", kind="device_within_limits", config=config).accepted

    def status() -> str:
        found = beamline.client.get(MessageEndpoints.beamline_states)
        return found.message.states["near"].status.value if found and "near" in found.message.states else ""

    beamline.until(lambda: status() == "valid")
    assert beamline.interlock("states.near != 'valid'").accepted
    beamline.until(lambda: beamline.phase() == "clear")
    beamline.read(5.0)
    beamline.until(lambda: beamline.phase() == "tripped" and status() == "invalid")
    refused = beamline.state("remove", "near")
    assert not refused.accepted and "watched by the interlock beam" in refused.message
    assert beamline.state("update", "near", config={"high_limit": 10}).accepted
    beamline.until(lambda: beamline.phase() == "clear" and status() == "valid")
    beamline.stop_server()
    beamline.start_server()
    beamline.until(lambda: status() == "valid")
    assert [m.status.value for m in beamline.messages(MessageEndpoints.beamline_state_events)][:3] == [
        "unknown",
        "valid",
        "invalid",
    ]
