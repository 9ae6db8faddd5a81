"""One fleet that may be harmed, for all fault tests; its plugin has scans with faults of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bec_lib.errors import BECError
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


@pytest.fixture(autouse=True)
def nothing_left_in_the_queue(stage: Stage) -> Iterator[None]:
    """A test that fails leaves its scan to no other."""
    yield
    queue = stage.client.queue
    if any(snapshot.items for snapshot in queue.status.values()):
        for name in list(queue.status):
            # It may have come to its end by itself meanwhile.
            with contextlib.suppress(BECError):
                queue.request_queue_reset(queue=name)
