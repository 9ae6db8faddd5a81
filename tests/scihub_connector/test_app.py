"""SciHub's connector on a broker in memory and an SQLite file: nothing lost, nothing twice."""

import sqlite3
import time

import pytest
import sqlalchemy as sql

from bec_lib import messages as m
from bec_lib.endpoints import MessageEndpoints as E
from bec_lib.errors import ConfigError
from bec_lib.service import Service, ServiceConfig
from bec_lib.testing import fake_broker, fake_server
from scihub_connector import outbox as post
from scihub_connector.app import SciHub, build_app, database_url
from scihub_connector.database import Database
from scihub_connector.target import Unavailable
from tests.scihub_connector.postgresql import private_server
from tests.scihub_connector.test_records import status


class Beamline:
    """Everybody around SciHub, and its loop turned by hand."""

    def __init__(self, tmp_path, connect=None, server=None):
        self.path = tmp_path / "bec.sqlite"
        self.server = server or fake_server()
        self.others = fake_broker(self.server, service="scan_server")
        self.service = Service(
            "scihub", ServiceConfig(state_path=tmp_path), fake_broker(self.server, service="scihub")
        )
        self.service.take_role()
        self.app = SciHub(self.service, {"database": connect or self.connect})
        self.app.start()

    def connect(self):
        return Database(f"sqlite:///{self.path}", "test")

    def close(self):
        self.app.stop()
        self.service.close()

    def turn_until(self, condition, timeout_s=20.0):
        end = time.monotonic() + timeout_s
        while not (found := condition()):
            assert time.monotonic() < end, "nothing came"
            due = self.app.deadline()
            wait = 0.05 if due is None else max(0.0, min(0.05, due - time.monotonic()))
            self.app.handle(self.service.inbox.take(wait))
            if due is not None and time.monotonic() >= due:
                self.app.on_deadline()
        return found

    def scan(self, number, **fields):
        self.others.append(E.scan_status, status(scan_id=f"s{number}", scan_number=number, **fields))

    def query(self, text):
        if not self.path.exists():
            return []
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(text).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()

    def numbers(self):
        return [row[0] for row in self.query("select scan_number from scans order by scan_number")]

    def cursor(self):
        return self.service.broker.cursors("scihub.database").get(E.scan_status.key)

    def alarms(self):
        return [item.message.info.error_message for item in self.others.entries(E.alarm)]


def test_what_was_there_before_and_what_comes_later(tmp_path):
    server = fake_server()
    fake_broker(server).append(E.scan_status, status(scan_id="s1", scan_number=1))
    beamline = Beamline(tmp_path, server=server)
    beamline.turn_until(lambda: beamline.numbers() == [1])
    beamline.scan(2)
    beamline.others.append(E.file_event, m.FileMessage(scan_id="s2", file_path="/d/S2.h5", done=True))
    beamline.turn_until(
        lambda: beamline.query("select file_path from scans where scan_number = 2 and file_is_final")
    )
    beamline.turn_until(lambda: beamline.cursor() == beamline.others.last_id(E.scan_status))
    beamline.close()


def test_a_crash_between_the_commit_and_the_cursor_leaves_no_duplicate(tmp_path):
    """The database has everything, the cursor in Redis says that it has nothing."""
    server = fake_server()
    first = Beamline(tmp_path, server=server)
    for version in (1, 2):
        session = m.DeviceSessionMessage(version=version, devices={"samx": {"v": version}})
        first.others.append(E.device_session_history, session)
    first.scan(1)
    first.turn_until(lambda: first.numbers() == [1])
    tables = ("scans", "scan_devices", "device_sessions", "device_changes")
    before = [first.query(f"select * from {table}") for table in tables]
    first.app.stop()
    first.service.broker.redis.delete(first.service.broker.cursor_key("scihub.database"))
    first.service.close()

    second = Beamline(tmp_path, server=server)
    second.scan(2)
    second.turn_until(lambda: second.numbers() == [1, 2])
    assert second.query("select * from device_sessions") == before[2]
    assert second.query("select * from device_changes") == before[3]
    assert second.query("select count(*) from scans") == [(2,)]
    second.close()


class Patchy:
    """A target without a memory of its own, which is away until it is there."""

    def __init__(self):
        self.away = True
        self.taken = []

    def open(self):
        if self.away:
            raise Unavailable("The logbook does not answer.")
        return None

    def send(self, entries):
        if self.away:
            raise Unavailable("The logbook does not answer.")
        self.taken += [entry.entry_id for entry in entries]

    def close(self):
        pass


