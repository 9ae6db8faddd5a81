"""Which read-backs are due, with times as plain numbers."""

from __future__ import annotations

from typing import Any

from device_server.publisher import INTERVAL_S, Publisher


class Woken:
    def __init__(self) -> None:
        self.times = 0
        self.publisher = Publisher(self.wake)

    def wake(self) -> None:
        self.times += 1


def reading(value: Any) -> dict[str, Any]:
    return {"m": {"value": value, "timestamp": 1.0}}


def test_nothing_is_due_while_nothing_changes() -> None:
    woken = Woken()
    assert woken.publisher.deadline(0.0) is None
    assert woken.publisher.due(100.0) == {}
    assert woken.times == 0


def test_a_first_change_is_due_at_once_and_the_next_after_the_interval() -> None:
    woken = Woken()
    publisher = woken.publisher
    publisher.changed("m", "m", 1, 1.0)
    assert woken.times == 1
    assert publisher.due(10.0) == {"m": reading(1)}
    publisher.changed("m", "m", 2, 1.0)
    publisher.changed("m", "m", 3, 1.0)
    assert publisher.deadline(10.0) == 10.0 + INTERVAL_S
    assert publisher.due(10.0 + INTERVAL_S / 2) == {}
    assert publisher.due(10.0 + INTERVAL_S) == {"m": reading(3)}
    assert publisher.deadline(11.0) is None


def test_the_main_thread_is_woken_once_until_all_is_published() -> None:
    woken = Woken()
    for value in range(100):
        woken.publisher.changed("m", "m", value, 1.0)
    assert woken.times == 1
    woken.publisher.due(1.0)
    woken.publisher.changed("m", "m", 100, 1.0)
    assert woken.times == 2


def test_a_reading_that_is_published_with_something_else_counts() -> None:
    publisher = Woken().publisher
    publisher.changed("m", "m", 1, 1.0)
    assert publisher.publish("m", {"m_sp": {"value": 5, "timestamp": 1.0}}, 10.0) == {
        **reading(1),
        "m_sp": {"value": 5, "timestamp": 1.0},
    }
    assert publisher.due(20.0) == {}


def test_what_cannot_travel_is_left_out() -> None:
    publisher = Woken().publisher
    publisher.changed("m", "bad", object(), 1.0)
    publisher.changed("m", "m", 1, 1.0)
    assert publisher.due(1.0) == {"m": reading(1)}


def test_many_devices_that_change_at_once_are_published_less_often_each() -> None:
    publisher = Woken().publisher
    names = [f"d{n}" for n in range(1000)]
    for name in names:
        publisher.changed(name, name, 1, 1.0)
    assert len(publisher.due(0.0)) == 1000
    for name in names:
        publisher.changed(name, name, 2, 1.0)
    assert publisher.due(INTERVAL_S) == {}
    assert len(publisher.due(1.0)) == 1000


def test_a_device_that_is_gone_is_not_published() -> None:
    publisher = Woken().publisher
    publisher.changed("m", "m", 1, 1.0)
    publisher.forget("m")
    assert publisher.due(1.0) == {}
