"""The default format: BEC's tree below /entry/collection, and NeXus (NXscan) around it.

The values stand once, in `/entry/collection/devices/<device>/<signal>/{value,timestamp}`; everything else links
there. What NXscan asks for and how it is met: detectors have integer `data`, so readings that are no integers
(currents, voltages) are NXdetector groups in the collection `instrument/detectors`, which the definition leaves
alone; a scan without any counting detector has the clock of the control system as one; `sample/rotation_angle`
is the scanned (or baseline) device with an angle for a unit, else NaN, which says that it was not measured.

Columns that no device said stand apart: `collection/setpoints/<motor>`, which is also the positioner's `target_value`,
and `collection/labels/<label>`. A scan with the label `image_key` is a tomogram: `tomo_entry` is what NXtomo wants of it.

Sources: NeXus definitions v2026.01 (NXscan, NXtomo, NXdata), BEC's published file layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from bec_lib.codec import plain
from bec_lib.messages import DeviceSchema, ScanStatusMessage, SignalSchema
from file_writer.layout import (
    Attributes,
    Column,
    EndFacts,
    ExternalLink,
    Facility,
    Field,
    Group,
    Link,
    Member,
    ScanFacts,
    Source,
    Value,
)

LAYOUT_VERSION = "1.0"

DEVICES = "/entry/collection/devices"
SETPOINTS = "/entry/collection/setpoints"
LABELS = "/entry/collection/labels"
IMAGE_KEY = "image_key"
ELAPSED_NS = "/entry/control/data"

# Bytes kept in the growing file for what is known only at the end.
TIME_BYTES = 40
WORD_BYTES = 32
SENTENCE_BYTES = 1024
# A column of texts has texts of one length.
TEXT_COLUMN_BYTES = 256

ANGLES = frozenset(
    ("deg", "degree", "degrees", "°", "rad", "radian", "radians", "mrad", "urad", "arcmin", "arcsec")
)


class NexusFormat:
    """See the module."""

    def layout(self, scan: ScanFacts) -> Group:
        view = _View(scan)
        tomo = _tomo(view)
        default = {"default": "data"} if view.signal is not None else {}
        if any(group.attributes for group in tomo):
            default = {"default": "tomo_entry"}
        return Group(
            "",
            "NXroot",
            (
                Group(
                    "entry",
                    "NXentry",
                    (
                        *_entry_fields(scan),
                        *_user(scan.status),
                        _instrument(view),
                        _sample(view),
                        _control(),
                        _data(view),
                        *tomo,
                        _collection(view),
                    ),
                    {**default, "version": LAYOUT_VERSION},
                ),
            ),
            {"default": "entry", "creator": "BEC"},
        )

    def closing(self, scan: ScanFacts, end: EndFacts) -> Mapping[str, Value]:
        ended = iso_time(end.ended, scan.zone)
        last = end.status or scan.status
        error = last.error.error_message if last.error is not None else ""
        bec = "/entry/collection/metadata/bec"
        return {
            "/entry/start_time": iso_time(scan.status.started, scan.zone),
            "/entry/end_time": ended,
            "/entry/collection/metadata/end_time": ended,
            f"{bec}/status": end.state,
            f"{bec}/exit_reason": (last.reason or "") if end.status is not None else "",
            f"{bec}/message": last.message if end.status is not None else "",
            f"{bec}/error": error if end.status is not None else "",
            f"{bec}/num_readouts": end.count,
            f"{bec}/dead_time_s": last.dead_time_s if end.status is not None else math.nan,
        }


class _View:
    """The scan's schema, sorted by what a signal is in the file."""

    def __init__(self, scan: ScanFacts):
        self.scan = scan
        schema, status = scan.schema, scan.status
        self.devices: dict[str, DeviceSchema] = {device.name: device for device in schema.devices}
        self.motors = [
            name
            for name in dict.fromkeys(schema.motors or status.motors)
            if any(signal.device == name and not signal.given for signal in schema.signals)
        ]
        self.targets = {signal.device: signal for signal in schema.signals if signal.given == "target"}
        self.labels = {signal.device: signal for signal in schema.signals if signal.given == "label"}
        self.baseline = _by_device(schema.baseline)
        self.monitored = _by_device([signal for signal in schema.signals if not signal.given])
        positioners = {
            name
            for name in self.monitored
            if name in self.motors or (name in self.devices and self.devices[name].role == "positioner")
        }
        self.positioners: dict[str, SignalSchema] = {
            name: _main_signal(signals) for name, signals in self.monitored.items() if name in positioners
        }
        self.detectors = [
            signal
            for name, signals in self.monitored.items()
            if name not in positioners
            for signal in ([s for s in signals if s.kind == "hinted"] or signals[:1])
            if stored_dtype(signal.dtype) != "str"
        ]
        self.counting = [signal for signal in self.detectors if _is_integer(signal)]
        plotted = [signal for signal in self.detectors if not signal.shape] or self.detectors
        self.signal: SignalSchema | None = plotted[0] if plotted else None
        if self.signal is None and self.positioners:
            others = [signal for name, signal in self.positioners.items() if name not in self.motors]
            self.signal = (others or list(self.positioners.values()))[0]
        self.rotation = self._rotation()

    def _rotation(self) -> str | None:
        """Path of the value of the first device whose unit is an angle: scanned before baseline."""
        moved = [self.positioners[name] for name in self.motors]
        for signal in moved:
            if signal.unit in ANGLES and _is_float(signal):
                return value_path(signal)
        for name, signals in self.baseline.items():
            main = _main_signal(signals)
            device = self.devices.get(name)
            if main.unit in ANGLES and _is_float(main) and device is not None and device.role == "positioner":
                return value_path(main)
        return None


