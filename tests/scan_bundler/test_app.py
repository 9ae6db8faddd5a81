"""The bundler's shell on a Redis in memory: what stands in its streams after which entries."""

from __future__ import annotations

from typing import Any

import pytest

from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.messages import (
    AlarmMessage,
    BaselineMessage,
    PointsMessage,
    ProgressMessage,
    ReadingsMessage,
    ScanSchemaMessage,
    ScanState,
    ScanStatusMessage,
    SealMessage,
    SignalSchema,
)
from bec_lib.service import Service, ServiceConfig
from bec_lib.testing import FakeClock, fake_broker, fake_server
from scan_bundler.app import GRACE_S, BundlerApp

SCHEMA = ScanSchemaMessage(
    scan_id="s1",
    signals=[SignalSchema(device="samx", signal="samx"), SignalSchema(device="bpm", signal="bpm")],
    baseline=[SignalSchema(device="samz", signal="samz")],
)


class Bench:
    """A bundler without a process, and the other services' side of its streams."""

    def __init__(self, server: Any = None):
        self.server = server or fake_server()
        self.clock = FakeClock()
        self.outside: Broker = fake_broker(self.server, service="outside")
        self.start_bundler()

    def start_bundler(self) -> None:
        """Start it; again: its predecessor was killed."""
        broker = fake_broker(self.server, service="scan_bundler")
        self.service = Service("scan_bundler", ServiceConfig(), broker, clock=self.clock, threaded=False)
        self.service.lease = broker.acquire_lease("scan_bundler")
        self.app = BundlerApp(self.service)
        self.app.start()

    def turn(self) -> None:
        """Turns until nothing is left to read."""
        while events := self.service.inbox.take(0):
            self.app.handle(events)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.app.on_deadline()

    def status(self, state: ScanState, **fields: Any) -> None:
        message = ScanStatusMessage(
            scan_id=fields.pop("scan_id", "s1"),
            scan_number=7,
            status=state,
            scan_name="line_scan",
            request_id="r",
            num_points=4,
            **fields,
        )
        self.outside.append(MessageEndpoints.scan_status, message)

    def open(self, scan_id: str = "s1") -> None:
        self.status(ScanState.OPEN, scan_id=scan_id)
        self.outside.append(
            MessageEndpoints.scan_schema(scan_id), SCHEMA.model_copy(update={"scan_id": scan_id})
        )

    def baseline(self, scan_id: str = "s1") -> None:
        self.outside.append(
            MessageEndpoints.scan_readings(scan_id),
            ReadingsMessage(
                scan_id=scan_id, group="baseline", values=[[1.5]], device_times=[[1.0]], server_times=[1.0]
            ),
        )

    def readings(self, first: int, count: int, scan_id: str = "s1") -> None:
        column = [float(i) for i in range(first, first + count)]
        self.outside.append(
            MessageEndpoints.scan_readings(scan_id),
            ReadingsMessage(
                scan_id=scan_id,
                first_index=first,
                count=count,
                values=[column, column],
                device_times=[column, column],
                server_times=column,
            ),
        )

    def stream(self, endpoint: Endpoint) -> list[Delivery]:
        found = self.outside.entries(endpoint)
        assert all(isinstance(item, Delivery) for item in found)
        return [item for item in found if isinstance(item, Delivery)]

    def points(self, scan_id: str = "s1") -> list[int]:
        return [
            index
            for item in self.stream(MessageEndpoints.scan_points(scan_id))
            if isinstance(item.message, PointsMessage)
            for index in range(item.message.first_index, item.message.first_index + item.message.count)
        ]

    def seal(self, scan_id: str = "s1") -> SealMessage | None:
        found = self.stream(MessageEndpoints.scan_points(scan_id))
        return found[-1].message if found and isinstance(found[-1].message, SealMessage) else None

    def alarms(self) -> list[str]:
        return [
            item.message.info.error_message
            for item in self.stream(MessageEndpoints.alarm)
            if isinstance(item.message, AlarmMessage)
        ]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_scan_from_open_to_seal(bench: Bench) -> None:
    bench.open()
    bench.turn()
    bench.baseline()
    bench.readings(0, 3)
    bench.turn()
    bench.readings(3, 1)
    bench.status(ScanState.CLOSED, num_readouts=4, ended=99.0)
    bench.turn()

    entries = bench.stream(MessageEndpoints.scan_points("s1"))
    assert [item.entry_id for item in entries] == ["3-0", "4-0", "4-1"]
    assert entries[-1].message == SealMessage(
        scan_id="s1", count=4, status="closed", baseline=True, ended=99.0
    )
    (baseline,) = bench.stream(MessageEndpoints.scan_baseline("s1"))
    assert baseline.message == BaselineMessage(scan_id="s1", values=[1.5], device_times=[1.0])
    progress = bench.outside.get(MessageEndpoints.scan_progress)
    assert progress is not None
    assert progress.message == ProgressMessage(value=4.0, max_value=4.0, done=True, scan_id="s1")
    assert bench.alarms() == []


def test_readings_that_arrive_together_leave_as_one_block(bench: Bench) -> None:
    bench.open()
    bench.turn()
    for index in range(4):
        bench.readings(index, 1)
    bench.turn()

    (entry,) = bench.stream(MessageEndpoints.scan_points("s1"))
    assert (entry.entry_id, entry.message.count) == ("4-0", 4)


def test_a_scan_without_points_is_sealed_too(bench: Bench) -> None:
    bench.status(ScanState.OPEN)
    bench.status(ScanState.ABORTED, num_readouts=0)
    bench.turn()

    (entry,) = bench.stream(MessageEndpoints.scan_points("s1"))
    assert entry.entry_id == "0-1"
    assert entry.message.status == "aborted"
    assert bench.alarms() == []


