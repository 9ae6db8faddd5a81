"""What is to be done next for the file of one scan?

A pure state machine: `take` for what arrives, `next_step` for what is to be done, `done` and `failed` for how
it went. Knows no file and no stream; times are seconds of a monotonic clock and come in as arguments.

Phase     Step        When                                                     Phase after it, or after its failure
--------  ----------  -------------------------------------------------------  ------------------------------------
waiting   Make        the schema is known, or the scan is over without one     made      failed
made      Publish     the baseline is known, or points, or there is none       open      failed
made      Finish      the seal is there: nobody needs to see it grow           draining  failed
open      Write       rows wait, and the last writing is long enough ago       open      failed
open      Finish      the seal is there                                        draining  failed
any file  Start over  the schema has changed: other columns                    waiting
failed    Start over  a pause has passed, or the seal has come                 waiting
draining  -           until the file is complete                               complete  failed
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from bec_lib.messages import (
    BaselineMessage,
    PointsMessage,
    ScanSchemaMessage,
    ScanStatusMessage,
    SealMessage,
)
from file_writer.layout import EndFacts
from file_writer.rows import merged_schema

# Pauses between attempts to write a file that could not be written: doubled from the first to the last.
RETRY_FIRST_S = 5.0
RETRY_LAST_S = 60.0
# After this a file that is due is given up: its data leave Redis.
GIVE_UP_AFTER_S = 24 * 3600.0


class Phase(StrEnum):
    """made: the file exists under a temporary name. open: it can be read while it grows."""

    WAITING = "waiting"
    MADE = "made"
    OPEN = "open"
    DRAINING = "draining"
    COMPLETE = "complete"
    FAILED = "failed"


class Step(StrEnum):
    MAKE = "make"
    PUBLISH = "publish"
    WRITE = "write"
    FINISH = "finish"
    START_OVER = "start over"


@dataclass(frozen=True, slots=True)
class Session:
    """One scan's file.

    rows: blocks not yet written. received: points taken in so far. made_with: the schema versions that the
    file was made for. written_at: when rows were last written, or the file published; flush_at: when the
    next ones are to be. retry_at, failures, failed_since: of the
    attempts that failed; error: why the last one did.
    """

    status: ScanStatusMessage
    phase: Phase = Phase.WAITING
    terminal: ScanStatusMessage | None = None
    schemas: dict[int, ScanSchemaMessage] = field(default_factory=dict)
    made_with: frozenset[int] = frozenset()
    baseline: BaselineMessage | None = None
    rows: tuple[PointsMessage, ...] = ()
    received: int = 0
    seal: SealMessage | None = None
    written_at: float | None = None
    flush_at: float | None = None
    error: str = ""
    failures: int = 0
    failed_since: float | None = None
    retry_at: float | None = None

    @property
    def schema(self) -> ScanSchemaMessage:
        """Of all versions together; without columns if the scan ended before it had one."""
        if self.schemas:
            return merged_schema(self.schemas)
        return ScanSchemaMessage(scan_id=self.status.scan_id, signals=[], motors=[])

    @property
    def end(self) -> EndFacts:
        """How the scan ended. Only with the seal."""
        assert self.seal is not None
        return EndFacts(self.seal.status, self.received, self.seal.ended, self.terminal)

    def due(self) -> float | None:
        """When `next_step` may have something to do although nothing arrives."""
        if self.phase is Phase.FAILED:
            return self.retry_at
        if self.phase is Phase.OPEN and self.rows:
            return self.flush_at
        return None


Message = ScanStatusMessage | ScanSchemaMessage | BaselineMessage | PointsMessage | SealMessage


def take(session: Session, message: Message, now: float, flush_s: float) -> Session:
    """Something arrived. flush_s: how long rows may wait to be written."""
    match message:
        case ScanStatusMessage():
            return replace(session, terminal=message) if message.status.is_terminal else session
        case ScanSchemaMessage():
            return replace(session, schemas={**session.schemas, message.version: message})
        case BaselineMessage():
            return replace(session, baseline=message)
        case PointsMessage():
            # A failed file is made again from the streams, with all of its points.
            if message.first_index < session.received or session.phase is Phase.FAILED:
                return session
            flush_at = session.flush_at
            if not session.rows:
                flush_at = now if session.written_at is None else max(now, session.written_at + flush_s)
            return replace(
                session,
                rows=(*session.rows, message),
                received=message.first_index + message.count,
                flush_at=flush_at,
            )
        case SealMessage():
            # Now somebody waits for the file: an attempt that had failed is made again at once.
            return replace(session, seal=message, retry_at=now if session.phase is Phase.FAILED else None)


def next_step(session: Session, now: float) -> Step | None:
    """What is to be done now; None: wait."""
    if session.phase is Phase.FAILED:
        over = session.retry_at is not None and now >= session.retry_at
        return Step.START_OVER if over else None
    if session.phase in (Phase.MADE, Phase.OPEN) and _has_other_columns(session):
        return Step.START_OVER
    match session.phase:
        case Phase.WAITING if session.schemas or session.seal is not None:
            return Step.MAKE
        case Phase.MADE | Phase.OPEN if session.seal is not None:
            return Step.FINISH
        case Phase.MADE if session.rows or session.baseline is not None or not session.schema.baseline:
            return Step.PUBLISH
        case Phase.OPEN if session.rows and session.flush_at is not None and now >= session.flush_at:
            return Step.WRITE
    return None


def done(session: Session, step: Step, now: float) -> Session:
    """The step was taken (`Finish`: was begun)."""
    match step:
        case Step.MAKE:
            return replace(session, phase=Phase.MADE, made_with=frozenset(session.schemas))
        case Step.PUBLISH:
            # Published is as good as written: a scan that runs quickly has its first points written together.
            return replace(session, phase=Phase.OPEN, written_at=now)
        case Step.WRITE:
            return replace(session, rows=(), flush_at=None, written_at=now)
        case Step.FINISH:
            return replace(session, phase=Phase.DRAINING, rows=(), flush_at=None)
        case Step.START_OVER:
            return replace(
                session,
                phase=Phase.WAITING,
                schemas={},
                made_with=frozenset(),
                baseline=None,
                rows=(),
                received=0,
                seal=None,
                flush_at=None,
                written_at=None,
                retry_at=None,
            )


def is_in_trouble(session: Session) -> bool:
    """Its file could not be written, and nobody has seen that it can be again."""
    return bool(session.error) and session.phase in (Phase.FAILED, Phase.WAITING, Phase.MADE)


def completed(session: Session) -> Session:
    """The file is final."""
    return replace(session, phase=Phase.COMPLETE, error="", retry_at=None)


def failed(session: Session, error: str, now: float) -> Session:
    """A step could not be taken; it is tried again after a pause, from the streams."""
    pause = min(RETRY_FIRST_S * 2**session.failures, RETRY_LAST_S)
    return replace(
        session,
        phase=Phase.FAILED,
        rows=(),
        flush_at=None,
        error=error,
        failures=session.failures + 1,
        failed_since=now if session.failed_since is None else session.failed_since,
        retry_at=now + pause,
    )


def wanted(session: Session, now: float) -> Session:
    """Somebody asks for the file: an attempt that had failed is made again at once."""
    return replace(session, retry_at=now) if session.phase is Phase.FAILED else session


def is_hopeless(session: Session, now: float) -> bool:
    """It has failed for so long that it is given up."""
    since = session.failed_since
    return session.phase is Phase.FAILED and since is not None and now - since >= GIVE_UP_AFTER_S


def _has_other_columns(session: Session) -> bool:
    """A schema came that the file was not made for, and it adds or changes columns."""
    new = [schema for version, schema in session.schemas.items() if version not in session.made_with]
    if not new:
        return False
    before = {v: schema for v, schema in session.schemas.items() if v in session.made_with}
    if not before:
        return True
    old = merged_schema(before)
    return any(merged_schema({**before, schema.version: schema}).signals != old.signals for schema in new)
