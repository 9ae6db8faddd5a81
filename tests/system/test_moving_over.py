"""A script as it was written for the released BEC runs on a whole fleet: macros, callbacks, datasets, export."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

MACRO = '''
def measure(file, seen):
    """Two scans of one dataset, exported; returns their reports."""
    reports = []
    with scans.dataset_id_on_hold as number, scans.scan_export(file):
        for y in (0.0, 0.5):
            mv(dev.samy, y).wait(60)
            reports.append(
                scans.line_scan(
                    dev.samx, -0.2, 0.2, steps=5, relative=False, hide_report=True,
                    callback=lambda content, metadata: seen.append((metadata["scan_number"], content["point_id"])),
                )
            )
            reports[-1].wait(60)
    mv(dev.samx, 0, dev.samy, 0).wait(60)
    return number, reports
'''


def test_a_macro_with_callbacks_datasets_and_export(bec: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MACRO, encoding="utf-8")
    bec.macros.load_user_macro(file)
    bec.set_global_var("sample_name", "gold")
    try:
        seen: list[tuple[int, int]] = []
        dataset, reports = bec.macros.measure(tmp_path / "two.csv", seen)
    finally:
        bec.delete_global_var("sample_name")
    numbers = [report.scan.scan_number for report in reports]
    assert seen == [(number, point) for number in numbers for point in range(5)]
    found = bec.history.get_by_dataset_number(dataset)
    assert [scan.scan_number for scan in found] == numbers
    assert found[0].metadata["sample_name"] == "gold"
    assert found[0].metadata["dataset_number"] == dataset
    assert reports[0].scan.status_message.dataset_number == dataset
    with (tmp_path / "two.csv").open(newline="") as opened:
        rows = [row for row in csv.reader(opened) if not row[0].startswith("#")]
    assert [(int(row[0]), int(row[1])) for row in rows] == [
        (number, dataset) for number in numbers for _ in range(5)
    ]


def test_another_user_of_a_running_client_is_served(fleet: Any) -> None:
    """The services find the request streams of a user who was not there when they started."""
    from bec_client import BECClient

    with BECClient(fleet.config) as client:
        client.live_updates.enabled = False
        client.switch_user("eve")
        report = client.scans.line_scan("samx", -0.1, 0.1, steps=2, relative=True)
        report.wait(60)
        assert report.scan.status_message.user == "eve"
        assert client.devices.samx.read()["samx"]["value"] is not None
