"""The scan server as a whole, on fakeredis, with a fake device server that answers instructions.

The fake does what the instructions say to numbers in a dict; it knows neither epochs beyond stops nor devices that fail,
except one called `broken`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import ReasonCode
from bec_lib.messages import (
    ClientHelloMessage,
    CommitSession,
    ConfigAction,
    ControlKind,
    DeviceConfigMessage,
    DeviceControlMessage,
    DeviceInfoMessage,
    DeviceInstructionResponse,
    DeviceMessage,
    DeviceSessionMessage,
    ErrorInfo,
    InstructionStatus,
    MoveDevices,
    PrepareSession,
    QueueAction,
    ReadBaseline,
    ReadingsMessage,
    RequestDoneMessage,
    RunPoints,
    ScanNumberMessage,
    ScanQueueMessage,
    ScanQueueModificationMessage,
    ScanState,
    StageDevices,
)
from bec_lib.scans import Point, Points, PointScan, Steps, describe_scan
from bec_lib.service import Service, ServiceConfig
from bec_lib.testing import fake_broker, fake_server
from scan_server import queue_log
from scan_server.app import TURN_EVENTS, ScanServer
from scan_server.catalogue import Catalogue, load_catalogue

WAIT_S = 10.0


def raw(priority: str, **more: Any) -> dict[str, Any]:
    return {"deviceClass": "a.B", "enabled": True, "readoutPriority": priority, **more}


DEVICES = {
    "samx": raw("baseline"),
    "samy": raw("baseline"),
    "broken": raw("baseline"),
    "off": raw("baseline", enabled=False),
    "ro": raw("baseline", readOnly=True),
    "bpm4i": raw("monitored"),
}


class FakeDeviceServer(threading.Thread):
    """Answers instructions in order. hold: points wait until it is set, which is how a test stops time."""

    def __init__(self, broker: Broker, boot_id: str = "boot-1"):
        super().__init__(daemon=True)
        self.broker = broker
        self.boot_id = boot_id
        self.positions = {"samx": 0.5, "samy": 0.0, "broken": 0.0}
        self.seen: list[str] = []
        self.stopped: dict[str, int] = {}
        self.go = threading.Event()
        self.go.set()
        self.at_points = threading.Event()
        self.deaf = False
        self.hold_sessions = False
        self.forgets_session = False
        self.at_session = threading.Event()
        self.ending = False
        self.replies = MessageEndpoints.device_instructions_response("main")

    def run(self) -> None:
        cursors = {MessageEndpoints.device_instructions("main"): "0", MessageEndpoints.device_control: "0"}
        while not self.ending:
            for item in self.broker.read(cursors, block_s=0.05):
                assert isinstance(item, Delivery)
                cursors[item.endpoint] = item.entry_id
                if isinstance(item.message, DeviceControlMessage):
                    self.control(item.message)
                else:
                    self.instruction(item.message, cursors)

    def control(self, message: DeviceControlMessage) -> None:
        self.seen.append(message.kind.value)
        if message.kind is ControlKind.STOP and message.scan_id:
            self.stopped[message.scan_id] = max(self.stopped.get(message.scan_id, 0), message.run_epoch)

    def instruction(self, message: Any, cursors: dict[Endpoint, str]) -> None:
        action = message.action
        if isinstance(action, RunPoints):
            self.at_points.set()
            while not self.go.wait(0.01) and not self.ending:
                for item in self.broker.read(
                    {MessageEndpoints.device_control: cursors[MessageEndpoints.device_control]}
                ):
                    cursors[MessageEndpoints.device_control] = item.entry_id
                    self.control(item.message)  # type: ignore[union-attr]
                if message.run_epoch <= self.stopped.get(message.scan_id, -1) and not self.deaf:
                    break
        if isinstance(action, PrepareSession) and self.hold_sessions:
            self.at_session.set()
            self.go.wait(WAIT_S)
        self.seen.append(action.kind)
        if message.run_epoch <= self.stopped.get(message.scan_id, -1):
            self.reply(message, InstructionStatus.STOPPED)
        elif isinstance(action, CommitSession) and self.forgets_session:
            self.forgets_session = False
            error = ErrorInfo(error_message="nothing is prepared", code=ReasonCode.WRONG_STATE)
            self.reply(message, InstructionStatus.ERROR, error=error)
        elif isinstance(action, (RunPoints, MoveDevices)) and "broken" in self.targets(action):
            error = ErrorInfo(
                error_message="broken does not move", code=ReasonCode.DEVICE_FAILED, device="broken"
            )
            self.reply(message, InstructionStatus.ERROR, error=error)
        else:
            self.reply(message, InstructionStatus.COMPLETED, result=self.do(message))

    def targets(self, action: RunPoints | MoveDevices) -> dict[str, Any]:
        return action.positions if isinstance(action, RunPoints) else action.targets

    def do(self, message: Any) -> Any:
        match message.action:
            case StageDevices(monitored=monitored, baseline=baseline):
                return {
                    "devices": [
                        {"name": name, "signals": [{"signal": name, "unit": "mm"}]}
                        for name in [*monitored, *baseline]
                    ]
                }
            case ReadBaseline():
                self.readings(message.scan_id, "baseline", 0, 1, [[1.0]])
            case RunPoints() as points:
                columns = [*points.positions.values(), [7.0] * points.count]
                for name, targets in points.positions.items():
                    self.positions[name] = targets[-1]
                self.readings(message.scan_id, "monitored", points.first_index, points.count, columns)
            case MoveDevices(targets=targets):
                self.positions.update(targets)
                for name in targets:
                    self.tell_position(name)
            case PrepareSession(devices=devices):
                failed = {name: "it does not answer" for name in devices if name == "broken"}
                return {"ready": [name for name in devices if name not in failed], "failed": failed}
        return None

    def readings(self, scan_id: str, group: str, first: int, count: int, columns: list[Any]) -> None:
        self.broker.append(
            MessageEndpoints.scan_readings(scan_id),
            ReadingsMessage(
                scan_id=scan_id,
                group=group,
                first_index=first,
                count=count,
                values=columns,
                device_times=columns,
                server_times=[0.0] * count,
            ),
        )

    def tell_position(self, name: str) -> None:
        signals = {name: {"value": self.positions[name], "timestamp": 0.0}}
        self.broker.put(MessageEndpoints.device_readback(name), DeviceMessage(signals=signals))

    def reply(self, message: Any, status: InstructionStatus, **more: Any) -> None:
        self.broker.append(
            self.replies,
            DeviceInstructionResponse(
                instruction_id=message.instruction_id,
                scan_id=message.scan_id,
                status=status,
                boot_id=self.boot_id,
                **more,
            ),
        )


class Beamline:
    """A scan server in a thread, a fake device server, and a client."""

    def __init__(self, folder: Path, catalogue: Catalogue | None = None):
        self.catalogue = catalogue
        self.redis = fake_server()
        self.config = ServiceConfig(data_path=folder / "data", state_path=folder)
        self.client = fake_broker(self.redis, service="client", instance="c1", user="ada")
        self.count = 0
        session = DeviceSessionMessage(version=1, devices=DEVICES, failed={"broken": ""}, hash="h")
        self.client.put(MessageEndpoints.device_session, session)
        self.devices = FakeDeviceServer(fake_broker(self.redis))
        for name in DEVICES:
            limits = [-10.0, 10.0] if name.startswith("sam") else None
            info = DeviceInfoMessage(name=name, limits=limits, unit="mm", hints=[name])
            self.client.put(MessageEndpoints.device_info(name), info)
            if name in self.devices.positions:
                self.devices.tell_position(name)
        self.client.append(MessageEndpoints.client_hello, ClientHelloMessage(user="ada", client_id="c1"))
        self.devices.start()
        self.start_server()

    def start_server(self) -> None:
        broker = fake_broker(self.redis, service="scan_server", instance=f"s{self.count}")
        self.service = Service("scan_server", self.config, broker)
        self.app = ScanServer(self.service, self.catalogue)
        self.thread = threading.Thread(target=self.service.loop, args=(self.app,), daemon=True)
        self.thread.start()

    def stop_server(self) -> None:
        self.service.request_stop()
        self.service.inbox.post(None)  # type: ignore[attr-defined]
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self.service.close()

    def close(self) -> None:
        self.devices.ending = True
        self.devices.go.set()
        self.stop_server()
        self.devices.join(WAIT_S)

    # The client

    def send(self, message: Any) -> str:
        self.client.append(MessageEndpoints.scan_queue_request("ada"), message)
        return str(message.request_id)

    def next_request(self) -> str:
        self.count += 1
        return f"r{self.count}"

    def submit(
        self, scan: str, *args: Any, queue: str = "primary", metadata: Any = None, **kwargs: Any
    ) -> str:
        return self.send(
            ScanQueueMessage(
                request_id=self.next_request(),
                client_id="c1",
                scan_type=scan,
                args=list(args),
                kwargs=kwargs,
                queue=queue,
                metadata=metadata or {},
            )
        )

    def command(self, action: QueueAction, **more: Any) -> Any:
        request = ScanQueueModificationMessage(
            request_id=self.next_request(), client_id="c1", action=action, **more
        )
        return self.answer(self.send(request))

    def replies(self, request_id: str, kind: str, count: int = 1) -> list[Any]:
        stream = MessageEndpoints.request_response("c1")
        found: list[Any] = []
        cursor = "0"
        deadline = self.client.clock.monotonic() + WAIT_S
        while len(found) < count:
            assert self.client.clock.monotonic() < deadline, f"no {kind} for {request_id}"
            for item in self.client.read({stream: cursor}, block_s=1.0):
                assert isinstance(item, Delivery)
                cursor = item.entry_id
                if item.message.request_id == request_id and item.message.msg_type == kind:
                    found.append(item.message)
        return found

    def answer(self, request_id: str) -> Any:
        return self.replies(request_id, "request_response")[0]

    def done(self, request_id: str) -> RequestDoneMessage:
        message: RequestDoneMessage = self.replies(request_id, "request_done")[0]
        return message

    def statuses(self, scan_id: str) -> list[Any]:
        return [
            item.message
            for item in self.client.entries(MessageEndpoints.scan_status)
            if isinstance(item, Delivery) and item.message.scan_id == scan_id
        ]

    def messages(self, stream: Endpoint) -> list[Any]:
        return [item.message for item in self.client.entries(stream) if isinstance(item, Delivery)]

    def logged(self) -> int:
        """Events of the queues since their state was written as a whole."""
        return sum(len(message.events) for message in self.messages(MessageEndpoints.queue_log))

    def points(self, scan_id: str) -> list[int]:
        """The indices of the points that were committed, in order."""
        found: list[int] = []
        for item in self.client.entries(MessageEndpoints.scan_readings(scan_id)):
            assert isinstance(item, Delivery)
            message = item.message
            if message.group == "monitored":
                found += range(message.first_index, message.first_index + message.count)
        return found


@pytest.fixture
def beamline(tmp_path: Path) -> Iterator[Beamline]:
    made = Beamline(tmp_path)
    yield made
    made.close()


def test_the_time_that_is_told_at_its_begin_is_that_of_the_dry_run(beamline: Beamline) -> None:
    line = {"scan_type": "line_scan", "client_id": "c1", "args": ["samx", -1, 1], "kwargs": {"steps": 5}}
    dry = ScanQueueMessage(request_id=beamline.next_request(), dry_run=True, **line)
    plan = beamline.answer(beamline.send(dry)).result
    request = beamline.send(ScanQueueMessage(request_id=beamline.next_request(), **line))
    scan_id = beamline.answer(request).scan_id
    assert beamline.done(request).success
    opened = beamline.statuses(scan_id)[0]
    assert opened.estimated_s == pytest.approx(plan["estimated_s"])


def test_a_line_scan_goes_from_request_to_closed(beamline: Beamline) -> None:
    request = beamline.submit("line_scan", "samx", -1, 1, steps=150, exp_time=0.1, metadata={"sample": "Si"})
    answer = beamline.answer(request)
    assert answer.accepted and answer.scan_id
    assert beamline.done(request).success
    opened, closed = beamline.statuses(answer.scan_id)
    assert (opened.status, closed.status) == (ScanState.OPEN, ScanState.CLOSED)
    assert opened.scan_number == 1 and opened.user == "ada" and opened.user_metadata == {"sample": "Si"}
    assert opened.readout.monitored == ["samx", "bpm4i"]
    assert opened.readout.baseline == ["samy", "ro", "broken"] or set(opened.readout.baseline) == {
        "samy",
        "ro",
        "broken",
    }
    assert opened.file.stem.endswith("S00000-00999/S00001/S00001")
    assert closed.num_readouts == 150
    assert beamline.points(answer.scan_id) == list(range(150))
    schema = beamline.client.entries(MessageEndpoints.scan_schema(answer.scan_id))
    assert [s.device for s in schema[0].message.signals] == ["samx", "bpm4i"]  # type: ignore[union-attr]
    positions = beamline.client.get(MessageEndpoints.scan_positions(answer.scan_id))
    assert positions is not None and positions.message.positions.shape == (150, 1)
    assert beamline.devices.seen == [
        "stage", "pre_scan", "baseline", "points", "points", "points", "complete", "unstage",
    ]  # fmt: skip


def test_mv_is_one_instruction_and_a_relative_one_starts_where_the_motor_is(beamline: Beamline) -> None:
    assert beamline.done(beamline.submit("mv", "samx", 2)).success
    assert beamline.done(beamline.submit("umv", "samx", 0.25, relative=True)).success
    assert beamline.devices.positions["samx"] == 2.25
    assert beamline.devices.seen == ["move", "move"]


def test_a_relative_scan_goes_back(beamline: Beamline) -> None:
    request = beamline.submit("line_scan", "samx", -1, 1, steps=3, relative=True)
    assert beamline.done(request).success
    assert beamline.devices.positions["samx"] == 0.5
    positions = beamline.client.get(MessageEndpoints.scan_positions(beamline.answer(request).scan_id))
    assert positions is not None and positions.message.positions[:, 0].tolist() == [-0.5, 0.5, 1.5]


@pytest.mark.parametrize(
    ("scan", "args", "kwargs", "code", "text"),
    [
        ("line_scna", ("samx", 0, 1), {"steps": 3}, ReasonCode.UNKNOWN_SCAN, "Did you mean line_scan"),
        ("line_scan", ("samx", 0), {"steps": 3}, ReasonCode.INVALID_ARGUMENT, "groups of 3"),
        ("line_scan", ("smax", 0, 1), {"steps": 3}, ReasonCode.UNKNOWN_DEVICE, "Did you mean samx"),
        ("line_scan", ("off", 0, 1), {"steps": 3}, ReasonCode.DEVICE_DISABLED, "off is disabled"),
        ("mv", ("ro", 1), {}, ReasonCode.NOT_ALLOWED, "ro is read-only"),
        ("line_scan", ("samx", 0, 11), {"steps": 12}, ReasonCode.LIMIT, "11 mm (point 12)"),
        ("mv", ("samx", 11, "samy", -12), {}, ReasonCode.LIMIT, "samy cannot move to -12 mm"),
        (
            "line_scan",
            ("samx", 0, 1),
            {"steps": 10_000_000},
            ReasonCode.INVALID_ARGUMENT,
            "10,000,000 points",
        ),
    ],
)
def test_what_cannot_run_is_refused_in_words(
    beamline: Beamline, scan: str, args: Any, kwargs: Any, code: ReasonCode, text: str
) -> None:
    answer = beamline.answer(beamline.submit(scan, *args, **kwargs))
    assert not answer.accepted
    assert answer.code == code
    assert text in answer.message
    assert beamline.devices.seen == []


def test_a_repeated_request_gets_the_first_answer_and_runs_once(beamline: Beamline) -> None:
    message = ScanQueueMessage(request_id="same", client_id="c1", scan_type="acquire")
    beamline.send(message)
    assert beamline.done("same").success
    beamline.send(message)
    first, second = beamline.replies("same", "request_response", count=2)
    assert first == second
    assert beamline.devices.seen.count("stage") == 1


def test_a_malformed_request_is_answered_and_the_service_lives_on(beamline: Beamline) -> None:
    stream = MessageEndpoints.scan_queue_request("ada")
    good = ScanQueueMessage(request_id="bad", client_id="c1", scan_type="acquire")
    bad = good.model_copy(update={"args": 7})
    beamline.client.append(stream, bad)
    answer = beamline.answer("bad")
    assert answer.code == ReasonCode.MALFORMED and "args" in answer.message
    beamline.client.redis.xadd(beamline.client.key(stream), {"d": b"\x00rubbish"})
    beamline.client.redis.xadd(beamline.client.key(stream), {"other": b"1"})
    assert beamline.done(beamline.submit("acquire")).success


def test_a_device_that_fails_ends_its_scan_with_its_words_and_no_other(beamline: Beamline) -> None:
    first = beamline.submit("line_scan", "broken", 0, 1, steps=3)
    second = beamline.submit("acquire")
    done = beamline.done(first)
    assert not done.success and done.error is not None
    assert done.error.error_message == "broken does not move"
    assert beamline.done(second).success
    last = beamline.statuses(beamline.answer(first).scan_id)[-1]
    assert (last.status, last.reason, last.num_readouts) == (ScanState.ABORTED, "alarm", 0)


def test_abort_in_the_middle(beamline: Beamline) -> None:
    beamline.devices.go.clear()
    request = beamline.submit("line_scan", "samx", 0, 1, steps=100, relative=True)
    waiting = beamline.submit("acquire")
    assert beamline.devices.at_points.wait(WAIT_S)
    assert beamline.command(QueueAction.ABORT).accepted
    done = beamline.done(request)
    assert not done.success and done.error is not None and done.error.code == ReasonCode.ABORTED
    assert "aborted by ada" in done.error.error_message
    beamline.devices.go.set()
    last = beamline.statuses(beamline.answer(request).scan_id)[-1]
    assert (last.status, last.reason) == (ScanState.ABORTED, "user")
    assert beamline.devices.positions["samx"] == 0.5
    assert beamline.command(QueueAction.CONTINUE).accepted
    assert beamline.done(waiting).success


def test_pause_and_continue(beamline: Beamline) -> None:
    beamline.devices.go.clear()
    request = beamline.submit("line_scan", "samx", 0, 1, steps=10)
    assert beamline.devices.at_points.wait(WAIT_S)
    assert beamline.command(QueueAction.PAUSE).accepted
    refused = beamline.command(QueueAction.PAUSE)
    assert not refused.accepted and "is paused already" in refused.message
    assert beamline.command(QueueAction.CONTINUE).accepted
    beamline.devices.go.set()
    assert beamline.done(request).success
    states = [status.status for status in beamline.statuses(beamline.answer(request).scan_id)]
    assert states == [ScanState.OPEN, ScanState.PAUSED, ScanState.OPEN, ScanState.CLOSED]


def test_commands_that_make_no_sense_are_answered(beamline: Beamline) -> None:
    assert "nothing runs" in beamline.command(QueueAction.ABORT).message
    assert "not paused" in beamline.command(QueueAction.CONTINUE).message
    answer = beamline.command(QueueAction.PAUSE, queue="primray")
    assert answer.code == ReasonCode.UNKNOWN_QUEUE and "Did you mean primary" in answer.message
    assert beamline.command(QueueAction.ABORT, scan_id="nope").code == ReasonCode.NOT_FOUND


def test_a_scan_goes_on_where_it_was_when_the_scan_server_is_started_again(beamline: Beamline) -> None:
    beamline.devices.go.clear()
    request = beamline.submit("line_scan", "samx", -1, 1, steps=500, relative=True)
    pending = beamline.submit("acquire")
    assert beamline.devices.at_points.wait(WAIT_S)
    scan_id = beamline.answer(request).scan_id
    beamline.answer(pending)
    beamline.stop_server()
    beamline.start_server()
    beamline.devices.go.set()
    assert beamline.done(request).success
    assert beamline.points(scan_id) == list(range(500))
    states = [status.status for status in beamline.statuses(scan_id)]
    assert states == [ScanState.OPEN, ScanState.CLOSED]
    assert beamline.devices.positions["samx"] == 0.5
    assert beamline.done(pending).success
    numbers = {status.scan_number for status in beamline.statuses(beamline.answer(pending).scan_id)}
    assert numbers == {2}


@pytest.mark.parametrize(
    ("policy", "states", "taken"),
    [
        ("pause", [ScanState.OPEN, ScanState.PAUSED, ScanState.OPEN, ScanState.CLOSED], 500),
        ("abort", [ScanState.OPEN, ScanState.ABORTED], 0),
    ],
)
def test_the_recovery_policy_is_obeyed(
    beamline: Beamline, policy: Any, states: list[ScanState], taken: int
) -> None:
    beamline.devices.go.clear()
    request = beamline.submit("line_scan", "samx", -1, 1, steps=500)
    assert beamline.devices.at_points.wait(WAIT_S)
    scan_id = beamline.answer(request).scan_id
    beamline.stop_server()
    beamline.config = beamline.config.model_copy(update={"recovery": policy})
    beamline.start_server()
    if policy == "pause":
        beamline.devices.go.set()
        assert beamline.command(QueueAction.CONTINUE, scan_id=scan_id).accepted
    done = beamline.done(request)
    assert done.success == (policy == "pause")
    assert [status.status for status in beamline.statuses(scan_id)] == states
    assert beamline.points(scan_id) == list(range(taken))
    if done.error is not None:
        assert "`recovery: abort` is configured" in done.error.error_message


def test_an_abort_that_was_under_way_is_ended_by_the_next_life(beamline: Beamline) -> None:
    """The queue knew of the abort; the worker died with the clean-up unanswered."""
    beamline.devices.go.clear()
    request = beamline.submit("line_scan", "samx", -1, 1, steps=500)
    assert beamline.devices.at_points.wait(WAIT_S)
    beamline.devices.deaf = True
    assert beamline.command(QueueAction.ABORT).accepted
    beamline.stop_server()
    beamline.start_server()
    beamline.devices.deaf = False
    done = beamline.done(request)
    assert not done.success
    states = [status.status for status in beamline.statuses(beamline.answer(request).scan_id)]
    assert states == [ScanState.OPEN, ScanState.ABORTED]


def test_a_change_of_the_session_that_was_under_way_is_made_by_the_next_life(beamline: Beamline) -> None:
    beamline.devices.go.clear()
    beamline.devices.hold_sessions = True
    request = DeviceConfigMessage(
        request_id="cfg", client_id="c1", action=ConfigAction.SET, devices={"a": raw("monitored")}
    )
    beamline.send(request)
    assert beamline.devices.at_session.wait(WAIT_S)
    beamline.stop_server()
    beamline.start_server()
    beamline.devices.go.set()
    answer = beamline.answer("cfg")
    assert answer.accepted and answer.result["loaded"] == ["a"]
    assert beamline.done(beamline.submit("acquire")).success


def test_numbers_go_on_behind_the_files(tmp_path: Path) -> None:
    (tmp_path / "data" / "p1" / "S01000-01999" / "S01234").mkdir(parents=True)
    (tmp_path / "data" / "S00000-00999" / "S00007").mkdir(parents=True)
    beamline = Beamline(tmp_path)
    try:
        request = beamline.submit("acquire")
        assert beamline.done(request).success
        assert beamline.statuses(beamline.answer(request).scan_id)[0].scan_number == 1235
        number = beamline.client.get(MessageEndpoints.scan_number)
        assert number is not None and number.message == ScanNumberMessage(scan_number=1235)
    finally:
        beamline.close()


def test_queues_run_side_by_side_unless_they_want_the_same_device(beamline: Beamline) -> None:
    beamline.devices.go.clear()
    first = beamline.submit("line_scan", "samx", 0, 1, steps=2)
    assert beamline.devices.at_points.wait(WAIT_S)
    blocked = beamline.submit("line_scan", "samy", 0, 1, steps=2, queue="second")
    free = beamline.submit("mv", "samy", 3, queue="third")
    beamline.devices.go.set()
    for request in (first, blocked, free):
        assert beamline.done(request).success
    waited = [
        item.waiting_for
        for event in beamline.client.entries(MessageEndpoints.queue_events)
        for item in event.message.queues.get("second", event.message.queues["primary"]).items  # type: ignore[union-attr]
    ]
    assert "scan 1 (line_scan) of ada in the queue primary, which has bpm4i" in waited


def test_what_waits_is_edited_moved_and_removed_and_survives_a_restart(beamline: Beamline) -> None:
    """From the log: the queues' state as a whole was written before all this."""
    beamline.devices.go.clear()
    beamline.submit("acquire")
    assert beamline.devices.at_points.wait(WAIT_S)
    waiting = [beamline.submit("mv", "samx", position) for position in (1, 2, 3)]
    first, second, third = (beamline.answer(request).scan_id for request in waiting)
    edit = {"args": ["samx", 20]}
    answer = beamline.command(QueueAction.EDIT, scan_id=first, parameter=edit)
    assert answer.code == ReasonCode.LIMIT and "20" in answer.message
    answer = beamline.command(QueueAction.EDIT, scan_id=first, parameter={"client_id": "eve"})
    assert "client_id of a request cannot be edited" in answer.message
    assert beamline.command(QueueAction.EDIT, scan_id=first, parameter={"args": ["samy", 4]}).accepted
    assert beamline.command(QueueAction.MOVE_TOP, scan_id=third).accepted
    assert beamline.command(QueueAction.REMOVE, scan_id=second).accepted
    assert not beamline.done(waiting[1]).success
    again = beamline.command(QueueAction.REMOVE, scan_id=second)
    assert again.code == ReasonCode.WRONG_STATE
    assert again.message == "mv was taken out of the queue already, so there is nothing to remove"
    shown = beamline.command(QueueAction.SHOW, parameter={"first": 2, "count": 10}).result
    assert [item["scan_id"] for item in shown["items"]] == [third, first]
    beamline.stop_server()
    assert beamline.logged() == 8
    beamline.start_server()
    beamline.devices.go.set()
    assert beamline.done(waiting[0]).success and beamline.done(waiting[2]).success
    assert beamline.devices.positions["samx"] == 3 and beamline.devices.positions["samy"] == 4


