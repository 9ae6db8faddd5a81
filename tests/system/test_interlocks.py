"""The beam goes away under a real fleet: scans are held, go on by themselves, and no point is taken without it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from bec_lib.errors import RequestRejected
from bec_lib.messages import ReadingsMessage
from deploy.temporary import TemporaryFleet
from tests.system.conftest import DEMO_DEVICES
from tests.system.processes import wait_until

FULL, GONE = 400.0, 50.0
# Of i0 with full beam; it is in proportion to the beam, and counts with Poisson noise.
COUNTS = 250_000


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporaryFleet]:
    """The demo's beamline, whose i0 follows a beam that the test switches."""
    from bec_client import BECClient

    devices = yaml.safe_load(DEMO_DEVICES.read_text(encoding="utf-8"))
    devices["beam"] = {
        "deviceClass": "device_server.sim.SetableSignal",
        "deviceConfig": {"value": FULL, "egu": "mA", "limits": [0, 500]},
        "enabled": True,
        "readoutPriority": "on_request",
    }
    devices["i0"]["deviceConfig"]["ring_current"] = "beam"
    devices["i0"]["needs"] = ["beam"]
    file = tmp_path_factory.mktemp("interlocks") / "devices.yaml"
    file.write_text(yaml.safe_dump(devices, sort_keys=False), encoding="utf-8")
    with TemporaryFleet(prefix="bec-test") as fleet:
        with BECClient(fleet.config) as client:
            assert not client.config.update_session_with_file(file).failed
        yield fleet


@pytest.fixture
def bec(beamline: TemporaryFleet) -> Iterator[Any]:
    from bec_client import BECClient

    with BECClient(beamline.config) as client:
        client.live_updates.enabled = False
        client.devices.beam.set(FULL).wait()
        yield client
        client.interlocks.remove()


def arm(bec: Any, **more: Any) -> None:
    bec.interlocks.add("beam_current", "beam.beam < 100", clears_when="beam.beam > 120", **more)
    wait_until(lambda: bec.interlocks.status["beam_current"].phase == "clear", 5.0, "the interlock is clear")


def check(bec: Any, report: Any, steps: int) -> float:
    """Every point once, in order, with beam; the dead time in the file, seconds."""
    with h5py.File(report.scan.file_path) as file:
        positions = file["/entry/collection/devices/samx/samx/value"][:]
        counts = file["/entry/collection/devices/i0/i0/value"][:]
        dead_time = float(file["/entry/collection/metadata/bec/dead_time_s"][()])
    assert positions == pytest.approx(np.linspace(-0.5, 0.5, steps), abs=0.01)
    assert np.all(np.abs(counts - COUNTS) < 10 * np.sqrt(COUNTS)), counts
    assert dead_time == report.scan.status_message.dead_time_s
    return dead_time


def scan(bec: Any, steps: int = 21) -> Any:
    samx = bec.devices.samx
    return bec.scans.line_scan(samx, -0.5, 0.5, steps=steps, exp_time=0.02, relative=False, hide_report=True)


def test_a_trip_in_a_scan(bec: Any) -> None:
    arm(bec, settle_time=0.2)
    report = scan(bec)
    beam = bec.devices.beam
    for count in (3, 8, 15):
        wait_until(lambda n=count: len(report.scan.live_data) >= n, 20.0, f"{count} points")
        beam.set(GONE).wait()
        wait_until(lambda: report.scan.status == "paused", 5.0, "the scan is held")
        if count == 3:
            wait_until(
                lambda: bec.queue.status["primary"].items[0].status == "paused", 5.0, "the queue says so too"
            )
            item = bec.queue.status["primary"].items[0]
            assert item.waiting_for == "held by interlock beam_current: beam.beam = 50 mA, must be > 120 mA"
            with pytest.raises(RequestRejected, match="goes on by itself"):
                bec.queue.request_scan_continuation()
        beam.set(FULL).wait()
        wait_until(lambda: report.scan.status == "open", 5.0, "the scan goes on")
    report.wait(timeout=30, file_written=True)
    assert report.scan.status == "closed"
    assert 0.6 <= check(bec, report, 21) < 5.0


def test_nothing_starts_and_a_users_pause_outlasts_the_hold(bec: Any) -> None:
    arm(bec)
    beam = bec.devices.beam
    beam.set(GONE).wait()
    wait_until(lambda: bec.interlocks.tripped, 5.0, "it trips")
    waiting = scan(bec, 11)
    time.sleep(0.2)
    assert bec.queue.status["primary"].items[0].status == "pending"
    beam.set(FULL).wait()
    wait_until(lambda: len(waiting.scan.live_data) >= 2 if waiting.scan else False, 20.0, "it starts")
    beam.set(GONE).wait()
    wait_until(lambda: waiting.scan.status == "paused", 5.0, "it is held")
    bec.queue.request_scan_interruption()
    beam.set(FULL).wait()
    wait_until(lambda: not bec.interlocks.tripped, 5.0, "it clears")
    time.sleep(0.2)
    assert waiting.scan.status == "paused"
    bec.queue.request_scan_continuation()
    waiting.wait(timeout=30, file_written=True)
    assert check(bec, waiting, 11) > 0.0


@pytest.mark.parametrize("victims", [["scan_server"], ["device_server"], ["scan_server", "device_server"]])
def test_a_hold_survives_the_death_of_those_who_hold(
    bec: Any, beamline: TemporaryFleet, victims: list[str]
) -> None:
    """The simulated beam is a device, and is there again when its server is: then the scan goes on, and not before."""
    arm(bec, settle_time=0.2)
    report = scan(bec)
    beam = bec.devices.beam
    wait_until(lambda: len(report.scan.live_data) >= 4, 20.0, "four points")
    beam.set(GONE).wait()
    wait_until(lambda: report.scan.status == "paused", 5.0, "the scan is held")
    time.sleep(0.1)
    before = len(report.scan.live_data)
    for victim in victims:
        os.kill(beamline.row(victim)["pid"], signal.SIGKILL)
    if "device_server" not in victims:
        time.sleep(1.0)
        assert len(report.scan.live_data) == before
        beam.set(FULL).wait()
    report.wait(timeout=60, file_written=True)
    assert report.scan.status == "closed"
    assert check(bec, report, 21) > 0.2


def test_trips_at_any_instant(bec: Any) -> None:
    """Short dips and long ones, in moves, exposures and readings; what the device server committed shows no overlap."""
    from bec_lib.broker import Delivery
    from bec_lib.endpoints import MessageEndpoints

    arm(bec)
    dice = np.random.default_rng(3)
    report = scan(bec, 41)
    beam = bec.devices.beam
    without: list[tuple[float, float]] = []
    wait_until(lambda: report.scan is not None and len(report.scan.live_data) >= 1, 20.0, "a point")
    while not report.done and len(without) < 25:
        beam.set(GONE).wait()
        gone = time.time()
        time.sleep(dice.exponential(0.01))
        back = time.time()
        beam.set(FULL).wait()
        without.append((gone, back))
        time.sleep(dice.exponential(0.08))
    report.wait(timeout=60, file_written=True)
    check(bec, report, 41)
    spans: list[tuple[float, float]] = []
    for item in bec.broker.entries(MessageEndpoints.scan_readings(report.scan.scan_id)):
        if isinstance(item, Delivery) and isinstance(item.message, ReadingsMessage):
            spans += zip(item.message.acq_start, item.message.acq_end, strict=True)
    assert len(spans) == 41 and len(without) > 5
    for gone, back in without:
        assert not [span for span in spans if span[0] < back and span[1] > gone]
