"""Sentences for people and codes for programs, from whatever a device raises."""

from __future__ import annotations

import pytest

from bec_lib.errors import LimitError, ReasonCode
from device_server.failures import failure


class DisconnectedError(Exception):
    """As ophyd's, known by its name."""


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (RuntimeError("drive off"), "samx could not be read: drive off", ReasonCode.DEVICE_FAILED),
        (RuntimeError(""), "samx could not be read: RuntimeError", ReasonCode.DEVICE_FAILED),
        (RuntimeError("samx has\nno  power"), "samx has no power", ReasonCode.DEVICE_FAILED),
        (
            KeyError("image"),
            "samx could not be read: there is no 'image'",
            ReasonCode.DEVICE_FAILED,
        ),
        (
            DisconnectedError("gone"),
            "samx could not be read: DisconnectedError: gone",
            ReasonCode.NOT_CONNECTED,
        ),
        (TimeoutError("no answer in 3 s"), "samx could not be read: no answer in 3 s", ReasonCode.TIMEOUT),
        (
            ZeroDivisionError("division by zero"),
            "samx could not be read: ZeroDivisionError: division by zero",
            None,
        ),
        (LimitError("samx cannot move"), "samx cannot move", ReasonCode.LIMIT),
    ],
)
def test_one_sentence_with_device_what_and_why(
    error: Exception, sentence: str, code: ReasonCode | None
) -> None:
    info = failure(error, "samx", "be read")
    assert info.error_message == sentence
    assert info.code is (code or ReasonCode.DEVICE_FAILED)
    assert info.device == "samx"
    assert info.exception_type == type(error).__name__
    assert type(error).__name__ in info.traceback