def test_a_restart_in_the_middle_of_a_scan_loses_and_repeats_nothing(bench: Bench) -> None:
    bench.open()
    bench.turn()
    bench.baseline()
    bench.readings(0, 2)
    bench.turn()
    bench.start_bundler()
    bench.readings(2, 1)
    bench.turn()
    bench.start_bundler()
    bench.readings(3, 1)
    bench.status(ScanState.CLOSED, num_readouts=4)
    bench.turn()

    assert bench.points() == [0, 1, 2, 3]
    assert len(bench.stream(MessageEndpoints.scan_baseline("s1"))) == 1
    seal = bench.seal()
    assert seal is not None
    assert seal.baseline


def test_a_restart_after_everything_was_said_seals_the_scan(bench: Bench) -> None:
    bench.open()
    bench.turn()
    bench.readings(0, 4)
    bench.baseline()
    bench.status(ScanState.CLOSED, num_readouts=4)
    bench.start_bundler()

    assert bench.points() == [0, 1, 2, 3]
    assert bench.seal() is not None


def test_a_sealed_scan_is_left_alone_after_a_restart(bench: Bench) -> None:
    bench.open("s2")
    bench.open("s1")
    bench.baseline()
    bench.turn()
    bench.readings(0, 1)
    bench.status(ScanState.CLOSED, num_readouts=1)
    bench.turn()
    before = len(bench.stream(MessageEndpoints.scan_points("s1")))
    # The cursor cannot pass s2, which is still open: s1's messages are read again.
    bench.start_bundler()
    bench.readings(0, 2, "s2")
    bench.turn()

    assert len(bench.stream(MessageEndpoints.scan_points("s1"))) == before
    assert bench.points("s2") == [0, 1]


def test_the_cursor_passes_scans_that_are_sealed(bench: Bench) -> None:
    bench.open()
    bench.baseline()
    bench.turn()
    bench.status(ScanState.CLOSED, num_readouts=0)
    bench.turn()

    last = bench.outside.last_id(MessageEndpoints.scan_status)
    assert bench.service.cursors() == {MessageEndpoints.scan_status.key: last}


def test_missing_points_are_waited_for_a_moment_and_then_named(bench: Bench) -> None:
    bench.open()
    bench.baseline()
    bench.readings(0, 2)
    bench.readings(3, 1)
    bench.status(ScanState.CLOSED, num_readouts=4)
    bench.turn()

    assert bench.seal() is None
    assert bench.app.deadline() is not None
    bench.wait(GRACE_S)

    seal = bench.seal()
    assert seal is not None
    assert seal.count == 2
    (alarm,) = bench.alarms()
    assert "scan 7 is over and incomplete: 2 of 4 points" in alarm
    assert "device server main did not deliver point 2" in alarm


def test_missing_points_that_come_within_the_grace_complete_the_scan(bench: Bench) -> None:
    bench.open()
    bench.baseline()
    bench.readings(0, 2)
    bench.status(ScanState.CLOSED, num_readouts=4)
    bench.turn()
    bench.readings(2, 2)
    bench.turn()

    seal = bench.seal()
    assert seal is not None
    assert seal.count == 4
    assert bench.alarms() == []


def test_an_aborted_scan_does_not_wait_for_its_baseline(bench: Bench) -> None:
    bench.open()
    bench.status(ScanState.ABORTED, num_readouts=0)
    bench.turn()

    seal = bench.seal()
    assert seal is not None
    assert not seal.baseline
    assert bench.alarms() == []


def test_readings_that_do_not_fit_raise_an_alarm_and_stop_nothing(bench: Bench) -> None:
    bench.open()
    bench.outside.append(
        MessageEndpoints.scan_readings("s1"),
        ReadingsMessage(scan_id="s1", values=[[1.0]], device_times=[[1.0]], server_times=[1.0]),
    )
    bench.readings(0, 2)
    bench.turn()

    assert bench.points() == [0, 1]
    assert "has 1 columns, schema version 1 has 2" in bench.alarms()[0]


def test_two_scans_at_the_same_time_do_not_mix(bench: Bench) -> None:
    bench.open("s1")
    bench.open("s2")
    bench.turn()
    bench.readings(0, 2, "s1")
    bench.readings(0, 3, "s2")
    bench.turn()

    assert bench.points("s1") == [0, 1]
    assert bench.points("s2") == [0, 1, 2]


def test_a_points_stream_that_stands_elsewhere_is_read_again(bench: Bench) -> None:
    """What a bundler that was believed dead still wrote: nothing is repeated, nothing left out."""
    bench.open()
    bench.turn()
    column = [0.0]
    bench.outside.batch().append_at(
        MessageEndpoints.scan_points("s1"),
        PointsMessage(
            scan_id="s1",
            first_index=0,
            count=1,
            values=[column, column],
            device_times=[column, column],
            server_times=column,
        ),
        "1-0",
        after="0-0",
    ).commit()
    bench.readings(0, 1)
    bench.readings(1, 2)
    bench.turn()

    assert bench.points() == [0, 1, 2]


def test_progress_is_sent_at_once_and_then_at_most_every_interval(bench: Bench) -> None:
    def shown() -> float:
        found = bench.outside.get(MessageEndpoints.scan_progress)
        assert found is not None
        return float(found.message.value)

    bench.open()
    bench.readings(0, 1)
    bench.turn()
    assert shown() == 1.0
    bench.readings(1, 2)
    bench.turn()
    assert shown() == 1.0
    bench.wait(0.1)
    assert shown() == 3.0
