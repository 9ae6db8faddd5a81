"""A device server from its streams: what is asked, what is answered, what is published."""

from __future__ import annotations

from typing import Any

from bec_lib.endpoints import MessageEndpoints
from bec_lib.messages import (
    ReadBaseline,
    RunPoints,
    StageDevices,
    UnstageDevices,
)

# `bench` is conftest's Bench, `device` its function that makes a configuration.
Config = dict[str, Any]


def test_a_scan_from_stage_to_unstage(bench: Any, zero: Config) -> None:
    assert bench.load(zero)["loaded"] == ["m1", "d1", "d2"]
    staged = bench.do(
        StageDevices(
            monitored=["m1", "d1"], baseline=["d2"], owned=["m1"], scan_name="line_scan", scan_number=7
        ),
        scan_id="s1",
    )
    assert [(d["name"], [s["signal"] for s in d["signals"]]) for d in staged.result["devices"]] == [
        ("m1", ["m1", "m1_setpoint"]),
        ("d1", ["d1"]),
        ("d2", ["d2"]),
    ]
    bench.do(ReadBaseline(), scan_id="s1")
    positions = [float(i) for i in range(100)]
    done = bench.do(RunPoints(first_index=0, count=100, positions={"m1": positions}), scan_id="s1")
    assert done.status == "completed"
    assert bench.do(UnstageDevices(), scan_id="s1").status == "completed"
    blocks = bench.messages(MessageEndpoints.scan_readings("s1"))
    assert blocks[0].group == "baseline" and blocks[0].values == [[2.0]]
    points = [block for block in blocks if block.group == "monitored"]
    assert [v for block in points for v in block.values[0]] == positions
    assert [v for block in points for v in block.values[2]] == [1.0] * 100
    assert points[0].first_index == 0
    assert points[-1].first_index + points[-1].count == 100
