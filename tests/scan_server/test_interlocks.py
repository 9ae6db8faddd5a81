"""Interlocks as plain values: hysteresis, settling, what is stale, what a device server saw; and a long random walk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bec_lib.errors import ParameterError
from bec_lib.messages import (
    InterlockAction,
    InterlockConfig,
    InterlockPhase,
    InterlockState,
    InterlockTripMessage,
)
from scan_server.interlocks import STALE_S, Interlocks

T0 = 1_700_000_000.0


class World:
    """Interlocks and a clock that tests turn."""

    def __init__(self, *configs: InterlockConfig, before: InterlockState | None = None):
        self.table = Interlocks(lambda name: "mA")
        self.tick = 100.0
        for config in configs:
            self.table.define(config, self.now, self.tick, before)

    @property
    def now(self) -> float:
        return T0 + self.tick

    def read(self, value: object, device: str = "curr") -> list[str]:
        self.table.take(device, {device: {"value": value, "timestamp": self.now}}, self.tick)
        return self.judge()

    def judge(self) -> list[str]:
        return [f"{t.before}>{t.after}" for t in self.table.judge(self.now, self.tick)]

    def wait(self, seconds: float) -> list[str]:
        self.tick += seconds
        return self.judge()

    def phase(self, name: str = "beam") -> InterlockPhase:
        return self.table.status().interlocks[name].phase


def beam(**more: object) -> InterlockConfig:
    return InterlockConfig(name="beam", trips_when="curr.curr < 100", **more)  # type: ignore[arg-type]


def test_it_waits_for_the_first_reading_then_follows_it() -> None:
    world = World(beam())
    assert world.judge() == []
    assert [hold.text for hold in world.table.holds()] == [
        "held by interlock beam: waits for the first readings"
    ]
    assert world.read(400.0) == ["waiting>clear"]
    assert not world.table.holds()
    assert world.read(80.0) == ["clear>tripped"]
    (hold,) = world.table.holds()
    assert hold.text == "held by interlock beam: curr.curr = 80 mA, must be >= 100 mA"
    assert hold.applies_to("primary") and hold.running
    assert world.read(100.0) == ["tripped>clear"]


def test_no_first_reading_trips_and_says_why() -> None:
    world = World(beam())
    assert world.wait(STALE_S) == ["waiting>tripped"]
    assert "no reading of curr" in world.table.holds()[0].text


def test_hysteresis_and_settle_time() -> None:
    world = World(beam(clears_when="curr.curr > 120", settle_time_s=3.0))
    world.read(400.0)
    world.read(90.0)
    assert world.read(110.0) == []
    assert world.read(121.0) == ["tripped>settling"]
    assert world.table.due() == world.tick + 3.0
    assert "goes on 3 s after" in world.table.holds()[0].text
    world.wait(2.0)
    # Not clear for the whole settle time: from the beginning, and it has been tripped since it first was.
    assert world.read(119.0) == ["settling>tripped"]
    world.read(130.0)
    assert world.wait(2.9) == []
    assert world.wait(0.2) == ["settling>clear"]
    # Between the two it stays what it is.
    assert world.read(110.0) == []


def test_the_time_of_the_trip_is_that_of_the_first() -> None:
    world = World(beam(settle_time_s=2.0))
    world.read(400.0)
    world.wait(1.0)
    world.read(50.0)
    tripped = world.now
    world.wait(1.0)
    world.read(300.0)
    world.wait(1.0)
    world.read(50.0)
    assert world.table.holds()[0].since == tripped


def test_old_readings_trip() -> None:
    world = World(beam())
    world.read(400.0)
    assert world.table.due() == world.tick + STALE_S
    assert world.wait(STALE_S) == ["clear>tripped"]
    assert "no reading of curr for 5 s" in world.table.holds()[0].text
    assert world.read(400.0) == ["tripped>clear"]


@pytest.mark.parametrize("value", [None, float("nan"), "text", [1, 2]])
def test_what_cannot_be_told_trips(value: object) -> None:
    world = World(beam())
    world.read(400.0)
    assert world.read(value) == ["clear>tripped"]


def test_a_device_servers_trip_counts_even_if_we_missed_the_dip() -> None:
    world = World(beam(settle_time_s=1.0))
    world.read(400.0)
    world.wait(1.0)
    dip = {"curr": {"curr": {"value": 50.0, "timestamp": world.now}}}
    trip = InterlockTripMessage(
        interlock="beam", server="main", serial=7, since=world.now, why="curr.curr = 50", readings=dip
    )
    assert len(world.table.trip(trip, world.now, world.tick)) == 1
    # A read-back that was overtaken by the trip does not clear it.
    world.table.take("curr", {"curr": {"value": 400.0, "timestamp": world.now - 0.5}}, world.tick)
    assert world.judge() == []
    assert world.table.serials("beam") == {"main": 7}
    world.wait(0.1)
    assert world.read(400.0) == ["tripped>settling"]
    assert world.wait(1.0) == ["settling>clear"]


def test_a_trip_that_is_told_again_is_released_again_and_trips_nothing() -> None:
    world = World(beam(settle_time_s=1.0))
    world.read(400.0)
    trip = InterlockTripMessage(
        interlock="beam", server="main", serial=7, since=world.now, why="curr.curr = 50"
    )
    world.table.trip(trip, world.now, world.tick)
    world.read(400.0)
    assert world.table.trip(trip, world.now, world.tick) == [], (
        "it settles, and the settle time is not begun anew"
    )
    assert world.wait(1.0) == ["settling>clear"]
    (told,) = world.table.trip(trip, world.now, world.tick)
    assert told.after is InterlockPhase.CLEAR and world.phase() is InterlockPhase.CLEAR


def test_serials_are_known_after_a_restart() -> None:
    before = InterlockState(phase=InterlockPhase.TRIPPED, tripped_since=T0, serials={"main": 7})
    assert World(beam(), before=before).table.serials("beam") == {"main": 7}


def test_actions_and_queues() -> None:
    alarm = beam(action=InterlockAction.ALARM)
    world = World(
        alarm,
        InterlockConfig(name="b", trips_when="curr < 100", action=InterlockAction.BLOCK, queues=["side"]),
    )
    world.read(10.0)
    (hold,) = world.table.holds()
    assert hold.interlock == "b" and not hold.running
    assert hold.applies_to("side") and not hold.applies_to("primary")


def test_what_was_tripped_before_a_restart_has_to_settle() -> None:
    before = InterlockState(phase=InterlockPhase.TRIPPED, tripped_since=T0 - 50, why="curr.curr = 3")
    world = World(beam(settle_time_s=2.0), before=before)
    assert world.table.holds()[0].since == T0 - 50
    assert world.read(400.0) == ["tripped>settling"]
    assert world.wait(2.0) == ["settling>clear"]


def test_disabled_is_not_looked_at() -> None:
    world = World(beam(enabled=False))
    world.read(1.0)
    assert world.phase() is InterlockPhase.DISABLED
    assert not world.table.holds() and not world.table.devices


def test_states_are_names_too() -> None:
    world = World(InterlockConfig(name="beam", trips_when="states.ready != 'valid'"))
    world.table.take("states", {"ready": {"value": "valid", "timestamp": world.now}}, world.tick)
    assert world.judge() == ["waiting>clear"]
    assert world.wait(10 * STALE_S) == [], "states do not grow old by themselves"
    assert world.table.devices == frozenset()


def test_a_condition_that_is_none_is_refused() -> None:
    with pytest.raises(ParameterError, match="not understood"):
        World(InterlockConfig(name="beam", trips_when="curr.curr <"))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.floats(0, 200)),
        st.tuples(st.just("wait"), st.floats(0.01, 4.9)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.one_of(st.just(0.0), st.floats(0.01, 3)))
def test_it_holds_exactly_until_it_was_clear_for_the_settle_time(
    steps: list[tuple[str, float]], settle: float
) -> None:
    """Against a reference that looks at the whole past."""
    world = World(beam(clears_when="curr.curr > 120", settle_time_s=settle))
    held, clear_since, last, fresh = False, None, 400.0, world.tick
    world.read(last)
    for kind, amount in steps:
        if kind == "wait":
            world.wait(amount)
        else:
            last, fresh = amount, world.tick
            world.read(last)
        good, bad = last > 120, last < 100
        if world.tick - fresh >= STALE_S:
            good, bad = False, True
        if bad:
            held, clear_since = True, None
        elif held and not good:
            clear_since = None
        elif held and good:
            clear_since = world.tick if clear_since is None else clear_since
            if settle == 0 or world.tick >= clear_since + settle:
                held, clear_since = False, None
        assert bool(world.table.holds()) is held, (kind, amount)
