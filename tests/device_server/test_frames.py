"""Files of frames: where they go, what is in them, and how the scan's own file hears of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from bec_lib.errors import StorageError
from device_server import sim
from device_server.frames import DATASET, FrameFile, frames_path
from device_server.readings import files_of


def test_a_file_of_frames_is_beside_the_scans_own() -> None:
    assert frames_path({"stem": "/d/S1/S1", "suffix": "_a"}, "eiger") == Path("/d/S1/S1_eiger_a.h5")
    assert frames_path(None, "eiger") is None


def test_frames_can_be_read_while_they_are_written_and_go_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "new" / "frames.h5"
    frames = FrameFile(path, (2, 3))
    frames.append(np.full((2, 3), 1))
    with h5py.File(path, "r", swmr=True) as file:
        assert file[DATASET].shape == (1, 2, 3)
    frames.close()
    frames.close()
    again = FrameFile(path, (2, 3))
    again.append(np.full((2, 3), 2))
    again.close()
    with h5py.File(path) as file:
        assert file[DATASET][:, 0, 0].tolist() == [1, 2]
        assert file[DATASET].dtype == "uint16"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match=r"file of frames .*/file/frames.h5 cannot be made"):
        FrameFile(tmp_path / "file" / "frames.h5", (2, 3))


def test_a_camera_writes_a_frame_for_each_trigger_and_says_where(tmp_path: Path) -> None:
    info = SimpleNamespace(msg=SimpleNamespace(file={"stem": str(tmp_path / "S1"), "suffix": ""}))
    camera = sim.SimCamera("eiger", shape=[4, 5], scan_info=info, write_frames=True)
    assert files_of(camera.file_event) == []
    camera.stage()
    assert files_of(camera.file_event) == [
        {"path": str(tmp_path / "S1_eiger.h5"), "name": "data", "dataset": DATASET}
    ]
    for _ in range(3):
        camera.trigger()
        camera.read()
    last = camera.frame().image
    camera.unstage()
    assert camera.file_event is None
    with h5py.File(tmp_path / "S1_eiger.h5") as file:
        assert file[DATASET].shape == (3, 4, 5)
        np.testing.assert_array_equal(file[DATASET][-1], last)


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (None, []),
        ({"file_path": ""}, []),
        ({"file_path": "/a.h5"}, [("/a.h5", "data", "/")]),
        (
            SimpleNamespace(file_path="/a.h5", hinted_h5_entries={"x": "/e/x", "y": "/e/y"}),
            [("/a.h5", "x", "/e/x"), ("/a.h5", "y", "/e/y")],
        ),
    ],
)
def test_what_a_device_says_of_its_files(event: Any, found: list[tuple[str, str, str]]) -> None:
    for said in (event, SimpleNamespace(get=lambda: event)):
        assert [tuple(item.values()) for item in files_of(said)] == found
