"""The device session changes everywhere or nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from bec_lib.errors import ReasonCode
from bec_lib.messages import (
    CommitSession,
    ConfigAction,
    DeviceConfigMessage,
    DeviceInstructionResponse,
    DeviceSessionMessage,
    ErrorInfo,
    InstructionStatus,
    RollbackSession,
)
from scan_server import session as s
from scan_server.guard import Rejected


def raw(**more: Any) -> dict[str, Any]:
    return {"deviceClass": "a.B", "enabled": True, "readoutPriority": "baseline", **more}


CURRENT = DeviceSessionMessage(
    version=4, devices={"a": raw(), "b": raw(deviceServer="far"), "c": raw(needs=["a"])}, failed={"c": "dead"}
)


def planned(action: ConfigAction, devices: dict[str, Any] | None = None) -> s.Change | Rejected:
    request = DeviceConfigMessage(request_id="r", client_id="k", action=action, devices=devices or {})
    return s.plan_change(request, CURRENT, ["main", "far"], user="ada", now=5.0)


def change(action: ConfigAction, devices: dict[str, Any] | None = None) -> s.Change:
    made = planned(action, devices)
    assert isinstance(made, s.Change), made
    return made


def reply(
    result: Any = None, status: InstructionStatus = InstructionStatus.COMPLETED
) -> DeviceInstructionResponse:
    error = None if status is InstructionStatus.COMPLETED else ErrorInfo(error_message="no room")
    return DeviceInstructionResponse(instruction_id="i", status=status, result=result, error=error)


def test_a_new_session_goes_to_all_servers_then_into_force() -> None:
    made = change(ConfigAction.SET, {"x": raw(), "y": raw(deviceServer="far")})
    assert {server: list(action.devices) for server, action in made.prepare.items()} == {
        "main": ["x"],
        "far": ["y"],
    }
    assert all(action.replace for action in made.prepare.values())
    made = s.take_reply(made, "main", reply({"ready": ["x"], "failed": {}}))
    assert made.stage is s.Stage.PREPARING
    made = s.take_reply(made, "far", reply({"ready": [], "failed": {"y": "no answer"}}))
    assert made.stage is s.Stage.COMMITTING
    assert s.actions(made) == {"main": CommitSession(version=5), "far": CommitSession(version=5)}
    made = s.take_reply(s.take_reply(made, "main", reply()), "far", reply())
    assert made.stage is s.Stage.DONE
    assert made.result == {"version": 5, "loaded": ["x"], "failed": {"y": "no answer"}, "kept": {}}
    assert (made.session.user, made.session.timestamp) == ("ada", 5.0) and made.session.hash


@pytest.mark.parametrize("status", [InstructionStatus.ERROR, InstructionStatus.STOPPED])
def test_one_server_that_cannot_rolls_all_back(status: InstructionStatus) -> None:
    made = s.take_reply(change(ConfigAction.SET, {"x": raw()}), "far", reply(status=status))
    assert made.stage is s.Stage.REFUSED and "far could not take the configuration: no room" in made.problem
    assert set(s.actions(made)) == {"main", "far"}
    assert all(isinstance(action, RollbackSession) for action in s.actions(made).values())


def test_a_server_that_was_just_starting_is_asked_again() -> None:
    down = DeviceInstructionResponse(
        instruction_id="i",
        status=InstructionStatus.STOPPED,
        error=ErrorInfo(error_message="started anew", code=ReasonCode.SERVICE_DOWN),
    )
    assert s.was_lost(down)
    nothing = ErrorInfo(error_message="nothing is prepared", code=ReasonCode.WRONG_STATE)
    assert s.was_lost(down.model_copy(update={"status": InstructionStatus.ERROR, "error": nothing}))
    assert not s.was_lost(reply(status=InstructionStatus.STOPPED))
    assert not s.was_lost(reply())


def test_an_update_merges_fields_and_builds_only_what_changed() -> None:
    made = change(ConfigAction.UPDATE, {"b": {"readOnly": True}})
    assert made.session.devices["b"]["readOnly"] is True and made.session.devices["b"]["deviceClass"] == "a.B"
    assert list(made.prepare) == ["far"] and list(made.prepare["far"].devices) == ["b"]
    assert not made.prepare["far"].replace
    assert made.session.failed == {"c": "dead"}


def test_what_failed_and_needs_a_changed_device_is_tried_again() -> None:
    made = change(ConfigAction.UPDATE, {"a": {"readOnly": True}})
    assert list(made.prepare["main"].devices) == ["a", "c"] and made.session.failed == {}


def test_a_reload_builds_anew_what_is_named_or_everything() -> None:
    made = change(ConfigAction.RELOAD, {"a": {}})
    assert list(made.steps[0]) == ["main"] and not made.prepare["main"].replace
    assert list(made.prepare["main"].devices) == ["a", "c"] and made.prepare["main"].rebuild == ["a"]
    made = change(ConfigAction.RELOAD)
    assert {server: action.rebuild for server, action in made.prepare.items()} == {
        "main": ["a", "c"],
        "far": ["b"],
    }
    assert made.session.devices == CURRENT.devices or set(made.session.devices) == set(CURRENT.devices)
    kept = {"ready": ["a", "c"], "failed": {}, "kept": {"a": "a stays as it was: no licence"}}
    made = s.take_reply(s.take_reply(made, "main", reply(kept)), "far", reply({"ready": ["b"]}))
    assert made.result["kept"] == {"a": "a stays as it was: no licence"} and made.session.failed == {}
    request = DeviceConfigMessage(
        request_id="r", client_id="k", action=ConfigAction.SET, devices={"x": raw()}, rebuild=True
    )
    forced = s.plan_change(request, CURRENT, ["main", "far"], user="ada", now=5.0)
    assert isinstance(forced, s.Change) and forced.prepare["main"].rebuild == ["x"]


CHAIN = {
    "z": raw(needs=["y", "w"]),
    "y": raw(needs=["x"], deviceServer="far"),
    "x": raw(),
    "w": raw(needs=["z2"]),
    "z2": raw(),
}


def test_what_needs_a_device_of_another_server_is_prepared_in_a_later_step() -> None:
    made = change(ConfigAction.SET, CHAIN)
    told = []
    answers = {"main": {"ready": ["x"], "failed": {}}, "far": {"ready": [], "failed": {}}}
    while made.stage is s.Stage.PREPARING:
        told.append(s.actions(made))
        for server in s.actions(made):
            made = s.take_reply(made, server, reply(answers[server]))
        answers["far"] = {"ready": [], "failed": {"y": "y needs x, which failed: dead"}}
        answers["main"] = {"ready": [], "failed": {"z": "z needs y, which failed: ..."}}
    first, second, third = told
    assert {server: list(action.devices) for server, action in first.items()} == {
        "main": ["x", "w", "z2"],
        "far": [],
    }
    assert [action.continues for action in first.values()] == [False, False]
    assert list(second) == ["far"] and list(second["far"].devices) == ["y"] and second["far"].continues
    assert second["far"].others == {"x": ""} and second["far"].replace
    assert list(third["main"].devices) == ["z"]
    assert third["main"].others == {"y": "y needs x, which failed: dead"}
    assert set(made.session.failed) == {"y", "z"}
    assert set(s.actions(made)) == {"main", "far"}
    # A server that was started anew meanwhile is told all that it has been told.
    assert list(made.prepare["main"].devices) == ["x", "w", "z2", "z"] and not made.prepare["main"].continues


def test_the_last_word_of_a_server_counts() -> None:
    current = DeviceSessionMessage(
        version=4,
        devices={"a": raw(needs=["b"]), "b": raw(deviceServer="far")},
        failed={"a": "a needs b, which failed: dead", "b": "dead"},
    )
    request = DeviceConfigMessage(
        request_id="r", client_id="k", action=ConfigAction.UPDATE, devices={"b": {"readOnly": True}}
    )
    made = s.plan_change(request, current, ["main", "far"], user="ada", now=5.0)
    assert isinstance(made, s.Change) and len(made.steps) == 2
    made = s.take_reply(made, "far", reply({"ready": ["b"], "failed": {}}))
    made = s.take_reply(made, "main", reply({"ready": [], "failed": {"a": "a needs b, which failed: dead"}}))
    assert s.actions(made)["main"].others == {"b": ""}
    made = s.take_reply(made, "main", reply({"ready": ["a"], "failed": {}}))
    assert made.session.failed == {} and made.stage is s.Stage.COMMITTING


def test_needs_in_a_circle_over_two_servers_are_refused() -> None:
    made = planned(ConfigAction.SET, {"x": raw(needs=["y"]), "y": raw(needs=["x"], deviceServer="far")})
    assert isinstance(made, Rejected) and "needs itself" in made.message


def test_a_device_that_moves_to_another_server_is_removed_from_the_first() -> None:
    made = change(ConfigAction.UPDATE, {"b": {"deviceServer": "main"}})
    assert list(made.prepare["main"].devices) == ["b"] and made.prepare["far"].remove == ["b"]


def test_add_remove_reset_reload() -> None:
    assert set(change(ConfigAction.ADD, {"n": raw()}).session.devices) == {"a", "b", "c", "n"}
    made = change(ConfigAction.REMOVE, {"c": {}})
    assert set(made.session.devices) == {"a", "b"} and made.session.failed == {}
    assert made.prepare["main"].remove == ["c"]
    assert change(ConfigAction.RESET).session.devices == {}
    assert list(change(ConfigAction.RELOAD).prepare["main"].devices) == ["a", "c"]


@pytest.mark.parametrize(
    ("action", "devices", "text"),
    [
        (ConfigAction.UPDATE, {"aa": {}}, "no device 'aa'"),
        (ConfigAction.REMOVE, {"zz": {}}, "no device 'zz'"),
        (ConfigAction.REMOVE, {"a": {}}, "needs 'a'"),
        (ConfigAction.ADD, {"a": raw()}, "in the session already"),
        (ConfigAction.SET, {"x": {"deviceClass": "a.B"}}, "readoutPriority"),
        (ConfigAction.SET, {"x": raw(deviceServer="moon")}, "'moon'"),
    ],
)
def test_what_makes_no_session_is_refused_before_any_server_hears_of_it(
    action: ConfigAction, devices: dict[str, Any], text: str
) -> None:
    made = planned(action, devices)
    assert isinstance(made, Rejected) and made.code is ReasonCode.CONFIG and text in made.message
