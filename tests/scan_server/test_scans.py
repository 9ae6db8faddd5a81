"""The built-in scans: what they do with their arguments, and how they refuse those that make no sense."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bec_lib.devices import DeviceConfig
from bec_lib.devices.registry import DeviceRecord, Registry
from bec_lib.errors import BECError, ReasonCode
from bec_lib.messages import DeviceInfoMessage, ScanQueueMessage
from bec_lib.scans import Move, Point, Points, Scan, Sweep, Trajectory
from scan_server.assembler import Assembled, assemble
from scan_server.catalogue import load_catalogue
from scan_server.guard import Rejected, check

CATALOGUE = load_catalogue()
LIMITS = {"samx": [-25.0, 25.0], "samy": [-25.0, 25.0], "samrot": [-180.0, 180.0], "mono": [4.0, 20.0]}


def record(name: str) -> DeviceRecord:
    moves = name in LIMITS or name in ("shutter", "samz")
    config = DeviceConfig(
        deviceClass="a.B",
        enabled=True,
        readoutPriority="baseline" if moves else "monitored",
        readOnly=name == "bpm",
    )
    return DeviceRecord(name, config, DeviceInfoMessage(name=name, limits=LIMITS.get(name), unit="mm"), 2.0)


REGISTRY = Registry({name: record(name) for name in (*LIMITS, "samz", "shutter", "bpm", "eiger", "flyer")})


def asked(name: str, *args: Any, **kwargs: Any) -> Assembled | Rejected:
    """The whole way of a request: guard, then assembler."""
    request = ScanQueueMessage(request_id="r", client_id="c", scan_type=name, args=list(args), kwargs=kwargs)
    return check(request, CATALOGUE.infos, REGISTRY) or assemble(CATALOGUE.classes[name], request, REGISTRY)


def scan(name: str, *args: Any, **kwargs: Any) -> Scan:
    found = asked(name, *args, **kwargs)
    assert isinstance(found, Assembled), found
    return found.scan


def targets(name: str, *args: Any, **kwargs: Any) -> np.ndarray:
    found = scan(name, *args, **kwargs).targets
    assert found is not None
    return found


def played(what: Scan, measure: Callable[[Mapping[str, float]], float] = lambda at: 0.0) -> list[Any]:
    """All steps of a scan whose detector `bpm` measures this."""
    steps: list[Any] = []
    run = what.run()
    result = None
    while True:
        try:
            step = run.send(result)
        except StopIteration:
            return steps
        steps.append(step)
        result = None
        if isinstance(step, Point):
            result = {"bpm": {"bpm": {"value": measure(step.positions), "timestamp": 0.0}}}
        assert len(steps) < 10_000


# SPEC's names


def test_specs_intervals_are_one_fewer_than_points() -> None:
    assert targets("ascan", "samx", -1, 1, 4, 0.1)[:, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert targets("dscan", "samx", -1, 1, 2, 0.1)[:, 0].tolist() == [1, 2, 3]
    assert targets("a2scan", "samx", 0, 1, "samy", 0, 2, 1, 0.1).tolist() == [[0, 0], [1, 2]]
    assert targets("d2scan", "samx", 0, 1, "samy", 0, 2, 1).tolist() == [[2, 2], [3, 4]]
    assert scan("dscan", "samx", -1, 1, 2, 0.1).returns_to_start
    assert not scan("ascan", "samx", -1, 1, 2, 0.1).returns_to_start
    assert scan("ascan", "samx", -1, 1, 4, 0.3).exposure.exp_time == 0.3
    assert scan("mesh", "samx", 0, 1, 1, "samy", 0, 1, 2, 0.3).exposure.exp_time == 0.3


def test_specs_mesh_has_the_first_motor_as_the_fast_one() -> None:
    wanted = [[0, 0], [1, 0], [2, 0], [0, 5], [1, 5], [2, 5]]
    for name in ("mesh", "amesh"):
        made = scan(name, "samx", 0, 2, 2, "samy", 0, 5, 1, 0.1)
        assert made.targets is not None and made.targets.tolist() == wanted
        assert made.shape == [2, 3] and made.motors == ["samx", "samy"]
    assert targets("dmesh", "samx", 0, 2, 2, "samy", 0, 5, 1)[0].tolist() == [2, 2]


def test_counting_without_a_motor() -> None:
    assert played(scan("ct", 0.5)) == [Points(1)] and scan("ct", 0.5).exposure.exp_time == 0.5
    assert scan("loopscan", 7, 0.1, 0.2).num_points == 7
    assert scan("loopscan", 7, 0.1, 0.2).exposure.point_s == pytest.approx(0.3)
    assert scan("timescan").num_points is None


# Areas


def test_areas_are_where_they_were_asked_for() -> None:
    points = targets("fermat_scan", "samx", -5, 5, "samy", 2, 4, step=0.5)
    assert points[0].tolist() == [0, 3]
    shorter = targets("fermat_scan", "samx", -5, 5, "samy", 2, 4, 0.5, optim_trajectory="corridor")
    assert sorted(map(tuple, shorter.tolist())) == sorted(map(tuple, points.tolist()))
    assert targets("spiral_scan", "samx", -1, 1, "samy", -1, 1, 0.2, relative=True)[0].tolist() == [2, 2]
    assert len(targets("round_scan", "samx", "samy", 1, 5, 5, 6)) == 6 * 15
    assert len(targets("round_roi_scan", "samx", -5, 5, "samy", -5, 5, 1, 5)) > 50
    assert len(targets("hexagonal_scan", "samx", -5, 5, 1, "samy", -5, 5, 1)) == 6 * 11 + 5 * 10
    assert len(targets("list_grid_scan", "samx", [1, 2], "samy", [3, 4, 5])) == 6


def test_a_third_motor_makes_layers() -> None:
    points = targets(
        "fermat_scan", "samx", -1, 1, "samy", -1, 1, 0.5, motor3="samz", start_motor3=0, stop_motor3=-1
    )
    assert np.unique(points[:, 2]).tolist() == [-1, -0.5, 0]
    assert len(points) == 3 * len(targets("fermat_scan", "samx", -1, 1, "samy", -1, 1, 0.5))
    # From one layer to the next only the third motor moves.
    (turns,) = np.nonzero(np.diff(points[:, 2]))
    assert all((points[n, :2] == points[n + 1, :2]).all() for n in turns)


def test_regions() -> None:
    regions = [[0, 1, 2], [1, 3, 3]]
    assert targets("multi_region_line_scan", "samx", regions=regions)[:, 0].tolist() == [0, 1, 1, 2, 3]
    grids = [[[0, 1, 2], [0, 1, 2]], [[5, 6, 2], [5, 5, 1]]]
    assert len(targets("multi_region_grid_scan", "samx", "samy", regions=grids)) == 6


# Energies and angles


def test_a_spectrum_exposes_longer_at_high_k() -> None:
    steps = played(
        scan("energy_scan", "mono", 7.112, k_stop=10, k_step=0.5, exp_time=0.5, k_weight=2, max_exp_time=3)
    )
    assert all(isinstance(step, Trajectory) for step in steps)
    times = [step.exposure.exp_time for step in steps]
    assert times[0] == 0.5 and times == sorted(times) and times[-1] == 3
    every = np.concatenate([step.positions for step in steps])
    assert every.tolist() == targets("energy_scan", "mono", 7.112, k_stop=10, k_step=0.5).tolist()
    assert every[0, 0] == pytest.approx(7.112 - 0.150)


def test_a_tomogram_has_darks_flats_and_projections_in_order() -> None:
    made = scan(
        "tomo_scan", "samrot", 0, 90, 4, sample="samx", sample_in=1, sample_out=-20, shutter="shutter",
        flats=2, darks=1, flat_interval=2,
    )  # fmt: skip
    assert made.motors == ["samrot", "samx", "shutter"] and made.returns_to_start
    assert made.targets is not None
    kinds = ["dark" if s == 0 else "flat" if x == -20 else f"{a:g}" for a, x, s in made.targets.tolist()]
    assert kinds == ["dark", "flat", "flat", "0", "30", "flat", "flat", "60", "90", "flat", "flat", "dark"]
    assert targets("tomo_scan", "samrot", 0, 90, 4).tolist() == [[0], [30], [60], [90]]


# Scans that look at what they measure


def measured(at: Mapping[str, float]) -> float:
    return 1000 * math.exp(-((at["samx"] - 0.4) ** 2) / (2 * 0.2**2)) + 10


def test_an_adaptive_scan_keeps_its_budget_and_looks_where_it_matters() -> None:
    made = scan("adaptive_line_scan", "samx", -3, 3, "bpm", points=40)
    assert made.num_points is None and made.detectors == ["bpm"] and made.motors == ["samx"]
    at = [step.positions["samx"] for step in played(made, measured)]
    assert len(at) == len(set(at)) == 40 and min(at) == -3 and max(at) == 3
    assert sum(abs(x - 0.4) < 0.7 for x in at) > 25
    assert at == [step.positions["samx"] for step in played(made, measured)]  # can be replayed


def test_an_adaptive_scan_of_nothing_ends_with_its_first_pass() -> None:
    assert len(played(scan("adaptive_line_scan", "samx", -3, 3, "bpm", first_points=7))) == 7


def test_an_adaptive_scan_respects_its_least_step() -> None:
    steps = played(scan("adaptive_line_scan", "samx", -3, 3, "bpm", points=500, min_step=0.1), measured)
    at = sorted(step.positions["samx"] for step in steps)
    assert len(at) < 100 and min(np.diff(at)) >= 0.1 * (1 - 1e-6)


def test_align_ends_at_the_peak() -> None:
    made = scan("align", "samx", -1, 1, "bpm")
    assert not made.returns_to_start
    steps = played(made, measured)
    assert isinstance(steps[-1], Move)
    assert steps[-1].targets["samx"] == pytest.approx(0.4, abs=1e-3)
    ranges = [step.positions["samx"] for step in steps[:-1]]
    assert all(-1 <= x <= 1 for x in ranges) and len(ranges) <= 4 * 21
    edge = played(
        scan("align", "samx", -1, 1, "bpm", method="edge"), lambda at: math.tanh((at["samx"] - 0.2) / 0.1)
    )
    assert edge[-1].targets["samx"] == pytest.approx(0.2, abs=0.01)


def test_align_goes_back_and_says_so_if_there_is_nothing() -> None:
    run = scan("align", "samx", -1, 1, "bpm", relative=True, steps=5).run()
    step = next(run)
    for _ in range(4):
        step = run.send({"bpm": {"bpm": {"value": 7.0, "timestamp": 0.0}}})
    step = run.send({"bpm": {"bpm": {"value": 7.0, "timestamp": 0.0}}})
    assert step == Move({"samx": 2.0})
    with pytest.raises(BECError, match="bpm shows no feature between 1 and 3 of samx"):
        run.send(None)


# Scans on the way


def test_a_continuous_scan_is_as_slow_as_its_exposures_need() -> None:
    (sweep,) = played(scan("cont_line_scan", "samx", 0, 10, steps=11, exp_time=0.1, relative=True))
    assert isinstance(sweep, Sweep)
    assert list(sweep.marks) == list(range(2, 13))
    assert sweep.velocity == pytest.approx(9) and (sweep.start, sweep.target) == (0, 14)
    assert sweep.tolerance == 0.5
    (free,) = played(scan("cont_line_scan", "samx", 10, 0, 11, offset=0.5))
    assert free.velocity is None and (free.start, free.target) == (10.5, -0.5)


def test_the_run_up_must_be_within_the_limits() -> None:
    refusal = asked("cont_line_scan", "samx", 0, 25, steps=6)
    assert isinstance(refusal, Rejected) and refusal.code is ReasonCode.LIMIT
    assert "samx cannot move to 35 mm: its limits" in refusal.message


def test_a_sweep_reads_at_updates() -> None:
    (sweep,) = played(scan("line_sweep_scan", "samx", 0, 1, 0.1, 0.5))
    assert sweep.on_update and (sweep.min_interval, sweep.max_interval) == (0.1, 0.5)
    assert played(scan("monitor_scan", "samx", 0, 1))[0].on_update
    assert not played(scan("cont_line_fly_scan", "samx", 0, 1))[0].on_update


def test_a_flyer_is_given_its_route() -> None:
    made = scan("round_scan_fly", "flyer", 1, 2, 2, 3, exp_time=0.1)
    (sweep,) = played(made)
    assert len(sweep.kickoff["positions"]) == made.num_points == 9 and sweep.counted
    assert made.motors == [] and made.detectors == ["flyer"]


# Bad arguments


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (("log_scan", "samx", 0, 5), "both ends must be positive"),
        (("fermat_scan", "samx", 1, 1, "samy", 0, 1), "region of samx from 1 to 1 is empty"),
        (("fermat_scan", "samx", 0, 1, "samx", 0, 1), "samx is given twice"),
        (("fermat_scan", "samx", 0, 1, "samy", 0, 1, 0), "greater than 0"),
        (("fermat_scan", "samx", 0, math.nan, "samy", 0, 1), "finite"),
        (("fermat_scan", "samx", -10, 10, "samy", -10, 10, 0.001), "400,000,000 points are too many"),
        (("spiral_scan", "samx", -10, 10, "samy", -10, 10, 1e-300), "too many"),
        (("round_scan", "samx", "samy", 1, 1, 4, 3), "one and the same"),
        (("round_scan", "samx", "samx", 1, 2, 4, 3), "given twice"),
        (("round_scan", "samx", "samy", 1, 2, 10_000, 10_000), "too many"),
        (("round_roi_scan", "samx", 0, 1, "samy", 0, 1, 0, 3), "greater than 0"),
        (("round_roi_scan", "samx", -1, 1, "samy", -1, 1, 5, 3), "no point"),
        (("hexagonal_scan", "samx", 0, 1, 0, "samy", 0, 1, 1), "greater than 0"),
        (("hexagonal_scan", "samx", 0, 0, 1, "samy", 0, 1, 1), "is empty"),
        (("hexagonal_scan", "samx", 0, 25, 1e-3, "samy", 0, 25, 1e-3), "too many"),
        (("multi_region_line_scan", "samx", []), "is empty"),
        (("multi_region_line_scan", "samx", [[0, 1]]), r"region 1 must be \(start, stop, steps\)"),
        (("multi_region_line_scan", "samx", [[0, 1, 5], [1, math.inf, 5]]), "region 2 is not finite"),
        (("multi_region_line_scan", "samx", [[0, 1, 0]]), "at least 1"),
        (("multi_region_line_scan", "samx", [[1, 1, 5]]), "region 1 is empty"),
        (("multi_region_line_scan", "samx", [[0, 1, 10_000_000]]), "10,000,000 points are too many"),
        (("multi_region_grid_scan", "samx", "samy", [[0, 1, 3]]), "must be a pair"),
        (("multi_region_grid_scan", "samx", "samy", [[[0, 1, 3], [0, "a", 3]]]), "region 1 of samy must be"),
        (("ascan", "samx", 0, 1, 10_000_000, 0), "at most"),
        (("ascan", "samx", 0, 1, 0, 0), "at least 1"),
        (("ascan", "samx", 0, 1, 5, -1), "at least 0"),
        (("mesh", "samx", 0, 1, 5000, "samy", 0, 1, 5000), "25,010,001 points are too many"),
        (("adaptive_line_scan", "samx", 1, 1, "bpm"), "is empty"),
        (("adaptive_line_scan", "samx", 0, 99, "bpm"), "samx cannot move to 99 mm: its limits"),
        (("adaptive_line_scan", "samx", 0, 1, "nobody"), "no device 'nobody'"),
        (("align", "samx", 1, 1, "bpm"), "is empty"),
        (("energy_scan", "mono", 7.112, [[5, 5, 1]]), "must rise"),
        (("energy_scan", "mono", 7.112, [[0, 5]]), "region 1 must be"),
        (("energy_scan", "mono", 7.112, [[0, 5, 1e-9]]), "too many"),
        (("tomo_scan", "samrot", 0, 0, 10), "all the same"),
        (("tomo_scan", "samrot", 0, 10, 10, "samx", 1, 1), "same as sample_in"),
        (("tomo_scan", "samrot", 0, 10, 10_000_000), "too many"),
        (("cont_line_scan", "samx", 1, 1, 5), "is empty"),
        (("cont_line_scan", "samx", 0, 1, 1), "at least 2"),
        (("line_sweep_scan", "samx", 0, 1, 2, 1), "less than min_update"),
        (("round_scan_fly", "flyer", 2, 2, 3, 3), "one and the same"),
        (("line_scan", "bpm", 0, 1), "steps"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(call: tuple[Any, ...], words: str) -> None:
    name, *args = call
    begun = time.perf_counter()
    kwargs = {"steps": 5} if name == "log_scan" else {}
    refusal = asked(name, *args, **kwargs)
    assert time.perf_counter() - begun < 0.5
    assert isinstance(refusal, Rejected), refusal
    assert re.search(words, refusal.message), refusal.message
    assert refusal.code is not ReasonCode.INTERNAL


def test_every_scan_has_an_example_that_can_be_run() -> None:
    class Session:
        def __getattr__(self, name: str) -> str:
            return {"mono_energy": "mono", "bpm4i": "bpm"}.get(name, name)

    class Scans:
        def __getattr__(self, name: str) -> Callable[..., None]:
            def call(*args: Any, **kwargs: Any) -> None:
                found = asked(name, *args, **kwargs)
                assert isinstance(found, Assembled), (name, found)
                seen.add(name)

            return call

    seen: set[str] = set()
    for info in CATALOGUE.infos.values():
        lines = [
            line.strip()[4:] for line in info.doc.splitlines() if line.strip().startswith((">>> ", "... "))
        ]
        code = "\n".join(lines)
        # Our own documentation: nothing else is executed here.
        exec(compile(code, info.name, "exec"), {"scans": Scans(), "dev": Session()})
    assert seen == set(CATALOGUE.infos)


def test_every_scan_is_in_the_catalogue_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scan_list.md").read_text(encoding="utf-8")
    assert [name for name in CATALOGUE.infos if f"`{name}`" not in text] == []
