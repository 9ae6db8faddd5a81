"""The client: everything that a user, a script or a notebook does with a beamline starts from a `BECClient`.

    bec = BECClient()
    bec.start()
    dev, scans = bec.device_manager.devices, bec.scans

Knows no IPython. Opens no connection before `start`.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from bec_client.alarms import Alarms
from bec_client.config import Config
from bec_client.connection import Connection
from bec_client.dap import DAP
from bec_client.devices import DeviceContainer
from bec_client.history import History
from bec_client.interlocks import BeamlineStates, BuiltinActors, Interlocks
from bec_client.live import LiveUpdates
from bec_client.moves import move_functions
from bec_client.plugins import Outcome, Plugins
from bec_client.queue import Queue
from bec_client.report import ScanReport
from bec_client.scan_item import ScanStorage
from bec_client.scans import Scans
from bec_client.services import ServiceStatus
from bec_client.session import Session
from bec_lib.broker import Broker, RedisSettings, Sender
from bec_lib.clock import SystemClock
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, BrokerError, ParameterError
from bec_lib.ids import new_id
from bec_lib.messages import (
    AccountMessage,
    AlarmMessage,
    ClientHelloMessage,
    ControlKind,
    DeviceControlMessage,
    Severity,
)
from bec_lib.service.config import ServiceConfig, load_service_config

log = logging.getLogger("bec_client")

PATIENCE_S = 1.0  # for a connection that is lost meanwhile
CONNECT_S = 5.0
_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]*")


class SystemConfig:
    """What is used for every scan that says nothing else: `bec.system_config.file_suffix = "test"`."""

    def __init__(self) -> None:
        self.file_suffix = ""
        self.file_directory = ""


class DeviceManager:
    """Holds the devices, under the name that BEC's users know."""

    def __init__(self, devices: DeviceContainer):
        self.devices = devices


