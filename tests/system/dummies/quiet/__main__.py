"""A service that does nothing, to try the supervisor on. Its role is the name it runs under."""

from __future__ import annotations

import sys

from bec_lib.service import Service, run


class Nothing:
    def start(self) -> None: ...

    def handle(self, events: list[object]) -> None: ...

    def deadline(self) -> float | None:
        return None

    def on_deadline(self) -> None: ...

    def stop(self) -> None: ...


def build(service: Service) -> Nothing:
    return Nothing()


def main(arguments: list[str] | None = None) -> int:
    return run(sys.argv[0], build, arguments=arguments)