def test_an_outage_is_told_once_shown_and_survived(tmp_path, monkeypatch):
    monkeypatch.setattr(post, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(post, "MAX_PAUSE_S", 0.02)
    monkeypatch.setattr(post, "FULL", 10)
    target = Patchy()
    beamline = Beamline(tmp_path, connect=lambda: target)
    line = beamline.app._lines[0]
    for number in range(5):
        beamline.scan(number)
    beamline.turn_until(lambda: line.outbox.failures > 4)
    assert len(beamline.alarms()) == 1
    said = beamline.others.get(E.service_status("scihub")).message
    assert said.status == "ERROR" and "does not answer" in said.message

    target.away = False
    beamline.turn_until(lambda: len(target.taken) == 5)
    target.away = True
    for number in range(5, 105):
        beamline.scan(number)
    beamline.turn_until(lambda: line.outbox.failures > 2)
    assert len(line.outbox.pending) < 10 + 200, "what waits stays in the streams"
    target.away = False
    beamline.turn_until(lambda: len(target.taken) == 105)
    everything = [item.entry_id for item in beamline.others.entries(E.scan_status)]
    assert target.taken == everything
    said = beamline.others.get(E.service_status("scihub")).message
    assert said.status == "RUNNING" and said.message == ""
    beamline.close()

    # It has no memory of its own: the cursor in Redis tells where to go on.
    again = Patchy()
    again.away = False
    second = Beamline(tmp_path, connect=lambda: again, server=beamline.server)
    second.scan(105)
    second.turn_until(lambda: again.taken)
    assert again.taken == [second.others.last_id(E.scan_status)]
    second.close()


def test_a_postgresql_that_crashes_loses_nothing(tmp_path):
    with private_server() as postgresql:
        beamline = Beamline(tmp_path, connect=lambda: Database(postgresql.url, "test"))
        engine = sql.create_engine(postgresql.url, poolclass=sql.NullPool)

        def numbers():
            with engine.connect() as connection:
                return list(
                    connection.scalars(sql.text("select scan_number from scans order by scan_number"))
                )

        beamline.scan(1)
        beamline.turn_until(lambda: beamline.cursor() and numbers() == [1])
        postgresql.crash()
        for number in (2, 3):
            beamline.scan(number)
        beamline.turn_until(beamline.alarms)
        assert beamline.cursor() != beamline.others.entries(E.scan_status)[-1].entry_id
        postgresql.start()
        beamline.turn_until(lambda: numbers() == [1, 2, 3])
        beamline.close()


def test_a_new_database_is_filled_from_what_the_streams_hold(tmp_path):
    first = Beamline(tmp_path)
    first.scan(1)
    first.turn_until(lambda: first.cursor() is not None)
    first.close()
    (tmp_path / "new").mkdir()
    second = Beamline(tmp_path / "new", server=first.server)
    second.turn_until(lambda: second.numbers() == [1])
    second.close()


def test_after_an_emptied_redis_new_scans_are_taken_all_the_same(tmp_path):
    first = Beamline(tmp_path)
    batch = first.others.batch()
    batch.append(E.scan_status, status(scan_id="s1", scan_number=1))
    batch.operations[2] = "99999999999999-0"  # an id far ahead, as after a clock was set back
    batch.commit()
    first.turn_until(lambda: first.numbers() == [1])
    first.close()
    second = Beamline(tmp_path)
    second.scan(2)
    second.turn_until(lambda: second.numbers() == [1, 2])
    second.close()


def test_a_message_that_is_none_is_passed_over(tmp_path):
    beamline = Beamline(tmp_path)
    beamline.others.redis.xadd(beamline.others.key(E.scan_status), {"d": b"\xc1"})
    beamline.scan(1)
    beamline.turn_until(lambda: beamline.numbers() == [1])
    beamline.close()


def test_what_the_database_refuses_is_told_and_the_rest_goes_on(tmp_path):
    beamline = Beamline(tmp_path)
    beamline.turn_until(lambda: beamline.app._lines[0].outbox.is_open)
    beamline.others.append(E.scan_status, status(scan_id="bad", scan_number=1, dataset_number=2**63))
    beamline.scan(2)
    beamline.turn_until(lambda: beamline.numbers() == [2] and beamline.alarms())
    assert len(beamline.alarms()) == 1 and "refuses a scan_status" in beamline.alarms()[0]
    beamline.close()


@pytest.mark.parametrize(
    "given, expected",
    [
        (None, "sqlite:////state/bec.sqlite"),
        ("sqlite:////x/y.sqlite", "sqlite:////x/y.sqlite"),
        ("postgresql://ann@db/bec", "postgresql+psycopg://ann@db/bec"),
        ("postgresql+psycopg://ann@db/bec", "postgresql+psycopg://ann@db/bec"),
    ],
)
def test_the_address_of_the_database(given, expected):
    config = ServiceConfig.model_validate({"state_path": "/state", "scihub": {"database": given}})
    assert database_url(config) == expected


@pytest.mark.parametrize("given", ["mysql://x/y", "bec.sqlite"])
def test_an_address_of_another_kind_is_refused(given):
    with pytest.raises(ConfigError, match="must be sqlite"):
        database_url(ServiceConfig.model_validate({"scihub": {"database": given}}))


def test_the_heartbeat_shows_the_database_without_its_password(tmp_path):
    config = ServiceConfig.model_validate({"scihub": {"database": "postgresql://ann:secret@db/bec"}})
    service = Service("scihub", config, fake_broker(service="scihub"))
    build_app(service)
    assert service.info == {"database": "postgresql://ann@db/bec"}
    service.close()
