"""Real fleets for the system tests: one for all that disturb nobody, and new ones for those that kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.temporary import TemporaryFleet
from tests.system.processes import processes_of

ROOT = Path(__file__).parents[2]
DUMMIES = Path(__file__).parent / "dummies"
DEMO_DEVICES = ROOT / "deploy" / "configs" / "demo.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def fleet() -> Iterator[TemporaryFleet]:
    """A fleet of all services with the demo's devices, shared by the whole session: leave it as you found it."""
    from bec_client import BECClient

    with TemporaryFleet(prefix="bec-test") as running:
        with BECClient(running.config) as client:
            assert not client.config.update_session_with_file(DEMO_DEVICES).failed
        yield running


@pytest.fixture
def bec(fleet: TemporaryFleet) -> Iterator[Any]:
    """A client of the shared fleet."""
    from bec_client import BECClient

    with BECClient(fleet.config) as client:
        client.live_updates.enabled = False
        yield client


@pytest.fixture
def new_fleet() -> Iterator[Callable[..., TemporaryFleet]]:
    """Makes fleets that a test may kill; not yet started. Whatever is left of them is ended after the test."""
    made: list[TemporaryFleet] = []

    def make(**options: Any) -> TemporaryFleet:
        made.append(TemporaryFleet(prefix="bec-test", **options))
        return made[-1]

    yield make
    for each in made:
        each.stop()
        for pid in processes_of(each):
            os.kill(pid, signal.SIGKILL)
        each.remove()


@pytest.fixture
def dummies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The supervisor's arguments for three services that do nothing, in two waves."""
    monkeypatch.setenv("PYTHONPATH", str(DUMMIES))
    return [word for role in ("a=quiet:1", "b=quiet:1", "c=quiet:0") for word in ("--service", role)]
