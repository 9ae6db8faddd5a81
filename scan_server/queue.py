"""What happens to a queue when something happens? A pure reducer: (state, event) -> (state, effects).

Knows nothing of positions, devices' replies or Redis: the app works out requests before they come here, and carries
out the effects after the new state is written. Owner of the state: the scan server's main thread.

A queue holds items in order; at most the first one is active (RUNNING, PAUSED or STOPPING), all others are PENDING.

    event                    nothing active         active RUNNING           active PAUSED            active STOPPING
    Submitted                append, start          append                   append                   append
    pause, deferred_pause    queue PAUSED *         queue, item PAUSED +     refused                  refused
    pause_after_scan         queue PAUSED *         queue PAUSED *           refused                  queue PAUSED *
    continue                 queue RUNNING, start*  (queue PAUSED: RUNNING)  queue, item RUNNING +    queue RUNNING *
    abort, halt (active)     refused                STOPPING + hold          STOPPING + hold          halt +, else refused
    user_completed           refused                STOPPING +               STOPPING +               refused
    restart                  refused                copy next, STOPPING +    copy next, STOPPING +    refused
    abort, halt (pending)    cancel that item, whatever is active
    remove, move_*, edit     a pending item: cancel it, give it another place, give it another request; else refused
    clear                    cancel all pending items; and as abort, without hold
    lock, release_lock       no item starts while there is a lock; what is active goes on
    Held                     no scan starts while an interlock holds its queue; what is active is shown as held
    show                     answered with a part of the queue
    Asked                    -                      queue, item PAUSED       -                        -
    Ended                    -                      remove, start next       remove                   remove, start next

    *  refused if the queue is in that state already
    +  the worker is told
    hold: the queue is PAUSED if others are pending, until somebody continues it. A queue that runs empty is RUNNING,
    unless it was the queue that was paused, and not its item.

An item starts if its queue is RUNNING and without locks, no configuration change is under way, no active item of
another queue owns one of its devices, and no item that has waited longer waits for one of them.

Items are never looked through one by one but for a command that names one, so that an event costs the same however many
wait.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bec_lib.errors import ReasonCode
from bec_lib.messages import (
    ItemState,
    QueueAction,
    QueueItem,
    QueueSnapshot,
    QueueState,
    ScanQueueMessage,
    ScanQueueStatusMessage,
)
from scan_server.interlocks import Hold

PRIMARY = "primary"
# Of a queue, and of all queues together; a queue that has few is never full because of others.
MAX_ITEMS = 10_000
MAX_TOTAL = 30_000
FEW = 100
MAX_QUEUES = 50
# So many items of a queue are in its snapshot; the others can be asked for.
SHOWN = 20
# So many are in one answer.
MOST_SHOWN = 1000
STATE_VERSION = 1


@dataclass(frozen=True)
class Item:
    """A request in a queue. owned: devices that it moves or reads for itself. start: where its motors stood when it
    began. stopping: the command that ends it, empty if none does. sweeps: it is paused only when its device has arrived.
    """

    request: ScanQueueMessage
    scan_id: str
    user: str = ""
    submitted: float = 0.0
    is_scan: bool = True
    num_points: int | None = None
    estimated_s: float | None = None
    motors: tuple[str, ...] = ()
    owned: tuple[str, ...] = ()
    status: ItemState = ItemState.PENDING
    scan_number: int | None = None
    start: Mapping[str, float] = field(default_factory=dict)
    waiting_for: str = ""
    stopping: str = ""
    sweeps: bool = False

    @property
    def label(self) -> str:
        """For sentences: `scan 12 (line_scan)`, or `mv` where there is no number."""
        name = self.request.scan_type
        return f"scan {self.scan_number} ({name})" if self.scan_number is not None else name


@dataclass(frozen=True)
class Queue:
    """One queue. message: why it is in its state. note: what its worker has to say just now, shown in front of it.
    stays_paused: it is the queue that is paused, so that it stays so when it runs empty.
    """

    status: QueueState = QueueState.RUNNING
    items: tuple[Item, ...] = ()
    locks: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    note: str = ""
    stays_paused: bool = False

    @property
    def active(self) -> Item | None:
        return self.items[0] if self.items and self.items[0].status is not ItemState.PENDING else None

    @property
    def pending(self) -> tuple[Item, ...]:
        return self.items if self.active is None else self.items[1:]


@dataclass(frozen=True)
class State:
    """All queues. last_number: the last scan number given out. configuring: who changes the device session, empty if
    nobody does. holds: what tripped interlocks hold.
    """

    queues: Mapping[str, Queue] = field(default_factory=lambda: {PRIMARY: Queue()})
    last_number: int = 0
    configuring: str = ""
    holds: tuple[Hold, ...] = ()

    def held(self, queue: str, *, running: bool) -> dict[str, str]:
        """Interlock -> sentence, of those that hold a queue; running: that hold the scan that runs in it."""
        return {
            hold.interlock: hold.text
            for hold in self.holds
            if hold.applies_to(queue) and (hold.running or not running)
        }

    def find(self, scan_id: str) -> tuple[str, Item] | None:
        """Queue name and item. What is active is found at once."""
        for name, queue in self.queues.items():
            if queue.items and queue.items[0].scan_id == scan_id:
                return name, queue.items[0]
        for name, queue in self.queues.items():
            for item in queue.items:
                if item.scan_id == scan_id:
                    return name, item
        return None

    @property
    def active(self) -> list[Item]:
        return [queue.active for queue in self.queues.values() if queue.active is not None]

    @property
    def num_items(self) -> int:
        return sum(len(queue.items) for queue in self.queues.values())


# Events


@dataclass(frozen=True)
class Submitted:
    """A request that was checked and worked out."""

    queue: str
    item: Item


@dataclass(frozen=True)
class Commanded:
    """A client's command. new_scan_id: for the copy that a restart makes. edited: what an edit makes of the item, worked
    out.
    """

    request_id: str
    client_id: str
    user: str
    action: QueueAction
    queue: str = PRIMARY
    scan_id: str | None = None
    parameter: Mapping[str, Any] = field(default_factory=dict)
    new_scan_id: str = ""
    now: float = 0.0
    edited: Item | None = None


@dataclass(frozen=True)
class Began:
    """A started item was worked out anew, its motors stand at `start`."""

    scan_id: str
    start: Mapping[str, float]
    num_points: int | None = None
    owned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """The worker is done with an item, in whatever way."""

    scan_id: str


@dataclass(frozen=True)
class Asked:
    """An active item has paused itself, and waits for somebody to continue or abort it."""

    scan_id: str
    message: str


@dataclass(frozen=True)
class Noted:
    """The worker of a queue has something to say (or, with an empty message, has no more)."""

    queue: str
    message: str


@dataclass(frozen=True)
class DevicesStopped:
    """Somebody stopped all devices, past the scan server."""

    user: str


@dataclass(frozen=True)
class Configuring:
    """A change of the device session begins; who: for sentences. Empty: it is over."""

    who: str


@dataclass(frozen=True)
class Held:
    """What interlocks hold now. The workers are told by the app."""

    holds: tuple[Hold, ...]


@dataclass(frozen=True)
class Expired:
    """A queue has been empty for long."""

    queue: str


Event = Submitted | Commanded | Began | Ended | Asked | Noted | DevicesStopped | Configuring | Held | Expired

# Effects


@dataclass(frozen=True)
class Answer:
    """To the sender of a request or command. code None: accepted."""

    request_id: str
    client_id: str
    code: ReasonCode | None = None
    message: str = ""
    scan_id: str | None = None
    result: Any = None

    @property
    def accepted(self) -> bool:
        return self.code is None


@dataclass(frozen=True)
class Start:
    """Let the queue's worker run this item."""

    queue: str
    item: Item


