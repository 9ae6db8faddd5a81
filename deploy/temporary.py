"""A whole fleet for a while: for the demo, system tests, benchmarks. It ends with its block, or with its process.

    with TemporaryFleet(data=Path("results")) as fleet:
        bec = BECClient(fleet.config).start()

State, sockets and logs are in a folder of its own below the temporary folder, removed at the end; the deployment's
name is unique, so that any number of them run at the same time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from deploy import control
from deploy.lines import Line


def _nothing(line: Line) -> None:
    pass


class TemporaryFleet:
    """data: where scan files go; None: into the temporary folder. settings: further service configuration.
    arguments: for the supervisor, e.g. ["--only", "scan_server"].
    """

    def __init__(
        self,
        *,
        prefix: str = "bec",
        data: Path | None = None,
        settings: dict[str, Any] | None = None,
        arguments: Sequence[str] = (),
    ):
        self.folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
        self.deployment = f"{prefix}-{os.getpid()}-{secrets.token_hex(3)}"
        self.data = data or self.folder / "data"
        self.state = self.folder / "state"
        self.logs = self.state / "logs"
        self.config = self.folder / "bec.yaml"
        self.arguments = list(arguments)
        values = {
            "deployment": self.deployment,
            "state_path": str(self.state),
            "data_path": str(self.data.resolve()),
            **(settings or {}),
        }
        self.config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        self.supervisor = 0

    @property
    def socket(self) -> Path:
        """The supervisor's control socket."""
        from bec_lib.service.config import load_service_config
        from deploy.places import places_of

        return places_of(load_service_config(self.config)).control

    def start(self, tell: Callable[[Line], None] = _nothing, timeout_s: float = 90.0) -> TemporaryFleet:
        """Start, and return when all services run. Raises BECError with the reason if one does not."""
        self.supervisor = control.start(
            ["--config", str(self.config), "--tied", *self.arguments], None, tell, timeout_s
        )
        return self

    def status(self) -> Line:
        """As `bec-server status --json`, without memory. Raises NotRunning."""
        return control.ask(self.socket, {"do": "status"})

    def row(self, role: str) -> Line:
        """One service's row of the status."""
        return next(row for row in self.status()["services"] if row["service"] == role)

    def stop(self, tell: Callable[[Line], None] = _nothing) -> None:
        """Stop what runs; it is no error if nothing does."""
        supervisor, self.supervisor = self.supervisor, 0
        # Asked even if we know of none: a signal may have come between its start and our noting it.
        with contextlib.suppress(control.NotRunning):
            control.stop(self.socket, tell)
        if supervisor:
            control.wait_gone(supervisor, 30.0)

    def remove(self) -> None:
        """Delete its folder; stop it before."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> TemporaryFleet:
        return self.start()

    def __exit__(
        self, kind: type | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self.remove()
