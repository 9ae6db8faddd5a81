"""One scan as this client knows it: its state from the events, its points on demand, its file when it is there.

Nothing is read or decoded for a scan that nobody looks at: points are fetched from the scan's stream when
`live_data` is used, in one round trip for all that is new.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from bec_client.names import WrongName
from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, StorageError
from bec_lib.messages import (
    BaselineMessage,
    FileMessage,
    PointsMessage,
    ProcessedDataMessage,
    ScanSchemaMessage,
    ScanStatusMessage,
    SealMessage,
    SignalSchema,
)

KEPT_SCANS = 100
STAGING_S = 2.0


class LiveSignal:
    """The points of one signal so far."""

    def __init__(self, points: Points, column: int, schema: SignalSchema):
        self._points = points
        self._column = column
        self.schema = schema

    @property
    def val(self) -> list[Any]:
        """All values so far, one per point."""
        self._points.pull()
        return list(self._points.values[self._column])

    @property
    def timestamps(self) -> list[float]:
        """The device's time stamps, seconds since 1970 UTC."""
        self._points.pull()
        return list(self._points.times[self._column])

    @property
    def unit(self) -> str:
        return self.schema.unit

    def get(self) -> dict[str, list[Any]]:
        return {"value": self.val, "timestamp": self.timestamps}

    def __getitem__(self, index: int) -> dict[str, Any]:
        values = self.val
        return {"value": values[index], "timestamp": self._points.times[self._column][index]}

    def __len__(self) -> int:
        return len(self.val)

    def __repr__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"<{self.schema.device}.{self.schema.signal}: {len(self)} points{unit and ' in' + unit}>"


class LiveDevice:
    """The signals of one device in a running scan: by attribute or by name."""

    def __init__(self, name: str, signals: dict[str, LiveSignal]):
        self._name = name
        self._signals = signals

    def __getitem__(self, name: str) -> LiveSignal:
        if name not in self._signals:
            raise KeyError(
                f"{self._name} has no signal {name!r} in this scan; it has {', '.join(self._signals)}"
            )
        return self._signals[name]

    def __getattr__(self, name: str) -> LiveSignal:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise WrongName(str(error.args[0])) from None

    def __iter__(self) -> Any:
        return iter(self._signals)

    def __len__(self) -> int:
        return len(self._signals)

    def __contains__(self, name: object) -> bool:
        return name in self._signals

    def __dir__(self) -> list[str]:
        return [*self._signals, "items", "keys", "values"]

    def keys(self) -> Any:
        return self._signals.keys()

    def items(self) -> Any:
        return self._signals.items()

    def values(self) -> Any:
        return self._signals.values()

    def __repr__(self) -> str:
        return f"<{self._name}: {', '.join(self._signals)}>"


class LiveData:
    """The devices whose points arrive: `live_data.samx.samx.val`, or `live_data["samx"]["samx"]`."""

    def __init__(self, points: Points):
        self._points = points

    def _devices(self) -> dict[str, LiveDevice]:
        return self._points.devices()

    def __getitem__(self, name: str) -> LiveDevice:
        devices = self._devices()
        if self._points.schema is None:
            # A scan that was just accepted tells its columns in a moment.
            self._points.pull(block_s=STAGING_S)
            devices = self._devices()
        if not devices:
            raise KeyError(
                f"{name!r} cannot be told yet: the scan has not begun, or its devices are not staged"
            )
        if name not in devices:
            raise KeyError(f"{name!r} is not read at the points of this scan; read are {', '.join(devices)}")
        return devices[name]

    def __getattr__(self, name: str) -> LiveDevice:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise WrongName(str(error.args[0])) from None

    def __contains__(self, name: object) -> bool:
        return name in self._devices()

    def __iter__(self) -> Any:
        return iter(self._devices())

    def __len__(self) -> int:
        """The number of points so far."""
        self._points.pull()
        return self._points.count

    def __dir__(self) -> list[str]:
        return [*self._devices(), "get", "items", "keys", "to_pandas"]

    def get(self, name: str, default: Any = None) -> Any:
        """The device of that name, `default` if it is not read at the points."""
        return self._devices().get(name, default)

    def to_pandas(self) -> Any:
        """The points so far as a pandas DataFrame: one column per signal. Raises BECError without pandas."""
        from bec_client.history import pandas_module

        columns = {
            signal: column.val for device in self._devices().values() for signal, column in device.items()
        }
        return pandas_module().DataFrame(columns)

    def keys(self) -> Any:
        return self._devices().keys()

    def items(self) -> Any:
        return self._devices().items()

    def __repr__(self) -> str:
        return f"<live data: {len(self)} points of {', '.join(self._devices()) or 'no devices yet'}>"


