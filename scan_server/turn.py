"""One turn of the scan server: what it writes, and what is done when that is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bec_lib.broker import Batch
from bec_lib.endpoints import Endpoint
from scan_server.assembler import Assembled


@dataclass
class Turn:
    """is_notable: something of what is durable beside the queues has changed. assembled: of what was submitted in this
    turn; later it would be out of date.
    """

    batch: Batch
    cursors: dict[Endpoint, str] = field(default_factory=dict)
    afterwards: list[Callable[[], None]] = field(default_factory=list)
    facts_are_fresh: bool = False
    is_notable: bool = False
    assembled: dict[str, Assembled] = field(default_factory=dict)
