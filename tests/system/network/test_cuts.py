"""A network that is cut says nothing: connections stay open, and what is sent comes late.

The culprit is shown, nobody waits longer than was said, and what comes out of the network afterwards does no harm.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bec_client import BECClient
from bec_client.cli import app
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError, DeadlineExceeded
from bec_lib.service.service import EXIT_FENCED
from tests.system.network.hosts import SERVICES, Hosts
from tests.system.processes import wait_until

# How long a service stays cut off, once it is shown; longer than its lease. For measurements by hand, seconds.
CUT_S = float(os.environ.get("BEC_TEST_CUT_S", "0"))


@pytest.fixture(scope="module")
def shared() -> Iterator[Hosts]:
    made = Hosts().start()
    problems: list[str] = []
    try:
        yield made
        problems = made.judge_all()
    finally:
        problems += made.stop()
    assert problems == []


@pytest.fixture
def hosts(shared: Hosts) -> Iterator[Hosts]:
    for role in SERVICES:
        shared.wait_until_running(role)
    shared.told.clear()
    yield shared
    shared.heal()
    wait_until(lambda: shared.client.service_status.missing(SERVICES) == [], 30.0, "all are heard again")
    for name, queue in shared.client.queue.status.items():
        if queue.items:
            shared.client.queue.request_queue_reset(queue=name)


POSITIONS = np.linspace(-0.5, 0.5, 31)


# More than the device server is given at a time.
LONG = np.linspace(-0.5, 0.5, 301)


def line(hosts: Hosts, positions: np.ndarray = POSITIONS) -> Any:
    """A scan that has five points, and is not near its end."""
    report = hosts.client.scans.line_scan(
        "samx",
        positions[0],
        positions[-1],
        steps=len(positions),
        exp_time=0.02 if len(positions) < 100 else 0.0,
        relative=False,
    )
    wait_until(lambda: hosts.num_points(report.scan.scan_id) >= 5, 20.0, "five points")
    return report


def status(hosts: Hosts) -> str:
    return CliRunner().invoke(app, ["status", "--config", str(hosts.config_of("client"))]).output


def wait_until_shown(hosts: Hosts, role: str) -> float:
    """Until `bec status` says that it is not heard, and where it was; how long that took, seconds."""
    begun = time.monotonic()

    def shown() -> bool:
        row = next((text for text in status(hosts).splitlines() if role in text), "")
        return "silent" in row and re.search(r"not heard for \d+\.\d s", row) is not None

    wait_until(shown, 20.0, f"{role} is shown as silent")
    return time.monotonic() - begun


def test_clocks_that_differ_by_minutes_do_not_show(hosts: Hosts) -> None:
    shown = hosts.client.service_status.get()
    for role in SERVICES:
        assert 0.0 <= time.time() - shown[role].started < 200.0
    # Its calls are not taken for some that were made before the device server was started.
    with BECClient(hosts.config_of("client"), user="somebody") as other:
        assert "samx" in other.device_manager.devices.samx.read()


@pytest.mark.parametrize(
    ("role", "way"),
    [
        ("scan_server", "answers"),
        ("device_server", "for ever"),
        ("scan_bundler", "both"),
        ("file_writer", "for ever"),
    ],
)
def test_a_service_that_is_cut_off_is_shown_and_goes_on_afterwards(hosts: Hosts, role: str, way: str) -> None:
    """way: answers: only what Redis says is lost, so that what the service says is carried out and said again. for ever: a
    firewall has forgotten the connections, on which nothing comes any more, not even an end.
    """
    report = line(hosts, LONG if role == "scan_server" else POSITIONS)
    pid = hosts.processes[role].pid
    hosts.relays[role].cut(up=way != "answers")
    took = wait_until_shown(hosts, role)
    with pytest.raises(DeadlineExceeded, match=f"the {role.replace('_', ' ')} is silent .not heard for"):
        report.wait(timeout=1.2)
    time.sleep(CUT_S)
    if role in ("scan_server", "device_server"):
        assert not report.done
    else:
        # Points are not waited for before the file is.
        wait_until(lambda: report.done, 30.0, "the scan goes on without it")
    hosts.relays[role].heal(forgetful=way == "for ever")
    healed = time.monotonic()
    report.wait(timeout=60)
    print(f"{role} cut {way}: shown after {took:.2f} s, done {time.monotonic() - healed:.2f} s after its end")
    assert hosts.judge(report.scan.scan_id, LONG if role == "scan_server" else POSITIONS) == []
    assert hosts.heartbeat(role).pid == pid == hosts.processes[role].pid


def test_a_short_cut_of_everybody_costs_nothing_but_the_time(hosts: Hosts) -> None:
    report = line(hosts)
    for role in SERVICES:
        hosts.relays[role].cut()
    time.sleep(1.0)
    hosts.heal()
    report.wait(timeout=60)
    assert hosts.judge(report.scan.scan_id, POSITIONS) == []


def test_with_a_long_way_all_goes_slower_and_well(hosts: Hosts) -> None:
    for relay in hosts.relays.values():
        relay.delay(0.02)
    begun = time.monotonic()
    report = hosts.client.scans.line_scan("samx", -0.5, 0.5, steps=31, exp_time=0.0, relative=False)
    asked = time.monotonic()
    report.wait(timeout=60)
    done = time.monotonic()
    reading = hosts.client.device_manager.devices.samx.read()
    print(
        f"20 ms each way: accepted in {asked - begun:.2f} s, done in {done - asked:.2f} s, "
        f"a reading in {time.monotonic() - done:.2f} s"
    )
    assert abs(reading["samx"]["value"] - 0.5) < 0.02
    assert hosts.judge(report.scan.scan_id, POSITIONS) == []


def test_a_client_that_is_cut_off_is_told_and_does_nothing_afterwards(hosts: Hosts) -> None:
    client = hosts.client
    report = line(hosts)
    hosts.relays["client"].cut()
    calls: dict[str, Callable[[], Any]] = {
        "report.wait": lambda: report.wait(timeout=1.5),
        "dev.samx.read": lambda: client.device_manager.devices.samx.read(),
        "scans.line_scan": lambda: client.scans.line_scan("samx", 0, 1, steps=2, relative=False),
        "stop_devices": client.stop_devices,
        "abort": client.queue.request_scan_abortion,
    }
    for name, call in calls.items():
        begun = time.monotonic()
        with pytest.raises(BECError, match="cannot be reached"):
            call()
        took = time.monotonic() - begun
        print(f"{name} of a client that is cut off: refused after {took:.2f} s")
        assert took < 15.0
    assert any("broker (Redis) is silent" in text for text in hosts.told)
    begun = time.monotonic()
    assert "cannot be reached" in status(hosts)
    print(f"bec status of a client that is cut off: {time.monotonic() - begun:.2f} s")
    before = hosts.messages(MessageEndpoints.device_stop)
    hosts.relays["client"].heal()
    report.wait(timeout=60)
    # The scan was not aborted by what was asked for in the meantime.
    assert hosts.judge(report.scan.scan_id, POSITIONS) == []
    assert hosts.messages(MessageEndpoints.device_stop) == before


def test_a_service_that_was_replaced_meanwhile_is_fenced_and_says_so(
    hosts: Hosts, role: str = "scan_server"
) -> None:
    report = line(hosts, LONG)
    first = hosts.processes[role]
    hosts.relays[role].cut()
    wait_until_shown(hosts, role)
    hosts.write_config("elsewhere", hosts.server[1])
    second = hosts.start_service(role, "elsewhere")
    hosts.wait_until_running(role, second.pid)
    hosts.relays[role].heal()
    assert first.wait(timeout=30.0) == EXIT_FENCED
    assert f"another {role} has taken over" in hosts.said(role)
    report.wait(timeout=60)
    assert hosts.judge(report.scan.scan_id, LONG) == []
    assert hosts.heartbeat(role).pid == second.pid
    second.terminate()
    assert second.wait(timeout=30.0) == 0
    hosts.start_service(role)


def test_a_device_server_that_is_cut_off_stops_what_moves_and_moves_it_again(hosts: Hosts) -> None:
    """Nobody could stop it any more."""
    report = hosts.client.scans.mv("slow", 4.5, relative=False)
    dev = hosts.client.device_manager.devices
    wait_until(lambda: dev.slow.read()["slow"]["value"] > 0.05, 20.0, "it moves")
    hosts.relays["device_server"].cut()
    wait_until(lambda: "stopping slow" in hosts.said("device_server"), 20.0, "it is stopped")
    hosts.relays["device_server"].heal()
    report.wait(timeout=60)
    assert abs(dev.slow.read()["slow"]["value"] - 4.5) < 0.01
