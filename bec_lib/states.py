"""Kinds of beamline states: what is looked at, and what makes it valid, warning, invalid or unknown.

A kind is one small pydantic class; a beamline adds its own under the entry point `bec.states` (see docs/interlocks.md).
The scan server evaluates it whenever one of its signals changes, so `evaluate` must be quick and must not wait. Knows no
device: it gets values by name.

    bec.beamline_states.add(
        DeviceWithinLimitsStateConfig(name="at_sample", device="samx", low_limit=-1, high_limit=1, tolerance=0.1)
    )
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bec_lib.errors import ParameterError
from bec_lib.expressions import Expression, parse
from bec_lib.messages import BeamlineStatus

VALID, WARNING = BeamlineStatus.VALID, BeamlineStatus.WARNING
INVALID, UNKNOWN = BeamlineStatus.INVALID, BeamlineStatus.UNKNOWN

__all__ = ["BeamlineStateConfig", "ConditionStateConfig", "DeviceWithinLimitsStateConfig"]


class BeamlineStateConfig(BaseModel):
    """What all kinds have in common. kind: its name, by which it is known on the wire."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str] = ""

    name: str
    title: str = ""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value.isidentifier():
            raise ValueError("must be usable as a name in Python: letters, digits and '_'")
        return value

    @abstractmethod
    def names(self) -> Sequence[str]:
        """The signals that are looked at, as in conditions: `samx.readback`, or `samx` for the main one."""

    @abstractmethod
    def evaluate(self, value: Callable[[str], Any]) -> tuple[BeamlineStatus, str]:
        """Status and a sentence. value: gives the latest value of a name; what it raises makes the state unknown."""


class DeviceWithinLimitsStateConfig(BeamlineStateConfig):
    """A device's signal lies within limits, in the device's unit. tolerance: nearer than this to a limit is a warning.
    signal None: the device's main one.
    """

    kind: ClassVar[str] = "device_within_limits"

    device: str
    signal: str | None = None
    low_limit: float | None = None
    high_limit: float | None = None
    tolerance: float = Field(0.0, ge=0.0)

    @model_validator(mode="after")
    def _has_limits(self) -> DeviceWithinLimitsStateConfig:
        if self.low_limit is None and self.high_limit is None:
            raise ValueError("needs a low_limit, a high_limit, or both")
        if self.low_limit is not None and self.high_limit is not None and self.low_limit >= self.high_limit:
            raise ValueError(f"low_limit {self.low_limit:g} is not below high_limit {self.high_limit:g}")
        return self

    def names(self) -> Sequence[str]:
        return [f"{self.device}.{self.signal}" if self.signal else self.device]

    def evaluate(self, value: Callable[[str], Any]) -> tuple[BeamlineStatus, str]:
        (name,) = self.names()
        found = value(name)
        if isinstance(found, str):
            return UNKNOWN, f"{name} is the text {found!r}, not a number"
        low = float("-inf") if self.low_limit is None else self.low_limit
        high = float("inf") if self.high_limit is None else self.high_limit
        shown = f"{name} = {found:.6g}"
        if not low <= found <= high:
            return INVALID, f"{shown} is outside of {low:g} to {high:g}"
        if min(found - low, high - found) < self.tolerance:
            return WARNING, f"{shown} is within {self.tolerance:g} of the limits {low:g} to {high:g}"
        return VALID, f"{shown} is within {low:g} to {high:g}"


class ConditionStateConfig(BeamlineStateConfig):
    """A condition over any signals holds. warning_when: a condition under which it is a warning, though it holds."""

    kind: ClassVar[str] = "condition"

    valid_when: str
    warning_when: str = ""

    @field_validator("valid_when", "warning_when")
    @classmethod
    def _is_a_condition(cls, value: str) -> str:
        if value:
            try:
                parse(value)
            except ParameterError as error:
                raise ValueError(error.message) from None
        return value

    def names(self) -> Sequence[str]:
        found = [
            *parse(self.valid_when).names,
            *(parse(self.warning_when).names if self.warning_when else ()),
        ]
        return list(dict.fromkeys(found))

    def evaluate(self, value: Callable[[str], Any]) -> tuple[BeamlineStatus, str]:
        condition: Expression = parse(self.valid_when)
        if not condition.holds(value):
            return INVALID, f"must hold: {self.valid_when}"
        if self.warning_when and parse(self.warning_when).holds(value):
            return WARNING, self.warning_when
        return VALID, self.valid_when