def test_the_state_is_written_as_a_whole_now_and_then(beamline: Beamline) -> None:
    assert beamline.command(QueueAction.PAUSE).accepted
    for k in range(queue_log.AT_LEAST + 20):
        request = beamline.submit("mv", "samx", k % 3)
    assert beamline.answer(request).accepted
    # None at all, if the last turn was the one that has written it.
    assert beamline.logged() < queue_log.AT_LEAST
    beamline.stop_server()
    beamline.start_server()
    assert beamline.command(QueueAction.CONTINUE).accepted
    assert beamline.done(request).success


def test_who_sends_thousands_holds_up_nobody(beamline: Beamline) -> None:
    """Requests of a second user are answered before the rest of a flood."""
    beamline.client.append(MessageEndpoints.client_hello, ClientHelloMessage(user="eve", client_id="c2"))
    assert beamline.command(QueueAction.PAUSE).accepted
    flood = [
        ScanQueueMessage(request_id=f"f{k}", client_id="c1", scan_type="mv", args=["samx", 1])
        for k in range(3 * TURN_EVENTS)
    ]
    batch = beamline.client.batch()
    for message in flood:
        batch.append(MessageEndpoints.scan_queue_request("ada"), message)
    lock = ScanQueueModificationMessage(
        request_id="lock", client_id="c1", action=QueueAction.LOCK, parameter={"reason": "shift"}
    )
    batch.append(MessageEndpoints.scan_queue_request("eve"), lock).commit()
    assert beamline.answer(flood[-1].request_id).accepted and beamline.answer("lock").accepted
    order = [answer.request_id for answer in beamline.messages(MessageEndpoints.request_response("c1"))]
    assert order.index("lock") < order.index(flood[-1].request_id)


