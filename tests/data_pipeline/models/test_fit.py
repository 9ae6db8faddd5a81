"""Fits recover what the data were made of, and say in words what cannot be fitted."""

import lmfit.models
import numpy as np
import pytest

from bec_lib.errors import ParameterError
from data_pipeline.models import MODELS
from data_pipeline.models.catalogue import TABLE
from data_pipeline.models.fit import MAX_CURVE_POINTS, fit, prefixes
from data_pipeline.models.model import choose

CATALOGUE = {model.name: model for model in MODELS}
X = np.linspace(-3, 5, 81)
NOT_OFFERED = {"Gaussian2dModel", "ComplexConstantModel", "SplineModel", "ExpressionModel"}


def do(names, x, y, **options):
    return fit(choose(CATALOGUE, names), np.asarray(x, float), np.asarray(y, float), **options)


def gaussian(x, height, center, sigma):
    return height * np.exp(-((x - center) ** 2) / 2 / sigma**2)


def test_the_table_is_that_of_the_installed_lmfit():
    there = {cls.__name__: cls for cls in lmfit.models.lmfit_models.values()}
    assert set(there) == set(TABLE) | NOT_OFFERED
    for name, (parameters, _) in TABLE.items():
        model = there[name]()
        assert tuple(model.param_names) == parameters, name
        assert model.independent_vars[0] == "x", name


# Parameters which make a curve that can be told from others; the fit gets the curve and must find them.
TRUE = {
    "BreitWignerModel": {"amplitude": 3, "center": 1, "sigma": 1, "q": 2},
    "ConstantModel": {"c": 7},
    "DampedOscillatorModel": {"amplitude": 2, "center": 2, "sigma": 0.2},
    "DampedHarmonicOscillatorModel": {"amplitude": 2, "center": 2, "sigma": 0.5, "gamma": 0.7},
    "DoniachModel": {"amplitude": 5, "center": 1, "sigma": 0.5, "gamma": 0.1},
    "ExponentialModel": {"amplitude": 5, "decay": 3},
    "FermiModel": {"amplitude": 5, "center": 1, "kt": 0.5},
    "GaussianModel": {"amplitude": 5, "center": 1, "sigma": 0.5},
    "LinearModel": {"slope": 2, "intercept": -1},
    "LorentzianModel": {"amplitude": 5, "center": 1, "sigma": 0.5},
    "MoffatModel": {"amplitude": 5, "center": 1, "sigma": 0.8, "beta": 1.5},
    "PseudoVoigtModel": {"amplitude": 5, "center": 1, "sigma": 0.5, "fraction": 0.4},
    "QuadraticModel": {"a": 1, "b": -2, "c": 3},
    "SplitLorentzianModel": {"amplitude": 5, "center": 1, "sigma": 0.4, "sigma_r": 0.8},
    "StepModel": {"amplitude": 5, "center": 1, "sigma": 1},
    "VoigtModel": {"amplitude": 5, "center": 1, "sigma": 0.5},
}


@pytest.mark.parametrize("name", sorted(TRUE))
def test_a_model_finds_its_own_parameters(name):
    model = getattr(lmfit.models, name)()
    y = np.real(model.eval(model.make_params(**TRUE[name]), x=X))
    outcome = do([name], X, y + np.random.default_rng(3).normal(0, 1e-3, len(X)))
    for parameter, value in TRUE[name].items():
        assert outcome.params[parameter] == pytest.approx(value, rel=0.05, abs=0.02), parameter
    assert outcome.r_squared is None or outcome.r_squared > 0.99 or name == "ConstantModel"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("background", ["ConstantModel", "LinearModel"])
def test_a_peak_with_counting_noise_on_a_background_is_found(seed, background):
    rng = np.random.default_rng(seed)
    center, sigma = rng.uniform(-2, 4), rng.uniform(0.25, 0.8)
    y = rng.poisson(
        gaussian(X, 400, center, sigma) + 60 + (5 * (X + 3) if background == "LinearModel" else 0)
    )
    outcome = do(["GaussianModel", background], X, y)
    assert outcome.success
    assert abs(outcome.params["center"] - center) < 5 * outcome.errors["center"] < 0.25
    assert outcome.params["sigma"] == pytest.approx(sigma, rel=0.25)


def test_a_dip_is_found_as_well():
    y = 500 - gaussian(X, 300, 2.2, 0.4)
    outcome = do(["GaussianModel", "ConstantModel"], X, y)
    assert outcome.params["center"] == pytest.approx(2.2, abs=1e-3)
    assert outcome.params["amplitude"] < 0 and outcome.params["c"] == pytest.approx(500, rel=1e-3)


def test_a_gaussian_alone_is_fitted_as_asked_and_its_centre_is_still_good_for_a_centred_peak():
    y = np.random.default_rng(1).poisson(gaussian(X, 1000, 1.1, 0.4) + 30)
    assert do(["GaussianModel"], X, y).params["center"] == pytest.approx(1.1, abs=0.1)
    assert set(do(["GaussianModel"], X, y).params) == {"amplitude", "center", "sigma", "fwhm", "height"}


