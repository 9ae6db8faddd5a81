"""A tomogram: projections, flat fields and dark fields."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bec_lib.scans import Device, Label, PointScan, line_positions, parameter
from bec_lib.scans.positions import check_count

# NXtomo's image_key.
PROJECTION, FLAT, DARK, INVALID = range(4)


class TomoScan(PointScan):
    """Turn the sample and read at each angle, with flat fields (sample moved out of the beam) and dark fields (shutter
    closed) before, after and, if wanted, in between.

    Order: darks, flats, projections with further flats after each flat_interval of them, flats, darks. The label
    image_key of each point tells which it is: 0 projection, 1 flat field, 2 dark field. At the end, and when the scan is
    aborted, everything goes back to where it was.

    >>> scans.tomo_scan(
    ...     dev.samrot, 0, 180, 361, sample=dev.samx, sample_in=0, sample_out=-20, shutter=dev.shutter, exp_time=0.1
    ... )
    """

    scan_name = "tomo_scan"
    point_labels = {
        "image_key": Label(INVALID, doc="0: projection, 1: flat field, 2: dark field, 3: invalid"),
    }
    rotation: Device = parameter(doc="The rotation axis.")
    start: float = parameter(of="rotation", doc="Its first angle.")
    stop: float = parameter(of="rotation", doc="Its last angle.")
    projections: int = parameter(ge=1, doc="Number of angles, both ends included.")
    sample: Device | None = parameter(
        None, doc="Moves the sample out of the beam; without it, no flat fields."
    )
    sample_in: float = parameter(0.0, of="sample", doc="Its position for projections.")
    sample_out: float = parameter(0.0, of="sample", doc="Its position for flat fields.")
    shutter: Device | None = parameter(None, doc="Shuts the beam off; without it, no dark fields.")
    shutter_open: float = parameter(1.0, doc="Its value when open.")
    shutter_closed: float = parameter(0.0, doc="Its value when closed.")
    flats: int = parameter(5, ge=0, le=100_000, doc="Flat fields each time.")
    darks: int = parameter(5, ge=0, le=100_000, doc="Dark fields each time.")
    flat_interval: int = parameter(0, ge=0, doc="Projections between flat fields; 0: only before and after.")

    @property
    def returns_to_start(self) -> bool:
        return True

    def problems(self) -> list[str]:
        found = []
        if self.start == self.stop and self.projections > 1:
            found.append(
                f"{self.projections} projections from {self.start:g} to {self.stop:g} are all the same"
            )
        if self.sample and self.flats and self.sample_in == self.sample_out:
            found.append(f"sample_out of {self.sample} is the same as sample_in, {self.sample_in:g}")
        if self.shutter and self.darks and self.shutter_open == self.shutter_closed:
            found.append("shutter_open and shutter_closed are the same")
        if len(set(self.motors)) < len(self.motors):
            found.append("rotation, sample and shutter must be different devices")
        return found

    def positions(self) -> np.ndarray:
        return np.concatenate([rows for _, rows in self._pieces()])

    def label_positions(self) -> Mapping[str, Any]:
        return {"image_key": np.concatenate([np.full(len(rows), key) for key, rows in self._pieces()])}

    def _pieces(self) -> list[tuple[int, np.ndarray]]:
        """What is taken, in order: image key and rows of positions."""
        every = self.flat_interval or self.projections
        flats = self.flats if self.sample else 0
        darks = self.darks if self.shutter else 0
        check_count(self.projections + 2 * darks + flats * (-(-self.projections // every) + 1))
        angles = line_positions([(self.start, self.stop)], self.projections)[:, 0]
        pieces = [self._still(DARK, angles[0], darks), self._still(FLAT, angles[0], flats)]
        for begin in range(0, self.projections, every):
            part = angles[begin : begin + every]
            pieces.append((PROJECTION, self._rows(part, self.sample_in, self.shutter_open)))
            pieces.append(self._still(FLAT, part[-1], flats))
        pieces.append(self._still(DARK, angles[-1], darks))
        return pieces

    def _still(self, key: int, angle: float, count: int) -> tuple[int, np.ndarray]:
        angles = np.full(count, angle)
        if key == DARK:
            return key, self._rows(angles, self.sample_in, self.shutter_closed)
        return key, self._rows(angles, self.sample_out, self.shutter_open)

    def _rows(self, angles: np.ndarray, sample: float, shutter: float) -> np.ndarray:
        columns = [angles]
        if self.sample:
            columns.append(np.full(len(angles), sample))
        if self.shutter:
            columns.append(np.full(len(angles), shutter))
        return np.column_stack(columns)
