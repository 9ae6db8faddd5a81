"""The real services under the supervisor: one scan, and every service killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bec_lib.broker import Broker, Sender
from bec_lib.endpoints import MessageEndpoints
from bec_lib.service import load_service_config
from deploy.services import SERVICES
from deploy.temporary import TemporaryFleet
from tests.system.processes import processes_in, processes_of, wait_until

ROOT = Path(__file__).parents[2]
DEMO_DEVICES = ROOT / "deploy" / "configs" / "demo.yaml"
ROLES = [spec.role for spec in SERVICES]


def call(*words: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={**os.environ, **variables},
    )


def check_line(path: str, start: float, stop: float, steps: int) -> None:
    """Every point once and in order: the positions are the ones that were asked for, and nothing else."""
    with h5py.File(path) as file:
        positions = file["/entry/collection/devices/samx/samx/value"][:]
        counts = file["/entry/collection/devices/bpm4i/bpm4i/value"][:]
        wanted = file["/entry/collection/setpoints/samx"][:]
    assert wanted == pytest.approx(np.linspace(start, stop, steps), abs=1e-12)
    assert positions == pytest.approx(np.linspace(start, stop, steps), abs=0.01)
    assert len(counts) == steps


def test_a_scan_gives_a_file_with_every_point_once_and_in_order(bec: Any) -> None:
    report = bec.scans.line_scan(
        bec.device_manager.devices.samx, -0.5, 0.5, steps=41, exp_time=0.001, relative=False
    )
    report.wait(timeout=30)
    assert report.scan.status == "closed"
    check_line(report.scan.file_path, -0.5, 0.5, 41)


# Each service killed, one after the other, on one fleet


@pytest.fixture(scope="module")
def mortal() -> Iterator[TemporaryFleet]:
    from bec_client import BECClient

    with TemporaryFleet(prefix="bec-test") as running:
        with BECClient(running.config) as client:
            assert not client.config.update_session_with_file(DEMO_DEVICES).failed
        yield running
        assert running.supervisor
        running.stop()
        assert processes_of(running) == []


@pytest.mark.parametrize("role", ROLES)
def test_a_killed_service_is_back_within_two_seconds_and_the_next_scan_works(
    mortal: TemporaryFleet, role: str
) -> None:
    """Back means: the process is there, has its role, and says RUNNING in its own heartbeat."""
    from bec_client import BECClient

    before = mortal.row(role)
    os.kill(before["pid"], signal.SIGKILL)
    began = time.monotonic()

    def is_back() -> bool:
        row = mortal.row(role)
        return row["pid"] not in (None, before["pid"])

    wait_until(is_back, 2.0, f"{role} is started again")
    assert time.monotonic() - began < 2.0
    wait_until(lambda: mortal.row(role)["state"] == "RUNNING", 10.0, f"{role} says RUNNING")
    row = mortal.row(role)
    assert "SIGKILL" in row["reason"]
    assert row["restarts"] == before["restarts"] + 1
    with BECClient(mortal.config) as client:
        client.live_updates.enabled = False
        samx = client.device_manager.devices.samx
        report = client.scans.line_scan(samx, 0, 0.2, steps=5, exp_time=0.001, relative=False)
        report.wait(timeout=30)
        check_line(report.scan.file_path, 0, 0.2, 5)


@pytest.mark.parametrize("victim", [*ROLES, "redis", "keeper"])
def test_a_scan_survives_the_death_of_anybody_with_every_point_once(
    mortal: TemporaryFleet, victim: str
) -> None:
    """Killed between the first and the last point: the client's own count of points tells when."""
    from bec_client import BECClient

    with BECClient(mortal.config) as client:
        client.live_updates.enabled = False
        samx = client.device_manager.devices.samx
        report = client.scans.line_scan(samx, -0.5, 0.5, steps=61, exp_time=0.01, relative=False)
        wait_until(lambda: len(report.scan.live_data) >= 5, 10.0, "five points")
        assert not report.done
        status = mortal.status()
        pids = {row["service"]: row["pid"] for row in status["services"]}
        pids |= {"redis": status["redis"]["pid"], "keeper": status["supervisor"]["keeper"]}
        os.kill(pids[victim], signal.SIGKILL)
        report.wait(timeout=60)
        assert report.scan.status == "closed"
        check_line(report.scan.file_path, -0.5, 0.5, 61)


