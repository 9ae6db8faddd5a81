"""Where may a test let a process die? Named places in the code at which it kills itself when it is told to.

Off, and without cost, unless the environment has BEC_CRASH_AT: the path of a file that need not be there. While it holds
a line "NAME:COUNT", the process that reaches the place of this name for the COUNT-th time takes the file away and
kills itself, so that one order is one death, whoever is started after it. Names, ROLE being that of a lease:

    ROLE.before_commit, ROLE.after_commit            around each batch
    file_writer.before_publish, .after_publish       the growing file gets its name
    file_writer.before_final, .after_final           the final file takes the place of the growing one
    scihub.before_database, .after_database          around the database's own commit; the cursor follows
"""

from __future__ import annotations

import os
import signal
import threading

_ORDERS = os.environ.get("BEC_CRASH_AT")
_mutex = threading.Lock()
_order = ""
_reached = 0


def is_armed() -> bool:
    """Whether this process was started for tests that let it die."""
    return _ORDERS is not None


def reached(name: str) -> None:
    """The place of this name is reached."""
    if _ORDERS is not None:
        _look(_ORDERS, name)


def _look(path: str, name: str) -> None:
    global _order, _reached
    try:
        with open(path, encoding="utf-8") as file:
            order = file.read().strip()
    except OSError:
        return
    wanted, _, count = order.partition(":")
    if wanted != name:
        return
    with _mutex:
        if order != _order:
            _order, _reached = order, 0
        _reached += 1
        if _reached < int(count or 1):
            return
        try:
            os.unlink(path)
        except OSError:
            return  # somebody else was quicker
        os.kill(os.getpid(), signal.SIGKILL)
