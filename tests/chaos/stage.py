"""A real fleet to do harm to, its devices, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import yaml

from bec_lib.broker import Broker, Delivery, Sender
from bec_lib.endpoints import Endpoint, MessageEndpoints
from bec_lib.errors import BECError
from bec_lib.messages import (
    PointsMessage,
    RequestDoneMessage,
    ScanSchemaMessage,
    ScanState,
    ScanStatusMessage,
    SealMessage,
)
from bec_lib.service import load_service_config
from deploy import control
from deploy.services import SERVICES
from deploy.temporary import TemporaryFleet
from deploy.watching import STEADY_S
from file_writer.formats.nexus import value_path
from tests.chaos import oracle
from tests.chaos.oracle import Evidence, FileContents

ROOT = Path(__file__).parents[2]
PLUGINS = Path(__file__).parent / "plugins"
ROLES = [spec.role for spec in SERVICES]
# What the witness watches, and the columns of files in which it may stand.
WATCHED = ("samx", "samy", "m1", "slow", "flyer.x", "flyer.y", "gate", "beam")
MOTORS = tuple(name.replace(".", "_") for name in WATCHED)
# The second device server.
FAR = "far"


def devices(folder: Path, *, far: bool = False) -> dict[str, dict[str, Any]]:
    """The session: two motors that take time and one that does not, a flyer, a peak, the witness, a baseline, and what a
    modifier and an interlock look at.

    folder: where the witness writes, and the beam is told. far: with a motor and a detector on a second device server.
    """

    def device(kind: str, priority: str, **config: Any) -> dict[str, Any]:
        return {
            "deviceClass": kind,
            "deviceConfig": config,
            "readoutPriority": priority,
            "enabled": True,
            "connectionTimeout": 5.0,
        }

    motor: dict[str, Any] = {
        "limits": [-25, 25],
        "velocity": 20,
        "acceleration": 400,
        "tolerance": 0.0001,
        "update_frequency": 20,
    }
    found = {
        "samx": device("device_server.sim.SimPositioner", "baseline", **motor),
        "samy": device("device_server.sim.SimPositioner", "baseline", **motor),
        "m1": device("device_server.sim.ZeroMotor", "baseline"),
        "slow": device("device_server.sim.SimPositioner", "baseline", **{**motor, "velocity": 1.0}),
        "peak": device(
            "device_server.sim.SimMonitor",
            "monitored",
            model="gaussian",
            motors="samx",
            amplitude=1000,
            center=0.3,
            sigma=0.2,
        ),
        "witness": device(
            "tests.chaos.witness.Witness",
            "monitored",
            log=str(folder / "witness.log"),
            stages=str(folder / "stages.log"),
            motors=list(WATCHED),
        ),
        "flyer": device("device_server.sim.SimFlyer", "on_request", move_time=0.02),
        "gate": device("device_server.sim.ZeroMotor", "on_request"),
        "notes": device("tests.chaos.witness.Notes", "on_request", file=str(folder / "notes.log")),
        "beam": device("tests.chaos.witness.Beam", "on_request", file=str(folder / "beam")),
        "room": device("device_server.sim.ConstSignal", "baseline", value=21.5),
    }
    if far:
        found["fary"] = {
            **device("device_server.sim.SimPositioner", "baseline", **motor),
            "deviceServer": FAR,
        }
        found["farcount"] = {
            **device("device_server.sim.ConstSignal", "monitored", value=2),
            "deviceServer": FAR,
        }
    return found


class Stage:
    """A fleet with its devices loaded, a client of it, and eyes. One owner: the test's thread."""

    def __init__(self, *, far: bool = False, hurry: bool = False) -> None:
        """far: with a second device server. hurry: ask for the start of whoever the supervisor lets wait because it has
        ended too often; for tests, which kill one after the other.
        """
        self.far = far
        self._hurry = hurry
        # Whether a stall of a machine that has other things to do may be taken for one of ours.
        self.is_quiet = not hurry
        self._stopping = threading.Event()
        self._hurrier: threading.Thread | None = None
        self.roles = [*ROLES, *([f"device_server.{FAR}"] if far else [])]
        # Forked services inherit it: the witness is imported from here, and the crash orders are found.
        os.environ["PYTHONPATH"] = os.pathsep.join(
            dict.fromkeys(
                [str(ROOT), str(PLUGINS), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
            )
        )
        self.fleet = TemporaryFleet(
            prefix="bec-chaos", settings={"device_servers": ["main", FAR]} if far else None
        )
        self.orders = self.fleet.folder / "crash-at"
        os.environ["BEC_CRASH_AT"] = str(self.orders)
        self.switch_beam(on=True)
        config = load_service_config(self.fleet.config)
        self._eye_settings = config.broker_settings, config.deployment
        self.broker = Broker(*self._eye_settings, Sender("test", "eye"))
        self.broker.is_patient = True
        self.client: Any = None
        self.scan_ids: list[str] = []
        self._killed: dict[str, float] = {}

    def start(self) -> Stage:
        try:
            return self._start()
        except BaseException:
            with contextlib.suppress(BECError, OSError):
                self.stop()
            self.fleet.remove()
            raise

    def _start(self) -> Stage:
        self.fleet.start()
        self.new_client()
        file = self.fleet.folder / "devices.yaml"
        file.write_text(yaml.safe_dump(devices(self.fleet.folder, far=self.far)), encoding="utf-8")
        change = self.client.config.update_session_with_file(file)
        assert not change.failed, change.failed
        if self._hurry:
            self._hurrier = threading.Thread(target=self._hurry_up, daemon=True)
            self._hurrier.start()
        return self

    def _hurry_up(self) -> None:
        while not self._stopping.wait(0.1):
            with contextlib.suppress(BECError, OSError):
                for row in self.fleet.status()["services"]:
                    if row["state"] == "DOWN":
                        control.ask(self.fleet.socket, {"do": "restart", "service": row["service"]})

    def new_client(self) -> Any:
        from bec_client import BECClient

        if self.client is not None:
            self.client.shutdown()
        self.client = BECClient(self.fleet.config).start()
        self.client.notify = lambda text: None
        self.client.connection.notify = lambda text: None
        self.client.live_updates.enabled = False
        return self.client

    def stop(self) -> list[str]:
        """End it; what it has left over."""
        from tests.system.processes import processes_of

        left: list[str] = []
        self._stopping.set()
        if self._hurrier is not None:
            self._hurrier.join()
        try:
            if self.client is not None:
                self.client.shutdown()
                self.client = None
            self.broker.close()
            self.fleet.stop()
            left += [f"process {pid} was left over" for pid in processes_of(self.fleet)]
            state = sorted(path.name for path in self.fleet.state.iterdir())
            left += [
                f"{name} was left over in the state folder"
                for name in state
                if name not in ("logs", "redis") and ".sqlite" not in name
            ]
        finally:
            os.environ.pop("BEC_CRASH_AT", None)
            self.fleet.remove()
        return left

    def note_killed(self, names: Iterable[str]) -> None:
        self._killed.update(dict.fromkeys(names, time.monotonic()))

    def are_rested(self, names: Sequence[str]) -> bool:
        """Whether the supervisor starts all of these again at once: none has just been killed."""
        since = time.monotonic() - 2 * STEADY_S
        return len(set(names)) == len(names) and all(self._killed.get(name, 0.0) < since for name in names)

    def switch_beam(self, *, on: bool) -> None:
        """Whatever of the fleet lives or not."""
        file = self.fleet.folder / "beam"
        new = file.with_suffix(".new")
        new.write_text("1" if on else "0", encoding="ascii")
        new.rename(file)

    # Looking

    def pids(self) -> dict[str, int]:
        """Role -> process, also of redis and the keeper; 0 for one that is not there."""
        status = self.fleet.status()
        found = {row["service"]: row["pid"] or 0 for row in status["services"]}
        return found | {
            "redis": status["redis"]["pid"] or 0,
            "keeper": status["supervisor"]["keeper"] or 0,
        }

    def wait_until_well(self, timeout_s: float = 60.0) -> list[str]:
        """Until all services say RUNNING; those that do not, as sentences."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.fleet.status()
            ill = [
                f"{row['service']} is {row['state']} after {timeout_s:g} s"
                for row in status["services"]
                if row["state"] != "RUNNING"
            ]
            if not ill and "error" not in status["redis"]:
                return []
            if time.monotonic() > deadline:
                return ill or ["Redis does not answer"]
            time.sleep(0.05)

    def messages(self, endpoint: Endpoint) -> list[Delivery]:
        return [item for item in self.broker.entries(endpoint) if isinstance(item, Delivery)]

    def points(self, scan_id: str) -> list[Delivery]:
        return self.messages(MessageEndpoints.scan_points(scan_id))

    def num_points(self, scan_id: str) -> int:
        """Points that are acknowledged."""
        last = self.broker.last_id(MessageEndpoints.scan_points(scan_id))
        return int(last.partition("-")[0])

    def statuses(self) -> list[ScanStatusMessage]:
        return [item.message for item in self.messages(MessageEndpoints.scan_status)]

    def evidence(
        self,
        scan_id: str,
        client_id: str,
        expected: dict[str, Any] | None = None,
        may_end: tuple[ScanState, ...] = (ScanState.CLOSED,),
        **more: Any,
    ) -> Evidence:
        statuses = [status for status in self.statuses() if status.scan_id == scan_id]
        schemas = [item.message for item in self.messages(MessageEndpoints.scan_schema(scan_id))]
        schema: ScanSchemaMessage | None = schemas[-1] if schemas else None
        entries = [item.message for item in self.points(scan_id)]
        finals = [
            item.message
            for item in self.messages(MessageEndpoints.file_event)
            if item.message.scan_id == scan_id and item.message.done
        ]
        return Evidence(
            scan_id=scan_id,
            statuses=statuses,
            schema=schema,
            points=[entry for entry in entries if isinstance(entry, PointsMessage)],
            seals=[entry for entry in entries if isinstance(entry, SealMessage)],
            dones=[
                item.message
                for item in self.messages(MessageEndpoints.request_response(client_id))
                if isinstance(item.message, RequestDoneMessage) and item.message.scan_id == scan_id
            ],
            finals=len(finals),
            file=contents(finals[-1].file_path, schema) if finals and finals[-1].successful else None,
            motors=MOTORS,
            expected=expected,
            may_end=may_end,
            **more,
        )

    def witnessed(self) -> dict[int, oracle.Positions]:
        found = {}
        # The last line of a killed process may be half written.
        for words in self._lines("witness.log"):
            if len(words) == 1 + len(MOTORS):
                found[int(words[0])] = tuple(map(float, words[1:]))
        return found

    def notes(self) -> list[str]:
        """What the modifier has had noted, since the fleet was started."""
        return [words[0] for words in self._lines("notes.log") if words]

    def is_staged(self) -> bool:
        """Whether the device server that lives now has left the witness staged."""
        pid = str(self.pids()["device_server"])
        own = [words[1] for words in self._lines("stages.log") if len(words) == 2 and words[0] == pid]
        return own[-1:] == ["stage"]

    def _lines(self, name: str) -> list[list[str]]:
        file = self.fleet.folder / name
        if not file.exists():
            return []
        return [line.split() for line in file.read_text(encoding="utf-8").splitlines()]

    def judge_all(self) -> list[str]:
        """What concerns the deployment as a whole. Call it when nothing runs."""
        statuses = self.statuses()
        finals = {
            item.message.file_path
            for item in self.messages(MessageEndpoints.file_event)
            if item.message.done and item.message.successful
        }
        present = [str(path) for path in self.fleet.data.rglob("*") if path.is_file()]
        ended = {status.scan_id: status.status.value for status in statuses if status.status.is_terminal}
        return [
            *oracle.judge_numbers(statuses),
            *oracle.judge_folder(present, finals),
            *self._judge_catalogue(ended),
        ]

    def _judge_catalogue(self, ended: dict[str, str]) -> list[str]:
        deadline = time.monotonic() + 30.0
        while True:
            found = oracle.judge_catalogue(self._catalogue(), ended)
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def _catalogue(self) -> dict[str, str]:
        database = sqlite3.connect(f"file:{self.fleet.state / 'bec.sqlite'}?mode=ro", uri=True)
        try:
            return dict(database.execute("select scan_id, status from scans").fetchall())
        except sqlite3.OperationalError:
            return {}
        finally:
            database.close()


def contents(path: str, schema: ScanSchemaMessage | None) -> FileContents:
    """A final file, as far as the oracle needs it. Raises OSError if it cannot be opened."""
    with h5py.File(path) as file:
        columns = {
            signal.signal: file[value_path(signal)][:].tolist()
            for signal in (schema.signals if schema else ())
        }
        return FileContents(
            path,
            columns,
            file["/entry/entry_identifier_uuid"][()].decode(),
            file["/entry/collection/metadata/bec/status"][()].decode(),
            float(file["/entry/collection/metadata/bec/dead_time_s"][()]),
        )
