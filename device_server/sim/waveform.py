"""What does a digitiser record? A simulated one-dimensional signal: a decaying oscillation with noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from ophyd import Component as Cpt
from ophyd import Kind

from device_server.sim.detector import AcquiredSignal, SimDetector
from device_server.sim.lookup import find_device, position_of
from device_server.sim.noise import Noise, NoiseSequence, seed_for
from device_server.sim.signature import with_arguments_of


class SimWaveform(SimDetector):
    """A waveform of `samples` float64 values, read as one array under the device's own name.

    samples: length, > 0. amplitude: height of the first swing. periods: oscillations within the record.
    decay: record length over decay time. noise_level: standard deviation of each sample. All in `egu` or without unit.
    motor: name of a motor whose position, in its own unit, shifts the phase by one radian per unit; none if absent.
    """

    USER_ACCESS: tuple[str, ...] = ("waveform", "exp_time", "sim_state")

    waveform = Cpt(AcquiredSignal, value=np.zeros(1), kind=Kind.hinted)

    @with_arguments_of(SimDetector, omit=("sequence",))
    def __init__(
        self,
        name: str,
        *,
        samples: int = 1000,
        amplitude: float = 1.0,
        periods: float = 5.0,
        decay: float = 3.0,
        noise_level: float = 0.02,
        motor: str | None = None,
        seed: int | None = None,
        exp_time: float = 0.0,
        egu: str = "V",
        **device: Any,
    ) -> None:
        if samples < 1:
            raise ValueError(f"samples of {name} must be at least 1, not {samples}.")
        sequence = NoiseSequence(Noise.GAUSSIAN, noise_level, seed_for(name, seed))
        super().__init__(name, sequence=sequence, exp_time=exp_time, **device)
        self.waveform.name = self.name
        self.waveform._egu = egu
        self.waveform.record(np.zeros(int(samples)))
        time_axis = np.linspace(0.0, 1.0, int(samples))
        self._phase = 2.0 * np.pi * float(periods) * time_axis
        self._envelope = float(amplitude) * np.exp(-float(decay) * time_axis)
        self._motor = motor

    def acquire(self, scale: float) -> None:
        shift = position_of(find_device(self.device_manager, self._motor, self.name)) if self._motor else 0.0
        self.waveform.record(self._noise.around_array(self._envelope * np.sin(self._phase + shift)))

    def sim_state(self) -> dict[str, Any]:
        """What the simulation knows: length, noise and seed."""
        return {"samples": len(self._phase), "noise_level": self._noise.level, "seed": self._noise.seed}
