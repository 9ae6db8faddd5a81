"""The sample device configurations: complete, buildable, and readable."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from bec_lib.devices import load_device_file
from device_server import sim

CONFIGS = Path(__file__).parents[2] / "deploy" / "configs"
FIELDS = {
    "deviceClass", "enabled", "readoutPriority", "deviceConfig", "connectionTimeout", "description", "deviceTags",
    "needs", "onFailure", "readOnly", "softwareTrigger", "userParameter",
}  # fmt: skip


def load(name):
    return yaml.safe_load((CONFIGS / name).read_text())


@pytest.mark.parametrize("name", ["demo.yaml", "bench.yaml", "bench_100.yaml", "bench_300.yaml"])
def test_a_configuration_passes_validation(name):
    assert set(load_device_file(CONFIGS / name)) == set(load(name))


def build(config):
    session = SimpleNamespace(devices={})
    for name, entry in config.items():
        cls = getattr(sim, entry["deviceClass"].removeprefix("device_server.sim."))
        assert set(entry["deviceConfig"]) <= set(inspect.signature(cls).parameters), name
        session.devices[name] = SimpleNamespace(
            obj=cls(name, device_manager=session, **entry["deviceConfig"])
        )
    return session.devices


@pytest.mark.parametrize("name", ["demo.yaml", "bench.yaml", "bench_100.yaml", "bench_300.yaml"])
def test_a_configuration_has_all_fields_and_valid_values(name):
    config = load(name)
    for device, entry in config.items():
        assert device.isidentifier()
        assert set(entry) == FIELDS, device
        assert entry["readoutPriority"] in {"monitored", "baseline", "async", "on_request", "continuous"}
        assert entry["onFailure"] in {"retry", "buffer", "raise"}
        assert set(entry["needs"]) <= set(config)


@pytest.mark.parametrize("name", ["demo.yaml", "bench.yaml"])
def test_every_device_can_be_built_described_and_read(name):
    for device in build(load(name)).values():
        reading, described = device.obj.read(), device.obj.describe()
        assert list(reading) == list(described)


def test_all_numbers_that_a_demo_scan_records_have_units():
    without = [
        signal
        for device in build(load("demo.yaml")).values()
        for signal, description in device.obj.describe().items()
        if description["dtype"] == "number" and not description.get("units")
    ]
    assert without == []


def test_the_bench_configurations_hold_as_many_signals_as_they_say():
    for name, count in (("bench.yaml", 5), ("bench_100.yaml", 100), ("bench_300.yaml", 300)):
        assert sum(entry["readoutPriority"] == "monitored" for entry in load(name).values()) == count
