"""The device session from the user's side: files are checked before anything is sent, failures are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bec_lib import messages as m
from bec_lib.devices.config import load_device_file
from bec_lib.errors import ConfigError, ReasonCode, UnknownDevice

GOOD = """
samx:
  deviceClass: device_server.sim.SimPositioner
  enabled: true
  readoutPriority: baseline
  deviceConfig: {limits: [-5, 5]}
bpm4i:
  deviceClass: device_server.sim.SimMonitor
  enabled: true
  readoutPriority: monitored
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "beamline.yaml"
    path.write_text(GOOD)
    return path


def test_a_file_becomes_the_session(bec: Any, fleet: Any, file: Path) -> None:
    change = bec.config.update_session_with_file(file)
    assert (change.loaded, change.failed) == (["samx", "bpm4i"], {})
    request = fleet.requests[-1]
    assert request.action is m.ConfigAction.SET
    assert request.devices["samx"]["deviceConfig"] == {"limits": [-5, 5]}
    assert str(change) == f"2 devices loaded from {file}."


def test_what_is_in_force_is_not_loaded_again_unless_forced(bec: Any, fleet: Any, file: Path) -> None:
    bec.config.update_session_with_file(file)
    sent = len(fleet.requests)
    assert "already in force" in str(bec.config.update_session_with_file(file))
    assert len(fleet.requests) == sent
    bec.config.update_session_with_file(file, force=True)
    assert len(fleet.requests) == sent + 1 and fleet.requests[-1].rebuild


def test_devices_that_fail_are_named_with_the_reason(bec: Any, fleet: Any, file: Path) -> None:
    fleet.config_failed = {"bpm4i": "no answer from X12SA-BPM4 within 5 s"}
    change = bec.config.update_session_with_file(file)
    assert change.loaded == ["samx"]
    assert "1 could not be loaded:\n  bpm4i: no answer from X12SA-BPM4 within 5 s" in str(change)


def test_a_wrong_file_changes_nothing_and_says_where(bec: Any, fleet: Any, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(GOOD.replace("readoutPriority: monitored", "readoutPriority: monitred") + "  wobble: 3\n")
    with pytest.raises(ConfigError) as caught:
        bec.config.update_session_with_file(path)
    assert "monitred" in caught.value.message
    assert "wobble" in caught.value.message
    assert not fleet.requests


def test_a_missing_file_names_its_neighbours(bec: Any, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist\. Did you mean beamline\.yaml"):
        bec.config.update_session_with_file(file.with_name("beamlin.yaml"))
    with pytest.raises(ConfigError, match=r"no folder .*nowhere"):
        bec.config.update_session_with_file(file.parent / "nowhere" / "x.yaml")


def test_a_refusal_is_raised(bec: Any, fleet: Any, file: Path) -> None:
    fleet.refuse = (ReasonCode.WRONG_STATE, "scan 12 is running; change the devices when it is over")
    with pytest.raises(Exception, match="scan 12 is running"):
        bec.config.update_session_with_file(file)


def test_the_session_is_saved_so_that_it_can_be_loaded(
    bec: Any, fleet: Any, file: Path, tmp_path: Path
) -> None:
    bec.config.update_session_with_file(file)
    saved = bec.config.save_current_session(tmp_path / "deep" / "saved.yaml")
    from bec_lib.devices.config import load_device_file

    assert load_device_file(saved) == load_device_file(file)
    recovery = list((tmp_path / "recovery").glob("session_*.yaml"))
    assert recovery, "the session that was replaced is kept"


def test_nothing_to_save_is_an_error(bec: Any, fleet: Any, tmp_path: Path) -> None:
    fleet.load({}, version=2)
    bec.session.on_session(None)
    with pytest.raises(ConfigError, match="no devices are loaded"):
        bec.config.save_current_session(tmp_path / "x.yaml")


def test_add_remove_reset(bec: Any, fleet: Any, file: Path) -> None:
    bec.config.add_to_session(file)
    bec.config.remove("samx")
    bec.config.reset_config()
    actions = [request.action.value for request in fleet.requests]
    assert actions == ["add", "remove", "reset"]
    assert fleet.requests[1].devices == {"samx": {}}


def test_a_reload_is_not_blamed_for_what_had_failed_before(bec: Any, fleet: Any) -> None:
    late = {"mo1": "mo1 did not connect within 5 s"}
    fields = {"deviceClass": "ophyd.Signal", "enabled": True, "readoutPriority": "baseline"}
    fleet.load(dict.fromkeys(("samx", "bpm4i", "mo1"), fields), version=2, failed=late)
    bec.session.on_session(None)
    fleet.config_failed = {**late, "bpm4i": "bpm4i needs samx"}
    assert bec.config.reload("samx").failed == {"bpm4i": "bpm4i needs samx"}
    assert bec.config.reload("mo1").failed.keys() == {"mo1", "bpm4i"}


def test_a_reload_names_what_could_not_be_built_anew(bec: Any, fleet: Any) -> None:
    fleet.config_kept = {"samx": "samx stays as it was: no licence"}
    change = bec.config.reload(bec.devices.samx, "bpm4i")
    sent = fleet.requests[-1]
    assert (sent.action, sent.devices) == (m.ConfigAction.RELOAD, {"samx": {}, "bpm4i": {}})
    assert change.kept == fleet.config_kept
    assert (
        str(change)
        == "1 device built anew.\n1 could not be built anew:\n  samx: samx stays as it was: no licence"
    )
    with pytest.raises(UnknownDevice, match="there is no device 'samxx'"):
        bec.config.reload("samxx")
    fleet.config_kept = {}
    assert not bec.config.reload().kept and fleet.requests[-1].devices == {}


def test_the_demo_beamline_is_found() -> None:
    from bec_client.config import demo_file

    assert demo_file().is_file()


def test_a_session_is_saved_by_tags_and_loaded_again(bec: Any, fleet: Any, tmp_path: Path) -> None:
    fields = {"deviceClass": "device_server.sim.SimMonitor", "enabled": True, "readoutPriority": "baseline"}
    tags = {"a": ["optics", "mirror"], "b": ["optics"], "c": ["the sample"], "d": []}
    fleet.load({name: {**fields, "deviceTags": found} for name, found in tags.items()}, version=2)
    bec.session.on_session(None)

    def files(**options: Any) -> dict[str, set[str]]:
        main = bec.config.save_current_session(tmp_path / "beamline.yaml", split_by_tag=True, **options)
        assert main == tmp_path / "beamline" / "main.yaml"
        assert set(load_device_file(main)) == set(tags)
        found = {
            file.stem: set(load_device_file(file)) for file in main.parent.glob("*.yaml") if file != main
        }
        for file in main.parent.iterdir():
            file.unlink()
        return found

    assert files() == {"mirror": {"a"}, "optics": {"b"}, "the_sample": {"c"}, "misc": {"d"}}
    assert files(included_tags=["optics"], remaining_devices_tag="others") == {
        "optics": {"a", "b"},
        "others": {"c", "d"},
    }
    assert files(excluded_tags=["optics"]) == {"mirror": {"a"}, "the_sample": {"c"}, "misc": {"b", "d"}}
    with pytest.raises(ConfigError, match="a tag 'main' cannot be split"):
        files(remaining_devices_tag="main")
