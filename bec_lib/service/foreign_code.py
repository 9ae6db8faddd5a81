"""Whose code is this process in? Told from outside of it: while it does not answer any more, and after it has ended.

Before a service runs the code of a plugin it says so in a small file that is mapped into its memory, and takes that back
behind it. This costs a microsecond and no round trip, so it can be done for each step of a scan. What stands in such a
file outlives every death of its process, and can be read while a thread holds the interpreter's lock for ever. It does
not outlive its host: whoever takes the role over elsewhere finds nothing.

Knows nothing of what follows from it. Writer: the process; readers: its supervisor, and the next process in its role.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bec_lib.foreign import WORKING_OUT, ForeignCall

log = logging.getLogger(__name__)

_MAGIC = b"BECCODE1"
_HEADER = struct.Struct("<8sIQ64s")  # magic, process id, its start in kernel ticks, its life
_STATE = struct.Struct("<Iid")  # is it in the code, where, since when (seconds UTC)
_LENGTH = struct.Struct("<I")
_SLOTS, _SLOT_BYTES = 16, 1024
_FIRST = 128
_BYTES = _FIRST + _SLOTS * _SLOT_BYTES
_TEXT = _STATE.size + _LENGTH.size


@dataclass(frozen=True)
class LeftBehind:
    """A life of this role that has ended otherwise than by its own will; calls: what it was in."""

    path: Path
    life: str
    pid: int
    calls: tuple[ForeignCall, ...] = ()


class Slot:
    """Room for one call that is made again and again, by one thread."""

    def __init__(self, memory: mmap.mmap | bytearray, offset: int):
        self._memory, self._offset = memory, offset

    def enter(self, where: int = WORKING_OUT) -> None:
        """The code runs from now on."""
        _STATE.pack_into(self._memory, self._offset, 1, where, time.time())

    def leave(self) -> None:
        """It does not any more."""
        self._memory[self._offset] = 0

    @property
    def is_inside(self) -> bool:
        return bool(self._memory[self._offset])

    @property
    def where(self) -> int:
        """Where the code is, or was last."""
        return int(_STATE.unpack_from(self._memory, self._offset)[1])


class ForeignCode:
    """The file of this process. Safe to use from several threads. If it cannot be made, all goes on without it."""

    def __init__(self, folder: Path, role: str, life: str, *, pid: int | None = None):
        """life: a name that no other process in the role has. pid: whose file it is, if it is not ours."""
        self._mutex = threading.Lock()
        self._memory: mmap.mmap | bytearray = bytearray(_BYTES)
        self._path: Path | None = path_of(folder, role, pid or os.getpid())
        self._taken: dict[Slot, int] = {}
        self._folder, self._role = folder, role
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                # All of it at once: a page that cannot be had later, on a disk that is full, would end the process.
                os.posix_fallocate(file, 0, _BYTES)
                self._memory = mmap.mmap(file, _BYTES)
            finally:
                os.close(file)
        except OSError as error:
            log.warning("what plugins' code is running cannot be noted in %s: %s", folder, error)
            if self._path.exists():
                self.close()
            self._path = None
        ticks = _start_ticks(pid or os.getpid())
        _HEADER.pack_into(self._memory, 0, _MAGIC, pid or os.getpid(), ticks or 0, life.encode()[:64])

    def slot(self, call: ForeignCall) -> Slot:
        """Room for a call that is not begun yet. If there is none left, or the call's texts are too long, it is not
        noted.
        """
        facts = [call.whose[:400], call.plugin, call.request_id, call.scan_id, call.patience_s]
        text = json.dumps(facts).encode()
        with self._mutex:
            free = set(range(_SLOTS)) - set(self._taken.values())
            if not free or len(text) > _SLOT_BYTES - _TEXT:
                return Slot(bytearray(_STATE.size), 0)
            number = min(free)
            offset = _FIRST + number * _SLOT_BYTES
            slot = Slot(self._memory, offset)
            slot.leave()
            self._memory[offset + _TEXT : offset + _TEXT + len(text)] = text
            _LENGTH.pack_into(self._memory, offset + _STATE.size, len(text))
            self._taken[slot] = number
            return slot

    def free(self, slot: Slot) -> None:
        """The call is over. One that is still running, in a thread that was given up, stays noted."""
        with self._mutex:
            if not slot.is_inside:
                self._taken.pop(slot, None)

    def left_behind(self) -> list[LeftBehind]:
        """What dead processes of this role and host have left, oldest first."""
        found = []
        with contextlib.suppress(OSError):
            for path in self._folder.glob(f"{self._role}@{socket.gethostname()}.*"):
                left = _read(path)
                if left is not None and not _is_alive(path, left.pid):
                    found.append((path.stat().st_mtime, left))
        return [left for _, left in sorted(found, key=lambda item: (item[0], item[1].life))]

    def close(self) -> None:
        """This process ends by its own will, so there is nothing to tell."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
                # Unless a dead one has left something.
                self._folder.rmdir()


def folder_of(state_folder: Path) -> Path:
    """Where the processes of a deployment say it."""
    return state_folder / "foreign_code"


def path_of(folder: Path, role: str, pid: int) -> Path:
    """The host is in the name, as a state folder may be shared by several."""
    return folder / f"{role}@{socket.gethostname()}.{pid}"


def calls_of(folder: Path, role: str, pid: int) -> list[ForeignCall]:
    """What a process on this host is in, alive or dead; what was begun last comes last. Empty if it has never said."""
    left = _read(path_of(folder, role, pid))
    return sorted(left.calls, key=lambda call: call.since) if left is not None and left.pid == pid else []


def _read(path: Path) -> LeftBehind | None:
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    # Less of it, or another beginning: it is just being made.
    if len(raw) < _BYTES or not raw.startswith(_MAGIC):
        return None
    _, pid, _, life = _HEADER.unpack_from(raw)
    calls = [_call(raw, _FIRST + number * _SLOT_BYTES) for number in range(_SLOTS)]
    told = tuple(call for call in calls if call is not None)
    return LeftBehind(path, life.rstrip(b"\0").decode(errors="replace"), pid, told)


def _call(raw: bytes, offset: int) -> ForeignCall | None:
    is_inside, where, since = _STATE.unpack_from(raw, offset)
    (length,) = _LENGTH.unpack_from(raw, offset + _STATE.size)
    if not is_inside or length > _SLOT_BYTES - _TEXT:
        return None
    try:
        facts = json.loads(raw[offset + _TEXT : offset + _TEXT + length])
        whose, plugin, request_id, scan_id, patience_s = facts
        call = ForeignCall(str(whose), str(plugin), str(request_id), str(scan_id), float(patience_s))
    except (ValueError, TypeError):
        return None
    return replace(call, where=where, since=since)


def _is_alive(path: Path, pid: int) -> bool:
    """Is it still the process that has made the file?"""
    try:
        ticks = _HEADER.unpack_from(path.read_bytes())[2]
    except (OSError, struct.error):
        return False
    return pid > 0 and _start_ticks(pid) == ticks


def _start_ticks(pid: int) -> int | None:
    """When a process started; None if there is none, or only its remains."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None
