"""A service that refuses to start, in the way services do."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> int:
    print("error: the dummy has no wish to work", file=sys.stderr)
    return 1
