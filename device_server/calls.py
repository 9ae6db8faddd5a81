"""How is a client's call of a device carried out? Checked, run on the device's lane, waited for, answered.

Reads pass whoever owns the device, and identical reads that wait at the same time share one result. A call that
returns a status is answered when the status is done, without a thread waiting for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bec_lib.errors import DeviceError, ReasonCode
from bec_lib.messages import DeviceInfoMessage, DeviceRPCMessage, ErrorInfo, Holder
from device_server import failures, output
from device_server.access import Call, Effect
from device_server.adapter import DeviceAdapter
from device_server.dispatch import DispatchState
from device_server.instructions import Instructions, failure_of, usable

log = logging.getLogger(__name__)


@dataclass(slots=True)
class CallDone:
    """Posted: a call has ended. reading, info: made after a change, to be published."""

    message: DeviceRPCMessage
    key: str
    entry_id: str
    result: Any = None
    out: str = ""
    error: ErrorInfo | None = None
    reading: Mapping[str, Mapping[str, Any]] | None = None
    info: DeviceInfoMessage | None = None


@dataclass(slots=True)
class Calls:
    """active: devices that clients have set in motion, with how many calls; by the main thread. writing: those of the
    calls that move or configure, and by whom, with how often that has changed in `version`.
    """

    server: str
    instructions: Instructions
    dispatch: DispatchState
    devices: Callable[[], Mapping[str, DeviceAdapter]]
    post: Callable[[Any], None]
    active: dict[str, int] = field(default_factory=dict)
    writing: dict[str, Holder] = field(default_factory=dict)
    version: int = 0

    def begin(self, message: DeviceRPCMessage, key: str, entry_id: str, user: str = "") -> CallDone | None:
        """Begin a call; `CallDone` at once if it is refused, else it is posted. key: of the stream it came by."""
        device = message.device
        try:
            adapter = usable(self.devices(), device, self.server)
            call = adapter.permitted(message.func, assign=message.kind == "set")
            if call.effect is Effect.WRITE:
                if adapter.read_only:
                    raise DeviceError(
                        f"{device} is read-only: {message.func} is refused (readOnly in its configuration)",
                        code=ReasonCode.NOT_ALLOWED,
                        device=device,
                    )
                self.dispatch.refuse_if_owned(device, _doing(message))
            elif call.effect is Effect.STOP and adapter.read_only:
                raise DeviceError(
                    f"{device} is read-only and is never stopped", code=ReasonCode.NOT_ALLOWED, device=device
                )
        except DeviceError as error:
            return CallDone(message, key, entry_id, error=failures.failure(error, device, message.func))
        if call.effect is Effect.WRITE:
            self.version += 1
            what = f"dev.{device}.{message.func}"
            self.writing[message.request_id] = Holder(what=what, devices=[device], user=user)
        self._run(adapter, call, message, key, entry_id)
        return None

    def in_use(self) -> dict[str, str]:
        """Device -> who moves or configures it, of those that clients do. From any thread."""
        return {name: str(holder) for holder in list(self.writing.values()) for name in holder.devices}

    def ended(self, done: CallDone) -> None:
        """A posted call is being answered. Called by the main thread."""
        if self.writing.pop(done.message.request_id, None) is not None:
            self.version += 1
        left = self.active.get(done.message.device, 0) - 1
        if left > 0:
            self.active[done.message.device] = left
        else:
            self.active.pop(done.message.device, None)

    def _run(
        self, adapter: DeviceAdapter, call: Call, message: DeviceRPCMessage, key: str, entry_id: str
    ) -> None:
        done = CallDone(message, key, entry_id)

        def work() -> tuple[Any, str]:
            with output.captured() as buffer:
                result = adapter.call(call, message.args, message.kwargs)
            return result, output.text_of(buffer)

        def finish(error: BaseException | None) -> None:
            if error is not None:
                done.error = failures.failure(error, message.device, f"do {message.func}")
            elif call.effect is not Effect.READ:
                self._read_after(adapter, done, described_anew=call.assign)
                return
            self.post(done)

        def ran(future: Any) -> None:
            error = future.exception()
            if error is not None:
                finish(error)
                return
            result, done.out = future.result()
            if hasattr(result, "add_callback") and hasattr(result, "done"):
                result.add_callback(lambda *_: finish(failure_of(result)))
            else:
                done.result = result
                finish(None)

        if call.effect is Effect.STOP:
            # Past all lanes: a stop must not wait for what it is to stop.
            self.active[message.device] = self.active.get(message.device, 0) + 1
            self.instructions.submit(work, ran)
            return
        self.active[message.device] = self.active.get(message.device, 0) + 1
        lane = self.instructions.lane(message.device, writes=call.effect is Effect.WRITE)
        if call.effect is Effect.READ:
            operation = (
                f"{message.func}{message.args!r}{message.kwargs!r}"
                if message.args or message.kwargs
                else message.func
            )
            lane.share(operation, work).add_done_callback(ran)
        else:
            lane.submit(message.func, work).add_done_callback(ran)

    def _read_after(self, adapter: DeviceAdapter, done: CallDone, *, described_anew: bool) -> None:
        """What was changed is seen by everybody: read the device, then answer."""

        def look() -> None:
            if described_anew:
                done.info = adapter.info()
            done.reading = adapter.read()

        def ran(_: Any) -> None:
            self.post(done)

        self.instructions.lane(adapter.name).submit("read-back", look).add_done_callback(ran)


def _doing(message: DeviceRPCMessage) -> str:
    if message.kind == "set":
        return f"set its {message.func}"
    return f"call {message.func}"
