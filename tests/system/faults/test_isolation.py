"""What one request does, or one process that comes back too late, stays without effect on all others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from bec_lib.broker import Delivery
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError, RequestRejected, ScanAborted
from bec_lib.messages import ScanState
from deploy import control
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


def ends_alone(stage: Stage, report: Any, sentence: str, timeout_s: float) -> None:
    """The scan is aborted with this sentence, and what it measured is in its file."""
    with pytest.raises(BECError, match=sentence):
        report.wait(timeout=timeout_s)
    report.wait_for_file()
    evidence = stage.evidence(report.scan.scan_id, stage.client.client_id, may_end=(ScanState.ABORTED,))
    assert oracle.judge_scan(evidence, stage.witnessed()) == []


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
    ends_alone(stage, report, sentence, timeout_s=20)
    assert stage.pids()["scan_server"] == others


def test_a_scan_whose_code_does_not_return_can_be_aborted(stage: Stage, others: int) -> None:
    report = stage.client.scans.bad("loops")
    wait_until(lambda: stage.num_points(report.scan.scan_id) == 1, 10.0, "its point")
    stage.client.queue.request_scan_abortion()
    with pytest.raises(ScanAborted):
        report.wait(timeout=20)
    assert stage.pids()["scan_server"] == others
    # Its thread loops on; with it there, nobody could say for certain what ends the process.
    control.ask(stage.fleet.socket, {"do": "restart", "service": "scan_server"})
    wait_until(lambda: stage.pids()["scan_server"] not in (0, others), 30.0, "another process")
    assert stage.wait_until_well() == []


@pytest.mark.parametrize(
    ("how", "sentence", "ends"),
    [
        ("dies", "the scan server ended with code 3 while it ran the code of the scan bad", 1),
        ("crashes", "the scan server was killed by SIGSEGV", 1),
        # That may have come from anybody.
        ("kills", "the scan server was killed by SIGKILL while it ran the code of the scan bad", 3),
    ],
)
def test_a_scan_whose_code_ends_the_scan_server_is_ended(
    stage: Stage, others: int, how: str, sentence: str, ends: int
) -> None:
    before = ends_of_scan_server(stage)
    report = stage.client.scans.bad(how)
    ends_alone(stage, report, sentence, timeout_s=90)
    assert stage.num_points(report.scan.scan_id) == 1
    assert ends_of_scan_server(stage) - before == ends


@pytest.mark.parametrize("how", ["dies_early", "crashes_early"])
def test_a_request_whose_code_ends_the_scan_server_is_refused_and_a_running_scan_goes_on(
    stage: Stage, others: int, how: str
) -> None:
    before = ends_of_scan_server(stage)
    samx = stage.client.device_manager.devices.samx
    running = stage.client.scans.line_scan(samx, -0.3, 0.3, steps=41, exp_time=0.02, relative=False)
    wait_until(lambda: stage.num_points(running.scan.scan_id) >= 3, 20.0, "three points")
    with pytest.raises(RequestRejected, match=r"the scan bad \(plugin chaos.*it is not tried again"):
        stage.client.scans.bad(how)
    running.wait(timeout=60)
    evidence = stage.evidence(running.scan.scan_id, stage.client.client_id)
    assert oracle.judge_scan(evidence, stage.witnessed()) == []
    assert ends_of_scan_server(stage) - before == 1


def test_a_request_whose_code_holds_the_interpreter_is_shown_and_refused(stage: Stage, others: int) -> None:
    answers: list[BaseException] = []

    def ask() -> None:
        try:
            stage.client.scans.bad("holds_early")
        except BECError as error:
            answers.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    wait_until(
        lambda: "in the code of the scan bad" in stage.fleet.row("scan_server")["reason"], 30.0, "a name"
    )
    wait_until(
        lambda: "in the code of the scan bad" in stage.client.service_status.busy_with("scan_server"),
        30.0,
        "for clients",
    )
    asking.join(90.0)
    assert answers and "killed by the supervisor" in str(answers[0])
    assert "the scan bad (plugin chaos" in str(answers[0])


def ends_of_scan_server(stage: Stage) -> int:
    """How often its process has ended in this fleet."""
    events = stage.broker.entries(MessageEndpoints.supervisor_events)
    messages = [item.message for item in events if isinstance(item, Delivery)]
    return sum(message.service == "scan_server" and message.event == "ended" for message in messages)


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
