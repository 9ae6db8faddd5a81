"""What people are told of plugins."""

from __future__ import annotations

from bec_client.plugins import Outcome, plugin_table
from bec_client.tables import as_text
from bec_lib.messages import AvailableScansMessage, ModifierInfo, PluginsReloaded, ScanInfo


def test_the_outcome_of_a_reload_in_words() -> None:
    report = PluginsReloaded(loaded=["a", "b"], changed=["c"], removed=["d"], failed={"e": "it is broken"})
    outcome = Outcome(report)
    assert outcome == "New: a, b.\nChanged: c.\nGone: d.\ne cannot be used: it is broken."
    assert outcome.report is report and repr(outcome) == str(outcome)
    assert Outcome(PluginsReloaded()) == "All plugins are as they were."


def test_the_table_has_a_row_for_each_plugin_also_for_one_that_failed() -> None:
    message = AvailableScansMessage(
        scans={
            "snake_scan": ScanInfo(name="snake_scan", plugin="mine"),
            **{f"scan_{n}": ScanInfo(name=f"scan_{n}") for n in range(20)},
        },
        failed={"broken": "no module named spectrometer"},
        modifiers={
            "mine.Shutter": ModifierInfo(
                name="mine.Shutter",
                plugin="mine",
                scans={"line_scan": ["before points"], "grid_scan": ["before points"]},
            )
        },
        plugins={"builtin": "bec (scan_server.scans)", "mine": "example (mine.scans)"},
    )
    text = as_text(plugin_table(message))
    assert "20 scans" in text and "snake_scan" in text
    assert "Shutter: before points of line_scan, grid_scan" in text
    assert "no module named spectrometer" in text
