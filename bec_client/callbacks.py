"""The user's functions, called when something happens: `bec.callbacks.register("scan_status", show)`.

Events and what the functions are given are BEC's:

  scan_segment         (content, metadata)  each point: {"point_id", "scan_id", "data": device -> signal -> {"value",
                                            "timestamp"}}, and what is known of its scan
  scan_status          (content, metadata)  each change of state of a scan
  device_update        (action, config)     the device session has changed: "reload", and its devices
  scan_history_update  (history_msg=)       a scan's file is final
  scan_history_loaded  (history_msgs=)      once, when registered: the scans of the history
  namespace_update     (action=, ns_objects=)  macros came ("add") or went ("remove")

They run in one thread of their own, one after the other, in the order of the events: a slow one delays the others, the
start of a scan that has callbacks, and nothing else; none may wait for a scan. With sync=True they run in the thread that
shows or waits for a scan, or that calls `poll()`. Nothing is read for events that nobody has asked for.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ContextDecorator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bec_lib.broker import Delivery, Malformed, StreamReader
from bec_lib.endpoints import Endpoint
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import ParameterError
from bec_lib.messages import (
    DeviceSessionMessage,
    PointsMessage,
    ScanHistoryMessage,
    ScanSchemaMessage,
    ScanStatusMessage,
    SealMessage,
)
from bec_lib.scans.signature import did_you_mean

if TYPE_CHECKING:
    from bec_client.client import BECClient
    from bec_client.scan_item import ScanItem

log = logging.getLogger(__name__)

HISTORY = 50
WAITING = 10_000  # events for functions that are called by `poll`; of more, the oldest are dropped


class EventType(StrEnum):
    """What can be waited for, by BEC's names."""

    SCAN_SEGMENT = "scan_segment"
    SCAN_STATUS = "scan_status"
    NAMESPACE_UPDATE = "namespace_update"
    DEVICE_UPDATE = "device_update"
    SCAN_HISTORY_UPDATE = "scan_history_update"
    SCAN_HISTORY_LOADED = "scan_history_loaded"


_STREAMS: dict[EventType, Endpoint] = {
    EventType.SCAN_SEGMENT: Endpoints.scan_status,
    EventType.SCAN_STATUS: Endpoints.scan_status,
    EventType.DEVICE_UPDATE: Endpoints.device_session_history,
    EventType.SCAN_HISTORY_UPDATE: Endpoints.scan_history,
}


@dataclass(eq=False)
class _Entry:
    event: EventType
    function: Callable[..., Any]
    sync: bool
    scan_id: str | None = None  # of the only scan whose points it is for
    has_failed: bool = False


@dataclass(eq=False)
class _Followed:
    """A scan whose points are read."""

    scan: ScanItem
    schema: ScanSchemaMessage | None = None
    over: threading.Event = field(default_factory=threading.Event)