def value_path(signal: SignalSchema) -> str:
    """Where a signal's values stand."""
    if signal.given:
        return f"{LABELS if signal.given == 'label' else SETPOINTS}/{safe(signal.device)}"
    return f"{DEVICES}/{safe(signal.device)}/{safe(signal.signal)}/value"


def safe(name: str) -> str:
    """A name as HDF5 and NeXus can have it: a slash would be another level."""
    return name.replace("/", "_") or "_"


def stored_dtype(name: str) -> str:
    """A signal's dtype in the file: as announced if it is one of numbers, else "str"."""
    try:
        return name if np.dtype(name).kind in "biufc" else "str"
    except TypeError:
        return "str"


def display_name(signal: SignalSchema) -> str:
    """A signal's name where signals of all devices stand side by side."""
    if signal.signal == signal.device or signal.signal.startswith(f"{signal.device}_"):
        return safe(signal.signal)
    return safe(f"{signal.device}_{signal.signal}")


def iso_time(seconds: float, zone: tzinfo) -> str:
    """ISO 8601 with zone, to the microsecond."""
    return datetime.fromtimestamp(seconds, zone).isoformat(timespec="microseconds")


def scan_command(status: ScanStatusMessage) -> str:
    """The call as a user would type it again."""
    devices = {
        *status.motors,
        *status.readout.monitored,
        *status.readout.baseline,
        *status.readout.async_,
        *status.readout.on_request,
    }

    def shown(value: Any) -> str:
        return f"dev.{value}" if isinstance(value, str) and value in devices else repr(plain(value))

    words = [shown(value) for value in status.args]
    words += [f"{name}={shown(value)}" for name, value in status.kwargs.items()]
    return f"scans.{status.scan_name}({', '.join(words)})"


def _entry_fields(scan: ScanFacts) -> list[Field]:
    status = scan.status
    title = status.user_metadata.get("title") or scan_command(status)
    fields = [
        Field("definition", "NXscan"),
        Field("title", str(title)),
        Field("start_time", iso_time(status.started, scan.zone)),
        Field("end_time", late=True, length=TIME_BYTES),
        Field("entry_identifier", str(status.scan_number)),
        Field("entry_identifier_uuid", status.scan_id, attributes={"description": "scan id"}),
        Field("program_name", "BEC"),
    ]
    if status.account:
        fields.append(Field("experiment_identifier", status.account))
    description = status.user_metadata.get("experiment_description")
    if description:
        fields.append(Field("experiment_description", str(description)))
    return fields


def _user(status: ScanStatusMessage) -> list[Group]:
    return [Group("user", "NXuser", (Field("name", status.user),))] if status.user else []


