"""Whose code has ended the scan server, and what must not be run again? Pure.

A life of the scan server that ended otherwise than by its own will has left on record in which plugins' code it was
(`bec_lib.foreign`); how it ended the supervisor has told. What is decided:

| The life ended in | certain | not certain |
|---|---|---|
| the import of a plugin | the next start leaves it out | the same |
| working out a request that nobody has answered yet | refused | refused |
| a scan that is accepted: worked out again, a step, its clean-up | ended | ended at the third time at the same place |

*Certain* is what nobody else can have done: the process was in one plugin's code only, and was not simply killed. An exit
code, a fault of memory (SIGSEGV, SIGABRT), a kill by the supervisor because nothing was heard are the code's doing.
SIGKILL may come from anybody, so a scan must survive it; if it comes from a kernel that is out of memory, it comes again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bec_lib.foreign import IMPORTING, ForeignCall

# A scan in whose code the scan server was so often when it ended, at the same place, is ended.
TIMES = 3
# Of so many requests that are to be refused it is known.
_KEEP = 20


@dataclass(frozen=True)
class Life:
    """One that has ended. how: as the supervisor says, "killed by SIGSEGV"; empty if it did not say."""

    name: str
    how: str = ""
    calls: tuple[ForeignCall, ...] = ()

    @property
    def is_certain(self) -> bool:
        return len(self.calls) == 1 and bool(self.how) and not self.how.startswith("killed by SIGKILL")


@dataclass(frozen=True)
class Suspect:
    """A scan. ends: (life, where it was in its code); why: a sentence, if it is to be ended."""

    ends: tuple[tuple[str, int], ...] = ()
    why: str = ""

    def was(self, where: int) -> bool:
        """Has the scan server ever ended there?"""
        return any(place == where for _, place in self.ends)


@dataclass(frozen=True)
class Blame:
    """What is known of all ends so far, as far as it still matters. requests: id -> why it is refused."""

    scans: Mapping[str, Suspect] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)

    def why(self, scan_id: str) -> str:
        """Why this scan is to be ended; empty if it is not."""
        return self.scans[scan_id].why if scan_id in self.scans else ""

    def may(self, scan_id: str, where: int) -> bool:
        """May its code be run there? No, if the scan is to be ended and the scan server has once ended there."""
        suspect = self.scans.get(scan_id, Suspect())
        return not (suspect.why and suspect.was(where))


def blame(known: Blame, lives: Iterable[Life]) -> Blame:
    """After these lives, oldest first. One that is known already counts once."""
    scans, requests = dict(known.scans), dict(known.requests)
    for life in lives:
        for call in life.calls:
            if call.scan_id:
                scans[call.scan_id] = _after(scans.get(call.scan_id, Suspect()), life, call)
            elif call.request_id:
                requests[call.request_id] = sentence(life, call)
    return Blame(scans, dict(list(requests.items())[-_KEEP:]))


def not_to_import(lives: Iterable[Life]) -> dict[str, str]:
    """Plugin -> why it is not imported this time."""
    return {
        call.plugin: sentence(life, call) for life in lives for call in life.calls if call.where == IMPORTING
    }


def sentence(life: Life, call: ForeignCall) -> str:
    """For people: what happened, what follows, and where to look."""
    after = "it is left out" if call.where == IMPORTING else "it is not tried again"
    return (
        f"{end_in_words(life, call)}; {after}. Its author should look for what ends the process: os._exit, a crash in a "
        "C library, a call that never comes back, or too much memory"
    )


def end_in_words(life: Life, call: ForeignCall) -> str:
    """What happened."""
    how = f"was {life.how}" if life.how.startswith("killed") else life.how or "ended"
    return f"the scan server {how} while it ran the code of {call}"


def forget(known: Blame, *, scans: Collection[str] = (), requests: Collection[str] = ()) -> Blame:
    """Without what is over."""
    if not any(name in known.scans for name in scans) and not any(
        name in known.requests for name in requests
    ):
        return known
    return Blame(
        {name: suspect for name, suspect in known.scans.items() if name not in scans},
        {name: why for name, why in known.requests.items() if name not in requests},
    )


def to_plain(known: Blame) -> dict[str, Any]:
    """For the state in Redis; empty if there is nothing to say."""
    if not known.scans and not known.requests:
        return {}
    return {
        "scans": {name: [[list(end) for end in s.ends], s.why] for name, s in known.scans.items()},
        "requests": dict(known.requests),
    }


def from_plain(raw: Mapping[str, Any]) -> Blame:
    """Raises KeyError, TypeError or ValueError if it is none of ours."""
    if not raw:
        return Blame()
    scans = {
        str(name): Suspect(tuple((str(life), int(where)) for life, where in ends), str(why))
        for name, (ends, why) in raw["scans"].items()
    }
    return Blame(scans, {str(name): str(why) for name, why in raw["requests"].items()})


def _after(suspect: Suspect, life: Life, call: ForeignCall) -> Suspect:
    end = (life.name, call.where)
    if end in suspect.ends:
        return suspect
    ends = (*suspect.ends, end)
    at_the_same = sum(where == call.where for _, where in ends)
    is_it = life.is_certain or at_the_same >= TIMES
    return replace(suspect, ends=ends, why=suspect.why or (sentence(life, call) if is_it else ""))
