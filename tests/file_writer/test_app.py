"""The writer's shell on a Redis in memory: which files and which words come of which streams."""

from __future__ import annotations

import math
import shutil
import threading
from pathlib import Path
from typing import Any

import h5py
import pytest

import file_writer.app
from bec_lib.broker import Broker, Delivery
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.file_paths import file_target, master_path
from bec_lib.messages import (
    FileMessage,
    FileRequestMessage,
    Message,
    ScanHistoryMessage,
    ScanSchemaMessage,
    ScanState,
    SealMessage,
)
from bec_lib.service import Service, ServiceConfig
from bec_lib.testing import FakeClock, fake_broker, fake_server
from file_writer.app import SEAL_PATIENCE_S, WriterApp
from file_writer.layout import Field, Group
from file_writer.session import GIVE_UP_AFTER_S, RETRY_FIRST_S
from tests.file_writer.samples import (
    COUNTER,
    DIODE,
    SAMX,
    STARTED,
    baseline_of,
    points_of,
    schema_of,
    status_of,
)

VALUE = "/entry/collection/devices/{0}/{0}/value"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is waited for, however slow the machine."""
    monkeypatch.setattr(file_writer.app, "WAIT_FOR_WORKER_S", 30.0)


class Bench:
    """A writer without a process, and the other services' side of its streams."""

    def __init__(self, folder: Path, **config: Any):
        self.folder = folder
        self.config = ServiceConfig(data_path=folder, **config)
        self.server = fake_server()
        self.clock = FakeClock()
        self.outside: Broker = fake_broker(self.server, service="outside")
        self.start_writer()

    def start_writer(self) -> None:
        """Start it; again: its predecessor was killed."""
        broker = fake_broker(self.server, service="file_writer")
        self.service = Service("file_writer", self.config, broker, clock=self.clock, threaded=False)
        self.service.lease = broker.acquire_lease("file_writer")
        self.app = WriterApp(self.service)
        self.app.start()

    def turn(self) -> None:
        """Turns until nothing is left to read."""
        while events := self.service.inbox.take(0):
            self.app.handle(events)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.app.on_deadline()
        self.turn()

    def status(self, state: ScanState, number: int = 42, **fields: Any) -> None:
        target = file_target(self.folder, "p1", number)
        self.outside.append(
            MessageEndpoints.scan_status,
            status_of(state, scan_id=f"scan-{number}", scan_number=number, file=target, **fields),
        )

    def say(self, endpoint: Endpoint, message: Message, number: int = 42) -> None:
        scan_id = f"scan-{number}"
        self.outside.append(endpoint(scan_id), message.model_copy(update={"scan_id": scan_id}))

    def open(self, number: int = 42, schema: ScanSchemaMessage | None = None) -> None:
        self.status(ScanState.OPEN, number)
        self.say(MessageEndpoints.scan_schema, schema or schema_of((SAMX, COUNTER)), number)
        self.say(MessageEndpoints.scan_baseline, baseline_of(), number)

    def points(self, first: int, count: int, number: int = 42) -> None:
        self.say(MessageEndpoints.scan_points, points_of(schema_of((SAMX, COUNTER)), first, count), number)

    def close(self, count: int, number: int = 42, state: ScanState = ScanState.CLOSED) -> None:
        self.status(state, number, num_readouts=count, ended=STARTED + 5)
        self.say(
            MessageEndpoints.scan_points,
            SealMessage(scan_id="", count=count, status=state.value, baseline=True, ended=STARTED + 5),
            number,
        )

    def path(self, number: int = 42) -> Path:
        return master_path(file_target(self.folder, "p1", number))

    def stream(self, endpoint: Endpoint) -> list[Any]:
        return [item.message for item in self.outside.entries(endpoint) if isinstance(item, Delivery)]

    def file_events(self) -> list[FileMessage]:
        return self.stream(MessageEndpoints.file_event)

    def history(self) -> list[ScanHistoryMessage]:
        return self.stream(MessageEndpoints.scan_history)

    def alarms(self) -> list[str]:
        return [message.info.error_message for message in self.stream(MessageEndpoints.alarm)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def values(path: Path, device: str = "samx", *, swmr: bool = False) -> list[float]:
    with h5py.File(path, "r", swmr=swmr) as file:
        return list(file[VALUE.format(device)][:].tolist())


def text(path: Path, place: str) -> str:
    with h5py.File(path) as file:
        return str(file[place].asstr()[()])


def test_a_scan_from_its_schema_to_the_final_file(bench: Bench) -> None:
    bench.open()
    bench.turn()
    assert values(bench.path(), swmr=True) == []
    bench.clock.advance(1.0)
    bench.points(0, 2)
    bench.turn()
    assert values(bench.path(), swmr=True) == [0.0, 1.0]
    bench.points(2, 1)
    bench.close(3)
    bench.turn()

    assert values(bench.path()) == [0.0, 1.0, 2.0]
    assert text(bench.path(), "/entry/collection/metadata/bec/status") == "closed"
    assert text(bench.path(), "/entry/end_time").startswith("2023-11-14")
    with h5py.File(bench.path()) as file:
        assert file[VALUE.format("samz")][()] == 1.5
    growing, final = bench.file_events()
    assert (growing.done, growing.file_path) == (False, str(bench.path()))
    assert (final.done, final.successful, final.num_points) == (True, True, 3)
    assert final.size_bytes == bench.path().stat().st_size
    (history,) = bench.history()
    assert (history.scan_number, history.num_points, history.file_path) == (42, 3, str(bench.path()))
    assert (history.status, history.started, history.ended) == (ScanState.CLOSED, STARTED, STARTED + 5)
    assert [path.name for path in bench.path().parent.iterdir()] == [bench.path().name]
    assert bench.alarms() == []


def test_the_streams_of_a_scan_expire_when_its_file_is_final(bench: Bench) -> None:
    bench.open()
    bench.points(0, 1)
    bench.turn()
    key = bench.outside.key(MessageEndpoints.scan_points("scan-42"))
    assert bench.outside.redis.ttl(key) == -1
    bench.close(1)
    bench.turn()

    assert 0 < bench.outside.redis.ttl(key) <= 6 * 3600


def test_the_cursor_passes_scans_with_a_final_file(bench: Bench) -> None:
    bench.open()
    bench.close(0)
    bench.turn()

    last = bench.outside.last_id(MessageEndpoints.scan_status)
    assert bench.service.cursors() == {MessageEndpoints.scan_status.key: last}


def test_points_in_quick_succession_are_written_together(bench: Bench) -> None:
    bench.open()
    bench.turn()
    bench.points(0, 1)
    bench.turn()
    bench.points(1, 1)
    bench.turn()
    assert values(bench.path(), swmr=True) == []
    due = bench.app.deadline()
    assert due is not None
    bench.wait(due - bench.clock.monotonic())

    assert values(bench.path(), swmr=True) == [0.0, 1.0]
    assert bench.app.deadline() is None


def test_a_scan_that_fails_before_its_schema_has_a_file_that_says_so(bench: Bench) -> None:
    bench.status(ScanState.OPEN)
    bench.close(0, state=ScanState.ABORTED)
    bench.turn()

    assert text(bench.path(), "/entry/collection/metadata/bec/status") == "aborted"
    assert [message.done for message in bench.file_events()] == [True]
    assert bench.history()[0].status is ScanState.ABORTED


def test_a_restart_in_the_middle_of_a_scan_makes_the_file_again_and_complete(bench: Bench) -> None:
    bench.open()
    bench.points(0, 2)
    bench.turn()
    before = bench.path().stat().st_ino
    bench.start_writer()
    bench.points(2, 1)
    bench.turn()
    assert bench.path().stat().st_ino != before
    bench.start_writer()
    bench.turn()
    bench.close(3)
    bench.turn()

    assert values(bench.path()) == [0.0, 1.0, 2.0]
    assert [message.file_path for message in bench.file_events()] == [str(bench.path())] * 4
    assert len(bench.history()) == 1
    assert [path.name for path in bench.path().parent.iterdir()] == [bench.path().name]
    assert bench.alarms() == []


def test_a_restart_after_the_seal_finishes_the_file(bench: Bench) -> None:
    bench.open()
    bench.points(0, 2)
    bench.turn()
    bench.close(2)
    bench.start_writer()
    bench.turn()

    assert values(bench.path()) == [0.0, 1.0]
    assert bench.file_events()[-1].done


def test_a_final_file_is_left_alone_after_a_restart(bench: Bench) -> None:
    bench.open(41)
    bench.turn()
    bench.open(42)
    bench.points(0, 1)
    bench.close(1)
    bench.turn()
    before = bench.path().stat().st_ino
    # The cursor cannot pass scan 41, which is still open: scan 42's messages are read again.
    bench.start_writer()
    bench.turn()

    assert bench.path().stat().st_ino == before
    assert len(bench.history()) == 1


def test_what_a_killed_writer_had_not_tidied_up_is_removed(bench: Bench) -> None:
    bench.open()
    bench.points(0, 2)
    bench.close(2)
    bench.turn()
    left = bench.path().with_name(f".{bench.path().name}.123-4.tmp")
    left.touch()
    bench.start_writer()
    assert not left.exists() and bench.path().exists()


def test_two_scans_at_the_same_time_have_their_own_files(bench: Bench) -> None:
    bench.open(1)
    bench.open(2)
    bench.points(0, 1, 1)
    bench.points(0, 3, 2)
    bench.close(1, 1)
    bench.close(3, 2)
    bench.turn()

    assert values(bench.path(1)) == [0.0]
    assert values(bench.path(2)) == [0.0, 1.0, 2.0]


def test_a_file_of_another_scan_is_never_overwritten(bench: Bench) -> None:
    """Redis was lost, and with it the number of the last scan."""
    bench.path().parent.mkdir(parents=True)
    bench.path().write_text("somebody's data")
    bench.open()
    bench.points(0, 1)
    bench.close(1)
    bench.turn()

    assert bench.path().read_text() == "somebody's data"
    other = bench.path().with_name("S00042_master_2.h5")
    assert values(other) == [0.0]
    assert bench.file_events()[-1].file_path == str(other)
    (alarm,) = bench.alarms()
    assert f"the file of scan 42 is {other}" in alarm


def test_a_late_baseline_is_in_the_final_file(bench: Bench) -> None:
    bench.status(ScanState.OPEN)
    bench.say(MessageEndpoints.scan_schema, schema_of((SAMX, COUNTER)))
    bench.points(0, 1)
    bench.turn()
    bench.say(MessageEndpoints.scan_baseline, baseline_of(7.5))
    bench.turn()
    bench.close(1)
    bench.turn()

    with h5py.File(bench.path()) as file:
        assert file[VALUE.format("samz")][()] == 7.5


def test_a_new_schema_makes_a_file_with_the_columns_of_both(bench: Bench) -> None:
    bench.open()
    bench.points(0, 2)
    bench.turn()
    second = schema_of((SAMX, COUNTER, DIODE), version=2)
    bench.say(MessageEndpoints.scan_schema, second)
    bench.turn()
    bench.say(MessageEndpoints.scan_points, points_of(second, 2, 1))
    bench.close(3)
    bench.turn()

    assert values(bench.path()) == [0.0, 1.0, 2.0]
    diode = values(bench.path(), "diode")
    assert math.isnan(diode[0]) and math.isnan(diode[1]) and diode[2] == 2.0


def test_values_that_do_not_fit_are_told_once(bench: Bench) -> None:
    schema = schema_of((SAMX, COUNTER))
    bench.open()
    for first in (0, 1):
        bench.say(
            MessageEndpoints.scan_points,
            points_of(schema, first, 1, values=[[None], [1.5]]),
        )
    bench.close(2)
    bench.turn()

    assert all(math.isnan(value) for value in values(bench.path()))
    (alarm,) = bench.alarms()
    assert "samx (2 values that are no float64)" in alarm
    assert "counter (2 values that are no int64)" in alarm


def test_a_folder_that_cannot_be_written_is_told_and_other_scans_go_on(bench: Bench) -> None:
    (bench.folder / "p1").write_text("a file is in the way")
    bench.open(1)
    bench.turn()
    assert len(bench.alarms()) == 1
    elsewhere = file_target(bench.folder, "p2", 2)
    bench.outside.append(
        MessageEndpoints.scan_status, status_of(scan_id="scan-2", scan_number=2, file=elsewhere)
    )
    bench.say(MessageEndpoints.scan_schema, schema_of((SAMX, COUNTER)), 2)
    bench.points(0, 2, 1)
    bench.points(0, 2, 2)
    bench.close(2, 1)
    bench.say(MessageEndpoints.scan_points, SealMessage(scan_id="", count=2, status="closed"), 2)
    bench.turn()

    assert values(master_path(elsewhere)) == [0.0, 1.0]
    failure = next(message for message in bench.file_events() if message.scan_number == 1)
    assert (failure.done, failure.successful) == (True, False)
    assert "creating the folder" in failure.error and "Not a directory" in failure.error
    assert "the file of scan 1 cannot be written" in bench.alarms()[0]
    assert next(item for item in bench.history() if item.scan_number == 1).file_error == failure.error


def test_a_file_is_written_when_the_disk_is_there_again(bench: Bench) -> None:
    (bench.folder / "p1").write_text("a file is in the way")
    bench.open()
    bench.points(0, 3)
    bench.close(3)
    bench.turn()
    assert not bench.file_events()[-1].successful
    # Nothing of it is lost when the writer is restarted meanwhile.
    bench.start_writer()
    bench.turn()
    (bench.folder / "p1").unlink()
    bench.wait(RETRY_FIRST_S)

    assert values(bench.path()) == [0.0, 1.0, 2.0]
    assert bench.file_events()[-1].successful
    assert bench.history()[-1].file_error == ""


def test_a_disk_that_comes_back_during_the_scan_costs_nothing(bench: Bench) -> None:
    (bench.folder / "p1").write_text("a file is in the way")
    bench.open()
    bench.points(0, 2)
    bench.turn()
    (bench.folder / "p1").unlink()
    bench.points(2, 1)
    bench.close(3)
    bench.turn()

    assert values(bench.path()) == [0.0, 1.0, 2.0]
    assert [message.successful for message in bench.file_events()] == [True]


def test_a_folder_that_is_removed_during_the_scan_is_made_again(bench: Bench) -> None:
    bench.open()
    bench.points(0, 2)
    bench.turn()
    shutil.rmtree(bench.path().parent)
    bench.points(2, 1)
    bench.close(3)
    bench.turn()
    bench.wait(RETRY_FIRST_S)

    assert values(bench.path()) == [0.0, 1.0, 2.0]
    assert bench.file_events()[-1].successful


def said(bench: Bench) -> tuple[str, str]:
    status = bench.outside.get(MessageEndpoints.service_status("file_writer")).message
    return status.status, status.message


@pytest.mark.parametrize("is_over", [True, False])
def test_the_status_says_as_long_as_a_file_cannot_be_written(bench: Bench, is_over: bool) -> None:
    in_the_way = bench.folder / "p1"
    in_the_way.write_text("a file is in the way")
    bench.open()
    bench.points(0, 2)
    if is_over:
        bench.close(2)
    bench.turn()
    bench.wait(RETRY_FIRST_S)
    state, text = said(bench)
    assert state == "ERROR"
    assert text.startswith("the file of scan 42 cannot be written: ") and "Not a directory" in text
    in_the_way.unlink()
    bench.wait(10 * RETRY_FIRST_S)
    assert values(bench.path()) == [0.0, 1.0]
    assert said(bench) == ("RUNNING", "")


def test_a_file_that_cannot_be_written_for_a_day_is_given_up(bench: Bench) -> None:
    (bench.folder / "p1").write_text("a file is in the way")
    bench.open()
    bench.close(0)
    bench.turn()
    bench.wait(GIVE_UP_AFTER_S)

    assert bench.file_events()[-1].metadata == {"given_up": True}
    assert "is given up" in bench.alarms()[-1]
    assert said(bench) == ("RUNNING", "")
    assert bench.app.deadline() is None
    bench.start_writer()
    bench.turn()
    assert bench.app.deadline() is None


def asked_for(bench: Bench, number: int = 42) -> None:
    """What a client does that wants a file again, as far as the writer sees of it."""
    statuses = [
        item.entry_id
        for item in bench.outside.entries(MessageEndpoints.scan_status)
        if isinstance(item, Delivery) and item.message.scan_number == number
    ]
    request = FileRequestMessage(scan_id=f"scan-{number}", entries=[statuses[0], statuses[-1]])
    bench.outside.append(MessageEndpoints.file_request, request)
    bench.turn()


def test_a_file_that_is_asked_for_is_written_at_once(bench: Bench) -> None:
    in_the_way = bench.folder / "p1"
    in_the_way.write_text("a file is in the way")
    bench.open()
    bench.points(0, 3)
    bench.close(3)
    bench.turn()
    asked_for(bench)
    assert [event.successful for event in bench.file_events()] == [False, False]

    in_the_way.unlink()
    asked_for(bench)
    assert bench.file_events()[-1].successful
    assert values(bench.path()) == [0.0, 1.0, 2.0]
    assert bench.history()[-1].file_error == ""
    assert bench.app.deadline() is None


def test_a_file_that_was_deleted_is_written_again_as_long_as_there_are_the_streams(bench: Bench) -> None:
    bench.open()
    bench.points(0, 3)
    bench.close(3)
    bench.turn()
    before = bench.path().read_bytes()
    bench.path().unlink()
    bench.open(number=43)
    bench.turn()

    asked_for(bench)
    assert len(bench.path().read_bytes()) == len(before)
    assert values(bench.path()) == [0.0, 1.0, 2.0]
    cursor = bench.service.cursors()[MessageEndpoints.scan_status.key]
    bench.close(0, number=43)
    bench.turn()
    assert bench.service.cursors()[MessageEndpoints.scan_status.key] > cursor

    for endpoint in (MessageEndpoints.scan_points, MessageEndpoints.scan_schema):
        bench.outside.batch().delete(endpoint("scan-42")).commit()
    bench.path().unlink()
    asked_for(bench)
    assert not bench.path().exists()
    assert bench.app.deadline() is None


def test_a_slow_disk_does_not_hold_up_the_service(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat says what takes so long; the file is announced when it is complete."""
    monkeypatch.setattr(file_writer.app, "WAIT_FOR_WORKER_S", 0.0)
    go_on = threading.Event()
    sync = file_writer.app.hdf5.sync

    def slow(path: Path) -> None:
        assert go_on.wait(30)
        sync(path)

    monkeypatch.setattr(file_writer.app.hdf5, "sync", slow)
    bench.open()
    bench.points(0, 1)
    bench.close(1)
    bench.turn()

    assert [message.done for message in bench.file_events()] == []
    beat = bench.outside.get(MessageEndpoints.service_status("file_writer"))
    assert beat is not None
    assert "scan 42" in beat.message.busy.what
    # The frame asks twice in a turn: a deadline that moves along is never reached.
    due = bench.app.deadline()
    assert due is not None
    bench.clock.advance(due - bench.clock.monotonic())
    assert bench.app.deadline() == due
    go_on.set()
    bench.app._worker.submit(lambda: None).result(30)
    bench.app.on_deadline()
    assert [message.done for message in bench.file_events()] == [True]
    beat = bench.outside.get(MessageEndpoints.service_status("file_writer"))
    assert beat is not None
    assert beat.message.busy is None


def test_wide_files_of_the_same_length_are_written_in_one_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_writer.app, "WIDE", 1)
    copies = []
    copy = file_writer.app.hdf5.copy
    monkeypatch.setattr(file_writer.app.hdf5, "copy", lambda *paths: (copies.append(paths), copy(*paths)))

    def scan(number: int, count: int) -> None:
        bench.open(number)
        bench.turn()
        bench.clock.advance(1.0)
        bench.points(0, 2, number)
        bench.turn()  # two of the points are in the growing file
        bench.points(2, count - 2, number)
        bench.close(count, number)
        bench.turn()
        bench.app._worker.submit(lambda: None).result(30)

    for number, count in ((1, 3), (2, 3), (3, 4), (4, 3), (5, 4)):
        scan(number, count)

    for number, count in ((1, 3), (2, 3), (3, 4), (4, 3), (5, 4)):
        path = bench.path(number)
        assert values(path) == [float(i) for i in range(count)]
        assert text(path, "/entry/entry_identifier") == str(number)
        assert text(path, "/entry/collection/metadata/bec/status") == "closed"
        with h5py.File(path) as file:
            assert file[VALUE.format("samz")][()] == 1.5
        assert [found.name for found in path.parent.iterdir()] == [path.name]
    # Only the first of each length was made of its growing file.
    assert len(copies) == 2
    assert [message.done for message in bench.file_events()] == [False, True] * 5


def test_a_scan_that_is_over_and_not_sealed_is_told(bench: Bench) -> None:
    bench.open()
    bench.turn()
    bench.status(ScanState.CLOSED)
    bench.turn()
    bench.wait(SEAL_PATIENCE_S)

    (alarm,) = bench.alarms()
    assert "the scan bundler has not closed its data" in alarm
    bench.points(0, 1)
    bench.say(MessageEndpoints.scan_points, SealMessage(scan_id="", count=1, status="closed"))
    bench.turn()
    assert values(bench.path()) == [0.0]


def test_stopping_leaves_a_file_that_opens(bench: Bench) -> None:
    bench.open()
    bench.points(0, 2)
    bench.turn()
    bench.app.stop()

    assert values(bench.path()) == [0.0, 1.0]


def test_an_unknown_format_is_told_and_replaced_by_the_default(tmp_path: Path) -> None:
    bench = Bench(tmp_path, file_writer={"plugin": "spreadsheet"})
    bench.open()
    bench.close(0)
    bench.turn()

    assert "'spreadsheet'" in bench.alarms()[0]
    assert text(bench.path(), "/entry/definition") == "NXscan"


def test_a_format_that_raises_costs_no_file(bench: Bench) -> None:
    class Broken:
        def layout(self, scan: Any) -> Group:
            raise ZeroDivisionError("oops")

        def closing(self, scan: Any, end: Any) -> dict[str, Any]:
            return {}

    bench.app._format = Broken()
    bench.open()
    bench.close(0)
    bench.turn()

    assert "ZeroDivisionError: oops" in bench.alarms()[0]
    assert text(bench.path(), "/entry/definition") == "NXscan"


def test_a_scan_that_nobody_foresaw_does_not_end_the_service(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = file_writer.app.row_arrays

    def broken(blocks: Any, *others: Any) -> Any:
        if blocks[0].scan_id == "scan-1":
            raise ZeroDivisionError("oops")
        return rows(blocks, *others)

    monkeypatch.setattr(file_writer.app, "row_arrays", broken)
    for number in (1, 2):
        bench.open(number)
        bench.points(0, 1, number)
        bench.close(1, number)
    bench.turn()

    assert "an unforeseen ZeroDivisionError: oops" in bench.alarms()[0]
    assert values(bench.path(2)) == [0.0]


def test_a_format_of_ones_own_is_used(bench: Bench) -> None:
    class Small:
        def layout(self, scan: Any) -> Group:
            return Group("", "NXroot", (Field("number", scan.status.scan_number),))

        def closing(self, scan: Any, end: Any) -> dict[str, Any]:
            return {}

    bench.app._format = Small()
    bench.open()
    bench.close(0)
    bench.turn()

    with h5py.File(bench.path()) as file:
        assert file["number"][()] == 42


def test_nothing_happens_in_an_idle_service(bench: Bench) -> None:
    assert bench.app.deadline() is None
    assert bench.service.inbox.take(0) == []
