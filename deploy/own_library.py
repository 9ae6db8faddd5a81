"""Is the `bec_lib` that Python finds the one that belongs to this installation?

Another distribution installs a package of the same name. Whichever was installed last wins, in silence, and
everything fails later in strange ways; so every command asks here first. Imports nothing but the standard
library.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PRODUCT = "bec-beamline-experiment-control"


def require_own_library() -> None:
    """Exit with 1 and one sentence that says how to mend it, if a foreign `bec_lib` shadows ours."""
    spec = importlib.util.find_spec("bec_lib")
    origin = Path(spec.origin) if spec and spec.origin else None
    if origin is not None and PRODUCT in origin.read_text(encoding="utf-8", errors="replace"):
        return
    print(
        f"error: the bec_lib in {origin.parent if origin else 'this environment'} belongs to another distribution "
        "and hides ours. Mend it with `pip uninstall bec_lib` and then install this package again "
        "(`pip install --force-reinstall --no-deps bec`), or use a fresh environment.",
        file=sys.stderr,
    )
    raise SystemExit(1)
