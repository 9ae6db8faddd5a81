"""What is a scan? A small class: typed parameters with units and bounds, positions, and a generator of steps.

    class LineScan(StepScan):
        \"\"\"Move motors in lock-step from start to stop.\"\"\"

        scan_name = "line_scan"
        arguments = Bundle(
            argument("device", Device), argument("start", float, of="device"), argument("stop", float, of="device")
        )
        steps: int = parameter(ge=1, doc="Number of points, both ends included.")

        def positions(self) -> np.ndarray:
            return line_positions([(start, stop) for _, start, stop in self.bundles], self.steps)

Such a class is offered to the scan server through an entry point of the group `bec.scans`. A scan talks to nothing:
its steps do, in the hands of the scan server. It must be repeatable: the same arguments, start positions and results
give the same steps, because that is how it is resumed after a crash.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NewType

import numpy as np

from bec_lib.errors import PluginError
from bec_lib.messages import BundleInfo, ParameterInfo, ScanInfo
from bec_lib.scans.labels import Label, check_labels
from bec_lib.scans.path import METHODS, optimised_order
from bec_lib.scans.positions import check_count
from bec_lib.scans.signature import BoundCall
from bec_lib.scans.steps import Exposure, Points, Step, Trajectory

# The annotation of an argument that is a device, by name.
Device = NewType("Device", str)

Steps = Generator[Step, Any, None]

_TYPES: dict[Any, str] = {
    Device: "device",
    float: "float",
    int: "int",
    bool: "bool",
    str: "str",
    list: "list",
    dict: "dict",
    Any: "any",
}


@dataclass(frozen=True)
class Parameter:
    """A declared parameter; made by `parameter` or `argument`."""

    facts: ParameterInfo


@dataclass(frozen=True, init=False)
class Bundle:
    """The group of positional arguments that is repeated. at_least, at_most: how often; at_most None: any number."""

    parameters: tuple[Parameter, ...]
    at_least: int
    at_most: int | None

    def __init__(self, *parameters: Parameter, at_least: int = 1, at_most: int | None = None):
        object.__setattr__(self, "parameters", parameters)
        object.__setattr__(self, "at_least", at_least)
        object.__setattr__(self, "at_most", at_most)


def parameter(
    default: Any = ...,
    *,
    unit: str = "",
    of: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Sequence[Any] | None = None,
    moved: bool = True,
    doc: str = "",
) -> Any:
    """A keyword parameter; its type is its annotation. Without a default it must be given.

    unit: of the value; of: name of the device argument in whose unit it is. moved: False for a device that the scan
    reads, and does not move.
    """
    return Parameter(
        ParameterInfo(
            name="",
            required=default is ...,
            default=None if default is ... else default,
            unit=unit,
            reference_unit=of,
            ge=ge,
            gt=gt,
            le=le,
            lt=lt,
            choices=None if choices is None else list(choices),
            moved=moved,
            doc=doc,
        )
    )


def argument(name: str, kind: Any, **facts: Any) -> Parameter:
    """A part of a bundle. facts: as for `parameter`."""
    made: Parameter = parameter(**facts)
    return Parameter(made.facts.model_copy(update={"name": name, "type": _type_name(kind, name)}))


class Scan:
    """Root of all scans. Subclasses declare `scan_name`, parameters and `run`, or use one of the classes below.

    bundles: the positional arguments, one tuple per repetition. start_positions: where the motors stood when the scan was
    assembled, device units. targets: what `positions` gave, absolute.
    point_labels: what the scan says of its points beside where they are, by name; see `Label`.
    """

    scan_name: ClassVar[str] = ""
    is_scan: ClassVar[bool] = True
    # Takes points while a device is on its way, so that a pause waits for the end of that.
    sweeps: ClassVar[bool] = False
    arguments: ClassVar[Bundle | None] = None
    point_labels: ClassVar[Mapping[str, Label]] = {}

    def __init__(self, call: BoundCall, start: Mapping[str, float] | None = None):
        self.bundles = call.bundles
        self.start_positions: dict[str, float] = dict(start or {})
        for name, value in call.parameters.items():
            setattr(self, name, value)
        self.targets: np.ndarray | None = None

    # To be overridden

    def problems(self) -> list[str]:
        """What is wrong with the arguments beyond their types and bounds, one sentence each."""
        return []

    def positions(self) -> np.ndarray | None:
        """All positions in advance, (points, motors), relative to `start_positions` if `is_relative`; None: not known.

        The scan server checks the limits of every one of them before anything moves.
        """
        return None

    def reach(self) -> np.ndarray | None:
        """Where a scan may go whose positions are not known in advance, (any number, motors), relative to `start_positions` if
        `is_relative`; for the check of limits only. None: not known; each target is checked when it comes.
        """
        return None

    def run(self) -> Steps:
        """The scan itself, as steps."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it does: give it a run() method")

    # Facts that the scan server asks for

    @property
    def motors(self) -> list[str]:
        """Devices that the scan moves, in the order of the columns of `positions`."""
        info = describe_scan(type(self))
        found = [
            value
            for bundle in self.bundles
            for part, value in zip(info.bundle.parameters, bundle, strict=True)
            if part.type == "device" and part.moved
        ]
        found += [
            getattr(self, part.name) for part in info.parameters if part.type == "device" and part.moved
        ]
        return [name for name in found if name]

    @property
    def detectors(self) -> list[str]:
        """Devices among the arguments that the scan does not move. They are read at every point."""
        parts = describe_scan(type(self)).parameters
        found = [getattr(self, part.name) for part in parts if part.type == "device" and not part.moved]
        return [name for name in found if name]

    @property
    def is_relative(self) -> bool:
        """Positions count from where the motors stand, and the motors go back there at the end."""
        return bool(getattr(self, "relative", False))

    @property
    def returns_to_start(self) -> bool:
        return self.is_relative and self.is_scan

    @property
    def exposure(self) -> Exposure:
        return Exposure()

    @property
    def burst(self) -> int:
        """Points taken at each position."""
        return 1

    @property
    def shape(self) -> list[int]:
        """Of the grid of positions, slowest axis first; empty if it is none."""
        return []

    @property
    def num_points(self) -> int | None:
        """None if it cannot be known in advance."""
        return None if self.targets is None else len(self.targets)

    def absolute(self, positions: np.ndarray) -> np.ndarray:
        """Positions (points, motors) as the motors are to take them: counted from `start_positions` if `is_relative`."""
        positions = np.asarray(positions, dtype=float)
        if self.is_relative:
            positions = positions + np.array([self.start_positions[name] for name in self.motors])
        return positions

    def fill_targets(self) -> None:
        """Work out `targets`, absolute, each position `burst` times. Called once, by the assembler."""
        positions = self.positions()
        if positions is None:
            return
        positions = self.absolute(positions)
        if self.burst > 1:
            check_count(len(positions) * self.burst)
            positions = np.repeat(positions, self.burst, axis=0)
        self.targets = positions


