"""The lock and the checks before a start."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from bec_lib.errors import AlreadyRunning, ConfigError, StorageError
from bec_lib.service.config import ServiceConfig
from deploy import places as module
from deploy.places import Places, check_data_folder, make_state_folder, places_of, read_holder, take_lock


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = places_of(ServiceConfig(state_path=tmp_path / "state"))
    make_state_folder(found)
    return found


def test_the_second_fleet_is_refused_and_the_first_is_named(places: Places) -> None:
    held = take_lock(places, "x")
    assert read_holder(places)["pid"] == os.getpid()
    with pytest.raises(
        AlreadyRunning, match=rf"already running for deployment 'x' .*\(process {os.getpid()}\)"
    ):
        take_lock(places, "x")
    os.close(held)
    os.close(take_lock(places, "x"))


def test_a_lock_file_that_was_removed_by_its_last_holder_locks_nobody_out(places: Places) -> None:
    held = take_lock(places, "x")
    places.lock.unlink()
    again = take_lock(places, "x")
    assert os.fstat(again).st_ino == places.lock.stat().st_ino
    os.close(held)
    os.close(again)


def test_control_socket_and_redis_socket_have_short_paths(tmp_path: Path) -> None:
    deep = places_of(ServiceConfig(state_path=tmp_path / ("d" * 100)))
    assert len(str(deep.control)) < 108
    assert deep.control.parent == deep.redis_socket.parent


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="state_path"):
        make_state_folder(places_of(ServiceConfig(state_path=tmp_path / "file" / "state")))


def test_a_data_folder_is_made_up_to_the_account(tmp_path: Path) -> None:
    check_data_folder(tmp_path / "data" / "$account" / "raw")
    assert (tmp_path / "data").is_dir()
    assert not list((tmp_path / "data").iterdir())


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written to .*file.*data_path"):
        check_data_folder(tmp_path / "file" / "data")


@pytest.mark.parametrize(
    ("free_mb", "refused", "warned"), [(10, True, False), (500, False, True), (5000, False, False)]
)
def test_little_space_is_said_and_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mb: int, refused: bool, warned: bool
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(0, 0, free_mb * 1_000_000))
    assert shutil.disk_usage(tmp_path).free == free_mb * 1_000_000
    if refused:
        with pytest.raises(StorageError, match="no space for scan files"):
            check_data_folder(tmp_path)
    else:
        assert bool(check_data_folder(tmp_path)) is warned
