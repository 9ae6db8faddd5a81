"""What every message has in common, and the registry by which the codec finds a message's class.

A message is a frozen pydantic model. Who sent it and when is not in the message but in the `Envelope` around
it. Unknown fields are ignored on reading, so that old and new services run side by side; fields are added,
never changed, within a protocol version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from bec_lib.errors import ReasonCode

REGISTRY: dict[str, type[Message]] = {}


class Part(BaseModel):
    """A record inside a message."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


class Message(Part):
    """Root of all messages. A subclass names itself by `msg_type`, which is what stands on the wire."""

    msg_type: ClassVar[str] = ""
    # Arrays above this size belong into files; the codec refuses them.
    max_array_bytes: ClassVar[int] = 65_536

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.msg_type:
            raise TypeError(f"{cls.__name__} does not name its msg_type")
        if REGISTRY.setdefault(cls.msg_type, cls) is not cls:
            raise TypeError(f"two message classes are called {cls.msg_type}")


class ErrorInfo(Part):
    """A failure as it travels: the code for programs, one sentence for people, the traceback for the log.

    Constructible with BEC's field names, so that device classes written for it can raise it.
    """

    error_message: str
    code: ReasonCode = ReasonCode.INTERNAL
    exception_type: str = ""
    device: str | None = None
    compact_error_message: str | None = None
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who said it, and when.

    service, instance: role and process of the sender. epoch: of its lease, 0 without one.
    user, account: empty for services. sent: seconds since 1970 UTC by the sender's clock. signature:
    reserved.
    """

    version: int
    msg_type: str
    message_id: str
    service: str
    instance: str
    epoch: int
    user: str
    account: str
    sent: float
    signature: bytes | None = None