class CallbackHandler:
    """The registered functions: `bec.callbacks`.

    Owned state: the entries, under the mutex; the followed scans, by the thread that calls.
    """

    def __init__(self, client: BECClient):
        self._client = client
        self._mutex = threading.Lock()
        self._entries: dict[int, _Entry] = {}
        self._last_id = 0
        self._reader: StreamReader | None = None
        self._following: set[Endpoint] = set()
        self._scans: dict[str, _Followed] = {}
        self._waiting: deque[tuple[_Entry, tuple[Any, ...], dict[str, Any]]] = deque(maxlen=WAITING)

    # For users

    def register(self, event_type: EventType | str, callback: Callable[..., Any], sync: bool = False) -> int:
        """Call a function at every event of a kind, until it is removed; the number to remove it by.

        Raises ParameterError for an event that there is not, or something that cannot be called.
        """
        event = _event(event_type)
        number = self._add(_Entry(event, _callable(callback), sync))
        if event is EventType.SCAN_HISTORY_LOADED:
            self._run([self._entries[number]], history_msgs=self._client.history.messages(HISTORY))
        elif event in _STREAMS:
            self._follow(_STREAMS[event])
        return number

    def register_many(
        self,
        event_type: EventType | str,
        callbacks: Callable[..., Any] | Iterable[Callable[..., Any]],
        sync: bool = False,
    ) -> list[int]:
        """`register` for several functions."""
        functions = [callbacks] if callable(callbacks) else list(callbacks)
        return [self.register(event_type, function, sync) for function in functions]

    def remove(self, id: int) -> int:
        """Call it no more; its number, or -1 if there is none of that number."""
        with self._mutex:
            return -1 if self._entries.pop(id, None) is None else id

    unregister = remove

    def poll(self) -> None:
        """Run what waits for this thread: functions that were registered with sync=True."""
        while True:
            try:
                entry, args, kwargs = self._waiting.popleft()
            except IndexError:
                return
            self._call(entry, args, kwargs)

    def run(self, event_type: EventType | str, *args: Any, **kwargs: Any) -> None:
        """Call what is registered for an event."""
        event = _event(event_type)
        self._run(self._registered(event), *args, **kwargs)

    def __repr__(self) -> str:
        with self._mutex:
            lines = [
                f"  {number}  {entry.event}  {_name(entry.function)}{'  sync' if entry.sync else ''}"
                for number, entry in self._entries.items()
            ]
        return "\n".join(["callbacks:", *lines]) if lines else "<no callbacks>"

    # For the client

    def follow_scan(
        self,
        scan: ScanItem,
        functions: Iterable[Callable[..., Any]],
        later: Iterable[Callable[..., Any]],
    ) -> threading.Event:
        """Call functions for each point of one scan: `functions` by those who wait for it, `later` in the thread of the
        callbacks. Returns what is set when the last point was handed out.
        """
        for function in functions:
            self._add(_Entry(EventType.SCAN_SEGMENT, function, True, scan.scan_id))
        for function in later:
            self._add(_Entry(EventType.SCAN_SEGMENT, function, False, scan.scan_id))
        return self._follow_points(scan).over

    def forget_scan(self, scan_id: str) -> None:
        """Read a scan's points no more, and forget what was to be called for them."""
        self._on_seal(scan_id)

    def stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    # Registering

    def _add(self, entry: _Entry) -> int:
        with self._mutex:
            self._last_id += 1
            self._entries[self._last_id] = entry
            return self._last_id

    def _registered(self, event: EventType, scan_id: str | None = None) -> list[_Entry]:
        with self._mutex:
            return [
                entry
                for entry in self._entries.values()
                if entry.event is event and entry.scan_id in (None, scan_id)
            ]

    def _follow(self, endpoint: Endpoint) -> None:
        with self._mutex:
            if endpoint in self._following:
                return
            self._following.add(endpoint)
            reader = self._running_reader()
        reader.follow(endpoint, self._client.broker.last_id(endpoint))

    def _follow_points(self, scan: ScanItem) -> _Followed:
        with self._mutex:
            followed = self._scans.get(scan.scan_id)
            if followed is not None:
                return followed
            followed = self._scans[scan.scan_id] = _Followed(scan)
            reader = self._running_reader()
        reader.follow(Endpoints.scan_points(scan.scan_id), "0")
        return followed

    def _running_reader(self) -> StreamReader:
        if self._reader is None:
            self._reader = StreamReader(
                self._client.broker, self._deliver, name="bec-client-callbacks"
            ).start()
        return self._reader

    # The thread of the callbacks

    def _deliver(self, found: list[Delivery | Malformed]) -> None:
        for item in found:
            if isinstance(item, Delivery):
                try:
                    self._handle(item)
                except Exception:
                    log.exception("an event of %s could not be handed on", item.endpoint.key)

    def _handle(self, item: Delivery) -> None:
        match item.message:
            case ScanStatusMessage() as message:
                self._on_status(message)
            case PointsMessage() as message:
                self._on_points(message)
            case SealMessage() as message:
                self._on_seal(message.scan_id)
            case DeviceSessionMessage() as message:
                self.run(EventType.DEVICE_UPDATE, "reload", dict(message.devices))
            case ScanHistoryMessage() as message:
                self.run(EventType.SCAN_HISTORY_UPDATE, history_msg=message)

    def _on_status(self, message: ScanStatusMessage) -> None:
        if self._registered(EventType.SCAN_SEGMENT) and not message.status.is_terminal:
            scan = self._client.scan_storage.item(message.scan_id)
            if scan.status_message is None:
                scan.on_status(message)
            self._follow_points(scan)
        entries = self._registered(EventType.SCAN_STATUS)
        if entries:
            content = message.model_dump()
            self._run(entries, content, dict(content))

    def _on_points(self, message: PointsMessage) -> None:
        followed = self._scans.get(message.scan_id)
        entries = self._registered(EventType.SCAN_SEGMENT, message.scan_id)
        if followed is None or not entries:
            return
        if followed.schema is None:
            schemas = self._client.broker.entries(Endpoints.scan_schema(message.scan_id), count=1)
            if not schemas or not isinstance(schemas[0], Delivery):
                return
            followed.schema = schemas[0].message
        status = followed.scan.status_message
        metadata = {} if status is None else status.model_dump(exclude={"args", "kwargs"})
        for row in range(message.count):
            data: dict[str, dict[str, dict[str, Any]]] = {}
            for column, signal in enumerate(followed.schema.signals):
                data.setdefault(signal.device, {})[signal.signal] = {
                    "value": message.values[column][row],
                    "timestamp": message.device_times[column][row],
                }
            content = {"point_id": message.first_index + row, "scan_id": message.scan_id, "data": data}
            self._run(entries, content, metadata)

    def _on_seal(self, scan_id: str) -> None:
        followed = self._scans.pop(scan_id, None)
        if followed is None:
            return
        if self._reader is not None:
            self._reader.forget(Endpoints.scan_points(scan_id))
        with self._mutex:
            for number in [n for n, entry in self._entries.items() if entry.scan_id == scan_id]:
                del self._entries[number]
        followed.over.set()

    # Calling

    def _run(self, entries: Iterable[_Entry], *args: Any, **kwargs: Any) -> None:
        for entry in entries:
            if entry.sync:
                self._waiting.append((entry, args, kwargs))
            else:
                self._call(entry, args, kwargs)

    def _call(self, entry: _Entry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            entry.function(*args, **kwargs)
        except Exception as error:
            # Told once: it may fail at every point of a scan.
            if not entry.has_failed:
                entry.has_failed = True
                self._client.notify(
                    f"the callback {_name(entry.function)} of {entry.event} failed: {type(error).__name__}: {error}"
                )
            log.debug("a callback failed", exc_info=True)


class CallbackRegister(ContextDecorator):
    """`with CallbackRegister("scan_segment", show, callback_handler=bec.callbacks):` calls it within the block only."""

    def __init__(
        self,
        event_type: EventType | str,
        callbacks: Callable[..., Any] | list[Callable[..., Any]],
        sync: bool = False,
        callback_handler: CallbackHandler | None = None,
    ):
        if callback_handler is None:
            raise ParameterError("CallbackRegister needs callback_handler=bec.callbacks")
        self._handler = callback_handler
        self._given = (event_type, callbacks, sync)
        self._ids: list[int] = []

    def __enter__(self) -> CallbackRegister:
        self._ids = self._handler.register_many(*self._given)
        return self

    def __exit__(self, *exc: object) -> None:
        for number in self._ids:
            self._handler.remove(number)


def functions_of(name: str, given: Any) -> list[Callable[..., Any]]:
    """What stands in `callback=` of a scan as a list. Raises ParameterError for what cannot be called."""
    if given is None:
        return []
    found = list(given) if isinstance(given, (list, tuple)) else [given]
    return [_callable(function, f"{name}=") for function in found]


def _callable(function: Any, what: str = "a callback") -> Callable[..., Any]:
    if not callable(function):
        raise ParameterError(f"{what} must be a function of (content, metadata), not {function!r}")
    found: Callable[..., Any] = function
    return found


def _event(name: EventType | str) -> EventType:
    try:
        return EventType(name)
    except ValueError:
        known = [event.value for event in EventType]
        raise ParameterError(
            f"there is no event {name!r}.{did_you_mean(str(name), known)} There are {', '.join(known)}"
        ) from None


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or type(function).__name__
