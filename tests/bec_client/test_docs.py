"""The examples of docs/client.md, docs/moving_over.md and docs/cli.md are run as they stand, on the scripted fleet."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bec_client import cli
from bec_lib import messages as m
from bec_lib.endpoints import MessageEndpoints as Endpoints

ROOT = Path(__file__).parents[2]
READING = {"samx": {"value": 1.5, "timestamp": 1e9}, "samx_setpoint": {"value": 1.5, "timestamp": 1e9}}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def write(path: str, count: int) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name in ("samx", "bpm4i"):
            for part in ("value", "timestamp"):
                file[f"/entry/collection/devices/{name}/{name}/{part}"] = np.arange(float(count))
            target = f"/entry/collection/devices/{name}"
            file[f"/entry/collection/readout_groups/monitored/{name}"] = h5py.SoftLink(target)


@pytest.fixture
def ready(fleet: Any, tmp_path: Path) -> Any:
    """The scripted fleet with what the pages take for granted."""
    fleet.calls.update({("samx", "read"): READING, ("samy", "read"): {"samy": READING["samx"]}})
    fleet.brokers["device_server"].put(Endpoints.device_readback("samx"), m.DeviceMessage(signals=READING))
    fleet.load({**fleet_devices(), "samy": fleet_devices()["samx"]}, version=2)
    fleet.write_file = write
    fleet.file_path = str(tmp_path / "S00001_master.h5")
    return fleet


def fleet_devices() -> dict[str, Any]:
    fields = {"enabled": True, "deviceConfig": {}}
    return {
        "samx": {"deviceClass": "device_server.sim.SimPositioner", "readoutPriority": "baseline", **fields},
        "bpm4i": {"deviceClass": "device_server.sim.SimMonitor", "readoutPriority": "monitored", **fields},
    }


def test_the_examples_of_the_client(
    ready: Any, make_client: Any, monkeypatch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bec_client.client.BECClient", lambda *args, **kwargs: make_client())
    names: dict[str, Any] = {}
    try:
        for block in blocks("client.md", "python"):
            exec(compile(block.replace("/tmp/", f"{tmp_path}/"), "docs/client.md", "exec"), names)
    finally:
        if "bec" in names:
            names["bec"].shutdown()
    assert names["fit"].center == 0.37
    assert names["report"].scan.metadata == {"sample": "gold"}
    assert "Scan 1 closed: 11 points" in capsys.readouterr().out


def test_the_examples_of_moving_over(
    ready: Any, make_client: Any, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bec_client.client.BECClient", lambda *args, **kwargs: make_client())
    names: dict[str, Any] = {}
    try:
        for block in blocks("moving_over.md", "python"):
            exec(compile(block, "docs/moving_over.md", "exec"), names)
    finally:
        if "bec" in names:
            names["bec"].shutdown()
    assert capsys.readouterr().out.splitlines()[-1] == "3 COMPLETED 5"


def commands() -> list[str]:
    return [
        line[2:]
        for block in blocks("cli.md", "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def test_the_examples_of_the_command_line(
    ready: Any, make_client: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "_client", make_client)
    monkeypatch.chdir(ROOT)
    for line in commands():
        name, *words = shlex.split(line.replace("/tmp/", f"{tmp_path}/"))
        assert name == "bec", line
        result = CliRunner().invoke(cli.app, words)
        silent = 1 if words[0] == "status" else 0  # the scripted fleet has no scihub
        assert result.exit_code == silent, f"{line}\n{result.output}"


def test_every_command_is_on_its_page() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    listed = CliRunner().invoke(cli.app, ["queue", "--help"]).output
    for word in re.findall(r"^│ (\w[\w-]*) ", listed, re.MULTILINE):
        assert word in page, word
