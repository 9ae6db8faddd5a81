"""Looking at processes from outside, for the system tests."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy import process
from deploy.temporary import TemporaryFleet


def processes_of(fleet: TemporaryFleet) -> list[int]:
    """The live processes of a fleet, found by what they hold: its lock, its folder, or a file in it."""
    return processes_in(fleet.folder)


def processes_in(folder: Path) -> list[int]:
    """The live processes, but for this one, that have something open below a folder, or work in it."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid() or not process.is_alive(int(entry)):
            continue
        try:
            held = [os.readlink(f"/proc/{entry}/fd/{fd}") for fd in os.listdir(f"/proc/{entry}/fd")]
            held.append(os.readlink(f"/proc/{entry}/cwd"))
        except OSError:
            continue
        if any(path.startswith(str(folder)) for path in held):
            found.append(int(entry))
    return found


def wait_until(holds: Callable[[], Any], timeout_s: float = 10.0, what: str = "") -> Any:
    """For things that nobody can tell us of: what it gives when it is true. Fails at the timeout."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        select.select([], [], [], 0.02)
    pytest.fail(f"not within {timeout_s:g} s: {what or holds.__name__}")