class PointScan(Scan):
    """A scan that takes points, with BEC's keywords for how each is taken."""

    exp_time: float = parameter(0.0, ge=0, unit="s", doc="Exposure time of a trigger.")
    frames_per_trigger: int = parameter(1, ge=1, doc="Frames that a detector takes at each trigger.")
    settling_time: float = parameter(0.0, ge=0, unit="s", doc="Waiting time after the move.")
    settling_time_after_trigger: float = parameter(
        0.0, ge=0, unit="s", doc="Waiting time between trigger and reading."
    )
    readout_time: float = parameter(0.0, ge=0, unit="s", doc="Readout time of the detectors.")
    burst_at_each_point: int = parameter(1, ge=1, doc="Points taken at each position.")

    @property
    def exposure(self) -> Exposure:
        return Exposure(
            exp_time=self.exp_time,
            frames_per_trigger=self.frames_per_trigger,
            settling_time=self.settling_time,
            settling_time_after_trigger=self.settling_time_after_trigger,
            readout_time=self.readout_time,
        )

    @property
    def burst(self) -> int:
        return self.burst_at_each_point

    def label_positions(self) -> Mapping[str, Any]:
        """Labels of the points: name -> one value for each of `positions`, or one for all."""
        return {}

    def run(self) -> Steps:
        labels = {name: _repeated(values, self.burst) for name, values in self.label_positions().items()}
        if self.targets is None:
            yield Points(self.burst, labels=labels)
        else:
            yield Trajectory(self.motors, self.targets, labels=labels)