@dataclass(frozen=True)
class Tell:
    """A command for the worker that runs the scan."""

    queue: str
    scan_id: str
    action: QueueAction
    user: str = ""
    message: str = ""


@dataclass(frozen=True)
class Cancelled:
    """An item was removed before it began; its sender is to be told."""

    item: Item
    message: str
    code: ReasonCode = ReasonCode.ABORTED


@dataclass(frozen=True)
class Dismiss:
    """The queue is gone; its worker is not needed."""

    queue: str


Effect = Answer | Start | Tell | Cancelled | Dismiss


def reduce(state: State, event: Event) -> tuple[State, list[Effect]]:
    """The next state, and what is to be done once it is written. The same state object if nothing changed."""
    match event:
        case Submitted():
            state, effects = _submitted(state, event)
        case Commanded():
            state, effects = _commanded(state, event)
        case Ended():
            state, effects = _ended(state, event), []
        case Began():
            state, effects = _began(state, event), []
        case Asked():
            state, effects = _asked(state, event), []
        case Noted():
            state, effects = _noted(state, event), []
        case DevicesStopped():
            state, effects = _devices_stopped(state, event)
        case Configuring():
            state, effects = replace(state, configuring=event.who), []
        case Held():
            state, effects = (state if event.holds == state.holds else replace(state, holds=event.holds)), []
        case Expired():
            state, effects = _expired(state, event)
    state, started = _start_what_can(state)
    return state, [*effects, *started]


