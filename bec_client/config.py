"""The device session from the user's side: load, extend, save, reset: `bec.config`.

Files are read and checked here, before anything is sent; whether the devices can be built and connected is the
device servers' to find out, and is reported device by device.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bec_lib.errors import ConfigError, ReasonCode, error_for
from bec_lib.messages import ConfigAction, DeviceConfigMessage, RequestResponseMessage

if TYPE_CHECKING:
    from bec_client.client import BECClient

LOAD_S = 300.0  # many devices, each with its connection timeout


@dataclass(frozen=True)
class SessionChange:
    """What a change of the session did. failed: device -> why it could not be built or connected. kept: device -> why it
    was not built anew, and is in use as it was. rebuilt: those that were, of a reload.
    """

    version: int = 0
    loaded: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    source: str = ""
    unchanged: bool = False
    kept: dict[str, str] = field(default_factory=dict)
    rebuilt: list[str] | None = None

    def __str__(self) -> str:
        if self.unchanged:
            return f"{self.source} is already in force; force=True loads it anew."
        count = len(self.loaded)
        text = f"{count} device{'s' * (count != 1)} loaded" + (f" from {self.source}" if self.source else "")
        if self.rebuilt is not None:
            count = len(self.rebuilt)
            text = f"{count} device{'s' * (count != 1)} built anew"
        if self.failed:
            listed = "\n".join(f"  {name}: {reason}" for name, reason in self.failed.items())
            text += f"; {len(self.failed)} could not be loaded:\n{listed}"
        if self.kept:
            listed = "\n".join(f"  {name}: {reason}" for name, reason in self.kept.items())
            text += f"{'.' if not self.failed else ''}\n{len(self.kept)} could not be built anew:\n{listed}"
        return text + ("" if self.failed or self.kept else ".")

    __repr__ = __str__


class Config:
    """The device session: `bec.config.update_session_with_file("beamline.yaml")`."""

    def __init__(self, client: BECClient):
        self._client = client

    def update_session_with_file(
        self, path: str | Path, force: bool = False, save_recovery: bool = True, validate: bool = True
    ) -> SessionChange:
        """Make the devices of a file the session. Those that fail are reported; the others are loaded.

        force: load it even if nothing in it differs from the session (all devices are built anew).
        save_recovery: first write the present session to the deployment's folder. validate: accepted for
        compatibility; a file is always checked.
        Raises ConfigError that lists everything that is wrong with the file; the session then stays as it is.
        """
        file, devices = self._read(path)
        session = self._client.session.message
        raw = {name: device.as_raw() for name, device in devices.items()}
        if session is not None and not force and not session.failed and self._same(session.devices, devices):
            change = SessionChange(session.version, list(raw), {}, str(file), unchanged=True)
            return change
        if save_recovery and session is not None and session.devices:
            self._save_recovery()
        return self._request(ConfigAction.SET, raw, str(file), rebuild=force)

    def add_to_session(self, path: str | Path) -> SessionChange:
        """Add the devices of a file to the session, or replace those of the same names."""
        file, devices = self._read(path)
        return self._request(ConfigAction.ADD, {n: d.as_raw() for n, d in devices.items()}, str(file))

    def remove(self, *names: str) -> SessionChange:
        """Take devices out of the session."""
        for name in names:
            self._client.session.entry(name)
        return self._request(ConfigAction.REMOVE, {name: {} for name in names}, "")

    def update(self, fields: Mapping[str, Mapping[str, Any]]) -> SessionChange:
        """Change fields of devices: {"samx": {"readOnly": True}}."""
        change = self._request(ConfigAction.UPDATE, {n: dict(f) for n, f in fields.items()}, "")
        if change.failed:
            raise ConfigError("; ".join(f"{name}: {reason}" for name, reason in change.failed.items()))
        return change

    def reset_config(self) -> SessionChange:
        """Empty the session."""
        self._save_recovery()
        return self._request(ConfigAction.RESET, {}, "")

    def reload(self, *devices: Any) -> SessionChange:
        """Build the named devices anew, or all: new connections, and their classes as their source says now.

        What needs one of them is built anew with it. A device for which that fails stays in use as it was, as long as it
        works, and is named in the result.
        """
        wanted = [getattr(device, "name", device) for device in devices]
        for name in wanted:
            self._client.session.entry(name)
        session = self._client.session.message
        already = set(session.failed) if session else set()
        change = self._request(ConfigAction.RELOAD, {name: {} for name in wanted}, "")
        asked = wanted or self._client.session.names()
        rebuilt = [name for name in asked if name not in change.kept and name not in change.failed]
        # Those that nobody asked for, and that had failed before, are no news, and no reason to end with 1.
        failed = {name: why for name, why in change.failed.items() if name in asked or name not in already}
        return dataclasses.replace(change, rebuilt=rebuilt, failed=failed)

    def load_demo_config(self, force: bool = False) -> SessionChange:
        """Load the simulated beamline that comes with the installation."""
        return self.update_session_with_file(demo_file(), force=force)

    def save_current_session(
        self,
        path: str | Path,
        split_by_tag: bool = False,
        included_tags: Iterable[str] | None = None,
        excluded_tags: Iterable[str] | None = None,
        remaining_devices_tag: str = "misc",
    ) -> Path:
        """Write the session as a device file that can be loaded again; the path to load.

        split_by_tag: write a folder named as the file without its ending, with a file for each tag and `main.yaml` that
        includes them. A device is in the file of its first tag by the alphabet of those that are included (None: all)
        and not excluded; one that has none of these is in the file `remaining_devices_tag`.
        Raises ConfigError if there is no session, or it cannot be written.
        """
        from bec_lib.devices.config import dump_device_file, validate_devices

        session = self._client.session.message
        if session is None or not session.devices:
            raise ConfigError("there is no session to save: no devices are loaded")
        file = Path(path).expanduser()
        devices = validate_devices(session.devices)
        try:
            if not split_by_tag:
                file.parent.mkdir(parents=True, exist_ok=True)
                dump_device_file(file, devices)
                return file
            folder = file.with_suffix("")
            folder.mkdir(parents=True, exist_ok=True)
            parts: dict[str, dict[str, Any]] = {}
            left_out = set(excluded_tags or ())
            wanted = None if included_tags is None else set(included_tags)
            for name, device in devices.items():
                tags = [t for t in device.deviceTags if t not in left_out and (wanted is None or t in wanted)]
                part = re.sub(r"[^A-Za-z0-9_.-]", "_", min(tags, default=remaining_devices_tag))
                parts.setdefault(part, {})[name] = device
            if "main" in parts:
                raise ConfigError(
                    "a session with a tag 'main' cannot be split: main.yaml includes the other files"
                )
            for part, found in parts.items():
                dump_device_file(folder / f"{part}.yaml", found)
            lines = [f"{json.dumps(part)}: !include {part}.yaml\n" for part in parts]
            main = folder / "main.yaml"
            main.write_text("".join(lines), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"the session cannot be saved to {file}: {error.strerror or error}") from error
        return main

    # Parts

    def _read(self, path: str | Path) -> tuple[Path, dict[str, Any]]:
        from bec_lib.devices.config import load_device_file

        file = Path(path).expanduser()
        if not file.is_file():
            raise ConfigError(f"the device file {file} does not exist.{_near(file)}")
        devices = load_device_file(file)
        return file.resolve(), devices

    @staticmethod
    def _same(running: Mapping[str, Any], devices: Mapping[str, Any]) -> bool:
        from bec_lib.devices.config import config_hash, validate_devices

        try:
            return config_hash(validate_devices(running)) == config_hash(devices)
        except ConfigError:
            return False

    def _save_recovery(self) -> None:
        session = self._client.session.message
        if session is None or not session.devices:
            return
        file = self._client.service_config.state_folder / "recovery" / f"session_{session.version}.yaml"
        try:
            self.save_current_session(file)
        except ConfigError as error:
            # A precaution that fails must not stop the user.
            self._client.notify(f"the present session was not saved for recovery: {error}")

    def _request(
        self, action: ConfigAction, devices: dict[str, dict[str, Any]], source: str, rebuild: bool = False
    ) -> SessionChange:
        client = self._client
        what = f"changing the device session ({action.value})"
        concerned = devices
        if action is ConfigAction.RELOAD:
            concerned = {n: client.session.config_of(n) for n in devices or client.session.names()}
        needed = [
            "scan_server",
            *sorted({self._role(raw) for raw in concerned.values()} or {"device_server"}),
        ]
        client.service_status.require(needed, what)
        ticket = client.connection.ticket(what)
        client.connection.send(
            client.connection.queue_requests,
            DeviceConfigMessage(
                request_id=ticket.request_id,
                client_id=client.client_id,
                action=action,
                devices=devices,
                source=source,
                rebuild=rebuild,
            ),
        )
        client.connection.wait(ticket.answered, what, needed, LOAD_S, notice=True)
        answer: RequestResponseMessage = ticket.answer
        client.session.on_session(None)  # type: ignore[arg-type]
        if not answer.accepted:
            raise error_for(answer.code or ReasonCode.CONFIG, answer.message or f"{what} was refused")
        result = answer.result or {}
        return SessionChange(
            int(result.get("version", 0)),
            list(result.get("loaded", [])),
            dict(result.get("failed", {})),
            source,
            kept=dict(result.get("kept", {})),
        )

    @staticmethod
    def _role(raw: Mapping[str, Any]) -> str:
        from bec_client.services import device_server_role

        return device_server_role(str(raw.get("deviceServer") or "main"))


def demo_file() -> Path:
    """The device file of the simulated beamline. Raises ConfigError if this installation has none."""
    from importlib.util import find_spec

    spec = find_spec("deploy")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "configs" / "demo.yaml"
        if file.is_file():
            return file
    raise ConfigError("this installation has no demo configuration")


def _near(file: Path) -> str:
    try:
        names = [path.name for path in file.parent.iterdir() if path.suffix in (".yaml", ".yml")]
    except OSError:
        return f" There is no folder {file.parent} either."
    near = difflib.get_close_matches(file.name, names, n=3)
    if near:
        return f" Did you mean {' or '.join(near)}?"
    return f" In that folder are: {', '.join(sorted(names)[:8])}." if names else ""