def _instrument(view: _View) -> Group:
    facility = view.scan.facility
    members: list[Member] = []
    if facility.instrument:
        members.append(Field("name", facility.instrument))
    members += _source(facility)
    taken = {"name", "source", "detectors", "clock"}
    for name, signal in view.positioners.items():
        members.append(_positioner(view, _free(safe(name), taken), signal))
    others: list[Member] = []
    for signal in view.detectors:
        counts = _is_integer(signal)
        group = _detector(view, _free(display_name(signal), taken), signal)
        (members if counts else others).append(group)
    if others:
        members.append(Group("detectors", "NXcollection", tuple(others)))
    if not view.counting:
        members.append(
            Group(
                "clock",
                "NXdetector",
                (
                    Field("description", "clock of the control system: time of each point since the start"),
                    Link("data", ELAPSED_NS),
                ),
            )
        )
    return Group("instrument", "NXinstrument", tuple(members))


def _source(facility: Facility) -> list[Group]:
    fields = [
        Field(name, value)
        for name, value in (
            ("name", facility.source_name),
            ("type", facility.source_type),
            ("probe", facility.probe),
        )
        if value
    ]
    return [Group("source", "NXsource", tuple(fields))] if fields else []


def _positioner(view: _View, name: str, signal: SignalSchema) -> Group:
    device = view.devices.get(signal.device)
    unit: Attributes = {"units": signal.unit} if signal.unit else {}
    members: list[Member] = [Field("name", signal.device), Link("value", value_path(signal))]
    if signal.device in view.targets:
        members.append(Link("target_value", value_path(view.targets[signal.device])))
    if device is not None and device.description:
        members.append(Field("description", device.description))
    if device is not None and device.limits is not None and len(device.limits) == 2:
        low, high = device.limits
        if low < high:
            members.append(Field("soft_limit_min", float(low), attributes=unit))
            members.append(Field("soft_limit_max", float(high), attributes=unit))
    return Group(name, "NXpositioner", tuple(members))


def _detector(view: _View, name: str, signal: SignalSchema) -> Group:
    device = view.devices.get(signal.device)
    members: list[Member] = [Link("data", value_path(signal)), Field("local_name", signal.device)]
    if device is not None and device.description:
        members.append(Field("description", device.description))
    return Group(name, "NXdetector", tuple(members))


def _sample(view: _View) -> Group:
    metadata = view.scan.status.user_metadata
    members: list[Member] = []
    for field_name, keys in (
        ("name", ("sample_name", "sample")),
        ("description", ("sample_description",)),
        ("chemical_formula", ("chemical_formula",)),
    ):
        text = next((str(metadata[key]) for key in keys if metadata.get(key)), "")
        if text:
            members.append(Field(field_name, text))
    if view.rotation is not None:
        members.append(Link("rotation_angle", view.rotation))
    else:
        members.append(
            Field(
                "rotation_angle",
                math.nan,
                attributes={
                    "units": "deg",
                    "description": "not measured",
                    "target": "/entry/sample/rotation_angle",
                },
            )
        )
    return Group("sample", "NXsample", tuple(members))


def _control() -> Group:
    return Group(
        "control",
        "NXmonitor",
        (
            Field("mode", "timer"),
            Field(
                "data",
                dtype="int64",
                column=Column(Source.ELAPSED_NS),
                attributes={
                    "units": "ns",
                    "long_name": "time since the start of the scan",
                    "target": ELAPSED_NS,
                },
            ),
        ),
    )


