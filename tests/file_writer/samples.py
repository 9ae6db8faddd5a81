"""Scans to write files of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta, timezone
from typing import Any

from bec_lib.messages import (
    BaselineMessage,
    DeviceSchema,
    PointsMessage,
    ReadoutGroups,
    ScanSchemaMessage,
    ScanState,
    ScanStatusMessage,
    SignalSchema,
)
from file_writer.layout import Facility, ScanFacts

STARTED = 1_700_000_000.0
SCAN_ID = "018bcfe5-6800-7000-8000-000000000001"

SAMX = SignalSchema(device="samx", signal="samx", unit="mm", precision=3)
SAMX_SETPOINT = SignalSchema(device="samx", signal="samx_setpoint", unit="mm", kind="normal")
SAMY = SignalSchema(device="samy", signal="samy", unit="mm")
OMEGA = SignalSchema(device="omega", signal="omega", unit="deg")
COUNTER = SignalSchema(device="counter", signal="counter", dtype="int64", unit="counts")
DIODE = SignalSchema(device="diode", signal="diode", unit="nA")
SPECTRUM = SignalSchema(device="mca", signal="mca_spectrum", dtype="int64", shape=[8])
SHUTTER = SignalSchema(device="shutter", signal="shutter", dtype="str")
SAMZ = SignalSchema(device="samz", signal="samz", unit="mm")
SAMX_TARGET = SignalSchema(device="samx", signal="samx_target", unit="mm", kind="normal", given="target")
OMEGA_TARGET = SignalSchema(device="omega", signal="omega_target", unit="deg", kind="normal", given="target")
IMAGE_KEY = SignalSchema(
    device="image_key", signal="image_key", dtype="int64", given="label", doc="0: projection, 1: flat field"
)
FRAMES = SignalSchema(device="camera", signal="camera_image", dtype="uint16", shape=[3, 4], kind="normal")

DEVICES = {
    "samx": DeviceSchema(
        name="samx",
        role="positioner",
        description="sample, horizontal",
        limits=[-10.0, 10.0],
        configuration={"samx_velocity": {"value": 2.5, "timestamp": STARTED - 60, "units": "mm/s"}},
    ),
    "samy": DeviceSchema(name="samy", role="positioner"),
    "omega": DeviceSchema(name="omega", role="positioner"),
    "samz": DeviceSchema(name="samz", role="positioner", readout="baseline"),
    "counter": DeviceSchema(name="counter", role="detector"),
    "diode": DeviceSchema(name="diode", role="monitor", description="photodiode behind the sample"),
    "mca": DeviceSchema(name="mca", role="detector"),
    "shutter": DeviceSchema(name="shutter"),
    "camera": DeviceSchema(name="camera", role="detector"),
}


def schema_of(
    signals: Sequence[SignalSchema] = (SAMX, SAMX_SETPOINT, COUNTER, DIODE),
    baseline: Sequence[SignalSchema] = (SAMZ,),
    motors: Sequence[str] = ("samx",),
    **changes: Any,
) -> ScanSchemaMessage:
    names = dict.fromkeys(signal.device for signal in (*signals, *baseline))
    return ScanSchemaMessage(
        scan_id=SCAN_ID,
        signals=list(signals),
        baseline=list(baseline),
        devices=[DEVICES[name] for name in names if name in DEVICES],
        motors=list(motors),
    ).model_copy(update=changes)


def status_of(state: ScanState = ScanState.OPEN, **changes: Any) -> ScanStatusMessage:
    return ScanStatusMessage(
        scan_id=SCAN_ID,
        scan_number=42,
        status=state,
        scan_name="line_scan",
        request_id="request-1",
        user="ada",
        account="p12345",
        args=["samx", -1, 1],
        kwargs={"steps": 3, "relative": False},
        scan_parameters={"exp_time": 0.1},
        motors=["samx"],
        shape=[3],
        num_points=3,
        readout=ReadoutGroups(monitored=["samx", "counter", "diode"], baseline=["samz"]),
        user_metadata={"sample_name": "gold foil", "run": 7},
        started=STARTED,
    ).model_copy(update=changes)


def facts_of(
    schema: ScanSchemaMessage | None = None, status: ScanStatusMessage | None = None, **changes: Any
) -> ScanFacts:
    return ScanFacts(
        status=status or status_of(),
        schema=schema or schema_of(),
        facility=changes.get(
            "facility", Facility("X01", "a storage ring", "Synchrotron X-ray Source", "x-ray")
        ),
        zone=timezone(timedelta(hours=1)),
        file="/data/p12345/S00000-00999/S00042/S00042_master.h5",
    )


def points_of(
    schema: ScanSchemaMessage, first: int, count: int, *, values: Sequence[Any] | None = None
) -> PointsMessage:
    """Points whose values are their number (texts: as text, arrays: full of it)."""

    def cell(signal: SignalSchema, index: int) -> Any:
        if signal.dtype == "str":
            return f"point {index}"
        number: Any = index if signal.dtype.startswith(("int", "uint")) else float(index)
        for length in reversed(signal.shape):
            number = [number] * length
        return number

    numbers = range(first, first + count)
    times = [STARTED + 0.5 * index for index in numbers]
    return PointsMessage(
        scan_id=schema.scan_id,
        schema_version=schema.version,
        first_index=first,
        count=count,
        values=list(values)
        if values is not None
        else [[cell(signal, index) for index in numbers] for signal in schema.signals],
        device_times=[times for _ in schema.signals],
        server_times=times,
    )


def baseline_of(value: float = 1.5) -> BaselineMessage:
    return BaselineMessage(scan_id=SCAN_ID, values=[value], device_times=[STARTED - 1.0])
