"""From configurations to devices: classes, arguments, what fails and what stays."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_server.loader import (
    DeviceManager,
    Loader,
    ScanInfo,
    constructor_parameters,
    import_ophyd,
    needs_epics,
)

import_ophyd()

from ophyd import Component, Device, EpicsMotor, EpicsSignal, Signal  # noqa: E402


class WithEverything(Device):
    """Takes both of the host's objects, and has an attribute and a signal to be set after connecting."""

    USER_ACCESS = ("gain",)
    gain = Component(Signal, value=1)
    mode = "slow"

    def __init__(self, name: str, *, device_manager: Any = None, scan_info: Any = None, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.device_manager, self.scan_info = device_manager, scan_info

    def method(self) -> None:
        """Not to be overwritten by a configuration."""


class LooksUp(Device):
    """Asks for another device while it is built."""

    def __init__(self, name: str, *, other: str, device_manager: Any = None, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.other = device_manager.devices.get(other).obj


class Connects(Signal):
    """Records how many connect at the same time."""

    inside: list[str] = []
    most: list[int] = []

    def wait_for_connection(self, timeout: float = 0.0) -> None:
        self.inside.append(self.name)
        threading.Event().wait(0.05)
        self.most.append(len(self.inside))
        self.inside.remove(self.name)


class Stuck(Signal):
    """Does not obey its timeout."""

    def wait_for_connection(self, timeout: float = 0.0) -> None:
        threading.Event().wait(30)


class AfterConnecting(Signal):
    """Refuses in `on_connected`, as device classes of BEC's library may."""

    def on_connected(self) -> None:
        raise RuntimeError("firmware too old")


HERE = __name__


def raw(kind: str, *, config: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "deviceClass": kind if "." in kind or kind[0] == "!" else f"{HERE}.{kind}",
        "enabled": True,
        "readoutPriority": "monitored",
        "deviceConfig": config or {},
        "connectionTimeout": 0.2,
        **fields,
    }


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Loader:
    # Test modules are imported under names of their own; the loader finds them by that.
    monkeypatch.setitem(sys.modules, HERE, sys.modules[HERE])
    return Loader("main", DeviceManager(), ScanInfo())


def test_host_objects_are_given_to_classes_that_ask_for_them(loader: Loader) -> None:
    prepared = loader.prepare({"a": raw("WithEverything")})
    assert prepared.failed == {}
    obj = prepared.adapters["a"].obj
    assert obj.device_manager is loader._manager
    assert obj.scan_info is loader._scan_info


def test_what_the_constructor_does_not_take_is_set_after_connecting(loader: Loader) -> None:
    prepared = loader.prepare(
        {"a": raw("WithEverything", config={"gain": 5, "mode": "fast", "limits": [0, 1]})}
    )
    assert prepared.failed == {}
    adapter = prepared.adapters["a"]
    assert adapter.obj.gain.get() == 5
    assert adapter.obj.mode == "fast"
    assert adapter.limits == (0.0, 1.0)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"gian": 5}, "deviceConfig has 'gian', which"),
        ({"gian": 5}, "did you mean 'gain'?"),
        ({"method": 5}, "method is a method"),
        ({"hints": 5}, " cannot take deviceConfig hints=5: "),
    ],
)
def test_wrong_arguments_are_told(loader: Loader, config: dict[str, Any], expected: str) -> None:
    assert expected in loader.prepare({"a": raw("WithEverything", config=config)}).failed["a"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nowhere.Thing", "there is no module 'nowhere'"),
        ("ophyd.Thing", "has no 'Thing'"),
        ("subprocess.Popen", "is no device class"),
        ("os.system", "is no device class"),
        ("!SimPositoner", "there is no device class"),
    ],
)
def test_classes_that_are_none_are_refused(loader: Loader, kind: str, expected: str) -> None:
    config = {**raw(kind), "deviceClass": kind.removeprefix("!")}
    assert expected in loader.prepare({"a": config}).failed["a"]


