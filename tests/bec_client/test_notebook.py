"""A scan in a notebook, as the display protocol tells it: one output, written anew."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from bec_client.shell.notebook import NotebookConsole, Screen, show_in_notebook
from bec_client.tables import as_text
from bec_lib.errors import DeviceError, ReasonCode


@pytest.fixture
def published(bec: Any) -> Iterator[list[dict[str, Any]]]:
    """What a notebook would be sent, in order."""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.display_pub = CapturingDisplayPublisher()
    show_in_notebook(bec)
    yield shell.display_pub.outputs
    InteractiveShell.clear_instance()


def ids(published: list[dict[str, Any]]) -> set[str]:
    return {output["transient"]["display_id"] for output in published}


def test_a_scan_is_one_output_that_is_written_anew(bec: Any, published: list[dict[str, Any]]) -> None:
    bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5)
    assert len(ids(published)) == 1
    assert [output["update"] for output in published] == [False] + [True] * (len(published) - 1)
    lines = published[-1]["data"]["text/plain"].splitlines()
    assert lines[0] == "Scan 1: line_scan of samx, 5 points"
    assert [line.split()[:2] for line in lines[4:9]] == [
        ["1", "-1.000"], ["2", "-0.500"], ["3", "0.000"], ["4", "0.500"], ["5", "1.000"],
    ]  # fmt: skip
    assert lines[9].startswith("Scan 1 closed: 5 points")
    assert "\x1b" not in published[-1]["data"]["text/plain"]
    assert published[-1]["data"]["text/html"].startswith("<pre")


def test_the_next_scan_is_an_output_of_its_own(bec: Any, published: list[dict[str, Any]]) -> None:
    for _ in range(2):
        bec.scans.line_scan(bec.devices.samx, -1, 1, steps=2)
    assert len(ids(published)) == 2
    assert published[-1]["data"]["text/plain"].startswith("Scan 2")


def test_a_move_is_an_output_of_its_own(bec: Any, published: list[dict[str, Any]], fleet: Any) -> None:
    fleet.calls[("samx", "read")] = {"samx": {"value": 1.5, "timestamp": 1e9}}
    bec.scans.line_scan(bec.devices.samx, -1, 1, steps=2)
    bec.umv(bec.devices.samx, 1.5)
    assert len(ids(published)) == 2
    assert published[-1]["data"]["text/plain"] == "samx is at 1.500 mm"


def test_what_is_printed_of_an_object_is_text(monkeypatch: Any) -> None:
    """rich would show it at once, and leave an empty text to be shown after it."""
    monkeypatch.setattr("bec_client.tables._console", None)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert as_text("3 scans") == "3 scans"


def test_a_scan_that_fails_shows_its_points_and_raises(
    bec: Any, fleet: Any, published: list[dict[str, Any]]
) -> None:
    fleet.fail = (ReasonCode.DEVICE_FAILED, "bpm4i does not answer")
    with pytest.raises(DeviceError, match="bpm4i does not answer"):
        bec.scans.line_scan(bec.devices.samx, -1, 1, steps=3)
    assert "Scan 1 aborted: 3 points" in published[-1]["data"]["text/plain"]


def test_what_is_sent_does_not_grow_with_the_scan(published: list[dict[str, Any]]) -> None:
    console = NotebookConsole()
    with console.open() as screen:
        for k in range(1000):
            console.print(f"row {k} <b>")
        screen.update("━━━ 1000 / 1000")
    lines = published[-1]["data"]["text/plain"].splitlines()
    assert lines[0] == "row 0 <b>"
    assert lines[5].split() == ["⋮", "965", "lines", "more"]
    assert lines[-1] == "row 999 <b>"
    assert len(lines) == 36
    assert "&lt;b&gt;" in published[-1]["data"]["text/html"]


def test_nothing_is_shown_of_nothing(published: list[dict[str, Any]]) -> None:
    with Screen(NotebookConsole()):
        pass
    assert published == []


def test_the_extension_gives_a_notebook_the_names_of_the_shell(
    bec: Any, fleet: Any, monkeypatch: Any
) -> None:
    """`%load_ext bec_client.shell`"""
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    monkeypatch.setattr("bec_client.client.BECClient", lambda: bec)
    before = set(vars(builtins))
    shell.run_cell("%load_ext bec_client.shell").raise_error()
    assert shell.user_ns["dev"] is bec.devices
    shell.run_cell("%abort").raise_error()
    assert fleet.commands[-1].action.value == "abort"
    InteractiveShell.clear_instance()
    for name in set(vars(builtins)) - before:
        delattr(builtins, name)
