"""What is told of a service that is silent: all that is known of why."""

from __future__ import annotations

from bec_client.services import ServiceStatus
from bec_lib.broker import Broker
from bec_lib.endpoints import MessageEndpoints
from bec_lib.messages import ServiceState, StatusMessage, SupervisorMessage
from bec_lib.testing import fake_broker, fake_server

WHOSE = "the scan bad (plugin theirs), at step 2"


def a_silent_scan_server() -> Broker:
    broker = fake_broker(fake_server())
    broker.put(
        MessageEndpoints.service_last_heard("scan_server"),
        StatusMessage(
            name="scan_server", instance="i", status=ServiceState.RUNNING, host="vm", pid=7, started=1.0
        ),
    )
    return broker


def told(broker: Broker, event: str, pid: int, reason: str) -> None:
    message = SupervisorMessage(service="scan_server", event=event, pid=pid, reason=reason)
    broker.append(MessageEndpoints.supervisor_events, message)


def test_whose_code_a_silent_service_is_in_is_told() -> None:
    broker = a_silent_scan_server()
    told(broker, "silent", 7, f"has sent no heartbeat for 2 s (it is in the code of {WHOSE})")
    sentence = ServiceStatus(broker).busy_with("scan_server")
    assert sentence.startswith("the scan server is silent (not heard for ")
    assert sentence.endswith(f"; it ran on vm as process 7; it is in the code of {WHOSE})")


def test_what_the_supervisor_said_of_another_process_is_not_told() -> None:
    broker = a_silent_scan_server()
    told(broker, "silent", 6, f"has sent no heartbeat for 2 s (it is in the code of {WHOSE})")
    told(broker, "silent", 7, "has sent no heartbeat for 2 s")
    assert ServiceStatus(broker).busy_with("scan_server").endswith("; it ran on vm as process 7)")
