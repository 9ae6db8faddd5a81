"""Messages as rows."""

from datetime import UTC, datetime

import numpy as np

from bec_lib import messages as m
from bec_lib.errors import ReasonCode
from scihub_connector.outbox import Entry
from scihub_connector.records import Row, difference, json_value, moment, rows, session_rows, text


def status(**fields):
    return m.ScanStatusMessage(
        **(
            {
                "scan_id": "s1",
                "scan_number": 42,
                "status": "open",
                "scan_name": "line_scan",
                "request_id": "r",
                "motors": ["samx"],
                "readout": m.ReadoutGroups(monitored=["bpm", "samx"], baseline=["ring"]),
                "started": 1_700_000_000.5,
            }
            | fields
        )
    )


def scan_row(found):
    (row,) = [row for row in found if row.table == "scans"]
    return row


def test_an_open_scan_gives_its_row_and_its_devices():
    found = rows(Entry("status", "1-0", status()), "beamline")
    scan = scan_row(found)
    assert scan.key == {"scan_id": "s1"}
    assert scan.values["scan_number"] == 42 and scan.values["status"] == "open"
    assert scan.values["started"] == datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert scan.values["ended"] is None
    assert scan.values["readout"]["baseline"] == ["ring"]
    assert "num_readouts" not in scan.values, "what a later message said must not be taken back"
    assert [row.key for row in found if row.table == "scan_devices"] == [
        {"scan_id": "s1", "device": "samx", "role": "motor"},
        {"scan_id": "s1", "device": "bpm", "role": "monitored"},
        {"scan_id": "s1", "device": "samx", "role": "monitored"},
    ]


def test_a_failed_scan_says_why():
    error = m.ErrorInfo(error_message="samx stalled", code=ReasonCode.DEVICE_FAILED, device="samx")
    values = scan_row(
        rows(Entry("s", "1-0", status(status="aborted", error=error, num_readouts=3)), "d")
    ).values
    assert (values["error"], values["error_code"], values["error_device"]) == (
        "samx stalled",
        "device_failed",
        "samx",
    )
    assert values["num_readouts"] == 3


def test_a_master_file_is_noted_at_its_scan_too():
    message = m.FileMessage(scan_id="s1", file_path="/d/S1.h5", done=True, scan_number=42, size_bytes=10)
    file, scan = rows(Entry("f", "1-0", message, sent=1_700_000_000.0), "d")
    assert file.key == {"scan_id": "s1", "file_path": "/d/S1.h5"} and file.values["is_final"]
    assert scan == Row(
        "scans", {"scan_id": "s1"}, {"deployment": "d", "file_path": "/d/S1.h5", "file_is_final": True}
    )
    detector = message.model_copy(update={"is_master_file": False, "device_name": "eiger"})
    assert [row.table for row in rows(Entry("f", "1-0", detector), "d")] == ["files"]


def test_the_difference_of_two_sessions():
    before = {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}
    after = {"a": {"x": 1}, "b": {"x": 3, "z": 4}, "d": {"x": 1}}
    assert difference(before, after) == {
        "b": {
            "kind": "changed",
            "config": {"x": 3, "z": 4},
            "changes": {"x": [1, 3], "y": [2, None], "z": [None, 4]},
        },
        "c": {"kind": "removed", "config": None, "changes": {}},
        "d": {"kind": "added", "config": {"x": 1}, "changes": {}},
    }


def test_a_session_gives_its_row_and_one_for_each_change():
    session = m.DeviceSessionMessage(version=2, devices={"a": {"x": 1}, "b": {}}, failed={"b": "no"})
    first, *changes = session_rows(session, "7-0", "d", {"a": {"x": 0}, "b": {}})
    assert first.key == {"deployment": "d", "entry": "7-0"}
    assert first.values["changes"] == {"added": [], "changed": ["a"], "removed": []}
    assert [(row.key["device"], row.values["kind"]) for row in changes] == [("a", "changed")]


def test_values_are_made_fit_for_json_and_text():
    given = {"n": float("nan"), 1: np.arange(2), "t": "a\x00b\ud800", "b": b"\xff", "x": [np.float64("inf")]}
    assert json_value(given) == {
        "n": "nan",
        "1": [0, 1],
        "t": "a\ufffdb?",
        "b": "\ufffd",
        "x": ["inf"],
    }
    assert text("\x00") == "\ufffd"


def test_no_time_is_no_time():
    assert moment(None) is None and moment(0.0) is None
    assert moment(float("nan")) is None and moment(1e300) is None
