"""Scans with faults of every kind, as a plugin that is installed: what they do must stay theirs."""

import os
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
        doc="raises, loops, exits, interrupts, is_no_generator, gives_nonsense, kills or well."
    )

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