class Points:
    """Reads a scan's schema, points, fits and seal, each entry once. May be used from several threads."""

    def __init__(self, broker: Broker, scan_id: str):
        self._broker = broker
        self._scan_id = scan_id
        self._mutex = threading.Lock()
        self._cursors = {
            Endpoints.scan_schema(scan_id): "0",
            Endpoints.scan_points(scan_id): "0",
            Endpoints.processed_data(scan_id): "0",
        }
        self.schema: ScanSchemaMessage | None = None
        self.values: list[list[Any]] = []
        self.times: list[list[float]] = []
        self.server_times: list[float] = []
        self.count = 0
        self.seal: SealMessage | None = None
        self.fits: dict[str, ProcessedDataMessage] = {}
        self.num_fits = 0

    def pull(self, block_s: float | None = None) -> int:
        """Fetch what is new; waits up to `block_s` for something. Returns the number of points that are known."""
        with self._mutex:
            if self.seal is not None and block_s is None and not self._fits_wanted():
                return self.count
            while True:
                found = self._broker.read(self._cursors, block_s=block_s)
                for item in found:
                    self._cursors[item.endpoint] = item.entry_id
                    if isinstance(item, Delivery):
                        self._take(item.message)
                if len(found) < 1000:
                    return self.count
                block_s = None

    def devices(self) -> dict[str, LiveDevice]:
        self.pull()
        if self.schema is None:
            return {}
        found: dict[str, dict[str, LiveSignal]] = {}
        for column, signal in enumerate(self.schema.signals):
            found.setdefault(signal.device, {})[signal.signal] = LiveSignal(self, column, signal)
        return {name: LiveDevice(name, signals) for name, signals in found.items()}

    def _fits_wanted(self) -> bool:
        return any(not fit.final for fit in self.fits.values())

    def _take(self, message: Any) -> None:
        match message:
            case ScanSchemaMessage():
                first = self.schema is None
                self.schema = message
                if first:
                    self.values = [[] for _ in message.signals]
                    self.times = [[] for _ in message.signals]
            case PointsMessage():
                if self.schema is None or message.first_index != self.count:
                    return
                for column, new in zip(self.values, message.values, strict=False):
                    column.extend(new)
                for column, new in zip(self.times, message.device_times, strict=False):
                    column.extend(new)
                self.server_times.extend(message.server_times)
                self.count += message.count
            case SealMessage():
                self.seal = message
            case ProcessedDataMessage():
                self.fits[f"{message.request_id}:{message.x}:{message.y}"] = message
                self.num_fits += 1


