"""Each service starts by itself, with nothing installed but what its own extra asks for.

The test's interpreter has everything; a finder in front of all others hides every package that the service's locked
requirements do not name. The control run shows that it does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bec_lib.broker import Broker, RedisSettings, Sender
from bec_lib.endpoints import MessageEndpoints
from bec_lib.messages import ServiceState
from deploy.temporary import TemporaryFleet

ROOT = Path(__file__).parents[2]

SERVICES = [
    ("scan_server", "scan_server", "base"),
    ("device_server", "device_server", "device-server"),
    ("scan_bundler", "scan_bundler", "base"),
    ("file_writer", "file_writer", "file-writer"),
    ("scihub_connector", "scihub", "scihub"),
    ("data_pipeline", "data_pipeline", "data-pipeline"),
]

HIDE = textwrap.dedent(
    """
    import importlib, importlib.abc, importlib.metadata, re, sys

    allowed, module, arguments = set(sys.argv[1].split(",")), sys.argv[2], sys.argv[3:]
    canonical = lambda name: re.sub("[-_.]+", "-", name).lower()
    owners = importlib.metadata.packages_distributions()

    class Hidden(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            found = owners.get(name.split(".")[0])
            if found and not any(canonical(owner) in allowed for owner in found):
                raise ModuleNotFoundError(f"No module named {name!r} (hidden: {found})", name=name)
            return None

    sys.meta_path.insert(0, Hidden())
    sys.exit(importlib.import_module(module).main(arguments))
    """
)


def locked(name: str) -> set[str]:
    """Names in a locked requirements file, and our own distribution."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {
        re.sub("[-_.]+", "-", line).lower() for line in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.M)
    } | {"bec"}


@pytest.fixture(scope="module")
def config() -> Iterator[Path]:
    """A deployment with a Redis and no service, as another host would see it: only an address."""
    with TemporaryFleet(prefix="bec-alone", arguments=["--only", "scan_bundler"]) as fleet:
        settings = yaml.safe_load(fleet.config.read_text(encoding="utf-8"))
        socket = next(fleet.folder.rglob("redis.sock"))
        settings.update(deployment=f"{fleet.deployment}-alone", redis={"unix_socket": str(socket)})
        file = fleet.folder / "elsewhere.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        yield file


def start(package: str, lock: str, config: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HIDE, ",".join(locked(lock)), f"{package}.__main__", "--config", str(config)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("package", "role", "lock"), SERVICES)
def test_a_service_runs_with_its_own_extra_only(package: str, role: str, lock: str, config: Path) -> None:
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    broker = Broker(RedisSettings(**settings["redis"]), settings["deployment"], Sender("test", "alone"))
    process = start(package, lock, config)
    try:
        state = None
        while state is not ServiceState.RUNNING:
            if process.poll() is not None:
                raise AssertionError(f"{package} ended: {process.stderr.read()}")  # type: ignore[union-attr]
            beat = broker.get(MessageEndpoints.service_status(role))
            state = beat.message.status if beat else None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.wait()
        broker.close()


def test_what_is_hidden_is_missed(config: Path) -> None:
    """The control run: with only the base packages the file writer has no HDF5 and says so."""
    process = start("file_writer", "base", config)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "h5py" in errors
