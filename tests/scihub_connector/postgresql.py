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

NEEDED = ("initdb", "postgres")


def programs() -> Path | None:
    """The folder with initdb and postgres: of PATH, or the newest of those Linux distributions keep aside."""
    found = [Path(folder) for folder in os.get_exec_path()]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_release, reverse=True)
    return next((folder for folder in found if all((folder / name).is_file() for name in NEEDED)), None)


def _release(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


@contextlib.contextmanager
def private_server() -> Iterator[str]:
    """Its SQLAlchemy URL. It must not run as root: there, it runs as nobody."""
    where = programs()
    assert where is not None
    who: dict[str, Any] = {}
    # Its socket's path must be short, so not below pytest's folder.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    server = None
    try:
        subprocess.run(
            [where / "initdb", "-D", folder / "data", "-U", "bec", "-A", "trust", "-N", "-E", "UTF8"],
            check=True,
            capture_output=True,
            cwd=folder,
            **who,
        )
        server = subprocess.Popen(
            [where / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-F"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            **who,
        )
        assert server.stderr is not None
        said = ""
        for line in server.stderr:
            said += line
            if "ready to accept connections" in line:
                break
        else:
            raise RuntimeError(f"PostgreSQL did not start: {said}")
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield f"postgresql+psycopg://bec@/postgres?host={folder}"
    finally:
        if server is not None:
            # At once: its clients are gone, and it has nothing to keep.
            server.send_signal(signal.SIGQUIT)
            server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)
