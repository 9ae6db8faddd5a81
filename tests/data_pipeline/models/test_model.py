"""Models by name, and from plugins."""

from types import SimpleNamespace

import pytest

from bec_lib.errors import ParameterError
from bec_lib.plugins import MODELS as GROUP
from bec_lib.plugins import Plugin, load_plugins
from data_pipeline import models
from data_pipeline.models.model import Analysis, CurveModel, choose, collect

MINE = CurveModel("MyModel", ("a",), "Mine.", build=lambda prefix: None)


def test_our_own_models_come_through_the_entry_point():
    found, failed = collect(load_plugins(GROUP)[0])
    assert failed == {}
    assert {model.name for model in models.MODELS} == set(found)


def test_a_plugin_is_a_module_with_models_or_a_model():
    found, failed = collect(
        [
            Plugin("module", SimpleNamespace(MODELS=[MINE]), "x"),
            Plugin("one", Analysis("Other", (), "", lambda x, y: {}), "x"),
        ]
    )
    assert set(found) == {"MyModel", "Other"} and failed == {}


def test_a_plugin_without_models_or_with_a_taken_name_is_named():
    again = CurveModel("MyModel", (), "", build=lambda prefix: None)
    found, failed = collect(
        [Plugin("a", [MINE], "x"), Plugin("b", [again], "pkg (b)"), Plugin("c", SimpleNamespace(), "pkg (c)")]
    )
    assert found == {"MyModel": MINE}
    assert "second MyModel" in failed["b"] and "no list MODELS" in failed["c"]


@pytest.mark.parametrize(
    "names, words",
    [
        (["Gaussian"], "did you mean GaussianModel"),
        (["gaussianmodel"], "did you mean GaussianModel"),
        (["GausianModel"], "did you mean GaussianModel"),
        (["zzz", "yyy"], "'zzz'.*'yyy'"),
        ([], "at least one model"),
        (["StatisticsModel", "GaussianModel"], "cannot be added"),
    ],
)
def test_an_unknown_model_is_refused_with_what_may_be_meant(names, words):
    with pytest.raises(ParameterError, match=words):
        choose({model.name: model for model in models.MODELS}, names)
