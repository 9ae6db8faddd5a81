"""What does a point detector count at the present motor positions? A simulated scalar detector.

The expected value is a model of the positions of zero, one or two motors (models.py), if wanted multiplied by the
ring current over its nominal value, and by the exposure time if the detector is triggered; the noise comes last
(noise.py says how it repeats).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ophyd import Component as Cpt
from ophyd import Kind

from device_server.sim.detector import AcquiredSignal, SimDetector
from device_server.sim.lookup import find_device, position_of
from device_server.sim.models import from_lmfit, motors_needed, response
from device_server.sim.noise import Noise, NoiseSequence, noise_named, seed_for
from device_server.sim.signature import with_arguments_of


class SimMonitor(SimDetector):
    """A scalar detector that follows a model of motors.

    model, amplitude, center, sigma, gamma, background, coefficients: see `models.response`.
    motors: the name, or list of names, of the motors that the model follows.
    noise: none, uniform, gaussian or poisson (whole numbers). noise_level: half width or standard deviation, in
        the unit of the value.
    seed: of the noise; without one, made from the device name.
    ring_current: name of a device whose value multiplies the signal, relative to `nominal_current` (same unit).
    sim_init: BEC's form of the above, {"model": lmfit class name, "params": {...}}; it goes before the others.
    """

    USER_ACCESS: tuple[str, ...] = ("readback", "exp_time", "model", "set_model", "sim_state", "egu")

    readback = Cpt(AcquiredSignal, value=0.0, kind=Kind.hinted)

    @with_arguments_of(SimDetector, omit=("sequence",))
    def __init__(
        self,
        name: str,
        *,
        model: str = "constant",
        motors: str | Sequence[str] = (),
        amplitude: float = 1.0,
        center: float | Sequence[float] = 0.0,
        sigma: float | Sequence[float] = 1.0,
        gamma: float | None = None,
        background: float = 0.0,
        coefficients: Sequence[float] = (),
        noise: str | None = "none",
        noise_level: float = 1.0,
        seed: int | None = None,
        ring_current: str | None = None,
        nominal_current: float = 400.0,
        exp_time: float = 0.0,
        egu: str = "counts",
        precision: int = 3,
        sim_init: Mapping[str, Any] | None = None,
        **device: Any,
    ) -> None:
        given: dict[str, Any] = {
            "model": model,
            "motors": motors,
            "amplitude": amplitude,
            "center": center,
            "sigma": sigma,
            "gamma": gamma,
            "background": background,
            "coefficients": coefficients,
            "noise": noise,
            "noise_level": noise_level,
        }
        given.update(from_lmfit(sim_init) if sim_init else {})
        sequence = NoiseSequence(
            noise_named(given.pop("noise")), given.pop("noise_level"), seed_for(name, seed)
        )
        super().__init__(name, sequence=sequence, exp_time=exp_time, **device)
        self.readback.name = self.name
        self.readback._egu, self.readback.precision = egu, precision
        self._ring = ring_current
        self._nominal = float(nominal_current)
        # What is counted is a whole number.
        self._counts = sequence.kind is Noise.POISSON
        if self._counts:
            self.readback._dtype, self.readback.precision = "int", None
        self.set_model(**given)

    @property
    def egu(self) -> str:
        """The unit of the value."""
        return self.readback.egu

    @property
    def model(self) -> dict[str, Any]:
        """The model and its parameters, as `set_model` takes them."""
        return dict(self._model)

    def set_model(self, **parameters: Any) -> None:
        """Change some of: model, motors, amplitude, center, sigma, gamma, background, coefficients.

        Raises ValueError if the result is not a model, and leaves the old one in force.
        """
        merged = {**getattr(self, "_model", {}), **parameters}
        bound = {key: value for key, value in merged.items() if key not in ("model", "motors")}
        motors = merged.get("motors") or ()
        names = (motors,) if isinstance(motors, str) else tuple(motors)
        wanted = motors_needed(merged["model"])
        if len(names) < wanted:
            raise ValueError(
                f"{self.name}: the {merged['model']} model follows {wanted} motor{'s' * (wanted > 1)}, "
                f"but motors names {', '.join(names) or 'none'}."
            )
        self._response = response(merged["model"], **bound)
        self._motors = names[:wanted]
        self._model = merged

    def expected(self, scale: float = 1.0) -> float:
        """The noise-free value at the present positions, times `scale`. Raises DeviceNotFound."""
        at = [position_of(find_device(self.device_manager, motor, self.name)) for motor in self._motors]
        value = self._response(at) * scale
        if self._ring is not None:
            value *= position_of(find_device(self.device_manager, self._ring, self.name)) / self._nominal
        return value

    def acquire(self, scale: float) -> None:
        value = self._noise.around(self.expected(scale))
        self.readback.record(int(value) if self._counts else value)

    def sim_state(self) -> dict[str, Any]:
        """What the simulation knows: model, expected value and noise."""
        return {
            "model": self.model,
            "expected": self.expected(),
            "noise": self._noise.kind.value,
            "noise_level": self._noise.level,
            "seed": self._noise.seed,
            "triggered": self.triggered,
        }
