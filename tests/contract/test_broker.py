"""What every broker does, on whatever server it stands."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bec_lib import messages as m
from bec_lib.broker import Broker, Delivery, LatestWatcher, Malformed, StreamReader
from bec_lib.clock import SystemClock
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import EndpointError, Fenced, MessageTooLarge, StreamConflict

pytestmark = pytest.mark.contract

MakeBroker = Callable[..., Broker]
POINTS = MessageEndpoints.scan_points("s1")


def points(first: int, count: int) -> m.PointsMessage:
    return m.PointsMessage(
        scan_id="s1",
        first_index=first,
        count=count,
        values=[[float(i) for i in range(first, first + count)]],
        device_times=[[0.0] * count],
        server_times=[0.0] * count,
    )


def number(value: int) -> m.ScanNumberMessage:
    return m.ScanNumberMessage(scan_number=value)


def test_a_stream_is_read_from_any_cursor(make_broker: MakeBroker) -> None:
    broker = make_broker(service="scan_bundler", instance="i7")
    ids = [broker.append(MessageEndpoints.file_event, file_message(n)) for n in range(3)]
    everything = broker.read({MessageEndpoints.file_event: "0"})
    assert [item.message.scan_number for item in everything] == [0, 1, 2]
    assert [item.entry_id for item in everything] == ids
    assert everything[0].envelope.service == "scan_bundler"
    assert everything[0].envelope.instance == "i7"
    rest = broker.read({MessageEndpoints.file_event: ids[1]})
    assert [item.message.scan_number for item in rest] == [2]
    assert broker.read({MessageEndpoints.file_event: ids[2]}) == []
    assert broker.last_id(MessageEndpoints.file_event) == ids[2]


def test_newest_entries_come_oldest_first(make_broker: MakeBroker) -> None:
    broker = make_broker()
    for n in range(5):
        broker.append(MessageEndpoints.file_event, file_message(n))
    newest = broker.entries(MessageEndpoints.file_event, count=2, newest=True)
    assert [item.message.scan_number for item in newest] == [3, 4]


def test_a_latest_value_replaces_the_one_before(make_broker: MakeBroker) -> None:
    broker = make_broker()
    assert broker.get(MessageEndpoints.scan_number) is None
    broker.put(MessageEndpoints.scan_number, number(1))
    broker.put(MessageEndpoints.scan_number, number(2))
    found = broker.get(MessageEndpoints.scan_number)
    assert found is not None
    assert found.message == number(2)


def test_points_are_appended_without_gap_overlap_or_repeat(make_broker: MakeBroker) -> None:
    broker = make_broker()
    lease = broker.acquire_lease("scan_bundler")
    broker.batch(lease).append_at(POINTS, points(0, 2), "2-0", after="0-0").commit()
    for first, count in [(0, 2), (1, 2), (3, 1)]:
        with pytest.raises(StreamConflict):
            broker.batch(lease).append_at(
                POINTS, points(first, count), f"{first + count}-0", after=f"{first}-0"
            ).commit()
    broker.batch(lease).append_at(POINTS, points(2, 1), "3-0", after="2-0").append_at(
        POINTS, m.SealMessage(scan_id="s1", count=3, status="closed"), "3-1", after="3-0"
    ).commit()
    kinds = [type(item.message).__name__ for item in broker.read({POINTS: "0"})]
    assert kinds == ["PointsMessage", "PointsMessage", "SealMessage"]


def test_a_sealed_stream_stays_closed_after_it_has_expired(make_broker: MakeBroker) -> None:
    broker = make_broker()
    broker.batch().append_at(POINTS, points(0, 1), "1-0", after="0-0").seal(POINTS, 60.0).commit()
    broker.batch().delete(POINTS).commit()
    with pytest.raises(StreamConflict):
        broker.batch().append_at(POINTS, points(0, 1), "1-0", after="0-0").commit()


def test_nothing_of_a_refused_batch_is_written(make_broker: MakeBroker) -> None:
    broker = make_broker()
    lease = broker.acquire_lease("scan_bundler")
    batch = broker.batch(lease).put(MessageEndpoints.scan_number, number(9))
    batch.append_at(POINTS, points(5, 1), "6-0", after="5-0")
    batch.cursor("scan_bundler", MessageEndpoints.scan_status, "77-0")
    with pytest.raises(StreamConflict):
        batch.commit()
    assert broker.get(MessageEndpoints.scan_number) is None
    assert broker.cursors("scan_bundler") == {}


def test_a_stale_writer_is_fenced_off(make_broker: MakeBroker) -> None:
    old, new = make_broker(instance="old"), make_broker(instance="new")
    stale = old.acquire_lease("scan_server")
    fresh = new.acquire_lease("scan_server")
    assert fresh.epoch > stale.epoch
    with pytest.raises(Fenced):
        old.batch(stale).put(MessageEndpoints.scan_number, number(1)).commit()
    assert new.get(MessageEndpoints.scan_number) is None
    new.batch(fresh).put(MessageEndpoints.scan_number, number(2)).commit()
    found = new.get(MessageEndpoints.scan_number)
    assert found is not None
    assert found.message == number(2)


def test_a_batch_repeated_after_a_lost_answer_is_applied_once(make_broker: MakeBroker) -> None:
    broker = make_broker()
    lease = broker.acquire_lease("file_writer")
    batch = broker.batch(lease).append(MessageEndpoints.file_event, file_message(1))
    batch.commit()
    lease.sequence -= 1  # as if the answer to the commit had been lost
    assert batch.commit() == []
    assert len(broker.read({MessageEndpoints.file_event: "0"})) == 1


def test_a_copy_of_a_batch_that_comes_after_its_successor_is_not_applied(make_broker: MakeBroker) -> None:
    """It lay in the network while that was cut, and the batch was sent again over another connection."""
    broker = make_broker()
    lease = broker.acquire_lease("file_writer")
    first = broker.batch(lease).append(MessageEndpoints.file_event, file_message(1))
    first.commit()
    broker.batch(lease).append(MessageEndpoints.file_event, file_message(2)).commit()
    lease.sequence = 0
    assert first.commit() == []
    assert len(broker.read({MessageEndpoints.file_event: "0"})) == 2


def test_a_claim_that_comes_after_its_successor_dethrones_nobody(make_broker: MakeBroker) -> None:
    old, new = make_broker(instance="old"), make_broker(instance="new")
    calls: list[dict[str, list[Any]]] = []
    claim: Any = old._claim
    old._claim = lambda **call: calls.append(call) or claim(**call)  # type: ignore[assignment,func-returns-value]
    first = old.acquire_lease("scan_server")
    assert claim(**calls[0]) == first.epoch
    second = new.acquire_lease("scan_server")
    assert claim(**calls[0]) == 0
    new.batch(second).put(MessageEndpoints.scan_number, number(1)).commit()


def test_threads_that_share_a_lease_lose_no_batch(make_broker: MakeBroker) -> None:
    broker = make_broker()
    lease = broker.acquire_lease("scan_server")

    def write() -> None:
        for _ in range(50):
            broker.batch(lease).append(MessageEndpoints.file_event, file_message(1)).commit()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(broker.read({MessageEndpoints.file_event: "0"})) == 200


@pytest.mark.parametrize("wrong_s", [-3600.0, 3600.0])
def test_ages_do_not_depend_on_the_clock_of_the_host(make_broker: MakeBroker, wrong_s: float) -> None:
    class Wrong(SystemClock):
        def now(self) -> float:
            return super().now() + wrong_s

    here, there = make_broker(), make_broker()
    there.clock = Wrong()
    for broker in (here, there):
        broker.wait_until_reachable(5.0)
    there.put(MessageEndpoints.scan_number, number(1))
    found = here.get(MessageEndpoints.scan_number)
    assert found is not None
    assert -1.0 < here.now() - found.envelope.sent < 60.0


def test_a_clock_of_the_server_that_was_set_keeps_nobody_from_writing(make_broker: MakeBroker) -> None:
    broker = make_broker()
    broker.wait_until_reachable(5.0)
    assert broker._ahead_s is not None
    broker._ahead_s -= 3600.0
    broker.put(MessageEndpoints.scan_number, number(1))
    assert broker.get(MessageEndpoints.scan_number) is not None


def test_cursors_are_remembered_with_the_batch(make_broker: MakeBroker) -> None:
    broker = make_broker()
    broker.batch().cursor("scihub", MessageEndpoints.file_event, "5-0").put(
        MessageEndpoints.scan_number, number(1)
    ).commit()
    assert broker.cursors("scihub") == {"info/files/events": "5-0"}


def test_what_is_no_message_is_passed_on_as_malformed(make_broker: MakeBroker) -> None:
    broker = make_broker()
    broker.redis.xadd(broker.key(MessageEndpoints.file_event), {"d": b"\xc1 not msgpack"})
    broker.redis.xadd(broker.key(MessageEndpoints.file_event), {"other": b"x"})
    broker.redis.xadd(broker.key(MessageEndpoints.file_event), {"d": broker.encode(number(1))})
    broker.append(MessageEndpoints.file_event, file_message(3))
    found = broker.read({MessageEndpoints.file_event: "0"})
    assert [type(item) for item in found] == [Malformed, Malformed, Malformed, Delivery]
    assert "does not take" in found[2].error.message  # type: ignore[union-attr]


def test_endpoints_refuse_what_they_are_not_for(make_broker: MakeBroker) -> None:
    broker = make_broker()
    with pytest.raises(EndpointError, match="is a stream, not a latest"):
        broker.put(MessageEndpoints.file_event, file_message(1))
    with pytest.raises(EndpointError, match="does not carry"):
        broker.append(MessageEndpoints.file_event, number(1))
    with pytest.raises(EndpointError, match="placeholders"):
        broker.append(MessageEndpoints.scan_points, points(0, 1))


def test_large_arrays_do_not_go_through_the_broker(make_broker: MakeBroker) -> None:
    broker = make_broker()
    big = m.DeviceMessage(signals={"cam": {"value": np.zeros((512, 512)), "timestamp": 0.0}})
    with pytest.raises(MessageTooLarge, match="file"):
        broker.put(MessageEndpoints.device_readback("cam"), big)


def test_a_reader_thread_follows_streams_that_are_added_while_it_waits(make_broker: MakeBroker) -> None:
    broker = make_broker()
    inbox: queue.Queue[list[Delivery | Malformed]] = queue.Queue()
    reader = StreamReader(broker, inbox.put).start()
    try:
        reader.follow(MessageEndpoints.file_event, "0")
        broker.append(MessageEndpoints.file_event, file_message(1))
        assert inbox.get(timeout=5)[0].message.scan_number == 1  # type: ignore[union-attr]
        # It waits now; both the stream that is new and the old one must still wake it.
        reader.follow(POINTS, "0")
        broker.batch().append_at(POINTS, points(0, 4), "4-0", after="0-0").commit()
        assert inbox.get(timeout=5)[0].message.count == 4  # type: ignore[union-attr]
        reader.forget(POINTS)
        broker.batch().append_at(POINTS, points(4, 1), "5-0", after="4-0").commit()
        broker.append(MessageEndpoints.file_event, file_message(2))
        assert inbox.get(timeout=5)[0].message.scan_number == 2  # type: ignore[union-attr]
    finally:
        reader.stop()


def test_a_watcher_gets_the_current_value_and_every_change(make_broker: MakeBroker) -> None:
    broker = make_broker()
    broker.put(MessageEndpoints.scan_number, number(1))
    inbox: queue.Queue[int] = queue.Queue()
    watcher = LatestWatcher(broker, lambda items: [inbox.put(item.message.scan_number) for item in items])  # type: ignore
    try:
        watcher.watch([MessageEndpoints.scan_number])
        assert inbox.get(timeout=5) == 1
        broker.put(MessageEndpoints.scan_number, number(2))
        assert inbox.get(timeout=5) == 2
    finally:
        watcher.stop()


def test_two_threads_may_commit_at_the_same_time(make_broker: MakeBroker) -> None:
    broker = make_broker()

    def write(base: int) -> None:
        for n in range(20):
            broker.append(MessageEndpoints.file_event, file_message(base + n))

    threads = [threading.Thread(target=write, args=(base,)) for base in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [item.message.scan_number for item in broker.read({MessageEndpoints.file_event: "0"})]
    assert sorted(found) == [*range(20), *range(100, 120)]


def file_message(scan_number: int) -> m.FileMessage:
    return m.FileMessage(scan_id="s1", file_path="/x.h5", done=True, scan_number=scan_number)
