"""Having a file written again: what is refused before anybody is asked, and what is made of the answer."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from bec_client.files import rewrite
from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, StorageError
from bec_lib.messages import FileMessage, PointsMessage, ScanState, ScanStatusMessage, SealMessage
from bec_lib.testing import fake_broker, fake_server


@pytest.fixture
def server() -> Any:
    return fake_server()


@pytest.fixture
def broker(server: Any) -> Broker:
    return fake_broker(server, service="outside")


def status(broker: Broker, state: ScanState, scan_id: str = "s") -> str:
    message = ScanStatusMessage(
        scan_id=scan_id, scan_number=7, status=state, scan_name="acquire", request_id="r"
    )
    return broker.append(Endpoints.scan_status, message)


def points(broker: Broker, *, sealed: bool) -> None:
    block = PointsMessage(
        scan_id="s", first_index=0, count=1, values=[[1.0]], device_times=[[0.0]], server_times=[0.0]
    )
    broker.append(Endpoints.scan_points("s"), block)
    if sealed:
        broker.append(Endpoints.scan_points("s"), SealMessage(scan_id="s", count=1, status="closed"))


def test_what_cannot_be_written_is_refused_with_the_reason(broker: Broker) -> None:
    with pytest.raises(BECError, match="nothing is known of a scan 7"):
        rewrite(broker, 7)
    status(broker, ScanState.OPEN)
    with pytest.raises(BECError, match="scan 7 is not over"):
        rewrite(broker, 7)
    status(broker, ScanState.CLOSED)
    with pytest.raises(BECError, match="not in Redis any more: they stay for 6 h"):
        rewrite(broker, 7)
    points(broker, sealed=False)
    with pytest.raises(BECError, match="not in Redis"):
        rewrite(broker, 7)
    assert broker.entries(Endpoints.file_request) == []


def test_a_writer_that_is_not_there_is_told(broker: Broker) -> None:
    status(broker, ScanState.CLOSED)
    points(broker, sealed=True)
    with pytest.raises(StorageError, match=r"was not written within 0\.01 s"):
        rewrite(broker, 7, timeout_s=0.01)


@pytest.mark.parametrize("error", ["", "No space left on device"])
def test_the_answer_is_the_writers(broker: Broker, server: Any, error: str) -> None:
    first, _ = status(broker, ScanState.OPEN), status(broker, ScanState.PAUSED)
    last = status(broker, ScanState.CLOSED)
    points(broker, sealed=True)

    def write() -> None:
        writer = fake_broker(server, service="file_writer")
        found: list[Any] = []
        while not found:
            found = writer.read({Endpoints.file_request: "0"}, block_s=1.0)
        assert isinstance(found[0], Delivery)
        assert found[0].message.entries == [first, last]
        for done in (False, True):
            message = FileMessage(
                scan_id="s", file_path="/a.h5", done=done, successful=not error, error=error, num_points=1
            )
            writer.append(Endpoints.file_event, message)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        if error:
            with pytest.raises(StorageError, match="scan 7 could not be written: No space left"):
                rewrite(broker, 7)
        else:
            assert rewrite(broker, 7).num_points == 1
    finally:
        thread.join()
