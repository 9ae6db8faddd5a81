"""The one-dimensional models of lmfit, as a table: names and parameters are known without importing it.

A test holds the table against the lmfit that is installed. Left out: Gaussian2dModel (two variables),
ComplexConstantModel (complex), SplineModel and ExpressionModel (not defined without further arguments; an
expression from a client would be code).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_pipeline.models.model import CurveModel

PEAK = ("amplitude", "center", "sigma")

# Class name in lmfit.models -> parameters, sentence.
TABLE: dict[str, tuple[tuple[str, ...], str]] = {
    "BoseModel": (("amplitude", "center", "kt"), "Bose-Einstein distribution."),
    "BreitWignerModel": ((*PEAK, "q"), "Breit-Wigner-Fano line shape."),
    "ConstantModel": (("c",), "A constant, for example a flat background."),
    "DampedHarmonicOscillatorModel": ((*PEAK, "gamma"), "Damped harmonic oscillator."),
    "DampedOscillatorModel": (PEAK, "Amplitude of a damped oscillator."),
    "DoniachModel": ((*PEAK, "gamma"), "Doniach-Sunjic asymmetric line shape."),
    "ExponentialGaussianModel": ((*PEAK, "gamma"), "Gaussian convolved with an exponential."),
    "ExponentialModel": (("amplitude", "decay"), "Exponential decay."),
    "FermiModel": (("amplitude", "center", "kt"), "Fermi-Dirac distribution."),
    "GaussianModel": (PEAK, "Gaussian peak; amplitude is its area, sigma its standard deviation."),
    "LinearModel": (("slope", "intercept"), "A straight line."),
    "LognormalModel": (PEAK, "Log-normal peak."),
    "LorentzianModel": (PEAK, "Lorentzian peak; amplitude is its area, sigma half its width at half height."),
    "MoffatModel": ((*PEAK, "beta"), "Moffat peak."),
    "Pearson4Model": ((*PEAK, "expon", "skew"), "Pearson type IV peak."),
    "Pearson7Model": ((*PEAK, "expon"), "Pearson type VII peak."),
    "PolynomialModel": (tuple(f"c{n}" for n in range(8)), "Polynomial of degree 7."),
    "PowerLawModel": (("amplitude", "exponent"), "Power law."),
    "PseudoVoigtModel": ((*PEAK, "fraction"), "Sum of a Gaussian and a Lorentzian of one width."),
    "QuadraticModel": (("a", "b", "c"), "A parabola."),
    "RectangleModel": (
        ("amplitude", "center1", "sigma1", "center2", "sigma2"),
        "A step up and a step down, with linear edges.",
    ),
    "SkewedGaussianModel": ((*PEAK, "gamma"), "Skewed Gaussian peak."),
    "SkewedVoigtModel": ((*PEAK, "skew"), "Skewed Voigt peak."),
    "SplitLorentzianModel": ((*PEAK, "sigma_r"), "Lorentzian peak of different widths left and right."),
    "StepModel": (PEAK, "A step with a linear edge."),
    "StudentsTModel": (PEAK, "Student's t distribution."),
    "ThermalDistributionModel": (("amplitude", "center", "kt"), "Thermal (Bose-Einstein) distribution."),
    "VoigtModel": (PEAK, "Voigt peak, Gaussian and Lorentzian of one sigma."),
}
BACKGROUNDS = frozenset({"ConstantModel", "LinearModel", "QuadraticModel", "PolynomialModel"})


def _builder(name: str) -> Callable[[str], Any]:
    def build(prefix: str) -> Any:
        import lmfit.models

        return getattr(lmfit.models, name)(prefix=prefix)

    return build


LMFIT_MODELS = [
    CurveModel(name, parameters, doc, _builder(name), is_background=name in BACKGROUNDS)
    for name, (parameters, doc) in TABLE.items()
]
