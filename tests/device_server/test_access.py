"""What clients may call, and what a call does."""

from __future__ import annotations

import pytest

from bec_lib.errors import DeviceError, ReasonCode
from device_server.access import Call, Effect, permitted

ACCESS = ("home", "position", "moving", "model", "controller.reset", "velocity")


def ask(func: str, *, assign: bool = False) -> Call:
    return permitted(
        "samx",
        func,
        assign=assign,
        user_access=ACCESS,
        components={"readback", "velocity", "stage", "stage.x"},
        methods={"home", "controller.reset"},
    )


@pytest.mark.parametrize(
    ("func", "effect"),
    [
        ("read", Effect.READ),
        ("get", Effect.READ),
        ("limits", Effect.READ),
        ("position", Effect.READ),
        ("velocity.get", Effect.READ),
        ("velocity", Effect.READ),
        ("stage.x.read", Effect.READ),
        ("model", Effect.READ),
        ("set", Effect.WRITE),
        ("velocity.put", Effect.WRITE),
        ("home", Effect.WRITE),
        ("controller.reset", Effect.WRITE),
        ("trigger", Effect.WRITE),
        ("stop", Effect.STOP),
        ("stage.x.stop", Effect.STOP),
    ],
)
def test_what_is_open_and_what_it_does(func: str, effect: Effect) -> None:
    call = ask(func)
    assert call.effect is effect
    assert ".".join((*call.path, call.verb)) == func


@pytest.mark.parametrize("func", ["limits", "low_limit", "high_limit", "model"])
def test_what_may_be_assigned_is_a_write(func: str) -> None:
    call = ask(func, assign=True)
    assert call.assign and call.effect is Effect.WRITE


@pytest.mark.parametrize(
    ("func", "assign"),
    [
        ("destroy", False),
        ("_private", False),
        ("__class__", False),
        ("controller", False),
        ("controller.reset.__func__", False),
        ("readback.subscribe", False),
        ("parent.read", False),
        ("nobody.read", False),
        ("read.__self__", False),
        ("", False),
        ("read()", False),
        ("read", True),
        ("set", True),
        ("name", True),
    ],
)
def test_what_is_not_open_is_refused_with_the_list_of_what_is(func: str, assign: bool) -> None:
    with pytest.raises(DeviceError) as caught:
        ask(func, assign=assign)
    assert caught.value.reason is ReasonCode.NOT_ALLOWED
    assert caught.value.device == "samx"
    for name in ("home", "controller.reset", "read", "set", "stop"):
        assert name in str(caught.value)
