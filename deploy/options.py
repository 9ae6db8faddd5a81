"""What the supervisor is told on its command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

START_S = 30.0


@dataclass
class Options:
    """config: the service configuration's path, None: found as everywhere. only: roles; empty: all. report: the
    number of a pipe to who waits for the start. tied: end when the thread that started us ends. service: instead of
    the fleet's own, see `services.parse_spec`. keep_going: keep the others if one does not start. preload: import
    first and fork, or start new programs.
    """

    config: str | None = None
    only: list[str] = field(default_factory=list)
    service: list[str] = field(default_factory=list)
    report: int | None = None
    timeout_s: float = START_S
    keep_going: bool = False
    preload: bool = True
    tied: bool = False
    debug: bool = False


def parse(arguments: list[str] | None) -> Options:
    """Exits with 2 if they are off."""
    parser = argparse.ArgumentParser(prog="bec-supervisor", description="Runs the fleet in the foreground.")
    add = parser.add_argument
    add("--config", help="service configuration")
    add("--only", action="append", default=[], help="a service to start; may be repeated")
    add("--service", action="append", default=[], help=argparse.SUPPRESS)
    add("--report", type=int, help=argparse.SUPPRESS)
    add("--timeout", dest="timeout_s", type=float, default=START_S, help="for the start, seconds")
    add("--keep-going", action="store_true", help="keep the others if one does not start")
    add("--no-preload", dest="preload", action="store_false", help="start services as new programs")
    add("--tied", action="store_true", help="stop when the process that started this one ends")
    add("--debug", action="store_true", help="log more")
    return Options(**vars(parser.parse_args(arguments)))
