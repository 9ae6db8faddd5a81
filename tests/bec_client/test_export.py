"""Points as dicts and as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from bec_client.export import scan_to_csv, scan_to_dict
from bec_client.report import ScanInterruption
from bec_lib.errors import DeviceError, ParameterError, ReasonCode, StorageError


def scan(bec: Any, steps: int = 3, **more: Any) -> Any:
    return bec.scans.line_scan(bec.devices.samx, -1, 1, steps=steps, hide_report=True, **more)


def rows(file: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Those with `#` and those without."""
    with file.open(newline="") as opened:
        found = list(csv.reader(opened))
    return [row for row in found if row[0].startswith("#")], [
        row for row in found if not row[0].startswith("#")
    ]


def test_points_as_a_dict(bec: Any) -> None:
    report = scan(bec).wait()
    flat = scan_to_dict(report)
    assert flat["value"]["samx"] == [-1, 0, 1]
    assert flat["timestamp"]["samx"] == [1e9, 1e9 + 1, 1e9 + 2]
    assert scan_to_dict(report, flat=False)["value"]["samx"]["samx_setpoint"] == [-1, 0, 1]


def test_scans_as_csv(bec: Any, tmp_path: Path) -> None:
    file = tmp_path / "two.csv"
    scan_to_csv([scan(bec, metadata={"sample": "gold"}).wait(), scan(bec, 2).wait()], file)
    comments, points = rows(file)
    assert comments[0] == ["# scan 1: line_scan, 3 points, closed"]
    assert ["#metadata.sample", "gold"] in comments
    assert comments[-1][:4] == ["#scan_number", "dataset_number", "samx_value", "samx_timestamp"]
    assert [row[0] for row in points] == ["1", "1", "1", "2", "2"]
    assert [row[2] for row in points] == ["-1.0", "0.0", "1.0", "-1.0", "1.0"]


def test_form_and_header_can_be_given(bec: Any, tmp_path: Path) -> None:
    report = scan(bec, 1).wait()
    file = tmp_path / "one.csv"
    titles = [*"abcdefgh"]
    scan_to_csv(report, str(file), delimiter=";", header=titles, write_metadata=False)
    assert file.read_text().splitlines()[1] == "#a;b;c;d;e;f;g;h"
    with pytest.raises(ParameterError, match="the header has 1 titles, and the table has 8 columns"):
        scan_to_csv(report, file, header=["a"])
    with pytest.raises(StorageError, match="cannot be written: No such file"):
        scan_to_csv(report, tmp_path / "nowhere" / "x.csv")
    with pytest.raises(ParameterError, match="there is no scan to write"):
        scan_to_csv([], file)
    with pytest.raises(ParameterError, match="mv is no scan, it has no points"):
        scan_to_dict(bec.mv(bec.devices.samx, 1))


def test_the_scans_of_a_block_are_exported(bec: Any, tmp_path: Path) -> None:
    file = tmp_path / "block.csv"
    with bec.scans.scan_export(file):
        scan(bec)
        bec.mv(bec.devices.samx, 1)
        scan(bec, 2)
    assert len(rows(file)[1]) == 5
    scan(bec).wait()
    assert len(rows(file)[1]) == 5


def test_what_was_taken_before_a_failure_is_exported(bec: Any, fleet: Any, tmp_path: Path) -> None:
    file = tmp_path / "block.csv"
    with pytest.raises(DeviceError, match="samx stalled"), bec.scans.scan_export(file):
        scan(bec).wait()
        fleet.fail = (ReasonCode.DEVICE_FAILED, "samx stalled")
        scan(bec, 2)
    assert [row[0] for row in rows(file)[1]] == ["1", "1", "1", "2", "2"]


def test_a_pause_is_not_waited_for(bec: Any, fleet: Any, tmp_path: Path) -> None:
    told: list[str] = []
    bec.connection.notify = told.append
    file = tmp_path / "block.csv"
    with pytest.raises(ScanInterruption), bec.scans.scan_export(file):
        scan(bec).wait()
        fleet.hold = 1
        assert scan(bec, 2).scan.opened.wait(30)
        raise ScanInterruption("scan 2 is paused")
    assert len(rows(file)[1]) == 3
    assert told == [f"{file} is without 1 of the scans, not ended yet"]
    with pytest.raises(ScanInterruption), bec.scans.scan_export(tmp_path / "nothing.csv"):
        raise ScanInterruption("nothing has begun")
    assert told[1:] == [f"no scan has ended, so {tmp_path / 'nothing.csv'} is not written"]


def test_the_history_is_exported_from_its_files(bec: Any, fleet: Any, tmp_path: Path) -> None:
    from tests.bec_client.test_docs import write

    fleet.write_file = write
    fleet.file_path = str(tmp_path / "S00001_master.h5")
    scan(bec).wait()
    assert list(scan_to_dict(bec.history[-1])["value"]["samx"]) == [0, 1, 2]
    scan_to_csv(bec.history[-1], tmp_path / "history.csv")
    assert len(rows(tmp_path / "history.csv")[1]) == 3
