"""A device server in this process, on fakeredis, driven turn by turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.messages import (
    ClientHelloMessage,
    DeviceInstructionMessage,
    DeviceInstructionResponse,
    DeviceRPCMessage,
    DeviceRPCResponse,
    Message,
)
from bec_lib.service import Service, ServiceConfig
from bec_lib.testing import fake_broker, fake_server


class Bench:
    """The scan server's and a client's side of a device server, and the turning of its loop."""

    def __init__(self, server: Any = None) -> None:
        self.server = server or fake_server()
        self.broker: Broker = fake_broker(self.server, service="test")
        self.numbers = iter(range(1, 1_000_000))
        self.cursors: dict[str, str] = {}
        self.boot()

    def boot(self) -> None:
        from device_server.app import DeviceServer

        broker = fake_broker(self.server, service="device_server", instance=f"ds-{next(self.numbers)}")
        self.service = Service("device_server", ServiceConfig(deployment="test"), broker)
        self.service.lease = broker.acquire_lease("device_server")
        self.app = DeviceServer(self.service)
        self.app.start()

    def close(self) -> None:
        self.app.stop()
        self.service.inbox.close()

    def turn(self, wait: float = 0.05) -> None:
        """One turn of the loop, as the service makes it."""
        due = self.app.deadline()
        if due is not None:
            wait = min(wait, max(0.0, due - self.service.clock.monotonic()))
        events = self.service.inbox.take(wait)
        if events:
            self.app.handle(events)
        due = self.app.deadline()
        if due is not None and self.service.clock.monotonic() >= due:
            self.app.on_deadline()

    def until(self, ready: Any, timeout: float = 10.0) -> Any:
        """Turn until `ready()` gives something; fails after `timeout` seconds."""
        deadline = self.service.clock.monotonic() + timeout
        while self.service.clock.monotonic() < deadline:
            found = ready()
            if found:
                return found
            self.turn()
        raise AssertionError(f"nothing came within {timeout} s")

    def messages(self, endpoint: Endpoint) -> list[Any]:
        """All messages that stand in a stream."""
        return [item.message for item in self.broker.entries(endpoint) if isinstance(item, Delivery)]

    def latest(self, endpoint: Endpoint) -> Any:
        found = self.broker.get(endpoint)
        return None if found is None else found.message

    # The scan server's side

    def send(self, action: Message | Any, *, scan_id: str | None = None, epoch: int = 1) -> str:
        number = f"i{next(self.numbers)}"
        self.broker.append(
            MessageEndpoints.device_instructions("main"),
            DeviceInstructionMessage(instruction_id=number, scan_id=scan_id, run_epoch=epoch, action=action),
        )
        return number

    def reply(self, number: str) -> DeviceInstructionResponse:
        endpoint = MessageEndpoints.device_instructions_response("main")
        return self.until(
            lambda: next((m for m in self.messages(endpoint) if m.instruction_id == number), None)
        )

    def do(self, action: Any, *, scan_id: str | None = None, epoch: int = 1) -> DeviceInstructionResponse:
        return self.reply(self.send(action, scan_id=scan_id, epoch=epoch))

    def load(self, devices: dict[str, Any]) -> dict[str, Any]:
        from bec_lib.messages import CommitSession, PrepareSession

        self.do(PrepareSession(devices=devices))
        return self.do(CommitSession(version=1)).result

    # A client's side

    def hello(self, user: str = "anna") -> None:
        self.broker.append(MessageEndpoints.client_hello, ClientHelloMessage(user=user, client_id="c1"))

    def call(
        self, device: str, func: str, *args: Any, kind: str = "call", user: str = "anna", **kwargs: Any
    ) -> DeviceRPCResponse:
        return self.answer(self.request(device, func, *args, kind=kind, user=user, **kwargs))

    def request(
        self, device: str, func: str, *args: Any, kind: str = "call", user: str = "anna", **kwargs: Any
    ) -> str:
        number = f"r{next(self.numbers)}"
        self.broker.append(
            MessageEndpoints.device_rpc_request(user),
            DeviceRPCMessage(
                request_id=number,
                client_id="c1",
                device=device,
                func=func,
                kind=kind,  # type: ignore[arg-type]
                args=list(args),
                kwargs=kwargs,
            ),
        )
        return number

    def answer(self, number: str) -> DeviceRPCResponse:
        endpoint = MessageEndpoints.device_rpc_response("c1")
        return self.until(lambda: next((m for m in self.messages(endpoint) if m.request_id == number), None))


def device_config(kind: str, **config: Any) -> dict[str, Any]:
    """A raw device configuration of a simulated class."""
    fields = {
        key: config.pop(key)
        for key in list(config)
        if key in ("readoutPriority", "readOnly", "onFailure", "enabled", "softwareTrigger", "needs", "units")
    }
    return {
        "deviceClass": f"device_server.sim.{kind}",
        "enabled": True,
        "readoutPriority": "monitored",
        "deviceConfig": config,
        "connectionTimeout": 0.3,
        **fields,
    }


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def device() -> Any:
    """The function that makes a raw device configuration of a simulated class."""
    return device_config


@pytest.fixture
def zero() -> dict[str, Any]:
    """A motor and two constants that take no time."""
    return {
        "m1": device_config("ZeroMotor"),
        "d1": device_config("ConstSignal", value=1.0),
        "d2": device_config("ConstSignal", value=2.0),
    }
