"""Devices by name: reading, writing, completion, protection, tables, and what is raised when it goes wrong."""

from __future__ import annotations

import inspect
import logging
import threading
from typing import Any

import pytest

from bec_lib import messages as m
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import DeadlineExceeded, DeviceError, LimitError, ReasonCode, ServiceDown, UnknownDevice

READING = {
    "samx": {"value": 1.5, "timestamp": 1e9},
    "samx_setpoint": {"value": 1.6, "timestamp": 1e9},
}


def test_reads_a_device(bec: Any, fleet: Any) -> None:
    fleet.calls[("samx", "read")] = READING
    assert bec.devices.samx.read() == READING
    assert bec.devices["samx"].read()["samx"]["value"] == 1.5
    assert bec.devices.samx.position == 1.5


def test_hinted_signals_alone(bec: Any, fleet: Any) -> None:
    fleet.calls[("samx", "read")] = READING
    assert list(bec.devices.samx.read(filter_to_hints=True)) == ["samx"]


def test_a_signal_is_called_by_its_dotted_name(bec: Any, fleet: Any) -> None:
    fleet.calls[("samx", "velocity.get")] = 2.0
    assert bec.devices.samx.velocity.get() == 2.0
    assert bec.devices["samx.velocity"].get() == 2.0
    assert bec.devices.samx.velocity.dotted_name == "samx.velocity"


def test_cached_reading_asks_no_device(bec: Any, fleet: Any) -> None:
    fleet.brokers["device_server"].put(Endpoints.device_readback("samx"), m.DeviceMessage(signals=READING))
    assert bec.devices.samx.read(cached=True)["samx"]["value"] == 1.5
    assert bec.devices.samx.get(cached=True) == 1.5
    assert not fleet.requests


def test_cached_reading_that_was_never_published_says_so(bec: Any) -> None:
    with pytest.raises(DeviceError, match="no reading of samx was published yet"):
        bec.devices.samx.read(cached=True)


def test_set_returns_at_once_and_wait_ends_with_the_move(bec: Any, fleet: Any) -> None:
    fleet.silent.add("samx.set")
    status = bec.devices.samx.set(2)
    assert not status.done
    fleet.brokers["device_server"].append(
        Endpoints.device_rpc_response(bec.client_id),
        m.DeviceRPCResponse(request_id=status._ticket.request_id, success=True),
    )
    status.wait(timeout=5)
    assert status.done
    assert status.success


def test_a_move_that_fails_raises_what_the_device_said(bec: Any, fleet: Any) -> None:
    fleet.calls[("samx", "set")] = m.ErrorInfo(
        error_message="samx cannot move to 12 mm: its limits are -10 to 10 mm",
        code=ReasonCode.LIMIT,
        device="samx",
    )
    with pytest.raises(LimitError, match="-10 to 10 mm") as caught:
        bec.devices.samx.set(12).wait(timeout=5)
    assert caught.value.device == "samx"


