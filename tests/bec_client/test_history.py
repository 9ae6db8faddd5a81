"""Earlier scans and their files, read when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bec_client import plots
from bec_client.history import History, ScanData, file_tree
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, ParameterError, StorageError
from bec_lib.messages import ScanHistoryMessage, ScanState
from bec_lib.testing import fake_broker


def write(path: str, count: int, grid: tuple[int, int] | None = None) -> None:
    """A file as the file writer's, in its essentials."""
    text = h5py.string_dtype("utf-8", 32)
    with h5py.File(path, "w") as file:
        devices = file.create_group("/entry/collection/devices")
        x = np.linspace(-1, 1, count)
        columns: dict[str, Any] = {"samx": (x, "mm"), "bpm4i": (1000 * np.exp(-(x**2)), "counts")}
        if grid:
            slow, fast = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
            fast[1::2] = fast[1::2, ::-1]
            columns = {
                "samx": (slow.ravel().astype(float), "mm"),
                "samy": (fast.ravel().astype(float), "mm"),
                "bpm4i": ((10 * slow + fast).ravel().astype(float), "counts"),
            }
        for name, (values, unit) in columns.items():
            group = devices.create_group(f"{name}/{name}")
            group["value"] = values
            group["value"].attrs["units"] = unit
            group["timestamp"] = 1e9 + np.arange(len(values))
            file[f"/entry/collection/readout_groups/monitored/{name}"] = h5py.SoftLink(
                f"{devices.name}/{name}"
            )
        devices["curr/curr/value"] = 400.0
        facts = file.create_group("/entry/collection/metadata/bec")
        facts["scan_number"] = 7
        facts["scan_name"] = np.array("grid_scan" if grid else "line_scan", dtype=text)
        facts["scan_motors"] = np.array(["samx", "samy"] if grid else ["samx"], dtype=text)
        facts["shape"] = list(grid or (count,))
        facts["scan_id"] = np.array("abc", dtype=text)


@pytest.fixture
def scans(bec: Any, fleet: Any, tmp_path: Path) -> Any:
    """A client that has run three scans with real files."""
    fleet.write_file = write
    for number in (1, 2, 3):
        fleet.file_path = str(tmp_path / f"S0000{number}_master.h5")
        report = bec.scans.line_scan(bec.devices.samx, -1, 1, steps=number + 3, hide_report=True)
        report.wait(10)
    while len(bec.history) < 3:
        pass
    return report


def test_the_history_counts_from_the_end(bec: Any, scans: Any) -> None:
    assert bec.history[-1].scan_number == 3
    assert bec.history[0].num_points == 4
    assert [scan.scan_number for scan in bec.history[-2:]] == [2, 3]
    assert len(bec.history) == 3
    with pytest.raises(IndexError, match="the history has 3 scans"):
        bec.history[7]
    assert repr(bec.history[-1]).startswith("<scan 3: line_scan of samx, 6 points, closed")
    assert "S00002_master.h5" in str(bec.history)


def test_by_number_and_by_id(bec: Any, scans: Any) -> None:
    assert bec.history.get_by_scan_number(2).num_points == 5
    assert bec.history.get_by_scan_id(scans.scan.scan_id).scan_number == 3
    with pytest.raises(BECError, match="no scan number 9 in the history; it goes from 1 to 3"):
        bec.history.get_by_scan_number(9)
    with pytest.raises(BECError, match="no scan with the id"):
        bec.history.get_by_scan_id("nobody")


def test_of_a_scan_that_is_told_of_twice_the_last_word_counts() -> None:
    """Its file could not be written when it ended, and the next scan came before it could."""
    broker = fake_broker(service="file_writer")
    history = History(broker)

    def tell(number: int, error: str = "") -> None:
        message = ScanHistoryMessage(
            scan_id=f"scan {number}", scan_number=number, scan_name="acquire", status=ScanState.CLOSED,
            file_path=f"{number}.h5", num_points=1, started=float(number), ended=number + 0.5, file_error=error,
        )  # fmt: skip
        broker.append(Endpoints.scan_history, message)

    for number in range(1, 40):
        tell(number, "disk full" if number == 5 or number >= 20 else "")
    for number in (*range(39, 19, -1), 5):
        tell(number)
    assert [m.scan_number for m in history.messages()] == list(range(1, 40))
    assert not any(m.file_error for m in history.messages())
    assert history[-1].scan_number == 39
    assert [m.scan_number for m in history.messages(30)] == list(range(10, 40))
    assert history.messages(0) == []
    assert len(history.messages(1000)) == 39


def test_data_is_read_from_the_file(bec: Any, scans: Any) -> None:
    data = scans.scan.data
    np.testing.assert_allclose(data.devices.samx.samx.read()["value"], np.linspace(-1, 1, 6))
    assert list(data.devices["bpm4i"].read()["bpm4i"]) == ["value", "timestamp"]
    assert set(data.readout_groups.monitored_devices.read()) == {"samx", "bpm4i"}
    assert data.devices.curr.curr.read()["value"] == 400.0
    assert data.metadata["bec"]["scan_name"] == "line_scan"
    with pytest.raises(KeyError, match="'nobody' is not in /entry/collection/devices"):
        data.devices["nobody"]
    assert "samx" in dir(data.devices)


