"""For tests of services and of plugins: a clock that stands still, a broker in memory, a service without a
process.
"""

from __future__ import annotations

from typing import Any

from bec_lib.broker import Broker, RedisSettings, Sender


class FakeClock:
    """A clock that moves only when told to; its random bytes count upwards."""

    def __init__(self, now: float = 1_700_000_000.0):
        self._now = now
        self._monotonic = 1000.0
        self._counter = 0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def random_bytes(self, count: int) -> bytes:
        self._counter += 1
        return self._counter.to_bytes(count, "big")

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds


def fake_server() -> Any:
    """A fakeredis server; brokers made on the same one see each other's writes."""
    import fakeredis

    return fakeredis.FakeServer()


def fake_broker(
    server: Any = None,
    *,
    service: str = "test",
    instance: str = "test-1",
    user: str = "",
    deployment: str = "test",
) -> Broker:
    """A broker on fakeredis (in memory, in this process)."""
    import fakeredis

    server = server or fake_server()
    return Broker(
        RedisSettings(),
        deployment,
        Sender(service, instance, user),
        connect=lambda: fakeredis.FakeRedis(server=server, protocol=3),
        longest_block_s=0.1,
    )