def _data(view: _View) -> Group:
    """The default plot: the first detector against the motors, all of them as one row per point."""
    members: list[Member] = []
    attributes: dict[str, Value] = {}
    counting = value_path(view.counting[0]) if view.counting else ELAPSED_NS
    members.append(Link("data", counting))
    rotation = view.rotation or "/entry/sample/rotation_angle"
    members.append(Link("rotation_angle", rotation))
    taken = {"data", "rotation_angle", "elapsed_time", "title"}
    names: dict[str, str] = {}
    for name, signal in view.positioners.items():
        names[name] = _free(safe(name), taken)
        members.append(Link(names[name], value_path(signal)))
    for name, label in view.labels.items():
        members.append(Link(_free(safe(name), taken), value_path(label)))
    plotted = view.signal
    shown: list[str] = []
    for signal in view.detectors:
        # A viewer takes all signals to have one shape; larger ones are found among the detectors.
        if plotted is not None and signal.shape != plotted.shape:
            continue
        shown.append(_free(display_name(signal), taken))
        members.append(Link(shown[-1], value_path(signal)))
    if not shown and plotted is not None:
        shown = [names[plotted.device]]
    axes = [names[name] for name in view.motors if names[name] not in shown[:1]]
    if not axes:
        axes = ["elapsed_time"]
        members.append(
            Field(
                "elapsed_time",
                dtype="float64",
                column=Column(Source.ELAPSED_S),
                attributes={"units": "s", "description": "time since the start of the scan"},
            )
        )
    if shown and plotted is not None:
        attributes["signal"] = shown[0]
        if shown[1:]:
            attributes["auxiliary_signals"] = shown[1:]
        # Two motors that do not run along a line: points in a plane, which viewers draw as a scatter plot.
        # All others get one axis for one dimension, as NXdata has it; further motors are coordinates of it.
        plane = len(axes) == 2 and len(view.scan.status.shape) != 1 and not plotted.shape
        attributes["axes"] = axes if plane else [axes[0], *(["."] * len(plotted.shape))]
        for name in axes:
            attributes[f"{name}_indices"] = [0]
        members.append(Field("title", _plot_title(view)))
    return Group("data", "NXdata", tuple(members), attributes)


def _plot_title(view: _View) -> str:
    return f"scan {view.scan.status.scan_number}: {view.scan.status.scan_name}"


def _tomo(view: _View) -> list[Group]:
    """A tomogram as NXtomo has it; without frames of integers there is all but the definition's name and a default plot."""
    key = view.labels.get(IMAGE_KEY)
    angle = next(
        (p for name in view.motors if (p := view.positioners[name]).unit in ANGLES and _is_float(p)), None
    )
    if key is None or angle is None:
        return []
    metadata = view.scan.status.user_metadata
    conforms, frames = _frames(view)
    key_link, angle_link = Link(IMAGE_KEY, value_path(key)), Link("rotation_angle", value_path(angle))
    members: list[Member] = [
        Field("title", str(metadata.get("title") or scan_command(view.scan.status))),
        Group(
            "instrument",
            "NXinstrument",
            (
                *_source(view.scan.facility),
                Group("detector", "NXdetector", (*frames, key_link)),
            ),
        ),
        Group(
            "sample",
            "NXsample",
            (
                Field("name", str(metadata.get("sample_name") or metadata.get("sample") or "not named")),
                angle_link,
            ),
        ),
        Group(
            "data",
            "NXdata",
            (*frames, angle_link, key_link, Field("title", _plot_title(view))),
            {"signal": "data", "axes": ["rotation_angle", ".", "."], "rotation_angle_indices": [0]}
            if conforms
            else {},
        ),
    ]
    if conforms:
        members.insert(0, Field("definition", "NXtomo"))
    return [Group("tomo_entry", "NXsubentry", tuple(members), {"default": "data"} if conforms else {})]


def _frames(view: _View) -> tuple[bool, list[Member]]:
    """The frames of the first camera: in a file of its own, else in the readings, else one number for each. And whether
    they are frames of integers, one for each point.
    """
    parameters = view.scan.status.scan_parameters
    folder = PurePosixPath(view.scan.file).parent
    for device in view.scan.schema.devices:
        for item in device.files:
            path, dataset = str(item.get("path") or ""), str(item.get("dataset") or "/")
            if path and dataset != "/":  # a file as a whole does not say where its frames are
                one_each = parameters.get("frames_per_trigger", 1) == 1
                return one_each, [ExternalLink("data", _relative(path, folder), dataset)]
    frames = [signal for signals in view.monitored.values() for signal in signals if len(signal.shape) == 2]
    found = ([signal for signal in frames if _is_integer(signal)] or frames or view.detectors)[:1]
    conforms = bool(found) and len(found[0].shape) == 2 and _is_integer(found[0])
    return conforms, [Link("data", value_path(signal)) for signal in found]


def _collection(view: _View) -> Group:
    return Group(
        "collection",
        "NXcollection",
        (
            _devices(view),
            *_given(view),
            *_configuration(view),
            _readout_groups(view),
            *_file_references(view),
            _metadata(view),
        ),
    )