def configure(beamline: Beamline, action: ConfigAction, devices: dict[str, Any]) -> Any:
    request = DeviceConfigMessage(
        request_id=beamline.next_request(), client_id="c1", action=action, devices=devices
    )
    return beamline.answer(beamline.send(request))


def test_a_device_server_that_was_started_anew_before_it_could_commit_prepares_again(
    beamline: Beamline,
) -> None:
    beamline.devices.forgets_session = True
    assert configure(beamline, ConfigAction.SET, {"a": raw("monitored")}).accepted
    assert beamline.devices.seen == ["prepare_session", "commit_session"] * 2


def test_a_new_session_names_the_devices_that_failed_and_keeps_the_others(beamline: Beamline) -> None:
    answer = configure(beamline, ConfigAction.SET, {"a": raw("monitored"), "broken": raw("baseline")})
    assert answer.accepted
    assert answer.result == {
        "version": 2,
        "loaded": ["a"],
        "failed": {"broken": "it does not answer"},
        "kept": {},
    }
    session = beamline.client.get(MessageEndpoints.device_session)
    assert session is not None and list(session.message.devices) == ["a", "broken"]
    assert beamline.devices.seen == ["prepare_session", "commit_session"]
    assert beamline.done(beamline.submit("acquire")).success


def test_a_session_that_cannot_be_is_refused_whole(beamline: Beamline) -> None:
    answer = configure(beamline, ConfigAction.UPDATE, {"nope": {"enabled": False}, "samx": {"enabeld": True}})
    assert answer.code == ReasonCode.CONFIG and "nope" in answer.message
    answer = configure(beamline, ConfigAction.ADD, {"a": {"deviceClass": "x.Y"}})
    assert answer.code == ReasonCode.CONFIG and "readoutPriority" in answer.message
    answer = configure(beamline, ConfigAction.ADD, {"a": raw("baseline", deviceServer="far")})
    assert "'far'" in answer.message
    assert beamline.devices.seen == []


