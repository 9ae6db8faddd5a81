"""The IPython shell around a client. The only part of the client that imports IPython."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bec_client.client import BECClient


def run_shell(client: BECClient) -> None:
    """Run the shell until the user leaves it. The client must be started; it is not shut down here."""
    from bec_client.shell.start import run

    run(client)