def _repeated(values: Any, times: int) -> Any:
    """Each value so many times; one for all stays."""
    if times == 1 or isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)):
        return values
    return [value for value in values for _ in range(times)]


class StepScan(PointScan):
    """A scan over positions that are known in advance: override `positions`, and `shape` if it is a grid."""

    relative: bool = parameter(
        False, doc="Positions count from where the motors stand, and they go back at the end."
    )


class PathScan(StepScan):
    """A scan over positions in no particular order, which may be visited along a shorter path."""

    optim_trajectory: str | None = parameter(
        None,
        choices=[*METHODS, None],
        doc="Order of the points: corridor (up and down in stripes), shell (round and round, outwards), nearest "
        "(always to the nearest that is left); None: as the pattern comes.",
    )

    def pattern(self) -> np.ndarray:
        """The positions, (points, motors), in the order of the pattern."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say where its points are: give it a pattern()"
        )

    def positions(self) -> np.ndarray:
        points = self.pattern()
        ordered: np.ndarray = points[optimised_order(points, self.optim_trajectory)]
        return ordered


def describe_scan(scan: type[Scan], plugin: str | None = None) -> ScanInfo:
    """The signature of a scan class, as published to clients. plugin: who offers it, None: as described before.

    Raises PluginError that names the class and what is wrong with its declaration.
    """
    cached = _INFOS.get(scan)
    if cached is not None and plugin in (None, cached.plugin):
        return cached
    where = f"{scan.__module__}.{scan.__qualname__}"
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", scan.scan_name):
        raise PluginError(
            f"{where}: scan_name is {scan.scan_name!r}; it must be a name of small letters, digits and '_'"
        )
    check_labels(scan.point_labels, where)
    bundle = scan.arguments
    info = ScanInfo(
        name=scan.scan_name,
        doc=inspect.getdoc(scan) or "",
        bundle=BundleInfo()
        if bundle is None
        else BundleInfo(
            parameters=[part.facts.model_copy(update={"required": True}) for part in bundle.parameters],
            at_least=bundle.at_least,
            at_most=bundle.at_most,
        ),
        parameters=_parameters(scan, where),
        is_scan=scan.is_scan,
        plugin=plugin or "builtin",
    )
    _INFOS[scan] = info
    return info


_INFOS: dict[type[Scan], ScanInfo] = {}


def _parameters(scan: type[Scan], where: str) -> list[ParameterInfo]:
    """A class's own parameters come first, then those of its bases; an override keeps its new facts."""
    try:
        hints = typing.get_type_hints(scan)
    except Exception as error:
        raise PluginError(f"{where}: its annotations cannot be read: {error}") from error
    found: dict[str, ParameterInfo] = {}
    for base in scan.__mro__:
        for name, value in vars(base).items():
            if isinstance(value, Parameter) and name not in found and getattr(scan, name) is value:
                if name not in hints:
                    raise PluginError(
                        f"{where}: the parameter {name} needs a type, as in `{name}: float = ...`"
                    )
                found[name] = value.facts.model_copy(
                    update={"name": name, "type": _type_name(hints[name], f"{where}.{name}")}
                )
    return sorted(found.values(), key=lambda facts: not facts.required)


def _type_name(kind: Any, where: str) -> str:
    origin = typing.get_origin(kind)
    if origin is typing.Union or type(kind).__name__ == "UnionType":
        rest = [part for part in typing.get_args(kind) if part is not type(None)]
        kind = rest[0] if len(rest) == 1 else Any
        origin = typing.get_origin(kind)
    if origin in (list, tuple, Sequence) or kind is tuple:
        return "list"
    if origin is dict:
        return "dict"
    if kind in _TYPES:
        return _TYPES[kind]
    raise PluginError(
        f"{where}: {kind!r} is no type of a parameter; use Device, float, int, bool, str, list or Any"
    )