def test_a_failed_move_that_nobody_waits_for_is_not_lost(
    bec: Any, fleet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.calls[("samx", "set")] = m.ErrorInfo(error_message="samx is stuck", code=ReasonCode.DEVICE_FAILED)
    with caplog.at_level(logging.WARNING):
        status = bec.devices.samx.set(1)
        assert status._ticket.answered.wait(5)
        bec.devices.samx.read()  # a further answer: the first one has been handled
    assert "dev.samx.set(1): samx is stuck" in caplog.text


def test_a_read_that_met_a_restart_is_asked_again_and_a_move_is_not(bec: Any, fleet: Any) -> None:
    gone = m.ErrorInfo(error_message="the device server was started anew", code=ReasonCode.SERVICE_DOWN)
    answers: list[Any] = [gone, READING]
    original = fleet._call

    def call(request: Any) -> None:
        fleet.calls[(request.device, request.func)] = answers.pop(0) if request.func == "read" else gone
        original(request)

    fleet._call = call
    assert bec.devices.samx.read() == READING
    with pytest.raises(ServiceDown, match="started anew"):
        bec.devices.samx.home()
    assert [request.func for request in fleet.requests] == ["read", "read", "home"]


def test_put_of_a_positioner_begins_a_move(bec: Any, fleet: Any) -> None:
    bec.devices.samx.put(2)
    bec.devices.samx.velocity.put(3)
    bec.devices.samx.read()
    assert [request.func for request in fleet.requests] == ["set", "velocity.put", "read"]


def test_a_wait_has_an_end_and_says_who_was_asked(bec: Any, fleet: Any) -> None:
    fleet.silent.add("samx.set")
    with pytest.raises(DeadlineExceeded, match=r"dev\.samx\.set\(3\) was not done within 0\.1 s"):
        bec.devices.samx.set(3).wait(timeout=0.1)


def test_without_a_device_server_a_call_fails_at_once(bec: Any, fleet: Any) -> None:
    fleet.alive.remove("device_server")
    fleet.beat()
    with pytest.raises(ServiceDown, match=r"needs the device server, which is not running.*bec-server start"):
        bec.devices.samx.read()
    assert not fleet.requests


def test_a_device_server_that_dies_during_a_call_ends_the_wait(
    bec: Any, fleet: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("bec_client.connection.WATCH_S", 0.05)
    monkeypatch.setattr("bec_client.services.FRESH_S", 0.0)
    fleet.silent.add("samx.set")
    status = bec.devices.samx.set(3)
    fleet.alive.remove("device_server")
    fleet.beat()
    with pytest.raises(ServiceDown, match="device server"):
        bec.connection.wait(status._ticket.answered, "the move", ["device_server"], patience_s=0.1)


def test_unknown_device_names_the_nearest(bec: Any) -> None:
    with pytest.raises(UnknownDevice, match="Did you mean samx"):
        bec.devices["sammx"]
    with pytest.raises(AttributeError, match="Did you mean samx"):
        _ = bec.devices.sammx
    assert not hasattr(bec.devices, "nothing_like_it")
    assert bec.devices.get("sammx") is None
    assert "samx" in bec.devices


def test_without_a_session_the_way_out_is_told(server: Any, bec: Any, fleet: Any) -> None:
    fleet.load({}, version=2)
    bec.session.on_session(None)
    with pytest.raises(UnknownDevice, match=r"no devices are loaded.*bec config load"):
        bec.devices["samx"]


def test_unknown_signal_names_the_nearest(bec: Any) -> None:
    with pytest.raises(AttributeError, match=r"samx has no 'velocty'. Did you mean velocity"):
        _ = bec.devices.samx.velocty


def test_signals_and_methods_cannot_be_overwritten(bec: Any, fleet: Any) -> None:
    with pytest.raises(AttributeError, match=r"samx.velocity is a signal.*samx\.velocity\.set\(5\)"):
        bec.devices.samx.velocity = 5
    with pytest.raises(AttributeError, match=r"samx.read is a method"):
        bec.devices.samx.read = 5
    with pytest.raises(AttributeError, match=r"samx.home is a method"):
        bec.devices.samx.home = 5
    with pytest.raises(AttributeError, match=r"dev.samx cannot be assigned; to move it: dev.samx.set\(5\)"):
        bec.devices.samx = 5
    with pytest.raises(AttributeError, match="samx has no 'anything' to set"):
        bec.devices.samx.anything = 5
    assert not fleet.requests


def test_properties_of_a_device_are_read_and_written(bec: Any, fleet: Any) -> None:
    fleet.calls[("samx", "tolerance")] = lambda *args: args[0] if args else 0.01
    assert bec.devices.samx.tolerance == 0.01
    bec.devices.samx.tolerance = 0.02
    assert fleet.requests[-1].kind == "set"
    assert fleet.requests[-1].args == [0.02]
    with pytest.raises(AttributeError, match=r"samx.serial can be read and not written"):
        bec.devices.samx.serial = 1


def test_methods_have_their_published_signature_and_documentation(bec: Any, fleet: Any) -> None:
    home = bec.devices.samx.home
    assert str(inspect.signature(home)) == "(speed: float = 1.0, *, wait=True)"
    assert home.__doc__ == "Find the home switch."
    fleet.calls[("samx", "home")] = "found"
    assert home(2.0, wait=False) == "found"
    assert fleet.requests[-1].args == [2.0]
    assert fleet.requests[-1].kwargs == {"wait": False}


def test_completion_knows_signals_methods_and_verbs(bec: Any) -> None:
    assert {"samx", "bpm4i", "show_all", "wm", "enabled_devices"} <= set(dir(bec.devices))
    assert {"read", "set", "limits", "velocity", "readback", "home", "tolerance"} <= set(
        dir(bec.devices.samx)
    )
    assert "limits" not in dir(bec.devices.bpm4i)
    assert {"get", "set", "read"} <= set(dir(bec.devices.samx.velocity))
    assert bec.devices.samx.__doc__ == "Sample stage, horizontal."


def test_limits_are_looked_up_and_written(bec: Any, fleet: Any) -> None:
    assert bec.devices.samx.limits == [-10.0, 10.0]
    bec.devices.samx.limits = (-5, 5)
    assert (fleet.requests[-1].func, fleet.requests[-1].kind) == ("limits", "set")
    assert fleet.requests[-1].args == [[-5.0, 5.0]]
    bec.devices.samx.high_limit = 7
    assert fleet.requests[-1].args == [[-10.0, 7.0]]
    with pytest.raises(DeviceError, match="5 is above -5"):
        bec.devices.samx.limits = (5, -5)


def test_session_fields_are_changed_in_the_session(bec: Any, fleet: Any) -> None:
    assert bec.devices.samx.enabled is True
    bec.devices.samx.read_only = True
    request = fleet.requests[-1]
    assert request.action is m.ConfigAction.UPDATE
    assert request.devices == {"samx": {"readOnly": True}}
    bec.devices.samx.add_device_tag("new")
    assert fleet.requests[-1].devices == {"samx": {"deviceTags": ["new", "sample"]}}


def test_lists_of_devices(bec: Any) -> None:
    names = lambda devices: [device.name for device in devices]  # noqa: E731
    assert names(bec.devices.enabled_devices) == ["samx", "bpm4i"]
    assert names(bec.devices.disabled_devices) == ["eyefoc"]
    assert names(bec.devices.monitored_devices()) == ["bpm4i"]
    assert names(bec.devices.baseline_devices()) == ["samx"]
    assert names(bec.devices.get_devices_with_tags("sample")) == ["samx"]


def test_positions_of_patterns(bec: Any, fleet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.calls[("samx", "read")] = READING
    fleet.calls[("bpm4i", "read")] = m.ErrorInfo(error_message="bpm4i is gone", code=ReasonCode.NOT_CONNECTED)
    rows = {row["name"]: row for row in bec.session.positions("*")}
    assert (rows["samx"]["readback"], rows["samx"]["setpoint"], rows["samx"]["unit"]) == (1.5, 1.6, "mm")
    assert (rows["samx"]["low"], rows["samx"]["high"]) == (-10.0, 10.0)
    assert rows["bpm4i"]["readback"] is None
    assert rows["bpm4i"]["error"] == "bpm4i is gone"
    assert [row["name"] for row in bec.session.positions()] == ["samx"]
    assert [row["name"] for row in bec.session.positions([bec.devices.samx, "bp?4i"])] == ["samx", "bpm4i"]
    with pytest.raises(UnknownDevice, match="no device matches 'zz"):
        bec.session.positions("zz*")
    bec.devices.samx.wm
    assert "1.500" in capsys.readouterr().out


def test_who_has_a_device_is_shown_with_it(
    bec: Any, fleet: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.calls[("samx", "read")] = READING
    monkeypatch.setattr("bec_client.session.HELD_S", 0.0)
    assert repr(bec.devices.samx) == "<SimPositioner samx [mm]>" and bec.devices.samx.owner == ""
    bec.devices.wm()
    assert "held by" not in capsys.readouterr().out
    scan = m.Holder(what="scan 12 (line_scan)", devices=["samx", "bpm4i"], user="berta", scan_id="s12")
    call = m.Holder(what="dev.samx.set", devices=["samx"], user="anna")
    fleet.brokers["device_server"].put(
        Endpoints.device_holders("main"), m.DeviceHoldersMessage(server="main", holders=[scan, call])
    )
    both = "scan 12 (line_scan) of berta; dev.samx.set of anna"
    assert bec.devices.samx.owner == both
    assert repr(bec.devices.samx) == f"<SimPositioner samx [mm], held by {both}>"
    assert bec.session.holders() == {"samx": both, "bpm4i": "scan 12 (line_scan) of berta"}
    assert bec.session.positions("samx")[0]["held_by"] == both
    bec.devices.wm()
    assert "held by" in capsys.readouterr().out


def test_limits_make_no_positioner(bec: Any, fleet: Any) -> None:
    info = bec.session.fresh_info("bpm4i").model_copy(update={"limits": [0.0, 5.0]})
    fleet.brokers["device_server"].put(Endpoints.device_info("bpm4i"), info)
    bec.session.on_session(None)
    assert bec.session.matching() == ["samx"]
    assert "limits" not in dir(bec.devices.bpm4i)


def test_a_new_session_is_seen(bec: Any, fleet: Any) -> None:
    assert "bpm4i" in bec.devices
    load(bec, fleet, {"samx": fleet_devices()["samx"]})
    assert bec.session.names() == ["samx"]


def load(bec: Any, fleet: Any, devices: dict[str, Any]) -> None:
    """A new session, of which the client has heard."""
    seen = bec.connection.on_session
    changed = threading.Event()
    bec.connection.on_session = lambda message: (seen(message), changed.set())
    fleet.load(devices, version=2)
    assert changed.wait(5)


def fleet_devices() -> dict[str, Any]:
    return {"samx": {"deviceClass": "x.Y", "enabled": True, "readoutPriority": "baseline"}}


def test_a_device_without_description_does_not_make_every_look_a_load(
    bec: Any, fleet: Any, monkeypatch: Any
) -> None:
    load(bec, fleet, {**fleet_devices(), "dark": fleet_devices()["samx"]})
    assert bec.session.fresh_info("dark").state == "failed"
    loads: list[Any] = []
    get_many = bec.broker.get_many
    monkeypatch.setattr(bec.broker, "get_many", lambda items: loads.append(1) or get_many(items))
    for _ in range(10):
        assert "dark" in bec.devices
    assert not loads


def test_a_second_device_server_is_called_by_its_name(bec: Any) -> None:
    sentence = bec.service_status.sentence(["device_server.optics"], "mv")
    assert sentence.startswith("mv needs the device server 'optics', which is not running")
