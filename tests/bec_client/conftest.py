"""A client on a Redis in memory, and a scripted fleet that answers it: a few lines in place of six services."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bec_client.client import BECClient
from bec_lib import messages as m
from bec_lib.broker import Broker, Delivery, Sender
from bec_lib.endpoints import Endpoint
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import ReasonCode
from bec_lib.service.config import ServiceConfig
from bec_lib.testing import fake_broker, fake_server

USER = "ada"
ROLES = ("scan_server", "device_server", "scan_bundler", "file_writer", "data_pipeline")

LINE_SCAN = m.ScanInfo(
    name="line_scan",
    doc="A scan along a line.",
    bundle=m.BundleInfo(
        parameters=[
            m.ParameterInfo(name="device", type="device", required=True),
            m.ParameterInfo(name="start", type="float", required=True),
            m.ParameterInfo(name="stop", type="float", required=True),
        ],
        at_least=1,
    ),
    parameters=[
        m.ParameterInfo(name="steps", type="int", required=True, ge=1, doc="Number of points."),
        m.ParameterInfo(name="exp_time", type="float", default=0.0, unit="s", ge=0),
        m.ParameterInfo(name="relative", type="bool", default=False),
    ],
)
MV = m.ScanInfo(
    name="mv",
    is_scan=False,
    bundle=m.BundleInfo(
        parameters=[
            m.ParameterInfo(name="device", type="device", required=True),
            m.ParameterInfo(name="target", type="float", required=True),
        ],
        at_least=1,
    ),
    parameters=[m.ParameterInfo(name="relative", type="bool", default=False)],
)
DEVICES: dict[str, dict[str, Any]] = {
    "samx": {
        "deviceClass": "device_server.sim.SimPositioner",
        "enabled": True,
        "readoutPriority": "baseline",
        "deviceConfig": {"limits": [-10, 10]},
        "deviceTags": ["sample"],
    },
    "bpm4i": {"deviceClass": "device_server.sim.SimMonitor", "enabled": True, "readoutPriority": "monitored"},
    "eyefoc": {
        "deviceClass": "device_server.sim.SimPositioner",
        "enabled": False,
        "readoutPriority": "on_request",
    },
}
INFOS = {
    "samx": m.DeviceInfoMessage(
        name="samx",
        role="positioner",
        device_class="device_server.sim.SimPositioner",
        doc="Sample stage, horizontal.",
        signals=[
            m.SignalInfo(name="readback", obj_name="samx", kind="hinted", unit="mm"),
            m.SignalInfo(name="setpoint", obj_name="samx_setpoint", unit="mm"),
            m.SignalInfo(
                name="velocity", obj_name="samx_velocity", kind="config", unit="mm/s", doc="How fast."
            ),
        ],
        methods=[
            m.MethodInfo(
                name="home", signature="(speed: float = 1.0, *, wait=True)", doc="Find the home switch."
            ),
            m.MethodInfo(name="tolerance", kind="property", writable=True),
            m.MethodInfo(name="serial", kind="property"),
        ],
        hints=["samx"],
        limits=[-10.0, 10.0],
        unit="mm",
        precision=3,
        config=DEVICES["samx"],
    ),
    "bpm4i": m.DeviceInfoMessage(
        name="bpm4i",
        signals=[m.SignalInfo(name="readback", obj_name="bpm4i", kind="hinted", unit="counts")],
        hints=["bpm4i"],
        unit="counts",
        config=DEVICES["bpm4i"],
    ),
    "eyefoc": m.DeviceInfoMessage(name="eyefoc", state="disabled", config=DEVICES["eyefoc"]),
}
SCHEMA_SIGNALS = [
    m.SignalSchema(device="samx", signal="samx", unit="mm", precision=3),
    m.SignalSchema(device="samx", signal="samx_setpoint", unit="mm", kind="normal"),
    m.SignalSchema(device="bpm4i", signal="bpm4i", unit="counts"),
]


class Fleet:
    """Answers requests as the services would. What it does is scripted by its attributes.

    hold: scans stop before this point until `release` is set. refuse, fail: code and sentence.
    calls: (device, func) -> what it returns, or an ErrorInfo.
    """

    def __init__(self, server: Any):
        self.server = server
        self.brokers = {
            role: fake_broker(server, service=role, instance=f"{role}-1") for role in (*ROLES, "outside")
        }
        self.broker: Broker = self.brokers["scan_server"]
        self.alive = set(ROLES)
        self.requests: list[Any] = []
        self.calls: dict[tuple[str, str], Any] = {}
        self.silent: set[str] = set()
        self.refuse: tuple[ReasonCode, str] | None = None
        self.fail: tuple[ReasonCode, str] | None = None
        self.config_failed: dict[str, str] = {}
        self.moves_wait = False
        self.config_kept: dict[str, str] = {}
        self.file_error = ""
        self.write_file: Callable[[str, int], None] | None = None
        self.file_path = "/data/S00001_master.h5"
        self.hold: int | None = None
        self.release = threading.Event()
        self.number = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._scans: list[threading.Thread] = []
        self.commands: list[m.ScanQueueModificationMessage] = []
        self.command = threading.Event()
        self.queue_items: list[m.QueueItem] = []
        self.plan = m.ScanPlan(scan_name="line_scan")

    def start(self) -> None:
        self.broker.put(
            Endpoints.available_scans, m.AvailableScansMessage(scans={"line_scan": LINE_SCAN, "mv": MV})
        )
        self.load(DEVICES)
        models = {
            "GaussianModel": m.ModelInfo(name="GaussianModel", parameters=["amplitude", "center", "sigma"]),
            "ConstantModel": m.ModelInfo(name="ConstantModel", parameters=["c"]),
        }
        self.brokers["data_pipeline"].put(Endpoints.available_models, m.AvailableModelsMessage(models=models))
        self.beat()
        self._thread.start()

    def load(
        self, devices: dict[str, dict[str, Any]], version: int = 1, failed: dict[str, str] | None = None
    ) -> None:
        for name in devices:
            if name in INFOS:
                self.brokers["device_server"].put(Endpoints.device_info(name), INFOS[name])
        message = m.DeviceSessionMessage(
            version=version, devices=devices, failed=failed or {}, source="test.yaml"
        )
        batch = self.broker.batch().put(Endpoints.device_session, message)
        batch.append(Endpoints.device_session_history, message).commit()

    def beat(self) -> None:
        for role in ROLES:
            status = Endpoints.service_status(role)
            if role in self.alive:
                message = m.StatusMessage(
                    name=role,
                    instance=f"{role}-1",
                    status=m.ServiceState.RUNNING,
                    host="here",
                    pid=1,
                    started=time.time(),
                )
                self.brokers[role].put(status, message)
            else:
                self.brokers[role].batch().delete(status).commit()

    def stop(self) -> None:
        self._stopping.set()
        self.release.set()
        self.command.set()
        self._thread.join()
        for scan in self._scans:
            scan.join(timeout=5)

    def _run(self) -> None:
        cursors: dict[Endpoint, str] = {
            Endpoints.scan_queue_request(USER): "0",
            Endpoints.device_rpc_request(USER): "0",
            Endpoints.dap_request(USER): "0",
        }
        beat = time.monotonic()
        while not self._stopping.is_set():
            for item in self.brokers["outside"].read(cursors, block_s=0.05):
                cursors[item.endpoint] = item.entry_id
                assert isinstance(item, Delivery)
                self.requests.append(item.message)
                self._handle(item.message)
            if time.monotonic() - beat > 0.4:
                self.beat()
                beat = time.monotonic()

    def _handle(self, request: Any) -> None:
        match request:
            case m.DeviceRPCMessage() if "device_server" in self.alive:
                self._call(request)
            case m.ScanQueueMessage() if "scan_server" in self.alive:
                self._submit(request)
            case m.ScanQueueModificationMessage() if "scan_server" in self.alive:
                if request.action is m.QueueAction.SHOW:
                    first, count = request.parameter["first"], request.parameter["count"]
                    part = self.queue_items[first - 1 : first - 1 + count]
                    self._respond(
                        request,
                        accepted=True,
                        result=m.QueueSnapshot(items=part, num_items=len(self.queue_items)),
                    )
                    return
                self.commands.append(request)
                told = {"message": f"{request.action} of {request.scan_id} it is"} if not self.refuse else {}
                self._respond(request, accepted=self.refuse is None, **told, **self._refusal())
                self.command.set()
            case m.DeviceConfigMessage() if "scan_server" in self.alive:
                if request.action is m.ConfigAction.SET:
                    self.load(
                        {n: d for n, d in request.devices.items() if n not in self.config_failed}, version=2
                    )
                result = {
                    "version": 2,
                    "loaded": [n for n in request.devices if n not in self.config_failed],
                    "failed": self.config_failed,
                    "kept": self.config_kept,
                }
                self._respond(request, accepted=self.refuse is None, result=result, **self._refusal())
            case m.DAPRequestMessage() if "data_pipeline" in self.alive:
                self._fit(request)

    def _refusal(self) -> dict[str, Any]:
        return {} if self.refuse is None else {"code": self.refuse[0], "message": self.refuse[1]}

    def _respond(self, request: Any, **fields: Any) -> None:
        self.broker.append(
            Endpoints.request_response(request.client_id),
            m.RequestResponseMessage(request_id=request.request_id, **fields),
        )

    def _call(self, request: m.DeviceRPCMessage) -> None:
        if f"{request.device}.{request.func}" in self.silent:
            return
        value = self.calls.get((request.device, request.func))
        error = value if isinstance(value, m.ErrorInfo) else None
        if callable(value):
            value = value(*request.args, **request.kwargs)
        self.brokers["device_server"].append(
            Endpoints.device_rpc_response(request.client_id),
            m.DeviceRPCResponse(
                request_id=request.request_id,
                success=error is None,
                return_val=None if error else value,
                error=error,
                device=request.device,
            ),
        )

    def _fit(self, request: m.DAPRequestMessage) -> None:
        import numpy as np

        fit = m.FitResult(
            models=request.models,
            params={"center": 0.37, "sigma": 0.4},
            errors={"center": 0.001, "sigma": None},
            success=True,
            curve_x=np.linspace(-1, 1, 5),
            curve_y=np.array([0.0, 1.0, 2.0, 1.0, 0.0]),
            report="[[Model]]",
        )
        self.brokers["data_pipeline"].append(
            Endpoints.dap_response(request.client_id),
            m.DAPResponseMessage(request_id=request.request_id, success=True, fit=fit),
        )

    def _submit(self, request: m.ScanQueueMessage) -> None:
        if self.refuse is not None:
            self._respond(request, accepted=False, **self._refusal())
            return
        if request.dry_run:
            self._respond(request, accepted=True, result=self.plan)
            return
        scan_id = f"scan-{request.request_id}"
        self.queue_items = [
            m.QueueItem(
                request_id=request.request_id,
                scan_id=scan_id,
                scan_name=request.scan_type,
                status=m.ItemState.RUNNING,
            )
        ]
        snapshot = m.QueueSnapshot(items=self.queue_items)
        self.broker.put(Endpoints.scan_queue_status, m.ScanQueueStatusMessage(queues={"primary": snapshot}))
        self._respond(request, accepted=True, scan_id=scan_id)
        if request.scan_type == "mv":
            if not self.moves_wait:
                self.done(request, scan_id)
            return
        thread = threading.Thread(target=self._scan, args=(request, scan_id), daemon=True)
        self._scans.append(thread)
        thread.start()

    def done(self, request: m.ScanQueueMessage, scan_id: str) -> None:
        error = (
            m.ErrorInfo(error_message=self.fail[1], code=self.fail[0], device="samx") if self.fail else None
        )
        self.broker.append(
            Endpoints.request_response(request.client_id),
            m.RequestDoneMessage(
                request_id=request.request_id, success=error is None, scan_id=scan_id, error=error
            ),
        )

    def _scan(self, request: m.ScanQueueMessage, scan_id: str) -> None:
        count = int(request.kwargs["steps"])
        self.number += 1
        fields: dict[str, Any] = {
            "scan_id": scan_id, "scan_number": self.number, "scan_name": "line_scan", "request_id": request.request_id,
            "motors": ["samx"], "num_points": count, "shape": [count], "started": time.time(),
            "user_metadata": request.metadata,
        }  # fmt: skip
        self.broker.append(Endpoints.scan_status, m.ScanStatusMessage(status=m.ScanState.OPEN, **fields))
        self.broker.append(
            Endpoints.scan_schema(scan_id),
            m.ScanSchemaMessage(scan_id=scan_id, signals=SCHEMA_SIGNALS, motors=["samx"]),
        )
        bundler = self.brokers["scan_bundler"]
        start, stop = float(request.args[1]), float(request.args[2])
        taken = 0
        state = m.ScanState.CLOSED
        for index in range(count):
            if self.hold == index:
                while not self.release.is_set() and not self._stopping.is_set():
                    self.command.wait(5)
                    self.command.clear()
                    action = self.commands[-1].action if self.commands else None
                    if action is m.QueueAction.DEFERRED_PAUSE:
                        self.broker.append(
                            Endpoints.scan_status, m.ScanStatusMessage(status=m.ScanState.PAUSED, **fields)
                        )
                    if action in (m.QueueAction.ABORT, m.QueueAction.HALT):
                        state = m.ScanState.ABORTED
                        self.fail = (ReasonCode.ABORTED, "ada aborted the scan after point 3 of 5")
                        break
                    if action is m.QueueAction.CONTINUE:
                        break
            if state is not m.ScanState.CLOSED:
                break
            x = start + (stop - start) * index / max(1, count - 1)
            message = m.PointsMessage(
                scan_id=scan_id,
                first_index=index,
                count=1,
                values=[[x], [x], [1000 * math.exp(-(x**2))]],
                device_times=[[1e9 + index], [1e9 + index], [1e9 + index]],
                server_times=[1e9 + index],
            )
            bundler.batch().append_at(
                Endpoints.scan_points(scan_id), message, f"{index + 1}-0", after=f"{index}-0"
            ).commit()
            taken += 1
        if self.fail and state is m.ScanState.CLOSED:
            state = m.ScanState.ABORTED
        self.broker.append(
            Endpoints.scan_status,
            m.ScanStatusMessage(status=state, num_readouts=taken, ended=time.time(), **fields),
        )
        self.done(request, scan_id)
        bundler.batch().append_at(
            Endpoints.scan_points(scan_id),
            m.SealMessage(scan_id=scan_id, count=taken, status=state),
            f"{taken}-1",
            after=f"{taken}-0",
        ).commit()
        if "file_writer" not in self.alive:
            return
        writer = self.brokers["file_writer"]
        if self.write_file:
            self.write_file(self.file_path, taken)
        history = m.ScanHistoryMessage(
            scan_id=scan_id, scan_number=self.number, scan_name="line_scan", status=state, file_path=self.file_path,
            num_points=taken, started=fields["started"], ended=time.time(), user=USER, motors=["samx"],
        )  # fmt: skip
        final = m.FileMessage(
            scan_id=scan_id, file_path=self.file_path, done=True, successful=not self.file_error,
            error=self.file_error, scan_number=self.number,
        )  # fmt: skip
        writer.batch().append(Endpoints.scan_history, history).append(Endpoints.file_event, final).commit()


@pytest.fixture
def server() -> Any:
    return fake_server()


@pytest.fixture
def fleet(server: Any) -> Iterator[Fleet]:
    made = Fleet(server)
    made.start()
    yield made
    made.stop()


def connect(server: Any, user: str = USER) -> BECClient:
    """A client of the fleet's Redis, not started."""
    client = BECClient(ServiceConfig(deployment="test"), user=user, broker=fake_broker(server))
    object.__setattr__(client.broker, "sender", Sender("client:test", client.client_id, user))
    return client


@pytest.fixture
def make_client(server: Any, tmp_path: Any) -> Callable[..., BECClient]:
    """Makes clients, not started, with a folder of their own."""

    def make(user: str | None = None) -> BECClient:
        client = connect(server, user or USER)
        client.service_config = client.service_config.model_copy(update={"state_path": tmp_path})
        return client

    return make


@pytest.fixture
def connect_as(server: Any) -> Iterator[Callable[[str], BECClient]]:
    """Further clients of the same fleet, by user."""
    made: list[BECClient] = []

    def start(user: str) -> BECClient:
        made.append(connect(server, user).start())
        return made[-1]

    yield start
    for client in made:
        client.shutdown()


@pytest.fixture
def bec(server: Any, fleet: Fleet, tmp_path: Any) -> Iterator[BECClient]:
    client = connect(server)
    client.service_config = client.service_config.model_copy(update={"state_path": tmp_path})
    client.start()
    yield client
    with contextlib.suppress(Exception):
        client.shutdown()