def snapshot(state: State, revision: int = 0) -> ScanQueueStatusMessage:
    """The state as everybody sees it."""
    return ScanQueueStatusMessage(
        queues={
            name: _snapshot_of(state, name, queue, queue.items[:SHOWN])
            for name, queue in state.queues.items()
        },
        revision=revision,
    )


def to_plain(state: State) -> dict[str, Any]:
    """The state for `QueueStateMessage`; `from_plain` gives it back."""
    return {
        "version": STATE_VERSION,
        "last_number": state.last_number,
        "configuring": state.configuring,
        "holds": holds_to_plain(state.holds),
        "queues": {
            name: {
                "status": queue.status.value,
                "locks": dict(queue.locks),
                "message": queue.message,
                "stays_paused": queue.stays_paused,
                "items": [item_to_plain(item) for item in queue.items],
            }
            for name, queue in state.queues.items()
        },
    }


def from_plain(raw: Mapping[str, Any]) -> State:
    """The state as it was written."""
    queues = {
        name: Queue(
            status=QueueState(queue["status"]),
            locks=dict(queue["locks"]),
            message=queue["message"],
            stays_paused=bool(queue.get("stays_paused", False)),
            items=tuple(item_from_plain(item) for item in queue["items"]),
        )
        for name, queue in raw["queues"].items()
    }
    return State(
        queues={PRIMARY: Queue(), **queues},
        last_number=int(raw["last_number"]),
        configuring=str(raw.get("configuring", "")),
        holds=holds_from_plain(raw.get("holds", ())),
    )


def holds_to_plain(holds: Iterable[Hold]) -> list[dict[str, Any]]:
    return [{**vars(hold), "queues": list(hold.queues)} for hold in holds]


def holds_from_plain(raw: Iterable[Mapping[str, Any]]) -> tuple[Hold, ...]:
    return tuple(Hold(**{**hold, "queues": tuple(hold["queues"])}) for hold in raw)


def item_to_plain(item: Item) -> dict[str, Any]:
    return {
        **vars(item),
        "request": item.request.__dict__,
        "status": item.status.value,
        "start": dict(item.start),
    }


def item_from_plain(raw: Mapping[str, Any]) -> Item:
    return Item(
        **{
            **raw,
            "request": ScanQueueMessage.model_validate(raw["request"]),
            "status": ItemState(raw["status"]),
            "motors": tuple(raw["motors"]),
            "owned": tuple(raw["owned"]),
        }
    )


# Requests


def _submitted(state: State, event: Submitted) -> tuple[State, list[Effect]]:
    request = event.item.request
    queue = state.queues.get(event.queue)
    if queue is None:
        if len(state.queues) >= MAX_QUEUES:
            return state, [
                _refused(
                    event.item,
                    f"there are {MAX_QUEUES} queues already; use one of {', '.join(sorted(state.queues))}",
                )
            ]
        queue = Queue()
    count = len(queue.items)
    if count >= MAX_ITEMS or (count >= FEW and state.num_items >= MAX_TOTAL):
        where = f"the queue {event.queue} is full" if count >= MAX_ITEMS else "the queues are full"
        told = f"{where} with {count if count >= MAX_ITEMS else state.num_items} requests"
        return state, [_refused(event.item, f"{told}; wait for some to end, or clear a queue")]
    state = _with_queue(state, event.queue, replace(queue, items=(*queue.items, event.item)))
    return state, [Answer(request.request_id, request.client_id, scan_id=event.item.scan_id)]


def _refused(item: Item, message: str) -> Answer:
    return Answer(item.request.request_id, item.request.client_id, ReasonCode.NOT_ALLOWED, message)


# Commands


