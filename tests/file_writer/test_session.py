"""The table of `file_writer.session`, row by row."""

from __future__ import annotations

import pytest

from bec_lib.messages import ScanState, SealMessage
from file_writer.session import (
    GIVE_UP_AFTER_S,
    RETRY_FIRST_S,
    RETRY_LAST_S,
    Message,
    Phase,
    Session,
    Step,
    completed,
    done,
    failed,
    is_hopeless,
    next_step,
    take,
)
from tests.file_writer.samples import DIODE, SAMX, SPECTRUM, baseline_of, points_of, schema_of, status_of

SCHEMA = schema_of()
FLUSH_S = 0.1


def taken(session: Session, *messages: Message, now: float = 0.0) -> Session:
    for message in messages:
        session = take(session, message, now, FLUSH_S)
    return session


def stepped(session: Session, *steps: Step, now: float = 0.0) -> Session:
    """After these steps, each of which must be the next."""
    for step in steps:
        assert next_step(session, now) is step
        session = done(session, step, now)
    return session


def seal(count: int) -> SealMessage:
    return SealMessage(scan_id="s", count=count, status="closed", ended=9.0)


def opened() -> Session:
    session = taken(Session(status_of()), SCHEMA, baseline_of())
    return stepped(session, Step.MAKE, Step.PUBLISH)


def test_without_a_schema_there_is_nothing_to_do() -> None:
    assert next_step(Session(status_of()), 0.0) is None


def test_the_file_is_made_from_the_schema_and_published_with_the_baseline() -> None:
    session = stepped(taken(Session(status_of()), SCHEMA), Step.MAKE)
    assert next_step(session, 0.0) is None

    session = stepped(taken(session, baseline_of()), Step.PUBLISH)
    assert session.phase is Phase.OPEN


def test_a_scan_without_baseline_devices_is_published_at_once() -> None:
    session = taken(Session(status_of()), schema_of(baseline=()))

    assert stepped(session, Step.MAKE, Step.PUBLISH).phase is Phase.OPEN


def test_points_do_not_wait_for_a_late_baseline() -> None:
    session = stepped(taken(Session(status_of()), SCHEMA), Step.MAKE)

    assert next_step(taken(session, points_of(SCHEMA, 0, 1)), 0.0) is Step.PUBLISH


def test_points_that_come_long_after_the_last_writing_are_written_at_once() -> None:
    session = stepped(taken(opened(), points_of(SCHEMA, 0, 1), now=5.0), Step.WRITE, now=5.0)

    assert next_step(taken(session, points_of(SCHEMA, 1, 1), now=60.0), 60.0) is Step.WRITE


def test_points_in_quick_succession_wait_and_are_written_together() -> None:
    session = taken(opened(), points_of(SCHEMA, 0, 1), now=0.03)
    session = taken(session, points_of(SCHEMA, 1, 2), now=0.06)

    assert next_step(session, 0.06) is None
    assert session.due() == pytest.approx(0.1)
    session = stepped(session, Step.WRITE, now=0.1)
    assert session.rows == ()
    assert session.received == 3
    assert session.due() is None
    assert taken(session, points_of(SCHEMA, 3, 1), now=0.11).due() == pytest.approx(0.2)


def test_points_that_came_before_are_not_taken_twice() -> None:
    session = taken(opened(), points_of(SCHEMA, 0, 2), points_of(SCHEMA, 0, 2))

    assert session.received == 2
    assert len(session.rows) == 1


def test_the_seal_completes_the_file_with_what_is_not_yet_written() -> None:
    session = taken(opened(), points_of(SCHEMA, 0, 3), seal(3))

    assert len(session.rows) == 1
    session = stepped(session, Step.FINISH)
    assert session.phase is Phase.DRAINING
    assert next_step(session, 100.0) is None
    assert completed(session).phase is Phase.COMPLETE


def test_a_scan_that_was_over_before_its_file_was_published_is_completed_directly() -> None:
    session = taken(Session(status_of()), SCHEMA, baseline_of(), points_of(SCHEMA, 0, 3), seal(3))

    stepped(session, Step.MAKE, Step.FINISH)


def test_a_scan_that_ends_without_a_schema_has_a_file_without_columns() -> None:
    session = taken(Session(status_of()), status_of(ScanState.ABORTED), seal(0))

    assert session.schema.signals == []
    session = stepped(session, Step.MAKE, Step.FINISH)
    assert session.end.state == "closed"
    assert session.end.status is not None


def test_a_schema_with_other_columns_makes_the_file_anew_from_the_streams() -> None:
    session = taken(opened(), points_of(SCHEMA, 0, 2))
    session = taken(session, schema_of((SAMX, SPECTRUM), version=2))
    session = stepped(session, Step.START_OVER)

    assert (session.phase, session.received, session.rows) == (Phase.WAITING, 0, ())


def test_a_schema_without_new_columns_changes_nothing() -> None:
    assert next_step(taken(opened(), schema_of(version=2)), 0.0) is None
    assert next_step(taken(opened(), schema_of((DIODE, SAMX), version=2)), 0.0) is None


def test_a_failed_file_is_tried_again_after_growing_pauses() -> None:
    session = opened()
    pauses = []
    now = 0.0
    for _ in range(6):
        session = failed(session, "no space", now)
        assert next_step(session, now) is None
        pauses.append((session.retry_at or 0.0) - now)
        now = session.retry_at or 0.0
        session = stepped(session, Step.START_OVER, now=now)
        assert session.phase is Phase.WAITING

    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert (pauses[0], pauses[-1]) == (RETRY_FIRST_S, RETRY_LAST_S)


def test_points_of_a_failed_file_are_left_in_their_stream() -> None:
    session = taken(failed(opened(), "no space", 0.0), points_of(SCHEMA, 0, 2))

    assert session.rows == ()
    assert session.received == 0


def test_the_seal_makes_a_failed_file_be_tried_at_once() -> None:
    session = taken(failed(opened(), "no space", 0.0), seal(3), now=1.0)

    assert next_step(session, 1.0) is Step.START_OVER


def test_a_file_that_fails_for_a_day_is_given_up() -> None:
    session = failed(opened(), "no space", 0.0)

    assert not is_hopeless(session, GIVE_UP_AFTER_S - 1)
    assert is_hopeless(session, GIVE_UP_AFTER_S)
    assert not is_hopeless(opened(), GIVE_UP_AFTER_S)
