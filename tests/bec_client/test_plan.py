"""What a scan would do, as it is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bec_client.chart import path_chart
from bec_client.plan import Plan, size
from bec_lib import messages as m
from bec_lib.errors import LimitError, ParameterError, ReasonCode, StorageError

LINE = m.ScanPlan(
    scan_name="line_scan",
    num_points=5,
    shape=[5],
    motors=[m.MotorPlan(name="samx", unit="mm", start=0.0, low=-1.0, high=1.0, travel=3.0, limits=[-10, 10])],
    index=[0, 1, 2, 3, 4],
    positions={"samx": [-1.0, -0.5, 0.0, 0.5, 1.0]},
    estimated_s=12.0,
    estimated_low_s=10.0,
    estimated_high_s=15.0,
    moves_s=2.0,
    points_s=10.0,
    data_bytes=1_500_000,
    file_bytes=2_000_000,
    monitored=["samx", "bpm4i"],
    settings=["exposed for 2 s at each point"],
    steps=["5 points along positions of samx"],
    file="/data/S00001_master.h5",
    returns_to_start=True,
    waiting=2,
)
GRID = LINE.model_copy(
    update={
        "shape": [2, 3],
        "index": list(range(6)),
        "positions": {"samy": [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], "samx": [0.0, 1.0, 2.0, 2.0, 1.0, 0.0]},
    }
)


def test_a_plan_is_asked_for_and_shown(bec: Any, fleet: Any) -> None:
    fleet.plan = LINE
    plan = bec.scans.line_scan.plan(bec.devices.samx, -1, 1, steps=5)
    request = fleet.requests[-1]
    assert request.dry_run and request.args == ["samx", -1, 1] and bec.last_report is None
    assert (plan.num_points, plan.estimated_s) == (5, 12.0)
    assert plan.positions["samx"].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    text = str(plan)
    for expected in (
        "Plan: line_scan(samx, -1, 1, steps=5)",
        "about 12.0 s (10.0 s to 15.0 s): moves 2.00 s, points 10.0 s",
        "about 2 MB, of which 1.5 MB are points",
        "-10 to 10",
        "the motors go back at the end",
        "2 requests are before it in primary",
        "nothing was moved",
        "samx [mm]",
    ):
        assert expected in text, text


def test_what_would_be_refused_is_refused(bec: Any, fleet: Any) -> None:
    with pytest.raises(ParameterError, match="steps"):
        bec.scans.line_scan.plan("samx", -1, 1)
    fleet.refuse = (ReasonCode.LIMIT, "samx cannot move to 12 mm (point 5)")
    with pytest.raises(LimitError, match="12 mm"):
        bec.scans.line_scan.plan("samx", -1, 12, steps=5)


def test_no_device_server_is_needed(bec: Any, fleet: Any) -> None:
    fleet.plan = LINE
    fleet.alive.discard("device_server")
    fleet.beat()
    assert bec.scans.plan("line_scan", "samx", -1, 1, steps=5).num_points == 5


def test_a_guess_says_so() -> None:
    guess = Plan(LINE.model_copy(update={"guessed": ["samx", "what a point takes"]}))
    assert "a guess: nothing was learned yet of samx, what a point takes" in str(guess)
    assert "cannot be told" in str(Plan(LINE.model_copy(update={"estimated_s": None})))


def test_a_grid_is_drawn_as_a_path_with_the_fast_motor_lying(tmp_path: Path) -> None:
    plan = Plan(GRID)
    picture = plan.picture(60, 14)
    assert picture.splitlines()[-1].strip() == "samx [mm]" and "samy" in picture.splitlines()[0]
    # Snaked: it begins at the lower left and ends at the upper left.
    rows = picture.splitlines()[1:]
    (end,) = [row.index("E") for row in rows if "E" in row]
    (start,) = [row.index("S") for row in rows if "S" in row]
    assert end == start
    assert plan.save_png(tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(StorageError, match="cannot be written"):
        plan.save_png(tmp_path / "no" / "plan.png")


def test_without_positions_there_is_no_picture(tmp_path: Path) -> None:
    plan = Plan(LINE.model_copy(update={"positions": {}, "index": [], "num_points": None}))
    assert plan.picture() == "" and "decided while it runs" in str(plan)
    with pytest.raises(ParameterError, match="no picture"):
        plan.save_png(tmp_path / "plan.png")


def test_a_path_goes_through_its_points() -> None:
    lines = path_chart(np.array([0.0, 1.0]), np.array([0.0, 1.0]), width=40, height=14, y_label="y")
    drawn = [line.split("│")[-1].split("┤")[-1] for line in lines[1:11]]
    filled = [row for row in drawn if row.strip()]
    assert "E" in filled[0] and "S" in filled[-1] and len(filled) >= 9


def test_sizes_for_people() -> None:
    assert [size(n) for n in (0, 999, 1500, 2_340_000, 12_000_000_000)] == [
        "0 B", "999 B", "1.5 kB", "2.34 MB", "12 GB",
    ]  # fmt: skip
