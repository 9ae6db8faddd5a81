"""A scan server that finds what its predecessor has died of, and code that does not return: what becomes of the
request, of the scan, and of all others.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import ReasonCode
from bec_lib.foreign import CLEANING_UP, WORKING_OUT, ForeignCall
from bec_lib.messages import QueueAction, ScanState, SupervisorMessage
from bec_lib.scans import (
    Bundle,
    Device,
    Move,
    Point,
    ScanModifier,
    Steps,
    StepScan,
    argument,
    cleanup,
    describe_scan,
)
from bec_lib.scans.modifier import modify
from bec_lib.service.foreign_code import ForeignCode, folder_of
from scan_server.catalogue import Catalogue, load_catalogue
from tests.scan_server.test_app import WAIT_S, Beamline

entered = threading.Event()
released = threading.Event()
worked_out: list[str] = []
# What is to be held from a scan's second point on.
gates: list[threading.Event] = []


class Rough(StepScan):
    """Goes half a millimetre away, and may not come back from there."""

    scan_name = "rough"
    arguments = Bundle(argument("device", Device), argument("how", str), at_least=1, at_most=1)

    def positions(self) -> None:
        worked_out.append(self.bundles[0][1])

    def reach(self) -> np.ndarray:
        return np.array([[0.0], [1.0]])

    def run(self) -> Steps:
        (motor, how), *_ = self.bundles
        start = self.start_positions[motor]
        yield Point({motor: start + 0.5})
        for gate in gates:
            gate.clear()
        entered.set()
        if how == "stuck":
            released.wait(WAIT_S)
        yield Point({motor: start + 1.0})


class Closes(ScanModifier):
    @cleanup(scans="rough")
    def close(self) -> Steps:
        yield Move({"samy": 3.0})


class ClosesNever(ScanModifier):
    @cleanup(scans="rough")
    def close(self) -> Steps:
        entered.set()
        released.wait(WAIT_S)
        yield Move({"samy": 3.0})


def catalogue_with(*modifiers: type[ScanModifier]) -> Catalogue:
    made = load_catalogue()
    made.classes["rough"] = Rough
    made.infos["rough"] = describe_scan(Rough, "theirs")
    modifications, failed, told = modify(made.infos, [("theirs", kind) for kind in modifiers])
    assert not failed
    made.modifications.update(modifications)
    made.modifiers.update(told)
    return made


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Beamline]]:
    monkeypatch.setattr("scan_server.app.STUCK_S", 0.2)
    entered.clear()
    released.clear()
    worked_out.clear()
    gates.clear()
    made: list[Beamline] = []

    def begin(*modifiers: type[ScanModifier]) -> Beamline:
        made.append(Beamline(tmp_path, catalogue_with(*modifiers)))
        return made[0]

    yield begin
    released.set()
    made[0].close()


def dead_pid() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def died(
    beamline: Beamline, call: ForeignCall, *, code: int | None = None, is_supervised: bool = True
) -> None:
    """A scan server that was in this call has ended, with this exit code, or killed."""
    pid = dead_pid()
    foreign = ForeignCode(folder_of(beamline.config.state_folder), "scan_server", f"life of {pid}", pid=pid)
    foreign.slot(call).enter(call.where)
    if not is_supervised:
        return
    reason = "killed by SIGKILL" if code is None else f"ended with code {code} (whatever)"
    beamline.client.append(
        MessageEndpoints.supervisor_events,
        SupervisorMessage(service="scan_server", event="ended", pid=pid, exit_code=code, reason=reason),
    )


def a_call(where: int, *, request_id: str = "", scan_id: str = "") -> ForeignCall:
    return ForeignCall("the scan rough (plugin theirs)", "theirs", request_id, scan_id, where=where)


def alarms(beamline: Beamline) -> list[str]:
    return [alarm.info.error_message for alarm in beamline.messages(MessageEndpoints.alarm)]


def left_over(beamline: Beamline) -> list[Path]:
    own = beamline.app._code._marks._path
    return [path for path in folder_of(beamline.config.state_folder).iterdir() if path != own]


def last_instruction(beamline: Beamline) -> str:
    """The fake hears commands on another stream, in no order with instructions."""
    return [kind for kind in beamline.devices.seen if kind != "stop"][-1]


def a_scan_half_way(beamline: Beamline, how: str = "well", **more: Any) -> str:
    """It has taken its first point, its second is held by the device server, and the scan server is down."""
    gates.append(beamline.devices.go)
    request = beamline.submit("rough", "samx", how, relative=True, **more)
    assert entered.wait(WAIT_S)
    gates.clear()
    beamline.stop_server()
    worked_out.clear()
    return request


def test_a_request_whose_code_has_ended_the_scan_server_is_refused_and_not_tried_again(start: Any) -> None:
    beamline = start()
    beamline.stop_server()
    first = beamline.submit("rough", "samx", "well", relative=True)
    other = beamline.submit("acquire")
    died(beamline, a_call(WORKING_OUT, request_id=first))
    beamline.start_server()
    answer = beamline.answer(first)
    assert not answer.accepted and answer.code == ReasonCode.INTERNAL
    assert (
        "the scan rough (plugin theirs), working out what it will do; it is not tried again" in answer.message
    )
    assert "os._exit" in answer.message
    assert beamline.done(other).success
    assert worked_out == [] and left_over(beamline) == []


def test_without_a_supervisor_its_successor_raises_the_alarm(start: Any) -> None:
    beamline = start()
    beamline.stop_server()
    request = beamline.submit("rough", "samx", "well")
    died(beamline, a_call(WORKING_OUT, request_id=request), is_supervised=False)
    beamline.start_server()
    assert not beamline.answer(request).accepted
    assert any(
        "the scan server ended while it ran the code of the scan rough" in told for told in alarms(beamline)
    )


def test_two_requests_that_end_the_scan_server_one_after_the_other_are_both_refused(start: Any) -> None:
    """What is known of the first must be on record before the second can end it."""
    beamline = start()
    beamline.stop_server()
    died(beamline, a_call(WORKING_OUT, request_id="r7"))
    beamline.start_server()
    assert beamline.done(beamline.submit("acquire")).success
    beamline.stop_server()
    died(beamline, a_call(WORKING_OUT, request_id="r8"))
    beamline.count = 6
    requests = [beamline.submit("rough", "samx", "well") for _ in range(2)]
    assert requests == ["r7", "r8"]
    beamline.start_server()
    for request in requests:
        assert "not tried again" in beamline.answer(request).message
    assert worked_out == []


def test_a_running_scan_whose_code_has_ended_the_scan_server_is_ended_and_cleaned_up(start: Any) -> None:
    beamline = start()
    request = a_scan_half_way(beamline)
    scan_id = beamline.answer(request).scan_id
    died(beamline, a_call(1, scan_id=scan_id), code=3)
    beamline.devices.go.set()
    beamline.start_server()
    done = beamline.done(request)
    assert done.error is not None and done.error.code == ReasonCode.INTERNAL
    assert (
        "the scan server ended with code 3 while it ran the code of the scan rough"
        in done.error.error_message
    )
    assert "at step 2" in done.error.error_message
    states = [status.status for status in beamline.statuses(scan_id)]
    assert states == [ScanState.OPEN, ScanState.ABORTED]
    assert beamline.devices.positions["samx"] == 0.5
    assert last_instruction(beamline) == "unstage"
    assert sum("scan 1 (rough) failed" in text for text in alarms(beamline)) == 1
    assert beamline.done(beamline.submit("acquire")).success
    beamline.stop_server()
    beamline.start_server()
    assert beamline.done(beamline.submit("acquire")).success
    state: Any = beamline.client.get(MessageEndpoints.queue_state)
    assert "blame" not in state.message.state


def test_its_code_is_not_even_worked_out_again_where_that_has_ended_the_scan_server(start: Any) -> None:
    beamline = start()
    request = a_scan_half_way(beamline)
    scan_id = beamline.answer(request).scan_id
    died(beamline, a_call(WORKING_OUT, scan_id=scan_id), code=3)
    beamline.devices.go.set()
    beamline.start_server()
    assert not beamline.done(request).success
    assert worked_out == []
    assert beamline.devices.positions["samx"] == 0.5
    assert last_instruction(beamline) == "unstage"


def test_a_scan_during_which_the_scan_server_was_killed_goes_on(start: Any) -> None:
    beamline = start()
    request = a_scan_half_way(beamline)
    scan_id = beamline.answer(request).scan_id
    for _ in range(2):
        died(beamline, a_call(1, scan_id=scan_id))
    beamline.devices.go.set()
    beamline.start_server()
    assert beamline.done(request).success
    assert beamline.points(scan_id) == [0, 1]


def test_a_scan_that_waits_and_has_ended_the_scan_server_does_not_begin(start: Any) -> None:
    beamline = start()
    beamline.devices.go.clear()
    running = beamline.submit("acquire")
    assert beamline.devices.at_points.wait(WAIT_S)
    request = beamline.submit("rough", "samx", "well")
    scan_id = beamline.answer(request).scan_id
    beamline.stop_server()
    died(beamline, a_call(WORKING_OUT, scan_id=scan_id), code=0)
    beamline.devices.go.set()
    beamline.start_server()
    done = beamline.done(request)
    assert done.error is not None and "could not begin: the scan server ended" in done.error.error_message
    assert beamline.done(running).success


def test_the_clean_up_of_modifiers_is_done_for_it(start: Any) -> None:
    beamline = start(Closes)
    request = a_scan_half_way(beamline)
    died(beamline, a_call(5, scan_id=beamline.answer(request).scan_id), code=3)
    beamline.devices.go.set()
    beamline.start_server()
    assert not beamline.done(request).success
    assert beamline.devices.positions["samy"] == 3.0
    assert beamline.devices.positions["samx"] == 0.5


def test_a_clean_up_that_has_ended_the_scan_server_is_left_out(start: Any) -> None:
    beamline = start(Closes)
    request = a_scan_half_way(beamline)
    died(beamline, a_call(CLEANING_UP, scan_id=beamline.answer(request).scan_id), code=3)
    beamline.devices.go.set()
    beamline.start_server()
    assert not beamline.done(request).success
    assert beamline.devices.positions["samy"] == 0.0
    assert beamline.devices.positions["samx"] == 0.5


# Code that does not return


def test_a_stuck_scan_that_is_aborted_goes_back_and_is_cleaned_up_after(start: Any) -> None:
    beamline = start(Closes)
    request = beamline.submit("rough", "samx", "stuck", relative=True)
    assert entered.wait(WAIT_S)
    assert beamline.command(QueueAction.ABORT).accepted
    done = beamline.done(request)
    assert done.error is not None and "its code had not returned" in done.error.error_message
    assert beamline.devices.positions == {"samx": 0.5, "samy": 3.0, "broken": 0.0}
    assert last_instruction(beamline) == "unstage"


def test_a_clean_up_that_is_stuck_is_left_out(start: Any) -> None:
    beamline = start(ClosesNever)
    beamline.devices.go.clear()
    request = beamline.submit("rough", "samx", "well", relative=True)
    assert beamline.devices.at_points.wait(WAIT_S)
    assert beamline.command(QueueAction.ABORT).accepted
    beamline.devices.go.set()
    assert not beamline.done(request).success
    assert beamline.devices.positions["samy"] == 0.0
    assert beamline.devices.positions["samx"] == 0.5
    assert last_instruction(beamline) == "unstage"


def test_a_scan_that_is_aborted_just_after_a_restart_goes_back(start: Any) -> None:
    beamline = start()
    request = a_scan_half_way(beamline)
    beamline.start_server()
    assert beamline.command(QueueAction.ABORT).accepted
    beamline.devices.go.set()
    assert not beamline.done(request).success
    assert beamline.devices.positions["samx"] == 0.5
