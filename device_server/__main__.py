"""`bec-device-server`: the process that holds the devices."""

from __future__ import annotations

import argparse
import sys

from deploy.own_library import require_own_library


def main(arguments: list[str] | None = None) -> int:
    """Run a device server until it is asked to stop; the exit code."""
    require_own_library()
    from bec_lib.service import Service, run

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--name",
            default="main",
            help="name of this device server, as in the devices' deviceServer (default: main)",
        )

    def role(options: argparse.Namespace) -> str:
        return "device_server" if options.name == "main" else f"device_server.{options.name}"

    def build(service: Service):  # type: ignore[no-untyped-def]
        from device_server.app import build_app

        return build_app(service)

    return run("device_server", build, arguments=arguments, add_arguments=add_arguments, rename=role)


if __name__ == "__main__":
    sys.exit(main())
