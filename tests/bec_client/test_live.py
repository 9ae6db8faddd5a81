"""What is seen of a running scan: the table, its widths and units, the blocks, the end, and Ctrl-C."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bec_client.live import LiveTable, LiveUpdates, LiveView
from bec_client.report import ScanInterruption
from bec_client.scan_item import Points
from bec_lib import messages as m
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BrokerError, DeviceError, ReasonCode, ScanAborted


def schema(*signals: m.SignalSchema, motors: tuple[str, ...] = ("samx",)) -> m.ScanSchemaMessage:
    return m.ScanSchemaMessage(scan_id="s", signals=list(signals), motors=list(motors))


def points(*columns: list[Any]) -> Points:
    made = Points.__new__(Points)
    made.values = [list(column) for column in columns]
    made.count = len(columns[0])
    return made


SAMX = m.SignalSchema(device="samx", signal="samx", unit="mm", precision=3)
BPM = m.SignalSchema(device="bpm4i", signal="bpm4i", unit="counts")


def test_columns_are_motors_first_and_hinted_scalars_with_units() -> None:
    table = LiveTable(
        schema(
            BPM,
            m.SignalSchema(device="samx", signal="samx_setpoint", kind="normal"),
            SAMX,
            m.SignalSchema(device="eiger", signal="eiger", shape=[512, 512]),
        ),
        width=80,
    )
    assert table.header() == [
        "point       samx      bpm4i",
        "            [mm]   [counts]",
        "───────────────────────────",
    ]


def test_a_row_has_the_precision_of_its_signal() -> None:
    table = LiveTable(schema(SAMX, BPM), width=80)
    assert table.row(points([0.12345], [1234567.8]), 0).split() == ["1", "0.123", "1234568"]


def test_many_columns_stay_readable_and_those_without_room_are_named() -> None:
    signals = [m.SignalSchema(device=f"d{k}", signal=f"detector_{k}_total", unit="counts") for k in range(12)]
    table = LiveTable(schema(SAMX, *signals), width=100)
    header = table.header()
    assert all(len(line) <= 100 for line in header)
    assert len(table.columns) + len(table.left_out) == 13
    assert table.columns[0].title == "samx"
    assert table.left_out[-1] == "detector_11_total"
    row = table.row(points(*[[123456789.123]] * 13), 0)
    assert len(row) == len(header[0])
    assert "1.235e+08" in row


def test_a_block_of_very_many_rows_shows_its_first_and_last() -> None:
    table = LiveTable(schema(SAMX), width=80)
    rows = table.rows(points([float(k) for k in range(1000)]), 0, 1000)
    assert len(rows) == 21
    assert rows[0].split() == ["1", "0.000"]
    assert "980 points more" in rows[10]
    assert rows[-1].split() == ["1000", "999.000"]


@pytest.fixture
def screen(bec: Any) -> io.StringIO:
    """What would be on the terminal, without a terminal."""
    buffer = io.StringIO()
    bec.live_updates = LiveUpdates(bec, Console(file=buffer, width=100))
    return buffer


def test_a_scan_is_shown_from_its_title_to_its_file(bec: Any, screen: io.StringIO) -> None:
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5)
    assert report.done
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    assert lines[0] == "Scan 1: line_scan of samx, 5 points"
    rows = [line.split() for line in lines[4:9]]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row[1] for row in rows] == ["-1.000", "-0.500", "0.000", "0.500", "1.000"]
    assert lines[9].startswith("Scan 1 closed: 5 points in")
    assert lines[10] == "/data/S00001_master.h5"


def test_a_scan_that_fails_shows_its_points_and_raises_why(bec: Any, fleet: Any, screen: io.StringIO) -> None:
    fleet.fail = (ReasonCode.DEVICE_FAILED, "bpm4i does not answer")
    with pytest.raises(DeviceError, match="bpm4i does not answer"):
        bec.scans.line_scan(bec.devices.samx, -1, 1, steps=3)
    assert "Scan 1 aborted: 3 points" in screen.getvalue()


def test_hidden_reports_show_nothing_and_return_at_once(bec: Any, fleet: Any, screen: io.StringIO) -> None:
    fleet.hold = 0
    with bec.scans.hide_report:
        report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=3)
    assert not report.done
    assert screen.getvalue() == ""


def press_at_point(monkeypatch: Any, bec: Any, report: Any, presses: list[int]) -> None:
    """Ctrl-C whenever the number of points known is the next of `presses`."""
    pull = report.scan.points.pull
    left = list(presses)

    def pressed(block_s: float | None = None) -> int:
        count = pull(min(block_s, 0.05) if block_s else block_s)
        if left and count >= left[0]:
            left.pop(0)
            raise KeyboardInterrupt
        return count

    monkeypatch.setattr(report.scan.points, "pull", pressed)


def test_the_first_ctrl_c_pauses_after_the_point(
    bec: Any, fleet: Any, screen: io.StringIO, monkeypatch: Any
) -> None:
    fleet.hold = 3
    bec.live_updates.return_when_paused = True
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True)
    press_at_point(monkeypatch, bec, report, [3])
    with pytest.raises(ScanInterruption, match=r"Scan 1 is paused after point 3 of 5\. %resume goes on"):
        bec.live_updates.show(report)
    assert [command.action.value for command in fleet.commands] == ["deferred_pause"]
    assert "Pausing after this point. Ctrl-C again aborts the scan." in screen.getvalue()
    # %resume: the scan goes on and is shown to its end.
    bec.queue.request_scan_continuation()
    bec.live_updates.show(report)
    assert report.status == "COMPLETED"


def test_the_second_ctrl_c_aborts(bec: Any, fleet: Any, screen: io.StringIO, monkeypatch: Any) -> None:
    fleet.hold = 3
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True)
    press_at_point(monkeypatch, bec, report, [3, 3])
    with pytest.raises(ScanAborted, match="ada aborted the scan"):
        bec.live_updates.show(report)
    assert [command.action.value for command in fleet.commands] == ["deferred_pause", "abort"]
    assert all(command.scan_id == report.scan.scan_id for command in fleet.commands)


def test_a_script_stays_with_a_paused_scan(
    bec: Any, fleet: Any, screen: io.StringIO, monkeypatch: Any
) -> None:
    fleet.hold = 3
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True)
    press_at_point(monkeypatch, bec, report, [3])
    shown = threading.Thread(target=bec.live_updates.show, args=(report,))
    shown.start()
    while report.scan.status != "paused":
        assert shown.is_alive()
        shown.join(0.05)
    bec.queue.request_scan_continuation()
    shown.join(10)
    assert not shown.is_alive()
    assert report.status == "COMPLETED"


def test_after_a_resume_the_next_ctrl_c_is_a_first_one(
    bec: Any, fleet: Any, screen: io.StringIO, monkeypatch: Any
) -> None:
    fleet.hold = 3
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True)
    pull = report.scan.points.pull
    pressed = threading.Event()
    resumed = threading.Event()

    def press(block_s: float | None = None) -> int:
        count = pull(min(block_s, 0.05) if block_s else block_s)
        if count == 3 and not pressed.is_set():
            pressed.set()
            raise KeyboardInterrupt
        if report.scan.status == "paused" and not resumed.is_set():
            resumed.set()
            report.scan.on_status(report.scan.status_message.model_copy(update={"status": m.ScanState.OPEN}))
            view._was_paused = True  # seen by the turn before
        return count

    monkeypatch.setattr(report.scan.points, "pull", press)
    view = LiveView(bec, report, bec.live_updates.console, bec.live_updates)
    with Live(Text(""), console=bec.live_updates.console, auto_refresh=False) as live:
        while not resumed.is_set() or view._presses:
            view._look(live)
    assert [command.action.value for command in fleet.commands] == ["deferred_pause"]
    assert view._presses == 0


def test_a_scan_taken_out_of_the_queue_ends_at_once(
    bec: Any, fleet: Any, screen: io.StringIO, monkeypatch: Any
) -> None:
    monkeypatch.setattr("bec_client.live.LAST_POINTS_S", 60.0)
    monkeypatch.setattr(fleet, "_scan", lambda request, scan_id: None)  # it waits for ever
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True)
    fleet.fail = (ReasonCode.ABORTED, "line_scan was taken out of the queue by ada")
    presses = [KeyboardInterrupt()]

    def wait(timeout: float | None = None) -> bool:
        if presses:
            fleet.done(report.request, report.scan.scan_id)
            raise presses.pop()
        return False

    monkeypatch.setattr(report.scan.opened, "wait", wait)
    with pytest.raises(ScanAborted, match="taken out of the queue by ada"):
        bec.live_updates.show(report)
    assert [command.action.value for command in fleet.commands] == ["abort"]


def test_a_lost_broker_is_waited_for(bec: Any, screen: io.StringIO, monkeypatch: Any) -> None:
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True)
    pull = report.scan.points.pull
    failures = [BrokerError("Redis at here cannot be reached")] * 2

    def lost(block_s: float | None = None) -> int:
        if failures:
            raise failures.pop()
        return pull(block_s)

    monkeypatch.setattr(report.scan.points, "pull", lost)
    bec.live_updates.show(report)
    assert report.status == "COMPLETED"
    assert screen.getvalue().count("Redis at here cannot be reached") == 1
    assert "Scan 1 closed: 5 points" in screen.getvalue()


def test_a_broker_that_stays_away_is_an_error(bec: Any, screen: io.StringIO, monkeypatch: Any) -> None:
    monkeypatch.setattr("bec_client.live.BROKER_S", 0.0)
    report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True)

    def lost(block_s: float | None = None) -> int:
        raise BrokerError("Redis at here cannot be reached")

    monkeypatch.setattr(report.scan.points, "pull", lost)
    with pytest.raises(BrokerError, match="cannot be reached"):
        bec.live_updates.show(report)


def test_umv_says_where_it_arrived(bec: Any, fleet: Any, screen: io.StringIO) -> None:
    fleet.calls[("samx", "read")] = {"samx": {"value": 2.0, "timestamp": 1e9}}
    bec.umv(bec.devices.samx, 2)
    assert screen.getvalue().strip() == "samx is at 2.000 mm"


def test_a_move_that_waits_says_who_has_the_device(
    bec: Any, fleet: Any, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.calls[("samx", "read")] = {"samx": {"value": 2.0, "timestamp": 1e9}}
    fleet.moves_wait = True

    def looked_up() -> dict[str, str]:
        # The scan ends, and the move is made, when this has been looked at.
        fleet.done(fleet.requests[-1], "s")
        return {"samx": "scan 12 (line_scan) of berta", "bpm4i": f"a move of {bec.username}"}

    monkeypatch.setattr(bec.session, "holders_lately", looked_up)
    bec.umv(bec.devices.samx, 2)
    shown = screen.getvalue()
    assert "samx is held by scan 12 (line_scan) of berta; the move waits for that" in shown
    assert "samx is at 2.000 mm" in shown and "bpm4i" not in shown


def test_a_move_behind_a_paused_scan_says_so(
    bec: Any, fleet: Any, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.calls[("samx", "read")] = {"samx": {"value": 2.0, "timestamp": 1e9}}
    fleet.moves_wait = True

    def looked_up() -> dict[str, str]:
        move = fleet.queue_items[0].model_copy(update={"status": m.ItemState.PENDING})
        scan = m.QueueItem(
            request_id="r",
            scan_id="s",
            scan_name="line_scan",
            status=m.ItemState.PAUSED,
            scan_number=7,
            user="berta",
        )
        snapshot = m.QueueSnapshot(items=[scan, move], status=m.QueueState.PAUSED, num_items=2)
        fleet.broker.put(
            MessageEndpoints.scan_queue_status, m.ScanQueueStatusMessage(queues={"primary": snapshot})
        )
        fleet.done(fleet.requests[-1], "s")
        return {}

    monkeypatch.setattr(bec.session, "holders_lately", looked_up)
    bec.umv(bec.devices.samx, 2)
    assert screen.getvalue().splitlines()[0].startswith("the move waits; the queue is paused, %resume")
    assert "place 2 in the queue, behind line_scan of berta (scan 7)" in " ".join(screen.getvalue().split())


def test_a_move_that_fails_raises_why(bec: Any, fleet: Any, screen: io.StringIO) -> None:
    fleet.fail = (ReasonCode.DEVICE_FAILED, "samx stalled")
    with pytest.raises(DeviceError, match="samx stalled"):
        bec.umv(bec.devices.samx, 2)