def test_short_names_and_names_of_the_device_library_are_understood(loader: Loader) -> None:
    prepared = loader.prepare(
        {
            "a": {**raw("!x"), "deviceClass": "SimPositioner"},
            "b": {**raw("!x"), "deviceClass": "ophyd_devices.SimPositioner"},
            "c": {**raw("!x"), "deviceClass": "ophyd_devices.sim.sim.SynAxisOPAAS"},
        }
    )
    assert prepared.failed == {}
    assert len({type(adapter.obj) for adapter in prepared.adapters.values()}) == 1


def test_a_device_finds_what_it_needs_while_it_is_built(loader: Loader) -> None:
    devices = {"b": raw("LooksUp", config={"other": "a"}, needs=["a"]), "a": raw("WithEverything")}
    prepared = loader.prepare(devices)
    assert prepared.failed == {}
    assert prepared.adapters["b"].obj.other is prepared.adapters["a"].obj
    assert list(prepared.adapters) == ["b", "a"]


def test_what_needs_a_changed_device_is_built_anew(loader: Loader) -> None:
    devices = {"b": raw("LooksUp", config={"other": "a"}, needs=["a"]), "a": raw("WithEverything")}
    loader.commit(loader.prepare(devices), devices)
    first = dict(loader.in_force)
    same = loader.prepare(devices)
    assert same.fresh == []
    devices = {**devices, "a": raw("WithEverything", config={"gain": 2})}
    changed = loader.prepare(devices)
    assert sorted(changed.fresh) == ["a", "b"]
    dropped = loader.commit(changed, devices)
    assert {id(adapter) for adapter in dropped} == {id(adapter) for adapter in first.values()}


def test_devices_connect_side_by_side(loader: Loader) -> None:
    begun = time.monotonic()
    prepared = loader.prepare({f"c{n}": raw("Connects") for n in range(20)})
    assert prepared.failed == {}
    assert time.monotonic() - begun < 0.9
    assert max(Connects.most) > 5


def test_a_device_that_does_not_obey_its_timeout_is_given_up(loader: Loader) -> None:
    prepared = loader.prepare({"a": raw("Stuck"), "b": raw("WithEverything")})
    assert prepared.failed == {"a": "a did not connect within 0.2 s"}
    assert prepared.ready == ["b"]


def test_what_fails_after_connecting_is_told(loader: Loader) -> None:
    failed = loader.prepare({"a": raw("AfterConnecting")}).failed
    assert failed == {"a": "a could not be connected: firmware too old"}


def test_a_failed_device_is_tried_again_with_the_next_session(loader: Loader) -> None:
    devices = {"a": raw("AfterConnecting"), "b": raw("WithEverything")}
    loader.commit(loader.prepare(devices), devices)
    assert loader.in_force["a"].state == "failed"
    assert loader.prepare(devices).fresh == ["a"]
    # A change that is about others neither waits for it again nor hides that it failed.
    partial = loader.prepare(devices, changed=["b"])
    assert partial.fresh == []
    assert partial.failed == {"a": "a could not be connected: firmware too old"}


def test_a_disabled_device_is_built_and_not_connected(loader: Loader) -> None:
    prepared = loader.prepare({"a": raw("Stuck", enabled=False)})
    assert prepared.failed == {}
    assert prepared.adapters["a"].state == "disabled"
    assert prepared.adapters["a"].obj is not None


def test_one_wrong_entry_does_not_hide_the_rest(loader: Loader) -> None:
    prepared = loader.prepare(
        {
            "good": raw("WithEverything"),
            "bad": {"deviceClass": "ophyd.Signal"},
            "orphan": raw("WithEverything", needs=["bad"]),
            "lost": raw("WithEverything", needs=["nobody"]),
            "x": raw("WithEverything", needs=["y"]),
            "y": raw("WithEverything", needs=["x"]),
        }
    )
    assert prepared.ready == ["good"]
    assert set(prepared.failed) == {"bad", "orphan", "lost", "x", "y"}
    assert "'enabled' is missing" in prepared.failed["bad"]
    assert "orphan needs bad" in prepared.failed["orphan"]
    assert "lost needs nobody" in prepared.failed["lost"]


