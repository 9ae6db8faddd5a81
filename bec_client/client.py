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
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from bec_client.alarms import Alarms
from bec_client.callbacks import CallbackHandler, EventType
from bec_client.config import Config
from bec_client.connection import Connection
from bec_client.dap import DAP
from bec_client.devices import DeviceContainer
from bec_client.history import History
from bec_client.interlocks import BeamlineStates, BuiltinActors, Interlocks
from bec_client.live import LiveUpdates
from bec_client.macros import UserMacros
from bec_client.moves import move_functions
from bec_client.names import WrongName
from bec_client.plugins import Outcome, Plugins
from bec_client.queue import Queue
from bec_client.report import ScanReport
from bec_client.scan_item import ScanStorage
from bec_client.scans import Scans, set_current_client
from bec_client.services import ServiceStatus
from bec_client.session import Session
from bec_client.variables import GlobalVariables
from bec_lib.broker import Broker, RedisSettings, Sender
from bec_lib.clock import SystemClock
from bec_lib.endpoints import MessageEndpoints as Endpoints
from bec_lib.errors import BECError, BrokerError, ParameterError, ReasonCode, RequestRejected
from bec_lib.ids import new_id
from bec_lib.messages import (
    AccountMessage,
    AlarmMessage,
    ClientHelloMessage,
    ControlKind,
    DeviceControlMessage,
    Severity,
)
from bec_lib.scans.signature import did_you_mean
from bec_lib.service.config import ServiceConfig, load_service_config

log = logging.getLogger("bec_client")

PATIENCE_S = 1.0  # for a connection that is lost meanwhile
CONNECT_S = 5.0
_USER = re.compile(r"[A-Za-z0-9_.@-]+")
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
        _check_user(self.username)
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
        self.last_report: ScanReport | None = None  # of a scan, no move: what %resume shows and %abort means
        self.on_alarm: list[Callable[[AlarmMessage], None]] = []
        self.callbacks = CallbackHandler(self)
        self.macros = UserMacros(self)
        variables = GlobalVariables(self.broker)
        self.set_global_var = variables.set_global_var
        self.get_global_var = variables.get_global_var
        self.delete_global_var = variables.delete_global_var
        self.show_global_vars = variables.show_global_vars
        self.global_vars = variables.global_vars
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
            self.broker.wait_until_reachable(
                CONNECT_S if self.service_config.redis else 0.0, though_silent=False
            )
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
        self._say_hello()
        self.started = True
        set_current_client(self)
        if "ipykernel" in sys.modules:
            from bec_client.shell.notebook import show_in_notebook

            show_in_notebook(self)
        return self

    def _say_hello(self) -> None:
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

    def shutdown(self) -> None:
        """Disconnect. Scans that run go on."""
        if self.started:
            self.started = False
            self.callbacks.stop()
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

    def switch_user(self, name: str) -> None:
        """Make requests as somebody else from now on. Raises ParameterError for a name that is none, RequestRejected where
        Redis wants a login.
        """
        _check_user(name)
        if self.broker.settings.username:
            raise RequestRejected(
                f"this Redis knows its users by their logins, and this client is logged in as "
                f"{self.broker.settings.username!r}; leave it, and log in with the configuration of {name!r}"
            )
        self.username = name
        self.broker.sender = replace(self.broker.sender, user=name)
        self.connection.become(name)
        if self.started:
            self._say_hello()

    # Names

    def namespace(self) -> dict[str, Any]:
        """What a user of the shell, and a macro, finds without importing anything."""
        from bec_client.export import scan_to_csv, scan_to_dict
        from bec_client.repeat import scan_repeat
        from bec_client.scans import FileWriter, Metadata

        names = {
            "bec": self,
            "dev": self.devices,
            "scans": self.scans,
            "scan_to_csv": scan_to_csv,
            "scan_to_dict": scan_to_dict,
            "scan_repeat": scan_repeat,
            "Metadata": Metadata,
            "FileWriter": FileWriter,
        }
        return {**names, **{name: getattr(self, name) for name in ("mv", "mvr", "umv", "umvr", "wm")}}

    def load_high_level_interface(self, module_name: str) -> list[str]:
        """Add a set of words to the shell: "spec_hli" has ascan, a2scan, dscan, d2scan, amesh and dmesh. "bec_hli" (mv,
        umv ...) is always there. Their names; they are attributes of this client, too.
        """
        from bec_client.spec import spec_functions

        if module_name == "bec_hli":
            return []
        if module_name != "spec_hli":
            raise ParameterError(
                f"there is no high-level interface {module_name!r}; there are 'bec_hli' and 'spec_hli'. Your own functions "
                "are macros: bec.macros.load_user_macro(file)"
            )
        functions = spec_functions(self)
        for name, function in functions.items():
            setattr(self, name, function)
        self.callbacks.run(EventType.NAMESPACE_UPDATE, action="add", ns_objects=functions)
        return list(functions)

    # Earlier names of the same

    def wait_for_service(self, name: str, status: Any = None) -> None:
        """Wait until a service ("ScanServer", "scan_server") runs; status is accepted and ignored.

        Raises ServiceDown when it is silent for longer than a restart takes.
        """
        role = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        role = {"sci_hub": "scihub", "dapserver": "data_pipeline", "dap": "data_pipeline"}.get(role, role)
        if role not in self.service_status.roles:
            raise ParameterError(
                f"there is no service {name!r}.{did_you_mean(role, self.service_status.roles)} There are "
                f"{', '.join(self.service_status.roles)}"
            )
        self.service_status.require([role], f"waiting for {name}")

    @property
    def live_updates_config(self) -> LiveUpdates:
        return self.live_updates

    def load_all_user_scripts(self) -> None:
        self.macros.load_all_user_macros()

    def load_user_script(self, file: str | Path) -> None:
        self.macros.load_user_macro(file)

    def forget_user_script(self, name: str) -> None:
        self.macros.forget_user_macro(name)

    def forget_all_user_scripts(self) -> None:
        self.macros.forget_all_user_macros()

    def list_user_scripts(self) -> None:
        self.macros.list_user_macros()

    def __getattr__(self, name: str) -> Any:
        # Only for what is not there.
        if name in _MISSING:
            raise MissingFeature(f"bec.{name} is not there yet: {_MISSING[name]}. See docs/moving_over.md")
        known = [found for found in dir(self) if not found.startswith("_")]
        near = "" if name.startswith("_") else did_you_mean(name, known)
        raise WrongName(f"bec has no {name!r}.{near}")

    def stop_devices(self, devices: list[str] | None = None) -> None:
        """Stop all devices that move, or these, now, whatever else is alive. Scans that use them end with it."""
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

    def bl_show_all(self) -> None:
        """Print how the beamline is: services, states, interlocks, and where all positioners are."""
        from bec_client.tables import interlock_table, position_table, service_table, show

        show(service_table(self.service_status.get(), self.service_status.ends()))
        self.beamline_states.show_all()
        show(interlock_table(self.interlocks.definitions, self.interlocks.status))
        if len(self.devices):
            show(position_table(self.session.positions()))

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