class ScanItem:
    """A scan: number, state, points, file."""

    def __init__(self, broker: Broker, scan_id: str):
        self._broker = broker
        self.scan_id = scan_id
        self.status_message: ScanStatusMessage | None = None
        self.file_message: FileMessage | None = None
        self.opened = threading.Event()
        self.ended = threading.Event()
        self.filed = threading.Event()
        self.points = Points(broker, scan_id)
        self._data: Any = None

    # Fed by the reader thread

    def on_status(self, message: ScanStatusMessage) -> None:
        self.status_message = message
        self.opened.set()
        if message.status.is_terminal:
            self.ended.set()

    def on_file(self, message: FileMessage) -> None:
        if not message.is_master_file:
            return
        if self.file_message is None or not self.file_message.done:
            self.file_message = message
        if message.done:
            self.filed.set()

    # For users

    @property
    def scan_number(self) -> int | None:
        """None until the scan has started."""
        return self.status_message.scan_number if self.status_message else None

    @property
    def scan_name(self) -> str:
        return self.status_message.scan_name if self.status_message else ""

    @property
    def status(self) -> str:
        """open, paused, closed, aborted, halted or user_completed; "pending" before it starts."""
        return str(self.status_message.status) if self.status_message else "pending"

    @property
    def num_points(self) -> int | None:
        """Points that the scan announced; None if it cannot know."""
        if self.status_message is None:
            return None
        return (
            self.status_message.num_points
            if self.status_message.num_points is not None
            else self.num_readouts
        )

    @property
    def num_readouts(self) -> int | None:
        """Points that were taken; None while the scan runs."""
        return self.status_message.num_readouts if self.status_message else None

    @property
    def file_path(self) -> str | None:
        """The master file; it can be opened when `report.wait()` has returned, or while it grows."""
        if self.file_message is not None:
            return self.file_message.file_path
        if self.status_message is not None and self.status_message.file is not None:
            from bec_lib.file_paths import master_path

            return str(master_path(self.status_message.file))
        return None

    @property
    def live_data(self) -> LiveData:
        """The points so far, while the scan runs and some hours after it."""
        return LiveData(self.points)

    @property
    def baseline(self) -> dict[str, dict[str, dict[str, Any]]]:
        """device -> signal -> {"value", "timestamp"} as read when the scan started; empty before that."""
        self.points.pull()
        schema = self.points.schema
        found = self._broker.entries(Endpoints.scan_baseline(self.scan_id), count=1, newest=True)
        if schema is None or not found or not isinstance(found[0], Delivery):
            return {}
        message: BaselineMessage = found[0].message
        result: dict[str, dict[str, dict[str, Any]]] = {}
        for signal, value, timestamp in zip(
            schema.baseline, message.values, message.device_times, strict=False
        ):
            result.setdefault(signal.device, {})[signal.signal] = {"value": value, "timestamp": timestamp}
        return result

    @property
    def metadata(self) -> dict[str, Any]:
        """What was given with the scan as `metadata=`."""
        return dict(self.status_message.user_metadata) if self.status_message else {}

    @property
    def dataset_number(self) -> int | None:
        """Of the dataset that it belongs to, None if it belongs to none."""
        if self.status_message is None or self.status_message.dataset_number is not None:
            return self.status_message.dataset_number if self.status_message else None
        found = self.metadata.get("dataset_number")
        return found if isinstance(found, int) else None

    @property
    def fits(self) -> list[ProcessedDataMessage]:
        """The latest result of each live fit."""
        self.points.pull()
        return list(self.points.fits.values())

    @property
    def data(self) -> Any:
        """The scan's file, read lazily: `data.devices.samx.samx.read()`. Raises StorageError if there is none yet."""
        if self._data is None:
            path = self.file_path
            if path is None or not self.filed.is_set():
                raise StorageError(
                    f"the file of scan {self.scan_number or self.scan_id} is not final yet; use live_data, "
                    "or wait for it with report.wait()"
                )
            if self.file_message is not None and not self.file_message.successful:
                raise StorageError(
                    f"the file of scan {self.scan_number} was not written: {self.file_message.error or 'no reason given'}"
                )
            from bec_client.history import ScanData

            self._data = ScanData(path)
        return self._data

    def __repr__(self) -> str:
        number = "not started" if self.scan_number is None else f"number {self.scan_number}"
        return f"<scan {self.scan_name or self.scan_id} {number}: {self.status}>"


class ScanStorage:
    """The latest scans of all clients, by scan id. Filled by the reader thread."""

    def __init__(self, broker: Broker):
        self._broker = broker
        self._items: OrderedDict[str, ScanItem] = OrderedDict()
        self._mutex = threading.Lock()
        self.current: ScanItem | None = None

    def item(self, scan_id: str) -> ScanItem:
        """The scan of that id, made if it is new."""
        with self._mutex:
            found = self._items.get(scan_id)
            if found is None:
                found = self._items[scan_id] = ScanItem(self._broker, scan_id)
                while len(self._items) > KEPT_SCANS:
                    self._items.popitem(last=False)
            return found

    @property
    def current_scan(self) -> ScanItem | None:
        """The scan that was last heard of, while it runs or is paused."""
        found = self.current
        return None if found is None or found.ended.is_set() else found

    @property
    def current_scan_id(self) -> str | None:
        found = self.current_scan
        return None if found is None else found.scan_id

    def on_status(self, message: ScanStatusMessage) -> None:
        item = self.item(message.scan_id)
        item.on_status(message)
        self.current = item

    def on_file(self, message: FileMessage) -> None:
        self.item(message.scan_id).on_file(message)

    def recall(self, scan_id: str) -> ScanItem:
        """The scan of that id with its state as the streams tell it, for a scan that began before this client."""
        item = self.item(scan_id)
        if item.status_message is None:
            for endpoint, take in (
                (Endpoints.scan_status, item.on_status),
                (Endpoints.file_event, item.on_file),
            ):
                for entry in self._broker.entries(endpoint, count=500, newest=True):
                    if isinstance(entry, Delivery) and entry.message.scan_id == scan_id:
                        take(entry.message)
        if item.status_message is None:
            raise BECError(f"scan {scan_id} is not among the latest scans; look in bec.history")
        return item
