"""`python -m bec_client` is `bec`."""

from __future__ import annotations

import sys

from bec_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
