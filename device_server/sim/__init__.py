"""A beamline that exists only in memory: positioners, detectors and a ring current, as ophyd devices.

A device configuration names these classes as `device_server.sim.SimPositioner`, and so on; BEC's names for the same
things work too. `CLASSES` holds all of them by name.
"""

from __future__ import annotations

from typing import Any

from device_server.sim.broken import (
    FailingDescribe,
    FailingPositioner,
    FailingStage,
    FlakyMonitor,
    NeverConnects,
    RaisesInConstructor,
    SimulatedFault,
    SlowMonitor,
    StuckStopPositioner,
)
from device_server.sim.camera import SimCamera
from device_server.sim.flyer import FlightStopped, SimFlyer
from device_server.sim.lookup import DeviceNotFound
from device_server.sim.monitor import SimMonitor
from device_server.sim.positioner import MoveReplaced, MoveStopped, SimPositioner, SimXYZStage
from device_server.sim.ring import RingCurrent
from device_server.sim.shutter import SimShutter
from device_server.sim.signals import ReadOnlySignal, SetableSignal
from device_server.sim.waveform import SimWaveform
from device_server.sim.zero import ConstSignal, ZeroMotor

ALIASES: dict[str, type] = {
    "SynAxisOPAAS": SimPositioner,
    "SimLinearTrajectoryPositioner": SimPositioner,
    "SynAxisMonitor": SimMonitor,
    "SynGaussBEC": SimMonitor,
    "SynSignalRO": ReadOnlySignal,
    "SynDeviceOPAAS": SimXYZStage,
    "SimPositionerWithCommFailure": FailingPositioner,
    "SimPositionerWithDescribeFailure": FailingDescribe,
}
"""BEC's names for classes that have another name here."""

CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        ConstSignal,
        FailingDescribe,
        FailingPositioner,
        FailingStage,
        FlakyMonitor,
        NeverConnects,
        RaisesInConstructor,
        ReadOnlySignal,
        RingCurrent,
        SetableSignal,
        SimCamera,
        SimFlyer,
        SimMonitor,
        SimPositioner,
        SimShutter,
        SimWaveform,
        SimXYZStage,
        SlowMonitor,
        StuckStopPositioner,
        ZeroMotor,
    )
} | ALIASES
"""Every simulated device class by name, BEC's names included."""

__all__ = [
    "ALIASES",
    "CLASSES",
    "ConstSignal",
    "DeviceNotFound",
    "FailingDescribe",
    "FailingPositioner",
    "FailingStage",
    "FlakyMonitor",
    "FlightStopped",
    "MoveReplaced",
    "MoveStopped",
    "NeverConnects",
    "RaisesInConstructor",
    "ReadOnlySignal",
    "RingCurrent",
    "SetableSignal",
    "SimCamera",
    "SimFlyer",
    "SimMonitor",
    "SimPositioner",
    "SimShutter",
    "SimWaveform",
    "SimXYZStage",
    "SimulatedFault",
    "SlowMonitor",
    "StuckStopPositioner",
    "ZeroMotor",
]


def __getattr__(name: str) -> Any:
    try:
        return ALIASES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
