"""What does a detector see for given motor positions? The response models, as pure functions of positions.

`response(name, ...)` gives a function of a tuple of positions. Amplitudes are heights above the background, in the
unit of the signal (for a counting detector: counts per second); centers and widths are in the unit of the motor.
lmfit's peaks are given by their area instead: `from_lmfit` translates the model names and parameters that BEC's
`sim_init` uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Response = Callable[[Sequence[float]], float]

MODELS = ("constant", "polynomial", "gaussian", "lorentzian", "voigt", "edge", "gaussian2d")


def motors_needed(name: str) -> int:
    """How many motors the model follows: 0, 1 or 2. Raises ValueError for an unknown model."""
    _known(name)
    return {"constant": 0, "gaussian2d": 2}.get(name, 1)


def response(
    name: str,
    *,
    amplitude: float = 1.0,
    center: float | Sequence[float] = 0.0,
    sigma: float | Sequence[float] = 1.0,
    gamma: float | None = None,
    background: float = 0.0,
    coefficients: Sequence[float] = (),
) -> Response:
    """The model of that name with its parameters bound.

    constant      background + amplitude
    polynomial    coefficients[0] + coefficients[1] x + ... (background and amplitude do not matter)
    gaussian      sigma: standard deviation
    lorentzian    sigma: half width at half maximum
    voigt         sigma: standard deviation of the Gaussian, gamma: half width of the Lorentzian (default: sigma);
                  approximated within 1 % by P. Thompson et al., J. Appl. Cryst. 20 (1987) 79
    edge          error function of width sigma (standard deviation of its derivative), rising from background to
                  background + amplitude; a negative sigma gives a falling edge
    gaussian2d    center and sigma are pairs, one per motor (a single number counts for both)

    Raises ValueError for an unknown model, a width of zero or a pair where one number is wanted.
    """
    _known(name)
    if name == "constant":
        level = float(background + amplitude)
        return lambda at: level
    if name == "polynomial":
        descending = [float(c) for c in reversed(coefficients)]
        return lambda at: _horner(descending, at[0])
    if name == "gaussian2d":
        return _gaussian2d(float(amplitude), _pair(center), _pair(sigma), float(background))
    middle, width = _number("center", center), _number("sigma", sigma)
    if width == 0 or (width < 0 and name != "edge"):
        raise ValueError(f"sigma of the {name} model must be positive, not {width:g}")
    height, floor = float(amplitude), float(background)
    if name == "gaussian":
        return lambda at: floor + height * math.exp(-0.5 * ((at[0] - middle) / width) ** 2)
    if name == "lorentzian":
        return lambda at: floor + height / (1.0 + ((at[0] - middle) / width) ** 2)
    if name == "edge":
        scale = math.sqrt(2.0) * width
        return lambda at: floor + 0.5 * height * (1.0 + math.erf((at[0] - middle) / scale))
    return _voigt(height, middle, width, width if gamma is None else float(gamma), floor)


def from_lmfit(sim_init: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `SimMonitor` that mean the same as BEC's `sim_init`.

    sim_init: {"model": an lmfit model class name, "params": {...}}; of the parameters those of lmfit's model count
    (amplitude is an area and becomes a height) and BEC's `ref_motor`, `noise` and `noise_multiplier`.
    Raises ValueError for a model that has no counterpart here.
    """
    model_name = str(sim_init.get("model", "GaussianModel"))
    params = dict(sim_init.get("params") or {})
    model = LMFIT_MODELS.get(model_name)
    if model is None:
        raise ValueError(f"unknown model {model_name!r} in sim_init: choose one of {', '.join(LMFIT_MODELS)}")
    amplitude = float(params.get("amplitude", 1.0))
    sigma = float(params.get("sigma", 1.0))
    gamma = float(params.get("gamma", sigma))
    arguments: dict[str, Any] = {"model": model, "sigma": sigma, "center": float(params.get("center", 0.0))}
    if model == "gaussian":
        arguments["amplitude"] = amplitude / (sigma * math.sqrt(2.0 * math.pi))
    elif model == "lorentzian":
        arguments["amplitude"] = amplitude / (sigma * math.pi)
    elif model == "voigt":
        half_width, eta = _voigt_width(sigma, gamma)
        area = half_width * (eta * math.pi + (1.0 - eta) * math.sqrt(math.pi / math.log(2.0)))
        arguments.update(amplitude=amplitude / area, gamma=gamma)
    elif model == "constant":
        arguments["amplitude"] = float(params.get("c", amplitude))
    elif model == "polynomial":
        arguments["coefficients"] = _lmfit_coefficients(model_name, params)
    else:
        arguments["amplitude"] = amplitude
    for theirs, ours in (("ref_motor", "motors"), ("noise", "noise"), ("noise_multiplier", "noise_level")):
        if params.get(theirs) is not None:
            arguments[ours] = params[theirs]
    return arguments


