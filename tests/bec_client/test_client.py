"""The client as a whole: its life, its user, its account, alarms, services, and what it says when nothing runs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bec_client import BECClient
from bec_lib import messages as m
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BrokerError, ConfigError, ParameterError, ServiceDown
from bec_lib.service.config import ServiceConfig


def test_no_fleet_says_how_to_start_one(tmp_path: Path) -> None:
    client = BECClient(ServiceConfig(deployment="nobody", state_path=tmp_path))
    with pytest.raises(BrokerError, match=r"No BEC is running for deployment 'nobody'.*`bec-server start`"):
        client.start()


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(BrokerError, match="localhost:1 cannot be reached"):
        client = BECClient(ServiceConfig(), redis="redis://localhost:1")
        client.broker.wait_until_reachable(0.0)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        BECClient(tmp_path / "nowhere.yaml")


def test_a_user_name_must_fit_into_a_key() -> None:
    with pytest.raises(ParameterError, match=r"'ada/../eve' cannot be a user name"):
        BECClient(ServiceConfig(), user="ada/../eve")


def test_a_client_says_hello_once(bec: Any, fleet: Any) -> None:
    bec.start()
    found = fleet.broker.entries(Endpoints.client_hello)
    assert [(item.message.user, item.message.client_id) for item in found] == [("ada", bec.client_id)]


def test_the_account_is_shared_and_must_be_a_folder_name(bec: Any, connect_as: Any) -> None:
    assert bec.account == ""
    bec.account = "p12345"
    assert connect_as("eve").account == "p12345"
    for wrong in ("../other", "a b", ".."):
        with pytest.raises(ParameterError, match="cannot be an account"):
            bec.account = wrong


def test_alarms_are_kept_and_shown(bec: Any, fleet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    bec.on_alarm.append(seen.append)
    alarm = m.AlarmMessage(
        severity=m.Severity.MAJOR, source="file_writer", timestamp=1e9,
        info=m.ErrorInfo(error_message="no space left in /data", traceback="Traceback ..."),
    )  # fmt: skip
    fleet.broker.append(Endpoints.alarm, alarm)
    fleet.calls[("samx", "read")] = {}
    for _ in range(50):
        bec.devices.samx.read()
        if seen:
            break
    assert [item.info.error_message for item in bec.alarms(m.Severity.MAJOR)] == ["no space left in /data"]
    assert "no space left" in str(bec.alarms)
    bec.show_last_alarm()
    assert "Traceback ..." in capsys.readouterr().out
    assert bec.alarms.earlier()[-1].source == "file_writer"
    bec.clear_all_alarms()
    assert str(bec.alarms) == "No alarms."


def test_service_status_tells_who_is_silent(bec: Any, fleet: Any) -> None:
    fleet.alive.remove("file_writer")
    fleet.beat()
    assert bec.service_status["file_writer"] is None
    assert bec.service_status["scan_server"].pid == 1
    lines = str(bec.service_status).splitlines()
    assert any("file_writer" in line and "silent" in line for line in lines)


def supervisor(fleet: Any, *events: tuple[str, str]) -> None:
    for event, reason in events:
        message = m.SupervisorMessage(
            service="device_server", event=event, reason=reason, timestamp=time.time()
        )
        fleet.broker.append(Endpoints.supervisor_events, message)


def test_a_service_that_is_down_says_why_it_ended(bec: Any, fleet: Any) -> None:
    fleet.alive.remove("device_server")
    fleet.beat()
    supervisor(fleet, ("ended", "killed by signal 9 (out of memory?)"), ("stopped", ""))
    with pytest.raises(ServiceDown, match=r"device_server ended: killed by signal 9 \(out of memory\?\)"):
        bec.devices.samx.read()
    assert "killed by signal 9" in str(bec.service_status)


def test_a_service_that_is_being_restarted_is_waited_for(bec: Any, fleet: Any) -> None:
    fleet.alive.remove("device_server")
    fleet.beat()
    supervisor(fleet, ("ended", "killed by signal 9"), ("restarted", ""))
    fleet.calls[("samx", "read")] = {"samx": {"value": 1.0, "timestamp": 1e9}}
    back = threading.Timer(0.3, lambda: (fleet.alive.add("device_server"), fleet.beat()))
    back.start()
    assert bec.devices.samx.read()["samx"]["value"] == 1.0
    back.join()


def test_stopping_all_devices_goes_past_the_scan_server(bec: Any, fleet: Any) -> None:
    bec.stop_devices()
    (item,) = fleet.broker.entries(Endpoints.device_stop)
    assert (item.message.kind, item.message.scan_id, item.message.devices) == (m.ControlKind.STOP, None, None)


def test_the_library_and_the_command_line_import_nothing_heavy() -> None:
    heavy = {"IPython", "h5py", "matplotlib", "prompt_toolkit", "ophyd", "lmfit"}
    for module in ("bec_client", "bec_client.client", "bec_client.cli"):
        code = f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]", module
    code = "import sys, bec_client.cli; print(sorted({'redis', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
