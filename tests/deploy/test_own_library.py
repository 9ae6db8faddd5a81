"""A foreign bec_lib in front of ours is noticed by every command, before anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

COMMANDS = [
    "scan_server.__main__",
    "device_server.__main__",
    "scan_bundler.__main__",
    "file_writer.__main__",
    "scihub_connector.__main__",
    "data_pipeline.__main__",
    "deploy.cli",
    "bec_client.cli",
]


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_refuses_and_says_how_to_mend_it(module: str, tmp_path: Path) -> None:
    foreign = tmp_path / "bec_lib"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("__version__ = '4.3.2'\n")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "belongs to another distribution" in done.stderr
    assert "pip uninstall bec_lib" in done.stderr
    assert "Traceback" not in done.stderr


def test_our_own_passes() -> None:
    from deploy.own_library import require_own_library

    require_own_library()
