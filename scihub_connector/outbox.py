"""The outbox of one target: what to send next, when to try again, when to give up on an entry.

The streams are the outbox; this holds the few entries that are next. The place in the streams moves on only
when the target has taken an entry, or when an entry was given up. Time is an argument; nothing is sent here.

| State                    | Event                   | Next                                                         |
|--------------------------|-------------------------|--------------------------------------------------------------|
| closed                   |                         | Open; refused or unavailable: again after a pause            |
| open, something pending  |                         | Send the oldest, up to `batch`                               |
| in flight                | succeeded               | Advance; batch back to full size                             |
| in flight                | unavailable             | the same again after a pause that doubles, up to MAX_PAUSE_S |
| in flight, several       | refused                 | the first half of them at once, to find the guilty one       |
| in flight, one           | refused                 | Advance past it, alarm: it is given up                       |

An outage is told once (ALARM_AFTER failures in a row), and its end once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bec_lib.messages import Message

BATCH = 200
# Above it nothing more is taken in; what follows stays in the streams.
FULL = 1000
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
ALARM_AFTER = 2


@dataclass(frozen=True)
class Entry:
    """A message in its place. stream: the endpoint's key. sent: seconds UTC, by the sender's clock."""

    stream: str
    entry_id: str
    message: Message
    sent: float = 0.0


@dataclass(frozen=True)
class Open:
    """Connect to the target and ask for its place."""


@dataclass(frozen=True)
class Send:
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Advance:
    """The target has these places now: stream -> entry id."""

    cursors: dict[str, str]


@dataclass(frozen=True)
class Alarm:
    """Tell people."""

    message: str


@dataclass(frozen=True)
class Recovered:
    """What was told to be out of reach works again."""


Effect = Advance | Alarm | Recovered


@dataclass(frozen=True)
class Outbox:
    """name: of the target, for messages. in_flight: how many of the first pending entries are being sent, or
    with `is_open` False 1 while connecting.
    """

    name: str
    pending: tuple[Entry, ...] = ()
    is_open: bool = False
    in_flight: int = 0
    batch: int = BATCH
    failures: int = 0
    retry_at: float | None = None
    problem: str = ""
    alarmed: bool = field(default=False)

    @property
    def is_full(self) -> bool:
        return len(self.pending) >= FULL


def received(outbox: Outbox, entries: Sequence[Entry]) -> Outbox:
    """More to send, in order."""
    return replace(outbox, pending=(*outbox.pending, *entries)) if entries else outbox


def next_action(outbox: Outbox, now: float) -> tuple[Outbox, Open | Send | None]:
    """What to do now, if anything."""
    if outbox.in_flight or (outbox.retry_at is not None and now < outbox.retry_at):
        return outbox, None
    if not outbox.is_open:
        return replace(outbox, in_flight=1, retry_at=None), Open()
    entries = outbox.pending[: outbox.batch]
    if not entries:
        return replace(outbox, retry_at=None), None
    return replace(outbox, in_flight=len(entries), retry_at=None), Send(entries)


def deadline(outbox: Outbox) -> float | None:
    """When `next_action` is wanted if nothing happens."""
    return outbox.retry_at


def opened(outbox: Outbox) -> tuple[Outbox, list[Effect]]:
    """The target is connected. That it takes something has yet to be seen, unless nothing was wrong."""
    return _recovered(replace(outbox, is_open=True, in_flight=0))


def succeeded(outbox: Outbox) -> tuple[Outbox, list[Effect]]:
    """The target has taken what was in flight, for good."""
    taken = outbox.pending[: outbox.in_flight]
    outbox = replace(outbox, pending=outbox.pending[outbox.in_flight :], in_flight=0, batch=BATCH)
    outbox, effects = _recovered(outbox)
    return outbox, [_advance(taken), *effects]


def unavailable(outbox: Outbox, now: float, problem: str) -> tuple[Outbox, list[Effect]]:
    """The target cannot be reached, or cannot work; nothing of it is any entry's fault."""
    failures = outbox.failures + 1
    pause = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20), MAX_PAUSE_S)
    tell = failures >= ALARM_AFTER and not outbox.alarmed
    outbox = replace(
        outbox,
        in_flight=0,
        failures=failures,
        retry_at=now + pause,
        problem=problem,
        alarmed=outbox.alarmed or tell,
    )
    alarm = Alarm(f"{problem} Nothing is lost: it is tried again until it works.")
    return outbox, [alarm] if tell else []


def refused(outbox: Outbox, problem: str) -> tuple[Outbox, list[Effect]]:
    """The target works and does not want what was in flight."""
    if outbox.in_flight > 1:
        return replace(outbox, batch=outbox.in_flight // 2, in_flight=0), []
    taken = outbox.pending[:1]
    (entry,) = taken
    alarm = Alarm(
        f"The {outbox.name} refuses a {type(entry.message).msg_type} message and goes on without it "
        f"({entry.stream}, entry {entry.entry_id}): {problem}"
    )
    outbox = replace(outbox, pending=outbox.pending[1:], in_flight=0)
    return outbox, [_advance(taken), alarm]


def _recovered(outbox: Outbox) -> tuple[Outbox, list[Effect]]:
    effects: list[Effect] = [Recovered()] if outbox.alarmed else []
    return replace(outbox, failures=0, retry_at=None, problem="", alarmed=False), effects


def _advance(entries: Sequence[Entry]) -> Advance:
    return Advance({entry.stream: entry.entry_id for entry in entries})
