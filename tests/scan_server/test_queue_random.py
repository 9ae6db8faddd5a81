"""100 000 random events through the queue's reducer: what must hold after each, and the log that gives the state back.

A failure prints the seed of its run; `Run(seed).go()` repeats it.
"""

from __future__ import annotations

import random

import pytest

from bec_lib.messages import ItemState, QueueAction, QueueState, ScanQueueMessage
from scan_server import queue as q
from scan_server import queue_log

EVENTS = 100_000
RUNS = 50
QUEUES = ("primary", "second", "third")
DEVICES = ("samx", "samy", "bpm")


class Run:
    """Random events of one seed, and what is known of them from outside of the reducer."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.state = q.State()
        self.at_start = q.to_plain(self.state)
        self.log: list[object] = []
        self.count = 0
        self.known: list[str] = []
        self.queued: set[str] = set()
        self.running: dict[str, str] = {}
        self.started: set[str] = set()
        self.numbers = 0

    def go(self, count: int) -> None:
        for _ in range(count):
            self.step(self.event())
        folded, problems = queue_log.fold(q.from_plain(self.at_start), self.log)
        assert not problems
        assert folded == self.state
        assert q.snapshot(folded) == q.snapshot(self.state)
        assert q.from_plain(q.to_plain(self.state)) == self.state

    def new_id(self) -> str:
        self.count += 1
        self.known.append(f"s{self.count}")
        return self.known[-1]

    def item(self, scan_id: str) -> q.Item:
        chance = self.random
        return q.Item(
            ScanQueueMessage(request_id=f"r-{scan_id}", client_id="c", scan_type="scan"),
            scan_id=scan_id,
            user=chance.choice(("ada", "bob")),
            submitted=float(self.count),
            is_scan=chance.random() < 0.7,
            owned=tuple(chance.sample(DEVICES, chance.randrange(3))),
        )

    def event(self) -> q.Event:
        chance = self.random
        kind = chance.random()
        if kind < 0.30:
            return q.Submitted(chance.choice(QUEUES), self.item(self.new_id()))
        if kind < 0.62:
            return self.command()
        if kind < 0.90 and self.running:
            scan_id = chance.choice(list(self.running))
            if chance.random() < 0.2:
                return q.Began(scan_id, {"samx": 0.5}, 5, self.owned(scan_id))
            return q.Ended(scan_id)
        return chance.choice(
            (
                q.Configuring("ada"),
                q.Configuring(""),
                q.DevicesStopped("bob"),
                q.Expired(chance.choice(QUEUES)),
            )
        )

    def owned(self, scan_id: str) -> tuple[str, ...]:
        found = self.state.find(scan_id)
        assert found is not None
        return found[1].owned

    def command(self) -> q.Commanded:
        chance = self.random
        action = chance.choice(list(QueueAction))
        scan_id = None
        if chance.random() < 0.5 and self.known:
            # Of those that wait, run, have ended, or never were.
            scan_id = chance.choice([*self.known[-15:], "never"])
        parameter = {
            "identifier": chance.choice(("one", "two")),
            "position": chance.choice((0, 1, 2, 9, "x")),
        }
        edited = self.item(scan_id) if action is QueueAction.EDIT and scan_id is not None else None
        new_id = self.new_id() if action is QueueAction.RESTART else ""
        return q.Commanded(
            "r", "c", "ada", action, chance.choice(QUEUES), scan_id, parameter, new_id, 1.0, edited
        )

    def step(self, event: q.Event) -> None:
        before = self.state
        self.state, effects = q.reduce(before, event)
        if self.state is not before:
            self.log.append(queue_log.event_to_plain(event))
        answers = 0
        ended = {event.scan_id} if isinstance(event, q.Ended) else set()
        for scan_id in ended:
            self.running.pop(scan_id)
        for effect in effects:
            match effect:
                case q.Answer():
                    answers += 1
                    assert effect.accepted or (effect.message and effect.code is not None)
                case q.Start():
                    scan_id = effect.item.scan_id
                    assert scan_id not in self.started, "started twice"
                    self.started.add(scan_id)
                    self.running[scan_id] = effect.queue
                    if effect.item.scan_number is not None:
                        self.numbers += 1
                        assert effect.item.scan_number == self.numbers
                case q.Cancelled():
                    assert effect.item.scan_id not in self.started
                    ended.add(effect.item.scan_id)
                case q.Tell():
                    assert effect.scan_id in self.running
        asked = isinstance(event, (q.Submitted, q.Commanded))
        assert answers == (1 if asked else 0), "every request and command has one answer"
        items = [item for queue in self.state.queues.values() for item in queue.items]
        now = {item.scan_id for item in items}
        assert len(now) == len(items), "nothing stands twice"
        assert self.queued - now == ended & self.queued, "nothing vanishes but by an end or a cancellation"
        self.queued = now
        active = self.state.active
        assert {item.scan_id for item in active} == set(self.running)
        in_use = [device for item in active for device in item.owned]
        assert len(in_use) == len(set(in_use)), "no two queues hold one device"
        for name, queue in self.state.queues.items():
            assert all(item.status is ItemState.PENDING for item in queue.items[1:]), "one active in a queue"
            head = queue.items[0] if queue.items else None
            if head is not None and queue.active is None:
                free = not queue.locks and queue.status is QueueState.RUNNING and not self.state.configuring
                assert head.waiting_for, f"{name} says what it waits for"
                assert not free or ", which has " in head.waiting_for
        heads = [
            queue.items[0]
            for queue in self.state.queues.values()
            if queue.items and queue.active is None and not queue.locks and queue.status is QueueState.RUNNING
        ]
        if heads and not self.state.configuring:
            longest = min(heads, key=lambda item: item.submitted)
            assert set(longest.owned) & set(in_use), "who has waited longest waits only for what is in use"
            for effect in effects:
                if isinstance(effect, q.Start):
                    older = [item for item in heads if item.submitted < effect.item.submitted]
                    wanted = {device for item in older for device in item.owned}
                    assert not wanted & set(effect.item.owned), "nobody is overtaken"


@pytest.mark.parametrize("seed", range(RUNS))
def test_whatever_happens_the_promises_hold(seed: int) -> None:
    Run(seed).go(EVENTS // RUNS)
