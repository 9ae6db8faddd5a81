"""The database target, on SQLite; on PostgreSQL as well, where it is installed or BEC_TEST_POSTGRESQL names an empty one."""

import os
import sqlite3

import pytest
import sqlalchemy as sql

from bec_lib import messages as m
from scihub_connector.database import VERSION, Database, metadata
from scihub_connector.outbox import Entry
from scihub_connector.target import Refused, Unavailable
from tests.scihub_connector.postgresql import private_server
from tests.scihub_connector.test_records import status

POSTGRESQL = os.environ.get("BEC_TEST_POSTGRESQL", "")


@pytest.fixture(scope="module")
def server():
    if POSTGRESQL:
        yield POSTGRESQL
        return
    with private_server() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sub/bec.sqlite"
    server = request.getfixturevalue("server")
    engine = sql.create_engine(server)
    metadata.drop_all(engine)
    engine.dispose()
    return server


@pytest.fixture
def database(url):
    database = Database(url, "beamline")
    assert database.open() == {}
    yield database
    database.close()


def query(url, text):
    engine = sql.create_engine(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(sql.text(text))]
    engine.dispose()
    return found


SESSIONS = [
    m.DeviceSessionMessage(
        version=1, devices={"samx": {"limits": [0, 1]}, "bpm": {}}, user="ann", timestamp=1e9
    ),
    m.DeviceSessionMessage(version=2, devices={"samx": {"limits": [0, 5]}}, timestamp=1.1e9),
]
ENTRIES = [
    Entry("status", "1-0", status()),
    Entry("session", "1-0", SESSIONS[0]),
    Entry("session", "2-0", SESSIONS[1]),
    Entry("file", "3-0", m.FileMessage(scan_id="s1", file_path="/d/S42.h5", done=False, scan_number=42)),
    Entry("status", "4-0", status(status="closed", num_readouts=11, ended=1_700_000_100.0)),
    Entry("file", "5-0", m.FileMessage(scan_id="s1", file_path="/d/S42.h5", done=True, scan_number=42)),
]


def test_scans_files_and_sessions_can_be_queried(url, database):
    database.send(ENTRIES)
    assert query(url, "select scan_number, status, num_readouts, file_path, file_is_final from scans") == [
        (42, "closed", 11, "/d/S42.h5", True)
    ]
    assert query(
        url,
        "select scan_number from scans join scan_devices using (scan_id) where device = 'samx' and role = 'motor'",
    ) == [(42,)]
    assert query(url, "select file_path, is_final from files") == [("/d/S42.h5", True)]
    assert query(url, "select version, user_name from device_sessions order by id") == [(1, "ann"), (2, "")]
    assert query(url, "select device, version, kind from device_changes order by device, version") == [
        ("bpm", 1, "added"),
        ("bpm", 2, "removed"),
        ("samx", 1, "added"),
        ("samx", 2, "changed"),
    ]
    assert database.open() == {"status": "4-0", "session": "2-0", "file": "5-0"}


def test_the_same_entries_again_change_nothing(url, database):
    everything = [f"select count(*) from {name}" for name in metadata.tables]
    database.send(ENTRIES)
    before = [query(url, text) for text in everything]
    database.send(ENTRIES)
    assert [query(url, text) for text in everything] == before
    assert query(url, "select status, num_readouts from scans") == [("closed", 11)]


def test_two_deployments_share_a_database(url, database):
    database.send(ENTRIES[1:3])
    other = Database(url, "other")
    assert other.open() == {}
    other.send(ENTRIES[1:2])
    assert query(url, "select deployment, count(*) from device_sessions group by deployment order by 1") == [
        ("beamline", 2),
        ("other", 1),
    ]
    other.close()


def test_all_of_a_batch_or_nothing_is_taken(url, database):
    bad = Entry("status", "9-0", status(scan_id="s2", scan_number=2**70))
    with pytest.raises(Refused):
        database.send([ENTRIES[0], bad])
    assert query(url, "select count(*) from scans") == [(0,)]
    assert database.open() == {}
    database.send([ENTRIES[0]])
    assert query(url, "select scan_id from scans") == [("s1",)]


def test_a_database_of_a_newer_release_is_left_alone(url, database):
    engine = sql.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sql.text(f"insert into schema_version values ({VERSION + 1})"))
    engine.dispose()
    with pytest.raises(Unavailable, match="newer release"):
        Database(url, "beamline").open()


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path):
    (tmp_path / "bec.sqlite").write_text(
        "this is not a database, and it is long enough to be seen as none" * 20
    )
    with pytest.raises(Unavailable, match=r"bec\.sqlite cannot be used: file is not a database"):
        Database(f"sqlite:///{tmp_path}/bec.sqlite", "d").open()


def test_a_server_that_is_not_there_is_named_without_its_password():
    database = Database("postgresql+psycopg://ann:secret@localhost:1/bec", "d")
    with pytest.raises(Unavailable, match="postgresql://ann@localhost:1/bec cannot be used") as failure:
        database.open()
    assert "secret" not in failure.value.message


@pytest.mark.parametrize("url", ["nonsense", "mysql+nothing://x/y"])
def test_an_address_that_means_nothing_is_refused_in_words(url):
    with pytest.raises(Unavailable, match=r"scihub\.database"):
        Database(url, "d").open()


def test_readers_do_not_wait_for_the_writer(tmp_path):
    path = tmp_path / "bec.sqlite"
    database = Database(f"sqlite:///{path}", "d")
    database.open()
    writer = sqlite3.connect(path)
    writer.execute("begin immediate")
    reader = sqlite3.connect(path, timeout=0)
    assert reader.execute("select count(*) from scans").fetchone() == (0,)
    writer.close()
    reader.close()
    database.close()
