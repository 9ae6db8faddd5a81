"""`bec-scihub`: SciHub's connector as a process."""

from __future__ import annotations

import sys

from deploy.own_library import require_own_library


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code."""
    require_own_library()
    from bec_lib.service import App, Service, run

    def build(service: Service) -> App:
        from scihub_connector.app import build_app

        return build_app(service)

    return run("scihub", build, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
