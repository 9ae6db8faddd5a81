"""Learn from what has run how long things take: reads the last points of a scan that has ended, keeps what was learned.

The arithmetic is in timing.py. Learning must cost nothing that shows: at most once in LEARN_S, a few blocks at a time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from bec_lib.broker import Broker, Delivery
from bec_lib.clock import Clock
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import BECError
from bec_lib.messages import ReadingsMessage, ScanState, ScanTimingMessage
from scan_server import timing
from scan_server.assembler import Assembled
from scan_server.dry_run import course_of

log = logging.getLogger(__name__)

LEARN_S = 1.0
# Blocks that are read; if they hold fewer points than MANY, so many blocks are.
BLOCKS, MANY = 4, 48


@dataclass(frozen=True)
class _Running:
    assembled: Assembled
    tick: float
    made: timing.Estimate | None
    course: timing.Course


@dataclass(frozen=True)
class _Row:
    """Points without a gap, from `first` on: when each was begun, after its move, and when it was read."""

    first: int
    begun: list[float]
    read: list[float]


class Learning:
    """Owner: the scan server's main thread."""

    def __init__(self, broker: Broker, clock: Clock):
        self._broker = broker
        self._clock = clock
        self._due = clock.monotonic()
        self._running: dict[str, _Running] = {}
        self.learned = timing.Learned()

    def load(self) -> None:
        """What an earlier life has learned."""
        try:
            found = self._broker.get(MessageEndpoints.scan_timing)
            if found is not None:
                self.learned = timing.from_plain(found.message.learned)
        except (BECError, KeyError, TypeError, ValueError) as error:
            log.warning(
                "what was learned of how long things take cannot be read, and is learned anew: %s", error
            )

    def begins(self, scan_id: str, assembled: Assembled) -> float | None:
        """It is handed to its worker now. Not for one that was begun by an earlier life. Seconds that a scan whose points
        are known will take. Nothing is learned from a sweep, nor told of it: its points take what its motion takes.
        """
        plan, scan = assembled.plan, assembled.scan
        if scan.sweeps or (plan.positions is None and plan.num_points is None):
            return None
        now = self._clock.monotonic()
        is_due = now >= self._due
        if not (is_due or scan.is_scan):
            return None
        course = course_of(assembled, None)
        made = timing.estimate(course, self.learned) if scan.is_scan else None
        if is_due:
            self._running[scan_id] = _Running(assembled, now, made, course)
        return made.seconds if made is not None and plan.num_points is not None else None

    def ended(self, scan_id: str, state: ScanState, *, success: bool) -> ScanTimingMessage | None:
        """What there is to keep now, if something was learned."""
        run = self._running.pop(scan_id, None)
        if run is None or not success or state is not ScanState.CLOSED:
            return None
        now = self._clock.monotonic()
        if now < self._due:
            return None
        self._due = now + LEARN_S
        before = self.learned
        try:
            if run.assembled.scan.is_scan:
                self._from_scan(scan_id, run, now - run.tick)
            else:
                self._from_move(run, now - run.tick)
        except Exception:
            # Nobody's scan depends on an estimate.
            log.exception("nothing was learned from %s", scan_id)
            return None
        return None if self.learned is before else ScanTimingMessage(learned=timing.to_plain(self.learned))

    def interrupted(self, scan_id: str) -> None:
        """Somebody paused or held it: what it took says nothing."""
        self._running.pop(scan_id, None)

    def _from_move(self, run: _Running, seconds: float) -> None:
        rows = run.course.positions
        if rows is None:
            return
        moved = [
            (name, abs(float(rows[-1, k] - rows[0, k])))
            for k, name in enumerate(run.course.motors)
            if rows[-1, k] != rows[0, k]
        ]
        if len(moved) == 1:
            self.learned = timing.learn_move(self.learned, *moved[0], seconds)

    def _from_scan(self, scan_id: str, run: _Running, seconds: float) -> None:
        readings = MessageEndpoints.scan_readings(scan_id)
        last = self._row(readings, newest=True)
        if last is None:
            return
        exposure = run.assembled.plan.exposure
        self.learned = timing.learn_points(
            self.learned,
            run.course,
            last.first,
            last.begun,
            last.read,
            exposure.settling_time,
            exposure.point_s,
        )
        first = last if last.first == 0 else self._row(readings, newest=False)
        is_whole = last.first + len(last.read) == run.course.count
        if run.made is not None and is_whole and first is not None and first.first == 0:
            took = last.read[-1] - first.begun[0]
            self.learned = timing.learn_scan(self.learned, run.course, run.made, took, seconds)

    def _row(self, readings: Endpoint, *, newest: bool) -> _Row | None:
        """The last or the first points, as many as are in a few blocks; None if there are none, or if several device
        servers read them: then each point is an instruction of its own.
        """
        row = self._look(readings, BLOCKS, newest=newest)
        # Slow points are blocks of one.
        if row is not None and newest and len(row.read) < MANY:
            row = self._look(readings, MANY, newest=True)
        return row

    def _look(self, readings: Endpoint, count: int, *, newest: bool) -> _Row | None:
        found = [
            item.message
            for item in self._broker.entries(readings, count=count, newest=newest)
            if isinstance(item, Delivery)
            and isinstance(item.message, ReadingsMessage)
            and item.message.group == "monitored"
        ]
        row: _Row | None = None
        for block in found:
            if block.server != found[0].server:
                return None
            if row is None or block.first_index != row.first + len(row.read):
                row = _Row(block.first_index, [], [])
            row.begun.extend(block.acq_start)
            row.read.extend(block.acq_end)
        return row if row is not None and row.read and len(row.read) == len(row.begun) else None
