"""A service that announces a short call, and never comes back from it."""

from __future__ import annotations

import sys
import time

from bec_lib.service import Service, run


class Hanging:
    def __init__(self, service: Service):
        self._service = service
        self._due = time.monotonic() + 1.0

    def start(self) -> None: ...

    def handle(self, events: list[object]) -> None: ...

    def deadline(self) -> float | None:
        return self._due

    def on_deadline(self) -> None:
        self._service.begin_busy("a short call", 0.1)
        self.never_come_back()

    def never_come_back(self) -> None:
        time.sleep(1000)

    def stop(self) -> None: ...


def main(arguments: list[str] | None = None) -> int:
    return run(sys.argv[0], Hanging, arguments=arguments)
