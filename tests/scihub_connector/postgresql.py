"""A private PostgreSQL for tests, where its programs are installed: on a socket of its own, gone with the block."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("initdb", "postgres")


def programs() -> Path | None:
    """The folder with initdb and postgres: of PATH, or the newest of those Linux distributions keep aside."""
    found = [Path(folder) for folder in os.get_exec_path()]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_release, reverse=True)
    return next((folder for folder in found if all((folder / name).is_file() for name in NEEDED)), None)


def _release(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


class PrivateServer:
    """url: for SQLAlchemy. It must not run as root: there, it runs as nobody.

    Raises OSError, KeyError (no such user) or CalledProcessError if it cannot be made here.
    """

    def __init__(self) -> None:
        where = programs()
        assert where is not None
        self._programs = where
        self._server: subprocess.Popen[str] | None = None
        self._who: dict[str, Any] = {}
        # Its socket's path must be short, so not below pytest's folder.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.url = f"postgresql+psycopg://bec@/postgres?host={self.folder}"
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        options = ["-U", "bec", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run(
            [where / "initdb", "-D", self.folder / "data", *options],
            check=True,
            capture_output=True,
            cwd=self.folder,
            **self._who,
        )

    def start(self) -> None:
        """Returns when it takes connections."""
        # -F: no fsync; there is nothing to keep.
        command = [self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder, "-F"]
        self._server = subprocess.Popen(
            [*command, "-c", "listen_addresses="],
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            **self._who,
        )
        assert self._server.stderr is not None
        said = ""
        for line in self._server.stderr:
            said += line
            if "ready to accept connections" in line:
                threading.Thread(target=self._server.stderr.read, daemon=True).start()
                return
        raise RuntimeError(f"PostgreSQL did not start: {said}")

    def crash(self) -> None:
        """At once, as in a power cut; `start` recovers it."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(timeout=30)
            self._server = None

    def remove(self) -> None:
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def private_server() -> Iterator[PrivateServer]:
    """It runs within the block. Where it cannot, the test is skipped and says why."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    try:
        server = PrivateServer()
    except (OSError, KeyError, subprocess.CalledProcessError) as error:
        pytest.skip(f"PostgreSQL is installed, but cannot be started here: {error}")
    try:
        server.start()
        yield server
    finally:
        server.remove()