def test_the_session_stays_while_a_scan_runs(beamline: Beamline) -> None:
    beamline.devices.go.clear()
    request = beamline.submit("acquire")
    assert beamline.devices.at_points.wait(WAIT_S)
    answer = configure(beamline, ConfigAction.RESET, {})
    assert answer.code == ReasonCode.WRONG_STATE and "scan 1 (acquire)" in answer.message
    beamline.devices.go.set()
    assert beamline.done(request).success


# Plugins that misbehave

released = threading.Event()
entered = threading.Event()


class Endless(PointScan):
    """Its positions never come."""

    scan_name = "endless"

    def positions(self) -> None:
        released.wait(WAIT_S)


class Stuck(PointScan):
    """Takes a point, and then its code does not return."""

    scan_name = "stuck"

    def run(self) -> Steps:
        yield Point()
        entered.set()
        released.wait(WAIT_S)
        yield Points(5)


class Exits(PointScan):
    """Tries to end the process."""

    scan_name = "exits"

    def run(self) -> Steps:
        yield Points(1)
        raise SystemExit(7)


@pytest.fixture
def with_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beamline]:
    monkeypatch.setattr("scan_server.plugin_code.PLUGIN_S", 0.2)
    monkeypatch.setattr("scan_server.app.STUCK_S", 0.2)
    catalogue = load_catalogue()
    for kind in (Endless, Stuck, Exits):
        catalogue.classes[kind.scan_name] = kind
        catalogue.infos[kind.scan_name] = describe_scan(kind, "theirs")
    released.clear()
    entered.clear()
    made = Beamline(tmp_path, catalogue)
    yield made
    released.set()
    made.close()


