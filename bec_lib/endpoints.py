"""Every key of the system, as data.

An endpoint says under which key something is found, what kind of thing it is, which messages it carries,
which role writes it, and how long it is kept. Type checks, the documentation page, the Redis ACL file and the
one-writer test all come from this table.

    python -m bec_lib.reference > docs/endpoints.md     (--check FILE compares instead)

Keys are `bec:{deployment}:{access}/...`; the deployment is put in front by the broker. Access classes are
BEC's, as (anonymous, logged in, services): internal (-, -, rw), public (r, r, rw), personal (-, rw of one's
own, r), user (-, rw, rw), info (-, r, rw), admin (-, -, rw).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from bec_lib import messages as m
from bec_lib.messages import Message


class Kind(StrEnum):
    """stream: everything, in order, also for late listeners. latest: the current value, plus a publish on
    change.
    broadcast: a publish, nothing kept."""

    STREAM = "stream"
    LATEST = "latest"
    BROADCAST = "broadcast"


class Access(StrEnum):
    INTERNAL = "internal"
    PUBLIC = "public"
    PERSONAL = "personal"
    USER = "user"
    INFO = "info"
    ADMIN = "admin"


HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True)
class Endpoint:
    """One key, or (with placeholders in it) a family of keys. Calling a family fills the placeholders.

    writer: the role that may write it; "client" is any logged-in user. max_entries: streams are trimmed to
    about that many.
    expires_s: seconds after the last write (latest) or after the scan's file is final (streams of a scan);
    None: never.
    """

    key: str
    kind: Kind
    messages: tuple[type[Message], ...]
    writer: str
    doc: str
    max_entries: int | None = None
    expires_s: float | None = None

    @property
    def access(self) -> Access:
        return Access(self.key.split("/", 1)[0])

    @property
    def placeholders(self) -> tuple[str, ...]:
        return tuple(re.findall(r"{(\w+)}", self.key))

    def __call__(self, *values: str) -> Endpoint:
        """The endpoint with its placeholders filled, in order. Raises ValueError on a wrong number or on a
        value with `/`, `{` or `*`.
        """
        names = self.placeholders
        if len(values) != len(names):
            raise ValueError(f"{self.key} needs {len(names)} names ({', '.join(names)}), got {len(values)}")
        key = self.key
        for name, value in zip(names, values, strict=True):
            if not value or any(c in value for c in "/{}*? \n"):
                raise ValueError(f"{value!r} cannot be the {name} of {self.key}")
            key = key.replace("{" + name + "}", value)
        return replace(self, key=key) if names else self


def _stream(
    key: str,
    *messages: type[Message],
    writer: str,
    doc: str,
    keep: int | None = None,
    expires: float | None = None,
) -> Endpoint:
    return Endpoint(key, Kind.STREAM, messages, writer, doc, max_entries=keep, expires_s=expires)


def _latest(
    key: str, message: type[Message], *, writer: str, doc: str, expires: float | None = None
) -> Endpoint:
    return Endpoint(key, Kind.LATEST, (message,), writer, doc, expires_s=expires)


class MessageEndpoints:
    """The table. Writers are roles: client, scan_server, device_server, scan_bundler, file_writer, scihub,
    data_pipeline, supervisor.
    """

    # Requests of clients. The user is taken from the key, which the ACL guards, never from the message.
    client_hello = _stream(
        "user/clients",
        m.ClientHelloMessage,
        writer="client",
        keep=1000,
        doc="Clients announce their user, so that services read the user's request streams.",
    )
    scan_queue_request = _stream(
        "personal/{user}/queue_request",
        m.ScanQueueMessage,
        m.ScanQueueModificationMessage,
        m.DeviceConfigMessage,
        m.InterlockRequestMessage,
        m.BeamlineStateRequestMessage,
        m.PluginReloadMessage,
        writer="client",
        keep=20_000,
        doc="Scan requests, queue commands, changes of configuration, interlocks and states of a user, in order.",
    )
    device_rpc_request = _stream(
        "personal/{user}/device_rpc",
        m.DeviceRPCMessage,
        writer="client",
        keep=20_000,
        doc="Calls of device methods; read by every device server, answered by the one that holds the device.",
    )
    dap_request = _stream(
        "personal/{user}/dap_request",
        m.DAPRequestMessage,
        writer="client",
        keep=2000,
        doc="Requests for fits.",
    )
    device_stop = _stream(
        "user/device_stop",
        m.DeviceControlMessage,
        writer="client",
        keep=1000,
        doc="Stop all devices, whatever else is alive; read by the device servers' control threads.",
    )

    # Answers. One stream per role and client.
    request_response = _stream(
        "info/replies/scan_server/{client_id}",
        m.RequestResponseMessage,
        m.RequestDoneMessage,
        writer="scan_server",
        keep=20_000,
        expires=DAY,
        doc="Answers to requests and commands, and their ends.",
    )
    device_rpc_response = _stream(
        "info/replies/device_server/{client_id}",
        m.DeviceRPCResponse,
        writer="device_server",
        keep=1000,
        expires=DAY,
        doc="Answers to device calls.",
    )
    dap_response = _stream(
        "info/replies/data_pipeline/{client_id}",
        m.DAPResponseMessage,
        writer="data_pipeline",
        keep=1000,
        expires=DAY,
        doc="Answers to requests for fits.",
    )

    # Scan server.
    available_scans = _latest(
        "info/scans/available_scans",
        m.AvailableScansMessage,
        writer="scan_server",
        doc="The catalogue: every scan's signature and documentation.",
    )
    scan_queue_status = _latest(
        "info/queue/queue_status",
        m.ScanQueueStatusMessage,
        writer="scan_server",
        doc="All queues as they are now.",
    )
    queue_events = _stream(
        "info/queue/events",
        m.ScanQueueStatusMessage,
        writer="scan_server",
        keep=1000,
        doc="Every change of the queues, as the snapshot after it.",
    )
    queue_log = _stream(
        "internal/queue/log",
        m.QueueLogMessage,
        writer="scan_server",
        keep=100_000,
        doc="What happened to the queues since `queue_state` was written.",
    )
    queue_state = _latest(
        "internal/queue/state",
        m.QueueStateMessage,
        writer="scan_server",
        doc="What the scan server needs to go on after a restart.",
    )
    scan_timing = _latest(
        "internal/scans/timing",
        m.ScanTimingMessage,
        writer="scan_server",
        doc="What was learned of how long moves, points and scans take.",
    )
    scan_status = _stream(
        "info/scans/scan_status",
        m.ScanStatusMessage,
        writer="scan_server",
        keep=10_000,
        doc="Every change of state of every scan; `open` is the intent.",
    )
    scan_number = _latest(
        "info/scans/scan_number",
        m.ScanNumberMessage,
        writer="scan_server",
        doc="The last scan number given out.",
    )
    scan_schema = _stream(
        "info/scan/{scan_id}/schema",
        m.ScanSchemaMessage,
        writer="scan_server",
        expires=6 * HOUR,
        doc="The columns of the scan's readings and points, by version.",
    )
    scan_positions = _latest(
        "info/scan/{scan_id}/positions",
        m.ScanPositionsMessage,
        writer="scan_server",
        expires=6 * HOUR,
        doc="The targets of all points, if known beforehand.",
    )
    scan_journal = _stream(
        "internal/scan/{scan_id}/journal",
        m.ScanJournalMessage,
        writer="scan_server",
        expires=6 * HOUR,
        doc="Committed steps of the scan with their results, for replay.",
    )
    device_instructions = _stream(
        "internal/devices/{server}/instructions",
        m.DeviceInstructionMessage,
        writer="scan_server",
        keep=50_000,
        doc="Instructions to one device server, in order.",
    )
    device_control = _stream(
        "internal/devices/control",
        m.DeviceControlMessage,
        writer="scan_server",
        keep=1000,
        doc="Stop, pause and resume; overtakes instructions.",
    )
    device_session = _latest(
        "info/devices/session",
        m.DeviceSessionMessage,
        writer="scan_server",
        doc="The device session in force.",
    )
    device_session_history = _stream(
        "info/devices/session_history",
        m.DeviceSessionMessage,
        writer="scan_server",
        keep=200,
        doc="Every session that was in force.",
    )

    interlocks = _stream(
        "info/interlocks/definitions",
        m.InterlocksMessage,
        writer="scan_server",
        keep=200,
        doc="The interlocks as defined; the newest entry counts.",
    )
    interlock_status = _latest(
        "info/interlocks/status",
        m.InterlockStatusMessage,
        writer="scan_server",
        doc="Which interlocks are tripped, and why.",
    )
    beamline_states = _latest(
        "info/states/all",
        m.BeamlineStatesMessage,
        writer="scan_server",
        doc="All beamline states as they are now.",
    )
    beamline_state_events = _stream(
        "info/states/events",
        m.BeamlineStateMessage,
        writer="scan_server",
        keep=10_000,
        doc="Every change of every beamline state.",
    )

    # Device server.
    interlock_trips = _stream(
        "internal/interlocks/trips",
        m.InterlockTripMessage,
        writer="device_server",
        keep=1000,
        doc="Interlocks that a device server saw trip.",
    )
    device_server_info = _latest(
        "info/devices/servers/{server}",
        m.DeviceServerInfoMessage,
        writer="device_server",
        doc="A device server's process and epoch.",
    )
    device_holders = _latest(
        "info/devices/holders/{server}",
        m.DeviceHoldersMessage,
        writer="device_server",
        doc="Which scan, move or call has which devices of a device server now.",
    )
    device_instructions_response = _stream(
        "internal/devices/{server}/responses",
        m.DeviceInstructionResponse,
        writer="device_server",
        keep=50_000,
        doc="The one terminal reply to each instruction.",
    )
    device_info = _latest(
        "info/devices/info/{device}",
        m.DeviceInfoMessage,
        writer="device_server",
        doc="A device's signals, methods, limits and state.",
    )
    device_readback = _latest(
        "info/devices/readback/{device}",
        m.DeviceMessage,
        writer="device_server",
        doc="A device's latest reading, rate-limited.",
    )
    scan_readings = _stream(
        "info/scan/{scan_id}/readings",
        m.ReadingsMessage,
        writer="device_server",
        expires=6 * HOUR,
        doc="Readings of monitored and baseline devices, in blocks.",
    )

    # Scan bundler.
    scan_points = _stream(
        "info/scan/{scan_id}/points",
        m.PointsMessage,
        m.SealMessage,
        writer="scan_bundler",
        expires=6 * HOUR,
        doc="Complete points in order, each once, ended by the seal.",
    )
    scan_baseline = _stream(
        "info/scan/{scan_id}/baseline",
        m.BaselineMessage,
        writer="scan_bundler",
        expires=6 * HOUR,
        doc="The baseline readings.",
    )
    scan_progress = _latest(
        "info/scans/scan_progress",
        m.ProgressMessage,
        writer="scan_bundler",
        doc="Progress of the scan that advanced last.",
    )

    # File writer.
    file_event = _stream(
        "info/files/events",
        m.FileMessage,
        writer="file_writer",
        keep=20_000,
        doc="Files that can be opened, and files that are final.",
    )
    file_request = _stream(
        "user/files/requests",
        m.FileRequestMessage,
        writer="client",
        keep=1000,
        doc="Scans whose files are to be written again.",
    )
    scan_history = _stream(
        "info/scans/history",
        m.ScanHistoryMessage,
        writer="file_writer",
        keep=10_000,
        doc="Scans that are over and have a final file.",
    )

    # Data pipeline.
    available_models = _latest(
        "info/dap/models",
        m.AvailableModelsMessage,
        writer="data_pipeline",
        doc="Models that data can be fitted to.",
    )
    processed_data = _stream(
        "info/scan/{scan_id}/fits",
        m.ProcessedDataMessage,
        writer="data_pipeline",
        keep=2000,
        expires=6 * HOUR,
        doc="Results of fits to a scan's points, as they are refreshed.",
    )
    dap_config = _latest(
        "user/dap/config", m.DAPConfigMessage, writer="client", doc="What is fitted by itself in every scan."
    )

    # The system.
    service_status = _latest(
        "info/services/status/{service}",
        m.StatusMessage,
        writer="any",
        expires=1.5,
        doc="Heartbeats, every 0.5 s.",
    )
    service_last_heard = _latest(
        "info/services/last_heard/{service}",
        m.StatusMessage,
        writer="any",
        expires=7 * DAY,
        doc="The last heartbeat, also of a service that is silent since.",
    )
    supervisor_events = _stream(
        "info/services/supervisor",
        m.SupervisorMessage,
        writer="supervisor",
        keep=1000,
        doc="Starts, ends and restarts of services.",
    )
    alarm = _stream("info/alarms", m.AlarmMessage, writer="any", keep=1000, doc="What a person should know.")
    log = _stream(
        "info/log",
        m.LogMessage,
        writer="any",
        keep=10_000,
        doc="Log lines of all services, WARNING and above.",
    )
    account = _latest(
        "user/account", m.AccountMessage, writer="client", doc="The account (proposal) in force."
    )
    global_variable = _latest(
        "user/vars/{name}",
        m.GlobalVariableMessage,
        writer="client",
        doc="A variable that all clients share.",
    )
    datasets = _stream(
        "user/datasets",
        m.DatasetMessage,
        writer="client",
        keep=1000,
        doc="Datasets that were begun; the entry id has the number.",
    )
    global_variable_names = _stream(
        "user/var_names",
        m.GlobalVariableNameMessage,
        writer="client",
        keep=10_000,
        doc="Names of global variables, each when it was made; those that are deleted stand here still.",
    )


def all_endpoints() -> Iterator[tuple[str, Endpoint]]:
    """Name and endpoint of every row of the table, in its order."""
    for name, value in vars(MessageEndpoints).items():
        if isinstance(value, Endpoint):
            yield name, value
