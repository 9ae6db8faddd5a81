"""Where is the motor that a simulated detector follows? Look-up of another device, late and by name.

A detector is often built before its motor, and a motor may be loaded again while the detector stays. Names are
therefore resolved at each reading; that costs a dictionary access.
"""

from __future__ import annotations

from typing import Any


class DeviceNotFound(LookupError):
    """A simulated device refers to a device that the session does not hold."""


def find_device(device_manager: Any, name: str, asking: str) -> Any:
    """The ophyd object called `name` ("samx", or "stage.x" for a part of a device), needed by device `asking`.

    device_manager.devices may hold the ophyd objects themselves or records with an `obj`.
    Raises DeviceNotFound.
    """
    root, _, rest = name.partition(".")
    devices = getattr(device_manager, "devices", None)
    found = devices.get(root) if devices is not None else None
    found = getattr(found, "obj", found)
    for part in rest.split(".") if rest else ():
        found = getattr(found, part, None)
    if found is None:
        raise DeviceNotFound(
            f"{asking} follows {name}, which is not in the session. Load {root}, or change the configuration of {asking}."
        )
    return found


def position_of(device: Any) -> float:
    """Where a positioner truly is, or the value of a signal; device units.

    A simulated positioner tells its position without the read-back noise, so that asking draws no random number.
    """
    try:
        return float(device.true_position)
    except AttributeError:
        pass
    try:
        return float(device.position)
    except AttributeError:
        return float(device.get())
