"""Scans that are over, from the newest to the oldest, and their files: `bec.history[-1].devices.samx.samx.read()`.

The only module of the client that opens HDF5 files. A file is opened for one reading and closed again, so that
nothing is held; what was read is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from bec_client.names import WrongName
from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, ReasonCode, StorageError
from bec_lib.messages import ScanHistoryMessage

COLLECTION = "/entry/collection"


# Entries that are read beyond those that are asked for: some scans have two, and came late when a disk had been full.
_SPARE = 200


def latest_of_each(messages: Iterable[ScanHistoryMessage]) -> list[ScanHistoryMessage]:
    """One message for each scan, by the time of its start. A scan whose file could only be written at a later attempt has an
    entry for its failure and one for its success: the last one counts.
    """
    latest = {message.scan_id: message for message in messages}
    return sorted(latest.values(), key=lambda message: message.started)


class History:
    """The scans of this deployment that have a final file, oldest first: `bec.history[-1]` is the latest."""

    def __init__(self, broker: Broker):
        self._broker = broker

    def messages(self, count: int | None = None) -> list[ScanHistoryMessage]:
        """The latest `count` scans, oldest first; None: all."""
        wanted = None if count is None else count + _SPARE
        while True:
            found = self._broker.entries(Endpoints.scan_history, count=wanted, newest=True)
            scans = latest_of_each(item.message for item in found if isinstance(item, Delivery))
            if count is None:
                return scans
            if len(scans) >= count or len(found) < (wanted or 0):
                return scans[-count:] if count > 0 else []
            wanted = 2 * len(found)

    def __len__(self) -> int:
        return len(self.messages())

    def __iter__(self) -> Iterator[ScanData]:
        return (ScanData.of(message) for message in self.messages())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [ScanData.of(message) for message in self.messages()[index]]
        messages = self.messages(-index if index < 0 else None)
        try:
            return ScanData.of(messages[index])
        except IndexError:
            raise IndexError(
                f"the history has {len(messages)} scans; there is no number {index} in it"
            ) from None

    def get_by_scan_id(self, scan_id: str) -> ScanData:
        """Raises BECError if no such scan is in the history."""
        for message in reversed(self.messages()):
            if message.scan_id == scan_id:
                return ScanData.of(message)
        raise BECError(f"there is no scan with the id {scan_id} in the history", code=ReasonCode.NOT_FOUND)

    def get_by_scan_number(self, number: int) -> ScanData:
        """Raises BECError if no such scan is in the history."""
        messages = self.messages()
        for message in reversed(messages):
            if message.scan_number == number:
                return ScanData.of(message)
        span = (
            f"it goes from {messages[0].scan_number} to {messages[-1].scan_number}"
            if messages
            else "it is empty"
        )
        raise BECError(f"there is no scan number {number} in the history; {span}", code=ReasonCode.NOT_FOUND)

    def get_by_dataset_number(self, number: int) -> list[ScanData]:
        """The scans of a dataset, oldest first. Raises BECError if there are none, or none that are still told of."""
        found = self._broker.entries(Endpoints.scan_status)
        wanted = {
            item.message.scan_id
            for item in found
            if isinstance(item, Delivery) and item.message.user_metadata.get("dataset_number") == number
        }
        scans = [ScanData.of(message) for message in self.messages() if message.scan_id in wanted]
        if not scans:
            raise BECError(
                f"there is no scan of dataset {number} among the latest scans; datasets are made by "
                "`with scans.dataset_id_on_hold:`",
                code=ReasonCode.NOT_FOUND,
            )
        return scans

    def __str__(self) -> str:
        from bec_client.tables import as_text, history_table

        return as_text(history_table(self.messages(20)))

    __repr__ = __str__


class ScanData:
    """One scan's file, read when it is asked for.

    `.devices.samx.samx.read()`, `.devices["samx"]`, `.readout_groups.monitored_devices`, `.metadata`, `.file_path`.
    """

    def __init__(self, file_path: str | Path, message: ScanHistoryMessage | None = None):
        self.file_path = str(file_path)
        self.message = message

    @classmethod
    def of(cls, message: ScanHistoryMessage) -> ScanData:
        return cls(message.file_path, message)

    @property
    def scan_id(self) -> str:
        return self.message.scan_id if self.message else str(self.metadata.get("bec", {}).get("scan_id", ""))

    @property
    def scan_number(self) -> int | None:
        return self.message.scan_number if self.message else None

    @property
    def devices(self) -> Group:
        """Device -> signal -> `.read()`."""
        return Group(self, f"{COLLECTION}/devices")

    @property
    def data(self) -> Group:
        """The same as `devices`."""
        return self.devices

    @property
    def setpoints(self) -> dict[str, Any]:
        """Motor -> where the scan wanted it at each point, an array; NaN where it did not say."""
        return self._arrays("setpoints")

    @property
    def labels(self) -> dict[str, Any]:
        """Label -> what the scan says of each point, an array."""
        return self._arrays("labels")

    def _arrays(self, group: str) -> dict[str, Any]:
        with open_file(self.file_path) as file:
            return {name: data[()] for name, data in file.get(f"{COLLECTION}/{group}", {}).items()}

    @property
    def readout_groups(self) -> ReadoutGroupsOfFile:
        return ReadoutGroupsOfFile(self)

    @property
    def metadata(self) -> dict[str, Any]:
        """Everything below the file's metadata, as nested dicts."""
        with open_file(self.file_path) as file:
            group = file.get(f"{COLLECTION}/metadata")
            return {} if group is None else _as_dict(group)

    def tree(self, full: bool = False) -> None:
        """Print what is in the file; full: a line for every dataset."""
        print(file_tree(self.file_path, full))

    def plot(self, x: str | None = None, y: str | None = None) -> None:
        """Draw it in the terminal."""
        from bec_client import plots

        print(plots.terminal(plots.from_file(self.file_path, x=x, y=y)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        message = self.__dict__.get("message")
        if message is not None and hasattr(message, name):
            return getattr(message, name)
        raise WrongName(f"a scan of the history has no {name!r}")

    def __repr__(self) -> str:
        if self.message is None:
            return f"<scan file {self.file_path}>"
        m = self.message
        when = datetime.fromtimestamp(m.started).strftime("%Y-%m-%d %H:%M:%S")
        return (
            f"<scan {m.scan_number}: {m.scan_name} of {', '.join(m.motors) or 'no motor'}, {m.num_points} points, "
            f"{m.status}, {when}>"
        )


class Group:
    """Names below a place in the file; a name gives the next level or, at a signal, its data."""

    def __init__(self, scan: ScanData, path: str):
        self._scan = scan
        self._path = path

    def keys(self) -> list[str]:
        with open_file(self._scan.file_path) as file:
            return list(file[self._path]) if self._path in file else []

    def read(self) -> dict[str, Any]:
        """Signal -> {"value", "timestamp"} for everything below, or these two for a signal."""
        with open_file(self._scan.file_path) as file:
            if self._path not in file:
                raise StorageError(f"{self._scan.file_path} has no {self._path}")
            return _readings(file[self._path])

    get = read

    def to_pandas(self) -> Any:
        """The values as a pandas DataFrame, one column per signal. Raises BECError without pandas."""
        pandas = pandas_module()
        read = self.read()
        if "value" in read:
            return pandas.DataFrame({self._path.rsplit("/", 1)[-1]: read["value"]})
        columns: dict[str, Any] = {}

        def collect(prefix: str, level: dict[str, Any]) -> None:
            for name, item in level.items():
                if not isinstance(item, dict):
                    continue
                if "value" in item:
                    columns[f"{prefix}{name}"] = item["value"]
                else:
                    collect(f"{prefix}{name}.", item)

        collect("", read)
        return pandas.DataFrame(columns)

    def __getitem__(self, name: str) -> Group:
        names = self.keys()
        if name not in names:
            raise KeyError(
                f"{name!r} is not in {self._path} of {self._scan.file_path}; there are {', '.join(names)}"
            )
        return Group(self._scan, f"{self._path}/{name}")

    def __getattr__(self, name: str) -> Group:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise WrongName(str(error.args[0])) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __dir__(self) -> list[str]:
        return [*self.keys(), "keys", "read", "get", "to_pandas"]

    def __repr__(self) -> str:
        return f"<{self._path.rsplit('/', 1)[-1]}: {', '.join(self.keys())}>"


def pandas_module() -> Any:
    """pandas, which is not among what is needed. Raises BECError without it."""
    try:
        import pandas  # type: ignore[import-untyped]
    except ImportError:
        raise BECError("to_pandas() needs pandas, which is not installed: pip install pandas") from None
    return pandas


class ReadoutGroupsOfFile:
    """`monitored_devices`, `baseline_devices`, `async_devices` of a scan."""

    def __init__(self, scan: ScanData):
        self._scan = scan

    def _group(self, name: str) -> Group:
        return Group(self._scan, f"{COLLECTION}/readout_groups/{name}")

    @property
    def monitored_devices(self) -> Group:
        return self._group("monitored")

    @property
    def baseline_devices(self) -> Group:
        return self._group("baseline")

    @property
    def async_devices(self) -> Group:
        return self._group("async")


# Files


def open_file(path: str | Path) -> Any:
    """An HDF5 file for reading, also while it is written. Raises StorageError that says why it cannot be opened."""
    import contextlib

    import h5py

    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  its import makes the compressions known
    file = Path(path)
    if not file.exists():
        raise StorageError(f"the file {file} does not exist on this computer")
    try:
        return h5py.File(file, "r", libver="latest", swmr=True)
    except (OSError, ValueError):
        pass
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise StorageError(f"{file} cannot be read as HDF5: {error}") from error


def file_tree(path: str | Path, full: bool = False) -> str:
    """The tree of an HDF5 file: groups with their class, datasets with shape, type, unit, and small values.

    full: a line for every dataset; else a signal with its value and time stamps is one line.
    """
    import h5py

    lines = [f"{Path(path).name}"]

    def walk(group: Any, indent: str) -> None:
        names = list(group)
        for position, name in enumerate(names):
            last = position == len(names) - 1
            branch, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                lines.append(f"{indent}{branch}{name} -> {link.path}")
                continue
            if isinstance(link, h5py.ExternalLink):
                lines.append(f"{indent}{branch}{name} -> {link.filename}:{link.path}")
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                lines.append(f"{indent}{branch}{name}{_dataset_words(item)}")
                continue
            if not full and set(item) <= {"value", "timestamp"} and "value" in item:
                lines.append(f"{indent}{branch}{name}{_dataset_words(item['value'])}")
                continue
            lines.append(f"{indent}{branch}{name}{_group_words(item)}")
            walk(item, indent + below)

    with open_file(path) as file:
        walk(file, "")
    return "\n".join(lines)


def _group_words(item: Any) -> str:
    kind = item.attrs.get("NX_class")
    text = f"  {_text(kind)}" if kind is not None else ""
    signal = item.attrs.get("signal") if _text(kind) == "NXdata" else None
    if signal is not None:
        axes = item.attrs.get("axes", [])
        names = [axes] if isinstance(axes, (str, bytes)) else list(axes)
        over = f" over {', '.join(_text(name) for name in names)}" if names else ""
        text += f" ({_text(signal)}{over})"
    return text


def _dataset_words(item: Any) -> str:
    unit = item.attrs.get("units")
    unit_text = f" [{_text(unit)}]" if unit is not None else ""
    if item.shape == ():
        value = _value(item[()])
        if isinstance(value, str):
            return f" = {value if len(value) <= 70 else value[:69] + '…'!r}"
        return f" = {value:.8g}{unit_text}" if isinstance(value, float) else f" = {value}{unit_text}"
    if item.dtype.names is not None:
        return f"  table of {item.shape[0]} rows"
    return f"  {' x '.join(str(n) for n in item.shape)} {item.dtype.name}{unit_text}"


def _readings(item: Any) -> dict[str, Any]:
    import h5py

    if isinstance(item, h5py.Dataset):
        return {"value": _value(item[()])}
    if "value" in item and isinstance(item["value"], h5py.Dataset):
        return {key: _value(item[key][()]) for key in ("value", "timestamp") if key in item}
    return {name: _readings(item[name]) for name in item if item.get(name) is not None}


def _as_dict(group: Any) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}
    for name in group:
        item = group[name]
        found[name] = _as_dict(item) if isinstance(item, h5py.Group) else _value(item[()])
    return found


def _value(value: Any) -> Any:
    import numpy as np

    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
        return [_value(item) for item in value.tolist()]
    return value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
