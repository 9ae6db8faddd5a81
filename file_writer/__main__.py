"""`bec-file-writer`: the process of the file writer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bec_lib.service import App, Service


def main(arguments: list[str] | None = None) -> int:
    from deploy.own_library import require_own_library

    require_own_library()
    from bec_lib.service import run

    return run("file_writer", build_app, threaded=False, arguments=arguments)


def build_app(service: Service) -> App:
    from file_writer.app import WriterApp

    return WriterApp(service)


if __name__ == "__main__":
    sys.exit(main())