def test_a_plugin_whose_positions_never_come_is_refused(with_plugins: Beamline) -> None:
    answer = with_plugins.answer(with_plugins.submit("endless"))
    assert answer.code == ReasonCode.TIMEOUT and "endless (plugin theirs)" in answer.message
    assert with_plugins.done(with_plugins.submit("acquire")).success


def test_a_plugin_that_exits_takes_down_only_its_scan(with_plugins: Beamline) -> None:
    done = with_plugins.done(with_plugins.submit("exits"))
    assert not done.success and done.error is not None and "SystemExit: 7" in done.error.error_message
    assert with_plugins.done(with_plugins.submit("acquire")).success


def test_a_scan_whose_code_does_not_return_can_be_aborted(with_plugins: Beamline) -> None:
    request = with_plugins.submit("stuck")
    after = with_plugins.submit("acquire")
    assert entered.wait(WAIT_S)
    assert with_plugins.command(QueueAction.ABORT).accepted
    done = with_plugins.done(request)
    assert done.error is not None and "its code had not returned" in done.error.error_message
    scan_id = with_plugins.answer(request).scan_id
    states = [status.status for status in with_plugins.statuses(scan_id)]
    assert states == [ScanState.OPEN, ScanState.ABORTED]
    assert with_plugins.command(QueueAction.CONTINUE).accepted
    assert with_plugins.done(after).success
    released.set()  # the old thread wakes up, and can write nothing
    assert with_plugins.done(with_plugins.submit("acquire")).success
    assert with_plugins.points(scan_id) == [0]


def test_a_configuration_without_a_device_server_is_refused_in_words(
    beamline: Beamline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scan_server.reconfiguration.ABSENT_S", 0.1)
    monkeypatch.setattr("scan_server.reconfiguration.LOOK_S", 0.1)
    beamline.devices.hold_sessions = True
    beamline.devices.go.clear()
    answer = configure(beamline, ConfigAction.RESET, {})
    assert answer.code == ReasonCode.SERVICE_DOWN and "main is not running" in answer.message
    beamline.devices.go.set()
    assert beamline.done(beamline.submit("acquire")).success