class MissingFeature(BECError, AttributeError):
    """Something that the released BEC has, and this one has not yet."""

    code = ReasonCode.UNSUPPORTED


def _check_user(name: str) -> None:
    if not _USER.fullmatch(name):
        raise ParameterError(
            f"{name!r} cannot be a user name: it may have letters, digits, '_', '.', '@' and '-' only"
        )


def _login_name() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return re.sub(r"[^A-Za-z0-9_.@-]", "_", name) or "unknown"


def stderr_notice(text: str) -> None:
    """Notices of scripts go to standard error."""
    print(text, file=sys.stderr)


_MISSING = {
    "messaging": "it needs the connection to SciLog, Teams and Signal",
    "logbook": "it needs the connection to SciLog",
    "proc": "there are no procedures; let a script or a notebook of its own run them",
    "beamline_storage_copy": "it needs the transfer of files to the storage",
    "gui": "there is no graphical interface",
    "upload_script": "scripts are run by clients; `bec` runs a file with `%run FILE`",
    "_run_script": "scripts are run by clients; `bec` runs a file with `%run FILE`",
}

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
bec.macros                     your own functions from ~/bec/macros; load_user_macro(file), list_user_macros()
bec.callbacks                  register("scan_segment", function): called for each point
bec.set_global_var(name, v)    get_global_var, delete_global_var, show_global_vars(): shared by all clients
scan_to_csv(report, file)      scan_to_dict(report); `with scans.scan_export(file):`
bec.dap                        fits; bec.dap.GaussianModel.fit(report, "samx", "samx", "bpm4i", "bpm4i")
%schema NAME  %su NAME         what a scan takes; go on as another user
bec.alarms  bec.service_status  bec.account  bec.metadata
"""