def _devices(view: _View) -> Group:
    schema = view.scan.schema
    found: dict[str, list[Member]] = {}
    for columns, value, timestamp in (
        (schema.signals, Source.VALUE, Source.TIMESTAMP),
        (schema.baseline, Source.BASELINE_VALUE, Source.BASELINE_TIMESTAMP),
    ):
        for index, signal in enumerate(columns):
            if signal.given:
                continue
            members = found.setdefault(safe(signal.device), [])
            if any(member.name == safe(signal.signal) for member in members):
                continue  # a device that is both monitored and in the baseline: its points say it all
            members.append(_signal(signal, Column(value, index), Column(timestamp, index)))
    return Group(
        "devices",
        "NXcollection",
        tuple(
            Group(name, "NXcollection", tuple(members), {"target": f"{DEVICES}/{name}"})
            for name, members in found.items()
        ),
    )


def _given(view: _View) -> list[Group]:
    """What no device said: where the scan wanted its motors to be, and its labels."""
    places = {(signal.device, signal.signal): n for n, signal in enumerate(view.scan.schema.signals)}
    groups = []
    for name, signals, meaning in (
        ("setpoints", view.targets, "where the scan wanted the device to be; NaN: it did not say"),
        ("labels", view.labels, "what the scan says of each point"),
    ):
        fields = []
        for signal in signals.values():
            attributes: dict[str, Value] = {"target": value_path(signal)}
            if signal.unit:
                attributes["units"] = signal.unit
            if signal.doc:
                attributes["description"] = signal.doc
            is_text = stored_dtype(signal.dtype) == "str"
            fields.append(
                Field(
                    safe(signal.device),
                    dtype=stored_dtype(signal.dtype),
                    column=Column(Source.VALUE, places[signal.device, signal.signal]),
                    length=TEXT_COLUMN_BYTES if is_text else 0,
                    attributes=attributes,
                )
            )
        if fields:
            groups.append(Group(name, "NXcollection", tuple(fields), {"description": meaning}))
    return groups


def _signal(signal: SignalSchema, value: Column, timestamp: Column) -> Group:
    attributes: dict[str, Value] = {"target": value_path(signal)}
    if signal.unit:
        attributes["units"] = signal.unit
    if signal.precision is not None:
        attributes["precision"] = signal.precision
    dtype = stored_dtype(signal.dtype)
    return Group(
        safe(signal.signal),
        "NXdata",
        (
            Field(
                "value",
                dtype=dtype,
                shape=() if dtype == "str" else tuple(signal.shape),
                column=value,
                length=TEXT_COLUMN_BYTES if dtype == "str" else 0,
                attributes=attributes,
            ),
            Field("timestamp", dtype="float64", column=timestamp, attributes={"units": "s"}),
        ),
        {"signal": "value"},
    )


def _configuration(view: _View) -> list[Field]:
    """One table, a line for each configuration signal: a group for each would be most of the file."""
    texts: list[tuple[bytes, ...]] = []
    times: list[float] = []
    for device in view.scan.schema.devices:
        for name, item in device.configuration.items():
            if isinstance(item, Mapping):
                value, unit = json.dumps(plain(item.get("value"))), str(item.get("units") or "")
                texts.append(tuple(text.encode() for text in (device.name, name, value, unit)))
                times.append(float(item.get("timestamp") or math.nan))
    if not texts:
        return []
    names = ("device", "signal", "value", "units")
    lengths = [max(1, *(len(row[column]) for row in texts)) for column in range(len(names))]
    table = np.empty(
        len(texts),
        dtype=[(name, f"S{length}") for name, length in zip(names, lengths, strict=True)]
        + [("timestamp", "f8")],
    )
    for column, name in enumerate(names):
        table[name] = [row[column] for row in texts]
    table["timestamp"] = times
    return [Field("configuration", table, attributes={"description": "value: JSON; timestamp: s, UTC"})]


def _readout_groups(view: _View) -> Group:
    readout = view.scan.status.readout
    present = {
        safe(signal.device)
        for signal in (*view.scan.schema.signals, *view.scan.schema.baseline)
        if not signal.given
    }
    present |= {safe(device.name) for device in view.scan.schema.devices if device.files}
    groups = (
        ("monitored", readout.monitored or list(view.monitored)),
        ("baseline", readout.baseline or list(view.baseline)),
        ("async", readout.async_),
    )
    return Group(
        "readout_groups",
        "NXcollection",
        tuple(
            Group(
                name,
                "NXcollection",
                tuple(
                    Link(device, f"{DEVICES}/{device}")
                    for device in dict.fromkeys(safe(device) for device in devices)
                    if device in present
                ),
            )
            for name, devices in groups
        ),
    )