def _commanded(state: State, event: Commanded) -> tuple[State, list[Effect]]:
    name, target, problem = _target(state, event)
    if problem is not None:
        return state, [problem]
    queue = state.queues[name]
    match event.action:
        case QueueAction.PAUSE | QueueAction.DEFERRED_PAUSE:
            return _pause(state, event, name, queue, target)
        case QueueAction.CONTINUE:
            return _continue(state, event, name, queue)
        case QueueAction.ABORT | QueueAction.HALT:
            return _stop(state, event, name, queue, target)
        case QueueAction.USER_COMPLETED:
            return _complete(state, event, name, queue, target)
        case QueueAction.RESTART:
            return _restart(state, event, name, queue, target)
        case QueueAction.CLEAR:
            return _clear(state, event, name, queue)
        case QueueAction.LOCK | QueueAction.RELEASE_LOCK:
            return _lock(state, event, name, queue)
        case QueueAction.PAUSE_AFTER_SCAN:
            return _pause_behind(state, event, name, queue)
        case QueueAction.SHOW:
            return state, [_show(state, event, name, queue)]
        case _:
            return _change_pending(state, event, name, queue, target)


def _target(state: State, event: Commanded) -> tuple[str, Item | None, Answer | None]:
    """The queue and item that a command means: the one with that scan id, else the active one of the queue."""
    if event.scan_id is not None:
        found = state.find(event.scan_id)
        if found is None:
            return (
                "",
                None,
                _no(
                    event,
                    f"there is no request with the scan id {event.scan_id} in any queue; it may have ended already",
                    ReasonCode.NOT_FOUND,
                ),
            )
        return *found, None
    queue = state.queues.get(event.queue)
    if queue is None:
        near = difflib.get_close_matches(event.queue, state.queues, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return (
            "",
            None,
            _no(
                event,
                f"there is no queue {event.queue!r}.{hint} There are: {', '.join(state.queues)}.",
                ReasonCode.UNKNOWN_QUEUE,
            ),
        )
    return event.queue, queue.active, None


def _pause(
    state: State, event: Commanded, name: str, queue: Queue, target: Item | None
) -> tuple[State, list[Effect]]:
    active = queue.active
    if target is not None and target is not active:
        return state, [_no(event, f"{target.label} has not begun, so it cannot be paused")]
    told = f"paused by {event.user}" if event.user else "paused"
    if active is None or not active.is_scan:
        if queue.status is QueueState.PAUSED:
            return state, [_no(event, f"the queue {name} is paused already")]
        state = _with_queue(
            state, name, replace(queue, status=QueueState.PAUSED, message=told, stays_paused=True)
        )
        after = f"; {active.label} cannot be paused and goes on" if active is not None else ""
        return state, [_yes(event, f"the queue {name} is paused{after}")]
    if active.status is ItemState.STOPPING:
        return state, [_no(event, f"{active.label} is ending already, so it cannot be paused")]
    if active.status is ItemState.PAUSED:
        return state, [_no(event, f"{active.label} is paused already")]
    state = _with_active(
        state,
        name,
        replace(queue, status=QueueState.PAUSED, message=told),
        replace(active, status=ItemState.PAUSED),
    )
    how = "is paused" if event.action is QueueAction.PAUSE else "pauses after the point in hand"
    if active.sweeps:
        how = f"pauses after the sweep; while {' and '.join(active.motors) or 'its device'} is on its way it can be aborted"
    return state, [
        _yes(event, f"{active.label} {how}", active.scan_id),
        Tell(name, active.scan_id, event.action, event.user),
    ]


def _pause_behind(state: State, event: Commanded, name: str, queue: Queue) -> tuple[State, list[Effect]]:
    active = queue.active
    if active is not None and active.status is ItemState.PAUSED:
        return state, [
            _no(event, f"{active.label} is paused already, and so is the queue {name}; continue it first")
        ]
    if queue.status is QueueState.PAUSED and queue.stays_paused:
        return state, [_no(event, f"the queue {name} is paused already")]
    by = f" by {event.user}" if event.user else ""
    behind = f" after {active.label}" if active is not None else ""
    queue = replace(queue, status=QueueState.PAUSED, message=f"paused{behind}{by}", stays_paused=True)
    goes_on = f"; {active.label} goes on to its end" if active is not None else ""
    return _with_queue(state, name, queue), [_yes(event, f"the queue {name} is paused{behind}{goes_on}")]


def _continue(state: State, event: Commanded, name: str, queue: Queue) -> tuple[State, list[Effect]]:
    active = queue.active
    is_paused = active is not None and active.status is ItemState.PAUSED
    if queue.status is not QueueState.PAUSED and not is_paused:
        held = "; ".join(state.held(name, running=False).values())
        if held:
            told = f"{held}. The queue {name} goes on by itself when this has cleared; `bec interlock` shows more"
            return state, [_no(event, told)]
        return state, [_no(event, f"the queue {name} is not paused, so there is nothing to continue")]
    queue = replace(queue, status=QueueState.RUNNING, message="", stays_paused=False)
    if active is None or not is_paused:
        return _with_queue(state, name, queue), [_yes(event, f"the queue {name} goes on")]
    state = _with_active(state, name, queue, replace(active, status=ItemState.RUNNING))
    return state, [
        _yes(event, f"{active.label} goes on", active.scan_id),
        Tell(name, active.scan_id, QueueAction.CONTINUE, event.user),
    ]


def _stop(
    state: State, event: Commanded, name: str, queue: Queue, target: Item | None
) -> tuple[State, list[Effect]]:
    word = "halted" if event.action is QueueAction.HALT else "aborted"
    by = f" by {event.user}" if event.user else ""
    if target is None:
        return state, [_no(event, f"nothing runs in the queue {name}, so there is nothing to {event.action}")]
    if target is not queue.active:
        message = f"{target.label} was {word}{by} before it began"
        return _without(state, name, queue, target), [
            _yes(event, message, target.scan_id),
            Cancelled(target, message, _code(event.action)),
        ]
    if target.status is ItemState.STOPPING and not (
        event.action is QueueAction.HALT and target.stopping != QueueAction.HALT
    ):
        return state, [_no(event, f"{target.label} is ending already")]
    if queue.pending:
        queue = replace(
            queue,
            status=QueueState.PAUSED,
            message=f"{target.label} was {word}{by}; continue to run what is waiting",
        )
    state = _with_active(state, name, queue, _ending(target, event.action))
    return state, [
        _yes(event, f"{target.label} is being {word}", target.scan_id),
        Tell(name, target.scan_id, event.action, event.user, f"{target.label} was {word}{by}"),
    ]


def _complete(
    state: State, event: Commanded, name: str, queue: Queue, target: Item | None
) -> tuple[State, list[Effect]]:
    if target is None or target is not queue.active:
        what = f"{target.label} has not begun" if target else f"nothing runs in the queue {name}"
        return state, [_no(event, f"{what}, so it cannot be set completed")]
    if not target.is_scan:
        return state, [_no(event, f"{target.label} is no scan; abort it instead")]
    if target.status is ItemState.STOPPING:
        return state, [_no(event, f"{target.label} is ending already")]
    by = f" by {event.user}" if event.user else ""
    if not queue.stays_paused:
        queue = replace(queue, status=QueueState.RUNNING, message="")
    state = _with_active(state, name, queue, _ending(target, event.action))
    return state, [
        _yes(event, f"{target.label} ends as completed", target.scan_id),
        Tell(name, target.scan_id, event.action, event.user, f"{target.label} was set completed{by}"),
    ]


def _restart(
    state: State, event: Commanded, name: str, queue: Queue, target: Item | None
) -> tuple[State, list[Effect]]:
    if target is None or target is not queue.active:
        what = f"{target.label} has not begun" if target else f"nothing runs in the queue {name}"
        return state, [_no(event, f"{what}, so it cannot be restarted")]
    if target.status is ItemState.STOPPING:
        return state, [_no(event, f"{target.label} is ending already")]
    copy = replace(
        target,
        request=target.request.model_copy(
            update={"request_id": event.request_id, "client_id": event.client_id}
        ),
        scan_id=event.new_scan_id,
        user=event.user or target.user,
        submitted=event.now,
        status=ItemState.PENDING,
        scan_number=None,
        start={},
    )
    queue = replace(
        queue,
        items=(target, copy, *queue.items[1:]),
        status=QueueState.RUNNING,
        message="",
        stays_paused=False,
    )
    by = f" by {event.user}" if event.user else ""
    state = _with_active(state, name, queue, _ending(target, event.action))
    return state, [
        _yes(event, f"{target.label} is being restarted", copy.scan_id),
        Tell(name, target.scan_id, QueueAction.ABORT, event.user, f"{target.label} was restarted{by}"),
    ]


def _clear(state: State, event: Commanded, name: str, queue: Queue) -> tuple[State, list[Effect]]:
    by = f" by {event.user}" if event.user else ""
    active = queue.active
    effects: list[Effect] = [
        _yes(event, f"the queue {name} is cleared" if queue.items else f"the queue {name} is empty already")
    ]
    effects += [
        Cancelled(item, f"{item.label} was removed before it began: the queue {name} was cleared{by}")
        for item in queue.pending
    ]
    if active is None:
        return _with_queue(state, name, Queue(locks=queue.locks)), effects
    queue = replace(queue, items=(active,))
    if active.status is ItemState.STOPPING:
        return _with_queue(state, name, queue), effects
    state = _with_active(state, name, queue, _ending(active, QueueAction.ABORT))
    message = f"{active.label} was aborted: the queue {name} was cleared{by}"
    return state, [*effects, Tell(name, active.scan_id, QueueAction.ABORT, event.user, message)]


def _lock(state: State, event: Commanded, name: str, queue: Queue) -> tuple[State, list[Effect]]:
    lock = str(event.parameter.get("lock") or event.parameter.get("identifier") or event.user or "lock")
    locks = dict(queue.locks)
    if event.action is QueueAction.LOCK:
        if lock in locks:
            return state, [_no(event, f"the queue {name} has a lock {lock!r} already: {locks[lock]}")]
        locks[lock] = str(event.parameter.get("reason") or f"locked by {event.user or 'a client'}")
        told = f"the queue {name} is locked: {locks[lock]}"
    else:
        if lock not in locks:
            held = ", ".join(repr(held) for held in locks) or "none"
            return state, [_no(event, f"the queue {name} has no lock {lock!r}; it has {held}")]
        del locks[lock]
        told = f"the lock {lock!r} of the queue {name} is released"
    return _with_queue(state, name, replace(queue, locks=locks)), [_yes(event, told)]


# Commands to what waits


def _change_pending(
    state: State, event: Commanded, name: str, queue: Queue, target: Item | None
) -> tuple[State, list[Effect]]:
    done = {QueueAction.EDIT: "edited", QueueAction.REMOVE: "removed"}.get(event.action, "moved")
    if event.scan_id is None or target is None:
        return state, [
            _no(
                event,
                f"which request is to be {done}? Give the scan id of one that waits in the queue {name}",
            )
        ]
    if target is queue.active:
        return state, [_no(event, f"{target.label} has begun, so it cannot be {done}; abort it instead")]
    if event.action is QueueAction.REMOVE:
        by = f" by {event.user}" if event.user else ""
        message = f"{target.label} was removed from the queue {name}{by} before it began"
        return _without(state, name, queue, target), [
            _yes(event, message, target.scan_id),
            Cancelled(target, message),
        ]
    if event.action is QueueAction.EDIT:
        return _edit(state, event, name, queue, target)
    return _move(state, event, name, queue, target)


def _edit(
    state: State, event: Commanded, name: str, queue: Queue, target: Item
) -> tuple[State, list[Effect]]:
    made = event.edited
    if made is None or made.scan_id != target.scan_id:
        return state, [
            _no(event, f"there is nothing to change {target.label} to", ReasonCode.INVALID_ARGUMENT)
        ]
    items = list(queue.items)
    items[_place(items, target)] = replace(made, status=ItemState.PENDING, waiting_for=target.waiting_for)
    state = _with_queue(state, name, replace(queue, items=tuple(items)))
    return state, [_yes(event, f"{made.label} is changed", target.scan_id)]


def _move(
    state: State, event: Commanded, name: str, queue: Queue, target: Item
) -> tuple[State, list[Effect]]:
    first = 0 if queue.active is None else 1
    items = list(queue.items)
    at = _place(items, target)
    last = len(items) - 1
    match event.action:
        case QueueAction.MOVE_UP:
            to = at - 1
        case QueueAction.MOVE_DOWN:
            to = at + 1
        case QueueAction.MOVE_TOP:
            to = first
        case QueueAction.MOVE_BOTTOM:
            to = last
        case _:
            wanted = event.parameter.get("position", event.parameter.get("target_position"))
            if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= last - first + 1:
                return state, [
                    _no(
                        event,
                        f"{wanted!r} is no place to move {target.label} to: {last - first + 1} wait in the queue "
                        f"{name}, so give a position from 1 to {last - first + 1}",
                        ReasonCode.INVALID_ARGUMENT,
                    )
                ]
            to = first + wanted - 1
    to = min(max(to, first), last)
    if to == at:
        place = "first" if at == first else "last" if at == last else f"number {at - first + 1}"
        return state, [_no(event, f"{target.label} is {place} already of what waits in the queue {name}")]
    items.insert(to, items.pop(at))
    # What it waits for is told of the head only.
    items = [replace(i, waiting_for="") if k and i.waiting_for else i for k, i in enumerate(items)]
    state = _with_queue(state, name, replace(queue, items=tuple(items)))
    return state, [
        _yes(
            event,
            f"{target.label} is now {to - first + 1} of the {last - first + 1} that wait in the queue {name}",
        )
    ]


def _show(state: State, event: Commanded, name: str, queue: Queue) -> Answer:
    first, count = event.parameter.get("first", 1), event.parameter.get("count", SHOWN)
    if (
        not all(isinstance(n, int) and not isinstance(n, bool) for n in (first, count))
        or first < 1
        or count < 0
    ):
        return _no(
            event,
            "show needs first and count as whole numbers, first from 1 on and count from 0 on",
            ReasonCode.INVALID_ARGUMENT,
        )
    part = queue.items[first - 1 : first - 1 + min(count, MOST_SHOWN)]
    shown = _snapshot_of(state, name, queue, part)
    answer = _yes(event, f"{len(part)} of the {len(queue.items)} requests in the queue {name}")
    return replace(answer, result=shown)


def _place(items: list[Item], target: Item) -> int:
    return next(k for k, item in enumerate(items) if item is target)


def _without(state: State, name: str, queue: Queue, target: Item) -> State:
    return _with_queue(state, name, replace(queue, items=tuple(i for i in queue.items if i is not target)))


# What the system reports


def _began(state: State, event: Began) -> State:
    found = state.find(event.scan_id)
    if found is None:
        return state
    name, item = found
    changed = replace(item, start=dict(event.start), num_points=event.num_points, owned=event.owned)
    return _with_active(state, name, state.queues[name], changed)


def _ended(state: State, event: Ended) -> State:
    found = state.find(event.scan_id)
    if found is None:
        return state
    name, item = found
    queue = state.queues[name]
    if item is queue.items[0]:
        items = queue.items[1:]
    else:
        items = tuple(other for other in queue.items if other is not item)
    if not items and not queue.stays_paused:
        return _with_queue(state, name, Queue(locks=queue.locks))
    message = queue.message if queue.status is QueueState.PAUSED else ""
    return _with_queue(state, name, replace(queue, items=items, message=message))


def _asked(state: State, event: Asked) -> State:
    found = state.find(event.scan_id)
    if found is None or found[1].status is not ItemState.RUNNING:
        return state
    name, item = found
    queue = replace(state.queues[name], status=QueueState.PAUSED, message=event.message)
    return _with_active(state, name, queue, replace(item, status=ItemState.PAUSED))


def _noted(state: State, event: Noted) -> State:
    queue = state.queues.get(event.queue)
    if queue is None or queue.note == event.message:
        return state
    return _with_queue(state, event.queue, replace(queue, note=event.message))


def _devices_stopped(state: State, event: DevicesStopped) -> tuple[State, list[Effect]]:
    effects: list[Effect] = []
    by = f" by {event.user}" if event.user else ""
    for name, queue in state.queues.items():
        active = queue.active
        if queue.pending and active is not None:
            queue = replace(
                queue,
                status=QueueState.PAUSED,
                message=f"all devices were stopped{by}; continue to run what is waiting",
            )
        if active is None:
            continue
        if active.status is ItemState.STOPPING:
            state = _with_queue(state, name, queue)
            continue
        state = _with_active(state, name, queue, _ending(active, QueueAction.ABORT))
        effects.append(
            Tell(name, active.scan_id, QueueAction.ABORT, event.user, f"all devices were stopped{by}")
        )
    return state, effects


def _expired(state: State, event: Expired) -> tuple[State, list[Effect]]:
    queue = state.queues.get(event.queue)
    if event.queue == PRIMARY or queue is None or queue.items or queue.locks:
        return state, []
    queues = {name: other for name, other in state.queues.items() if name != event.queue}
    return replace(state, queues=queues), [Dismiss(event.queue)]


def _start_what_can(state: State) -> tuple[State, list[Effect]]:
    """Those that have waited longest come first; what they wait for is kept for them, so that nobody waits for ever."""
    effects: list[Effect] = []
    in_use: dict[str, str] | None = None
    heads = [(name, queue.items[0]) for name, queue in state.queues.items() if queue.items]
    heads = [(name, head) for name, head in heads if head.status is ItemState.PENDING]
    for name, head in sorted(heads, key=lambda found: found[1].submitted) if len(heads) > 1 else heads:
        queue = state.queues[name]
        if in_use is None:
            in_use = _devices_in_use(state)
        reason = _obstacle(state, name, queue, head)
        if not reason:
            reason = _waits_for(head, in_use)
            if reason:
                for device in head.owned:
                    in_use.setdefault(device, f"{_whose(head, name)}, which has waited longer for")
        if reason:
            if head.waiting_for != reason:
                state = _with_active(state, name, queue, replace(head, waiting_for=reason))
            continue
        number = state.last_number + 1 if head.is_scan else None
        head = replace(head, status=ItemState.RUNNING, scan_number=number, waiting_for="")
        state = _with_active(state, name, queue, head)
        if number is not None:
            state = replace(state, last_number=number)
        for device in head.owned:
            in_use[device] = f"{_whose(head, name)}, which has"
        effects.append(Start(name, head))
    return state, effects


def _obstacle(state: State, name: str, queue: Queue, head: Item) -> str:
    """What keeps the whole queue from starting anything, or a scan at its head from beginning. A move may be what an
    interlock waits for.
    """
    if queue.locks:
        return "; ".join(f"locked by {lock}: {reason}" for lock, reason in queue.locks.items())
    if queue.status is not QueueState.RUNNING:
        return f"the queue {name} is paused"
    if state.configuring:
        return f"the device session is being changed by {state.configuring}"
    return "; ".join(state.held(name, running=False).values()) if state.holds and head.is_scan else ""


def _devices_in_use(state: State) -> dict[str, str]:
    """Device -> who has it, in words that end before its name."""
    return {
        device: f"{_whose(queue.active, name)}, which has"
        for name, queue in state.queues.items()
        if queue.active is not None
        for device in queue.active.owned
    }


def _whose(item: Item, queue: str) -> str:
    return f"{item.label}{f' of {item.user}' if item.user else ''} in the queue {queue}"


def _waits_for(head: Item, in_use: Mapping[str, str]) -> str:
    """Who holds which of its devices, the holder first; empty if it gets all."""
    by_holder: dict[str, list[str]] = {}
    for device in head.owned:
        if device in in_use:
            by_holder.setdefault(in_use[device], []).append(device)
    return "; ".join(f"{holder} {', '.join(devices)}" for holder, devices in by_holder.items())


# Small things


def _with_queue(state: State, name: str, queue: Queue) -> State:
    return replace(state, queues={**state.queues, name: queue})


def _with_active(state: State, name: str, queue: Queue, head: Item) -> State:
    """The queue with its first item replaced."""
    return _with_queue(state, name, replace(queue, items=(head, *queue.items[1:])))


def _snapshot_of(state: State, name: str, queue: Queue, items: tuple[Item, ...]) -> QueueSnapshot:
    held = state.held(name, running=False) if state.holds else {}
    shown = [_shown(item) for item in items]
    active = queue.active
    if held and shown and active is not None and items[0] is active:
        holding = state.held(name, running=True)
        if holding and active.is_scan and active.status in (ItemState.RUNNING, ItemState.PAUSED):
            update = {"status": ItemState.PAUSED, "waiting_for": "; ".join(holding.values())}
            shown[0] = shown[0].model_copy(update=update)
    return QueueSnapshot(
        status=QueueState.LOCKED if queue.locks else queue.status,
        items=shown,
        locks=dict(queue.locks),
        message=queue.note or queue.message or "; ".join(held.values()),
        num_items=len(queue.items),
        held=held,
    )


def _ending(item: Item, action: QueueAction) -> Item:
    return replace(item, status=ItemState.STOPPING, stopping=action.value)


def _code(action: QueueAction) -> ReasonCode:
    return ReasonCode.HALTED if action is QueueAction.HALT else ReasonCode.ABORTED


def _yes(event: Commanded, message: str, scan_id: str | None = None) -> Answer:
    return Answer(event.request_id, event.client_id, None, message, scan_id)


def _no(event: Commanded, message: str, code: ReasonCode = ReasonCode.WRONG_STATE) -> Answer:
    return Answer(event.request_id, event.client_id, code, message)


def _shown(item: Item) -> QueueItem:
    # Not validated: a long queue is shown after every change of it.
    return QueueItem.model_construct(
        request_id=item.request.request_id,
        scan_id=item.scan_id,
        scan_name=item.request.scan_type,
        status=item.status,
        is_scan=item.is_scan,
        scan_number=item.scan_number,
        user=item.user,
        client_id=item.request.client_id,
        args=item.request.args,
        kwargs=item.request.kwargs,
        submitted=item.submitted,
        num_points=item.num_points,
        estimated_s=item.estimated_s,
        motors=list(item.motors),
        waiting_for=item.waiting_for,
    )
