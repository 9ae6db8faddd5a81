"""Where a deployment keeps what belongs to its running fleet: lock, control socket, logs; and who holds the lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bec_lib.broker import embedded
from bec_lib.errors import AlreadyRunning, ConfigError, StorageError
from bec_lib.service.config import ServiceConfig
from deploy import process

# A fleet whose supervisor was killed is still going down for a while.
GOING_DOWN_S = 20.0
# Below this a scan's file cannot even be begun.
LEAST_FREE_BYTES = 50_000_000
LITTLE_FREE_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Places:
    """Paths of one deployment on this host."""

    state: Path
    lock: Path
    control: Path
    redis: Path
    redis_socket: Path
    logs: Path


def places_of(config: ServiceConfig) -> Places:
    state = config.state_folder
    return Places(
        state=state,
        lock=state / "fleet.lock",
        # Beside Redis's socket, which is where a socket's short path is certain.
        control=config.embedded_socket.parent / "supervisor.sock",
        redis=state / "redis",
        redis_socket=config.embedded_socket,
        logs=config.log_folder,
    )


def make_state_folder(places: Places) -> None:
    """Raises ConfigError if the state folder cannot be made or written."""
    try:
        places.state.mkdir(parents=True, exist_ok=True)
        places.logs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=places.state):
            pass
    except OSError as error:
        raise ConfigError(
            f"the deployment's folder {places.state} cannot be written ({error.strerror or error}). "
            "Make it writable, or set `state_path:` in the service configuration."
        ) from error
    embedded.make_private(places.control.parent)


def take_lock(places: Places, deployment: str) -> int:
    """Become the one fleet of this folder on this host; the file descriptor that holds the lock.

    A fleet whose supervisor was killed is waited for while it goes down.
    Raises AlreadyRunning, naming the process.
    """
    deadline = time.monotonic() + GOING_DOWN_S
    while True:
        file = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = read_holder(places)
            os.close(file)
            pid = holder.get("pid", 0)
            if (pid and process.is_alive(pid)) or time.monotonic() > deadline:
                raise AlreadyRunning(
                    f"a fleet is already running for deployment {deployment!r} in {places.state} (process {pid}); "
                    "stop it with `bec-server stop`, or choose another `deployment:` and `state_path:`."
                ) from None
            # The holder is gone and its keeper is taking the fleet down. Nobody tells us when it is done.
            time.sleep(0.05)
            continue
        with contextlib.suppress(OSError):
            if os.fstat(file).st_ino == places.lock.stat().st_ino:
                break
        # The last holder has removed the file between our open and our lock.
        os.close(file)
    text = json.dumps({"pid": os.getpid(), "deployment": deployment, "since": time.time()})
    os.ftruncate(file, 0)
    os.pwrite(file, text.encode(), 0)
    return file


def read_holder(places: Places) -> dict[str, Any]:
    """What the lock file says of its holder; empty if there is none."""
    try:
        found = json.loads(places.lock.read_text(encoding="utf-8") or "{}")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def leftovers(places: Places) -> list[Path]:
    """What is to be removed after the last process, in this order."""
    found = [places.control, places.redis_socket, places.lock]
    if places.control.parent != places.state:
        found.append(places.control.parent)
    return found


def check_data_folder(folder: Path) -> list[str]:
    """Can scan files be written there? Warnings as sentences.

    `$account` and what follows it are made by the file writer. Raises StorageError if not.
    """
    parts = folder.parts
    fixed = Path(*parts[: next((i for i, part in enumerate(parts) if "$" in part), len(parts))])
    try:
        fixed.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=fixed):
            pass
        free = shutil.disk_usage(fixed).free
    except OSError as error:
        raise StorageError(
            f"scan files cannot be written to {fixed} ({error.strerror or error}). "
            "Make the folder writable, or set `data_path:` in the service configuration."
        ) from error
    if free < LEAST_FREE_BYTES:
        raise StorageError(
            f"there is no space for scan files in {fixed}: {free / 1e6:.0f} MB are free, at least "
            f"{LEAST_FREE_BYTES / 1e6:.0f} MB are needed. Free some, or set `data_path:` in the service configuration."
        )
    if free < LITTLE_FREE_BYTES:
        return [f"only {free / 1e6:.0f} MB are free for scan files in {fixed}"]
    return []
