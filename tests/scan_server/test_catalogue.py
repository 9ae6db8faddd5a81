"""Plugins: ours and others' through one door, and what is wrong is named."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from bec_lib.messages import RequestResponseMessage
from bec_lib.scans import PointScan, parameter
from scan_server.answers import KEEP, Answers
from scan_server.catalogue import load_catalogue

BUILTIN = EntryPoint("builtin", "scan_server.scans", "bec.scans")


class Mine(PointScan):
    """Mine."""

    scan_name = "mine"


class Thief(PointScan):
    scan_name = "line_scan"


class Wrong(PointScan):
    scan_name = "wrong"
    width = parameter(1.0)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
    module = ModuleType("a_plugin")
    for kind in (Mine, Thief, Wrong):
        monkeypatch.setattr(kind, "__module__", "a_plugin")
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "a_plugin", module)
    return EntryPoint("theirs", "a_plugin", "bec.scans")


def test_the_built_in_scans_are_found_with_becs_names() -> None:
    catalogue = load_catalogue([BUILTIN])
    assert set(catalogue.infos) >= {
        "acquire", "grid_scan", "line_scan", "list_scan", "mv", "time_scan", "umv", "log_scan", "fermat_scan",
        "round_scan", "round_roi_scan", "hexagonal_scan", "multi_region_line_scan", "multi_region_grid_scan",
    }  # fmt: skip
    assert catalogue.failed == {}
    assert [name for name, info in catalogue.infos.items() if not info.is_scan] == ["mv", "umv"]
    assert all(info.doc and ">>>" in info.doc for info in catalogue.infos.values())
    assert len(set(catalogue.code_hashes.values())) == len(catalogue.infos)


def test_a_plugin_adds_its_scans_and_its_faults_are_named(plugin: EntryPoint) -> None:
    catalogue = load_catalogue([plugin, BUILTIN, EntryPoint("gone", "no_such_module", "bec.scans")])
    assert catalogue.infos["mine"].plugin == "theirs"
    assert catalogue.infos["line_scan"].plugin == "builtin"
    assert "a_plugin.Thief is called line_scan" in catalogue.failed["theirs"]
    assert "the parameter width needs a type" in catalogue.failed["theirs"]
    assert "no_such_module" in catalogue.failed["gone"]


def answer(request_id: str, text: str = "") -> RequestResponseMessage:
    return RequestResponseMessage(request_id=request_id, accepted=True, message=text)


def test_the_first_answer_stands() -> None:
    answers = Answers()
    assert not answers.knows("c")
    answers.load("c", [answer("r", "first")])
    answers.remember("c", answer("r", "second"))
    found = answers.first("c", "r")
    assert found is not None and found.message == "first"
    assert answers.first("d", "r") is None


def test_old_answers_are_forgotten_first() -> None:
    answers = Answers()
    answers.load("c", [answer(str(k)) for k in range(KEEP + 5)])
    assert answers.first("c", "4") is None and answers.first("c", "5") is not None