def test_what_is_needed_from_another_device_server_decides_whether_a_device_is_built(loader: Loader) -> None:
    devices = {"a": raw("WithEverything", needs=["b"]), "b": raw("WithEverything", deviceServer="hutch2")}
    prepared = loader.prepare(devices, others={"b": ""})
    assert prepared.ready == ["a"] and "b" not in prepared.adapters
    # The scan server sends each device server its own devices alone.
    prepared = loader.prepare({"a": devices["a"]}, others={"b": "b did not connect within 5 s"})
    assert prepared.failed == {"a": "a needs b, which failed: b did not connect within 5 s"}
    assert "a needs b" in loader.prepare({"a": devices["a"]}).failed["a"]


def test_what_needs_a_device_that_does_not_connect_is_not_built(loader: Loader) -> None:
    devices = {
        "c": raw("WithEverything", needs=["b"]),
        "b": raw("LooksUp", config={"other": "a"}, needs=["a"]),
        "a": raw("AfterConnecting"),
    }
    prepared = loader.prepare(devices)
    why = "a could not be connected: firmware too old"
    assert prepared.failed == {
        "a": why,
        "b": f"b needs a, which failed: {why}",
        "c": f"c needs b, which failed: b needs a, which failed: {why}",
    }
    loader.commit(prepared, devices)
    # When what was needed is mended, so is the rest, without being named.
    devices["a"] = raw("WithEverything")
    assert loader.prepare(devices, changed=["a"]).ready == ["c", "b", "a"]


# Built anew


MOTORS = """
from ophyd import Device

SPEED = {speed}


class Stage(Device):
    def __init__(self, *args, fail=0, **kwargs):
        {body}
        super().__init__(*args, **kwargs)
        self.speed = SPEED

    def on_connected(self):
        {connect}
"""


class Package:
    """A package of a beamline with two modules, which is edited."""

    def __init__(self, folder: Path):
        self.name = f"beamline_{uuid.uuid4().hex[:8]}"
        self.folder = folder / self.name
        self.folder.mkdir()
        (self.folder / "__init__.py").write_text("")
        self.edited = 0
        self.write()

    def write(self, speed: Any = 1, body: str = "pass", connect: str = "pass", top: str = "") -> None:
        self.edited += 1
        text = top + MOTORS.format(speed=speed, body=body, connect=connect) + "#" * self.edited
        (self.folder / "motors.py").write_text(text)

    def raw(self, **fields: Any) -> dict[str, Any]:
        return {**raw("ophyd.Device"), "deviceClass": f"{self.name}.motors.Stage", **fields}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Package(tmp_path)
    yield made
    for name in [name for name in sys.modules if name.split(".")[0] == made.name]:
        del sys.modules[name]


def load(loader: Loader, devices: dict[str, Any], **how: Any) -> Any:
    prepared = loader.prepare(devices, **how)
    loader.commit(prepared, devices)
    return prepared


