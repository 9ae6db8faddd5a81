"""What is the state of the beamline? Named states, each of a kind, evaluated over the latest readings.

Definitions and readings come in, changed states come out. What a kind raises makes its state unknown, and disturbs no
other. Knows no stream and no clock. Owner: the scan server's main thread.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from bec_lib.codec import describe_validation
from bec_lib.conditions import STATES, Readings, device_of
from bec_lib.errors import ParameterError
from bec_lib.expressions import Unknown, plain_value
from bec_lib.messages import BeamlineStateMessage, BeamlineStatesMessage, BeamlineStatus
from bec_lib.states import BeamlineStateConfig


class BeamlineStates:
    """All of them. kinds: what there is; failed: plugin -> why it cannot be used."""

    def __init__(
        self,
        kinds: Mapping[str, type[BeamlineStateConfig]],
        readings: Readings,
        failed: Mapping[str, str] | None = None,
    ):
        self._kinds = dict(kinds)
        self._failed = dict(failed or {})
        self._readings = readings
        self._configs: dict[str, BeamlineStateConfig] = {}
        self._states: dict[str, BeamlineStateMessage] = {}
        # Those whose kind cannot be used at the moment: kept, and unknown.
        self._kept: dict[str, BeamlineStateMessage] = {}

    @property
    def devices(self) -> frozenset[str]:
        """Those that are looked at."""
        return frozenset(device_of(name) for name in self.names)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for config in self._configs.values() for name in config.names()))

    def __contains__(self, name: object) -> bool:
        return name in self._configs

    def config_of(self, kind: str, raw: Mapping[str, Any]) -> BeamlineStateConfig:
        """A validated definition. Raises ParameterError with all that is wrong with it."""
        found = self._kinds.get(kind)
        if found is None:
            near = difflib.get_close_matches(kind, self._kinds, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            told = "".join(
                f" The plugin {name} could not be loaded: {why}." for name, why in self._failed.items()
            )
            raise ParameterError(
                f"there is no kind of beamline state {kind!r}.{hint} There are: {', '.join(sorted(self._kinds))}.{told}"
            )
        try:
            return found.model_validate(dict(raw))
        except ValidationError as error:
            raise ParameterError(
                f"the beamline state cannot be defined: {describe_validation(error)}"
            ) from None

    def define(self, config: BeamlineStateConfig, now: float) -> BeamlineStateMessage:
        """Put a state in, or in the place of the one of its name. Its first status is unknown until it is judged."""
        self._kept.pop(config.name, None)
        self._configs[config.name] = config
        self._states[config.name] = self._message(config, BeamlineStatus.UNKNOWN, "not looked at yet", now)
        return self._states[config.name]

    def updated(self, name: str, changes: Mapping[str, Any]) -> BeamlineStateConfig:
        """A definition with some fields changed. Raises ParameterError."""
        known = self._known(name)
        return self.config_of(known.kind, {**known.model_dump(), **changes, "name": name})

    def remove(self, name: str) -> None:
        """Raises ParameterError if there is no such state."""
        if self._kept.pop(name, None) is not None:
            return
        self._known(name)
        del self._configs[name], self._states[name]

    def use(
        self, kinds: Mapping[str, type[BeamlineStateConfig]], failed: Mapping[str, str], now: float
    ) -> None:
        """Other kinds from now on, also for the states that are defined. Those that do not hold any more are kept, and
        unknown; those that were kept are tried again.
        """
        self._kinds, self._failed = dict(kinds), dict(failed)
        known = {name: (config.kind, config.model_dump()) for name, config in self._configs.items()}
        known |= {name: (state.kind, dict(state.config)) for name, state in self._kept.items()}
        for name, (kind, raw) in known.items():
            try:
                config = self.config_of(kind, raw)
            except ParameterError as error:
                before = self._states.pop(name, None) or self._kept[name]
                self._configs.pop(name, None)
                update = {"status": BeamlineStatus.UNKNOWN, "label": error.message}
                self._kept[name] = before.model_copy(update=update)
                continue
            if name in self._kept:
                self.define(config, now)
            self._configs[name] = config

    def keep(self, message: BeamlineStateMessage) -> None:
        """Remember a state of a kind that cannot be used at the moment."""
        self._kept[message.name] = message

    def definitions(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Name -> {"kind", "config"} of those states that are among these names (`states.at_sample`)."""
        wanted = {name.partition(".")[2] for name in names if device_of(name) == STATES}
        return {
            name: {"kind": config.kind, "config": config.model_dump(mode="json")}
            for name, config in self._configs.items()
            if name in wanted
        }

    def judge(self, now: float, devices: Iterable[str] | None = None) -> list[BeamlineStateMessage]:
        """Look at the states of these devices (None: at all); those that have changed."""
        wanted = None if devices is None else frozenset(devices)
        changed = []
        for name, config in self._configs.items():
            if wanted is not None and not wanted & {device_of(n) for n in config.names()}:
                continue
            status, label = self._evaluate(config)
            if status is not self._states[name].status:
                self._states[name] = self._message(config, status, label, now)
                changed.append(self._states[name])
        return changed

    def reading(self) -> dict[str, dict[str, Any]]:
        """The states as the reading of a device called "states", for conditions."""
        states = {**self._kept, **self._states}
        return {name: {"value": s.status.value, "timestamp": s.since} for name, s in states.items()}

    def message(self) -> BeamlineStatesMessage:
        return BeamlineStatesMessage(
            states={**self._kept, **self._states}, kinds=sorted(self._kinds), failed=dict(self._failed)
        )

    def _evaluate(self, config: BeamlineStateConfig) -> tuple[BeamlineStatus, str]:
        def value(name: str) -> Any:
            return plain_value(self._readings.value(name), name)

        try:
            status, label = config.evaluate(value)
            return BeamlineStatus(status), str(label)
        except Unknown as unknown:
            return BeamlineStatus.UNKNOWN, str(unknown)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; only its own state is unknown
            return BeamlineStatus.UNKNOWN, f"{config.kind} failed: {type(error).__name__}: {error}"

    def _known(self, name: str) -> BeamlineStateConfig:
        found = self._configs.get(name)
        if found is None:
            raise ParameterError(
                f"there is no beamline state {name!r}; there are: {', '.join(self._configs) or 'none'}"
            )
        return found

    @staticmethod
    def _message(
        config: BeamlineStateConfig, status: BeamlineStatus, label: str, now: float
    ) -> BeamlineStateMessage:
        return BeamlineStateMessage(
            name=config.name,
            status=status,
            label=label,
            since=now,
            kind=config.kind,
            config=config.model_dump(mode="json"),
        )