class BECClient:
    """A client of one deployment.

    config: a service configuration, or its path; None: the one named by BEC_CONFIG, else as `bec status` shows.
    redis: a Redis URL, instead of what the configuration says. user: whose requests these are, the login name by
    default. program: what this client calls itself.

    Use it in a `with` statement, or call `start` and `shutdown`.
    """

    def __init__(
        self,
        config: ServiceConfig | str | Path | None = None,
        *,
        redis: str | None = None,
        deployment: str | None = None,
        user: str | None = None,
        program: str = "python",
        broker: Broker | None = None,
    ):
        found = config if isinstance(config, ServiceConfig) else load_service_config(config)
        changes: dict[str, Any] = {}
        if redis is not None:
            changes["redis"] = RedisSettings(url=redis)
        if deployment is not None:
            changes["deployment"] = deployment
        self.service_config = found.model_copy(update=changes) if changes else found
        self.username = user or _login_name()
        if not re.fullmatch(r"[A-Za-z0-9_.@-]+", self.username):
            raise ParameterError(
                f"{self.username!r} cannot be a user name: it may have letters, digits, '_', '.', '@' and '-' only"
            )
        self.program = program
        clock = SystemClock()
        self.client_id = new_id(clock)
        self.broker = broker or Broker(
            self.service_config.broker_settings,
            self.service_config.deployment,
            Sender(f"client:{program}", self.client_id, self.username),
            clock=clock,
        )
        self.service_status = ServiceStatus(self.broker, self.service_config.device_servers)
        self.connection = Connection(self.broker, self.client_id, self.username, self.service_status)
        self.scan_storage = ScanStorage(self.broker)
        self.session = Session(self)
        self.devices = DeviceContainer(self)
        self.device_manager = DeviceManager(self.devices)
        self.scans = Scans(self)
        self.queue = Queue(self)
        self.interlocks = Interlocks(self)
        self.beamline_states = BeamlineStates(self)
        self.builtin_actors = BuiltinActors(self)
        self.plugins = Plugins(self)
        self.config = Config(self)
        self.history = History(self.broker)
        self.alarms = Alarms(self.broker)
        self.dap = DAP(self)
        self.metadata: dict[str, Any] = {}
        self.system_config = SystemConfig()
        self.live_updates = LiveUpdates(self)
        self.last_report: ScanReport | None = None
        self.on_alarm: list[Callable[[AlarmMessage], None]] = []
        self.started = False
        moves = move_functions(self)
        self.mv, self.mvr, self.umv, self.umvr, self.wm = (
            moves[n] for n in ("mv", "mvr", "umv", "umvr", "wm")
        )

    # Life

    def start(self) -> BECClient:
        """Connect. Raises BrokerError, which says how to start a fleet, if there is none to connect to."""
        if self.started:
            return self
        try:
            self.broker.wait_until_reachable(CONNECT_S if self.service_config.redis else 0.0)
        except BrokerError as error:
            raise self._explained(error) from error
        # A Redis that is started again is back within that; whoever waits is told of it within two seconds.
        self.broker.patience_s = PATIENCE_S
        connection = self.connection
        connection.on_scan_status = self.scan_storage.on_status
        connection.on_file = self.scan_storage.on_file
        connection.on_session = self.session.on_session
        connection.on_alarm = self._on_alarm
        connection.start()
        self.broker.append(
            Endpoints.client_hello,
            ClientHelloMessage(
                user=self.username,
                client_id=self.client_id,
                host=socket.gethostname(),
                pid=os.getpid(),
                program=self.program,
            ),
        )
        self.started = True
        return self

    def shutdown(self) -> None:
        """Disconnect. Scans that run go on."""
        if self.started:
            self.started = False
            self.connection.stop()

    def __enter__(self) -> BECClient:
        return self.start()

    def __exit__(
        self, kind: type | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def _request_scan_reload(self) -> Outcome:
        """BEC's name for `bec.plugins.reload()`."""
        return self.plugins.reload()

    # What is there

    @property
    def deployment(self) -> str:
        return self.service_config.deployment

    @property
    def dev(self) -> DeviceContainer:
        return self.devices

    @property
    def account(self) -> str:
        """The account (proposal) in force, "" for none. Assign to change it for everybody."""
        found = self.broker.get(Endpoints.account)
        return found.message.account if found else ""

    @account.setter
    def account(self, value: str) -> None:
        if not _ACCOUNT.fullmatch(value) or value in (".", ".."):
            raise ParameterError(
                f"{value!r} cannot be an account: it may have letters, digits, '_', '-' and '.' only, as it names a folder"
            )
        self.broker.put(Endpoints.account, AccountMessage(account=value))

    active_account = account

    def stop_devices(self, devices: list[str] | None = None) -> None:
        """Stop all devices that move, now, whatever else is alive. A scan that runs ends with it."""
        self.broker.append(
            Endpoints.device_stop,
            DeviceControlMessage(
                kind=ControlKind.STOP,
                devices=devices,
                request_id=self.connection.new_id(),
                client_id=self.client_id,
            ),
        )

    def clear_all_alarms(self) -> None:
        self.alarms.clear()

    def show_last_alarm(self, offset: int = 0) -> None:
        """Print the last alarm with its traceback; offset: how many before the last."""
        found = list(self.alarms)
        if offset >= len(found):
            print("No alarms.")
            return
        alarm = found[-1 - offset]
        print(f"{alarm.severity.name} from {alarm.source}: {alarm.info.error_message}")
        if alarm.info.traceback:
            print(alarm.info.traceback)

    def show_all_commands(self) -> None:
        """Print what can be called."""
        print(_COMMANDS)

    def notify(self, text: str) -> None:
        """Tell the user something that is nobody's return value."""
        self.connection.notify(text)

    # Parts

    def _on_alarm(self, alarm: AlarmMessage) -> None:
        self.alarms.on_alarm(alarm)
        for callback in self.on_alarm:
            callback(alarm)
        if not self.on_alarm and alarm.severity >= Severity.MAJOR:
            log.warning("%s: %s", alarm.source, alarm.info.error_message)

    def _explained(self, error: BrokerError) -> BECError:
        if not self.service_config.is_embedded:
            return error
        config = self.service_config.source_file
        option = f" --config {config}" if config else ""
        return BrokerError(
            f"No BEC is running for deployment {self.deployment!r} on this computer. Start it with "
            f"`bec-server start{option}`, or name another deployment with --config or BEC_CONFIG."
        )

    def __repr__(self) -> str:
        state = "connected" if self.started else "not started"
        return f"<BECClient of {self.deployment} at {self.broker.settings.address()}, user {self.username}, {state}>"


def _login_name() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9_.@-]", "_", name) or "unknown"


def stderr_notice(text: str) -> None:
    """Notices of scripts go to standard error."""
    print(text, file=sys.stderr)


_COMMANDS = """\
dev.<TAB>                      devices: .read() .get() .set(v) .limits; dev.wm("sam*"), dev.show_all()
scans.<TAB>                    scans; scans.line_scan? explains one
mv umv mvr umvr wm             move, and where things are
bec.config                     load_demo_config(), update_session_with_file(path), save_current_session(path)
bec.queue                      the queue; request_scan_interruption(), request_scan_continuation(), request_scan_abortion()
bec.interlocks                 add("beam", "curr.curr < 100", settle_time=5): scans are held meanwhile; show()
bec.beamline_states            add(DeviceWithinLimitsStateConfig(...)), show_all()
bec.plugins                    plugins with scans and modifiers; reload() imports them again
bec.history                    earlier scans; bec.history[-1].devices.samx.samx.read()
bec.dap                        fits; bec.dap.GaussianModel.fit(report, "samx", "samx", "bpm4i", "bpm4i")
bec.alarms  bec.service_status  bec.account  bec.metadata
"""
