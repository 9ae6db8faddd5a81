"""What was sent into a network that was cut comes out of it later, also when its sender has given up or repeated it.

Each guard has a control run without it, which shows that such copies do come.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bec_lib.broker import Broker, LatestWatcher, RedisSettings, Sender, StreamReader, reader, scripts
from bec_lib.clock import SystemClock
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BrokerError
from bec_lib.messages import AccountMessage, AlarmMessage, ErrorInfo, Severity
from tests.system.network.hosts import PASSWORD, redis_on_tcp
from tests.system.network.relay import Relay
from tests.system.processes import wait_until

ALARMS = MessageEndpoints.alarm


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    server, port = redis_on_tcp(tmp_path_factory.mktemp("late") / "redis")
    yield port
    server.kill()
    server.wait()


@pytest.fixture
def relay(port: int) -> Iterator[Relay]:
    made = Relay(("127.0.0.1", port))
    yield made
    made.stop()


@pytest.fixture
def make_broker(request: pytest.FixtureRequest) -> Iterator[Callable[[int], Broker]]:
    """Brokers of one deployment on a port; impatient ones, for the tests to be quick."""
    made: list[Broker] = []

    def make(port: int) -> Broker:
        settings = RedisSettings(
            host="127.0.0.1", port=port, password=PASSWORD, answer_timeout_s=0.3, give_up_after_s=10.0
        )
        deployment = f"late-{abs(hash(request.node.nodeid))}"
        broker = Broker(settings, deployment, Sender("test", "a"), longest_block_s=0.5)
        broker.wait_until_reachable(20.0)
        made.append(broker)
        return broker

    yield make
    for broker in made:
        broker.close()


def alarm(text: str) -> AlarmMessage:
    return AlarmMessage(severity=Severity.MINOR, info=ErrorInfo(error_message=text))


def texts(broker: Broker) -> list[str]:
    return [item.message.info.error_message for item in broker.entries(ALARMS)]  # type: ignore[union-attr]


def deliver_what_lies_in(relay: Relay, broker: Broker) -> None:
    """Returns when the server has had it: it executes what comes in order, and asks of a later connection last."""
    executed = _num_calls(broker)
    relay.remember()
    wait_until(lambda: _num_calls(broker) > executed, 20.0, "a late copy has come")


def _num_calls(broker: Broker) -> int:
    stats = broker.redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))  # type: ignore[union-attr]


@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_batch_that_was_repeated_is_applied_once_however_late_its_first_copy_comes(
    relay: Relay, port: int, make_broker: Callable[[int], Broker], is_guarded: bool
) -> None:
    writer, eye = make_broker(relay.port), make_broker(port)
    writer.is_patient = True
    if not is_guarded:
        guard = "(tonumber(held[2] or '') or 0) >= tonumber(ARGV[2])"
        assert guard in scripts.COMMIT
        writer._commit = writer.redis.register_script(scripts.COMMIT.replace(guard, "held[2] == ARGV[2]"))
    lease = writer.acquire_lease("file_writer")
    writer.batch(lease).append(ALARMS, alarm("zero")).commit()
    relay.cut()
    # The network is back when it is repeated, but not for the connection into which it was sent first.
    heal_when_repeated(relay)
    writer.batch(lease).append(ALARMS, alarm("one")).commit()
    writer.batch(lease).append(ALARMS, alarm("two")).commit()
    deliver_what_lies_in(relay, eye)
    assert texts(eye) == ["zero", "one", "two", *([] if is_guarded else ["one"])]


def heal_when_repeated(relay: Relay) -> None:
    """When a second connection has been asked for."""

    def heal() -> None:
        relay.wait_until_asked()
        relay.heal(forgetful=True)

    threading.Thread(target=heal, daemon=True).start()


@pytest.mark.parametrize("is_guarded", [True, False])
def test_what_a_client_was_told_has_failed_is_not_done_later(
    relay: Relay, port: int, make_broker: Callable[[int], Broker], is_guarded: bool
) -> None:
    client, eye = make_broker(relay.port), make_broker(port)
    client.append(ALARMS, alarm("zero"))
    if not is_guarded:
        client._ahead_s = None
    relay.cut()
    with pytest.raises(BrokerError, match="cannot be reached"):
        client.append(ALARMS, alarm("move"))
    relay.heal(forgetful=True)
    deliver_what_lies_in(relay, eye)
    assert texts(eye) == ["zero", *([] if is_guarded else ["move"])]


def test_a_watcher_whose_connection_is_dead_makes_a_new_one(
    relay: Relay, port: int, make_broker: Callable[[int], Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never sends anything, so that TCP does not tell it."""
    monkeypatch.setattr(reader, "QUIET_S", 0.2)
    there, here = make_broker(relay.port), make_broker(port)
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    watcher = LatestWatcher(there, lambda items: [found.put(item.message.account) for item in items])  # type: ignore
    try:
        watcher.watch([MessageEndpoints.account])
        here.put(MessageEndpoints.account, AccountMessage(account="a"))
        assert found.get(timeout=20.0) == "a"
        relay.cut()
        here.put(MessageEndpoints.account, AccountMessage(account="b"))
        relay.heal(forgetful=True)
        assert found.get(timeout=30.0) == "b"
        here.put(MessageEndpoints.account, AccountMessage(account="c"))
        assert found.get(timeout=30.0) == "c"
    finally:
        watcher.stop()


def test_a_reader_whose_connection_is_dead_makes_a_new_one_and_goes_on_where_it_was(
    relay: Relay, port: int, make_broker: Callable[[int], Broker]
) -> None:
    there, here = make_broker(relay.port), make_broker(port)
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    follower = StreamReader(
        there,
        lambda items: [found.put(item.message.info.error_message) for item in items],  # type: ignore
    ).start()
    try:
        follower.follow(ALARMS, "0")
        here.append(ALARMS, alarm("one"))
        assert found.get(timeout=20.0) == "one"
        relay.cut()
        here.append(ALARMS, alarm("two"))
        relay.heal(forgetful=True)
        here.append(ALARMS, alarm("three"))
        assert [found.get(timeout=30.0) for _ in range(2)] == ["two", "three"]
        relay.cut()
        begun = time.monotonic()
    finally:
        follower.stop()
    # Without a question into the void.
    assert not follower._thread.is_alive()
    assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize("wrong_s", [-300.0, 300.0])
def test_a_host_whose_clock_is_wrong_writes_and_is_of_the_right_age(
    port: int, make_broker: Callable[[int], Broker], wrong_s: float
) -> None:
    class Wrong(SystemClock):
        def now(self) -> float:
            return super().now() + wrong_s

    there, here = make_broker(port), make_broker(port)
    there.clock = Wrong()
    there.append(ALARMS, alarm("one"))
    (item,) = here.entries(ALARMS)
    assert abs(here.now() - item.envelope.sent) < 60.0  # type: ignore[union-attr]
