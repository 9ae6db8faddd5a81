"""SciHub's connector: scans, files and device sessions from the streams into databases and catalogues.

Wires the streams to one outbox and one courier thread per target. All state belongs to the service's thread.
A target that is behind reads the streams itself from its own place; one that is up to date gets what arrives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from bec_lib.broker import Delivery, Malformed
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import BECError, ConfigError
from bec_lib.ids import entry_order
from bec_lib.messages import ServiceState, Severity
from bec_lib.service import Event, Service, ServiceConfig, ThreadedInbox
from scihub_connector import outbox as post
from scihub_connector.outbox import Advance, Alarm, Entry, Open, Outbox, Recovered
from scihub_connector.target import Courier, Outcome, Refused, Target, Unavailable, without_password

log = logging.getLogger(__name__)

STREAMS: tuple[Endpoint, ...] = (
    MessageEndpoints.scan_status,
    MessageEndpoints.file_event,
    MessageEndpoints.scan_history,
    MessageEndpoints.device_session_history,
)
READ_AT_ONCE = 200


@dataclass
class Line:
    """A target with its outbox. read: how far each stream was taken into the outbox. behind: there is more in
    the streams than was taken in.
    """

    name: str
    courier: Courier
    outbox: Outbox
    read: dict[str, str] = field(default_factory=dict)
    behind: bool = True

    @property
    def role(self) -> str:
        """Whose cursor it is, in Redis."""
        return f"scihub.{self.name}"


class SciHub:
    def __init__(self, service: Service, targets: dict[str, Callable[[], Target]]):
        self._service = service
        self._broker = service.broker
        self._inbox = cast(ThreadedInbox, service.inbox)
        self._lines = [
            Line(name, Courier(name, connect, self._inbox.post), Outbox(name))
            for name, connect in targets.items()
        ]

    def start(self) -> None:
        for endpoint in STREAMS:
            # From here on for those that are up to date; what was before is read by each target itself.
            self._inbox.follow(endpoint, self._broker.last_id(endpoint))
        for line in self._lines:
            line.courier.start()
        self._turn()

    def handle(self, events: list[Event]) -> None:
        arrived = []
        for event in events:
            match event:
                case Outcome():
                    self._came_back(event)
                case Delivery() | Malformed():
                    arrived.append(event)
        if arrived:
            for line in self._lines:
                if line.outbox.is_full:
                    line.behind = True
                if line.outbox.is_open and not line.behind:
                    self._take(line, arrived)
        self._turn()

    def deadline(self) -> float | None:
        times = [post.deadline(line.outbox) for line in self._lines]
        return min((time for time in times if time is not None), default=None)

    def on_deadline(self) -> None:
        self._turn()

    def stop(self) -> None:
        for line in self._lines:
            line.courier.stop()

    def _turn(self) -> None:
        now = self._service.clock.monotonic()
        for line in self._lines:
            if line.outbox.is_open and line.behind and not line.outbox.is_full:
                self._catch_up(line)
            line.outbox, action = post.next_action(line.outbox, now)
            if action is not None:
                line.courier.do(action)

    def _catch_up(self, line: Line) -> None:
        cursors = {endpoint: line.read.get(endpoint.key, "0") for endpoint in STREAMS}
        found = self._broker.read(cursors, count=READ_AT_ONCE)
        # Nothing more: whatever is appended from now on is behind what was read, and arrives in the inbox.
        line.behind = bool(found)
        self._take(line, found)

    def _take(self, line: Line, items: list[Delivery | Malformed]) -> None:
        entries = []
        for item in items:
            stream = item.endpoint.key
            if entry_order(item.entry_id) <= entry_order(line.read.get(stream, "0")):
                continue
            line.read[stream] = item.entry_id
            if isinstance(item, Malformed):
                log.warning("%s, entry %s is passed over: %s", stream, item.entry_id, item.error)
                continue
            entries.append(Entry(stream, item.entry_id, item.message, item.envelope.sent))
        line.outbox = post.received(line.outbox, entries)

    def _came_back(self, outcome: Outcome) -> None:
        line = next(line for line in self._lines if line.name == outcome.target)
        now = self._service.clock.monotonic()
        had_problem = bool(line.outbox.problem)
        match outcome:
            case Outcome(error=Unavailable() as error):
                # Once for each new problem; the alarm comes if it lasts.
                log.log(
                    logging.INFO if error.message == line.outbox.problem else logging.WARNING,
                    "%s",
                    error.message,
                )
                line.outbox, effects = post.unavailable(line.outbox, now, error.message)
            case Outcome(error=Refused() as error):
                line.outbox, effects = post.refused(line.outbox, error.message)
            case Outcome(action=Open()):
                line.read = self._places(line, outcome.positions)
                line.behind = True
                line.outbox, effects = post.opened(line.outbox)
                log.info("the %s is connected", line.name)
            case _:
                line.outbox, effects = post.succeeded(line.outbox)
        for effect in effects:
            match effect:
                case Advance(cursors=cursors):
                    batch = self._service.batch()
                    for endpoint in STREAMS:
                        if endpoint.key in cursors:
                            batch.cursor(line.role, endpoint, cursors[endpoint.key])
                    batch.commit()
                case Alarm(message=message):
                    self._service.alarm(Severity.MINOR, message)
                case Recovered():
                    log.warning("the %s works again; what waited is being sent", line.name)
        if had_problem or line.outbox.problem:
            self._say_how_it_is()

    def _places(self, line: Line, known: dict[str, str] | None) -> dict[str, str]:
        """Where to go on in each stream: where the target says, else where the cursor stands."""
        found = self._broker.cursors(line.role) if known is None else known
        places = {}
        for endpoint in STREAMS:
            place = found.get(endpoint.key, "0")
            # Redis may have been emptied, or set back, since: a place behind the end means nothing.
            places[endpoint.key] = (
                "0" if entry_order(place) > entry_order(self._broker.last_id(endpoint)) else place
            )
        return places

    def _say_how_it_is(self) -> None:
        problems = [line.outbox.problem for line in self._lines if line.outbox.problem]
        if problems:
            self._service.set_status(ServiceState.ERROR, " ".join(problems))
        else:
            self._service.set_status(ServiceState.RUNNING)


def database_url(config: ServiceConfig) -> str:
    """SQLAlchemy's address of the database in force. Raises ConfigError if it is neither SQLite nor
    PostgreSQL.
    """
    url = config.scihub.database
    if url is None:
        return f"sqlite:///{config.state_folder / 'bec.sqlite'}"
    scheme, separator, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):
        # SQLAlchemy would look for an older driver than the one that is installed.
        return f"postgresql+psycopg://{rest}"
    if not separator or scheme.split("+")[0] not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"`scihub.database` begins with {scheme!r}; it must be sqlite:///FILE or postgresql://USER@HOST/NAME"
        )
    return url


def build_app(service: Service) -> SciHub:
    """The app with the database as its only target. Raises ConfigError, also if SQLAlchemy is missing."""
    import importlib.util

    url = database_url(service.config)
    if importlib.util.find_spec("sqlalchemy") is None:
        raise BECError("SciHub needs SQLAlchemy; install this package with its scihub extra")

    def connect() -> Target:
        # In the courier's thread: the import takes half a second.
        from scihub_connector.database import Database

        return Database(url, service.config.deployment)

    service.info["database"] = without_password(url)
    return SciHub(service, {"database": connect})
