"""How far is a scan, and is it time to say so? At most one message per interval, the latest value wins.

Pure: the time comes in as an argument (seconds of a monotonic clock).
"""

from __future__ import annotations

from dataclasses import dataclass

from bec_lib.messages import ProgressMessage

INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """waiting: the message that is yet to be sent. sent_at: when the last one was, None for never."""

    waiting: ProgressMessage | None = None
    sent_at: float | None = None

    def update(self, message: ProgressMessage) -> Progress:
        """Something advanced; replaces what was waiting, except the news that a scan is over."""
        if self.waiting is not None and self.waiting.done and not message.done:
            return self
        return Progress(message, self.sent_at)

    def due(self) -> float | None:
        """When the waiting message may be sent; None if there is none."""
        if self.waiting is None:
            return None
        if self.sent_at is None or self.waiting.done:
            return float("-inf")
        return self.sent_at + INTERVAL_S

    def take(self, now: float) -> tuple[Progress, ProgressMessage | None]:
        """The message if it may be sent now, and the state after that."""
        due = self.due()
        if self.waiting is None or due is None or now < due:
            return self, None
        return Progress(None, now), self.waiting


def progress_of(scan_id: str, points: int, num_points: int | None, *, done: bool = False) -> ProgressMessage:
    """The message for a scan with so many complete points. num_points None: unknown, max_value 0."""
    return ProgressMessage(value=float(points), max_value=float(num_points or 0), done=done, scan_id=scan_id)
