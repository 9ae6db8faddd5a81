"""Which devices are there, may they be used, and which are read when? Look-up over the session in force.

A `Registry` is made from the session's configurations and, where known, from what the device servers say of the
devices. It is a value: nothing in it changes when the beamline does. Knows no Redis and no scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bec_lib.devices.config import DeviceConfig, ReadoutPriority
from bec_lib.messages import DeviceInfoMessage, DeviceMessage, DeviceSessionMessage, ReadoutGroups
from bec_lib.scans.signature import did_you_mean


@dataclass(frozen=True)
class DeviceRecord:
    """A device of the session. info: what its server says of it, None if not asked or not there. position: its latest
    main reading, None if unknown. failure: why it could not be built or connected, empty if it could.
    """

    name: str
    config: DeviceConfig
    info: DeviceInfoMessage | None = None
    position: float | None = None
    failure: str = ""

    @property
    def server(self) -> str:
        return self.config.deviceServer

    @property
    def unit(self) -> str:
        return self.info.unit if self.info else ""

    @property
    def limits(self) -> tuple[float, float] | None:
        """Low and high, device units; None: it has none. Equal limits mean none, as EPICS has it."""
        limits = self.info.limits if self.info else None
        if limits is None or len(limits) != 2 or limits[0] == limits[1]:
            return None
        return limits[0], limits[1]

    @property
    def is_usable(self) -> bool:
        return self.config.enabled and not self.failure

    def problem(self) -> str:
        """Why it cannot be used, as a sentence; empty if it can."""
        if not self.config.enabled:
            return f"{self.name} is disabled; enable it with dev.{self.name}.enabled = True"
        if self.failure:
            return f"{self.name} is not available: {self.failure}"
        return ""

    def move_problem(self) -> str:
        """Why it cannot be moved, as a sentence; empty if it can."""
        found = self.problem()
        if found:
            return found
        if self.config.readOnly:
            return f"{self.name} is read-only and cannot be moved"
        if self.info is not None and not self.info.settable:
            return f"{self.name} ({self.config.deviceClass}) cannot be moved: it has no set()"
        return ""


@dataclass(frozen=True)
class Registry:
    """All devices of a session, in its order."""

    devices: Mapping[str, DeviceRecord] = field(default_factory=dict)
    version: int = 0
    hash: str = ""

    @classmethod
    def of_session(cls, session: DeviceSessionMessage) -> Registry:
        """From the session in force. Raises pydantic's ValidationError if it holds what is no device."""
        return cls(
            {
                name: DeviceRecord(
                    name, DeviceConfig.model_validate(raw), failure=session.failed.get(name, "")
                )
                for name, raw in session.devices.items()
            },
            session.version,
            session.hash,
        )

    def __contains__(self, name: object) -> bool:
        return name in self.devices

    def __iter__(self) -> Iterator[str]:
        return iter(self.devices)

    def __len__(self) -> int:
        return len(self.devices)

    def __getitem__(self, name: str) -> DeviceRecord:
        return self.devices[name]

    def with_facts(
        self,
        infos: Mapping[str, DeviceInfoMessage],
        readbacks: Mapping[str, DeviceMessage] | None = None,
    ) -> Registry:
        """With newer facts about some of the devices; those that are not in the session are passed over."""
        readbacks = readbacks or {}
        changed = dict(self.devices)
        for name in {**infos, **readbacks}:
            record = changed.get(name)
            if record is None:
                continue
            info = infos.get(name, record.info)
            changed[name] = replace(
                record,
                info=info,
                position=main_value(name, info, readbacks[name]) if name in readbacks else record.position,
                failure=record.failure if info is None else info.error if info.state == "failed" else "",
            )
        return replace(self, devices=changed)

    def unknown(self, names: Iterable[str]) -> list[str]:
        """One sentence for each name that is not in the session."""
        return [
            f"there is no device {name!r} in the session.{did_you_mean(name, self.devices)}"
            for name in names
            if name not in self.devices
        ]

    def readout_groups(
        self,
        motors: Iterable[str] = (),
        monitored: Iterable[str] = (),
        on_request: Iterable[str] = (),
    ) -> ReadoutGroups:
        """What is read when, in one scan. Only usable devices.

        Motors come first among the monitored, then those named in `monitored`, then the session's own; devices named
        in `on_request` are left out, unless they are motors.
        """
        first = list(dict.fromkeys([*motors, *monitored]))
        left_out = set(on_request) - set(motors)
        groups: dict[ReadoutPriority, list[str]] = {priority: [] for priority in ReadoutPriority}
        for name, record in self.devices.items():
            if not record.is_usable or name in first:
                continue
            priority = ReadoutPriority.ON_REQUEST if name in left_out else record.config.readoutPriority
            groups[priority].append(name)
        return ReadoutGroups(
            monitored=[name for name in first if name not in left_out] + groups[ReadoutPriority.MONITORED],
            baseline=groups[ReadoutPriority.BASELINE],
            async_=groups[ReadoutPriority.ASYNC],
            on_request=groups[ReadoutPriority.ON_REQUEST],
        )

    def triggered(self, groups: ReadoutGroups) -> list[str]:
        """Devices that get a software trigger at every point."""
        return [
            name for name in [*groups.monitored, *groups.async_] if self.devices[name].config.softwareTrigger
        ]


def main_value(name: str, info: DeviceInfoMessage | None, reading: DeviceMessage) -> float | None:
    """Where a device stands: the signal that bears its name, else its first hinted one, else its first. None if that
    is no number.
    """
    signals: dict[str, Any] = reading.signals
    candidates = [name, *(info.hints if info else []), *signals]
    signal = next((signals[key] for key in candidates if key in signals), None)
    value = signal.get("value") if isinstance(signal, Mapping) else signal
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
