"""How does the state of the queues survive, at a cost that does not grow with them? By what happened, written down.

Each turn appends its events to a log; the whole state is written only now and then, when the log has grown as long as
the queues are. The state after a restart is the last whole one, and the events after it applied once more. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bec_lib.messages import QueueAction
from scan_server import queue as q

# The whole state is written after so many events at least, and as many as there are items.
AT_LEAST = 200
_EVENTS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        q.Submitted,
        q.Commanded,
        q.Began,
        q.Ended,
        q.Asked,
        q.DevicesStopped,
        q.Configuring,
        q.Held,
        q.Expired,
    )
}
_READ: dict[str, Callable[[Any], Any]] = {
    "item": q.item_from_plain,
    "edited": lambda raw: None if raw is None else q.item_from_plain(raw),
    "action": QueueAction,
    "owned": tuple,
    "holds": q.holds_from_plain,
}


def is_logged(event: q.Event) -> bool:
    """Notes are of the moment; whoever made one makes it again."""
    return type(event).__name__ in _EVENTS


def event_to_plain(event: q.Event) -> list[Any]:
    """A name and facts, for a message."""
    facts = dict(vars(event))
    for key in ("item", "edited"):
        if facts.get(key) is not None:
            facts[key] = q.item_to_plain(facts[key])
    if "holds" in facts:
        facts["holds"] = q.holds_to_plain(facts["holds"])
    return [type(event).__name__, facts]


def event_from_plain(raw: Any) -> q.Event:
    """Raises KeyError, TypeError or ValueError if it is none of ours."""
    name, facts = raw
    kind = _EVENTS[name]
    made: q.Event = kind(**{key: _READ.get(key, _same)(value) for key, value in facts.items()})
    return made


def fold(state: q.State, events: Iterable[Any]) -> tuple[q.State, list[str]]:
    """The state after these events (as they were written), and what is wrong with those that cannot be read."""
    problems = []
    for raw in events:
        try:
            event = event_from_plain(raw)
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{str(raw)[:200]}: {type(error).__name__}: {error}")
            continue
        state, _ = q.reduce(state, event)
    return state, problems


def _same(value: Any) -> Any:
    return value
