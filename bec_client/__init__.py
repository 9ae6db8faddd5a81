"""The user's side of BEC: a plain Python client, the `bec` command line, and the IPython shell.

    from bec_client import BECClient

Nothing heavy is imported before it is used: the command line starts in a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bec_client.client import BECClient

__all__ = ["BECClient"]


def __getattr__(name: str) -> Any:
    if name == "BECClient":
        from bec_client.client import BECClient

        return BECClient
    raise AttributeError(f"module 'bec_client' has no attribute {name!r}")
