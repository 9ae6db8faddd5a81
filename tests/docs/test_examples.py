"""Every example of the documentation is a file, and does what the documentation says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bec_lib.devices.config import load_device_file
from bec_lib.plugins import classes_in
from bec_lib.scans import Move, Point, Scan, describe_scan
from bec_lib.scans.signature import bind, problems_of_call
from bec_lib.service import load_service_config

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scans() -> dict[str, type[Scan]]:
    return {kind.scan_name: kind for kind in classes_in(load("zigzag_scan"), Scan) if kind.scan_name}  # type: ignore[attr-defined]


def test_the_example_scans_are_offered(scans: dict[str, type[Scan]]) -> None:
    assert {"zigzag_scan", "find_edge"} <= set(scans)


def test_the_zigzag_turns_round_after_each_sweep(scans: dict[str, type[Scan]]) -> None:
    kind = scans["zigzag_scan"]
    info = describe_scan(kind)
    args, kwargs = ["samx", -1, 1, "samy", 0, 2], {"sweeps": 2, "points_per_sweep": 3}
    assert problems_of_call(info, args, kwargs, {"samx", "samy"}) == []
    positions = kind(bind(info, args, kwargs), {}).positions()
    expected = [[-1, 0], [0, 0], [1, 0], [1, 2], [0, 2], [-1, 2]]
    assert np.allclose(positions, expected)  # type: ignore[arg-type]


def test_the_edge_is_found_to_its_precision(scans: dict[str, type[Scan]]) -> None:
    kind = scans["find_edge"]
    info = describe_scan(kind)
    kwargs = {"detector": "diode", "threshold": 500.0, "precision": 0.01}
    scan = kind(bind(info, ["samx", -1, 1], kwargs), {})
    steps = scan.run()
    step = next(steps)
    points = 0
    while isinstance(step, Point):
        points += 1
        value = 1000.0 if step.positions["samx"] > 0.3 else 0.0
        step = steps.send({"diode": {"diode": {"value": value, "timestamp": 0.0}}})
    assert isinstance(step, Move)
    assert step.targets["samx"] == pytest.approx(0.3, abs=0.01)
    assert points == 8


def test_the_example_devices_are_a_valid_file() -> None:
    devices = load_device_file(EXAMPLES / "beamline.yaml")
    assert {"samx", "diode"} <= set(devices)


def test_the_sample_service_configuration_is_valid() -> None:
    load_service_config(DOCS.parent / "deploy" / "services.yaml", {})


def test_no_link_of_the_documentation_leads_nowhere() -> None:
    import re

    broken = []
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(DOCS.parent)} -> {target}")
    assert broken == []
