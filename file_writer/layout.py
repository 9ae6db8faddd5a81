"""What is in a scan's file, as data: groups, fields, links, attributes.

A file format plugin makes such a tree from a scan's schema; `hdf5` writes it. Knows nothing of HDF5, and of
NeXus only that a group has a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from enum import StrEnum
from typing import Protocol

import numpy as np

from bec_lib.messages import ScanSchemaMessage, ScanStatusMessage

# What an attribute or a static field may hold.
Value = str | bool | int | float | list[str] | list[int] | list[float] | np.ndarray
Attributes = Mapping[str, Value]


class Source(StrEnum):
    """Where the rows of a growing field come from. elapsed: server time of the point since the scan's start,
    in seconds as a float or in nanoseconds as an integer.
    """

    VALUE = "value"
    TIMESTAMP = "timestamp"
    ELAPSED_S = "elapsed_s"
    ELAPSED_NS = "elapsed_ns"
    BASELINE_VALUE = "baseline_value"
    BASELINE_TIMESTAMP = "baseline_timestamp"

    @property
    def is_baseline(self) -> bool:
        return self in (Source.BASELINE_VALUE, Source.BASELINE_TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the scan's points or of its baseline; index: in the schema's order, 0 for elapsed times."""

    source: Source
    index: int = 0


@dataclass(frozen=True, slots=True)
class Field:
    """A dataset.

    Either it has a value, or a column whose rows it takes, or it is `late`: made empty, filled at the scan's
    end. dtype: numpy name or "str"; "" is the value's own. shape: of one value. length: bytes kept for a
    text; texts are cut to it.
    """

    name: str
    value: Value | None = None
    dtype: str = ""
    shape: tuple[int, ...] = ()
    column: Column | None = None
    late: bool = False
    length: int = 0
    attributes: Attributes = field(default_factory=dict)

    @property
    def grows(self) -> bool:
        """A row is added with each point."""
        return self.column is not None and not self.column.source.is_baseline


@dataclass(frozen=True, slots=True)
class Link:
    """A soft link to an absolute path of the same file."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class ExternalLink:
    """A link into another file, whose path is relative to this file's folder."""

    name: str
    file: str
    path: str


@dataclass(frozen=True, slots=True)
class Group:
    """A group; nx_class "" for none."""

    name: str
    nx_class: str = ""
    members: tuple[Member, ...] = ()
    attributes: Attributes = field(default_factory=dict)


Member = Group | Field | Link | ExternalLink


@dataclass(frozen=True, slots=True)
class Facility:
    """Where the instrument stands; empty where the service configuration says nothing."""

    instrument: str = ""
    source_name: str = ""
    source_type: str = ""
    probe: str = ""


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """What is known of a scan when its file is made. zone: of the times in the file. file: its final path."""

    status: ScanStatusMessage
    schema: ScanSchemaMessage
    facility: Facility
    zone: tzinfo
    file: str = ""


@dataclass(frozen=True, slots=True)
class EndFacts:
    """What is known of a scan when it is over. status: its terminal message, None if it is not known.
    count: points in the file. ended: seconds UTC.
    """

    state: str
    count: int
    ended: float
    status: ScanStatusMessage | None = None


class FileFormat(Protocol):
    """A file format plugin (entry point group `bec.file_formats`): a class without arguments."""

    def layout(self, scan: ScanFacts) -> Group:
        """The whole tree of the file, made before the first point. The root group's name is ""."""

    def closing(self, scan: ScanFacts, end: EndFacts) -> Mapping[str, Value]:
        """Path of a `late` field -> its value."""


def walk(group: Group, path: str = "") -> Iterator[tuple[str, Member]]:
    """Every member below a group with its absolute path, parents first."""
    for member in group.members:
        place = f"{path}/{member.name}"
        yield place, member
        if isinstance(member, Group):
            yield from walk(member, place)


def text_of(root: Group) -> str:
    """The tree as text, a line for each member, for people and for snapshots in tests."""
    lines = [f"/{_attributes(root.nx_class, root.attributes)}"]
    for path, member in walk(root):
        match member:
            case Group():
                lines.append(f"{path}/{_attributes(member.nx_class, member.attributes)}")
            case Link():
                lines.append(f"{path} -> {member.target}")
            case ExternalLink():
                lines.append(f"{path} -> {member.file}:{member.path}")
            case Field():
                lines.append(f"{path}{_content(member)}{_attributes('', member.attributes)}")
    return "\n".join(lines) + "\n"


def _content(item: Field) -> str:
    if item.column is not None:
        kind = "scalar" if item.column.source.is_baseline else "rows"
        shape = f" of {'x'.join(map(str, item.shape))}" if item.shape else ""
        return f" = {kind} {item.dtype}{shape} from {item.column.source} {item.column.index}"
    if item.late:
        return f" = {item.dtype or 'str'}, filled at the end"
    if isinstance(item.value, np.ndarray):
        return f" = array {item.value.dtype} {item.value.shape}"
    return f" = {item.value!r}"


def _attributes(nx_class: str, attributes: Attributes) -> str:
    shown = {**({"NX_class": nx_class} if nx_class else {}), **attributes}
    return "".join(f" @{name}={value!r}" for name, value in shown.items())
