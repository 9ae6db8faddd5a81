"""Devices as configuration: what a device file may say, and what it means. Builds no device."""

from bec_lib.devices.config import (
    DeviceConfig,
    FailurePolicy,
    InterruptPolicy,
    ReadoutPriority,
    build_order,
    config_hash,
    dump_device_file,
    load_device_file,
    validate_devices,
)

__all__ = [
    "DeviceConfig",
    "FailurePolicy",
    "InterruptPolicy",
    "ReadoutPriority",
    "build_order",
    "config_hash",
    "dump_device_file",
    "load_device_file",
    "validate_devices",
]
