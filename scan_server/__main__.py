"""`bec-scan-server`: the process of the scan server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bec_lib.service import App, Service


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    from deploy.own_library import require_own_library

    require_own_library()
    from bec_lib.service import run

    def build_app(service: Service) -> App:
        from scan_server.app import ScanServer

        return ScanServer(service)

    return run("scan_server", build_app, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
