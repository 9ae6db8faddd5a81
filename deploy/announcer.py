"""What the supervisor says: to `bec-server start` while it waits, to those who follow, to the log, and to the streams
of Redis. Nothing here raises: what cannot be said is logged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable

from bec_lib.broker import Broker
from bec_lib.endpoints import MessageEndpoints
from bec_lib.errors import BECError, ReasonCode
from bec_lib.messages import AlarmMessage, ErrorInfo, Severity, SupervisorMessage
from deploy.lines import Line, encode

log = logging.getLogger("supervisor")


class Announcer:
    """report: the pipe to who has started us, None if nobody waits. followers: tells who listens on the control
    socket. broker: None as long as there is no Redis to write to.
    """

    def __init__(self, report: int | None):
        self._report = report
        self._began = time.monotonic()
        self.followers: Callable[[Line], None] = lambda line: None
        self.broker: Broker | None = None
        self.warnings: list[str] = []

    @property
    def after_s(self) -> float:
        """Since the supervisor began."""
        return time.monotonic() - self._began

    def report(self, line: Line) -> None:
        """To the one who waits for the start."""
        if self._report is not None:
            with contextlib.suppress(OSError):
                os.write(self._report, encode(line))

    def end_report(self) -> None:
        """The start is over, for good or ill; nobody waits any longer."""
        if self._report is not None:
            os.close(self._report)
            self._report = None

    def say(self, line: Line) -> None:
        """To the one who waits and to those who follow."""
        self.report(line)
        self.followers(line)

    def warn(self, sentences: Iterable[str]) -> None:
        """Kept for the status."""
        for sentence in sentences:
            log.warning("%s", sentence)
            self.warnings.append(sentence)
            self.report({"event": "warning", "text": sentence})

    def record(
        self, service: str, event: str, pid: int, *, exit_code: int | None = None, reason: str = ""
    ) -> None:
        """What happened to a service: to everybody."""
        log.info("%s (process %d) %s%s", service, pid, event, f": {reason}" if reason else "")
        self.say({"event": event, "service": service, "pid": pid, "reason": reason, "after_s": self.after_s})
        if self.broker is None:
            return
        message = SupervisorMessage(
            service=service, event=event, pid=pid, exit_code=exit_code, reason=reason, timestamp=time.time()
        )
        try:
            self.broker.append(MessageEndpoints.supervisor_events, message)
        except BECError as error:
            log.warning("not recorded: %s", error)

    def alarm(self, text: str, *, is_major: bool = False) -> None:
        """What a person should know."""
        log.error("%s", text)
        if self.broker is None:
            return
        message = AlarmMessage(
            severity=Severity.MAJOR if is_major else Severity.MINOR,
            info=ErrorInfo(error_message=text, code=ReasonCode.SERVICE_DOWN),
            source="supervisor",
            timestamp=time.time(),
        )
        try:
            self.broker.append(MessageEndpoints.alarm, message)
        except BECError as error:
            log.warning("no alarm was raised: %s", error)
