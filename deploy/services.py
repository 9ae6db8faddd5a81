"""Which services make up a fleet, how each is called, and in which order they start and stop.

Data and look-ups only; nothing is imported or started. The services are named as modules, because deploy starts
them as processes and imports none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bec_lib.errors import ConfigError


@dataclass(frozen=True)
class ServiceSpec:
    """One process. role: its name in heartbeats, logs and messages. package: has a `__main__` with `main`.

    wave: services stop wave by wave, the highest first, each wave at the same time.
    stop_s: how long a stop may take before the process is killed, seconds.
    """

    role: str
    package: str
    command: str
    arguments: tuple[str, ...] = ()
    wave: int = 0
    stop_s: float = 10.0


# In the order of their start: the slowest to import first. All start at once, none waits for another.
# The scan server stops first, so that nothing new begins; then whoever produces; then whoever keeps.
DEVICE_SERVER = ServiceSpec("device_server", "device_server", "bec-device-server", wave=2, stop_s=15.0)
SERVICES = (
    DEVICE_SERVER,
    ServiceSpec("data_pipeline", "data_pipeline", "bec-dap", wave=2),
    ServiceSpec("file_writer", "file_writer", "bec-file-writer", wave=0, stop_s=20.0),
    ServiceSpec("scihub", "scihub_connector", "bec-scihub", wave=0),
    ServiceSpec("scan_server", "scan_server", "bec-scan-server", wave=3),
    ServiceSpec("scan_bundler", "scan_bundler", "bec-scan-bundler", wave=1),
)


def fleet(device_servers: Sequence[str], only: Iterable[str] = ()) -> list[ServiceSpec]:
    """The services of a deployment, in the order of their start.

    device_servers: their names; "main" has the role device_server, any other NAME device_server.NAME.
    only: roles to take, all if empty. Raises ConfigError if it names one that there is not.
    """
    specs: list[ServiceSpec] = []
    for spec in SERVICES:
        if spec is not DEVICE_SERVER:
            specs.append(spec)
            continue
        for name in device_servers:
            if name == "main":
                specs.append(spec)
            else:
                role, arguments = f"device_server.{name}", ("--name", name)
                specs.append(ServiceSpec(role, spec.package, spec.command, arguments, spec.wave, spec.stop_s))
    wanted = list(only)
    known = {spec.role for spec in specs}
    unknown = [role for role in wanted if role not in known]
    if unknown:
        raise ConfigError(
            f"there is no service called {', '.join(unknown)} in this deployment; "
            f"it has {', '.join(sorted(known))}."
        )
    return [spec for spec in specs if not wanted or spec.role in wanted]


def parse_spec(text: str) -> ServiceSpec:
    """A service given as "role=package" or "role=package:wave", for tests of the supervisor itself."""
    role, _, package = text.partition("=")
    package, _, wave = package.partition(":")
    return ServiceSpec(role, package or role, role, wave=int(wave or 0))
