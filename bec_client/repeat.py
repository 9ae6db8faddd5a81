"""`@scan_repeat(max_repeats=2)`: run a function again when a scan in it was restarted or, if wanted, has failed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from bec_client.report import ScanInterruption
from bec_lib.errors import BECError, ParameterError

P = ParamSpec("P")
T = TypeVar("T")

# The outermost function decides: an inner one would multiply the attempts.
_inside: ContextVar[bool] = ContextVar("inside_scan_repeat", default=False)


class ScanRestart(BECError):
    """Raise it in a function under `@scan_repeat` to have the function run again."""


class TooManyScanRestarts(BECError):
    """A function under `@scan_repeat` has failed more often than it may; the cause is its last failure."""


def scan_repeat(
    *,
    max_repeats: int = 1,
    exc_handler: Callable[[Exception, int], bool] | None = None,
    default: bool = False,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Run the decorated function again, up to `max_repeats` times, when it raises ScanRestart.

    exc_handler: is asked about every other exception, with the number of the failure (from 1), whether to run it again;
    default: the answer where there is none. Ctrl-C and a pause end it at once. In a function that is called by another
    one under `@scan_repeat` it does nothing. Raises TooManyScanRestarts when the repeats are used up.
    """
    if max_repeats < 0:
        raise ParameterError(f"max_repeats is a number of repetitions, 0 or more, not {max_repeats}")

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
            if _inside.get():
                return function(*args, **kwargs)
            token = _inside.set(True)
            try:
                return _repeat(lambda: function(*args, **kwargs), max_repeats, exc_handler, default)
            finally:
                _inside.reset(token)

        return repeated

    return decorated


def _repeat(
    call: Callable[[], T],
    max_repeats: int,
    exc_handler: Callable[[Exception, int], bool] | None,
    default: bool,
) -> T:
    failures = 0
    while True:
        try:
            return call()
        except ScanInterruption:
            raise
        except Exception as error:
            failures += 1
            again = isinstance(error, ScanRestart) or (
                default if exc_handler is None else exc_handler(error, failures)
            )
            if not again:
                raise
            if failures > max_repeats:
                raise TooManyScanRestarts(
                    f"it has failed {failures} times, and may be repeated {max_repeats} times; last: {error}"
                ) from error
