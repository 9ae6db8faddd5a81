"""Scans with faults of every kind, as a plugin that is installed: what they do must stay theirs."""

import ctypes
import os
import re
import signal
import sys
import time

from bec_lib.scans import Point, Scan, Steps, parameter

__all__ = ["Bad"]


class Bad(Scan):
    """Take a point, then misbehave.

    >>> scans.bad("raises")
    """

    scan_name = "bad"
    how: str = parameter(
        doc="raises, loops, exits, interrupts, is_no_generator, gives_nonsense, kills, dies, crashes, holds or well; "
        "dies_early, crashes_early, holds_early: while it is worked out."
    )

    def problems(self) -> list[str]:
        match self.how:
            case "dies_early":
                os._exit(3)
            case "crashes_early":
                ctypes.string_at(0)
            case "holds_early":
                hold()
        return super().problems()

    @property
    def num_points(self) -> int | None:
        return None

    def run(self) -> Steps:
        if self.how == "is_no_generator":
            raise ValueError("not even begun")
        return self.steps()

    def steps(self) -> Steps:
        yield Point()
        match self.how:
            case "raises":
                raise RuntimeError("I was never tried out")
            case "loops":
                while True:
                    time.sleep(0.01)
            case "exits":
                sys.exit("bye")
            case "interrupts":
                raise KeyboardInterrupt
            case "gives_nonsense":
                yield "sideways"  # type: ignore[misc]
            case "kills":
                os.kill(os.getpid(), signal.SIGKILL)
            case "dies":
                os._exit(3)
            case "crashes":
                ctypes.string_at(0)
            case "holds":
                hold()


def hold() -> None:
    """No other thread of the process runs meanwhile, and it takes longer than anybody lives."""
    re.match(r"(a+)+$", "a" * 200 + "b")