def _file_references(view: _View) -> list[Group]:
    """Links to the detectors' own files, relative, so that the folder can be moved."""
    groups = []
    folder = PurePosixPath(view.scan.file).parent
    for device in view.scan.schema.devices:
        members = []
        taken: set[str] = set()
        for item in device.files:
            path, dataset = str(item.get("path") or ""), str(item.get("dataset") or "/")
            if not path:
                continue
            name = _free(safe(str(item.get("name") or "data")), taken)
            members.append(ExternalLink(name, _relative(path, folder), dataset))
        if members:
            groups.append(Group(safe(device.name), "NXcollection", tuple(members)))
    return [Group("file_references", "NXcollection", tuple(groups))] if groups else []


def _relative(path: str, folder: PurePosixPath) -> str:
    file = PurePosixPath(path)
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)


def _metadata(view: _View) -> Group:
    scan, status = view.scan, view.scan.status
    start = iso_time(status.started, scan.zone)
    taken = {"bec", "start_time", "end_time"}
    return Group(
        "metadata",
        "NXcollection",
        (
            Field("start_time", start),
            Field("end_time", late=True, length=TIME_BYTES),
            *(
                Field(_free(safe(str(key)), taken), _storable(value))
                for key, value in status.user_metadata.items()
            ),
            Group("bec", "NXcollection", tuple(_bec_metadata(status))),
        ),
    )


def _bec_metadata(status: ScanStatusMessage) -> Iterable[Field]:
    plain_values: dict[str, Value] = {
        "scan_id": status.scan_id,
        "scan_number": status.scan_number,
        "scan_name": status.scan_name,
        "scan_type": status.scan_type,
        "scan_command": scan_command(status),
        "RID": status.request_id,
        "queue": status.queue,
        "user": status.user,
        "account": status.account,
        "session_id": status.session_id,
        "relative": status.relative,
        "scan_motors": list(status.motors),
        "scan_report_devices": list(status.scan_report_devices),
        "shape": list(status.shape),
        "config_hash": status.config_hash,
        "code_hash": status.code_hash,
    }
    if status.num_points is not None:
        plain_values["num_points"] = status.num_points
    if status.dataset_number is not None:
        plain_values["dataset_number"] = status.dataset_number
    for name, value in plain_values.items():
        if value not in ("", []):
            yield Field(name, value)
    for name, content in (
        ("args", status.args),
        ("kwargs", status.kwargs),
        ("scan_parameters", status.scan_parameters),
        ("readout_priority", plain(status.readout)),
    ):
        yield Field(name, json.dumps(plain(content)), attributes={"format": "JSON"})
    yield Field("status", late=True, length=WORD_BYTES)
    yield Field("exit_reason", late=True, length=WORD_BYTES)
    yield Field("message", late=True, length=SENTENCE_BYTES)
    yield Field("error", late=True, length=SENTENCE_BYTES)
    yield Field("num_readouts", dtype="int64", late=True)
    held = {"units": "s", "description": "for how long interlocks have held the scan"}
    yield Field("dead_time_s", dtype="float64", late=True, attributes=held)


def _by_device(signals: Sequence[SignalSchema]) -> dict[str, list[SignalSchema]]:
    found: dict[str, list[SignalSchema]] = {}
    for signal in signals:
        found.setdefault(signal.device, []).append(signal)
    return found


def _main_signal(signals: Sequence[SignalSchema]) -> SignalSchema:
    """The one that stands for the device: named like it, else the first hinted, else the first."""
    named = [signal for signal in signals if signal.signal == signal.device]
    hinted = [signal for signal in signals if signal.kind == "hinted"]
    return (named or hinted or list(signals))[0]


def _is_integer(signal: SignalSchema) -> bool:
    return signal.dtype.startswith(("int", "uint"))


def _is_float(signal: SignalSchema) -> bool:
    return signal.dtype.startswith("float") and not signal.shape


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken; takes it."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


def _storable(value: Any) -> Value:
    """A user's metadata as a field can hold it; what is no text or number becomes JSON."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size:
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return list(value)
    return json.dumps(plain(value), default=str)
