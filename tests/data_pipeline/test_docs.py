"""The examples of docs/data_pipeline.md work."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bec_lib.plugins import Plugin
from data_pipeline.models.fit import fit
from data_pipeline.models.model import choose, collect

PAGE = (Path(__file__).parents[2] / "docs" / "data_pipeline.md").read_text()
CONFIG, PLUGIN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(code):
    names = {}
    exec(compile(code, "docs/data_pipeline.md", "exec"), names)
    return SimpleNamespace(**names)


def test_the_example_of_a_plugin_fits():
    catalogue, failed = collect([Plugin("mine", run(PLUGIN), "docs")])
    assert failed == {}
    x = np.linspace(-3, 3, 61)
    y = 5 * (np.tanh((x + 1.2) / 0.2) - np.tanh((x - 0.8) / 0.2)) + np.random.default_rng(1).normal(
        0, 0.1, 61
    )
    outcome = fit(choose(catalogue, ["DoubleStepModel"]), x, y)
    assert outcome.params["left"] == pytest.approx(-1.2, abs=0.05)
    assert outcome.params["right"] == pytest.approx(0.8, abs=0.05)
    flat = np.random.default_rng(1).normal(0, 0.1, 61)
    noise = fit(choose(catalogue, ["NoiseModel"]), x, flat).params["noise"]
    assert noise == pytest.approx(0.1, rel=0.3)


def test_the_example_of_automatic_fits_is_a_message():
    assert run(CONFIG).settings.enabled
