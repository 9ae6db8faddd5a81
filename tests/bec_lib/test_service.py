"""The frame around an app: role, loop, heartbeat, end."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from bec_lib import messages as m
from bec_lib.broker import Broker
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import AlreadyRunning, Fenced
from bec_lib.service import Service, ServiceConfig
from bec_lib.service.service import TAKEOVER_S
from bec_lib.testing import FakeClock, fake_broker, fake_server

STATUS = MessageEndpoints.service_status("file_writer")


class Recorder:
    """An app that notes what it is told and asks to be stopped after `turns` events."""

    def __init__(self, service: Service, turns: int = 1):
        self.service = service
        self.turns = turns
        self.seen: list[Any] = []
        self.started = threading.Event()
        self.stopped = False

    def start(self) -> None:
        self.service.inbox.follow(MessageEndpoints.file_event, "0")
        self.started.set()

    def handle(self, events: list[Any]) -> None:
        self.seen += [event.message.scan_number for event in events]
        if len(self.seen) >= self.turns:
            self.service.request_stop()

    def deadline(self) -> float | None:
        return None

    def on_deadline(self) -> None:
        raise AssertionError("no deadline was asked for")

    def stop(self) -> None:
        self.stopped = True


def make_service(broker: Broker, threaded: bool = False) -> Service:
    return Service("file_writer", ServiceConfig(deployment="test"), broker, threaded=threaded)


def message(number: int) -> m.FileMessage:
    return m.FileMessage(scan_id="s", file_path="/f", done=True, scan_number=number)


@pytest.mark.parametrize("threaded", [False, True])
def test_events_reach_the_app_and_the_role_is_given_back(threaded: bool) -> None:
    server = fake_server()
    writer = fake_broker(server)
    for number in (1, 2, 3):
        writer.append(MessageEndpoints.file_event, message(number))
    service = make_service(fake_broker(server, service="file_writer"), threaded)
    app = Recorder(service, turns=3)
    service.loop(app)
    assert app.seen == [1, 2, 3]
    assert app.stopped
    beat = writer.get(STATUS)
    assert beat is not None
    assert beat.message.pid == os.getpid()
    service.close()
    assert writer.get(STATUS) is None


def test_a_second_one_is_refused_while_the_first_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    server = fake_server()
    other = fake_broker(server, instance="first")
    other.redis.set(
        other.key(STATUS),
        other.encode(
            m.StatusMessage(
                name="file_writer", instance="first", status=m.ServiceState.RUNNING, host="elsewhere", pid=77
            )
        ),
    )
    monkeypatch.setattr("bec_lib.service.service.TAKEOVER_S", 0.0)
    assert TAKEOVER_S > 1.5
    with pytest.raises(AlreadyRunning, match=r"elsewhere \(process 77"):
        make_service(fake_broker(server, instance="second")).take_role()


def test_a_dead_predecessor_on_this_host_is_replaced_at_once() -> None:
    server = fake_server()
    service = make_service(fake_broker(server, instance="second"))
    gone = m.StatusMessage(
        name="file_writer", instance="first", status=m.ServiceState.RUNNING, host=service.host, pid=2**22 - 3
    )
    service.broker.redis.set(service.broker.key(STATUS), service.broker.encode(gone))
    service.take_role()
    assert service.lease is not None


def test_a_process_that_was_replaced_cannot_beat_again() -> None:
    server = fake_server()
    first = make_service(fake_broker(server, instance="first"))
    first.take_role()
    second = make_service(fake_broker(server, instance="second"))
    second.lease = second.broker.acquire_lease("file_writer")
    with pytest.raises(Fenced, match="taken over"):
        first.set_status(m.ServiceState.RUNNING)


def test_a_process_that_wakes_up_late_does_nothing_before_it_knows_that_it_has_the_role() -> None:
    """Stopped in its wait, replaced, and then let go on with something in its inbox."""
    server = fake_server()
    clock = FakeClock()
    service = Service(
        "file_writer",
        ServiceConfig(deployment="test"),
        fake_broker(server, service="file_writer"),
        clock=clock,
        threaded=False,
    )
    app = Recorder(service)
    take = service.inbox.take

    def stopped_meanwhile(timeout_s: float) -> list[Any]:
        clock.advance(10.0)
        fake_broker(server, instance="successor").acquire_lease("file_writer")
        fake_broker(server).append(MessageEndpoints.file_event, message(1))
        return take(0.0)

    service.inbox.take = stopped_meanwhile  # type: ignore[method-assign]
    with pytest.raises(Fenced):
        service.loop(app)
    assert app.seen == []


def test_an_alarm_is_kept_for_late_listeners() -> None:
    server = fake_server()
    service = make_service(fake_broker(server, service="file_writer"))
    service.alarm(m.Severity.MAJOR, "the disk is full", scan_id="s1")
    found = fake_broker(server).read({MessageEndpoints.alarm: "0"})
    assert found[0].message.info.error_message == "the disk is full"  # type: ignore[union-attr]
    assert found[0].message.severity is m.Severity.MAJOR  # type: ignore[union-attr]


def test_a_service_that_can_hear_nothing_any_more_ends() -> None:
    """The reader's thread is made to break as a fault in it would; without `failed` the loop would beat on for ever."""
    server = fake_server()
    service = make_service(fake_broker(server, service="file_writer"), threaded=True)
    app = Recorder(service)
    ended: list[BaseException] = []

    def loop() -> None:
        try:
            service.loop(app)
        except RuntimeError as error:
            ended.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    assert app.started.wait(5)
    service.broker._entries = broken  # type: ignore[method-assign,assignment]
    fake_broker(server).append(MessageEndpoints.file_event, message(1))
    thread.join(5)
    assert not thread.is_alive()
    assert "a fault in the reader" in str(ended[0])
    assert app.stopped


def broken(*_: Any) -> None:
    raise RuntimeError("a fault in the reader")
