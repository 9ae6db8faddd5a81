"""What does an area detector see? A simulated camera: a spot of light that follows two motors.

The brightness of the spot is a two-dimensional Gaussian of the motor positions, and its place on the chip moves with
them, so that a scan across the beam sees it pass, brighten and fade. Pixels have counting noise, and a few of them
are hot. The noise is read from a fixed table of normal deviates, from a place that depends on the frame number, which
makes a frame of a million pixels a matter of milliseconds. What a frame shows is settled when it is exposed; its
pixels are worked out when somebody looks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ophyd import Component as Cpt
from ophyd import Kind

from device_server.frames import DATASET, FrameFile, frames_path
from device_server.sim.detector import AcquiredSignal, SimDetector
from device_server.sim.lookup import find_device, position_of
from device_server.sim.models import response
from device_server.sim.noise import Noise, NoiseSequence, seed_for
from device_server.sim.signature import with_arguments_of

SATURATION = 65535
_TABLE_MARGIN = 8192


@dataclass(frozen=True, slots=True)
class _Frame:
    """One image, uint16 (rows, columns), and what is written down of it."""

    image: np.ndarray
    total: float
    max: int
    centroid_x: float
    centroid_y: float


class _FrameSignal(AcquiredSignal):
    """One property of the last frame; `field` is its name in `_Frame`."""

    def __init__(self, name: str, *, field: str, **kwargs: Any) -> None:
        self._field = field
        super().__init__(name, **kwargs)

    def get(self, **kwargs: Any) -> Any:
        return getattr(self.parent.frame(), self._field)

    def exposed(self) -> None:
        """A new frame can be looked at; the pixels are worked out now only if somebody has subscribed."""
        if self._callbacks[self.SUB_VALUE]:
            self.record(self.get())
        else:
            self._metadata["timestamp"] = time.time()


class SimCamera(SimDetector):
    """A camera whose image shows a spot that follows up to two motors, with statistics of each frame as scalars.

    shape: (rows, columns). motors: names of the horizontal and the vertical motor; one or none are fine too.
    center, sigma: positions, and standard deviations in motor units, at which the spot is brightest and fades.
    amplitude: height of the spot, counts (per second of exposure if triggered). background: counts per pixel, likewise.
    spot_size: standard deviation of the spot, pixels. travel: pixels that the spot moves per motor unit.
    hot_pixels: how many pixels always show `hot_value` counts. noise: "poisson" or "none".
    read_image: true puts the image into every reading; without it `image` can be looked at but is not recorded, for
        an image of more than 64 kB does not travel in a reading.
    write_frames: true lets it write each triggered frame into a file of its own, beside the scan's.
    """

    USER_ACCESS: tuple[str, ...] = (
        "image",
        "total",
        "max",
        "centroid_x",
        "centroid_y",
        "exp_time",
        "snapshot",
        "sim_state",
    )

    total = Cpt(_FrameSignal, field="total", value=0.0, egu="counts", precision=0, kind=Kind.hinted)
    max = Cpt(_FrameSignal, field="max", value=0, dtype="int", egu="counts", kind=Kind.normal)
    centroid_x = Cpt(_FrameSignal, field="centroid_x", value=0.0, egu="pixel", precision=2, kind=Kind.normal)
    centroid_y = Cpt(_FrameSignal, field="centroid_y", value=0.0, egu="pixel", precision=2, kind=Kind.normal)
    image = Cpt(
        _FrameSignal, field="image", value=np.zeros((1, 1), np.uint16), egu="counts", kind=Kind.omitted
    )

    @with_arguments_of(SimDetector, omit=("sequence",))
    def __init__(
        self,
        name: str,
        *,
        shape: Sequence[int] = (512, 512),
        motors: str | Sequence[str] = (),
        center: float | Sequence[float] = 0.0,
        sigma: float | Sequence[float] = 1.0,
        amplitude: float = 1000.0,
        background: float = 10.0,
        spot_size: float = 20.0,
        travel: float = 50.0,
        hot_pixels: int = 5,
        hot_value: int = 4095,
        noise: str = "poisson",
        seed: int | None = None,
        exp_time: float = 0.0,
        read_image: bool = False,
        write_frames: bool = False,
        **device: Any,
    ) -> None:
        rows, columns = (int(n) for n in shape)
        if rows < 1 or columns < 1:
            raise ValueError(
                f"shape of {name} must be two positive numbers (rows, columns), not {list(shape)}."
            )
        if noise not in ("none", "poisson"):
            raise ValueError(f"unknown noise {noise!r} of {name}: choose none or poisson.")
        names = (motors,) if isinstance(motors, str) else tuple(motors)
        if len(names) > 2:
            raise ValueError(f"{name} follows at most two motors, not {', '.join(names)}.")
        self._seed = seed_for(name, seed)
        super().__init__(
            name, sequence=NoiseSequence(Noise.NONE, 0.0, self._seed), exp_time=exp_time, **device
        )
        self._motors = names
        x, y = (center, center) if isinstance(center, (int, float)) else center
        self._center = (float(x), float(y))
        self._brightness = response("gaussian2d", center=self._center, sigma=sigma)
        self._amplitude, self._background = float(amplitude), float(background)
        self._spot_size, self._travel = float(spot_size), float(travel)
        self._x, self._y = np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32)
        random = np.random.default_rng(self._seed)
        self._hot = (random.integers(0, rows, int(hot_pixels)), random.integers(0, columns, int(hot_pixels)))
        self._hot_value = min(int(hot_value), SATURATION)
        self._table = (
            random.standard_normal(rows * columns + _TABLE_MARGIN, dtype=np.float32)
            if noise == "poisson"
            else None
        )
        self._count = 0
        self._write_frames = write_frames
        self._frames: FrameFile | None = None
        self._exposed: tuple[tuple[float, float], float, int] = (self._center, 0.0, 0)
        self._developed: tuple[Any, _Frame] | None = None
        self.image._readback = np.zeros((rows, columns), np.uint16)
        if read_image:
            self.image.kind = Kind.normal

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the image."""
        return len(self._y), len(self._x)

    def acquire(self, scale: float) -> None:
        at = list(self._center)
        for n, motor in enumerate(self._motors):
            at[n] = position_of(find_device(self.device_manager, motor, self.name))
        self._count += 1
        self._exposed = ((at[0], at[1]), scale, self._count)
        for signal in (self.total, self.max, self.centroid_x, self.centroid_y, self.image):
            signal.exposed()

    def stage(self) -> list[Any]:
        """As ophyd; frames are numbered from 1 again, so the noise repeats. Opens the file of frames."""
        self._count = 0
        staged = super().stage()
        path = frames_path(getattr(getattr(self.scan_info, "msg", None), "file", None), self.name)
        if self._write_frames and path is not None:
            self._close_frames()
            self._frames = FrameFile(path, self.shape)
        return staged

    def unstage(self) -> list[Any]:
        """As ophyd; closes the file of frames."""
        unstaged = super().unstage()
        self._close_frames()
        return unstaged

    @property
    def file_event(self) -> dict[str, Any] | None:
        """The file that it writes at the moment, by which the scan's own file links to it."""
        if self._frames is None:
            return None
        return {"file_path": str(self._frames.path), "hinted_h5_entries": {"data": DATASET}}

    def _acquire_triggered(self, scale: float) -> None:
        super()._acquire_triggered(scale)
        if self._frames is not None:
            self._frames.append(self.frame().image)

    def _close_frames(self) -> None:
        frames, self._frames = self._frames, None
        if frames is not None:
            frames.close()

    def read(self) -> dict[str, dict[str, Any]]:
        """As ophyd; a camera that was not triggered takes one frame for all signals."""
        if not self.triggered:
            self.acquire(1.0)
        return super().read()

    def snapshot(self) -> np.ndarray:
        """Take a frame now and return its image, uint16 (rows, columns)."""
        self.acquire(1.0)
        return self.frame().image

    def frame(self) -> _Frame:
        """The last frame; takes one if there is none yet."""
        if self._exposed[2] == 0:
            self.acquire(1.0)
        exposed, developed = self._exposed, self._developed
        if developed is None or developed[0] is not exposed:
            developed = self._developed = (exposed, self._develop(*exposed))
        return developed[1]

    def sim_state(self) -> dict[str, Any]:
        """What the simulation knows: frame number, motor positions at its exposure, seed."""
        at, scale, count = self._exposed
        return {
            "frame": count,
            "positions": list(at),
            "scale": scale,
            "seed": self._seed,
            "shape": list(self.shape),
        }

    def _develop(self, at: tuple[float, float], scale: float, count: int) -> _Frame:
        rows, columns = self.shape
        x0 = 0.5 * (columns - 1) + self._travel * (at[0] - self._center[0])
        y0 = 0.5 * (rows - 1) + self._travel * (at[1] - self._center[1])
        height = np.float32(self._amplitude * scale * self._brightness(at))
        column_profile = np.exp(-0.5 * ((self._x - x0) / self._spot_size) ** 2)
        row_profile = height * np.exp(-0.5 * ((self._y - y0) / self._spot_size) ** 2)
        counts = np.outer(row_profile, column_profile).astype(np.float32, copy=False)
        counts += np.float32(self._background * scale)
        if self._table is not None:
            start = (self._seed + 2654435761 * count) % _TABLE_MARGIN
            deviation = np.sqrt(counts)
            deviation *= self._table[start : start + counts.size].reshape(counts.shape)
            counts += deviation
        counts += np.float32(0.5)  # rounds, for the conversion below cuts off
        np.clip(counts, 0, SATURATION, out=counts)
        image = counts.astype(np.uint16)
        image[self._hot] = self._hot_value
        return _frame_of(image)


def _frame_of(image: np.ndarray) -> _Frame:
    """The image with its statistics; the centroid is in pixels, NaN if no pixel has a count."""
    by_column = image.sum(axis=0, dtype=np.int64)
    by_row = image.sum(axis=1, dtype=np.int64)
    total = int(by_column.sum())
    if total:
        x = float(by_column @ np.arange(len(by_column))) / total
        y = float(by_row @ np.arange(len(by_row))) / total
    else:
        x = y = math.nan
    return _Frame(image, float(total), int(image.max()), x, y)