def test_devices_are_built_anew_with_what_their_source_says_now(loader: Loader, package: Package) -> None:
    devices = {"x": package.raw(), "y": package.raw(), "s": raw("WithEverything")}
    load(loader, devices)
    before = {name: adapter.obj for name, adapter in loader.in_force.items()}
    package.write(speed=2)
    assert load(loader, devices, changed=["x"]).fresh == []
    assert load(loader, devices, changed=["x"], rebuild=["x"]).fresh == ["x"]
    assert loader.in_force["x"].obj.speed == 2
    assert loader.in_force["y"].obj is before["y"] and before["y"].speed == 1
    assert load(loader, devices, rebuild=list(devices)).fresh == ["x", "y", "s"]
    assert loader.in_force["y"].obj.speed == 2
    # Nothing has changed since: new objects of the same class.
    kind = type(loader.in_force["x"].obj)
    assert load(loader, devices, rebuild=["x"]).fresh == ["x"]
    assert type(loader.in_force["x"].obj) is kind


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"top": "import no_such_library\n"}, "no_such_library"),
        ({"top": "raise SystemExit(3)\n"}, "3"),
        ({"speed": "1 +* 2"}, "invalid syntax"),
        ({"body": "raise RuntimeError('no licence')"}, "no licence"),
        ({"connect": "raise RuntimeError('firmware too old')"}, "firmware too old"),
    ],
)
def test_what_cannot_be_built_anew_stays_in_use(
    loader: Loader, package: Package, edit: dict[str, Any], told: str
) -> None:
    devices = {"x": package.raw(), "s": raw("WithEverything")}
    load(loader, devices)
    before = loader.in_force["x"]
    package.write(**edit)
    prepared = load(loader, devices, rebuild=list(devices))
    assert prepared.failed == {} and list(prepared.kept) == ["x"] and told in prepared.kept["x"]
    assert prepared.fresh == ["s"]
    assert loader.in_force["x"] is before and before.state == "ready"
    package.write(speed=3)
    assert load(loader, devices, rebuild=["x"]).kept == {}
    assert loader.in_force["x"].obj.speed == 3


