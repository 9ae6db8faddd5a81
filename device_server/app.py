"""The device server: which streams it reads, what it does with what comes, and what it writes.

The main thread owns the dispatch state, the publisher and everything that is written to the broker; it never touches
a device. Devices are used on the threads of the pool and stopped by the control thread, which both tell the main
thread by posting to its inbox.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import logging
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from bec_lib.broker import Batch, Delivery, LatestWatcher, Malformed
from bec_lib.devices import ReadoutPriority
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import BECError, MessageError, ReasonCode
from bec_lib.ids import entry_order
from bec_lib.messages import (
    CallDevice,
    ClientHelloMessage,
    ControlKind,
    DeviceControlMessage,
    DeviceHoldersMessage,
    DeviceInfoMessage,
    DeviceInstructionMessage,
    DeviceInstructionResponse,
    DeviceMessage,
    DeviceRPCMessage,
    DeviceRPCResponse,
    DeviceServerInfoMessage,
    ErrorInfo,
    Holder,
    InstructionStatus,
    InterlocksMessage,
    InterlockStatusMessage,
    MoveDevices,
    PrepareSession,
    ReadingsMessage,
    RunPoints,
    Severity,
    StageDevices,
    SweepDevice,
)
from bec_lib.service import Event, Service, ThreadedInbox
from device_server import failures, output, readings
from device_server.adapter import DeviceAdapter
from device_server.calls import CallDone, Calls
from device_server.control import Control, StopFailed
from device_server.dispatch import SESSION_ACTIONS, DispatchState, InFlight, Owner, Reply, Run
from device_server.dispatch import Effect as DispatchEffect
from device_server.guards import Guards, Tripped
from device_server.instructions import Block, Finished, Instructions, SessionChange, Warn
from device_server.lanes import Pool, Timers
from device_server.loader import (
    DeviceManager,
    Loader,
    ScanInfo,
    destroy_all,
    enter_thread,
    import_ophyd,
)
from device_server.publisher import Publisher

log = logging.getLogger(__name__)

# A batch that takes longer than this means that the broker is away: what moves is stopped.
BROKER_LOST_S = 2.0
# How long the end of this process waits for the `stop` of devices that are moving.
STOP_S = 3.0
# Read-backs that ride on a scan's blocks, seconds between two of one device.
SCAN_READBACK_S = 0.2
# Python hands the interpreter to a waiting thread after this long; its default of 5 ms would be a call's whole budget.
SWITCH_S = 0.0005
# How often devices are read that conditions look at, and those with readoutPriority `continuous`.
REFRESH_S = 1.0


class Wake:
    """Posted so that the main thread looks at its deadlines again."""


WAKE = Wake()


@dataclass
class Refreshed:
    """Posted: a device was read because its value is wanted about once a second."""

    device: str
    reading: Mapping[str, Mapping[str, Any]] | None
    error: BaseException | None = None


class DeviceServer:
    """An `App`. name: of this device server, as in the devices' `deviceServer`."""

    def __init__(self, service: Service, name: str = "main"):
        import_ophyd()
        self._service = service
        self._name = name
        self._broker = service.broker
        self._clock = service.clock
        inbox = service.inbox
        assert isinstance(inbox, ThreadedInbox)
        self._inbox = inbox
        self._boot_id = service.new_id()
        self._dispatch = DispatchState(name, self._boot_id)
        self._pool = Pool("lane", enter=enter_thread)
        self._timers = Timers()
        self._manager = DeviceManager()
        scan_info = ScanInfo()
        self._loader = Loader(name, self._manager, scan_info)
        self._control = Control(
            self._pool,
            devices=lambda: self._loader.in_force,
            involved=self._involved,
            holders=self._holders,
            moved_since=self._moved_since,
            seen=lambda: self._dispatch.seen,
            told=inbox.post,
        )
        self._guards = Guards(
            name,
            lambda device: device in self._loader.in_force,
            inbox.post,
            self._control.wake_all,
            self._clock.now,
        )
        self._control.interlock = self._guards.obey
        self._interlocks = InterlocksMessage()
        self._refresh_due: float | None = None
        # Devices that are being read anew, and what was published last of those that are read anew.
        self._refreshing: set[str] = set()
        self._refreshed: dict[str, Any] = {}
        self._instructions = Instructions(
            server=name,
            loader=self._loader,
            scan_info=scan_info,
            pool=self._pool,
            timers=self._timers,
            control=self._control,
            guards=self._guards,
            clock=service.clock,
            post=inbox.post,
        )
        self._calls = Calls(
            name, self._instructions, self._dispatch, lambda: self._loader.in_force, inbox.post
        )
        self._instructions.calls = self._calls.active
        self._instructions.in_use = self._calls.in_use
        self._publisher = Publisher(lambda: inbox.post(WAKE))
        self._requests: dict[str, tuple[Endpoint, InFlight]] = {}
        self._stale: dict[str, str] = {}
        self._last_hello = "0-0"
        self._cursors: dict[str, str] = {}
        self._instruction_stream = MessageEndpoints.device_instructions(name)
        self._responses = MessageEndpoints.device_instructions_response(name)
        self._session_version = 0
        self._published: set[str] = set()
        self._loads = 0
        # Devices of other servers that ours wait for. Ours are tried again under this number, and changes of the session
        # wait meanwhile.
        self._watcher: LatestWatcher | None = None
        self._watched_needs: dict[str, Endpoint] = {}
        self._retrying: str | None = None
        self._put_off: list[DeviceInstructionMessage] = []
        self._loading: str | None = None
        self._reading_endpoints: dict[str, Endpoint] = {}
        # Of who has which devices: what was told last.
        self._holders_told = (0, 0)

    # The service's loop

    def start(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._service.commit = self._commit
        output.install()
        previous = self._get(MessageEndpoints.device_server_info(self._name))
        if isinstance(previous, DeviceServerInfoMessage):
            self._control.epochs = type(self._control.epochs)(previous.run_epoch)
        self._cursors = self._service.cursors()
        self._control.start(self._broker)
        self._forget_what_came_before()
        batch = self._service.batch()
        self._put_server_info(batch)
        self._put_holders(batch)
        batch.commit()
        self._follow_interlocks()
        self._last_hello = self._broker.last_id(MessageEndpoints.client_hello)
        # Users are few, and each is to be known again: read from the beginning.
        self._inbox.follow(MessageEndpoints.client_hello, "0")
        session = self._get(MessageEndpoints.device_session)
        if session is not None and session.devices:
            self._load_session(session)
        else:
            self._follow_work()

    def handle(self, events: list[Event]) -> None:
        batch = self._service.batch()
        effects: list[DispatchEffect] = []
        blocks: list[Block] = []
        for event in events:
            if isinstance(event, Delivery):
                self._delivered(event, batch, effects)
            elif isinstance(event, Block):
                blocks.append(event)
                self._append_block(event, batch)
            elif isinstance(event, Finished):
                self._finished(event, batch, effects)
            elif isinstance(event, CallDone):
                self._answer_call(event, batch)
            elif isinstance(event, Warn):
                self._warn(event)
            elif isinstance(event, StopFailed):
                self._service.alarm(
                    Severity.MAJOR, f"{event.device} could not be stopped: {event.why}", device=event.device
                )
            elif isinstance(event, Tripped):
                batch.append(MessageEndpoints.interlock_trips, event.trip)
            elif isinstance(event, Refreshed):
                self._take_refreshed(event, batch)
            elif isinstance(event, Malformed):
                self._malformed(event, batch)
        to_run = self._perform(effects, batch)
        if self._holders_told != (self._dispatch.owners_version, self._calls.version):
            self._put_holders(batch)
        self._publish_due(batch)
        self._commit(batch)
        for block in blocks:
            self._instructions.committed(block.run)
        for message in to_run:
            self._begin(message)

    def deadline(self) -> float | None:
        due = self._publisher.deadline(self._clock.monotonic())
        if self._refresh_due is None:
            return due
        return self._refresh_due if due is None else min(due, self._refresh_due)

    def on_deadline(self) -> None:
        if self._refresh_due is not None and self._clock.monotonic() >= self._refresh_due:
            self._refresh()
        batch = self._service.batch()
        self._publish_due(batch)
        self._commit(batch)

    def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        self._control.close()
        # The threads of the pool end with the process: wait until the stops have been sent.
        concurrent.futures.wait(self._control.stop_devices(self._involved(None)), timeout=STOP_S)
        self._timers.close()
        self._pool.close()

    # Starting

    def _forget_what_came_before(self) -> None:
        """Answer instructions that were given to a predecessor; nobody knows how far it went with them."""
        batch = self._service.batch()
        cursor = self._cursors.get(self._instruction_stream.key, "0")
        while True:
            entries = self._broker.read({self._instruction_stream: cursor})
            for entry in entries:
                cursor = entry.entry_id
                if isinstance(entry, Delivery):
                    reply = self._dispatch.forget(entry.entry_id, entry.message)
                    self._write_reply(reply.response, batch)
                else:
                    self._dispatch.skip(entry.entry_id)
            if not entries:
                break
        if cursor != "0":
            batch.cursor(self._service.name, self._instruction_stream, cursor)
        self._cursors[self._instruction_stream.key] = cursor
        batch.commit()

    def _load_session(self, session: Any) -> None:
        """Build the devices of the session in force, as if it had been prepared and committed; work waits for it."""
        self._session_version = session.version
        mine = [name for name, raw in session.devices.items() if self._is_mine(raw)]
        self._loading = self._service.new_id()
        self._service.begin_busy(f"connecting {len(mine)} devices", 120.0)
        whole = PrepareSession(devices=dict(session.devices), others=self._needed_of_others(session.devices))
        self._instructions.load(self._loading, whole, session.version)

    def _follow_work(self) -> None:
        self._inbox.follow(self._instruction_stream, self._cursors.get(self._instruction_stream.key, "0"))
        for endpoint, _ in self._requests.values():
            self._inbox.follow(endpoint, self._cursors.get(endpoint.key, "0"))

    # What comes

    def _delivered(self, item: Delivery, batch: Batch, effects: list[DispatchEffect]) -> None:
        message = item.message
        if isinstance(message, DeviceInstructionMessage):
            effects += self._dispatch.receive(item.entry_id, message, self._control.epochs)
        elif isinstance(message, DeviceRPCMessage):
            self._called(item, message, batch)
        elif isinstance(message, DeviceControlMessage):
            self._controlled(message, batch, effects)
        elif isinstance(message, ClientHelloMessage):
            self._greeted(item, message)
        elif isinstance(message, InterlocksMessage):
            self._take_interlocks(message)
        elif isinstance(message, DeviceInfoMessage):
            self._need_is_there(message)

    def _greeted(self, item: Delivery, message: ClientHelloMessage) -> None:
        endpoint = MessageEndpoints.device_rpc_request(message.user)
        if endpoint.key in self._requests:
            return
        self._requests[endpoint.key] = (endpoint, InFlight())
        if entry_order(item.entry_id) <= entry_order(self._last_hello):
            # Calls that were made before this process began: nobody knows whether they were carried out.
            self._stale[endpoint.key] = self._broker.last_id(endpoint)
        if self._loading is None:
            self._inbox.follow(endpoint, self._cursors.get(endpoint.key, "0"))

    def _called(self, item: Delivery, message: DeviceRPCMessage, batch: Batch) -> None:
        key = item.endpoint.key
        endpoint, in_flight = self._requests[key]
        in_flight.begin(item.entry_id)
        if message.device not in self._loader.in_force and not self._answers_for(message.device):
            self._end_call(endpoint, in_flight, item.entry_id, batch)
            return
        stale = self._stale.get(key)
        if stale is not None and entry_order(item.entry_id) <= entry_order(stale):
            error = ErrorInfo(
                error_message=f"the device server was started anew while dev.{message.device}.{message.func} was "
                "under way; look where the device is and call again",
                code=ReasonCode.SERVICE_DOWN,
                device=message.device,
            )
            self._write_call(CallDone(message, key, item.entry_id, error=error), batch)
            return
        refused = self._calls.begin(message, key, item.entry_id, item.user)
        if refused is not None:
            self._write_call(refused, batch)

    def _controlled(self, message: DeviceControlMessage, batch: Batch, effects: list[DispatchEffect]) -> None:
        """The control thread has obeyed already; what waits and has become void is answered here."""
        effects += self._dispatch.apply_stop(self._control.epochs)
        if message.kind is ControlKind.STOP:
            log.info(
                "stop of %s by %s", message.scan_id or "everything", message.client_id or "the scan server"
            )
            self._put_server_info(batch)

    def _malformed(self, item: Malformed, batch: Batch) -> None:
        """Logged, answered where it says to whom, and passed over."""
        log.error("%s in %s was passed over", item.error, item.endpoint.key)
        body = item.error.body
        error = ErrorInfo(error_message=str(item.error), code=item.error.reason)
        if item.endpoint.key == self._instruction_stream.key:
            cursor = self._dispatch.skip(item.entry_id)
            number = body.get("instruction_id")
            if isinstance(number, str):
                self._append_response(
                    DeviceInstructionResponse(
                        instruction_id=number,
                        status=InstructionStatus.ERROR,
                        error=error,
                        server=self._name,
                        boot_id=self._boot_id,
                    ),
                    batch,
                )
            if cursor:
                batch.cursor(self._service.name, self._instruction_stream, cursor)
        elif item.endpoint.key in self._requests:
            endpoint, in_flight = self._requests[item.endpoint.key]
            in_flight.begin(item.entry_id)
            request, client = body.get("request_id"), body.get("client_id")
            if isinstance(request, str) and isinstance(client, str) and self._answers_for_unknown():
                batch.append(
                    MessageEndpoints.device_rpc_response(client),
                    DeviceRPCResponse(request_id=request, success=False, error=error),
                )
            self._end_call(endpoint, in_flight, item.entry_id, batch)

    # What is done

    def _begin(self, message: DeviceInstructionMessage) -> None:
        action = message.action
        if self._retrying is not None and isinstance(action, SESSION_ACTIONS):
            self._put_off.append(message)
            return
        if isinstance(action, PrepareSession):
            self._service.begin_busy(f"connecting {len(action.devices)} devices", 120.0)
        elif isinstance(action, StageDevices):
            self._reading_endpoints[message.scan_id or ""] = MessageEndpoints.scan_readings(
                message.scan_id or message.instruction_id
            )
            while len(self._reading_endpoints) > 50:
                del self._reading_endpoints[next(iter(self._reading_endpoints))]
        self._instructions.begin(message)

    def _perform(self, effects: list[DispatchEffect], batch: Batch) -> list[DeviceInstructionMessage]:
        to_run = []
        for effect in effects:
            match effect:
                case Run():
                    to_run.append(effect.instruction)
                case Reply():
                    self._write_reply(effect.response, batch)
        return to_run

    def _append_block(self, block: Block, batch: Batch) -> None:
        run = block.run
        endpoint = self._reading_endpoints.get(block.scan_id) or MessageEndpoints.scan_readings(block.scan_id)
        message = ReadingsMessage.model_construct(
            scan_id=block.scan_id,
            schema_version=run.schema_version,
            group=block.group,
            server=self._name,
            first_index=block.first_index,
            count=len(block.rows),
            attempt=block.attempt,
            values=[*map(list, zip(*block.rows, strict=True)), *block.given],
            device_times=[
                *map(list, zip(*block.times, strict=True)),
                *([block.server_times] * len(block.given)),
            ],
            server_times=block.server_times,
            acq_start=block.acq_start,
            acq_end=block.acq_end,
        )
        try:
            batch.append(endpoint, message)
        except MessageError:
            self._blank_what_cannot_travel(block, message)
            batch.append(endpoint, message)
        now = self._clock.monotonic()
        if block.group == "monitored" and now - run.published >= SCAN_READBACK_S:
            run.published = now
            reading = run.monitored.columns.as_reading(block.rows[-1], block.times[-1])
            for device, signals in reading.items():
                self._put_readback(batch, device, signals, now)

    def _blank_what_cannot_travel(self, block: Block, message: ReadingsMessage) -> None:
        """A device gave something that no message can carry: its column is empty, and people are told."""
        group = block.run.monitored if block.group == "monitored" else block.run.baseline
        for number, (device, signal) in enumerate(group.columns.keys):
            try:
                readings.sendable(message.values[number], signal)
                message.device_times[number] = [float(time or 0.0) for time in message.device_times[number]]
            except (BECError, TypeError, ValueError) as error:
                message.values[number] = [None] * message.count
                message.device_times[number] = [0.0] * message.count
                if device not in block.run.warned:
                    block.run.warned.add(device)
                    self._warn(
                        Warn(f"{signal} is not recorded: {error}", device=device, scan_id=block.scan_id)
                    )

    def _finished(self, event: Finished, batch: Batch, effects: list[DispatchEffect]) -> None:
        now = self._clock.monotonic()
        if event.session is not None:
            self._session_changed(event.session, batch)
            event.result = {
                "version": event.session.version,
                "loaded": [n for n, a in self._loader.in_force.items() if a.state != "failed"],
                "failed": {n: a.error for n, a in self._loader.in_force.items() if a.state == "failed"},
            }
        if event.instruction_id == self._loading:
            self._loading = None
            self._service.end_busy()
            if event.error is not None:
                self._service.alarm(Severity.MAJOR, event.error.error_message, details=event.error.traceback)
            self._follow_work()
            self._watch_needs()
            return
        if event.instruction_id == self._retrying:
            self._retried(event)
            return
        for device, reading in event.read_backs.items():
            self._put_readback(batch, device, reading, now)
        if event.error is not None:
            log.warning("%s", event.error.error_message)
        if self._is_prepare(event.instruction_id):
            self._service.end_busy()
        effects += self._dispatch.finish(
            event.instruction_id,
            self._control.epochs,
            error=event.error,
            result=event.result,
            stopped=event.stopped,
        )
        if event.session is not None:
            self._watch_needs()

    def _answer_call(self, done: CallDone, batch: Batch) -> None:
        self._calls.ended(done)
        name = done.message.device
        if done.reading is not None:
            self._put_readback(batch, name, done.reading, self._clock.monotonic())
        if done.info is not None:
            batch.put(MessageEndpoints.device_info(name), done.info)
        self._write_call(done, batch)

    def _session_changed(self, change: SessionChange, batch: Batch) -> None:
        """New devices are in force: publish what they are, and where they stand."""
        self._session_version = change.version
        self._loads += 1
        devices = self._loader.in_force
        now = self._clock.monotonic()
        for name, adapter in devices.items():
            batch.put(MessageEndpoints.device_info(name), change.infos[name])
            if adapter.first_reading is not None:
                self._put_readback(batch, name, adapter.first_reading, now)
                adapter.first_reading = None
                adapter.subscribe(self._subscription(name))
        for name in self._published - set(devices):
            batch.delete(MessageEndpoints.device_info(name))
            batch.delete(MessageEndpoints.device_readback(name))
            self._publisher.forget(name)
        self._published = set(devices)
        self._take_interlocks(self._interlocks)
        self._service.info = {
            "devices": len(devices),
            "failed": sum(adapter.state == "failed" for adapter in devices.values()),
            "session": change.version,
        }
        self._put_server_info(batch)
        failed = [adapter for adapter in devices.values() if adapter.state == "failed"]
        log.info(
            "session %d: %d devices, %d of them failed", self._session_version, len(devices), len(failed)
        )
        destroy_all(change.dropped)

    # Devices that need one of another device server

    def _needed_of_others(self, devices: Mapping[str, Any]) -> dict[str, str]:
        """Devices of other servers that some of ours need -> why they cannot be relied on, empty if they can."""
        needed = {
            other: str(devices[other].get("deviceServer", "main"))
            for raw in devices.values()
            if self._is_mine(raw)
            for other in raw.get("needs") or ()
            if isinstance(devices.get(other), dict) and not self._is_mine(devices[other])
        }
        return {name: self._why_not(name, server) for name, server in needed.items()}

    def _why_not(self, name: str, server: str) -> str:
        """Why a device of another server cannot be relied on; empty if it can."""
        info = self._get(MessageEndpoints.device_info(name))
        if info is None:
            return f"the device server {server} has not loaded it yet"
        return str(info.error) if info.state == "failed" else ""

    def _watch_needs(self) -> None:
        """Hear of the devices of other servers that ours wait for."""
        wanted = {adapter.lacks for adapter in self._loader.in_force.values() if adapter.lacks}
        if not wanted and self._watcher is None:
            return
        if self._watcher is None:
            self._watcher = LatestWatcher(self._broker, self._told_of_needs, name="needs")
        self._watcher.unwatch(self._watched_needs.values())
        self._watched_needs = {name: MessageEndpoints.device_info(name) for name in sorted(wanted)}
        self._watcher.watch(self._watched_needs.values())

    def _told_of_needs(self, items: Iterable[Any]) -> None:
        for item in items:
            self._inbox.post(item)

    def _need_is_there(self, info: DeviceInfoMessage) -> None:
        """Try those again that failed without it, unless the session is just being changed: then they are told of it by
        that, or at its end.
        """
        devices = self._loader.in_force
        changing = any(isinstance(message.action, SESSION_ACTIONS) for message in self._dispatch.running())
        busy = changing or self._loading or self._retrying or self._instructions.is_changing
        if info.state == "failed" or busy:
            return
        configs = {name: adapter.config for name, adapter in devices.items() if adapter.lacks == info.name}
        elsewhere = {other for config in configs.values() for other in config.needs if other not in devices}
        others = {other: self._why_not(other, "that has it") for other in elsewhere}
        ready = [name for name, config in configs.items() if not any(others.get(n) for n in config.needs)]
        if not ready:
            return
        log.info("%s is there; trying %s again", info.name, ", ".join(ready))
        self._retrying = self._service.new_id()
        self._instructions.load_more(
            self._retrying, {name: configs[name].as_raw() for name in ready}, others, self._session_version
        )

    def _retried(self, event: Finished) -> None:
        self._retrying = None
        if event.error is not None:
            self._service.alarm(Severity.MAJOR, event.error.error_message, details=event.error.traceback)
        put_off, self._put_off = self._put_off, []
        for message in put_off:
            self._begin(message)
        if not put_off:
            self._watch_needs()

    # Interlocks, and devices that are to be read now and then

    def _follow_interlocks(self) -> None:
        """The definitions in force, those that are tripped, and every change from now on."""
        endpoint = MessageEndpoints.interlocks
        newest = self._broker.entries(endpoint, count=1, newest=True)
        cursor = newest[-1].entry_id if newest else "0"
        if newest and isinstance(newest[-1], Delivery):
            status = self._get(MessageEndpoints.interlock_status)
            self._take_interlocks(
                newest[-1].message, status if isinstance(status, InterlockStatusMessage) else None
            )
        self._inbox.follow(endpoint, cursor)

    def _take_interlocks(
        self, message: InterlocksMessage, status: InterlockStatusMessage | None = None
    ) -> None:
        self._interlocks = message
        self._guards.define(message, status)
        self._refreshed.clear()
        self._refresh()

    def _refresh(self) -> None:
        """Ask for readings; they come as `Refreshed`. A device that is still being asked is not asked again."""
        devices = self._loader.in_force
        watched = [name for name in self._guards.watched if name in devices]
        continuous = [
            name
            for name, adapter in devices.items()
            if adapter.config.readoutPriority is ReadoutPriority.CONTINUOUS and name not in watched
        ]
        wanted = watched or continuous or self._guards.is_armed
        self._refresh_due = self._clock.monotonic() + REFRESH_S if wanted else None
        for trip in self._guards.overdue():
            self._inbox.post(Tripped(trip))
        for name in [*watched, *continuous]:
            adapter = devices[name]
            if adapter.state != "ready" or name in self._refreshing:
                continue
            self._refreshing.add(name)
            future = self._instructions.lane(name).submit("read", adapter.read)
            future.add_done_callback(functools.partial(self._tell_refreshed, name))

    def _tell_refreshed(self, device: str, future: Future[Any]) -> None:
        error = future.exception()
        self._inbox.post(Refreshed(device, None if error is not None else future.result(), error))

    def _take_refreshed(self, event: Refreshed, batch: Batch) -> None:
        name = event.device
        self._refreshing.discard(name)
        if event.reading is None:
            self._guards.failed(name, failures.sentence(event.error or BECError("unknown"), name, "be read"))
            return
        self._guards.changed(name, event.reading)
        times = {signal: item.get("timestamp") for signal, item in event.reading.items()}
        if name in self._guards.watched or self._refreshed.get(name) != times:
            self._put_readback(batch, name, event.reading, self._clock.monotonic())
            self._refreshed[name] = times

    # What is written

    def _write_reply(self, response: DeviceInstructionResponse, batch: Batch) -> None:
        cursor = self._dispatch.cursor_after(response.instruction_id)
        self._append_response(response, batch)
        if cursor:
            batch.cursor(self._service.name, self._instruction_stream, cursor)

    def _append_response(self, response: DeviceInstructionResponse, batch: Batch) -> None:
        try:
            batch.append(self._responses, response)
        except MessageError as error:
            info = ErrorInfo(error_message=f"the result cannot be sent: {error}", code=error.reason)
            update = {"status": InstructionStatus.ERROR, "result": None, "error": info}
            batch.append(self._responses, response.model_copy(update=update))

    def _write_call(self, done: CallDone, batch: Batch) -> None:
        message = done.message
        batch.append(
            MessageEndpoints.device_rpc_response(message.client_id),
            DeviceRPCResponse(
                request_id=message.request_id,
                success=done.error is None,
                device=message.device,
                return_val=done.result,
                out=done.out,
                error=done.error,
            ),
        )
        endpoint, in_flight = self._requests[done.key]
        self._end_call(endpoint, in_flight, done.entry_id, batch)

    def _end_call(self, endpoint: Endpoint, in_flight: InFlight, entry_id: str, batch: Batch) -> None:
        cursor = in_flight.end(entry_id)
        if cursor:
            batch.cursor(self._service.name, endpoint, cursor)

    def _put_readback(self, batch: Batch, device: str, reading: Any, now: float) -> None:
        signals = self._publisher.publish(device, reading, now)
        batch.put(
            MessageEndpoints.device_readback(device),
            DeviceMessage.model_construct(signals=signals, metadata={}),
        )

    def _publish_due(self, batch: Batch) -> None:
        for device, signals in self._publisher.due(self._clock.monotonic()).items():
            batch.put(
                MessageEndpoints.device_readback(device),
                DeviceMessage.model_construct(signals=signals, metadata={}),
            )

    def _put_server_info(self, batch: Batch) -> None:
        batch.put(
            MessageEndpoints.device_server_info(self._name),
            DeviceServerInfoMessage(
                server=self._name,
                boot_id=self._boot_id,
                run_epoch=self._control.epochs.floor,
                session_version=self._session_version,
                loads=self._loads,
            ),
        )

    def _put_holders(self, batch: Batch) -> None:
        """Who has which devices now."""
        self._holders_told = (self._dispatch.owners_version, self._calls.version)
        owned: dict[Owner, list[str]] = {}
        for name, owner in self._dispatch.owners.items():
            owned.setdefault(owner, []).append(name)
        holders = [
            Holder(
                what=owner.what,
                devices=names,
                user=owner.user,
                scan_id=owner.scan_id if owner.scan_number else "",
            )
            for owner, names in owned.items()
        ]
        batch.put(
            MessageEndpoints.device_holders(self._name),
            DeviceHoldersMessage(server=self._name, holders=[*holders, *self._calls.writing.values()]),
        )

    def _commit(self, batch: Batch) -> None:
        if not batch.operations:
            return
        watch = self._timers.call_at(self._clock.monotonic() + BROKER_LOST_S, self._broker_lost)
        try:
            batch.commit()
        finally:
            watch.cancel()

    def _broker_lost(self) -> None:
        """On the timers' thread: the main thread is still trying to write."""
        names = self._involved(None)
        if names:
            log.error("the broker does not answer; stopping %s", ", ".join(sorted(names)))
            self._control.stop_lost(names)

    def _warn(self, event: Warn) -> None:
        self._service.alarm(
            Severity.WARNING, event.text, device=event.device, scan_id=event.scan_id, details=event.details
        )

    # Small questions

    def _involved(self, scan_id: str | None) -> set[str]:
        """Devices that a scan owns (of one, or of all), and for all those that clients move. From any thread."""
        owners = dict(self._dispatch.owners)
        if scan_id is not None:
            instructions = {
                message.instruction_id for message in self._dispatch.running() if message.scan_id == scan_id
            }
            return {
                n for n, owner in owners.items() if owner.scan_id == scan_id or owner.scan_id in instructions
            }
        return set(owners) | set(dict(self._calls.active))

    def _holders(self, names: Iterable[str]) -> set[str]:
        """The scans (and moves in the queue) that own any of these devices. From any thread."""
        owners = dict(self._dispatch.owners)
        held = {owners[name].scan_id for name in names if name in owners}
        # An instruction that nothing was staged for owns its devices itself.
        moves = {message.instruction_id: message.scan_id for message in self._dispatch.running()}
        return {scan_id for owner in held if (scan_id := moves.get(owner, owner)) is not None}

    def _moved_since(self, scan_id: str, epoch: int) -> set[str]:
        """What instructions of a scan that are later than an epoch move now. From any thread."""
        moved: set[str] = set()
        for message in self._dispatch.running():
            if message.scan_id == scan_id and message.run_epoch > epoch:
                match message.action:
                    case MoveDevices() as action:
                        moved.update(action.targets)
                    case RunPoints() as action:
                        moved.update(action.positions)
                    case SweepDevice() | CallDevice() as action:
                        moved.add(action.device)
        return moved

    def _is_mine(self, raw: Any) -> bool:
        return isinstance(raw, dict) and raw.get("deviceServer", "main") == self._name

    def _answers_for_unknown(self) -> bool:
        """One of the device servers answers calls of devices that nobody has."""
        return self._service.config.device_servers[:1] == [self._name]

    def _answers_for(self, device: str) -> bool:
        """Whether a call of a device that is not here is ours to answer: another device server may hold it."""
        if not self._answers_for_unknown():
            return False
        info = self._get(MessageEndpoints.device_info(device))
        return info is None or info.server == self._name

    def _is_prepare(self, instruction_id: str) -> bool:
        return any(
            message.instruction_id == instruction_id and isinstance(message.action, PrepareSession)
            for message in self._dispatch.running()
        )

    def _subscription(self, device: str) -> Any:
        publisher = self._publisher

        guards = self._guards

        def changed(signal: str, value: Any, timestamp: float) -> None:
            publisher.changed(device, signal, value, timestamp)
            guards.changed(device, {signal: {"value": value, "timestamp": timestamp}})

        return changed

    def _get(self, endpoint: Endpoint) -> Any:
        with contextlib.suppress(BECError):
            found = self._broker.get(endpoint)
            return None if found is None else found.message
        log.error("%s cannot be read; going on without it", endpoint.key)
        return None

    @property
    def devices(self) -> Mapping[str, DeviceAdapter]:
        return self._loader.in_force


def build_app(service: Service) -> DeviceServer:
    """For `bec_lib.service.run`."""
    return DeviceServer(service, getattr(service.options, "name", None) or "main")
