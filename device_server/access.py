"""What may a client do with a device? Generic verbs, and what the device's class lists in USER_ACCESS.

Says whether a call is permitted and whether it only reads, moves or configures, or stops. Calls nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bec_lib.errors import DeviceError, ReasonCode


class Effect(StrEnum):
    """What a call does to a device. Reads pass whoever owns it, stops are always permitted."""

    READ = "read"
    WRITE = "write"
    STOP = "stop"


# On every device, and on every signal and sub-device below it.
READ_VERBS = frozenset(
    {
        "read",
        "get",
        "read_configuration",
        "describe",
        "describe_configuration",
        "limits",
        "low_limit",
        "high_limit",
        "position",
        "egu",
        "value",
        "hints",
        "kind",
        "name",
        "connected",
        "moving",
        "timestamp",
        "enum_strs",
        "precision",
        "report",
    }
)
WRITE_VERBS = frozenset(
    {
        "set",
        "put",
        "move",
        "trigger",
        "stage",
        "unstage",
        "kickoff",
        "complete",
        "pre_scan",
        "configure",
    }
)
# Properties among the generic verbs that may be assigned.
ASSIGNABLE = frozenset({"limits", "low_limit", "high_limit"})


@dataclass(frozen=True)
class Call:
    """A permitted call. path: attributes to follow below the device; verb: the last of them; assign: it is set."""

    path: tuple[str, ...]
    verb: str
    effect: Effect
    assign: bool = False


def permitted(
    device: str,
    func: str,
    *,
    assign: bool,
    user_access: Sequence[str],
    components: Collection[str],
    methods: Collection[str],
) -> Call:
    """Check a call.

    func: dotted name below the device. components: dotted names of all signals and sub-devices. methods: those of
    `user_access` that are callable (others are properties, whose reading is harmless).
    Raises DeviceError that lists what is allowed.
    """
    parts = func.split(".")
    if not all(part.isidentifier() for part in parts) or any(part.startswith("_") for part in parts):
        raise _refused(device, func, user_access)
    above, verb = ".".join(parts[:-1]), parts[-1]
    if not above or above in components or _under(above, user_access):
        if verb in READ_VERBS:
            if not assign:
                return Call(tuple(parts[:-1]), verb, Effect.READ)
            if verb in ASSIGNABLE:
                return Call(tuple(parts[:-1]), verb, Effect.WRITE, assign=True)
        elif verb == "stop" and not assign:
            return Call(tuple(parts[:-1]), verb, Effect.STOP)
        elif verb in WRITE_VERBS and not assign:
            return Call(tuple(parts[:-1]), verb, Effect.WRITE)
    if _under(func, user_access):
        reads = not assign and func not in methods
        return Call(tuple(parts[:-1]), verb, Effect.READ if reads else Effect.WRITE, assign=assign)
    raise _refused(device, func, user_access)


def _under(name: str, user_access: Sequence[str]) -> bool:
    """Whether USER_ACCESS lists this dotted name."""
    return name in user_access


def _refused(device: str, func: str, user_access: Sequence[str]) -> DeviceError:
    listed = ", ".join(sorted(user_access)) or "nothing"
    return DeviceError(
        f"{device}.{func} is not open to clients; beside what every device has (read, get, set, stop ...), its class opens "
        f"{listed} (USER_ACCESS)",
        code=ReasonCode.NOT_ALLOWED,
        device=device,
    )
