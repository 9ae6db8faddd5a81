"""The IPython shell around a client. The only part of the client that imports IPython."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bec_client.client import BECClient


def run_shell(client: BECClient, startup_file: Path | None = None) -> None:
    """Run the shell until the user leaves it. The client must be started; it is not shut down here. startup_file: is run
    in it first.
    """
    from bec_client.shell.start import run

    run(client, startup_file)


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext bec_client.shell` in a notebook or an IPython of one's own: the names and magics of the shell, with the
    deployment that BEC_CONFIG names.
    """
    import bec_client.client
    from bec_client.shell.start import prepare

    prepare(shell, bec_client.client.BECClient().start())
