"""The life of a scan as everybody sees it: its intent and state, its schema, and the catalogue of scans.

Written by the scan server. One `ScanStatusMessage` per change of state; the first, `open`, is the intent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bec_lib.messages.base import ErrorInfo, Message, Part


class ScanState(StrEnum):
    """States of a scan, with BEC's names."""

    OPEN = "open"
    PAUSED = "paused"
    ABORTED = "aborted"
    HALTED = "halted"
    CLOSED = "closed"
    USER_COMPLETED = "user_completed"

    @property
    def is_terminal(self) -> bool:
        return self not in (ScanState.OPEN, ScanState.PAUSED)


class ReadoutGroups(Part):
    """Which device is read when, resolved for one scan. Names in the order in which they are read."""

    monitored: list[str] = []
    baseline: list[str] = []
    async_: list[str] = Field(default=[], alias="async")
    on_request: list[str] = []

    model_config = {"populate_by_name": True, "frozen": True, "extra": "ignore"}


class FileTarget(Part):
    """Where the scan's files go. `stem` is an absolute path without the ending, e.g.
    /data/p1/S00000-00999/S00042/S00042; the master file is `{stem}_master{suffix}.h5`, a detector's
    `{stem}_{device}{suffix}.h5`. `suffix` is empty or starts with `_`.
    """

    stem: str
    suffix: str = ""


class ScanStatusMessage(Message):
    """A scan's state changed.

    num_points: points announced by the plan, None if the scan cannot know. num_readouts: points committed, in
    terminal states. started, ended: seconds UTC, ended is None while it runs. timestamp: of this change.
    dead_time_s: for how long interlocks have held it so far.
    error: why it was not completed. config_hash, code_hash: of the device session and of the scan's source.
    """

    msg_type: ClassVar[str] = "scan_status"

    scan_id: str
    scan_number: int
    status: ScanState
    scan_name: str
    request_id: str
    queue: str = "primary"
    reason: str | None = None  # "user", "alarm" or "interlock"
    message: str = ""
    error: ErrorInfo | None = None
    scan_type: str = "step"
    user: str = ""
    account: str = ""
    session_id: str = ""
    dataset_number: int | None = None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    scan_parameters: dict[str, Any] = {}
    motors: list[str] = []
    shape: list[int] = []  # of the grid, row-major; [num_points] for a line; empty if irregular
    num_points: int | None = None
    num_readouts: int | None = None
    readout: ReadoutGroups = ReadoutGroups()
    scan_report_devices: list[str] = []
    user_metadata: dict[str, Any] = {}
    file: FileTarget | None = None
    relative: bool = False
    estimated_s: float | None = None
    config_hash: str = ""
    code_hash: str = ""
    started: float = 0.0
    ended: float | None = None
    timestamp: float = 0.0
    dead_time_s: float = 0.0


class ScanPositionsMessage(Message):
    """The targets of all points of a scan whose positions are known beforehand: float array (points, motors),
    absolute.
    """

    msg_type: ClassVar[str] = "scan_positions"
    max_array_bytes: ClassVar[int] = 256 * 1024 * 1024

    scan_id: str
    motors: list[str]
    positions: np.ndarray


class SignalSchema(Part):
    """One column of a scan's readings.

    dtype: numpy name, e.g. "float64", or "str". shape: of one value, [] for a scalar. unit: as the device
    says it, empty if it says none. kind: ophyd's, "hinted" or "normal". server: the device server that reads
    it.
    given: empty for what a device said. "target": where the scan wanted `device` to be, NaN where it did not say.
    "label": the scan's own word on each point, of the same name as `device`, which is none; doc: what it means.
    """

    device: str
    signal: str
    dtype: str = "float64"
    shape: list[int] = []
    unit: str = ""
    kind: str = "hinted"
    precision: int | None = None
    server: str = "main"
    given: str = ""
    doc: str = ""


class DeviceSchema(Part):
    """What a file needs to know about a device of the scan.

    role: positioner, detector, monitor, signal. configuration: signal -> {"value", "timestamp", "units"} as
    read at staging.
    files: detector files announced at staging, each {"path", "dataset"}.
    """

    name: str
    device_class: str = ""
    description: str = ""
    role: str = "signal"
    readout: str = "monitored"
    hints: list[str] = []
    limits: list[float] | None = None
    configuration: dict[str, Any] = {}
    user_parameter: dict[str, Any] = {}
    files: list[dict[str, Any]] = []


class ScanSchemaMessage(Message):
    """The columns of a scan's points and of its baseline, fixed when all devices are staged.

    The order of `signals` is the order of the columns in every reading and point of this version; likewise
    `baseline`. A re-stage that changes anything gives the next version.
    """

    msg_type: ClassVar[str] = "scan_schema"

    scan_id: str
    version: int = 1
    signals: list[SignalSchema]
    baseline: list[SignalSchema] = []
    devices: list[DeviceSchema] = []
    motors: list[str] = []
    servers: list[str] = ["main"]


class ParameterInfo(Part):
    """A keyword parameter of a scan, as published. type: device, float, int, bool, str, list, any."""

    name: str
    type: str = "any"
    required: bool = False
    default: Any = None
    unit: str = ""
    reference_unit: str = ""  # the name of the bundle's device argument whose unit is meant
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    choices: list[Any] | None = None
    moved: bool = True  # of a device: the scan moves it; False: it only reads it
    doc: str = ""


class BundleInfo(Part):
    """The group of positional arguments that is repeated, e.g. (device, start, stop). at_least, at_most:
    repetitions.
    """

    parameters: list[ParameterInfo] = []
    at_least: int = 0
    at_most: int | None = None


class ScanInfo(Part):
    """A scan as a client offers it, without having its code."""

    name: str
    doc: str = ""
    bundle: BundleInfo = BundleInfo()
    parameters: list[ParameterInfo] = []
    is_scan: bool = True  # False for mv: no scan number, no file
    plugin: str = "builtin"
    modifiers: list[str] = []  # that have changed its signature, or have steps for it


class ModifierInfo(Part):
    """A scan modifier. scans: those it changes -> how, e.g. ["before points", "exp_time=0.1"]."""

    name: str
    plugin: str
    doc: str = ""
    scans: dict[str, list[str]] = {}


class AvailableScansMessage(Message):
    """The catalogue of scans, as modifiers have changed them. failed: plugin name -> why it, or a part of it, is not used.
    plugins: name -> distribution and module.
    """

    msg_type: ClassVar[str] = "available_scans"

    scans: dict[str, ScanInfo]
    failed: dict[str, str] = {}
    modifiers: dict[str, ModifierInfo] = {}
    plugins: dict[str, str] = {}


class ScanJournalMessage(Message):
    """A committed step of a scan, for replay: the result that the scan's generator received for step `step`."""

    msg_type: ClassVar[str] = "scan_journal"

    scan_id: str
    step: int
    kind: str
    result: Any = None


class ScanHistoryMessage(Message):
    """A scan that is over and whose file is final."""

    msg_type: ClassVar[str] = "scan_history"

    scan_id: str
    scan_number: int
    scan_name: str
    status: ScanState
    file_path: str
    num_points: int
    started: float
    ended: float
    user: str = ""
    account: str = ""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    motors: list[str] = []
    message: str = ""
    file_error: str = ""
