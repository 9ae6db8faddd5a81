"""What is read off a curve without a fit."""

import numpy as np
import pytest

from data_pipeline.models.statistics import PARAMETERS, analyse


def test_a_triangle():
    x = np.array([0.0, 1, 2, 3, 4, 5, 6])
    y = np.array([10.0, 10, 20, 30, 20, 10, 10])
    found = analyse(x, y)
    assert set(found) == set(PARAMETERS)
    assert found["center"] == found["center_of_mass"] == found["peak_position"] == 3
    assert found["fwhm"] == 2
    assert (found["maximum"], found["minimum"], found["minimum_position"]) == (30, 10, 0)


def test_a_skewed_peak_has_its_centre_of_mass_elsewhere():
    x = np.arange(5.0)
    found = analyse(x, np.array([0.0, 4, 2, 1, 0]))
    assert found["peak_position"] == 1
    assert found["center_of_mass"] == pytest.approx((4 + 4 + 3) / 7)
    assert found["fwhm"] == pytest.approx(1.5)


def test_an_edge_has_no_width():
    found = analyse(np.arange(4.0), np.array([0.0, 1, 2, 2]))
    assert "fwhm" not in found and "center" not in found


@pytest.mark.parametrize("n", [1, 5])
def test_a_flat_curve_has_its_centre_in_the_middle(n):
    found = analyse(np.arange(float(n)), np.ones(n))
    assert found["center_of_mass"] == (n - 1) / 2 and "fwhm" not in found
