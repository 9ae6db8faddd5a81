"""Requests to reload plugins, in a scan server that runs: answered, refused while it would disturb, given up in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import ReasonCode
from bec_lib.messages import PluginReloadMessage, PluginsReloaded, QueueAction, ScanState
from bec_lib.scans import Points, PointScan, ScanModifier, Steps, Wait, before, describe_scan
from bec_lib.scans.modifier import modify
from scan_server.catalogue import Catalogue, load_catalogue
from scan_server.reload import Reloaded
from tests.scan_server.test_app import WAIT_S, Beamline

go = threading.Event()


class Theirs(PointScan):
    scan_name = "theirs"

    def run(self) -> Steps:
        yield Points(2)


class Slower(ScanModifier):
    @before("points", scans="acquire")
    def rest(self) -> Steps:
        yield Wait(0.01)


def catalogue_of_two() -> Catalogue:
    catalogue = load_catalogue([])
    found = load_catalogue()
    for name in ("acquire", "line_scan"):
        catalogue.classes[name] = found.classes[name]
        catalogue.infos[name] = found.infos[name]
    catalogue.classes["theirs"] = Theirs
    catalogue.infos["theirs"] = describe_scan(Theirs, "a_plugin")
    made, failed, told = modify(catalogue.infos, [("b_plugin", Slower)])
    assert not failed
    catalogue.modifications.update(made)
    catalogue.modifiers.update(told)
    catalogue.infos.update({name: each.info for name, each in made.items()})
    return catalogue


@pytest.fixture
def beamline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beamline]:
    def reload(old: Catalogue, prints: dict[str, str], **_: Any) -> Reloaded:
        if not go.wait(WAIT_S):
            raise TimeoutError
        after = load_catalogue([])
        after.classes["line_scan"] = old.classes["line_scan"]
        after.infos["line_scan"] = old.infos["line_scan"]
        return Reloaded(after, {}, PluginsReloaded(removed=["a_plugin"], failed={"b_plugin": "it is broken"}))

    monkeypatch.setattr("scan_server.app.reload_plugins", reload)
    go.set()
    made = Beamline(tmp_path, catalogue_of_two())
    yield made
    go.set()
    made.close()


def ask(beamline: Beamline) -> str:
    return beamline.send(PluginReloadMessage(request_id=beamline.next_request(), client_id="c1"))


def test_the_answer_tells_what_came_of_it_and_the_catalogue_is_published(beamline: Beamline) -> None:
    answer = beamline.answer(ask(beamline))
    assert answer.accepted
    assert answer.result["removed"] == ["a_plugin"] and answer.result["failed"] == {
        "b_plugin": "it is broken"
    }
    found = beamline.client.get(MessageEndpoints.available_scans)
    assert found is not None and list(found.message.scans) == ["line_scan"]
    refused = beamline.answer(beamline.submit("theirs"))
    assert refused.code == ReasonCode.UNKNOWN_SCAN


@pytest.mark.parametrize(
    ("scan", "words"),
    [("theirs", "theirs (plugin a_plugin)"), ("acquire", "modified by b_plugin.Slower")],
)
def test_it_is_refused_while_a_scan_of_theirs_runs_or_waits(
    beamline: Beamline, scan: str, words: str
) -> None:
    beamline.devices.go.clear()
    running = beamline.submit("line_scan", "samx", 0, 1, steps=2)
    assert beamline.answer(running).accepted
    waiting = beamline.submit(scan)
    assert beamline.answer(waiting).accepted
    refused = beamline.answer(ask(beamline))
    assert refused.code == ReasonCode.WRONG_STATE
    assert "plugins cannot be reloaded while" in refused.message
    assert words in refused.message and "waits in the queue primary" in refused.message
    scan_id = beamline.answer(waiting).scan_id
    assert beamline.command(QueueAction.REMOVE, scan_id=scan_id).accepted
    # Ours may run meanwhile.
    assert beamline.answer(ask(beamline)).accepted
    beamline.devices.go.set()
    assert beamline.done(running).success


def test_a_scan_whose_end_is_on_record_does_not_stand_in_its_way(beamline: Beamline) -> None:
    """Who has just waited for the end of a scan may know of it before the queue does."""
    beamline.devices.go.clear()
    running = beamline.submit("theirs")
    assert beamline.devices.at_points.wait(WAIT_S)
    assert not beamline.answer(ask(beamline)).accepted
    (status,) = beamline.statuses(beamline.answer(running).scan_id)
    over = status.model_copy(update={"status": ScanState.CLOSED})
    beamline.client.append(MessageEndpoints.scan_status, over)
    assert beamline.answer(ask(beamline)).accepted


def test_while_it_lasts_scans_of_theirs_and_another_reload_are_refused(beamline: Beamline) -> None:
    go.clear()
    first = ask(beamline)
    second: Any = beamline.answer(ask(beamline))
    assert second.code == ReasonCode.WRONG_STATE and "already" in second.message
    refused = beamline.answer(beamline.submit("theirs"))
    assert refused.code == ReasonCode.WRONG_STATE and "just being reloaded" in refused.message
    assert beamline.done(beamline.submit("line_scan", "samx", 0, 1, steps=2)).success
    go.set()
    assert beamline.answer(first).accepted


def test_an_import_that_does_not_return_is_given_up(
    beamline: Beamline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scan_server.app.RELOAD_S", 0.1)
    go.clear()
    answer = beamline.answer(ask(beamline))
    assert answer.code == ReasonCode.TIMEOUT and "as they were before" in answer.message
    assert beamline.done(beamline.submit("theirs")).success


def test_a_modified_scan_runs_with_its_steps(beamline: Beamline) -> None:
    assert beamline.done(beamline.submit("acquire")).success


def test_a_reload_during_which_the_scan_server_is_restarted_is_answered_once(beamline: Beamline) -> None:
    go.clear()
    request = ask(beamline)
    assert beamline.done(beamline.submit("line_scan", "samx", 0, 1, steps=2)).success
    beamline.stop_server()
    go.set()
    beamline.start_server()
    answer = beamline.answer(request)
    assert answer.code == ReasonCode.SERVICE_DOWN and "imported anew" in answer.message
    assert beamline.done(beamline.submit("line_scan", "samx", 0, 1, steps=2)).success
    assert len(beamline.replies(request, "request_response")) == 1
