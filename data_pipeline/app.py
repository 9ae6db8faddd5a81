"""The data pipeline: requests and points in, results of fits out.

Wires the streams to the table (points -> columns), the schedule (which fit when) and the runner (worker
processes). All state belongs to the service's thread; the runner's threads only post into the inbox. lmfit is
never imported here.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from bec_lib.broker import Batch, Delivery, Malformed
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import BECError, MessageError, ParameterError, ReasonCode
from bec_lib.ids import entry_order
from bec_lib.messages import (
    AvailableModelsMessage,
    ClientHelloMessage,
    DAPConfigMessage,
    DAPRequestMessage,
    DAPResponseMessage,
    ErrorInfo,
    FitResult,
    ModelInfo,
    PointsMessage,
    ProcessedDataMessage,
    ScanSchemaMessage,
    ScanStatusMessage,
    SealMessage,
    ServiceState,
)
from bec_lib.plugins import MODELS, load_plugins
from bec_lib.service import Event, Service, ThreadedInbox
from data_pipeline import schedule as plan
from data_pipeline.models.fit import TOO_FEW
from data_pipeline.models.model import Model, choose, collect, require_catalogue
from data_pipeline.requests import RequestLog, arrays
from data_pipeline.runners.local import LocalRunner, Work, WorkDone
from data_pipeline.table import Floats, Table, default_x, default_y, label, places_in, resolve

log = logging.getLogger(__name__)

AUTO = "auto"
KNOWN_SCANS = 500
# At start: scans of the last hour may still want their automatic fit.
LOOK_BACK_S = 3600.0
LOOK_BACK_SCANS = 20
# A request that lay there for longer while the service was down has nobody waiting for it any more.
STALE_REQUEST_S = 600.0
# A continuous fit may be asked for before the scan has left the queue.
SCAN_WAIT_S = 3600.0
# From the end of a scan to the seal of its points.
SEAL_WAIT_S = 60.0


class Runner(Protocol):
    """Where fits are computed. Answers come as `WorkDone` in the inbox."""

    def submit(self, work: Work) -> None: ...

    def warm(self) -> None: ...

    def stop(self) -> None: ...


@dataclass
class FitJob:
    """A fit that somebody wants. client_id "": nobody waits for an answer. needed: so many points, for a job
    that is done once; None: until the seal. give_up: monotonic seconds, and what to say then.
    """

    key: str
    request: DAPRequestMessage
    x_data: Floats | None = None
    y_data: Floats | None = None
    x: int = -1
    y: int = -1
    needed: int | None = None
    give_up: float | None = None
    give_up_text: str = ""

    @property
    def is_auto(self) -> bool:
        return not self.request.client_id


@dataclass
class ScanFeed:
    """A scan whose points are being followed, for the jobs that want them."""

    scan_id: str
    schema: ScanSchemaMessage | None = None
    table: Table = field(default_factory=lambda: Table(()))
    sealed: bool = False
    jobs: list[FitJob] = field(default_factory=list)
    # Where blocks of another version of the schema have our columns.
    places: dict[int, dict[int, int | None]] = field(default_factory=dict)


class DataPipeline:
    def __init__(self, service: Service, runner: Runner | None = None):
        self._service = service
        self._broker = service.broker
        self._inbox = cast(ThreadedInbox, service.inbox)
        settings = service.config.data_pipeline
        self._runner: Runner = runner or LocalRunner(self._inbox.post, processes=settings.processes)
        self._schedule = plan.empty(settings.refit_s, settings.processes)
        self._catalogue: dict[str, Model] = {}
        self._log = RequestLog()
        self._cursors: dict[str, str] = {}
        self._backlog: dict[str, str] = {}
        self._request_streams: dict[str, Endpoint] = {}
        self._scans: OrderedDict[str, ScanStatusMessage] = OrderedDict()
        self._feeds: dict[str, ScanFeed] = {}
        # Scans that run and have fits, which are to go some time after their end.
        self._unlimited: set[str] = set()
        self._jobs: dict[str, FitJob] = {}
        self._batch: Batch = service.batch()

    # The service's calls

    def start(self) -> None:
        self._batch = self._service.batch()  # with the lease, which was not held before
        found, failed = load_plugins(MODELS)
        self._catalogue, unusable = collect(found)
        require_catalogue(self._catalogue)
        for plugin, why in (failed | unusable).items():
            log.warning("models of plugin %s: %s", plugin, why)
        self._service.batch().put(
            MessageEndpoints.available_models,
            AvailableModelsMessage(
                models={
                    model.name: ModelInfo(name=model.name, parameters=list(model.parameters), doc=model.doc)
                    for model in self._catalogue.values()
                },
                failed=failed | unusable,
            ),
        ).commit()
        if failed or unusable:
            self._service.set_status(ServiceState.STARTING, f"not loaded: {', '.join(failed | unusable)}")
        self._cursors = self._service.cursors()
        statuses = self._broker.entries(MessageEndpoints.scan_status, count=KNOWN_SCANS, newest=True)
        for item in statuses:
            if isinstance(item, Delivery):
                self._remember(item.message)
        self._inbox.follow(MessageEndpoints.scan_status, statuses[-1].entry_id if statuses else "0")
        self._inbox.follow(MessageEndpoints.client_hello, "0")
        self._resume_automatic()
        self._turn()

    def handle(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Delivery(message=PointsMessage() as block):
                    self._points(block)
                case Delivery(message=SealMessage() as seal):
                    self._seal(seal)
                case Delivery(message=ScanSchemaMessage() as schema):
                    self._schema(schema)
                case Delivery(message=ScanStatusMessage() as status):
                    self._status(status)
                case Delivery(message=DAPRequestMessage() as request):
                    self._request(event, request)
                case Delivery(message=ClientHelloMessage() as hello):
                    self._hello(hello.user)
                case WorkDone():
                    self._done(event)
                case Malformed():
                    self._malformed(event)
        self._turn()

    def deadline(self) -> float | None:
        times = [job.give_up for job in self._jobs.values() if job.give_up is not None]
        refresh = plan.deadline(self._schedule)
        return min([*times, *([refresh] if refresh is not None else [])], default=None)

    def on_deadline(self) -> None:
        now = self._service.clock.monotonic()
        for job in [j for j in self._jobs.values() if j.give_up is not None and j.give_up <= now]:
            if job.request.scan_id in self._feeds and self._feeds[job.request.scan_id].table.count:
                # The points are there, only nobody has sealed them: better a fit to these than none.
                job.give_up = None
                self._grown(self._feeds[job.request.scan_id], complete=True)
            else:
                self._fail(job, BECError(job.give_up_text, code=ReasonCode.TIMEOUT))
        self._turn()

    def stop(self) -> None:
        self._runner.stop()

    def _turn(self) -> None:
        """Begin what is due, and write what was said."""
        self._schedule, runs = plan.next_runs(self._schedule, self._service.clock.monotonic())
        for run in runs:
            self._run(self._jobs[run.key])
        for stream, entry_id in self._log.take_cursors().items():
            self._batch.cursor(self._service.name, self._request_streams[stream], entry_id)
        batch, self._batch = self._batch, self._service.batch()
        batch.commit()

    # Requests

    def _hello(self, user: str) -> None:
        try:
            endpoint = MessageEndpoints.dap_request(user)
        except ValueError as error:
            log.warning("a client says hello as a user that cannot be: %s", error)
            return
        if endpoint.key in self._request_streams:
            return
        self._request_streams[endpoint.key] = endpoint
        self._backlog[endpoint.key] = self._broker.last_id(endpoint)
        self._inbox.follow(endpoint, self._cursors.get(endpoint.key, "0"))

    def _request(self, delivery: Delivery, request: DAPRequestMessage) -> None:
        stream = delivery.endpoint.key
        if not self._can_answer(request.client_id):
            log.warning("a request for a fit names no usable client (%r); passed over", request.client_id)
            self._log.pass_over(stream, delivery.entry_id)
            return
        if not self._log.begin(stream, delivery.entry_id, request.request_id):
            answered = self._log.answer_to(request.request_id)
            if answered is not None:
                self._batch.append(MessageEndpoints.dap_response(request.client_id), answered[1])
            return
        if entry_order(delivery.entry_id) <= entry_order(self._backlog.get(stream, "0-0")):
            if self._was_answered(request):
                self._log.forget(request.request_id)
                return
            age = self._broker.now() - delivery.envelope.sent
            if age > STALE_REQUEST_S:
                self._answer(
                    request,
                    error=ErrorInfo(
                        error_message=f"the data pipeline was not running when this was asked, {age / 60:.0f} min ago; "
                        "ask again",
                        code=ReasonCode.SERVICE_DOWN,
                    ),
                )
                return
        job = FitJob(request.request_id, request)
        try:
            choose(self._catalogue, request.models)
            if request.scan_id is None:
                job.x_data, job.y_data = arrays(request)
        except BECError as error:
            self._answer(request, error=_info(error))
            return
        self._add(job)

    def _was_answered(self, request: DAPRequestMessage) -> bool:
        """Whether an earlier run of this service has answered it before it ended."""
        replies = self._broker.entries(
            MessageEndpoints.dap_response(request.client_id), count=1000, newest=True
        )
        return any(
            isinstance(item, Delivery) and item.message.request_id == request.request_id for item in replies
        )

    def _can_answer(self, client_id: Any) -> bool:
        try:
            MessageEndpoints.dap_response(client_id)
        except (ValueError, TypeError):
            return False
        return True

    def _malformed(self, item: Malformed) -> None:
        log.warning("%s, entry %s: %s", item.endpoint.key, item.entry_id, item.error)
        if item.endpoint.key not in self._request_streams:
            return
        self._log.pass_over(item.endpoint.key, item.entry_id)
        client_id, request_id = item.error.body.get("client_id"), item.error.body.get("request_id")
        if isinstance(client_id, str) and isinstance(request_id, str) and self._can_answer(client_id):
            self._batch.append(
                MessageEndpoints.dap_response(client_id),
                DAPResponseMessage(request_id=request_id, success=False, error=_info(item.error)),
            )

    # Scans

    def _remember(self, status: ScanStatusMessage) -> None:
        self._scans[status.scan_id] = status
        self._scans.move_to_end(status.scan_id)
        while len(self._scans) > KNOWN_SCANS:
            self._scans.popitem(last=False)

    def _status(self, status: ScanStatusMessage) -> None:
        is_new = status.scan_id not in self._scans
        self._remember(status)
        if status.status.is_terminal and status.scan_id in self._unlimited:
            self._unlimited.remove(status.scan_id)
            self._expire(MessageEndpoints.processed_data(status.scan_id))
        if is_new and not status.status.is_terminal:
            self._automatic(status, self._automatic_settings())
        feed = self._feeds.get(status.scan_id)
        if feed is None:
            return
        for job in feed.jobs:
            if status.status.is_terminal:
                self._wait_for_seal(job, status)
            else:
                job.give_up = None

    def _wait_for_seal(self, job: FitJob, status: ScanStatusMessage) -> None:
        job.give_up = self._service.clock.monotonic() + SEAL_WAIT_S
        job.give_up_text = f"scan {status.scan_number} ended ({status.status.value}) without a point to fit"

    def _latest_status(self, scan_id: str) -> ScanStatusMessage | None:
        """The state of a scan now, which may be ahead of what has arrived in the inbox."""
        latest = self._scans.get(scan_id)
        for item in self._broker.entries(MessageEndpoints.scan_status, count=20, newest=True):
            if isinstance(item, Delivery) and item.message.scan_id == scan_id:
                latest = item.message
        return latest

    def _automatic_settings(self) -> DAPConfigMessage | None:
        """What is to be fitted by itself, if anything. Read when a scan opens."""
        try:
            found = self._broker.get(MessageEndpoints.dap_config)
        except MessageError as error:
            log.warning("the settings for automatic fits cannot be read: %s", error)
            return None
        return found.message if found is not None and found.message.enabled else None

    def _automatic(self, status: ScanStatusMessage, settings: DAPConfigMessage | None) -> None:
        # With two motors a curve over one of them means nothing.
        if settings is None or (len(status.motors) != 1 and not settings.x):
            return
        try:
            choose(self._catalogue, settings.models)
        except BECError as error:
            log.warning("automatic fits are not possible: %s", error)
            return
        self._add(
            FitJob(
                f"{AUTO}:{status.scan_id}",
                DAPRequestMessage(
                    request_id=AUTO,
                    client_id="",
                    models=settings.models,
                    scan_id=status.scan_id,
                    x=settings.x,
                    y=settings.y,
                    continuous=True,
                ),
            )
        )

    def _resume_automatic(self) -> None:
        """After a restart: automatic fits of scans that run, or have ended without their final fit."""
        settings = self._automatic_settings()
        if settings is None:
            return
        earliest = self._service.clock.now() - LOOK_BACK_S
        for status in list(self._scans.values())[-LOOK_BACK_SCANS:]:
            if status.status.is_terminal:
                results = self._broker.entries(
                    MessageEndpoints.processed_data(status.scan_id), count=200, newest=True
                )
                has_final = any(
                    isinstance(item, Delivery) and item.message.final and item.message.request_id == AUTO
                    for item in results
                )
                if has_final or status.timestamp < earliest:
                    continue
            self._automatic(status, settings)

    def _add(self, job: FitJob) -> None:
        """Take up a job: its fits come by themselves from now on, or its error is said now."""
        self._jobs[job.key] = job
        self._runner.warm()
        self._schedule = plan.added(self._schedule, job.key, refreshes=job.request.continuous)
        if job.x_data is not None:
            self._schedule = plan.grown(self._schedule, job.key, len(job.x_data), complete=True)
            return
        try:
            self._attach(job)
        except BECError as error:
            self._fail(job, error)

    def _attach(self, job: FitJob) -> None:
        scan_id = cast(str, job.request.scan_id)
        feed = self._feeds.get(scan_id)
        if feed is None:
            feed = ScanFeed(scan_id, self._read_schema(scan_id))
        if not job.request.continuous:
            if feed.schema is None:
                raise self._no_data(scan_id)
            status = self._latest_status(scan_id)
            if status is not None and status.status.is_terminal:
                # Its last points may still be on their way, and whoever asks now wants them all.
                self._wait_for_seal(job, status)
            else:
                job.needed = int(self._broker.last_id(MessageEndpoints.scan_points(scan_id)).split("-")[0])
        elif feed.schema is None:
            self._wait_for_scan(job, scan_id)
        if feed.schema is not None:
            job.x, job.y = _columns(feed.schema, job.request)
        feed.jobs.append(job)
        self._feeds[scan_id] = feed
        if feed.schema is None:
            self._inbox.follow(MessageEndpoints.scan_schema(scan_id), "0")
        else:
            self._open(feed)

    def _read_schema(self, scan_id: str) -> ScanSchemaMessage | None:
        try:
            found = self._broker.entries(MessageEndpoints.scan_schema(scan_id), count=1)
        except ValueError as error:
            raise ParameterError(f"{scan_id!r} is not a scan id") from error
        return found[0].message if found and isinstance(found[0], Delivery) else None

    def _no_data(self, scan_id: str) -> BECError:
        status = self._scans.get(scan_id)
        if status is None:
            return BECError(
                f"there is no scan {scan_id}, or it has not started yet; a continuous fit waits for it",
                code=ReasonCode.NOT_FOUND,
            )
        if status.status.is_terminal:
            return BECError(
                f"scan {status.scan_number} has no points in memory: it ended before its first, or too long ago; "
                "read its file and fit arrays (x_data, y_data)",
                code=ReasonCode.NOT_FOUND,
            )
        return BECError(
            f"scan {status.scan_number} has no points yet; a continuous fit waits for them", code=TOO_FEW
        )

    def _wait_for_scan(self, job: FitJob, scan_id: str) -> None:
        status = self._scans.get(scan_id)
        if status is not None and status.status.is_terminal:
            raise self._no_data(scan_id)
        if status is None:
            job.give_up = self._service.clock.monotonic() + SCAN_WAIT_S
            job.give_up_text = f"no scan {scan_id} has started within {SCAN_WAIT_S / 60:.0f} min"

    def _schema(self, schema: ScanSchemaMessage) -> None:
        """The devices of a scan that was waited for are staged."""
        feed = self._feeds.get(schema.scan_id)
        if feed is None or feed.schema is not None:
            return
        self._inbox.forget(MessageEndpoints.scan_schema(schema.scan_id))
        feed.schema = schema
        for job in list(feed.jobs):
            try:
                job.x, job.y = _columns(schema, job.request)
            except BECError as error:
                self._fail(job, error)
        if feed.jobs:
            self._open(feed)

    def _open(self, feed: ScanFeed) -> None:
        """Have all columns that the jobs want; read the points again if one is new."""
        wanted = {column for job in feed.jobs for column in (job.x, job.y)}
        if not wanted <= set(feed.table.columns):
            feed.table = Table(wanted | set(feed.table.columns))
            feed.sealed = False
            self._inbox.follow(MessageEndpoints.scan_points(feed.scan_id), "0")
        self._grown(feed)

    def _points(self, block: PointsMessage) -> None:
        feed = self._feeds.get(block.scan_id)
        if feed is None or feed.schema is None:
            return
        places = None
        if block.schema_version != feed.schema.version:
            places = self._places(feed, block.schema_version)
        # False: left over from before the stream was read anew; what is missing comes again.
        if feed.table.append(block, places):
            self._grown(feed)

    def _places(self, feed: ScanFeed, version: int) -> dict[int, int | None]:
        """Where blocks of this version of the schema have the columns of the table."""
        known = feed.places.get(version)
        if known is None or set(known) != set(feed.table.columns):
            versions = self._broker.entries(MessageEndpoints.scan_schema(feed.scan_id))
            schemas = {s.message.version: s.message for s in versions if isinstance(s, Delivery)}
            assert feed.schema is not None
            known = places_in(feed.schema, schemas.get(version, feed.schema), feed.table.columns)
            feed.places[version] = known
        return known

    def _seal(self, seal: SealMessage) -> None:
        feed = self._feeds.get(seal.scan_id)
        if feed is not None and feed.table.count == seal.count:
            feed.sealed = True
            self._grown(feed)

    def _grown(self, feed: ScanFeed, complete: bool = False) -> None:
        for job in feed.jobs:
            if job.x_data is not None:
                continue
            enough = job.needed is not None and feed.table.count >= job.needed
            ended = complete or feed.sealed or enough
            if ended:
                # Kept by the job: the table is read anew when somebody else wants another column.
                job.x_data, job.y_data = self._data(feed, job)
            self._schedule = plan.grown(self._schedule, job.key, feed.table.count, complete=ended)

    # Fits

    def _run(self, job: FitJob) -> None:
        request = job.request
        if job.x_data is not None and job.y_data is not None:
            x, y = job.x_data, job.y_data
        else:
            x, y = self._data(self._feeds[cast(str, request.scan_id)], job)
        self._runner.submit(
            Work(job.key, request.models, x, y, request.parameters, request.x_min, request.x_max)
        )

    def _done(self, done: WorkDone) -> None:
        job, planned = self._jobs.get(done.key), self._schedule.jobs.get(done.key)
        if job is None or planned is None:
            return
        final = planned.running_final
        if done.outcome is None:
            if final or done.code is not TOO_FEW:
                if done.traceback:
                    log.error("%s\n%s", done.error, done.traceback)
                self._fail(job, BECError(done.error, code=done.code, details=done.traceback))
            else:
                self._schedule = plan.done(self._schedule, done.key)
            return
        fit = FitResult(**done.outcome)
        stride = self._stride(job)
        if stride > 1:
            note = f"of {self._feeds[cast(str, job.request.scan_id)].table.count} points every {stride}th was used"
            fit = fit.model_copy(update={"message": "; ".join(filter(None, [fit.message, note]))})
        self._schedule = plan.done(self._schedule, done.key)
        if final:
            self._finish(job, fit=fit)
        else:
            self._publish(job, fit=fit)

    def _data(self, feed: ScanFeed, job: FitJob) -> tuple[Floats, Floats]:
        return feed.table.column(job.x).copy(), feed.table.column(job.y).copy()

    def _stride(self, job: FitJob) -> int:
        feed = self._feeds.get(job.request.scan_id or "")
        return feed.table.stride if feed is not None else 1

    def _fail(self, job: FitJob, error: BECError) -> None:
        if job.key in self._schedule.jobs:
            self._schedule = plan.removed(self._schedule, job.key)
        self._finish(job, error=_info(error))

    def _finish(self, job: FitJob, *, fit: FitResult | None = None, error: ErrorInfo | None = None) -> None:
        self._jobs.pop(job.key, None)
        if job.request.scan_id is not None:
            self._publish(job, fit=fit, error=error, final=True)
            self._leave(job)
        if not job.is_auto:
            self._answer(job.request, fit=fit, error=error)
        elif error is not None:
            log.info("the automatic fit of scan %s: %s", job.request.scan_id, error.error_message)

    def _leave(self, job: FitJob) -> None:
        """Follow the scan no more if nobody else wants it."""
        feed = self._feeds.get(cast(str, job.request.scan_id))
        if feed is None or job not in feed.jobs:
            return
        feed.jobs.remove(job)
        if not feed.jobs:
            del self._feeds[feed.scan_id]
            self._inbox.forget(
                MessageEndpoints.scan_points(feed.scan_id), MessageEndpoints.scan_schema(feed.scan_id)
            )

    def _publish(
        self,
        job: FitJob,
        *,
        fit: FitResult | None = None,
        error: ErrorInfo | None = None,
        final: bool = False,
    ) -> None:
        scan_id = cast(str, job.request.scan_id)
        try:
            endpoint = MessageEndpoints.processed_data(scan_id)
        except ValueError:
            return
        feed = self._feeds.get(scan_id)
        x, y = job.request.x, job.request.y
        if feed is not None and feed.schema is not None and job.x >= 0:
            x, y = label(feed.schema.signals[job.x]), label(feed.schema.signals[job.y])
        self._batch.append(
            endpoint,
            ProcessedDataMessage(
                scan_id=scan_id,
                request_id=job.request.request_id,
                x=x,
                y=y,
                fit=fit,
                error=error,
                final=final,
            ),
        )
        status = self._scans.get(scan_id)
        if status is None or status.status.is_terminal:
            self._expire(endpoint)
        else:
            self._unlimited.add(scan_id)

    def _expire(self, fits: Endpoint) -> None:
        """The writer sets the expiry of a scan's streams when its file is final: perhaps before this one came into being."""
        if fits.expires_s is not None:
            self._batch.expire(fits, fits.expires_s)

    def _answer(
        self, request: DAPRequestMessage, *, fit: FitResult | None = None, error: ErrorInfo | None = None
    ) -> None:
        if fit is not None and not fit.success and error is None:
            error = ErrorInfo(error_message=fit.message, code=ReasonCode.WRONG_STATE)
        answer = DAPResponseMessage(
            request_id=request.request_id, success=fit is not None and fit.success, fit=fit, error=error
        )
        endpoint = MessageEndpoints.dap_response(request.client_id)
        self._batch.append(endpoint, answer)
        if endpoint.expires_s is not None:
            self._batch.expire(endpoint, endpoint.expires_s)
        self._log.end(request.client_id, answer)


def _columns(schema: ScanSchemaMessage, request: DAPRequestMessage) -> tuple[int, int]:
    """The columns of x and y. Raises ParameterError that names all that is wrong."""
    problems: list[str] = []
    found = []
    for name, default in ((request.x, default_x), (request.y, default_y)):
        try:
            found.append(resolve(schema, name) if name else default(schema))
        except ParameterError as error:
            problems.append(error.message)
    if problems:
        raise ParameterError("; ".join(dict.fromkeys(problems)), code=ReasonCode.NOT_FOUND)
    return found[0], found[1]


def _info(error: BECError) -> ErrorInfo:
    return ErrorInfo(
        error_message=error.message,
        code=error.reason,
        exception_type=type(error).__name__,
        traceback=error.details,
    )


def build_app(service: Service) -> DataPipeline:
    return DataPipeline(service)
