"""What has to hold while scans run: `bec.interlocks`, `bec.beamline_states`, `bec.builtin_actors.scan_interlock`.

    bec.interlocks.add("beam_current", "curr.curr < 100", clears_when="curr.curr > 120", settle_time=5)

The scan server owns all of it; here requests are made and shown. Printed, each is a table.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bec_lib.broker import Delivery
from bec_lib.codec import describe_validation
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, ParameterError, ReasonCode, error_for
from bec_lib.messages import (
    BeamlineStateMessage,
    BeamlineStateRequestMessage,
    BeamlineStatus,
    InterlockAction,
    InterlockConfig,
    InterlockPhase,
    InterlockRequestMessage,
    InterlocksMessage,
    InterlockState,
    InterlockStatusMessage,
    Message,
    RequestResponseMessage,
)
from bec_lib.states import BeamlineStateConfig

if TYPE_CHECKING:
    from bec_client.client import BECClient

ANSWER_S = 10.0
# How long a new beamline state may take to have a first value.
FIRST_VALUE_S = 5.0
# The interlock that BEC's `scan_interlock` is here.
SCAN_INTERLOCK = "scan_interlock"


def ask(
    client: BECClient, what: str, make: Callable[[str], Message], within_s: float = ANSWER_S
) -> RequestResponseMessage:
    """Send a request to the scan server and wait until it has taken it. Raises what it refuses."""
    client.service_status.require(["scan_server"], what)
    ticket = client.connection.ticket(what)
    client.connection.send(client.connection.queue_requests, make(ticket.request_id))
    client.connection.wait(ticket.answered, what, ["scan_server"], within_s)
    answer: RequestResponseMessage = ticket.answer
    if not answer.accepted:
        raise error_for(answer.code or ReasonCode.NOT_ALLOWED, answer.message or f"{what} was refused")
    return answer


class Interlocks:
    """The interlocks. Printed, they are a table."""

    def __init__(self, client: BECClient):
        self._client = client

    # Looking

    @property
    def definitions(self) -> dict[str, InterlockConfig]:
        """Name -> definition."""
        found = self._client.broker.entries(Endpoints.interlocks, count=1, newest=True)
        if not found or not isinstance(found[-1], Delivery):
            return {}
        message: InterlocksMessage = found[-1].message
        return dict(message.interlocks)

    @property
    def status(self) -> dict[str, InterlockState]:
        """Name -> phase (clear, waiting, tripped, settling, disabled), and why."""
        found = self._client.broker.get(Endpoints.interlock_status)
        if found is None:
            return {}
        message: InterlockStatusMessage = found.message
        return dict(message.interlocks)

    @property
    def tripped(self) -> dict[str, str]:
        """Name -> why, of those that are not clear."""
        calm = (InterlockPhase.CLEAR, InterlockPhase.DISABLED)
        return {name: state.why for name, state in self.status.items() if state.phase not in calm}

    def show(self) -> None:
        """Print the table."""
        from bec_client.tables import interlock_table, show

        show(interlock_table(self.definitions, self.status))

    def __contains__(self, name: object) -> bool:
        return name in self.definitions

    def __iter__(self) -> Iterator[str]:
        return iter(self.definitions)

    def __str__(self) -> str:
        from bec_client.tables import as_text, interlock_table

        return as_text(interlock_table(self.definitions, self.status))

    __repr__ = __str__

    # Changing

    def add(
        self,
        name: str,
        trips_when: str,
        *,
        clears_when: str = "",
        settle_time: float = 0.0,
        action: str | InterlockAction = InterlockAction.REPEAT,
        queues: Iterable[str] | str = (),
        message: str = "",
        enabled: bool = True,
    ) -> str:
        """Arm an interlock, or change the one of this name.

        trips_when: the condition under which scans are held, such as `curr.curr < 100`; clears_when: the one under
        which they go on, if not simply when it no longer trips. settle_time: seconds for which it must be clear before.
        action: "repeat" (the point in flight is taken again), "hold", "block" (no scan starts) or "alarm".
        queues: names; all if none is given. message: for people, in place of a sentence made from the condition.
        """
        try:
            config = InterlockConfig(
                name=name,
                trips_when=trips_when,
                clears_when=clears_when,
                settle_time_s=settle_time,
                action=InterlockAction(action) if isinstance(action, str) else action,
                queues=[queues] if isinstance(queues, str) else list(queues),
                message=message,
                enabled=enabled,
            )
        except ValidationError as error:
            raise ParameterError(f"the interlock cannot be defined: {describe_validation(error)}") from None
        except ValueError:
            near = difflib.get_close_matches(str(action), [a.value for a in InterlockAction], n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ParameterError(
                f"there is no action {action!r}; use repeat, hold, block or alarm.{hint}"
            ) from None
        return self._request("add an interlock", action="add", interlock=config)

    def remove(self, *names: str) -> str:
        """Take interlocks away; all of them if none is named."""
        return self._request("remove an interlock", action="remove", names=list(names))

    def enable(self, *names: str) -> str:
        """Look at interlocks again; all of them if none is named."""
        return self._request("enable an interlock", action="enable", names=list(names))

    def disable(self, *names: str) -> str:
        """Do not look at interlocks until they are enabled; all of them if none is named."""
        return self._request("disable an interlock", action="disable", names=list(names))

    def _request(self, what: str, **fields: Any) -> str:
        client = self._client
        return ask(
            client,
            what,
            lambda request_id: InterlockRequestMessage(
                request_id=request_id, client_id=client.client_id, **fields
            ),
        ).message


class BeamlineState:
    """One state: `bec.beamline_states.at_sample`."""

    def __init__(self, states: BeamlineStates, name: str):
        self._states = states
        self.name = name

    @property
    def message(self) -> BeamlineStateMessage:
        """The state as it was published last."""
        return self._states._named(self.name)

    def get(self) -> dict[str, str]:
        """{"status": valid, warning, invalid or unknown, "label": a sentence}."""
        message = self.message
        return {"status": message.status.value, "label": message.label}

    @property
    def status(self) -> BeamlineStatus:
        return self.message.status

    def update_parameters(self, **changes: Any) -> str:
        """Change some fields of its definition, e.g. update_parameters(low_limit=-2)."""
        return self._states._request("update", self.name, config=changes)

    def remove(self) -> str:
        return self._states.delete(self.name)

    def __repr__(self) -> str:
        found = self.get()
        return f"<beamline state {self.name}: {found['status']}, {found['label']}>"


class BeamlineStates:
    """The beamline states, each an attribute by its name. Printed, they are a table."""

    def __init__(self, client: BECClient):
        self._client = client

    def add(self, config: BeamlineStateConfig) -> BeamlineState:
        """Define a state, and wait until it has a first value.

        Raises DeadlineExceeded if it has none within 5 s; it stays defined, and unknown.
        """
        client = self._client
        cursor = client.broker.last_id(Endpoints.beamline_state_events)
        self._request("add", config.name, kind=config.kind, config=config.model_dump(mode="json"))
        end = client.connection.clock.monotonic() + FIRST_VALUE_S
        while True:
            if self._named(config.name).label != FIRST_LABEL:
                return BeamlineState(self, config.name)
            left = end - client.connection.clock.monotonic()
            if left <= 0:
                raise error_for(
                    ReasonCode.TIMEOUT,
                    f"the beamline state {config.name} had no value within {FIRST_VALUE_S:g} s; it stays defined, and is "
                    f"unknown until its signals ({', '.join(config.names())}) are read",
                )
            for item in client.broker.read({Endpoints.beamline_state_events: cursor}, block_s=left):
                cursor = item.entry_id

    def delete(self, name: str) -> str:
        """Take a state away."""
        return self._request("remove", name)

    remove = delete

    def show_all(self) -> None:
        """Print the table."""
        from bec_client.tables import beamline_state_table, show

        show(beamline_state_table(self.states))

    @property
    def states(self) -> dict[str, BeamlineStateMessage]:
        """Name -> state as it was published last."""
        found = self._client.broker.get(Endpoints.beamline_states)
        return dict(found.message.states) if found else {}

    @property
    def kinds(self) -> list[str]:
        """Kinds of states that can be defined."""
        found = self._client.broker.get(Endpoints.beamline_states)
        return list(found.message.kinds) if found else []

    def _named(self, name: str) -> BeamlineStateMessage:
        states = self.states
        if name not in states:
            near = difflib.get_close_matches(name, states, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BECError(
                f"there is no beamline state {name!r}.{hint} There are: {', '.join(states) or 'none'}.",
                code=ReasonCode.NOT_FOUND,
            )
        return states[name]

    def _request(self, action: str, name: str, **fields: Any) -> str:
        client = self._client
        return ask(
            client,
            f"{action} a beamline state",
            lambda request_id: BeamlineStateRequestMessage(
                request_id=request_id,
                client_id=client.client_id,
                action=action,  # type: ignore[arg-type]
                name=name,
                **fields,
            ),
        ).message

    def __getattr__(self, name: str) -> BeamlineState:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self.states:
            raise AttributeError(
                f"there is no beamline state {name!r}; there are: {', '.join(self.states) or 'none'}"
            )
        return BeamlineState(self, name)

    def __getitem__(self, name: str) -> BeamlineState:
        self._named(name)
        return BeamlineState(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.states})

    def __str__(self) -> str:
        from bec_client.tables import as_text, beamline_state_table

        return as_text(beamline_state_table(self.states))

    __repr__ = __str__


class ScanInterlock:
    """BEC's scan interlock: scans are held while a watched beamline state has another status than it should. Here it is
    the interlock `scan_interlock`, whose condition is made of the states.
    """

    def __init__(self, client: BECClient):
        self._client = client

    @property
    def enabled(self) -> bool:
        found = self._client.interlocks.definitions.get(SCAN_INTERLOCK)
        return found is not None and found.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        interlocks = self._client.interlocks
        if SCAN_INTERLOCK not in interlocks.definitions:
            raise ParameterError(
                "the scan interlock watches no state yet; add one with "
                'bec.builtin_actors.scan_interlock.add_state_to_interlock("name", "valid")'
            )
        interlocks.enable(SCAN_INTERLOCK) if value else interlocks.disable(SCAN_INTERLOCK)

    @property
    def trigger_setting(self) -> str:
        """What it does when it trips: "repeat", "hold", "block" or "alarm"."""
        found = self._client.interlocks.definitions.get(SCAN_INTERLOCK)
        return (found.action if found else InterlockAction.REPEAT).value

    @trigger_setting.setter
    def trigger_setting(self, value: str) -> None:
        # BEC's own words for the same.
        action = {"restart_scan": "repeat", "pause": "hold", "lock": "block"}.get(value, value)
        self._define(self.states_watched, action=action)

    @property
    def states_watched(self) -> dict[str, list[str]]:
        """State -> statuses under which scans run."""
        found = self._client.interlocks.definitions.get(SCAN_INTERLOCK)
        return _watched(found.trips_when) if found else {}

    def add_state_to_interlock(
        self, state: str | BeamlineState, status: str | Iterable[str] = BeamlineStatus.VALID
    ) -> None:
        """Hold scans while this state has none of these statuses."""
        name = state if isinstance(state, str) else state.name
        wanted = [status] if isinstance(status, str) else list(status)
        for word in wanted:
            if word not in list(BeamlineStatus):
                raise ParameterError(f"there is no status {word!r}; use valid, warning, invalid or unknown")
        self._define({**self.states_watched, name: [str(BeamlineStatus(word).value) for word in wanted]})

    def remove_state_from_interlock(self, state: str | BeamlineState) -> None:
        name = state if isinstance(state, str) else state.name
        watched = self.states_watched
        if name not in watched:
            raise ParameterError(
                f"the scan interlock does not watch {name!r}; it watches: {', '.join(watched) or 'nothing'}"
            )
        del watched[name]
        self._define(watched)

    def clear_all(self) -> None:
        """Watch nothing any more."""
        if SCAN_INTERLOCK in self._client.interlocks.definitions:
            self._client.interlocks.remove(SCAN_INTERLOCK)

    def _define(self, watched: Mapping[str, list[str]], action: str | None = None) -> None:
        interlocks = self._client.interlocks
        known = interlocks.definitions.get(SCAN_INTERLOCK)
        if not watched:
            self.clear_all()
            return
        parts = [f"states.{name} not in ({', '.join(map(repr, s))},)" for name, s in watched.items()]
        interlocks.add(
            SCAN_INTERLOCK,
            " or ".join(parts),
            action=action or self.trigger_setting,
            settle_time=known.settle_time_s if known else 0.0,
            queues=known.queues if known else (),
            enabled=known.enabled if known else True,
        )

    def __repr__(self) -> str:
        state = "enabled" if self.enabled else "disabled"
        shown = ", ".join(f"{name}: {' or '.join(s)}" for name, s in self.states_watched.items())
        return f"<scan interlock, {state}, {self.trigger_setting}; {shown or 'watches nothing'}>"


class BuiltinActors:
    """`bec.builtin_actors`, under the name that BEC's users know."""

    def __init__(self, client: BECClient):
        self.scan_interlock = ScanInterlock(client)


FIRST_LABEL = "not looked at yet"


def _watched(condition: str) -> dict[str, list[str]]:
    """The states in a condition that `ScanInterlock` has made."""
    import ast

    found: dict[str, list[str]] = {}
    tree = ast.parse(condition, mode="eval").body
    for part in tree.values if isinstance(tree, ast.BoolOp) else [tree]:
        match part:
            case ast.Compare(left=ast.Attribute(attr=name), comparators=[ast.Tuple(elts=items)]):
                found[name] = [item.value for item in items if isinstance(item, ast.Constant)]  # type: ignore[misc]
    return found
