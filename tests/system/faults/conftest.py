"""One fleet that may be harmed, for all fault tests; its plugin has scans with faults of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.stage import Stage

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(scope="package")
def stage() -> Iterator[Stage]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGINS), *filter(None, [before])])
    made = Stage(hurry=True)
    try:
        yield made.start()
        problems = made.wait_until_well() + made.judge_all()
    finally:
        problems_of_end = made.stop()
        if before is None:
            os.environ.pop("PYTHONPATH")
        else:
            os.environ["PYTHONPATH"] = before
    assert problems + problems_of_end == []
