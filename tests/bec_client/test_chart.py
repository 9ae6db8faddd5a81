"""Diagrams in characters."""

from __future__ import annotations

import numpy as np
import pytest

from bec_client.chart import POINT, line_chart, map_chart, ticks


@pytest.mark.parametrize(
    ("low", "high", "about", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (-1, 1, 4, [-1, -0.5, 0, 0.5, 1]),
        (0.37, 0.41, 4, [0.37, 0.38, 0.39, 0.4, 0.41]),
        (3, 3, 4, [3]),
    ],
)
def test_ticks_are_round(low: float, high: float, about: int, expected: list[float]) -> None:
    assert ticks(low, high, about) == pytest.approx(expected)


def test_every_point_has_its_place() -> None:
    x = np.arange(5.0)
    lines = line_chart(x, x, width=40, height=15, x_label="samx [mm]", y_label="bpm4i")
    drawn = [line for line in lines if POINT in line]
    columns = [line.index(POINT) for line in drawn]
    assert len(drawn) == 5
    assert columns == sorted(columns, reverse=True), "it rises from left to right"
    assert max(len(line) for line in lines) <= 40
    assert "samx [mm]" in lines[-1]


def test_a_curve_is_drawn_below_the_points() -> None:
    x = np.linspace(-1, 1, 50)
    lines = line_chart(np.array([0.0]), np.array([1.0]), curve=(x, 1 - x**2), width=60, height=20)
    text = "".join(lines)
    assert text.count(POINT) == 1
    assert sum(0x2800 < ord(c) < 0x2900 for c in text) > 30


def test_nothing_finite_is_said() -> None:
    assert line_chart(np.array([1.0]), np.array([np.nan]), title="Scan 1") == ["Scan 1: no points to draw"]


def test_constant_values_have_an_axis() -> None:
    lines = line_chart(np.array([1.0, 1.0]), np.array([5.0, 5.0]), width=40, height=12)
    assert sum(line.count(POINT) for line in lines) == 1


def test_a_map_grows_upwards_and_shows_what_is_missing() -> None:
    grid = np.array([[0.0, 1.0], [np.nan, 4.0]])
    lines = map_chart(
        np.array([0.0, 1.0]), np.array([10.0, 20.0]), grid, width=40, height=12, z_label="bpm4i"
    )
    rows = [line for line in lines if "┤" in line]
    assert rows[0].split("┤")[0].strip() == "20"
    assert "··" in rows[0]
    assert "██" in rows[0]
    assert "'█' 4" in lines[-1]


def test_a_map_of_many_points_fits() -> None:
    lines = map_chart(
        np.arange(500.0), np.arange(400.0), np.random.default_rng(1).random((400, 500)), width=80, height=30
    )
    assert max(len(line) for line in lines) <= 80
    assert len(lines) <= 32
