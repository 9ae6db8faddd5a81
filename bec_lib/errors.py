"""What can go wrong, by name: reason codes for programs, exceptions for Python, `ErrorInfo` for the wire.

A message to a person says what, where, the numbers with units, and the way out. The reason code is what a
program may branch on; codes are never renamed within a major version.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar


class ReasonCode(StrEnum):
    """Why something was refused or failed, as seen on the wire."""

    INTERNAL = "internal"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    UNKNOWN_SCAN = "unknown_scan"
    UNKNOWN_DEVICE = "unknown_device"
    UNKNOWN_QUEUE = "unknown_queue"
    INVALID_ARGUMENT = "invalid_argument"
    LIMIT = "limit"
    NOT_ALLOWED = "not_allowed"
    DEVICE_OWNED = "device_owned"
    DEVICE_DISABLED = "device_disabled"
    DEVICE_FAILED = "device_failed"
    NOT_CONNECTED = "not_connected"
    CONFIG = "config"
    WRONG_STATE = "wrong_state"
    STOPPED = "stopped"
    ABORTED = "aborted"
    HALTED = "halted"
    TIMEOUT = "timeout"
    BROKER = "broker"
    FENCED = "fenced"
    ALREADY_RUNNING = "already_running"
    STORAGE = "storage"
    SERVICE_DOWN = "service_down"
    TOO_LARGE = "too_large"


class BECError(Exception):
    """Root of everything this system raises on purpose. `str()` is the sentence for the user."""

    code: ClassVar[ReasonCode] = ReasonCode.INTERNAL

    def __init__(
        self, message: str, *, code: ReasonCode | None = None, device: str | None = None, details: str = ""
    ):
        super().__init__(message)
        self.message = message
        self.reason = code or type(self).code
        self.device = device
        self.details = details


class MessageError(BECError):
    """Bytes or a message that do not follow the wire format. body: the fields, as far as they could be read."""

    code = ReasonCode.MALFORMED

    def __init__(self, message: str, **kwargs: Any):
        super().__init__(message, **kwargs)
        self.body: dict[str, Any] = {}


class UnsupportedMessage(MessageError):
    """A message type or version that this release does not know."""

    code = ReasonCode.UNSUPPORTED


class MessageTooLarge(MessageError):
    """An array or a message above the limit for Redis; large arrays belong into files."""

    code = ReasonCode.TOO_LARGE


class EndpointError(BECError):
    """An endpoint used in a way that its declaration does not allow. A mistake in the program."""

    code = ReasonCode.NOT_ALLOWED


class BrokerError(BECError):
    """Redis cannot be reached, refuses the log-in, or refuses a command."""

    code = ReasonCode.BROKER


class Fenced(BECError):
    """A newer instance holds the lease; nothing of the batch was written."""

    code = ReasonCode.FENCED


class StreamConflict(BECError):
    """A stream is not where the batch expected it; nothing of the batch was written."""

    code = ReasonCode.WRONG_STATE


class AlreadyRunning(BECError):
    """Another living instance has the role."""

    code = ReasonCode.ALREADY_RUNNING


class ConfigError(BECError):
    """A service or device configuration that cannot be used; lists all its problems."""

    code = ReasonCode.CONFIG


class ParameterError(BECError):
    """Arguments of a scan or a call that do not fit its signature."""

    code = ReasonCode.INVALID_ARGUMENT


class LimitError(ParameterError):
    """Targets outside of a device's limits; lists all of them."""

    code = ReasonCode.LIMIT


class PluginError(BECError):
    """An entry point that cannot be loaded."""

    code = ReasonCode.CONFIG


class DeviceError(BECError):
    """A device refused or failed."""

    code = ReasonCode.DEVICE_FAILED


class UnknownDevice(DeviceError):
    """No device of that name in the session."""

    code = ReasonCode.UNKNOWN_DEVICE


class RequestRejected(BECError):
    """The scan server refused a request; `reason` tells the code."""

    code = ReasonCode.NOT_ALLOWED


class ScanFailed(BECError):
    """A scan ended before its last point because something failed."""

    code = ReasonCode.ABORTED


class ScanAborted(ScanFailed):
    """A scan was ended on a user's command."""

    code = ReasonCode.ABORTED


class StorageError(BECError):
    """A file or folder that cannot be written or read."""

    code = ReasonCode.STORAGE


class DeadlineExceeded(BECError, TimeoutError):
    """Something was not done when its deadline passed; names who was asked and what it was doing."""

    code = ReasonCode.TIMEOUT


class ServiceDown(BECError):
    """A service that is needed is not running; names it."""

    code = ReasonCode.SERVICE_DOWN


_BY_CODE: dict[ReasonCode, type[BECError]] = {
    ReasonCode.LIMIT: LimitError,
    ReasonCode.INVALID_ARGUMENT: ParameterError,
    ReasonCode.CONFIG: ConfigError,
    ReasonCode.UNKNOWN_DEVICE: UnknownDevice,
    ReasonCode.DEVICE_FAILED: DeviceError,
    ReasonCode.DEVICE_OWNED: DeviceError,
    ReasonCode.DEVICE_DISABLED: DeviceError,
    ReasonCode.NOT_CONNECTED: DeviceError,
    ReasonCode.STORAGE: StorageError,
    ReasonCode.TIMEOUT: DeadlineExceeded,
    ReasonCode.SERVICE_DOWN: ServiceDown,
    ReasonCode.ABORTED: ScanAborted,
    ReasonCode.HALTED: ScanAborted,
}


def error_for(code: ReasonCode, message: str, *, device: str | None = None, details: str = "") -> BECError:
    """The exception that a client raises for a reason code received over the wire."""
    kind = _BY_CODE.get(code, RequestRejected)
    return kind(message, code=code, device=device, details=details)
