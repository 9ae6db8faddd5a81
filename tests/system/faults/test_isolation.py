"""What one request does, or one process that comes back too late, stays without effect on all others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from bec_lib.errors import BECError, ScanAborted
from bec_lib.messages import ScanState
from tests.chaos import oracle
from tests.chaos.stage import Stage
from tests.system.processes import wait_until


@pytest.fixture
def others(stage: Stage) -> Any:
    """What others have running when a bad request comes; it must go on and end well."""
    assert stage.wait_until_well() == []
    pid = stage.pids()["scan_server"]
    yield pid
    well = stage.client.scans.line_scan(
        stage.client.device_manager.devices.samx, 0, 0.1, steps=3, relative=False
    )
    well.wait(timeout=30)
    assert stage.evidence(well.scan.scan_id, stage.client.client_id).file is not None


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("raises", "RuntimeError: I was never tried out"),
        ("exits", "SystemExit: bye"),
        ("interrupts", "KeyboardInterrupt"),
        ("is_no_generator", "ValueError: not even begun"),
        ("gives_nonsense", "gave a step that is none: 'sideways'"),
    ],
)
def test_a_scan_whose_code_fails_takes_down_nothing_but_itself(
    stage: Stage, others: int, how: str, sentence: str
) -> None:
    report = stage.client.scans.bad(how)
    with pytest.raises(BECError, match=sentence):
        report.wait(timeout=20)
    report.wait_for_file()
    evidence = stage.evidence(report.scan.scan_id, stage.client.client_id, may_end=(ScanState.ABORTED,))
    assert oracle.judge_scan(evidence, stage.witnessed()) == []
    assert stage.pids()["scan_server"] == others


def test_a_scan_whose_code_does_not_return_can_be_aborted(stage: Stage, others: int) -> None:
    report = stage.client.scans.bad("loops")
    wait_until(lambda: stage.num_points(report.scan.scan_id) == 1, 10.0, "its point")
    stage.client.queue.request_scan_abortion()
    with pytest.raises(ScanAborted):
        report.wait(timeout=20)
    assert stage.pids()["scan_server"] == others


def test_a_scan_that_kills_the_scan_server_is_paused_in_the_end_and_can_be_aborted(
    stage: Stage, others: int
) -> None:
    report = stage.client.scans.bad("kills")
    wait_until(lambda: report.status == "PAUSED", 30.0, "it is paused")
    # The scan's state and the queue's are written by two threads, one after the other.
    wait_until(
        lambda: "has ended 3 times in a row" in stage.client.queue.status["primary"].message, 10.0, "why"
    )
    time.sleep(0.5)
    pid = stage.pids()["scan_server"]
    stage.client.queue.request_scan_abortion()
    with pytest.raises(ScanAborted):
        report.wait(timeout=20)
    assert stage.pids()["scan_server"] == pid


def test_a_device_that_wants_people_to_be_asked_is_not_used_again_by_itself(stage: Stage) -> None:
    assert stage.wait_until_well() == []
    client = stage.client
    client.config.update({"samy": {"onInterrupt": "ask"}})
    try:
        samy = client.device_manager.devices.samy
        report = client.scans.line_scan(samy, -0.3, 0.3, steps=31, exp_time=0.01, relative=False)
        wait_until(lambda: stage.num_points(report.scan.scan_id) >= 5, 10.0, "five points")
        os.kill(stage.pids()["device_server"], signal.SIGKILL)
        wait_until(lambda: report.status == "PAUSED", 10.0, "it is paused")
        wait_until(
            lambda: "samy has `onInterrupt: ask`" in client.queue.status["primary"].message, 10.0, "why"
        )
        before = stage.num_points(report.scan.scan_id)
        assert stage.wait_until_well() == []
        assert stage.num_points(report.scan.scan_id) == before < 31
        client.queue.request_scan_continuation()
        report.wait(timeout=20)
        evidence = stage.evidence(report.scan.scan_id, client.client_id)
        assert oracle.judge_scan(evidence, stage.witnessed()) == []
    finally:
        client.config.update({"samy": {"onInterrupt": "repeat"}})


def test_a_file_writer_that_comes_back_too_late_is_refused(stage: Stage) -> None:
    """Stopped in the middle of a scan and replaced; it wakes up when its successor has made the final file."""
    assert stage.wait_until_well() == []
    dev = stage.client.device_manager.devices
    report = stage.client.scans.line_scan(dev.samx, -0.3, 0.3, steps=31, exp_time=0.02, relative=False)
    wait_until(lambda: stage.num_points(report.scan.scan_id) >= 5, 10.0, "five points")
    stale = stage.pids()["file_writer"]
    os.kill(stale, signal.SIGSTOP)
    successor = subprocess.Popen(
        [sys.executable, "-m", "file_writer", "--config", str(stage.fleet.config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=stage.fleet.folder,
    )
    try:
        report.wait(timeout=30)
        path = report.scan.file_path
        before = os.stat(path)
        os.kill(stale, signal.SIGCONT)
        wait_until(lambda: stage.pids()["file_writer"] != stale, 10.0, "the stale writer ends")
        assert "another instance has taken over" in stage.fleet.row("file_writer")["reason"]
        after = os.stat(path)
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        evidence = stage.evidence(report.scan.scan_id, stage.client.client_id)
        assert oracle.judge_scan(evidence, stage.witnessed()) == []
    finally:
        successor.terminate()
        successor.wait(timeout=10)
    assert stage.wait_until_well(30.0) == []
