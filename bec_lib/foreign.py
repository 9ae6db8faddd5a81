"""Code of a plugin that a service runs: whose it is, for what, and where in it the service is. Data only.

How a process says it: `bec_lib.service.foreign_code`.
"""

from __future__ import annotations

from dataclasses import dataclass

# Where in the code, if it is not at a step of a scan (>= 0).
WORKING_OUT, CLEANING_UP, IMPORTING = -1, -2, -3


@dataclass(frozen=True)
class ForeignCall:
    """Code of others that is run. whose: in words, "the scan NAME (plugin P, FILE)". request_id, scan_id: for what.
    patience_s: it should be back by then. since: seconds UTC.
    """

    whose: str
    plugin: str = ""
    request_id: str = ""
    scan_id: str = ""
    patience_s: float = 1.0
    where: int = WORKING_OUT
    since: float = 0.0

    @property
    def until(self) -> float:
        """When it should be back, seconds UTC."""
        return self.since + self.patience_s

    def __str__(self) -> str:
        if self.where >= 0:
            return f"{self.whose}, at step {self.where + 1}"
        doing = {CLEANING_UP: "cleaning up", IMPORTING: "being imported"}
        return f"{self.whose}, {doing.get(self.where, 'working out what it will do')}"
