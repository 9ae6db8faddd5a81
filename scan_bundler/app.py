"""The scan bundler's wiring: streams of open scans through `synchronise` into points, seal and progress.

State, all owned by the main thread: the open scans. What must survive is in the streams: a restarted bundler
reads where each points stream stands and folds the readings again from their beginning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from bec_lib.broker import Batch, Delivery, Malformed
from bec_lib.endpoints import DAY, Endpoint, MessageEndpoints
from bec_lib.errors import StreamConflict
from bec_lib.ids import entry_order, just_before
from bec_lib.messages import (
    BaselineMessage,
    PointsMessage,
    ReadingsMessage,
    ScanSchemaMessage,
    ScanState,
    ScanStatusMessage,
    SealMessage,
    Severity,
)
from bec_lib.service import Event, Service
from scan_bundler.progress import Progress, progress_of
from scan_bundler.synchronise import Fold, Output, Wrong, merged

log = logging.getLogger(__name__)

# All readings are in the stream before the scan's end is announced. Whoever breaks that gets this long.
GRACE_S = 1.0
# A points stream that is not where it should be is read again; if that does not help, the scan is given up.
MAX_CONFLICTS = 3
# The mark that outlives a sealed stream; by then the cursor has long passed the scan.
SEAL_KEPT_S = DAY


@dataclass(slots=True)
class _Scan:
    """An open scan. opened_id: of its first status entry. cursors: how far its streams were read. terminal:
    the status that ended it. give_up_at: when to seal although points are missing.
    """

    status: ScanStatusMessage
    opened_id: str
    fold: Fold
    schema: Endpoint
    readings: Endpoint
    cursors: dict[Endpoint, str]
    points: list[PointsMessage] = field(default_factory=list)
    baseline: BaselineMessage | None = None
    has_baseline: bool = False
    terminal: ScanStatusMessage | None = None
    give_up_at: float | None = None
    sealed: bool = False
    conflicts: int = 0

    @property
    def name(self) -> str:
        return f"scan {self.status.scan_number}"


class BundlerApp:
    """One turn: fold what arrived, end the scans that are over, write everything in one batch."""

    def __init__(self, service: Service):
        self._service = service
        self._broker = service.broker
        self._inbox = service.inbox
        self._clock = service.clock
        self._scans: dict[str, _Scan] = {}
        self._by_key: dict[str, _Scan] = {}
        self._progress = Progress()
        self._status_id = "0"
        self._committed = "0"

    # The frame's calls

    def start(self) -> None:
        endpoint = MessageEndpoints.scan_status
        self._status_id = self._committed = self._service.cursors().get(endpoint.key, "0")
        # What was said before this process began: its scans may be sealed, or half emitted.
        while found := self._broker.read({endpoint: self._status_id}):
            for item in found:
                self._take_status(item, recovering=True)
        self._inbox.follow(endpoint, self._status_id)
        for scan in self._scans.values():
            self._follow(scan)
        # Scans that ended meanwhile: nothing more may come that would wake us for them.
        self._finish_turn()

    def handle(self, events: list[Event]) -> None:
        for event in events:
            if event.endpoint.key == MessageEndpoints.scan_status.key:
                self._take_status(event)
            else:
                scan = self._by_key.get(event.endpoint.key)
                if scan is not None:
                    self._take_reading(scan, event)
        self._finish_turn()

    def deadline(self) -> float | None:
        dues = [scan.give_up_at for scan in self._scans.values() if scan.give_up_at is not None]
        progress = self._progress.due()
        if progress is not None:
            dues.append(progress)
        return min(dues, default=None)

    def on_deadline(self) -> None:
        self._finish_turn()

    def stop(self) -> None:
        """Nothing was started; what is unfinished is in the streams."""

    # What arrives

    def _take_status(self, event: Delivery | Malformed, *, recovering: bool = False) -> None:
        self._status_id = event.entry_id
        if isinstance(event, Malformed):
            log.warning("a scan status was left out: %s", event.error)
            return
        message: ScanStatusMessage = event.message
        scan = self._scans.get(message.scan_id)
        if scan is None:
            # Only a scan's first message finds its stream empty without asking.
            scan = self._open(
                message,
                event.entry_id,
                recovering or message.status.is_terminal or message.status == "paused",
            )
            if scan is None:
                return
            if not recovering:
                self._follow(scan)
        scan.status = message
        if message.status.is_terminal:
            scan.terminal = message

    def _take_reading(self, scan: _Scan, event: Delivery | Malformed) -> None:
        scan.cursors[event.endpoint] = event.entry_id
        if isinstance(event, Malformed):
            log.warning("an entry of %s of %s was left out: %s", event.endpoint.key, scan.name, event.error)
            return
        message = event.message
        outputs: Iterable[Output] = (
            scan.fold.schema(message)
            if isinstance(message, ScanSchemaMessage)
            else scan.fold.readings(message)
            if isinstance(message, ReadingsMessage)
            else ()
        )
        for output in outputs:
            if isinstance(output, PointsMessage):
                scan.points.append(output)
            elif isinstance(output, BaselineMessage):
                scan.baseline = output
            elif isinstance(output, Wrong):
                self._service.alarm(
                    Severity.MAJOR, f"{scan.name}: {output.why}.", scan_id=scan.status.scan_id
                )

    def _open(self, status: ScanStatusMessage, entry_id: str, ask: bool) -> _Scan | None:
        """Begin to fold a scan; None if it is sealed already."""
        scan_id = status.scan_id
        fold = self._restored(scan_id) if ask else Fold(scan_id)
        if fold is None:
            return None
        schema, readings = MessageEndpoints.scan_schema(scan_id), MessageEndpoints.scan_readings(scan_id)
        scan = _Scan(status, entry_id, fold, schema, readings, {schema: "0", readings: "0"})
        scan.has_baseline = fold.baseline_done
        self._scans[scan_id] = scan
        return scan

    def _restored(self, scan_id: str) -> Fold | None:
        """A fold that goes on where the scan's points stream stands; None if that is sealed."""
        last = self._broker.last_id(MessageEndpoints.scan_points(scan_id))
        count, _, kind = last.partition("-")
        if kind == "1":
            return None
        has_baseline = self._broker.last_id(MessageEndpoints.scan_baseline(scan_id)) != "0-0"
        return Fold(scan_id, next_index=int(count), baseline_done=has_baseline)

    def _follow(self, scan: _Scan) -> None:
        # In this order: of what is read at once, the schema comes before the readings that need it.
        for endpoint, cursor in scan.cursors.items():
            self._by_key[endpoint.key] = scan
            self._inbox.follow(endpoint, cursor)

    def _forget(self, scan: _Scan) -> None:
        for endpoint in scan.cursors:
            self._by_key.pop(endpoint.key, None)
        self._inbox.forget(*scan.cursors)
        self._scans.pop(scan.status.scan_id, None)

    # What goes out

    def _finish_turn(self) -> None:
        ending = [scan for scan in self._scans.values() if scan.terminal is not None]
        for scan in ending:
            self._read_to_end(scan)
        batch = self._service.batch()
        for scan in self._scans.values():
            self._add_points(batch, scan)
        for scan in ending:
            self._seal_if_over(batch, scan)
        self._progress, progress = self._progress.take(self._clock.monotonic())
        if progress is not None:
            batch.put(MessageEndpoints.scan_progress, progress)
        cursor = self._cursor()
        if cursor != self._committed and batch.operations:
            batch.cursor(self._service.name, MessageEndpoints.scan_status, cursor)
        try:
            batch.commit()
        except StreamConflict as conflict:
            self._resynchronise(conflict)
            return
        if batch.operations:
            self._committed = cursor
        for scan in list(self._scans.values()):
            scan.points, scan.baseline = [], None
            if scan.sealed:
                self._forget(scan)

    def _read_to_end(self, scan: _Scan) -> None:
        """All readings were in the stream before the end was announced: what is not there will not come."""
        while found := self._broker.read(scan.cursors):
            for item in found:
                self._take_reading(scan, item)
                self._inbox.follow(item.endpoint, item.entry_id)

    def _add_points(self, batch: Batch, scan: _Scan) -> None:
        scan_id = scan.status.scan_id
        if scan.baseline is not None:
            batch.append_at(MessageEndpoints.scan_baseline(scan_id), scan.baseline, "1-0", after="0-0")
            scan.has_baseline = True
        if not scan.points:
            return
        endpoint = MessageEndpoints.scan_points(scan_id)
        for block in merged(scan.points):
            batch.append_at(
                endpoint, block, f"{block.first_index + block.count}-0", after=f"{block.first_index}-0"
            )
        self._progress = self._progress.update(
            progress_of(scan_id, scan.fold.next_index, scan.status.num_points)
        )

    def _seal_if_over(self, batch: Batch, scan: _Scan) -> None:
        terminal = scan.terminal
        assert terminal is not None
        missing = scan.fold.end(terminal.num_readouts)
        # A scan that was broken off before its baseline was read lacks nothing.
        if missing.points or (missing.baseline and terminal.status is ScanState.CLOSED):
            now = self._clock.monotonic()
            if scan.give_up_at is None:
                scan.give_up_at = now + GRACE_S
            if now < scan.give_up_at:
                return
            self._service.alarm(
                Severity.MAJOR,
                f"{scan.name} is over and incomplete: {missing.sentence()}. "
                f"Its file will hold the first {missing.complete} points.",
                scan_id=terminal.scan_id,
            )
        partial = scan.fold.partial_baseline()
        if partial is not None:
            batch.append_at(MessageEndpoints.scan_baseline(partial.scan_id), partial, "1-0", after="0-0")
            scan.has_baseline = True
        scan_id, count = terminal.scan_id, scan.fold.next_index
        endpoint = MessageEndpoints.scan_points(scan_id)
        batch.append_at(
            endpoint,
            SealMessage(
                scan_id=scan_id,
                count=count,
                status=terminal.status.value,
                baseline=scan.has_baseline,
                ended=terminal.ended or terminal.timestamp,
            ),
            f"{count}-1",
            after=f"{count}-0",
        )
        batch.seal(endpoint, SEAL_KEPT_S)
        scan.sealed = True
        self._progress = self._progress.update(progress_of(scan_id, count, terminal.num_points, done=True))

    def _cursor(self) -> str:
        """How far the status stream need not be read again: up to the oldest scan that is not sealed."""
        opened = [scan.opened_id for scan in self._scans.values() if not scan.sealed]
        return min((just_before(entry) for entry in opened), key=entry_order, default=self._status_id)

    def _resynchronise(self, conflict: StreamConflict) -> None:
        """A points stream is not where it was thought to be: see where it stands, and fold again."""
        log.warning("folding the readings of the open scans again: %s", conflict)
        for scan in list(self._scans.values()):
            if not scan.points and scan.baseline is None and not scan.sealed:
                continue
            scan.points, scan.baseline, scan.sealed = [], None, False
            scan.conflicts += 1
            fold = self._restored(scan.status.scan_id) if scan.conflicts <= MAX_CONFLICTS else None
            if fold is None:
                if scan.conflicts > MAX_CONFLICTS:
                    self._service.alarm(
                        Severity.MAJOR,
                        f"{scan.name} is given up by the scan bundler: {conflict}.",
                        scan_id=scan.status.scan_id,
                    )
                self._forget(scan)
                continue
            scan.fold, scan.has_baseline = fold, fold.baseline_done
            scan.cursors = {scan.schema: "0", scan.readings: "0"}
            self._follow(scan)
