"""The demo as a user runs it, to its end and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.system.processes import processes_in


def start_demo(folder: Path) -> subprocess.Popen[str]:
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.demo", "--output", str(folder / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
    )


def test_two_demos_at_once_run_to_their_ends_and_leave_only_results(tmp_path: Path) -> None:
    demos = {name: start_demo(tmp_path / name) for name in ("one", "two")}
    for name, demo in demos.items():
        output, _ = demo.communicate(timeout=110)
        assert demo.returncode == 0, output
        folder = tmp_path / name
        assert "Nothing is left running" in output
        assert processes_in(folder) == []
        assert list((folder / "tmp").iterdir()) == []
        files = sorted((folder / "out").rglob("*.h5"))
        assert [path.name for path in files][:2] == ["S00001_master.h5", "S00002_master.h5"]
        assert len(list((folder / "out").rglob("*.png"))) == 2
        with h5py.File(files[0]) as file:
            positions = file["/entry/data/samx"][:]
            assert np.all(np.diff(positions) > 0)
            assert len(positions) == len(file["/entry/data/bpm4i"]) == 31
            assert abs(positions[np.argmax(file["/entry/data/bpm4i"][:])] - 0.37) < 0.2
        with h5py.File(files[1]) as file:
            assert len(file["/entry/data/intensity2d"]) == 35


@pytest.mark.parametrize("after_s", [0.05, 0.5, 1.0, 1.6, 2.2, 3.0, 4.5, 7.0])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, after_s: float) -> None:
    """To the whole group, as a terminal sends it. The moments lie in the start, the loading and the scans."""
    demo = start_demo(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        demo.wait(after_s)
    os.killpg(demo.pid, signal.SIGINT)
    began = time.monotonic()
    output, _ = demo.communicate(timeout=30)
    assert time.monotonic() - began < 15.0
    assert demo.returncode in (130, -signal.SIGINT), output
    # Before its first word the interpreter itself may be interrupted.
    assert "Traceback" not in output or "1." not in output
    assert processes_in(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_killed_demo_takes_its_fleet_along(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        demo.wait(3.0)
    demo.kill()
    demo.communicate()
    deadline = time.monotonic() + 20.0
    while processes_in(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_in(tmp_path) == []


DEAF = """
import signal, sys, time
from pathlib import Path
from deploy.demo import Demo

class Deaf(Demo):
    def _run(self):
        class Last:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)
        Last()
        print("not heard", flush=True)
        time.sleep(60)

sys.exit(Deaf(Path(sys.argv[1])).main())
"""


def test_an_interrupt_that_a_finalizer_swallows_is_heard_after_all(tmp_path: Path) -> None:
    demo = subprocess.run(
        [sys.executable, "-c", DEAF, str(tmp_path / "out")], capture_output=True, text=True, timeout=30
    )
    assert "not heard" in demo.stdout
    assert demo.returncode == 130, demo.stderr
    assert demo.stderr.split() == ["stopped"]
