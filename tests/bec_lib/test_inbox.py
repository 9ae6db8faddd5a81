"""Waking the main thread."""

from __future__ import annotations

import threading

from bec_lib.service import ThreadedInbox
from bec_lib.testing import fake_broker


def test_a_wait_that_is_woken_returns_with_nothing() -> None:
    inbox = ThreadedInbox(fake_broker())
    threading.Timer(0.01, inbox.wake).start()
    try:
        assert inbox.take(60.0) == []
    finally:
        inbox.close()


def test_what_was_posted_is_not_lost_by_a_wake() -> None:
    inbox = ThreadedInbox(fake_broker())
    try:
        inbox.wake()
        inbox.post("event")
        assert inbox.take(1.0) == ["event"]
    finally:
        inbox.close()
