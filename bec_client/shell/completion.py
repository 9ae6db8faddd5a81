"""Device names inside calls: `mv(sa<TAB>` and `scans.line_scan(sa<TAB>` offer dev.samx, dev.samy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bec_lib.errors import BECError

if TYPE_CHECKING:
    from bec_client.client import BECClient

_CALL = re.compile(r"(?:scans\.\w+|\bu?mvr?|\bwm|dev\.wm)\(([^()]*)$")


def complete_devices(shell: Any, client: BECClient, text: str) -> list[str]:
    """Completions of the word under the cursor, if it is an argument of a scan or a move."""
    completer = shell.Completer
    line = getattr(completer, "line_buffer", "") or ""
    return candidates(line, text, client)


def candidates(line: str, text: str, client: BECClient) -> list[str]:
    """What may stand at the end of the line in place of `text`."""
    found = _CALL.search(line)
    if not found or "." in text or text.startswith(("'", '"')):
        return []
    word = re.split(r"[,\s]+", found.group(1))[-1]
    if "=" in word:
        return []
    try:
        names = client.session.names()
    except BECError:
        return []
    return [f"dev.{name}" for name in names if name.startswith(text)]
