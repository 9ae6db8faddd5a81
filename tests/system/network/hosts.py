"""Services as on hosts of their own: each started by itself, with a configuration and a state folder of its own, and
with its own way to a Redis on TCP that asks for a password.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from bec_lib.broker import Broker, Delivery, RedisSettings, Sender
from bec_lib.broker.embedded import candidates
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import BECError
from bec_lib.messages import PointsMessage, RequestDoneMessage, SealMessage, ServiceState
from tests.system.network.relay import Relay
from tests.system.processes import wait_until

SERVICES = ("scan_server", "device_server", "scan_bundler", "file_writer")
ROOT = Path(__file__).parents[3]
PASSWORD = "a password, not a secret"
_CLIENT = "client"
# By how much the clocks of some hosts are wrong, seconds. Nothing that is tried here may depend on it.
CLOCKS = {"device_server": 300.0, "file_writer": -300.0}
_WRONG_CLOCK = """
import os, time
_true = time.time
time.time = lambda: _true() + float(os.environ["TEST_CLOCK_S"])
"""
_MOTOR = {
    "limits": [-25, 25],
    "velocity": 20,
    "acceleration": 400,
    "tolerance": 0.0001,
    "update_frequency": 20,
}
DEVICES = {
    name: {
        "deviceClass": f"device_server.sim.{kind}",
        "deviceConfig": config,
        "readoutPriority": priority,
        "enabled": True,
        "connectionTimeout": 5.0,
    }
    for name, kind, priority, config in (
        ("samx", "SimPositioner", "baseline", _MOTOR),
        ("slow", "SimPositioner", "baseline", {**_MOTOR, "velocity": 1.0}),
        ("count", "SimMonitor", "monitored", {"model": "gaussian", "motors": "samx", "sigma": 0.2}),
    )
}


class Hosts:
    """A host for each service and one for the client. relays: of whom, to Redis. One owner: the test's thread."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bec-hosts-"))
        self.data = self.folder / "data"
        self._settings = {"deployment": f"hosts-{secrets.token_hex(4)}", "data_path": str(self.data)}
        self.client: Any = None
        (self.folder / "clock").mkdir()
        (self.folder / "clock" / "sitecustomize.py").write_text(_WRONG_CLOCK, encoding="utf-8")
        self._redis, port = redis_on_tcp(self.folder / "redis")
        (self.folder / "password").write_text(PASSWORD + "\n", encoding="utf-8")
        self.server = ("127.0.0.1", port)
        self.relays = {name: Relay(self.server) for name in (*SERVICES, _CLIENT)}
        self.processes: dict[str, subprocess.Popen[str]] = {}
        for name, relay in self.relays.items():
            # A person's patience is not what is tried here.
            self.write_config(name, relay.port, **({"answer_timeout_s": 0.3} if name == _CLIENT else {}))
        self.broker = self.new_broker("eye", port)
        self.told: list[str] = []

    def write_config(self, name: str, port: int, **more: Any) -> Path:
        """A host's configuration; its redis: is on this port."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        file = folder / "bec.yaml"
        redis = {"host": "127.0.0.1", "port": port, "password_file": str(self.folder / "password"), **more}
        settings = {**self._settings, "redis": redis, "state_path": str(folder / "state")}
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return file

    def config_of(self, name: str) -> Path:
        return self.folder / name / "bec.yaml"

    def new_broker(self, name: str, port: int, **more: Any) -> Broker:
        """A broker on this port."""
        settings = RedisSettings(host="127.0.0.1", port=port, password=PASSWORD, **more)
        return Broker(settings, self._settings["deployment"], Sender("test", name))

    def start(self) -> Hosts:
        try:
            self.broker.wait_until_reachable(20.0)
            self.broker.is_patient = True
            for role in SERVICES:
                self.start_service(role)
            for role in SERVICES:
                self.wait_until_running(role)
            self.new_client()
            file = self.folder / "devices.yaml"
            file.write_text(yaml.safe_dump(DEVICES), encoding="utf-8")
            change = self.client.config.update_session_with_file(file)
            assert not change.failed, change.failed
            return self
        except BaseException:
            with contextlib.suppress(BECError, OSError):
                self.stop()
            raise

    def start_service(self, role: str, host: str = "") -> subprocess.Popen[str]:
        """Start it. host: whose configuration it uses; its own if empty."""
        path = [str(self.folder / "clock"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        clock = {"PYTHONPATH": os.pathsep.join(path), "TEST_CLOCK_S": str(CLOCKS.get(role, 0.0))}
        errors = (self.folder / f"{role}{host}.err").open("w", encoding="utf-8")
        with errors:
            process = subprocess.Popen(
                [sys.executable, "-m", role, "--config", str(self.config_of(host or role))],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, **clock},
                cwd=self.folder,
                text=True,
            )
        self.processes[host or role] = process
        return process

    def said(self, role: str, host: str = "") -> str:
        """What it has written to standard error."""
        return (self.folder / f"{role}{host}.err").read_text(encoding="utf-8")

    def heartbeat(self, role: str) -> Any:
        found = self.broker.get(MessageEndpoints.service_status(role))
        return found.message if found else None

    def wait_until_running(self, role: str, pid: int | None = None) -> None:
        def runs() -> bool:
            beat = self.heartbeat(role)
            return bool(beat and beat.status is ServiceState.RUNNING and pid in (None, beat.pid))

        wait_until(runs, 60.0, f"{role} runs")

    def new_client(self) -> Any:
        from bec_client import BECClient

        if self.client is not None:
            self.client.shutdown()
        self.client = BECClient(self.config_of(_CLIENT)).start()
        self.client.live_updates.enabled = False
        self.client.notify = self.client.connection.notify = self.told.append
        return self.client

    # Looking

    def messages(self, endpoint: Endpoint) -> list[Any]:
        return [item.message for item in self.broker.entries(endpoint) if isinstance(item, Delivery)]

    def num_points(self, scan_id: str) -> int:
        """Points that are acknowledged."""
        return int(self.broker.last_id(MessageEndpoints.scan_points(scan_id)).partition("-")[0])

    def judge(self, scan_id: str, positions: np.ndarray) -> list[str]:
        """Whether a scan of samx over these positions has come to one good end, with each point once, in order and at its
        position, and the same in its file; what is not so, as sentences.
        """
        found = []
        ends = [
            message.status.value
            for message in self.messages(MessageEndpoints.scan_status)
            if message.scan_id == scan_id and message.status.is_terminal
        ]
        if ends != ["closed"]:
            found.append(f"the scan ended as {ends}")
        entries = self.messages(MessageEndpoints.scan_points(scan_id))
        index = 0
        for block in (entry for entry in entries if isinstance(entry, PointsMessage)):
            if block.first_index != index:
                found.append(f"point {block.first_index} follows point {index - 1}")
            index = block.first_index + block.count
        if [entry.count for entry in entries if isinstance(entry, SealMessage)] != [index]:
            found.append(f"{index} points are not sealed as such")
        dones = [
            message
            for message in self.messages(MessageEndpoints.request_response(self.client.client_id))
            if isinstance(message, RequestDoneMessage) and message.scan_id == scan_id
        ]
        files = [
            message.file_path
            for message in self.messages(MessageEndpoints.file_event)
            if message.scan_id == scan_id and message.done
        ]
        if len(dones) != 1 or len(files) != 1:
            return [*found, f"its end was told {len(dones)} times, and its file {len(files)} times"]
        with h5py.File(files[0]) as file:
            there = file["/entry/collection/devices/samx/samx/value"][:]
        if there.shape != positions.shape or not np.allclose(there, positions, atol=0.02):
            found.append(f"samx was at {there.tolist()}")
        return found

    def judge_all(self) -> list[str]:
        """What concerns all scans: numbers are given once, and nothing but final files is left."""
        owners: dict[int, set[str]] = {}
        for message in self.messages(MessageEndpoints.scan_status):
            owners.setdefault(message.scan_number, set()).add(message.scan_id)
        finals = {message.file_path for message in self.messages(MessageEndpoints.file_event) if message.done}
        return [
            *(f"scan number {number} was given twice" for number, ids in owners.items() if len(ids) > 1),
            *(
                f"{path} was left"
                for path in self.data.rglob("*")
                if path.is_file() and str(path) not in finals
            ),
        ]

    def heal(self) -> None:
        """All networks as they were at the beginning."""
        for relay in self.relays.values():
            relay.delay(0.0)
            relay.heal()

    def stop(self) -> list[str]:
        left = []
        self.heal()
        try:
            if self.client is not None:
                self.client.shutdown()
                self.client = None
            for process in self.processes.values():
                process.terminate()
            for role, process in self.processes.items():
                try:
                    process.wait(timeout=20.0)
                except subprocess.TimeoutExpired:
                    left.append(f"{role} did not end")
                    process.kill()
                    process.wait()
            self.broker.close()
            for relay in self.relays.values():
                relay.stop()
        finally:
            self._redis.kill()
            self._redis.wait()
            shutil.rmtree(self.folder, ignore_errors=True)
        return left


def redis_on_tcp(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A Redis that asks for `PASSWORD`, and its port; it may not answer yet."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [
        *(str(next(candidates())), "--bind", "127.0.0.1", "--port", str(port), "--requirepass", PASSWORD),
        *("--save", "", "--appendonly", "yes", "--appendfsync", "no", "--dir", str(folder)),
        *("--loglevel", "warning"),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL), port