def test_a_file_that_is_gone_or_no_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist on this computer"):
        ScanData(tmp_path / "gone.h5").devices.keys()
    text = tmp_path / "text.h5"
    text.write_text("not a file")
    with pytest.raises(StorageError, match="cannot be read as HDF5"):
        file_tree(text)


def test_the_tree_is_short_and_on_request_full(tmp_path: Path) -> None:
    write(str(tmp_path / "a.h5"), 5)
    tree = file_tree(tmp_path / "a.h5")
    assert "samx  5 float64 [mm]" in tree
    assert "curr = 400" in tree
    assert "timestamp" not in tree
    assert "monitored" in tree
    assert "-> /entry/collection/devices/samx" in tree
    assert "timestamp" in file_tree(tmp_path / "a.h5", full=True)


def test_figures_from_files(tmp_path: Path) -> None:
    write(str(tmp_path / "line.h5"), 21)
    figure = plots.from_file(tmp_path / "line.h5")
    assert (figure.title, figure.x_label, figure.y_label) == (
        "Scan 7: line_scan of samx",
        "samx [mm]",
        "bpm4i [counts]",
    )
    with pytest.raises(ParameterError, match=r"no column 'diode' to draw; there are samx.samx, bpm4i.bpm4i"):
        plots.from_file(tmp_path / "line.h5", y="diode")


def test_a_snaked_grid_is_put_in_order(tmp_path: Path) -> None:
    write(str(tmp_path / "grid.h5"), 0, grid=(3, 4))
    figure = plots.from_file(tmp_path / "grid.h5", y="bpm4i")
    assert figure.grid is not None
    np.testing.assert_array_equal(figure.grid.T, [[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]])
    assert (figure.x_label, figure.y_label) == ("samx [mm]", "samy [mm]")
    assert (list(figure.x), list(figure.y)) == ([0, 1, 2], [0, 1, 2, 3])


def test_a_grid_that_is_not_whole_is_drawn_as_points_in_the_plane(tmp_path: Path) -> None:
    """It was aborted, or a position could not be read."""
    write(str(tmp_path / "grid.h5"), 0, grid=(3, 4))
    with h5py.File(tmp_path / "grid.h5", "r+") as file:
        file["/entry/collection/devices/samx/samx/value"][4] = np.nan
    for shape in ([3, 4], [5, 4]):
        with h5py.File(tmp_path / "grid.h5", "r+") as file:
            file["/entry/collection/metadata/bec/shape"][()] = shape
        figure = plots.from_file(tmp_path / "grid.h5", y="bpm4i")
        assert figure.grid is None and figure.z is not None and len(figure.z) == 12
        assert (figure.x_label, figure.y_label, figure.z_label) == (
            "samx [mm]",
            "samy [mm]",
            "bpm4i [counts]",
        )
        assert "█" in plots.terminal(figure)
        assert plots.save_png(figure, tmp_path / "a.png").stat().st_size


def test_targets_and_labels_are_arrays(tmp_path: Path) -> None:
    write(str(tmp_path / "tomo.h5"), 3)
    assert ScanData(tmp_path / "tomo.h5").labels == {}
    with h5py.File(tmp_path / "tomo.h5", "r+") as file:
        file["/entry/collection/labels/image_key"] = [2, 1, 0]
        file["/entry/collection/setpoints/samx"] = [0.0, 0.5, np.nan]
    data = ScanData(tmp_path / "tomo.h5")
    assert data.labels["image_key"].tolist() == [2, 1, 0]
    np.testing.assert_array_equal(data.setpoints["samx"], [0.0, 0.5, np.nan])


def test_of_a_tomogram_the_projections_are_drawn(tmp_path: Path) -> None:
    write(str(tmp_path / "tomo.h5"), 6)
    with h5py.File(tmp_path / "tomo.h5", "r+") as file:
        file["/entry/collection/labels/image_key"] = [2, 1, 0, 0, 0, 1]
    assert len(plots.from_file(tmp_path / "tomo.h5").x) == 3


def test_where_nothing_moves_the_time_goes_across(tmp_path: Path) -> None:
    write(str(tmp_path / "time.h5"), 3)
    with h5py.File(tmp_path / "time.h5", "r+") as file:
        del file["/entry/collection/metadata/bec/scan_motors"]
        file["/entry/control/data"] = [100_000_000, 600_000_000, 1_100_000_000]
    figure = plots.from_file(tmp_path / "time.h5", y="bpm4i")
    assert figure.x_label == "time since the start [s]"
    np.testing.assert_allclose(figure.x, [0.1, 0.6, 1.1])


def test_figures_from_live_points_and_as_png(bec: Any, scans: Any, tmp_path: Path) -> None:
    figure = plots.from_scan(scans.scan)
    assert figure.x_label == "samx [mm]"
    assert "bpm4i [counts]" in plots.terminal(figure)
    picture = plots.save_png(figure, tmp_path / "a.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(StorageError, match="cannot be written"):
        plots.save_png(figure, tmp_path / "nowhere" / "a.png")