LMFIT_MODELS: dict[str, str] = {
    "ConstantModel": "constant",
    "LinearModel": "polynomial",
    "QuadraticModel": "polynomial",
    "PolynomialModel": "polynomial",
    "GaussianModel": "gaussian",
    "LorentzianModel": "lorentzian",
    "VoigtModel": "voigt",
    "StepModel": "edge",
}


def _known(name: str) -> None:
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")


def _number(what: str, value: float | Sequence[float]) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    if len(value) == 1:
        return float(value[0])
    raise ValueError(f"{what} must be one number for a model of one motor, not {list(value)}")


def _pair(value: float | Sequence[float]) -> tuple[float, float]:
    if isinstance(value, (int, float)):
        return float(value), float(value)
    first, second = value
    return float(first), float(second)


def _horner(descending: Sequence[float], x: float) -> float:
    total = 0.0
    for coefficient in descending:
        total = total * x + coefficient
    return total


def _gaussian2d(
    height: float, center: tuple[float, float], sigma: tuple[float, float], floor: float
) -> Response:
    if not (sigma[0] > 0 and sigma[1] > 0):
        raise ValueError(f"sigma of the gaussian2d model must be positive, not {list(sigma)}")
    (x0, y0), (sx, sy) = center, sigma
    return lambda at: floor + height * math.exp(-0.5 * (((at[0] - x0) / sx) ** 2 + ((at[1] - y0) / sy) ** 2))


def _voigt(height: float, middle: float, sigma: float, gamma: float, floor: float) -> Response:
    if gamma < 0:
        raise ValueError(f"gamma of the voigt model must not be negative, not {gamma:g}")
    half_width, eta = _voigt_width(sigma, gamma)
    decay = math.log(2.0)

    def value(at: Sequence[float]) -> float:
        square = ((at[0] - middle) / half_width) ** 2
        return floor + height * (eta / (1.0 + square) + (1.0 - eta) * math.exp(-decay * square))

    return value


def _voigt_width(sigma: float, gamma: float) -> tuple[float, float]:
    """Half width at half maximum, and the Lorentzian share, of the pseudo-Voigt curve (Thompson et al. 1987)."""
    gauss = 2.0 * math.sqrt(2.0 * math.log(2.0)) * sigma
    lorentz = 2.0 * gamma
    powers = (1.0, 2.69269, 2.42843, 4.47163, 0.07842, 1.0)
    full = sum(c * gauss ** (5 - n) * lorentz**n for n, c in enumerate(powers)) ** 0.2
    ratio = lorentz / full
    return 0.5 * full, 1.36603 * ratio - 0.47719 * ratio**2 + 0.11116 * ratio**3


def _lmfit_coefficients(model_name: str, params: Mapping[str, Any]) -> list[float]:
    names = {"LinearModel": ("intercept", "slope"), "QuadraticModel": ("c", "b", "a")}.get(
        model_name, tuple(f"c{n}" for n in range(8))
    )
    return [float(params.get(name, 0.0)) for name in names]
