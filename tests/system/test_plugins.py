"""The example package on a real fleet: its scan, its modifier, its device; broken, mended, reloaded, gone."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from bec_lib.errors import BECError, RequestRejected
from deploy.temporary import TemporaryFleet

PACKAGE = Path(__file__).parents[2] / "docs" / "examples" / "plugin"


def install(target: Path) -> None:
    """As its users do, into a folder of its own; without a network."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("there is no pip in this environment")
    source = target.parent / "source"
    shutil.copytree(PACKAGE, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=60)


def test_the_example_package_from_its_installation_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bec_client import BECClient

    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(site))
    with TemporaryFleet(prefix="bec-test") as fleet, BECClient(fleet.config) as bec:
        bec.live_updates.enabled = False
        scans, dev = bec.scans, bec.devices
        pid = fleet.row("scan_server")["pid"]
        assert "snake_scan" not in scans

        # Installed while the fleet runs.
        install(site)
        outcome = bec.plugins.reload()
        assert outcome == "New: example_beamline."
        info = scans.info("snake_scan")
        assert info.plugin == "example_beamline"
        assert [p.default for p in info.parameters if p.name == "exp_time"] == [0.02]
        assert "readout_time" not in [p.name for p in info.parameters]
        table = str(bec.plugins)
        assert "example-beamline" in table and "BeamOnSample" in table

        assert not bec.config.update_session_with_file(PACKAGE / "devices.yaml").failed
        report = scans.snake_scan(dev.samx, -1, 1, dev.samy, 0, 2, rows=2, columns=3)
        report.wait(timeout=20)
        with h5py.File(report.scan.file_path) as file:
            devices = file["entry/collection/devices"]
            assert devices["samx/samx/value"][:].tolist() == [-1, 0, 1, 1, 0, -1]
            # The modifier's doing: open at every point, and opened once.
            assert devices["shutter/shutter/value"][:].tolist() == [1] * 6
            assert set(devices["shutter/shutter_openings/value"][:]) == {1}
        assert report.scan.status_message.scan_parameters["exp_time"] == 0.02
        assert dev.shutter.read()["shutter"]["value"] == 0
        with pytest.raises(BECError, match=r"exp_time.*at most 10 s"):
            scans.snake_scan(dev.samx, -1, 1, dev.samy, 0, 2, rows=2, columns=3, exp_time=11)

        # The clean-up, when it ends otherwise.
        report = scans.line_scan(dev.samx, -1, 1, steps=10, exp_time=5)
        with pytest.raises(RequestRejected, match=r"cannot be reloaded while .*line_scan.*BeamOnSample"):
            bec.plugins.reload()
        bec.queue.request_scan_abortion()
        with pytest.raises(BECError):
            report.wait(timeout=20)
        assert dev.shutter.read()["shutter"]["value"] == 0

        # A version that cannot be imported: named, and the one before runs on.
        module = site / "example_beamline" / "scans.py"
        text = module.read_text()
        module.write_text(f"import no_such_library\n{text}")
        outcome = bec.plugins.reload()
        assert "example_beamline cannot be used" in outcome and "no_such_library" in outcome
        assert outcome.report.kept == ["example_beamline"]
        scans.snake_scan(dev.samx, -1, 1, dev.samy, 0, 2, rows=1, columns=2).wait(timeout=20)

        # Mended, with another scan.
        module.write_text(text.replace('"snake_scan"', '"winding_scan"'))
        modifiers = site / "example_beamline" / "modifiers.py"
        modifiers.write_text(modifiers.read_text().replace('"snake_scan"', '"winding_scan"'))
        outcome = bec._request_scan_reload()
        assert outcome == "Changed: example_beamline."
        assert "winding_scan" in scans and "snake_scan" not in scans
        scans.winding_scan(dev.samx, -1, 1, dev.samy, 0, 2, rows=1, columns=2).wait(timeout=20)

        # Gone.
        shutil.rmtree(site)
        site.mkdir()
        assert bec.plugins.reload() == "Gone: example_beamline."
        assert "winding_scan" not in scans
        scans.line_scan(dev.samx, -1, 1, steps=2).wait(timeout=20)
        # Nobody has been restarted for any of that.
        assert fleet.row("scan_server")["pid"] == pid


POLITE = '''
"""A scan in a plugin."""

from bec_lib.scans import Points, PointScan, Steps

__all__ = ["Polite"]


class Polite(PointScan):
    """Takes a point."""

    scan_name = "polite_scan"

    def run(self) -> Steps:
        yield Points(1)
'''


def test_a_plugin_that_ends_the_scan_server_when_it_is_imported_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bec_client import BECClient

    facts = tmp_path / "polite-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: polite\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[bec.scans]\npolite = polite\n")
    module = tmp_path / "polite.py"
    module.write_text(POLITE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with TemporaryFleet(prefix="bec-test") as fleet, BECClient(fleet.config) as bec:
        bec.live_updates.enabled = False
        # All but that of a plugin which is not installed here.
        assert set(bec.config.update_session_with_file(PACKAGE / "devices.yaml").failed) == {"shutter"}
        bec.scans.polite_scan().wait(timeout=20)
        module.write_text(f"import os\n\nos._exit(4)\n{POLITE}")
        with pytest.raises(RequestRejected, match=r"ended with code 4 .*the plugin polite .*being imported"):
            bec.plugins.reload()
        bec.scans.line_scan(bec.devices.samx, -1, 1, steps=2).wait(timeout=20)
        bec.scans.reload()
        assert "polite_scan" not in bec.scans
        assert "it is left out" in bec.plugins.failed["polite"]
        module.write_text(POLITE)
        assert bec.plugins.reload() == "New: polite."
        bec.scans.polite_scan().wait(timeout=20)
