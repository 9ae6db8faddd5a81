"""What was really measured, and where? A detector that keeps its own record beside BEC's, and what is outside of BEC.

Each reading of the witness has a number that no other reading has, whatever process takes it; it is written to a log of
the witness's own, with the true positions of the motors at that moment, before BEC sees it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device_server.sim.lookup import find_device, position_of
from device_server.sim.signals import ReadOnlySignal, SimSignal
from device_server.sim.signature import with_arguments_of

# Readings of one life of a device server; with the milliseconds of its begin above, all numbers fit into a double.
_PER_LIFE = 1 << 12


def _log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


class Witness(SimSignal):
    """log: the file; one line per reading: number, then the positions of the motors. stages: the file of its own staging,
    one line each: process, then "stage" or "unstage".
    """

    @with_arguments_of(SimSignal)
    def __init__(
        self,
        name: str,
        *,
        log: str,
        stages: str,
        motors: Sequence[str],
        device_manager: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, device_manager=device_manager, **kwargs)
        self._manager = device_manager
        self._motors = tuple(motors)
        self._log, self._stages = _log(log), _log(stages)
        self._next = (int(time.time() * 1000) & ((1 << 40) - 1)) * _PER_LIFE

    def get(self, **kwargs: Any) -> float:
        """The number of this reading, which is in the log when this returns."""
        self._next += 1
        at = []
        for motor in self._motors:
            try:
                at.append(position_of(find_device(self._manager, motor, self.name)))
            except LookupError:  # not built yet
                at.append(float("nan"))
        self._metadata["timestamp"] = time.time()
        os.write(self._log, (" ".join([str(self._next), *map(repr, at)]) + "\n").encode())
        return float(self._next)

    def stage(self) -> list[Any]:
        os.write(self._stages, f"{os.getpid()} stage\n".encode())
        return [self]

    def unstage(self) -> list[Any]:
        os.write(self._stages, f"{os.getpid()} unstage\n".encode())
        return [self]


class Beam(ReadOnlySignal):
    """What a file says, whoever of BEC lives: 0 or 1."""

    @with_arguments_of(ReadOnlySignal)
    def __init__(self, name: str, *, file: str, device_manager: Any = None, **kwargs: Any) -> None:
        super().__init__(name, device_manager=device_manager, **kwargs)
        self._file = Path(file)

    def get(self, **kwargs: Any) -> float:
        self._metadata["timestamp"] = time.time()
        return float(self._file.read_text(encoding="ascii"))


class Notes(SimSignal):
    """Writes into a file what it is called with."""

    USER_ACCESS: tuple[str, ...] = ("note",)

    @with_arguments_of(SimSignal)
    def __init__(self, name: str, *, file: str, device_manager: Any = None, **kwargs: Any) -> None:
        super().__init__(name, device_manager=device_manager, **kwargs)
        self._log = _log(file)

    def note(self, text: str) -> None:
        os.write(self._log, f"{text}\n".encode())
