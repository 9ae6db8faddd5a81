"""The user's functions are called for points, states and files."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from bec_client.callbacks import CallbackRegister, EventType
from bec_lib.errors import ParameterError


def run(bec: Any, **more: Any) -> Any:
    return bec.scans.line_scan(bec.devices.samx, -1, 1, steps=5, hide_report=True, **more)


def test_points_reach_the_callbacks_of_a_scan(bec: Any) -> None:
    """Both kinds have seen all points when `wait` returns, each in its thread."""
    here: list[tuple[Any, Any]] = []
    there: list[tuple[Any, Any]] = []
    report = run(
        bec,
        callback=lambda content, metadata: here.append((content, threading.current_thread())),
        async_callback=[lambda content, metadata: there.append((content, threading.current_thread()))],
    )
    report.wait()
    assert [content["point_id"] for content, _ in here] == [0, 1, 2, 3, 4]
    assert here[0][0]["data"]["samx"]["samx"] == {"value": -1.0, "timestamp": 1e9}
    assert {thread for _, thread in here} == {threading.current_thread()}
    assert [content["point_id"] for content, _ in there] == [0, 1, 2, 3, 4]
    assert threading.current_thread() not in {thread for _, thread in there}


def test_points_reach_the_callback_of_a_scan_that_is_shown(bec: Any) -> None:
    seen: list[int] = []
    bec.scans.line_scan(
        bec.devices.samx,
        -1,
        1,
        steps=3,
        callback=lambda content, metadata: seen.append(metadata["scan_number"]),
    )
    assert seen == [1, 1, 1]


def test_events_of_all_scans_reach_registered_callbacks(bec: Any) -> None:
    seen: queue.Queue[tuple[str, Any]] = queue.Queue()
    bec.callbacks.register("scan_status", lambda content, metadata: seen.put(("status", content["status"])))
    bec.callbacks.register(
        EventType.SCAN_SEGMENT, lambda content, metadata: seen.put(("point", content["point_id"]))
    )
    bec.callbacks.register(
        "scan_history_update", lambda history_msg: seen.put(("file", history_msg.scan_number))
    )
    run(bec).wait()
    found = [seen.get(timeout=30) for _ in range(8)]
    assert sorted(value for kind, value in found if kind == "point") == [0, 1, 2, 3, 4]
    assert [value for kind, value in found if kind == "status"] == ["open", "closed"]
    assert ("file", 1) in found


def test_a_removed_callback_is_not_called(bec: Any) -> None:
    seen: list[Any] = []
    number = bec.callbacks.register("scan_segment", lambda *what: seen.append(what))
    assert bec.callbacks.unregister(number) == number
    assert bec.callbacks.remove(number) == -1
    with CallbackRegister("scan_segment", lambda *what: seen.append(what), callback_handler=bec.callbacks):
        assert "scan_segment" in repr(bec.callbacks)
    assert repr(bec.callbacks) == "<no callbacks>"
    run(bec).wait()
    assert seen == []


def test_a_callback_that_fails_is_told_once(bec: Any) -> None:
    told: list[str] = []
    bec.connection.notify = told.append

    def broken(content: Any, metadata: Any) -> None:
        raise ValueError("no room")

    run(bec, callback=broken).wait()
    assert told == ["the callback broken of scan_segment failed: ValueError: no room"]


def test_sync_callbacks_run_when_polled(bec: Any) -> None:
    seen: list[Any] = []
    bec.callbacks.register("namespace_update", lambda **what: seen.append(what["action"]), sync=True)
    bec.callbacks.run("namespace_update", action="add", ns_objects={})
    assert seen == []
    bec.callbacks.poll()
    assert seen == ["add"]


def test_the_history_is_loaded_once(bec: Any) -> None:
    run(bec).wait()
    seen: list[Any] = []
    bec.callbacks.register("scan_history_loaded", lambda history_msgs: seen.extend(history_msgs))
    assert [message.scan_number for message in seen] == [1]


def test_wrong_uses_are_told(bec: Any, fleet: Any) -> None:
    with pytest.raises(ParameterError, match=r"no event 'scan_segmnt'. Did you mean scan_segment"):
        bec.callbacks.register("scan_segmnt", print)
    with pytest.raises(ParameterError, match="a callback must be a function"):
        bec.callbacks.register("scan_segment", 3)
    with pytest.raises(ParameterError, match="callback= must be a function of"):
        run(bec, callback="print")
    assert fleet.requests == []


def test_the_callbacks_of_a_scan_go_with_it(bec: Any) -> None:
    run(bec, callback=lambda *what: None, async_callback=lambda *what: None).wait()
    assert repr(bec.callbacks) == "<no callbacks>"