def test_a_tomogram_over_three_deaths_has_the_labels_it_was_to_have(mortal: TemporaryFleet) -> None:
    """Labels and targets come with the instructions: those of the second and third life must be those of the plan."""
    from bec_client import BECClient

    with BECClient(mortal.config) as client:
        client.live_updates.enabled = False
        dev = client.device_manager.devices
        report = client.scans.tomo_scan(
            dev.samrot, 0, 2, 41, sample=dev.samx, sample_out=-0.1, shutter=dev.shutter,
            flats=4, darks=3, flat_interval=10, exp_time=0.02,
        )  # fmt: skip
        for count, role in ((5, "device_server"), (15, "scan_server"), (25, "scan_bundler")):
            wait_until(lambda n=count: len(report.scan.live_data) >= n, 30.0, f"{count} points")
            os.kill(mortal.row(role)["pid"], signal.SIGKILL)
        report.wait(timeout=60)
        assert report.scan.status == "closed"
        with h5py.File(report.scan.file_path) as file:
            keys = file["/entry/collection/labels/image_key"][:].tolist()
            angles = file["/entry/collection/setpoints/samrot"][:]
            sample = file["/entry/collection/setpoints/samx"][:]
            assert len(file["/entry/collection/devices/samrot/samrot/value"]) == len(keys)
        flats = [1] * 4
        projections = [key for n in (10, 10, 10, 10, 1) for key in [0] * n + flats]
        assert keys == [2] * 3 + flats + projections + [2] * 3
        is_projection = np.equal(keys, 0)
        assert angles[is_projection] == pytest.approx(np.linspace(0, 2, 41), abs=1e-12)
        assert (sample == np.where(np.equal(keys, 1), -0.1, 0.0)).all()


def test_a_killed_supervisor_takes_the_services_down(new_fleet: Callable[..., TemporaryFleet]) -> None:
    fleet = new_fleet().start()
    os.kill(fleet.supervisor, signal.SIGKILL)
    wait_until(lambda: processes_of(fleet) == [], 20.0)
    assert not (fleet.state / "fleet.lock").exists()
    fleet.start()
    assert {row["state"] for row in fleet.status()["services"]} == {"RUNNING"}


