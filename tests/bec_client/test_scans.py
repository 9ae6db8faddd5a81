"""Scans as functions: their signatures, the check of a call, reports, live data, waiting, and honest errors."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from bec_client.report import ReportStatus
from bec_lib import messages as m
from bec_lib.errors import (
    DeadlineExceeded,
    DeviceError,
    LimitError,
    ParameterError,
    ReasonCode,
    RequestRejected,
    ScanAborted,
    ServiceDown,
    StorageError,
)


def run(bec: Any, *args: Any, **kwargs: Any) -> Any:
    values = args or (bec.devices.samx, -1, 1)
    return bec.scans.line_scan(*values, **{"steps": 5, "hide_report": True, **kwargs})


def test_a_scan_from_request_to_file(bec: Any) -> None:
    report = run(bec, exp_time=0.1, metadata={"sample": "gold"})
    report.wait(timeout=10, file_written=True)
    assert report.status == ReportStatus.COMPLETED
    scan = report.scan
    assert (scan.scan_number, scan.status, scan.num_points, scan.num_readouts) == (1, "closed", 5, 5)
    assert scan.file_path == "/data/S00001_master.h5"
    assert scan.metadata == {"sample": "gold"}
    assert scan.live_data.samx.samx.val == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert scan.live_data["bpm4i"]["bpm4i"].timestamps == [1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 4]
    assert scan.live_data.samx.samx[2] == {"value": 0.0, "timestamp": 1e9 + 2}
    assert len(scan.live_data) == 5


def test_the_request_carries_names_and_plain_numbers(bec: Any, fleet: Any) -> None:
    run(bec, bec.devices.samx, np.float64(-1), 1, steps=np.int64(3), monitored=[bec.devices.samx]).wait(10)
    request = fleet.requests[0]
    assert request.args == ["samx", -1.0, 1]
    assert request.kwargs == {"steps": 3}
    assert request.monitored == ["samx"]
    assert request.queue == "primary"


def test_metadata_of_the_session_and_of_the_call_are_joined(bec: Any, fleet: Any) -> None:
    bec.metadata["operator"] = "ada"
    bec.system_config.file_suffix = "test"
    run(bec, metadata={"sample": "gold"}).wait(10)
    assert fleet.requests[0].metadata == {"operator": "ada", "sample": "gold"}
    assert fleet.requests[0].file_suffix == "test"


def test_live_data_while_it_runs(bec: Any, fleet: Any) -> None:
    fleet.hold = 3
    report = run(bec)
    while len(report.scan.live_data) < 3:
        report.scan.points.pull(block_s=1)
    assert report.status == ReportStatus.RUNNING
    assert report.scan.live_data.samx.samx.val == [-1.0, -0.5, 0.0]
    with pytest.raises(KeyError, match="'samy' is not read at the points of this scan; read are samx, bpm4i"):
        report.scan.live_data["samy"]
    with pytest.raises(StorageError, match="not final yet"):
        _ = report.scan.data
    fleet.release.set()
    fleet.command.set()
    report.wait(10)


def test_signature_and_help_are_the_published_ones(bec: Any) -> None:
    scan = bec.scans.line_scan
    parameters = inspect.signature(scan).parameters
    assert list(parameters)[:4] == ["device_start_stop", "steps", "exp_time", "relative"]
    assert "hide_report" in parameters
    assert "A scan along a line." in scan.__doc__
    assert scan.__name__ == "line_scan"
    assert {"line_scan", "mv"} <= set(dir(bec.scans))


def test_a_call_that_does_not_fit_is_refused_with_everything_before_it_is_sent(bec: Any, fleet: Any) -> None:
    with pytest.raises(ParameterError) as caught:
        bec.scans.line_scan("sammx", -1, "one", stepz=5)
    for part in ("sammx", "Did you mean samx", "must be a number", "stepz", "needs steps"):
        assert part in caught.value.message
    assert not fleet.requests


def test_an_unknown_scan_names_the_nearest(bec: Any) -> None:
    with pytest.raises(
        AttributeError, match=r"no scan called 'line_scn'. Did you mean line_scan\? Available: line_scan, mv"
    ):
        _ = bec.scans.line_scn
    with pytest.raises(RequestRejected):
        bec.scans.run("line_scn")


def test_a_refusal_is_raised_by_the_call(bec: Any, fleet: Any) -> None:
    fleet.refuse = (ReasonCode.LIMIT, "samx cannot move to 12 mm: its limits are -10 to 10 mm.")
    with pytest.raises(LimitError, match="its limits are -10 to 10 mm"):
        run(bec, bec.devices.samx, 0, 12)


def test_a_scan_that_fails_raises_why_where_it_is_waited_for(bec: Any, fleet: Any) -> None:
    fleet.fail = (ReasonCode.DEVICE_FAILED, "samx stopped answering at point 3")
    report = run(bec)
    with pytest.raises(DeviceError, match="samx stopped answering at point 3") as caught:
        report.wait(10)
    assert caught.value.device == "samx"
    assert report.status == ReportStatus.FAILED


def test_an_abortion_says_who(bec: Any, fleet: Any) -> None:
    fleet.hold = 3
    report = run(bec)
    report.scan.opened.wait(5)
    report.cancel()
    with pytest.raises(ScanAborted, match="ada aborted the scan after point 3 of 5"):
        report.wait(10)
    assert fleet.commands[-1].action is m.QueueAction.ABORT
    assert fleet.commands[-1].scan_id == report.scan.scan_id


def test_a_wait_ends_at_its_timeout(bec: Any, fleet: Any) -> None:
    fleet.hold = 0
    report = run(bec)
    with pytest.raises(DeadlineExceeded, match=r"line_scan was not done within 0\.1 s"):
        report.wait(timeout=0.1)


def test_without_a_scan_server_a_call_fails_at_once(bec: Any, fleet: Any) -> None:
    _ = bec.scans.line_scan
    fleet.alive.remove("scan_server")
    fleet.beat()
    with pytest.raises(ServiceDown, match="line_scan needs the scan server, which is not running"):
        run(bec)
    assert not fleet.requests


def test_a_scan_server_that_has_forgotten_the_request_ends_the_wait(
    bec: Any, fleet: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("bec_client.connection.WATCH_S", 0.05)
    fleet.hold = 0
    report = run(bec)
    fleet.broker.put(
        m_endpoints().scan_queue_status, m.ScanQueueStatusMessage(queues={"primary": m.QueueSnapshot()})
    )
    with pytest.raises(ServiceDown, match="not known to the services any more"):
        report.wait()


def test_a_file_that_could_not_be_written_is_an_error(bec: Any, fleet: Any) -> None:
    fleet.file_error = "no space left in /data"
    report = run(bec)
    with pytest.raises(StorageError, match="no space left in /data"):
        report.wait(10)
    assert run(bec).wait(10, file_written=False).scan.status == "closed"


def test_a_silent_file_writer_is_named(bec: Any, fleet: Any) -> None:
    fleet.alive.remove("file_writer")
    fleet.beat()
    report = run(bec)
    with pytest.raises(DeadlineExceeded, match=r"the file of scan 1 was not done.*file writer is silent"):
        report.wait(timeout=1.2)


def test_mv_returns_at_once_and_its_report_waits(bec: Any, fleet: Any) -> None:
    report = bec.mv(bec.devices.samx, 1)
    report.wait(5)
    assert report.done
    assert report.scan is None
    assert fleet.requests[-1].kwargs == {"relative": False}
    bec.mvr(bec.devices.samx, 1).wait(5)
    assert fleet.requests[-1].kwargs == {"relative": True}


def test_queue_commands_are_answered(bec: Any, fleet: Any) -> None:
    bec.queue.request_scan_interruption(deferred_pause=True)
    bec.queue.request_scan_continuation()
    bec.queue.request_scan_restart()
    bec.queue.add_queue_lock("beam is down")
    actions = [command.action.value for command in fleet.commands]
    assert actions == ["deferred_pause", "continue", "restart", "lock"]
    assert fleet.commands[-1].parameter == {"identifier": "ada", "reason": "beam is down"}
    fleet.refuse = (ReasonCode.WRONG_STATE, "there is nothing to abort in queue primary")
    with pytest.raises(RequestRejected, match="nothing to abort"):
        bec.queue.request_scan_abortion()


def waiting(fleet: Any, count: int) -> list[str]:
    """A queue with one that runs, and more that wait than its snapshot shows; their scan ids."""
    ids = [f"00000000-0000-7000-8000-{k:012d}" for k in range(count + 1)]
    fleet.queue_items = [
        m.QueueItem(request_id=f"r{k}", scan_id=scan_id, scan_name="line_scan", status=m.ItemState.PENDING)
        for k, scan_id in enumerate(ids)
    ]
    fleet.queue_items[0] = fleet.queue_items[0].model_copy(update={"status": m.ItemState.RUNNING})
    shown = m.QueueSnapshot(items=fleet.queue_items[:3], num_items=count + 1)
    fleet.broker.put(m_endpoints().scan_queue_status, m.ScanQueueStatusMessage(queues={"primary": shown}))
    return ids


def test_what_waits_is_named_by_its_place_its_id_or_its_report(
    bec: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = waiting(fleet, 5)
    queue = bec.queue
    assert [queue.find(1), queue.find(5), queue.find(ids[2]), queue.find("000003")] == [
        ids[1], ids[5], ids[2], ids[3],
    ]  # fmt: skip
    for wrong, text in [
        (6, "no number 6"),
        (0, "no number 0"),
        ("000000", "several"),
        (2.5, "names no request"),
    ]:
        with pytest.raises(ParameterError, match=text):
            queue.find(wrong)
    assert queue.item("r5").scan_id == ids[5] and queue.item("r6") is None
    monkeypatch.setattr("bec_client.queue.PAGE", 2)
    assert [i.scan_id for i in queue.items()] == ids and [i.scan_id for i in queue.items(2, 3)] == ids[1:4]
    assert queue.may_hold("r6"), "more wait than are shown"
    assert "3 more" in str(queue) and "▶" in str(queue)


def test_what_waits_is_moved_edited_and_removed(bec: Any, fleet: Any) -> None:
    ids = waiting(fleet, 3)
    told = bec.queue.request_queue_order_modification(2, "top")
    assert repr(told) == f"move_top of {ids[2]} it is."
    bec.queue.request_queue_order_modification(2, "move_to", 3)
    bec.queue.request_edit(1, bec.devices.samx, 0, 2, steps=21, metadata={"sample": "b"})
    bec.queue.request_removal(3)
    bec.queue.request_scan_interruption(after_scan=True)
    commands = [(c.action.value, c.scan_id, c.parameter) for c in fleet.commands]
    assert commands == [
        ("move_top", ids[2], {"position": None}),
        ("move_to", ids[2], {"position": 3}),
        ("edit", ids[1], {"metadata": {"sample": "b"}, "args": ["samx", 0, 2], "kwargs": {"steps": 21}}),
        ("remove", ids[3], {}),
        ("pause_after_scan", None, {}),
    ]
    with pytest.raises(ParameterError, match="'sideways' is no way to move"):
        bec.queue.request_queue_order_modification(1, "sideways")


def test_queue_and_reports_print_themselves(bec: Any, fleet: Any) -> None:
    fleet.hold = 0
    report = run(bec)
    assert "line_scan" in str(bec.queue)
    assert bec.queue.item(report.request_id).scan_name == "line_scan"
    report.scan.opened.wait(5)
    assert repr(report) == "<line_scan: scan 1, running>"


def test_a_scan_of_before_is_recalled(bec: Any, connect_as: Any) -> None:
    report = run(bec).wait(10)
    item = connect_as("eve").scan_storage.recall(report.scan.scan_id)
    assert (item.scan_number, item.status, item.filed.is_set()) == (1, "closed", True)


def m_endpoints() -> Any:
    from bec_lib.endpoints import MessageEndpoints

    return MessageEndpoints
