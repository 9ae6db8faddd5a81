"""Scans, files and device sessions in an SQL database: SQLite by default, PostgreSQL by URL.

The only module that knows SQLAlchemy. The database also remembers how far it has read the streams, in the
same transaction as the rows: it cannot be behind or ahead of itself, whether Redis's cursor was lost, a backup
was put back, or a new database is to be filled from what the streams still hold.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, MetaData, Table, Text
from sqlalchemy.dialects import postgresql, sqlite

from bec_lib import crash_points
from bec_lib.messages import DeviceSessionMessage
from scihub_connector.outbox import Entry
from scihub_connector.records import Row, rows, session_rows
from scihub_connector.target import Refused, Unavailable, without_password

log = logging.getLogger(__name__)

# jsonb in PostgreSQL, so that it can be indexed and compared; text in SQLite, read by its json functions.
Json = sql.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
Time = DateTime(timezone=True)

metadata = MetaData()

Table(
    "scans",
    metadata,
    Column("scan_id", Text, primary_key=True),
    Column("deployment", Text, nullable=False),
    Column("scan_number", BigInteger),
    Column("scan_name", Text),
    Column("scan_type", Text),
    Column("status", Text),
    Column("reason", Text),
    Column("message", Text),
    Column("error", Text),
    Column("error_code", Text),
    Column("error_device", Text),
    Column("user_name", Text),
    Column("account", Text),
    Column("queue", Text),
    Column("request_id", Text),
    Column("session_id", Text),
    Column("dataset_number", BigInteger),
    Column("args", Json),
    Column("kwargs", Json),
    Column("parameters", Json),
    Column("motors", Json),
    Column("shape", Json),
    Column("readout", Json),
    Column("metadata", Json),
    Column("num_points", BigInteger),
    Column("num_readouts", BigInteger),
    Column("started", Time),
    Column("ended", Time),
    Column("config_hash", Text),
    Column("code_hash", Text),
    Column("file_path", Text),
    Column("file_is_final", Boolean),
    sql.Index("scans_by_number", "deployment", "scan_number"),
    sql.Index("scans_by_start", "started"),
    sql.Index("scans_by_account", "account"),
)
Table(
    "scan_devices",
    metadata,
    Column("scan_id", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    sql.Index("scan_devices_by_device", "device", "role"),
)
Table(
    "files",
    metadata,
    Column("scan_id", Text, primary_key=True),
    Column("file_path", Text, primary_key=True),
    Column("deployment", Text, nullable=False),
    Column("scan_number", BigInteger),
    Column("device", Text),
    Column("is_master", Boolean),
    Column("file_type", Text),
    Column("is_final", Boolean),
    Column("successful", Boolean),
    Column("error", Text),
    Column("num_points", BigInteger),
    Column("size_bytes", BigInteger),
    Column("updated", Time),
    Column("metadata", Json),
)
Table(
    "device_sessions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("deployment", Text, nullable=False),
    Column("entry", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("hash", Text),
    Column("source", Text),
    Column("user_name", Text),
    Column("committed", Time),
    Column("devices", Json),
    Column("failed", Json),
    Column("changes", Json),
    sql.UniqueConstraint("deployment", "entry"),
    sql.Index("device_sessions_by_hash", "hash"),
)
Table(
    "device_changes",
    metadata,
    Column("deployment", Text, primary_key=True),
    Column("entry", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("committed", Time),
    Column("kind", Text),
    Column("config", Json),
    Column("changes", Json),
    sql.Index("device_changes_by_device", "device", "committed"),
)
_positions = Table(
    "positions",
    metadata,
    Column("deployment", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("entry", Text, nullable=False),
    Column("updated", Time),
)
_schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

# The step from version n + 1 to n + 2, e.g. `lambda c: c.execute(sql.text("ALTER TABLE ..."))`. Never changed
# once released; a new database is made by `metadata` alone.
MIGRATIONS: tuple[Callable[[sql.Connection], object], ...] = ()
VERSION = 1 + len(MIGRATIONS)


class Database:
    """A `Target`. url: SQLAlchemy's; `deployment` marks the rows, so that several can share a database."""

    def __init__(self, url: str, deployment: str):
        try:
            self._url = sql.make_url(url)
        except sql.exc.ArgumentError as error:
            raise Unavailable(
                f"The address of the database ({without_password(url)}) cannot be used; see `scihub.database` "
                "in the service configuration."
            ) from error
        self._deployment = deployment
        self._engine: sql.Engine | None = None

    @property
    def where(self) -> str:
        """Its address for people, without the password."""
        return without_password(self._url.render_as_string(hide_password=False))

    def open(self) -> dict[str, str]:
        with self._words():
            if self._engine is None:
                self._engine = self._make_engine()
            with self._engine.begin() as connection:
                self._migrate(connection)
                found = connection.execute(
                    sql.select(_positions.c.stream, _positions.c.entry).where(
                        _positions.c.deployment == self._deployment
                    )
                )
                return {row.stream: row.entry for row in found}

    def send(self, entries: Sequence[Entry]) -> None:
        with self._words():
            assert self._engine is not None, "open() comes first"
            with self._engine.begin() as connection:
                for entry in entries:
                    for row in self._rows(connection, entry):
                        self._put(connection, row)
                now = datetime.now(UTC)
                for stream, entry_id in {entry.stream: entry.entry_id for entry in entries}.items():
                    self._put(
                        connection,
                        Row(
                            "positions",
                            {"deployment": self._deployment, "stream": stream},
                            {"entry": entry_id, "updated": now},
                        ),
                    )
                crash_points.reached("scihub.before_database")
            crash_points.reached("scihub.after_database")

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _make_engine(self) -> sql.Engine:
        if self._url.get_backend_name() == "sqlite":
            if self._url.database:
                Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
            engine = sql.create_engine(self._url)
            sql.event.listen(engine, "connect", _set_up_sqlite)
            return engine
        return sql.create_engine(
            self._url,
            pool_size=1,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 5,
                "options": "-c statement_timeout=60000",
                # A peer that vanished without a word is noticed.
                "tcp_user_timeout": 20000,
                "application_name": f"bec-scihub {self._deployment}",
            },
        )

    def _migrate(self, connection: sql.Connection) -> None:
        """Make a new database, or bring an older one up to date, step by step and never back."""
        if not sql.inspect(connection).has_table("schema_version"):
            metadata.create_all(connection)
            connection.execute(_schema_version.insert().values(version=VERSION))
            return
        version = connection.execute(sql.select(sql.func.max(_schema_version.c.version))).scalar() or 1
        if version > VERSION:
            raise Unavailable(
                f"The database {self.where} was written by a newer release (layout {version}, this one knows up to "
                f"{VERSION}); update this service or name another database."
            )
        for step in range(version, VERSION):
            MIGRATIONS[step - 1](connection)
            connection.execute(_schema_version.insert().values(version=step + 1))
            log.info("the database was brought from layout %s to %s", step, step + 1)

    def _rows(self, connection: sql.Connection, entry: Entry) -> list[Row]:
        if not isinstance(entry.message, DeviceSessionMessage):
            return rows(entry, self._deployment)
        sessions = metadata.tables["device_sessions"]
        mine = sessions.c.deployment == self._deployment
        if connection.execute(
            sql.select(sessions.c.id).where(mine, sessions.c.entry == entry.entry_id)
        ).first():
            return []  # sent before; the session before it is no longer the last one
        previous = connection.execute(
            sql.select(sessions.c.devices).where(mine).order_by(sessions.c.id.desc()).limit(1)
        ).scalar()
        return session_rows(entry.message, entry.entry_id, self._deployment, previous)

    def _put(self, connection: sql.Connection, row: Row) -> None:
        table = metadata.tables[row.table]
        insert: Any = (
            sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
        )
        insert = insert.values(**row.key, **row.values)
        key = list(row.key)
        if row.values:
            insert = insert.on_conflict_do_update(index_elements=key, set_=row.values)
        else:
            insert = insert.on_conflict_do_nothing(index_elements=key)
        connection.execute(insert)

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        """Errors of the driver as Unavailable or Refused. What is not surely an entry's fault is the
        database's: nothing is thrown away on a doubt.
        """
        try:
            yield
        except (sql.exc.DataError, sql.exc.IntegrityError) as error:
            raise Refused(_first_line(error.orig or error)) from error
        except sql.exc.NoSuchModuleError as error:
            raise Unavailable(
                f"The database {self.where} needs a driver that is not there ({error}); use a sqlite or "
                "postgresql address in `scihub.database`."
            ) from error
        except sql.exc.StatementError as error:
            if not isinstance(error, sql.exc.DBAPIError) or (
                self._url.get_backend_name() == "sqlite"
                and isinstance(error, sql.exc.InterfaceError | sql.exc.ProgrammingError)
            ):
                # A value that the driver cannot bind.
                raise Refused(_first_line(error.orig or error)) from error
            raise self._unavailable(error.orig or error) from error
        except (sql.exc.SQLAlchemyError, OSError, ImportError) as error:
            raise self._unavailable(error) from error
        except (OverflowError, TypeError, ValueError) as error:
            raise Refused(_first_line(error)) from error

    def _unavailable(self, error: BaseException) -> Unavailable:
        return Unavailable(f"The database {self.where} cannot be used: {_first_line(error)}.")


def _set_up_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    # WAL: readers never wait for the writer. NORMAL: a power cut may cost the last transactions, and with them
    # the place in the streams, so that they are read and written again.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()


def _first_line(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.rstrip(".")


def tables() -> Mapping[str, Sequence[str]]:
    """Table -> its columns; for the documentation and its test."""
    return {name: [column.name for column in table.columns] for name, table in metadata.tables.items()}
