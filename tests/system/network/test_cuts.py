"""A network that is cut says nothing: connections stay open, and what is sent comes late.

The culprit is shown, nobody waits longer than was said, and what comes out of the network afterwards does no harm.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bec_client.cli import app
from bec_lib.errors import DeadlineExceeded
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


def line(hosts: Hosts) -> Any:
    """A scan that has five points, and is not near its end."""
    report = hosts.client.scans.line_scan("samx", -0.5, 0.5, steps=31, exp_time=0.02, relative=False)
    wait_until(lambda: hosts.num_points(report.scan.scan_id) >= 5, 20.0, "five points")
    return report


def status(hosts: Hosts) -> str:
    return CliRunner().invoke(app, ["status", "--config", str(hosts.config_of("client"))]).output


def wait_until_shown(hosts: Hosts, role: str) -> float:
    """Until `bec status` says that it is not heard, and where it was; how long that took, seconds."""
    begun = time.monotonic()

    def shown() -> bool:
        row = next((text for text in status(hosts).splitlines() if role in text), "")
        return "silent" in row and "not heard for" in row

    wait_until(shown, 20.0, f"{role} is shown as silent")
    return time.monotonic() - begun


@pytest.mark.parametrize(
    ("role", "way"),
    [*((role, "both") for role in SERVICES), ("device_server", "down"), ("scan_server", "down")],
)
def test_a_service_that_is_cut_off_is_shown_and_goes_on_afterwards(hosts: Hosts, role: str, way: str) -> None:
    report = line(hosts)
    pid = hosts.processes[role].pid
    hosts.relays[role].cut(up=way != "down", down=way != "up")
    took = wait_until_shown(hosts, role)
    with pytest.raises(DeadlineExceeded, match=f"the {role.replace('_', ' ')} is silent .not heard for"):
        report.wait(timeout=1.5)
    time.sleep(CUT_S)
    hosts.relays[role].heal()
    healed = time.monotonic()
    report.wait(timeout=60)
    print(f"{role} cut {way}: shown after {took:.2f} s, done {time.monotonic() - healed:.2f} s after its end")
    assert hosts.judge(report.scan.scan_id, POSITIONS) == []
    assert hosts.heartbeat(role).pid == pid == hosts.processes[role].pid
