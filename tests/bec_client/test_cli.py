"""The `bec` command: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bec_client import cli
from bec_lib import messages as m
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import ReasonCode


@pytest.fixture
def run(fleet: Any, make_client: Any, monkeypatch: Any) -> Any:
    """Runs `bec WORDS`; each call makes its own client, as the command does."""
    monkeypatch.setattr(cli, "_client", make_client)

    def invoke(*words: str) -> Any:
        return CliRunner().invoke(cli.app, list(words))

    return invoke


def test_words_become_arguments() -> None:
    args, kwargs = cli.parse_words(
        [
            "samx",
            "-1",
            "1.5e-3",
            "--steps",
            "11",
            "--exp-time=0.1",
            "--relative",
            "snaked=false",
            "[1, 2]",
            "--name",
            "x",
        ]
    )
    assert args == ["samx", -1, 0.0015, [1, 2]]
    assert kwargs == {"steps": 11, "exp_time": 0.1, "relative": True, "snaked": False, "name": "x"}


def test_a_scan_with_its_table(run: Any, fleet: Any) -> None:
    result = run("scan", "line_scan", "samx", "-1", "1", "--steps", "3")
    assert result.exit_code == 0, result.output
    assert "Scan 1: line_scan of samx, 3 points" in result.output
    assert "Scan 1 closed: 3 points" in result.output
    assert fleet.requests[0].args == ["samx", -1, 1]


def test_a_scan_as_json(run: Any) -> None:
    result = run("scan", "line_scan", "samx", "-1", "1", "steps=3", "--json")
    assert json.loads(result.stdout)["file_path"] == "/data/S00001_master.h5"


def test_a_wrong_call_ends_with_2_and_all_problems(run: Any, fleet: Any) -> None:
    result = run("scan", "line_scan", "samz", "-1")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: line_scan cannot run")
    assert "needs steps" in result.stderr
    assert "Traceback" not in result.stderr
    assert run("scan", "line_scn").exit_code == 2
    assert not fleet.requests


def test_a_failure_ends_with_1_and_its_sentence(run: Any, fleet: Any) -> None:
    fleet.fail = (ReasonCode.DEVICE_FAILED, "bpm4i does not answer")
    result = run("scan", "line_scan", "samx", "-1", "1", "--steps", "3")
    assert result.exit_code == 1
    assert result.stderr.strip() == "error: bpm4i does not answer"
    fleet.refuse = (ReasonCode.LIMIT, "samx cannot move to 99 mm")
    assert run("mv", "samx", "99").exit_code == 1


def test_debug_shows_the_traceback(run: Any, fleet: Any) -> None:
    fleet.refuse = (ReasonCode.LIMIT, "samx cannot move to 99 mm")
    assert "Traceback" in run("mv", "samx", "99", "--debug").stderr
    assert "Traceback" not in run("mv", "samx", "99").stderr


def test_a_user_given_before_the_command_counts() -> None:
    cli._common.update(user="eve", config=None)
    try:
        assert cli._client().username == "eve"
        assert cli._client("bob").username == "bob"
    finally:
        cli._common.update(user=None)


def test_an_unknown_command_or_option_ends_with_2(run: Any) -> None:
    assert run("nothing").exit_code == 2
    assert run("status", "--wrong").exit_code == 2


def test_the_list_of_scans(run: Any) -> None:
    assert "line_scan(device, start, stop, ..., steps)" in run("scan").output
    assert set(json.loads(run("scan", "--json").stdout)) == {"line_scan", "mv"}


def test_moving_and_where_things_are(run: Any, fleet: Any) -> None:
    fleet.calls[("samx", "read")] = {"samx": {"value": 2.0, "timestamp": 1e9}}
    assert run("mv", "samx", "-2").output.strip() == "samx is at 2.000 mm"
    assert fleet.requests[0].args == ["samx", -2]
    assert json.loads(run("wm", "samx", "--json").stdout)[0]["readback"] == 2.0
    assert "2.000" in run("wm").output


def test_status_fails_when_a_service_is_silent(run: Any, fleet: Any) -> None:
    result = run("status")
    assert "scan_server" in result.output
    assert result.exit_code == 1, "scihub is not part of the scripted fleet"
    assert "silent" in result.output
    holder = m.Holder(what="scan 12 (line_scan)", devices=["samx"], user="berta")
    fleet.brokers["device_server"].put(
        MessageEndpoints.device_holders("main"), m.DeviceHoldersMessage(server="main", holders=[holder])
    )
    assert "samx: scan 12 (line_scan) of berta" in run("status").stdout
    facts = json.loads(run("status", "--json").stdout)
    assert facts["in use"] == {"scan 12 (line_scan) of berta": ["samx"]}
    assert facts["deployment"] == "test"
    assert facts["services"]["scan_server"]["status"] == "RUNNING"


def test_plan(run: Any, fleet: Any, tmp_path: Any) -> None:
    from tests.bec_client.test_plan import GRID

    fleet.plan = GRID
    result = run("plan", "line_scan", "samx", "-1", "1", "--steps", "5", "--png", str(tmp_path / "p.png"))
    assert result.exit_code == 0 and "nothing was moved" in result.output, result.output
    assert (tmp_path / "p.png").exists()
    assert (
        json.loads(run("plan", "line_scan", "samx", "-1", "1", "--steps", "5", "--json").stdout)["num_points"]
        == 5
    )
    assert run("plan", "line_scan", "samx").exit_code == 2


def test_queue_commands(run: Any, fleet: Any) -> None:
    for word in ("pause", "resume", "abort", "clear"):
        assert run("queue", word).exit_code == 0
    assert [c.action.value for c in fleet.commands] == ["deferred_pause", "continue", "abort", "clear"]
    assert run("queue", "lock", "beam is down").exit_code == 0
    assert fleet.commands[-1].parameter["reason"] == "beam is down"
    assert "no queue yet" in run("queue", "show").output
    scan_id = "00000000-0000-7000-8000-000000000001"
    for words in (
        ["move", scan_id, "top"],
        ["move", scan_id, "2"],
        ["edit", scan_id, "samx", "-1", "1", "--steps", "21"],
        ["remove", scan_id],
    ):
        result = run("queue", *words)
        assert result.exit_code == 0 and f"of {scan_id} it is." in result.output, result.output
    *_, to, edit, remove = fleet.commands
    assert to.parameter == {"position": 2} and remove.action.value == "remove"
    assert edit.parameter == {"args": ["samx", -1, 1], "kwargs": {"steps": 21}}
    assert run("queue", "move", scan_id, "sideways").exit_code == 2


def test_the_account(run: Any) -> None:
    assert "No account" in run("account").output
    assert run("account", "set", "p12345").exit_code == 0
    assert run("account", "show").output.strip() == "p12345"
    assert run("account", "set", "../x").exit_code == 2


def test_device_files(run: Any, fleet: Any, tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text("samx: {deviceClass: a.B, enabled: true, readoutPriority: baseline}\n")
    assert f"{file} is well-formed: 1 device. " in run("config", "validate", str(file)).output
    assert run("config", "load", str(file)).exit_code == 0
    fleet.config_failed = {"samx": "there is no module a"}
    result = run("config", "load", str(file), "--force")
    assert result.exit_code == 1
    assert "samx: there is no module a" in result.output
    file.write_text("samx: {deviceClass: a.B\n")
    result = run("config", "validate", str(file))
    assert result.exit_code == 1
    assert "line 2, column 1" in result.stderr


def test_the_session_is_shown_and_saved(run: Any, tmp_path: Path) -> None:
    assert "samx" in run("config", "show").output
    assert "Find the home switch." in run("config", "show", "samx").output
    saved = tmp_path / "saved.yaml"
    assert run("config", "save", str(saved)).exit_code == 0
    assert "bpm4i" in saved.read_text()


def test_history_and_alarms(run: Any) -> None:
    assert "No scans yet." in run("history").output
    assert json.loads(run("history", "--json").stdout) == []
    assert "No alarms." in run("alarms").output


def test_help_everywhere(run: Any) -> None:
    for words in (
        [],
        ["scan"],
        ["mv"],
        ["config"],
        ["config", "load"],
        ["queue"],
        ["status"],
        ["plot"],
        ["file"],
    ):
        result = run(*words, "--help")
        assert result.exit_code == 0
        assert "Usage" in result.output


def test_a_reload_that_keeps_something_ends_with_1(run: Any, fleet: Any) -> None:
    result = run("config", "reload", "samx")
    assert result.exit_code == 0 and "1 device built anew" in result.stdout
    fleet.config_kept = {"samx": "samx stays as it was: no licence"}
    result = run("config", "reload")
    assert result.exit_code == 1 and "samx stays as it was: no licence" in result.stdout