def test_a_device_that_works_no_more_is_not_kept(
    loader: Loader, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = {"x": package.raw()}
    load(loader, devices)
    monkeypatch.setattr(type(loader.in_force["x"].obj), "connected", False)
    package.write(connect="raise RuntimeError('firmware too old')")
    prepared = load(loader, devices, rebuild=["x"])
    assert prepared.kept == {} and "firmware too old" in prepared.failed["x"]


def test_what_a_kept_device_needs_is_kept_with_it(loader: Loader, package: Package) -> None:
    devices = {"a": raw("WithEverything"), "x": package.raw(needs=["a"]), "b": raw("WithEverything")}
    load(loader, devices)
    package.write(top="import no_such_library\n")
    prepared = load(loader, devices, rebuild=list(devices))
    assert prepared.fresh == ["b"] and set(prepared.kept) == {"x", "a"}
    assert prepared.kept["a"] == "x needs it, and is not built anew"


def test_what_needs_a_rebuilt_device_is_rebuilt_and_what_is_in_use_is_not(
    loader: Loader, package: Package
) -> None:
    devices = {"a": package.raw(), "b": raw("LooksUp", config={"other": "a"}, needs=["a"])}
    load(loader, devices)
    kept = load(loader, devices, changed=["a"], rebuild=["a"], in_use={"b": "dev.b.set of anna"})
    assert (
        kept.fresh == [] and "held by dev.b.set of anna" in kept.kept["b"] and "b needs it" in kept.kept["a"]
    )
    assert load(loader, devices, changed=["a"], rebuild=["a"]).fresh == ["a", "b"]
    assert loader.in_force["b"].obj.other is loader.in_force["a"].obj


def test_a_session_is_prepared_in_steps(loader: Loader) -> None:
    first = loader.prepare({"a": raw("WithEverything")})
    devices = {"b": raw("WithEverything", needs=["far"]), "a": raw("WithEverything")}
    second = loader.prepare(devices, others={"far": ""}, earlier=first)
    assert second.ready == ["b", "a"] and second.fresh == ["a", "b"]


def test_what_an_earlier_step_has_left_as_it_was_is_tried_in_a_later_one(loader: Loader) -> None:
    devices = {"a": raw("WithEverything"), "b": raw("WithEverything", needs=["far"])}
    load(loader, devices, others={"far": "dead"})
    first = loader.prepare(devices, changed=[], others={"far": "dead"})
    assert first.failed == {"b": "b needs far, which failed: dead"}
    second = loader.prepare(devices, changed=["b"], others={"far": ""}, earlier=first)
    assert second.failed == {} and second.fresh == ["b"]


def test_devices_seen_by_other_devices_have_the_names_of_bec(loader: Loader) -> None:
    devices = {"a": raw("WithEverything", userParameter={"in": 1}, readOnly=True)}
    loader.commit(loader.prepare(devices), devices)
    manager = loader._manager
    entry = manager.devices.get("a")
    assert (entry.name, entry.enabled, entry.read_only, entry.user_parameter) == ("a", True, True, {"in": 1})
    assert entry.obj is loader.in_force["a"].obj
    assert entry.gain.get() == 1
    assert manager.devices.a.name == manager.devices["a"].name == "a"
    assert "a" in manager.devices and "b" not in manager.devices
    assert manager.devices.get("b") is None
    assert manager.current_session["devices"][0]["name"] == "a"


def test_scan_info_tells_what_detectors_ask_for() -> None:
    info = ScanInfo()
    info.begin("id", "acquire", 4, {"num_points": 10, "scan_parameters": {"exp_time": 0.1}})
    assert (info.msg.scan_id, info.msg.scan_number, info.msg.num_points) == ("id", 4, 10)
    assert info.msg.scan_parameters == {"exp_time": 0.1}
    assert info.msg.info == {}


def test_constructor_arguments_of_bases_are_known_as_far_as_they_are_passed_on() -> None:
    class Narrow(WithEverything):
        def __init__(self, name: str, colour: str = "red"):
            super().__init__(name)

    assert {"name", "device_manager", "scan_info", "prefix", "kind"} <= constructor_parameters(WithEverything)
    assert constructor_parameters(Narrow) == {"name", "colour"}


def test_which_classes_need_epics() -> None:
    class Nested(Device):
        motor = Component(EpicsMotor, "m")

    assert needs_epics(EpicsMotor) and needs_epics(EpicsSignal) and needs_epics(Nested)
    assert not needs_epics(WithEverything) and not needs_epics(Signal)


def test_epics_comes_in_only_when_a_device_wants_it() -> None:
    """In a process of its own: which control layer ophyd has is decided once for all."""
    code = """
import sys
from device_server.loader import DeviceManager, Loader, ScanInfo, import_ophyd
import_ophyd()
import ophyd
raw = {"enabled": True, "readoutPriority": "monitored", "connectionTimeout": 0.3}
loader = Loader("main", DeviceManager(), ScanInfo())
soft = {"s": {**raw, "deviceClass": "ophyd.Signal", "deviceConfig": {"value": 1}}}
assert loader.prepare(soft).ready == ["s"]
assert ophyd.cl.name == "dummy" and "epics" not in sys.modules
hard = {**soft, "pv": {**raw, "deviceClass": "ophyd.EpicsSignalRO", "deviceConfig": {"read_pv": "NO:SUCH:PV"}}}
hard["motor"] = {**raw, "deviceClass": "ophyd.EpicsMotor", "deviceConfig": {"prefix": "NO:SUCH:M1"}}
prepared = loader.prepare(hard)
assert prepared.ready == ["s"], prepared.failed
assert prepared.failed["pv"] == "pv did not connect within 0.3 s: NO:SUCH:PV does not answer"
motor = prepared.failed["motor"]
assert motor == "motor did not connect within 0.3 s: NO:SUCH:M1.RBV and 18 other PVs do not answer", motor
assert ophyd.cl.name == "pyepics"
assert "networkx" not in sys.modules
assert ophyd.areadetector.base.nx.DiGraph.__name__ == "DiGraph"
print("fine")
"""
    environment = {
        **os.environ,
        "EPICS_CA_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "OPHYD_CONTROL_LAYER": "dummy",
    }
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert "fine" in found.stdout, found.stderr
