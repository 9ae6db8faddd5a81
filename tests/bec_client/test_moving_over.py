"""Names that scripts for the released BEC use."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from bec_client.repeat import ScanRestart, TooManyScanRestarts, scan_repeat
from bec_client.report import ScanInterruption
from bec_client.scans import FileWriter, Metadata
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, ParameterError, ScanFailed, ServiceDown


def scan(bec: Any, **more: Any) -> Any:
    return bec.scans.line_scan(bec.devices.samx, -1, 1, steps=2, hide_report=True, **more)


def test_spec_words_call_scans(bec: Any, fleet: Any) -> None:
    words = bec.load_high_level_interface("spec_hli")
    assert words == ["ascan", "a2scan", "dscan", "d2scan", "amesh", "dmesh"]
    bec.dscan(bec.devices.samx, -1, 1, 3, 0.1, hide_report=True).wait()
    request = fleet.requests[-1]
    assert request.args == ["samx", -1, 1]
    assert request.kwargs == {"steps": 3, "exp_time": 0.1, "relative": True}
    assert bec.load_high_level_interface("bec_hli") == []
    with pytest.raises(
        ParameterError, match=r"no high-level interface 'my_hli'.*Your own functions are macros"
    ):
        bec.load_high_level_interface("my_hli")


def test_metadata_and_file_names_of_a_block(bec: Any, fleet: Any) -> None:
    bec.metadata["operator"] = "ada"
    with Metadata({"sample": "gold"}), FileWriter(file_suffix="test", file_directory="trials"):
        scan(bec)
    scan(bec)
    first, second = fleet.requests
    assert first.metadata == {"operator": "ada", "sample": "gold"}
    assert (first.file_suffix, first.file_directory) == ("test", "trials")
    assert second.metadata == {"operator": "ada"}
    assert (second.file_suffix, second.file_directory) == ("", "")
    with pytest.raises(ParameterError, match="Metadata takes a dict"):
        Metadata("gold")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="metadata is a dict, such as"):
        scan(bec, metadata="gold")


def test_a_dataset_has_one_number_that_nobody_else_gets(bec: Any, fleet: Any, connect_as: Any) -> None:
    assert bec.queue.next_dataset_number == 1
    with bec.scans.dataset_id_on_hold as number:
        assert scan(bec).wait().scan.dataset_number == 1
        with bec.scans.dataset_id_on_hold as inner:
            scan(bec).wait()
        other = connect_as("eve").queue.take_dataset_number()
    assert scan(bec).wait().scan.dataset_number is None
    assert (number, inner, other) == (1, 1, 2)
    assert [request.metadata.get("dataset_number") for request in fleet.requests] == [1, 1, None]
    assert [found.scan_number for found in bec.history.get_by_dataset_number(1)] == [1, 2]
    with pytest.raises(BECError, match="no scan of dataset 7"):
        bec.history.get_by_dataset_number(7)


def test_dataset_numbers_are_set_forwards_only(bec: Any) -> None:
    bec.queue.next_dataset_number += 1
    assert bec.queue.next_dataset_number == 2
    bec.queue.next_dataset_number = 20
    assert bec.queue.take_dataset_number() == 20
    with pytest.raises(ParameterError, match="numbers up to 20 are given out; it may be 21 or more"):
        bec.queue.next_dataset_number = 5
    with pytest.raises(ParameterError, match="scan numbers cannot be set"):
        bec.queue.next_scan_number = 1


def test_another_user_is_heard(bec: Any) -> None:
    bec.switch_user("eve")
    assert bec.username == "eve"
    bec.stop_devices()
    bec.connection.send(bec.connection.queue_requests, _a_request(bec))
    found = bec.broker.entries(Endpoints.scan_queue_request("eve"))
    assert found[0].envelope.user == "eve"
    hello = bec.broker.entries(Endpoints.client_hello)[-1].message
    assert (hello.user, hello.client_id) == ("eve", bec.client_id)
    with pytest.raises(ParameterError, match="'a/b' cannot be a user name"):
        bec.switch_user("a/b")


def _a_request(bec: Any) -> Any:
    from bec_lib.messages import PluginReloadMessage

    return PluginReloadMessage(request_id="r", client_id=bec.client_id)


@pytest.mark.parametrize("name", ["scan_def", "scan_group", "interactive_scan"])
def test_scans_that_are_gone_name_what_there_is(bec: Any, name: str) -> None:
    assert not hasattr(bec.scans, name)
    with pytest.raises(BECError, match=f"there is no scans.{name}: "):
        getattr(bec.scans, name)


def test_what_is_not_there_says_so(bec: Any) -> None:
    with pytest.raises(BECError, match=r"bec.messaging is not there yet: it needs the connection to SciLog"):
        bec.messaging.scilog.new("hello")
    with pytest.raises(AttributeError, match=r"bec has no 'histroy'. Did you mean history"):
        bec.histroy
    with pytest.raises(BECError, match=r"no scan called 'line_scann'. Did you mean line_scan"):
        bec.scans.line_scann


def test_a_function_is_repeated_when_a_scan_was_restarted() -> None:
    calls: list[int] = []

    @scan_repeat(max_repeats=2)
    def measure(times: int) -> str:
        calls.append(times)
        if len(calls) <= times:
            raise ScanRestart("the scan was restarted")
        return "done"

    assert measure(2) == "done"
    calls.clear()
    with pytest.raises(
        TooManyScanRestarts, match="failed 3 times, and may be repeated 2 times; last: the scan was"
    ):
        measure(9)
    with pytest.raises(ParameterError, match="max_repeats"):
        scan_repeat(max_repeats=-1)


def test_other_failures_are_asked_about_and_a_pause_is_not_repeated() -> None:
    asked: list[Any] = []

    def again(error: Exception, failures: int) -> bool:
        asked.append((str(error), failures))
        return failures < 2

    @scan_repeat(max_repeats=5, exc_handler=again)
    def measure(error: Exception) -> None:
        raise error

    with pytest.raises(ScanFailed):
        measure(ScanFailed("samx stalled"))
    assert asked == [("samx stalled", 1), ("samx stalled", 2)]
    with pytest.raises(ScanInterruption):
        measure(ScanInterruption("paused"))
    assert len(asked) == 2


def test_queue_locks_by_both_orders_of_arguments(bec: Any, fleet: Any) -> None:
    bec.queue.add_queue_lock("beam is off")
    bec.queue.add_queue_lock("other", "beam is off", "beam")
    bec.queue.remove_queue_lock()
    bec.queue.remove_queue_lock("other", "beam")
    bec.queue.remove_queue_lock(identifier="beam")
    assert [(command.queue, command.parameter) for command in fleet.commands] == [
        ("primary", {"identifier": "ada", "reason": "beam is off"}),
        ("other", {"identifier": "beam", "reason": "beam is off"}),
        ("primary", {"identifier": "ada"}),
        ("other", {"identifier": "beam"}),
        ("primary", {"identifier": "beam"}),
    ]
    with pytest.raises(ParameterError, match="a lock needs a reason"):
        bec.queue.add_queue_lock()
    with pytest.raises(ParameterError, match="takes a reason, or a queue, a reason and the name of the lock"):
        bec.queue.add_queue_lock("a", "b")
    with pytest.raises(ParameterError, match="remove_queue_lock takes"):
        bec.queue.remove_queue_lock("a", "b", "c")


def test_what_runs_is_found_by_the_names_of_the_released_bec(bec: Any, fleet: Any) -> None:
    fleet.hold = 1
    report = scan(bec)
    assert report.scan.opened.wait(30)
    assert bec.queue.scan_storage.current_scan_id == report.scan.scan_id
    assert bec.queue.queue_storage.current_scan_queue["primary"].status == "RUNNING"
    fleet.release.set()
    fleet.command.set()
    report.wait()
    assert bec.queue.scan_storage.current_scan is None


def test_devices_by_the_names_of_the_released_bec(bec: Any) -> None:
    velocity = bec.devices.samx.velocity
    assert velocity.root == bec.devices.samx
    assert (velocity.full_name, velocity.dotted_name) == ("samx_velocity", "samx.velocity")
    assert bec.devices.samx.get_device_tags() == {"sample"}
    with pytest.raises(AttributeError, match=r"enabled is of the device .* dev\.samx\.enabled = False"):
        velocity.enabled = False


def test_live_data_as_a_table_of_pandas(bec: Any, monkeypatch: Any) -> None:
    report = scan(bec).wait()
    assert report.scan.live_data.get("nobody") is None
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BECError, match="needs pandas, which is not installed"):
        report.scan.live_data.to_pandas()
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    assert report.scan.live_data.to_pandas()["samx"] == [-1, 1]


def test_one_device_need_not_stand_in_a_list(bec: Any, fleet: Any) -> None:
    scan(bec, monitored=bec.devices.bpm4i, on_request="samx")
    assert (fleet.requests[-1].monitored, fleet.requests[-1].on_request) == (["bpm4i"], ["samx"])


def test_services_are_waited_for_by_their_earlier_names(bec: Any, fleet: Any) -> None:
    for name in ("ScanServer", "FileWriter", "device_server"):
        bec.wait_for_service(name)
    fleet.alive.remove("file_writer")
    fleet.beat()
    bec.service_status._seen.clear()
    with pytest.raises(ServiceDown, match="waiting for FileWriter needs the file writer"):
        bec.wait_for_service("FileWriter")
    with pytest.raises(ParameterError, match=r"no service 'ScanSever'\. Did you mean scan_server"):
        bec.wait_for_service("ScanSever")


def test_blocks_are_decorators_as_well(bec: Any, fleet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    @bec.scans.hide_report
    @bec.scans.dataset_id_on_hold
    @Metadata({"sample": "gold"})
    def measure() -> None:
        bec.scans.line_scan(bec.devices.samx, -1, 1, steps=2).wait()

    measure()
    measure()
    assert capsys.readouterr().out == ""
    assert [request.metadata for request in fleet.requests] == [
        {"sample": "gold", "dataset_number": 1},
        {"sample": "gold", "dataset_number": 2},
    ]
    assert bec.metadata == {}
