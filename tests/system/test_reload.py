"""Devices that are built anew, that need each other over two device servers, and that somebody has.

Real processes, because modules are imported again in one, and the order of loading concerns two.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError, ReasonCode
from deploy.temporary import TemporaryFleet

STAGE = """
from ophyd import Component, Device, Kind, Signal


class Stage(Device):
    USER_ACCESS = ["version"]
    readback = Component(Signal, value=0.0, kind=Kind.hinted)
    version = {version}
"""
SIMULATED = {"enabled": True, "readoutPriority": "baseline", "connectionTimeout": 1.0}
MOTOR = {
    **SIMULATED,
    "deviceClass": "device_server.sim.SimPositioner",
    "deviceConfig": {"velocity": 5, "limits": [-200, 200]},
}
GONE = {**SIMULATED, "deviceClass": "device_server.sim.broken.NeverConnects"}


@pytest.fixture(scope="module")
def two() -> Iterator[Any]:
    """A fleet with the device servers main and hutch, a client of it, and a folder from which both import."""
    from bec_client import BECClient

    with pytest.MonkeyPatch.context() as patch:
        fleet = TemporaryFleet(prefix="bec-test", settings={"device_servers": ["main", "hutch"]})
        site = fleet.folder / "site"
        (site / "beamline").mkdir(parents=True)
        (site / "beamline" / "__init__.py").write_text("")
        patch.setenv("PYTHONPATH", str(site))
        with fleet, BECClient(fleet.config) as bec:
            bec.live_updates.enabled = False
            yield fleet, bec, site / "beamline" / "stages.py"


def until(true: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"that did not come true within {timeout_s:g} s")


def load(bec: Any, fleet: TemporaryFleet, devices: dict[str, Any]) -> Any:
    file = fleet.folder / "devices.yaml"
    file.write_text(yaml.safe_dump(devices))
    return bec.config.update_session_with_file(file, force=True)


def test_devices_are_built_anew_with_their_source_as_it_is_now(two: Any) -> None:
    fleet, bec, source = two
    stage = {**SIMULATED, "deviceClass": "beamline.stages.Stage"}
    source.write_text(STAGE.format(version=1))
    assert not load(bec, fleet, {"x": stage, "y": {**stage, "deviceServer": "hutch"}, "samx": MOTOR}).failed
    pids = [fleet.row(role)["pid"] for role in ("device_server", "device_server.hutch")]
    assert (bec.devices.x.version, bec.devices.y.version) == (1, 1)

    source.write_text(STAGE.format(version=22))
    change = bec.config.reload()
    assert (change.failed, change.kept) == ({}, {}) and sorted(change.loaded) == ["samx", "x", "y"]
    assert (bec.devices.x.version, bec.devices.y.version) == (22, 22)

    # Broken: named, on both servers, and in use as it was. What is not concerned is built anew.
    source.write_text(STAGE.format(version="3 +* 3"))
    change = bec.config.reload()
    assert change.failed == {} and set(change.kept) == {"x", "y"}
    assert "x stays as it was" in str(change) and "invalid syntax" in change.kept["y"]
    assert (bec.devices.x.version, bec.devices.y.version) == (22, 22)

    source.write_text(STAGE.format(version=4444))
    assert not bec.config.reload("x").kept
    assert (bec.devices.x.version, bec.devices.y.version) == (4444, 22)
    assert [fleet.row(role)["pid"] for role in ("device_server", "device_server.hutch")] == pids


def test_a_device_may_need_one_of_another_device_server(two: Any) -> None:
    fleet, bec, _ = two
    devices = {
        "samx": {**MOTOR, "needs": ["mo1"]},
        "mo1": {**GONE, "deviceServer": "hutch", "needs": ["ring"]},
        "ring": MOTOR,
    }
    change = load(bec, fleet, devices)
    assert change.loaded == ["ring"]
    assert change.failed["mo1"] == "mo1 did not connect within 1 s"
    assert change.failed["samx"] == "samx needs mo1, which failed: mo1 did not connect within 1 s"
    with pytest.raises(BECError, match="samx needs mo1, which failed"):
        bec.devices.samx.read()

    # What failed for want of it is tried again with it.
    bec.config.update({"mo1": {"deviceClass": MOTOR["deviceClass"]}})
    assert bec.devices.failed_devices == {}
    assert bec.devices.samx.read() and bec.devices.mo1.read()

    # Both start anew at the same time, and whichever is first: all devices come back.
    before = [fleet.row(role)["pid"] for role in ("device_server", "device_server.hutch")]
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(
        lambda: all(
            bec.session.fresh_info(name).state == "ready" and _answers(bec, name) for name in ("samx", "mo1")
        )
    )
    assert not set(before) & {fleet.row(role)["pid"] for role in ("device_server", "device_server.hutch")}
    report = bec.scans.line_scan(bec.devices.samx, 0, 0.2, steps=3, relative=False, hide_report=True)
    report.wait(timeout=60)


def _answers(bec: Any, name: str) -> bool:
    try:
        return bool(bec.devices[name].read())
    except BECError:
        return False


def test_who_wants_a_device_that_a_scan_has_is_told_whose_it_is(two: Any, capsys: Any) -> None:
    from bec_client import BECClient

    fleet, bec, _ = two
    assert not load(bec, fleet, {"samx": MOTOR, "samy": {**MOTOR, "deviceServer": "hutch"}}).failed
    with BECClient(fleet.config, user="berta") as other:
        other.live_updates.enabled = False
        report = other.scans.line_scan(other.devices.samx, -100, 100, steps=3, relative=False)
        mine = f"scan {until(lambda: report.scan and report.scan.scan_number)} (line_scan) of berta"
        until(lambda: bec.devices.samx.owner)
        assert bec.devices.samx.owner == mine and bec.devices.samy.owner == ""
        with pytest.raises(BECError, match=r"samx is held by scan \d+ \(line_scan\) of berta") as refused:
            bec.devices.samx.set(1).wait(timeout=30)
        assert refused.value.reason is ReasonCode.DEVICE_OWNED
        bec.devices.wm()
        assert "of berta" in capsys.readouterr().out
        other.queue.request_scan_abortion()
        with pytest.raises(BECError):
            report.wait(timeout=60)
    until(lambda: bec.devices.samx.owner == "")
    status = bec.devices.samy.set(150)
    until(lambda: bec.devices.samy.owner)
    assert bec.devices.samy.owner == f"dev.samy.set of {bec.username}"
    status.stop()
    until(lambda: bec.devices.samy.owner == "")


@pytest.mark.parametrize("killed", ["device_server", "device_server.hutch"])
def test_points_of_one_device_server_are_each_taken_once_whichever_dies(two: Any, killed: str) -> None:
    """Several pieces are in flight on one server, which the other knows nothing of."""
    import h5py

    fleet, bec, _ = two
    zero = {**SIMULATED, "deviceClass": "device_server.sim.ZeroMotor"}
    constant = {**SIMULATED, "deviceClass": "device_server.sim.ConstSignal", "deviceConfig": {"value": 1.0}}
    devices = {
        "m1": zero,
        "d1": {**constant, "readoutPriority": "monitored"},
        "room": {**constant, "deviceServer": "hutch"},
    }
    assert not load(bec, fleet, devices).failed
    report = bec.scans.line_scan(
        bec.devices.m1, 0, 199, steps=200, settling_time=0.01, relative=False, hide_report=True
    )
    until(lambda: report.scan and bec.broker.entries(MessageEndpoints.scan_points(report.scan.scan_id)))
    os.kill(fleet.row(killed)["pid"], signal.SIGKILL)
    report.wait(timeout=120)
    with h5py.File(report.scan.file_path) as file:
        assert file["entry/collection/devices/m1/m1/value"][:].tolist() == list(range(200))
