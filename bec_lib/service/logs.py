"""Logging of a service: to standard error, to a rotated file, and WARNING and above to the log stream.

Under the supervisor (BEC_LOG_STDERR=no) standard error is kept for what is not logged: a last traceback, a
library's own words.

Nothing is sent to Redis from where the line is logged: lines for the stream are collected and go out with the
next heartbeat.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections import deque
from pathlib import Path

from bec_lib.messages import LogMessage

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class StreamLines(logging.Handler):
    """Collects lines for the log stream, at most `keep`; the oldest are dropped first."""

    def __init__(self, service: str, keep: int = 200):
        super().__init__(logging.WARNING)
        self._service = service
        self._lines: deque[LogMessage] = deque(maxlen=keep)

    def emit(self, record: logging.LogRecord) -> None:
        details = (
            self.formatter.formatException(record.exc_info) if record.exc_info and self.formatter else ""
        )
        self._lines.append(
            LogMessage(
                level=record.levelname,
                service=self._service,
                text=record.getMessage(),
                timestamp=record.created,
                logger=record.name,
                details=details,
            )
        )

    def take(self) -> list[LogMessage]:
        lines: list[LogMessage] = []
        while self._lines:
            lines.append(self._lines.popleft())
        return lines


def set_up_logging(
    service: str, folder: Path | None, level: str, file_mb: float = 20.0, files: int = 5
) -> StreamLines:
    """Configure the root logger of this process. A folder that cannot be written is reported, not fatal."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(True)
    formatter = logging.Formatter(FORMAT)
    lines = StreamLines(service)
    lines.setFormatter(formatter)
    handlers: list[logging.Handler] = [lines]
    problem = None
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handlers.append(
                logging.handlers.RotatingFileHandler(
                    folder / f"{service}.log",
                    maxBytes=int(file_mb * 1e6),
                    backupCount=files,
                    encoding="utf-8",
                )
            )
        except OSError as error:
            problem = error
    if len(handlers) == 1 or os.environ.get("BEC_LOG_STDERR") != "no":
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    if problem is not None:
        logging.getLogger(__name__).warning("no log file in %s: %s", folder, problem)
    return lines
