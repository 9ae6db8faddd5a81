"""Stop, pause and resume: obeyed at once, whatever the main thread is doing.

A reader thread of its own follows the scan server's control stream and the users' stop stream. It owns the epochs:
it replaces the value, everybody else reads it.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from bec_lib.broker import Broker, Delivery, Malformed, StreamReader
from bec_lib.endpoints import MessageEndpoints
from bec_lib.messages import ControlKind, DeviceControlMessage
from device_server.adapter import DeviceAdapter
from device_server.dispatch import Epochs
from device_server.lanes import Pool, Task

log = logging.getLogger(__name__)


class Control:
    """devices: those in force. involved: names that a scan owns (of one scan, or of all) or that move. holders: the
    scans that own any of these devices. moved_since: what a scan's instructions of later epochs move. seen: the highest
    epoch so far. told: gets every command after it was obeyed,
    on the control thread.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        devices: Callable[[], Mapping[str, DeviceAdapter]],
        involved: Callable[[str | None], set[str]],
        holders: Callable[[Iterable[str]], set[str]],
        moved_since: Callable[[str, int], set[str]],
        seen: Callable[[], int],
        told: Callable[[Any], None],
        floor: int = 0,
        interlock: Callable[[DeviceControlMessage], None] = lambda message: None,
    ):
        self.epochs = Epochs(floor)
        self._pool = pool
        self._devices = devices
        self._involved = involved
        self._holders = holders
        self._moved_since = moved_since
        self._seen = seen
        self._told = told
        self.interlock = interlock
        self._reader: StreamReader | None = None
        self.tasks: dict[str, Task] = {}
        # How often devices were stopped because the broker did not answer: begun, and all stops have returned.
        self._losses_lock = threading.Lock()
        self._losses_begun = 0
        self._losses_ended = 0

    def start(self, broker: Broker) -> None:
        """Follow what comes from now on: older commands concern instructions that are void already."""
        self._reader = StreamReader(broker, self.deliver, name="control")
        endpoints = (MessageEndpoints.device_control, MessageEndpoints.device_stop)
        self._reader.follow_many({endpoint: broker.last_id(endpoint) for endpoint in endpoints})
        self._reader.start()

    def close(self) -> None:
        if self._reader is not None:
            self._reader.stop()

    def deliver(self, items: Iterable[Delivery | Malformed]) -> None:
        for item in items:
            if isinstance(item, Malformed):
                self._told(item)
                continue
            try:
                self.obey(item.message, from_client=item.endpoint.key == MessageEndpoints.device_stop.key)
            except Exception:
                log.exception("%s could not be obeyed", item.message)
            self._told(item)

    def obey(self, message: DeviceControlMessage, *, from_client: bool = False) -> None:
        """Raise the epoch and stop devices, or hold, or let go on."""
        scan_id = message.scan_id
        match message.kind:
            case ControlKind.STOP:
                for ended in self._ended_by(message):
                    self.epochs = self.epochs.stop(ended, message.run_epoch, self._seen())
                self.stop_devices(
                    self._to_stop(message),
                    everything=scan_id is None and message.devices is None,
                    unless=functools.partial(self._is_taken_up, scan_id, message.run_epoch),
                )
            case _ if from_client:
                # On the stop stream anybody may write, so it stops and does nothing else.
                log.warning("%s on the stop stream was passed over", message.kind)
                return
            case ControlKind.HOLD | ControlKind.RELEASE:
                self.interlock(message)
            case ControlKind.PAUSE:
                self.epochs = self.epochs.pause(scan_id)
            case ControlKind.PAUSE_AFTER_POINT:
                self.epochs = self.epochs.pause(scan_id, after_point=True)
            case ControlKind.RESUME:
                self.epochs = self.epochs.resume(scan_id)
        self.wake_all()

    def stop_devices(
        self,
        names: Iterable[str],
        *,
        everything: bool = False,
        unless: Callable[[str], bool] = lambda name: False,
    ) -> list[Future[None]]:
        """Call `stop()` on devices, each in a thread of its own, the read-only ones excepted.

        everything: then on all other positioners as well, one after the other. unless: asked of each device right before
        its call. Returns when it has been asked for; the futures are done when the calls have returned.
        """
        devices = self._devices()
        first = [devices[name] for name in names if name in devices]
        first = [adapter for adapter in first if _can_stop(adapter)]
        calls = [functools.partial(self._stop_in_turn, [adapter], unless) for adapter in first]
        if everything:
            chosen = {adapter.name for adapter in first}
            rest = [
                adapter
                for adapter in devices.values()
                if adapter.name not in chosen and _can_stop(adapter) and adapter.is_positioner
            ]
            if rest:
                calls.append(functools.partial(self._stop_in_turn, rest, unless))
        return [self._submit(call) for call in calls]

    def stop_lost(self, names: Iterable[str]) -> None:
        """Stop devices because the broker does not answer, and nobody could stop them any more."""
        with self._losses_lock:
            self._losses_begun += 1
        left = self.stop_devices(names)
        waiting = len(left)

        def returned(_: Future[None] | None = None) -> None:
            nonlocal waiting
            with self._losses_lock:
                waiting -= 1
                if waiting <= 0:
                    self._losses_ended += 1

        for future in left:
            future.add_done_callback(returned)
        if not left:
            returned()

    def losses_since(self) -> Callable[[], bool]:
        """Whether what began now may have been stopped for want of the broker; a stop that is still under way may hit
        what begins after it.
        """
        ended = self._losses_ended
        return lambda: self._losses_begun > ended

    def wake_all(self) -> None:
        """Let all tasks look at the epochs again."""
        for task in list(self.tasks.values()):
            task.wake()

    def _ended_by(self, message: DeviceControlMessage) -> Iterable[str | None]:
        """The scans that a stop ends; None: all. Of named devices, those that hold one of them."""
        if message.scan_id is None and message.devices is not None:
            return self._holders(message.devices)
        return [message.scan_id]

    def _is_taken_up(self, scan_id: str | None, epoch: int, name: str) -> bool:
        """Does what the scan does after the stop move this device already? The stop is late then, as instructions come on
        another stream.
        """
        return scan_id is not None and epoch > 0 and name in self._moved_since(scan_id, epoch)

    def _to_stop(self, message: DeviceControlMessage) -> set[str]:
        if message.devices is not None:
            return set(message.devices)
        return self._involved(message.scan_id)

    def _submit(self, call: Callable[[], None]) -> Future[None]:
        future: Future[None] = Future()

        def run() -> None:
            call()
            future.set_result(None)

        self._pool.submit(run)
        return future

    def _stop_in_turn(self, adapters: list[DeviceAdapter], unless: Callable[[str], bool]) -> None:
        for adapter in adapters:
            if not unless(adapter.name):
                self._stop_one(adapter)

    def _stop_one(self, adapter: DeviceAdapter) -> None:
        try:
            adapter.stop()
        except Exception as error:
            log.warning("%s could not be stopped: %s", adapter.name, error, exc_info=True)
            self._told(StopFailed(adapter.name, str(error)))
        log.debug("%s was stopped by %s", adapter.name, threading.current_thread().name)


class StopFailed:
    """Posted when a device's `stop` raised."""

    def __init__(self, device: str, why: str):
        self.device = device
        self.why = why


def _can_stop(adapter: DeviceAdapter) -> bool:
    return not adapter.read_only and adapter.state == "ready" and adapter.can("stop")