@pytest.mark.parametrize("spec", SERVICES, ids=ROLES)
def test_a_service_runs_alone_with_nothing_but_its_configuration(
    new_fleet: Callable[..., TemporaryFleet], dummies: list[str], spec: Any
) -> None:
    """On another host it would be the same: the Redis belongs to somebody else."""
    fleet = new_fleet(arguments=dummies).start()
    config = load_service_config(fleet.config)
    broker = Broker(config.broker_settings, config.deployment, Sender("test", "test"))
    alone = subprocess.Popen(
        [sys.executable, "-m", spec.package, "--config", str(fleet.config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=fleet.folder,
    )
    try:

        def says_running() -> bool:
            found = broker.get(MessageEndpoints.service_status(spec.role))
            return found is not None and found.message.status == "RUNNING" and found.message.pid == alone.pid

        wait_until(says_running, 15.0, f"{spec.role} says RUNNING")
        alone.terminate()
        output, _ = alone.communicate(timeout=15)
        assert alone.returncode == 0, output
        assert broker.get(MessageEndpoints.service_status(spec.role)) is None
    finally:
        alone.kill()
        alone.communicate()
        broker.close()


# The command


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "bec.yaml").write_text(
        f"deployment: cli-{os.getpid()}\nstate_path: state\ndata_path: data\n", encoding="utf-8"
    )
    yield tmp_path
    call("stop", cwd=tmp_path)
    assert processes_in(tmp_path) == []


def test_start_status_and_stop_from_the_command_line(folder: Path) -> None:
    started = call("start", cwd=folder)
    assert started.returncode == 0, started.stderr
    assert "The fleet is up" in started.stdout
    for role in ROLES:
        assert role in started.stdout
    assert call("start", "--if-needed", cwd=folder).returncode == 0
    again = call("start", cwd=folder)
    assert again.returncode == 1
    assert again.stderr.startswith("error: a fleet is already running")
    assert again.stderr.count("\n") == 1

    shown = call("status", cwd=folder)
    assert shown.returncode == 0
    assert "fsync no" in shown.stdout
    assert str(folder / "bec.yaml") in shown.stdout
    status = json.loads(call("status", "--json", cwd=folder).stdout)
    assert {row["service"]: row["state"] for row in status["services"]} == dict.fromkeys(ROLES, "RUNNING")
    assert all(row["memory_bytes"] > 1e6 for row in status["services"])
    assert status["data_folder"] == str(folder / "data")

    restarted = call("restart", "scan_bundler", cwd=folder)
    assert restarted.returncode == 0, restarted.stderr
    stopped = call("stop", cwd=folder)
    assert stopped.returncode == 0, stopped.stderr
    assert processes_in(folder) == []
    assert sorted(path.name for path in (folder / "state").iterdir() if path.suffix != ".sqlite") == [
        "logs",
        "redis",
    ]


def test_without_a_fleet_status_and_stop_say_so(folder: Path) -> None:
    for command in ("status", "stop"):
        done = call(command, cwd=folder)
        assert done.returncode == 1
        assert "no fleet is running" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_wrong_call_has_code_2(folder: Path) -> None:
    assert call("start", "--nonsense", cwd=folder).returncode == 2
    assert call("begin", cwd=folder).returncode == 2


def test_an_unknown_service_is_refused(folder: Path) -> None:
    done = call("start", "--only", "scan_sever", cwd=folder)
    assert done.returncode == 1
    assert "no service called scan_sever" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("deployment: [", "line 1"),
        ("deployment: x\nstate_path: state\nunknown_setting: 1\n", "unknown_setting"),
        ("deployment: x\nstate_path: bec.yaml/state\n", "cannot be written"),
        ("deployment: x\nstate_path: state\ndata_path: bec.yaml/data\n", "scan files cannot be written"),
        (
            "deployment: x\nstate_path: state\nredis: {host: 127.0.0.1, port: 1, give_up_after_s: 0.1}\n",
            "cannot be reached",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_the_start_in_words(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "bec.yaml").write_text(text, encoding="utf-8")
    done = call("start", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 2
    assert processes_in(tmp_path) == []


def test_a_redis_that_wants_a_password_is_named(
    new_fleet: Callable[..., TemporaryFleet], dummies: list[str], tmp_path: Path
) -> None:
    server = new_fleet(arguments=dummies).start()
    socket_path = load_service_config(server.config).broker_settings.unix_socket
    broker = Broker(load_service_config(server.config).broker_settings, "x", Sender("test", "test"))
    broker.redis.config_set("requirepass", "secret")
    try:
        refused = new_fleet(settings={"redis": {"unix_socket": socket_path, "password": "wrong"}})
        done = call("start", "--config", str(refused.config))
        assert done.returncode == 1
        assert "refuses the log-in" in done.stderr
        right = new_fleet(
            arguments=["--only", "scan_bundler"],
            settings={"redis": {"unix_socket": socket_path, "password": "secret"}},
        )
        assert right.start().row("scan_bundler")["state"] == "RUNNING"
        right.stop()
    finally:
        broker.redis.config_set("requirepass", "")
        broker.close()


def test_a_redis_without_its_append_only_file_is_warned_of(
    new_fleet: Callable[..., TemporaryFleet], dummies: list[str]
) -> None:
    server = new_fleet(arguments=dummies).start()
    settings = load_service_config(server.config).broker_settings
    broker = Broker(settings, "x", Sender("test", "test"))
    broker.redis.config_set("appendonly", "no")
    broker.close()
    fleet = new_fleet(
        arguments=["--only", "scan_bundler"], settings={"redis": {"unix_socket": settings.unix_socket}}
    )
    told: list[Any] = []
    fleet.start(told.append)
    assert any("append-only" in line.get("text", "") for line in told if line["event"] == "warning")
    assert any("append-only" in text for text in fleet.status()["warnings"])
    fleet.stop()
