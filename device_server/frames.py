"""A file of frames, as a camera writes it beside the scan's own: one dataset that grows by a frame at a time.

Readers may open it while it grows (SWMR). The only module of the device server that knows HDF5, which is imported when
the first such file is opened.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bec_lib.errors import StorageError

DATASET = "/entry/data/data"


def frames_path(target: Any, device: str) -> Path | None:
    """Where a device's file of a scan goes. target: of `scan_info.msg.file`, a mapping with stem and suffix; None if the scan
    has no files.
    """
    if not isinstance(target, Mapping) or not target.get("stem"):
        return None
    return Path(f"{target['stem']}_{device}{target.get('suffix') or ''}.h5")


class FrameFile:
    """Frames of one shape, (rows, columns). A file that is there is continued: the device server was started anew during the
    scan. Raises StorageError.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: str = "uint16"):
        import h5py

        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(path, "a", libver=("v110", "latest"))
            if DATASET in self._file:
                self._data = self._file[DATASET]
            else:
                self._file.attrs["default"] = "entry"
                for name, kind in (("entry", "NXentry"), ("entry/data", "NXdata")):
                    self._file.create_group(name).attrs["NX_class"] = kind
                self._file["entry"].attrs["default"] = "data"
                self._file["entry/data"].attrs["signal"] = "data"
                self._data = self._file.create_dataset(
                    DATASET, (0, *shape), dtype, chunks=(1, *shape), maxshape=(None, *shape)
                )
                self._data.attrs["target"] = DATASET
            self._file.swmr_mode = True
        except (OSError, ValueError, RuntimeError) as error:
            raise StorageError(f"the file of frames {path} cannot be made: {error}") from error

    def append(self, frame: np.ndarray) -> None:
        try:
            self._data.resize(len(self._data) + 1, axis=0)
            self._data[-1] = frame
            self._data.flush()
        except (OSError, ValueError, RuntimeError) as error:
            raise StorageError(f"a frame cannot be written to {self.path}: {error}") from error

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._file.close()
