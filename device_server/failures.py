"""Why did it fail, in one sentence? Exceptions of devices and of this system as `ErrorInfo`.

The sentence names the device, what was asked and why it failed; the traceback goes beside it, for the log.
"""

from __future__ import annotations

import traceback

from bec_lib.errors import BECError, ReasonCode
from bec_lib.messages import ErrorInfo

# Exceptions of device libraries by class name: this module knows none of the libraries.
_CODES = {
    "LimitError": ReasonCode.LIMIT,
    "ReadOnlyError": ReasonCode.NOT_ALLOWED,
    "DisconnectedError": ReasonCode.NOT_CONNECTED,
    "StatusTimeoutError": ReasonCode.TIMEOUT,
    "WaitTimeoutError": ReasonCode.TIMEOUT,
    "TimeoutError": ReasonCode.TIMEOUT,
    "MoveStopped": ReasonCode.STOPPED,
    "ValueError": ReasonCode.INVALID_ARGUMENT,
    "TypeError": ReasonCode.INVALID_ARGUMENT,
}


def code_for(error: BaseException) -> ReasonCode:
    """The reason code of an exception, by its class or one of its bases."""
    if isinstance(error, BECError):
        return error.reason
    for kind in type(error).__mro__:
        if kind.__name__ in _CODES:
            return _CODES[kind.__name__]
    return ReasonCode.DEVICE_FAILED


def failure(error: BaseException, device: str | None, doing: str) -> ErrorInfo:
    """What travels. doing: a verb with its object that fits behind the device's name, e.g. "be read"."""
    return ErrorInfo(
        error_message=sentence(error, device, doing),
        code=code_for(error),
        exception_type=type(error).__name__,
        device=device or getattr(error, "device", None),
        traceback="".join(traceback.format_exception(error)),
    )


def sentence(error: BaseException, device: str | None, doing: str) -> str:
    """One sentence. A message that already names the device is taken as it is."""
    text = " ".join(str(error).split())
    if isinstance(error, BECError) and text:
        return text
    if isinstance(error, KeyError) and text:
        text = f"there is no {text}"
    if not text:
        text = type(error).__name__
    elif type(error) not in (RuntimeError, ValueError, TimeoutError) and _is_bare(text):
        text = f"{type(error).__name__}: {text}"
    if device and text.startswith((f"{device} ", f"{device}.", f"{device}_")):
        return text
    return f"{device} could not {doing}: {text}" if device else text


def _is_bare(text: str) -> bool:
    """Too short to be understood without the exception's name."""
    return len(text.split()) < 4