def test_two_peaks_have_parameters_of_their_own():
    y = gaussian(X, 500, -1, 0.3) + gaussian(X, 300, 3, 0.5) + 20
    outcome = do(["GaussianModel", "GaussianModel", "ConstantModel"], X, y)
    centers = sorted([outcome.params["m1_center"], outcome.params["m2_center"]])
    assert centers == pytest.approx([-1, 3], abs=0.01)
    assert outcome.params["c"] == pytest.approx(20, rel=0.01)
    assert outcome.models == ["GaussianModel", "GaussianModel", "ConstantModel"]


def test_only_models_that_share_names_are_prefixed():
    names = ["GaussianModel", "LinearModel", "LorentzianModel"]
    assert prefixes(choose(CATALOGUE, names)) == ["m1_", "", "m3_"]


def test_order_gaps_and_what_is_no_number_do_not_matter():
    y = gaussian(X, 100, 1, 0.5)
    shuffled = np.random.default_rng(0).permutation(len(X))
    x2, y2 = np.append(X[shuffled], [np.nan, 1.0]), np.append(y[shuffled], [5.0, np.inf])
    outcome = do(["GaussianModel"], x2, y2)
    assert outcome.num_points == len(X)
    assert outcome.params["center"] == pytest.approx(1, abs=1e-6)


def test_the_range_limits_the_points_and_the_curve():
    y = gaussian(X, 100, 0, 0.4) + gaussian(X, 500, 4, 0.4)
    outcome = do(["GaussianModel"], X, y, x_min=-2, x_max=2)
    assert outcome.params["center"] == pytest.approx(0, abs=0.01)
    assert -2 <= outcome.curve_x[0] and outcome.curve_x[-1] <= 2 and outcome.num_points == 41


def test_start_values_bounds_fixed_and_tied_parameters():
    y = gaussian(X, 500, -1, 0.3) + gaussian(X, 250, 3, 0.3)
    outcome = do(
        ["GaussianModel", "GaussianModel"],
        X,
        y,
        parameters={
            "m1_center": {"value": -1, "vary": False},
            "m1_sigma": {"min": 0.1, "max": 0.2},
            "m2_center": {"expr": "m1_center + 4"},
        },
    )
    assert outcome.params["m1_center"] == -1 and outcome.errors["m1_center"] in (None, 0.0)
    assert outcome.params["m2_center"] == pytest.approx(3)
    assert 0.1 <= outcome.params["m1_sigma"] <= 0.2


def test_with_all_parameters_fixed_the_curve_is_calculated():
    outcome = do(["ConstantModel"], [0, 1], [1, 3], parameters={"c": {"value": 2, "vary": False}})
    assert outcome.success and outcome.params == {"c": 2} and outcome.chi_square == 2
    assert "not fitted" in outcome.message


def test_the_curve_is_fine_and_fits_into_a_message():
    x = np.linspace(0, 1, 50_000)
    assert len(do(["LinearModel"], x, x).curve_x) == MAX_CURVE_POINTS
    curve = do(["ConstantModel"], [0, 1, 2], [1, 1, 1])
    assert len(curve.curve_x) == len(curve.curve_y) == 500 and curve.curve_y.nbytes < 65_536


@pytest.mark.parametrize("y", [np.zeros(81), np.full(81, 1e300), np.full(81, np.nan), X * 1e-300])
@pytest.mark.parametrize(
    "name", ["GaussianModel", "StepModel", "PowerLawModel", "VoigtModel", "RectangleModel"]
)
def test_hopeless_data_give_a_result_or_words_and_no_accident(name, y):
    try:
        outcome = do([name], X, y)
    except ParameterError as error:
        assert "there are 0 points" in error.message or "there are no points" in error.message
    else:
        assert outcome.success or outcome.message


@pytest.mark.parametrize(
    "names, options, words",
    [
        (["GaussianModel"], {}, "3 free parameters and there are 2 points; at least 3"),
        (["GaussianModel"], {"x_min": 5.0}, "no points between 5 and the end"),
        (["GaussianModel"], {"parameters": {"centre": {}}}, "no parameter 'centre'; did you mean center"),
        (["ConstantModel"], {"parameters": {"c": {"valu": 1}}}, "settings of c can be"),
        (["ConstantModel"], {"parameters": {"c": {"value": "1"}}}, "c.value must be a number"),
        (["ConstantModel"], {"parameters": {"c": {"value": True}}}, "c.value must be a number"),
        (["ConstantModel"], {"parameters": {"c": {"min": 2, "max": 1}}}, "min 2 is not below max 1"),
        (["ConstantModel"], {"parameters": {"c": {"vary": 1}}}, "c.vary must be true or false"),
        (["LinearModel"], {"parameters": {"slope": {"expr": "intercept.real"}}}, "is not arithmetic"),
        (["StatisticsModel"], {"parameters": {"center": {}}}, "takes no parameters"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_words(names, options, words):
    with pytest.raises(ParameterError, match=words):
        do(names, [0, 1], [1, 2], **options)


def test_all_problems_are_named_at_once():
    with pytest.raises(ParameterError, match=r"'a'.*'b'"):
        do(["ConstantModel"], [0], [0], parameters={"a": {}, "b": {}})
