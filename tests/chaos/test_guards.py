"""Control runs: with one guard switched off the oracle must find what it guards against, and with it on, nothing.

A suite whose oracle finds nothing has shown something only if the same oracle finds these.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bec_lib.broker import Batch, Broker, Delivery, scripts
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import Fenced
from bec_lib.messages import (
    FileMessage,
    Message,
    PointsMessage,
    ScanState,
    ScanStatusMessage,
    SealMessage,
)
from bec_lib.testing import fake_broker, fake_server
from file_writer.app import WriterApp
from scan_server.run import Phase, ScanRun
from tests.chaos.oracle import Evidence, judge_scan
from tests.file_writer.test_app import Bench as WriterBench
from tests.scan_bundler.test_app import Bench as BundlerBench
from tests.scan_server.test_run import adaptive, run_adaptive, scripted

Patch = pytest.MonkeyPatch


def evidence_of(broker: Broker, scan_id: str) -> Evidence:
    """Of the streams alone."""

    def found(endpoint: Endpoint, kind: type[Message]) -> list[Any]:
        messages = [item.message for item in broker.entries(endpoint) if isinstance(item, Delivery)]
        return [m for m in messages if isinstance(m, kind) and m.scan_id == scan_id]  # type: ignore[attr-defined]

    points = MessageEndpoints.scan_points(scan_id)
    return Evidence(
        scan_id=scan_id,
        statuses=found(MessageEndpoints.scan_status, ScanStatusMessage),
        schema=None,
        points=found(points, PointsMessage),
        seals=found(points, SealMessage),
        dones=[],
        finals=sum(m.done for m in found(MessageEndpoints.file_event, FileMessage)),
        file=None,
    )


def problems(broker: Broker, scan_id: str, about: str) -> list[str]:
    return [problem for problem in judge_scan(evidence_of(broker, scan_id), {}) if about in problem]


def without_lease_check(patch: Patch) -> None:
    unguarded = scripts.COMMIT.replace("if lease ~= '' then\n  local held", "if false then\n  local held")
    assert unguarded != scripts.COMMIT
    patch.setattr(scripts, "COMMIT", unguarded)


def test_the_lease_keeps_a_stale_worker_from_ending_a_scan_again(monkeypatch: Patch) -> None:
    """A scan server that was stopped before it could close a scan wakes up after its successor has closed it."""

    def play() -> list[str]:
        server = fake_server()
        stale, successor = fake_broker(server, instance="1"), fake_broker(server, instance="2")
        closed = ScanStatusMessage(
            scan_id="s", scan_number=1, status=ScanState.CLOSED, scan_name="x", request_id="r"
        )
        ending = stale.batch(stale.acquire_lease("scan_server.primary")).append(
            MessageEndpoints.scan_status, closed
        )
        lease = successor.acquire_lease("scan_server.primary")
        successor.batch(lease).append(MessageEndpoints.scan_status, closed).commit()
        try:
            ending.commit()
        except Fenced:
            pass
        return problems(successor, "s", "ends instead of 1")

    assert play() == []
    without_lease_check(monkeypatch)
    assert play() == ["the scan has 2 ends instead of 1"]


def appended(self: Batch, endpoint: Endpoint, message: Message, entry_id: str, *, after: str) -> Batch:
    """In the place of `append_at`: without the index in the entry's id."""
    return self.append(endpoint, message)


def test_exact_ids_keep_points_from_being_there_twice(monkeypatch: Patch) -> None:
    """Two bundlers at work at the same time: nothing but the ids of the entries is to stand between them."""
    without_lease_check(monkeypatch)

    def play() -> list[str]:
        first = BundlerBench()
        second = BundlerBench(first.server)
        first.open()
        first.turn(), second.turn()
        first.readings(0, 4)
        first.turn(), second.turn()
        return problems(first.outside, "s1", "follows point")

    assert play() == []
    monkeypatch.setattr(Batch, "append_at", appended)
    assert play() == ["point 0 follows point 3"]


def test_the_cursor_in_the_same_batch_keeps_a_file_from_being_final_twice(
    monkeypatch: Patch, tmp_path: Path
) -> None:
    """The second guard, a look at what was announced, is off in both runs."""
    monkeypatch.setattr(WriterApp, "_finished_since", lambda self, entry_id: set())

    def play(number: int) -> list[str]:
        bench = WriterBench(tmp_path / str(number))
        bench.open()
        bench.points(0, 2)
        bench.close(2)
        bench.turn()
        bench.start_writer()
        bench.turn()
        return problems(bench.outside, "scan-42", "said to be final")

    assert play(1) == []
    monkeypatch.setattr(Batch, "cursor", lambda self, role, endpoint, entry_id: self)
    assert play(2) == ["its file was said to be final 2 times"]


def test_the_count_of_what_is_committed_keeps_points_from_being_taken_twice(monkeypatch: Patch) -> None:
    """A scan that is resumed asks what is in the readings, and does not trust what it remembers."""
    from tests.scan_server.test_run import resumed

    def taken() -> list[int]:
        _, actions = resumed(5)
        return [
            index
            for action in actions
            if action.kind == "points"
            for index in range(action.first_index, action.first_index + action.count)
        ]

    assert taken() == [5, 6, 7, 8, 9]

    def trusting(self: ScanRun, counted: Any, moment: Any) -> Any:
        self._enter_running()
        assert self.phase is Phase.RUNNING
        return self._turn(moment)

    monkeypatch.setattr(ScanRun, "counted", trusting)
    assert taken() == list(range(10))


def test_the_journal_keeps_an_adaptive_scan_on_its_way() -> None:
    """Without it, or the readings in its place, the scan's code would be at another point than its data."""
    from bec_lib.messages import ScanJournalMessage
    from scan_server.run import Resumed

    bench, _ = scripted(adaptive)
    assert run_adaptive(bench) == [8.0, 4.0, 2.0, 1.0]
    journal = {entry.step: entry.result for entry in bench.messages(ScanJournalMessage)[:2]}
    for known, wanted in ((journal, [2.0, 1.0]), ({}, [])):
        again, _ = scripted(adaptive, resumed=Resumed(opened=True, journal=known))
        again.answer(), again.answer()
        again.count(main=2)
        assert run_adaptive(again) == wanted
        assert bool(again.recalls) is not bool(known)


# The hook


CRASHING = """
import sys
from bec_lib import crash_points
for number in range(5):
    crash_points.reached("here.before"); crash_points.reached("there.before")
    print(number, flush=True)
"""


@pytest.mark.parametrize(
    ("order", "code", "printed"),
    [
        (lambda: "there.before:3", -signal.SIGKILL, ["0", "1"]),
        (lambda: "elsewhere:1", 0, list("01234")),
        (None, 0, list("01234")),
    ],
)
def test_a_crash_order_is_one_death(
    tmp_path: Path, order: Callable[[], str] | None, code: int, printed: list[str]
) -> None:
    orders = tmp_path / "orders"
    if order is not None:
        orders.write_text(order(), encoding="utf-8")
    for again in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", CRASHING],
            env={**os.environ, "BEC_CRASH_AT": str(orders)},
            capture_output=True,
            text=True,
            check=False,
        )
        if again and code:
            assert (done.returncode, done.stdout.split()) == (0, list("01234"))
        else:
            assert (done.returncode, done.stdout.split()) == (code, printed), done.stderr
