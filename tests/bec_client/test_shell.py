"""The shell's parts: completion, prompt, magics, and the panel for errors. The shell itself is tried in a terminal."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from IPython.terminal.interactiveshell import TerminalInteractiveShell

from bec_client.report import ScanInterruption
from bec_client.shell import start
from bec_client.shell.completion import devices_in_call, names_in_chain
from bec_client.tables import as_text, error_panel
from bec_lib import messages as m
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError, LimitError


@pytest.fixture
def shell(bec: Any) -> Any:
    TerminalInteractiveShell.clear_instance()
    config = start.settings()
    config.HistoryManager.enabled = False
    made = TerminalInteractiveShell.instance(config=config)
    before = dict(vars(builtins))
    start.prepare(made, bec)
    yield made
    TerminalInteractiveShell.clear_instance()
    for name in set(vars(builtins)) - set(before):
        delattr(builtins, name)


def completions(shell: Any, line: str) -> set[str]:
    """The line as it would be after each of the completions."""
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        found = list(shell.Completer.completions(line, len(line)))
    return {line[: item.start] + item.text for item in found}


def test_devices_and_their_signals_are_completed(shell: Any, fleet: Any) -> None:
    assert "dev.samx" in completions(shell, "dev.sa")
    assert "dev.samx.velocity" in completions(shell, "dev.samx.velo")
    assert "mv(dev.samx.velocity" in completions(shell, "mv(dev.samx.velo")
    assert "dev.samx.velocity.get" in completions(shell, "dev.samx.velocity.ge")
    assert "scans.line_scan" in completions(shell, "scans.li")
    assert "bec.dap.GaussianModel.fit" in completions(shell, "bec.dap.GaussianModel.fi")
    assert not fleet.requests, "completion must ask no device"


def test_the_parts_of_the_client_are_completed(shell: Any, bec: Any, tmp_path: Any) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def align(): ...\n")
    bec.macros.load_user_macro(file)
    for line, expected in (
        ("bec.hist", "bec.history"),
        ("bec.set_gl", "bec.set_global_var"),
        ("bec.queue.request_scan_ab", "bec.queue.request_scan_abortion"),
        ("bec.macros.al", "bec.macros.align"),
        ("bec.callbacks.reg", "bec.callbacks.register"),
        ("bec.live_updates_config.print_l", "bec.live_updates_config.print_live_table"),
        ("ali", "align"),
        ("scans.line_scan(dev.samx, -1, 1, async_c", "scans.line_scan(dev.samx, -1, 1, async_callback="),
    ):
        assert expected in completions(shell, line), line


def test_devices_are_completed_inside_calls(shell: Any) -> None:
    assert "scans.line_scan(dev.samx" in completions(shell, "scans.line_scan(sa")
    assert "umv(dev.bpm4i" in completions(shell, "umv(bp")
    assert "scans.line_scan(dev.samx, -1, 1, steps=" in completions(
        shell, "scans.line_scan(dev.samx, -1, 1, st"
    )


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        ("mv(", "", ["dev.samx", "dev.bpm4i", "dev.eyefoc"]),
        ("scans.line_scan(dev.samx, -1, 1, b", "b", ["dev.bpm4i"]),
        ("scans.line_scan(dev.samx, -1, 1, steps=b", "b", []),
        ("print(sa", "sa", []),
        ("mv('sa", "'sa", []),
    ],
)
def test_where_a_device_may_stand(bec: Any, line: str, text: str, expected: list[str]) -> None:
    assert devices_in_call(line, text, bec) == expected


def test_chains_stop_at_calls_and_at_values_of_devices(bec: Any, fleet: Any) -> None:
    names = {"dev": bec.devices, "x": 3}
    assert names_in_chain("dev.samx.position.re", names) == []
    assert names_in_chain("dev.samx.tolerance.re", names) == []
    assert names_in_chain("x.re", names) == []
    assert names_in_chain("nobody.re", names) == []
    assert not fleet.requests


def test_the_prompt_shows_state_account_and_next_scan(shell: Any, bec: Any, fleet: Any) -> None:
    bec.account = "p12345"
    fleet.broker.put(start_endpoints().scan_number, m.ScanNumberMessage(scan_number=41))
    text = "".join(part for _, part in shell.prompts.in_prompt_tokens())
    assert text == "● p12345 [1/42] ❯❯ "
    fleet.alive.remove("scan_server")
    fleet.beat()
    bec.service_status._seen.clear()
    assert "Bad" in str(shell.prompts.in_prompt_tokens()[0][0])


def test_our_errors_are_one_panel(shell: Any, fleet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell("scans.line_scan(dev.samx, -1, 1, stepz=3)")
    out = capsys.readouterr().out
    assert "The call is not right" in out
    assert "line_scan has no keyword 'stepz'" in out
    assert "Traceback" not in out
    shell.run_cell("bec.show_last_traceback()")
    assert "ParameterError" in capsys.readouterr().out


def test_a_pause_is_no_error(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.push({"pause": ScanInterruption("Scan 1 is paused after point 3 of 5.")})
    shell.run_cell("raise pause")
    out = capsys.readouterr().out
    assert "Scan 1 is paused after point 3 of 5." in out
    assert "Error" not in out


def test_the_panel_has_what_where_and_why() -> None:
    text = as_text(
        error_panel(LimitError("samx cannot move to 12 mm: its limits are -10 to 10 mm", device="samx"))
    )
    assert "Out of limits" in text
    assert "samx cannot move to 12 mm" in text
    assert "BECError" in as_text(error_panel(BECError("")))


def test_magics_command_the_queue(shell: Any, fleet: Any) -> None:
    for line in ("%pause", "%pause after point", "%pause after scan", "%pause after lunch"):
        shell.run_cell(line)
    for line in ("%deferred_pause", "%resume", "%restart", "%abort", "%halt"):
        shell.run_cell(line)
    assert [command.action.value for command in fleet.commands] == [
        "pause", "deferred_pause", "pause_after_scan", "deferred_pause", "continue", "restart", "abort", "halt",
    ]  # fmt: skip


def test_a_move_is_not_what_resume_shows(shell: Any, bec: Any, fleet: Any) -> None:
    scan = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=3, hide_report=True)
    bec.mv(bec.devices.samx, 2)
    assert bec.last_report is scan


def test_a_name_that_lacks_dev_or_scans_is_told_where_it_is(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("umv(samx, 1)")
    out = capsys.readouterr().out
    assert "name 'samx' is not defined" in out and "samx is there as dev.samx" in out
    shell.run_cell("line_scan(dev.samx)")
    assert "line_scan is there as scans.line_scan" in capsys.readouterr().out
    shell.run_cell("nothing_such")
    assert "is there as" not in capsys.readouterr().out


def test_the_banner_tells_what_runs(bec: Any, fleet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    start.print_banner(bec)
    assert "%queue" not in capsys.readouterr().out
    running = m.QueueItem(
        request_id="r",
        scan_id="s",
        scan_name="line_scan",
        status=m.ItemState.PAUSED,
        scan_number=7,
        user="ada",
    )
    waiting = running.model_copy(
        update={"request_id": "q", "status": m.ItemState.PENDING, "scan_number": None}
    )
    for items, told in (
        ([running], "Scan 7, line_scan of ada, is paused in the queue primary (%queue)"),
        ([running, waiting], "Scan 7, line_scan of ada, is paused in the queue primary, 1 waits (%queue)"),
        ([waiting, waiting], "Nothing runs in the queue primary, 2 wait (%queue)"),
    ):
        snapshot = m.QueueSnapshot(items=items, num_items=len(items))
        fleet.broker.put(
            MessageEndpoints.scan_queue_status, m.ScanQueueStatusMessage(queues={"primary": snapshot})
        )
        start.print_banner(bec)
        assert told in capsys.readouterr().out


def test_reset_empties_the_queue_and_with_arguments_is_ipythons(shell: Any, fleet: Any) -> None:
    shell.run_cell("x = 3")
    shell.run_cell("%reset")
    assert [command.action.value for command in fleet.commands] == ["clear"]
    assert shell.user_ns["x"] == 3
    shell.run_cell("%reset -f")
    assert "x" not in shell.user_ns


def test_schema_shows_what_a_scan_takes_and_its_metadata(
    shell: Any, bec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bec.metadata["operator"] = "ada"
    shell.run_cell("%schema line_scan")
    out = capsys.readouterr().out
    assert "exp_time" in out and "operator" in out and "ada" in out
    shell.run_cell("%schema")
    assert "%schema needs the name of a scan: line_scan, mv." in capsys.readouterr().out
    shell.run_cell("%schema line_scn")
    assert "Did you mean line_scan" in capsys.readouterr().out


def test_su_goes_on_as_another_user(shell: Any, bec: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell("%su")
    shell.run_cell("%su eve")
    assert bec.username == "eve"
    out = capsys.readouterr().out
    assert "You are ada." in out and "You are eve now." in out


def test_macros_are_there_by_their_names(shell: Any, bec: Any, tmp_path: Any) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def align(): return dev.samx.name\n")
    bec.macros.load_user_macro(file)
    shell.run_cell("found = align()")
    assert shell.user_ns["found"] == "samx"
    bec.load_high_level_interface("spec_hli")
    assert "ascan" in shell.user_ns
    bec.macros.forget_all_user_macros()
    assert "align" not in shell.user_ns


def test_a_script_finds_the_names_of_the_shell(shell: Any, bec: Any, tmp_path: Any) -> None:
    script = tmp_path / "measure.py"
    script.write_text("found = (dev.samx.name, scans.line_scan.__name__, bec.username)\n")
    shell.run_cell(f"%run {script}").raise_error()
    assert shell.user_ns["found"] == ("samx", "line_scan", "ada")


def test_a_name_that_is_not_there_is_one_panel(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("dev.samx.velocty", "bec.histroy", "dev.samx.velocity = 3"):
        shell.run_cell(line)
    out = capsys.readouterr().out
    assert (
        "Did you mean velocity?" in out and "Did you mean history?" in out and "samx.velocity.set(3)" in out
    )
    assert "Traceback" not in out


def test_minor_alarms_are_one_line_and_told_once(
    shell: Any, bec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def alarm(severity: m.Severity, text: str) -> m.AlarmMessage:
        return m.AlarmMessage(severity=severity, info=m.ErrorInfo(error_message=text), source="file_writer")

    for severity, text in (
        (m.Severity.WARNING, "nothing much"),
        (m.Severity.MINOR, "slow\ndisk"),
        (m.Severity.MINOR, "slow\ndisk"),
        (m.Severity.MAJOR, "disk full"),
    ):
        bec._on_alarm(alarm(severity, text))
    assert capsys.readouterr().out.splitlines() == [
        "Alarm from file_writer: slow disk",
        "Alarm from file_writer: disk full",
    ]


def start_endpoints() -> Any:
    from bec_lib.endpoints import MessageEndpoints

    return MessageEndpoints
