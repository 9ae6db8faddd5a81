"""Code that is not ours: run so that it can be waited for, given up, and named if it ends the process.

Whose code runs is noted in a file of this process (bec_lib.service.foreign_code). Whom that blames for an end of the
process is blame.py's to decide, and what follows is the app's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import TypeVar

from bec_lib.errors import ReasonCode
from bec_lib.foreign import IMPORTING, WORKING_OUT, ForeignCall
from bec_lib.service import Service
from bec_lib.service.foreign_code import ForeignCode, Slot, folder_of
from scan_server import blame
from scan_server.guard import Rejected
from scan_server.reload import OURS
from scan_server.restore import ends_of, patiently
from scan_server.worker import Worker

T = TypeVar("T")

# How long a plugin may take to work out its points. The main thread waits for it, and must not miss its heartbeat.
PLUGIN_S = 1.0
# How long plugins may take to be imported again.
RELOAD_S = 30.0
# How long a scan's code may take for a step. If it takes longer and nothing else runs in this process, because it holds
# the interpreter's lock, the supervisor ends the process.
STEP_S = 5.0
_MAX_STUCK = 4


class PluginCode:
    """lives_before: how earlier lives of the process ended that were in such code."""

    def __init__(self, service: Service):
        self._service = service
        self._marks = ForeignCode(folder_of(service.config.state_folder), service.name, service.instance)
        self._left_behind = self._marks.left_behind()
        self.lives_before = self._ends_before()
        # Of scans, while they run.
        self._slots: dict[str, Slot] = {}
        # Of workers that were given up; their threads may still come back to them.
        self._given_up: list[tuple[Slot, Worker]] = []
        self._stuck: list[threading.Thread] = []

    def close(self) -> None:
        self._marks.close()

    # Earlier lives

    def look_back(self) -> None:
        """See those, too, that have ended since this life began."""
        self._left_behind = self._marks.left_behind()
        self.lives_before = self._ends_before()

    def forget_lives_before(self) -> None:
        """What follows from how earlier lives ended is on record now."""
        for left in self._left_behind:
            with contextlib.suppress(OSError):
                left.path.unlink()
        self._left_behind = []

    def _ends_before(self) -> list[blame.Life]:
        if not any(left.calls for left in self._left_behind):
            return []
        broker = self._service.broker
        ends = patiently(broker, lambda: ends_of(broker, self._service.name))
        return [blame.Life(left.life, ends.get(left.pid, ""), left.calls) for left in self._left_behind]

    # Imports

    @contextlib.contextmanager
    def importing(self, point: EntryPoint, request_id: str = "") -> Iterator[None]:
        if point.value.partition(":")[0].partition(".")[0] in OURS:
            yield
            return
        slot = self._marks.slot(
            ForeignCall(
                f"the plugin {point.name} ({point.value})", point.name, request_id, patience_s=RELOAD_S
            )
        )
        slot.enter(IMPORTING)
        try:
            yield
        finally:
            slot.leave()
            self._marks.free(slot)

    # Requests

    def in_time(self, call: Callable[[], T | Rejected], whose: ForeignCall, too_slow: str) -> T | Rejected:
        """The call runs in a thread that is left alone if it does not come back. too_slow: what is said then."""
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if len(self._stuck) >= _MAX_STUCK:
            return Rejected(
                ReasonCode.TIMEOUT,
                f"{_MAX_STUCK} requests of plugins do not come back from working out their points; restart the scan "
                "server when the plugin is mended",
            )
        made: list[T | Rejected] = []
        slot = self._marks.slot(replace(whose, patience_s=PLUGIN_S))

        def work() -> None:
            result = call()
            slot.leave()
            self._marks.free(slot)
            made.append(result)

        thread = threading.Thread(target=work, name=f"work-out-{whose.plugin}", daemon=True)
        slot.enter(WORKING_OUT)
        thread.start()
        thread.join(PLUGIN_S)
        if made:
            return made[0]
        self._stuck.append(thread)
        return Rejected(ReasonCode.TIMEOUT, f"{too_slow} within {PLUGIN_S:g} s")

    # Scans

    def slot_for(self, scan_id: str, who: str, plugin: str) -> Slot:
        """To note when this scan's code runs."""
        for given_up, worker in self._given_up:
            if not worker.is_alive:
                self._marks.free(given_up)
        self._given_up = [(slot, worker) for slot, worker in self._given_up if worker.is_alive]
        slot = self._marks.slot(ForeignCall(who, plugin, scan_id=scan_id, patience_s=STEP_S))
        self._slots[scan_id] = slot
        return slot

    def give_up(self, scan_id: str, worker: Worker) -> Slot | None:
        """The worker does not come back from this scan's code. Its slot is not used again before the thread has ended."""
        slot = self._slots.pop(scan_id, None)
        if slot is not None:
            self._given_up.append((slot, worker))
        return slot

    def forget(self, scan_id: str) -> None:
        """The scan has ended."""
        slot = self._slots.pop(scan_id, None)
        if slot is not None:
            self._marks.free(slot)
