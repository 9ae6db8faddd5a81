"""Small estimates for scans that decide as they go: centres of features, and where to look more closely."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bec_lib.errors import ParameterError
from bec_lib.scans.estimate import center_of, main_value, positions_to_refine

X = np.linspace(-1.0, 1.0, 21)


def peak(center: float, sigma: float, x: np.ndarray = X) -> np.ndarray:
    return 10_000 * np.exp(-((x - center) ** 2) / (2 * sigma**2)) + 100


@given(st.floats(-0.5, 0.5), st.floats(0.1, 0.3), st.sampled_from(["gauss", "com"]), st.booleans())
def test_the_centre_of_a_peak_or_dip(center: float, sigma: float, method: str, dip: bool) -> None:
    signal = peak(center, sigma)
    found = center_of(X, -signal if dip else signal, method)
    assert found is not None
    assert abs(found - center) < (0.01 if method == "gauss" else 0.05)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(-0.5, 0.5))
def test_counting_noise_moves_it_little(seed: int, center: float) -> None:
    signal = np.random.default_rng(seed).poisson(peak(center, 0.2) / 20)
    found = center_of(X, signal)
    assert found is not None and abs(found - center) < 0.06


def test_points_in_any_order_and_unevenly_spaced() -> None:
    x = np.concatenate([np.linspace(-1, 1, 9), np.linspace(0.2, 0.5, 13)])
    for method in ("gauss", "com"):
        assert center_of(x, peak(0.3, 0.2, x), method) == pytest.approx(0.3, abs=0.05)


def test_the_highest_point_and_the_middle_of_a_step() -> None:
    assert center_of(X, peak(0.31, 0.2), "max") == pytest.approx(0.3)
    step = 1 / (1 + np.exp(-(X - 0.13) / 0.05))
    assert center_of(X, step, "edge") == pytest.approx(0.13, abs=0.02)
    assert center_of(X, -step, "edge") == pytest.approx(0.13, abs=0.02)


def test_noise_has_no_centre() -> None:
    found = [center_of(X, np.random.default_rng(seed).normal(size=21)) for seed in range(100)]
    assert sum(value is not None for value in found) <= 25
    assert center_of(X, np.ones(21)) is None
    assert center_of([0, 1], [0, 5]) is None


def test_values_that_are_none_are_left_out() -> None:
    signal = peak(0.3, 0.2)
    signal[3] = np.nan
    assert center_of(X, signal) == pytest.approx(0.3, abs=0.01)


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=20, unique=True),
    st.integers(0, 30),
    st.floats(0.001, 0.5),
)
def test_new_points_lie_between_old_ones_within_the_budget(x: list[float], budget: int, least: float) -> None:
    y = [np.sin(3 * value) for value in x]
    found = positions_to_refine(x, y, change=0.1, least=least, at_most=budget)
    assert len(found) <= budget
    assert found == sorted(found)
    for position in found:
        assert min(abs(position - old) for old in x) >= least * (1 - 1e-6)


def test_the_points_go_to_where_the_signal_changes() -> None:
    x = list(np.linspace(-2, 2, 9))
    while found := positions_to_refine(
        x, peak(0.5, 0.1, np.array(x)), change=0.1, least=0.01, at_most=40 - len(x)
    ):
        x += found
    near = sum(abs(value - 0.5) < 0.5 for value in x)
    assert near > 0.6 * len(x)


def test_a_flat_signal_needs_no_points() -> None:
    assert positions_to_refine([0, 1, 2], [5, 5, 5], change=0.1, least=0.01, at_most=10) == []


def test_the_value_out_of_a_reading() -> None:
    reading: dict[str, dict[str, Any]] = {
        "eiger": {"eiger_total": {"value": 7}, "eiger_name": {"value": "x"}},
        "bpm": {"bpm": {"value": 1.5}},
    }
    assert main_value(reading, "bpm") == 1.5
    assert main_value(reading, "eiger") == 7
    with pytest.raises(ParameterError, match="there is eiger_total, eiger_name"):
        main_value(reading, "eiger", "eiger_max")
    with pytest.raises(ParameterError, match="there is nothing"):
        main_value(reading, "diode")
