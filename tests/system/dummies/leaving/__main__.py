"""A service with a child process that does not care about its parent's end, nor about being asked to end."""

from __future__ import annotations

import subprocess
import sys

from quiet.__main__ import Nothing

from bec_lib.service import Service, run


def build(service: Service) -> Nothing:
    subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)",
        ],
        cwd=service.config.state_folder,
    )
    return Nothing()


def main(arguments: list[str] | None = None) -> int:
    return run(sys.argv[0], build, arguments=arguments)
