"""What does a device file say, and is it right? YAML to validated `DeviceConfig`s and back.

Knows the fields and their rules, files that include files, and the order in which devices are built. Does not
know whether a device class exists or can be built: that is the device server's to find out.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import keyword
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bec_lib.errors import ConfigError


class ReadoutPriority(StrEnum):
    """When a device is read. Motors of a scan are promoted to monitored for that scan."""

    MONITORED = "monitored"
    BASELINE = "baseline"
    ASYNC = "async"
    ON_REQUEST = "on_request"
    CONTINUOUS = "continuous"


class FailurePolicy(StrEnum):
    """What a failed reading means: try once more, use the last value, or fail the point."""

    RETRY = "retry"
    BUFFER = "buffer"
    RAISE = "raise"


class InterruptPolicy(StrEnum):
    """May an instruction that was interrupted by a crash be repeated on this device without asking?"""

    REPEAT = "repeat"
    ASK = "ask"


class DeviceConfig(BaseModel):
    """One device, with the field names of the device file.

    deviceConfig: arguments of the class; what it does not take is set as an attribute or signal after connecting;
    `limits` and `labels` are understood for every class. connectionTimeout: seconds.
    needs: devices that are built before this one.
    units: the unit of every signal, or signal -> unit; replaces what the device says of itself.
    deviceServer: the name of the device server that builds it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    deviceClass: str = Field(min_length=1)
    enabled: bool
    readoutPriority: ReadoutPriority
    deviceConfig: dict[str, Any] = {}
    connectionTimeout: float = Field(5.0, gt=0, allow_inf_nan=False)
    description: str = ""
    deviceTags: list[str] = []
    needs: list[str] = []
    onFailure: FailurePolicy = FailurePolicy.RETRY
    readOnly: bool = False
    softwareTrigger: bool = False
    userParameter: dict[str, Any] = {}
    units: str | dict[str, str] | None = None
    deviceServer: str = "main"
    onInterrupt: InterruptPolicy = InterruptPolicy.REPEAT

    @field_validator("deviceConfig", "userParameter", mode="before")
    @classmethod
    def _nothing_is_an_empty_mapping(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("needs", mode="before")
    @classmethod
    def _nothing_is_an_empty_list(cls, value: Any) -> Any:
        return [] if value is None else value

    @field_validator("deviceTags", mode="before")
    @classmethod
    def _tags_are_a_set(cls, value: Any) -> Any:
        if value is None:
            return []
        if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(tag, str) for tag in value):
            return sorted(set(value))
        return value

    @field_validator("description", mode="before")
    @classmethod
    def _nothing_is_an_empty_text(cls, value: Any) -> Any:
        return "" if value is None else value

    @field_validator("deviceConfig")
    @classmethod
    def _limits_are_a_pair(cls, value: dict[str, Any]) -> dict[str, Any]:
        limits = value.get("limits")
        if limits is None:
            return value
        numbers = isinstance(limits, (list, tuple)) and all(
            isinstance(item, (int, float)) and not isinstance(item, bool) for item in limits
        )
        if not numbers or len(limits) != 2:
            raise ValueError(f"limits must be [low, high], two numbers in the device's unit, not {limits!r}")
        if limits[0] > limits[1]:
            raise ValueError(f"limits must be [low, high], and {limits[0]} is above {limits[1]}")
        return value

    def as_raw(self) -> dict[str, Any]:
        """All fields as plain values, for messages."""
        return self.model_dump(mode="json")


FIELDS = tuple(DeviceConfig.model_fields)
# Fields that cannot change while the device lives.
FIXED_FIELDS = frozenset({"deviceClass", "needs", "connectionTimeout", "deviceServer"})


def load_device_file(path: str | Path) -> dict[str, DeviceConfig]:
    """The devices of a YAML file and of the files it includes, in file order.

    `!include other.yaml` (a path, or a list of paths, relative to the including file) may stand for the value of a
    top-level key, in a list below one, or in place of the whole file.
    Raises ConfigError that names file, line and column, and all problems of all devices at once.
    """
    file = Path(path).expanduser()
    collected = _Collected()
    _collect(file, collected, ())
    if collected.problems:
        raise _report(str(file), collected.problems)
    where = {name: origin for name, (_, origin) in collected.devices.items()}
    return _validated({name: raw for name, (raw, _) in collected.devices.items()}, str(file), where)


def validate_devices(
    devices: Mapping[str, Any], *, source: str = "the device configuration"
) -> dict[str, DeviceConfig]:
    """Raw mappings (as in a message) to checked devices. Raises ConfigError that lists every problem."""
    return _validated(devices, source, {})


def build_order(devices: Mapping[str, DeviceConfig]) -> list[str]:
    """The names so that each comes after what it needs, else in the given order.

    Raises ConfigError on unknown and cyclic needs.
    """
    problems = _needs_problems({name: device.needs for name, device in devices.items()}, {})
    if problems:
        raise _report("the device configuration", problems)
    order: dict[str, None] = {}

    def visit(name: str) -> None:
        if name in order:
            return
        for needed in devices[name].needs:
            visit(needed)
        order[name] = None

    for name in devices:
        visit(name)
    return list(order)


def config_hash(devices: Mapping[str, DeviceConfig]) -> str:
    """A SHA-256 over all devices and their fields: equal for equal content, whatever the order of devices or
    keys.
    """
    content = {name: device.as_raw() for name, device in devices.items()}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def dump_device_file(path: str | Path, devices: Mapping[str, DeviceConfig]) -> None:
    """Write devices as one YAML file that `load_device_file` reads back to the same; fields at their default are
    left out.

    Written beside the target and renamed over it, so that a full disk leaves the old file. Raises ConfigError if
    the file cannot be written.
    """
    file = Path(path).expanduser()
    content = {}
    for name, device in devices.items():
        raw = device.as_raw()
        content[name] = {
            key: raw[key]
            for key in FIELDS
            if DeviceConfig.model_fields[key].is_required() or raw[key] != _default(key)
        }
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    temporary = file.with_name(f".{file.name}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, file)
    except OSError as error:
        raise ConfigError(f"the device file {file} cannot be written: {error.strerror or error}") from error


# Reading files


@dataclass
class _Collected:
    """Raw devices and where they stand, and what was wrong on the way."""

    devices: dict[str, tuple[Any, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Include:
    """`!include` as it stands in a file, not yet read."""

    paths: tuple[str, ...]
    line: int


class _Loader(yaml.SafeLoader):
    """The safe loader, which in addition refuses a key that stands twice, notes lines, and reads 1e6 as a number."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self.lines: dict[str, int] = {}
        self.depth = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"{key_node.value!r} stands here for the second time (first in line {seen[key_node.value]})",
                    key_node.start_mark,
                )
            seen[key_node.value] = line
        return super().construct_mapping(node, deep=deep)

    def top_lines(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            self.lines = {str(key.value): key.start_mark.line + 1 for key, _ in node.value}

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        self.top_lines(node)
        return self.construct_document(node)


def _construct_include(loader: yaml.SafeLoader, node: yaml.Node) -> _Include:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return _Include((str(node.value),), line)
    if isinstance(node, yaml.SequenceNode):
        return _Include(tuple(str(item) for item in loader.construct_sequence(node)), line)
    raise yaml.constructor.ConstructorError(
        None, None, "!include takes a path or a list of paths", node.start_mark
    )


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes what `_Loader` would take for something else than text."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes other line ends than "\n" in a way that does not read back.
    style = None if all(c.isprintable() or c == "\n" for c in text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Loader.add_constructor("!include", _construct_include)
_Dumper.add_representer(str, _represent_text)
for _kind in (_Loader, _Dumper):
    # YAML 1.1 takes 1e6 for a text, 1.0e+6 for a number; people mean a number by both.
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def _collect(file: Path, collected: _Collected, inside: tuple[Path, ...]) -> None:
    resolved = file.resolve()
    if resolved in inside:
        chain = " -> ".join(part.name for part in (*inside[inside.index(resolved) :], resolved))
        collected.problems.append(f"{file} includes itself ({chain})")
        return
    content, lines = _read(file)
    inside = (*inside, resolved)
    if content is None:
        return
    if isinstance(content, (_Include, list)):
        _collect_includes(content, file, collected, inside, "the file")
        return
    if not isinstance(content, dict):
        raise ConfigError(
            f"{file} must hold a mapping of device names to devices, not a {type(content).__name__}"
        )
    for name, raw in content.items():
        line = lines.get(str(name), 0)
        if isinstance(raw, (_Include, list)):
            _collect_includes(raw, file, collected, inside, f"{name!r} (line {line})")
            continue
        origin = f"{file}, line {line}"
        if str(name) in collected.devices:
            collected.problems.append(
                f"{name} is defined twice: in {collected.devices[str(name)][1]} and in {origin}"
            )
            continue
        collected.devices[str(name)] = (raw, origin)


def _collect_includes(
    content: Any, file: Path, collected: _Collected, inside: tuple[Path, ...], where: str
) -> None:
    items = content if isinstance(content, list) else [content]
    for item in items:
        if not isinstance(item, _Include):
            collected.problems.append(
                f"{file}: {where} must be a device (a mapping of fields) or !include of a file, not a list"
            )
            return
        for path in item.paths:
            target = Path(path).expanduser()
            target = target if target.is_absolute() else file.parent / target
            if not target.is_file():
                collected.problems.append(
                    f"{file}, line {item.line}: the included file {target} does not exist"
                )
                continue
            _collect(target, collected, inside)


def _read(file: Path) -> tuple[Any, dict[str, int]]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"the device file {file} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the device file {file} cannot be read: {error}") from error
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data(), loader.lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = error.problem or error.context or "it cannot be read"
        raise ConfigError(f"{file}{where}: {_plainly(problem)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not YAML: {str(error) or type(error).__name__}") from error


def _plainly(problem: str) -> str:
    tag = re.match(r"could not determine a constructor for the tag '([^']+)'", problem)
    if tag:
        return f"the tag {tag.group(1)} is not allowed; a device file holds plain values and !include, never code"
    return problem if "second time" in problem or "!include" in problem else f"this is not YAML: {problem}"


# Checking


def _validated(devices: Mapping[str, Any], source: str, where: Mapping[str, str]) -> dict[str, DeviceConfig]:
    problems: list[str] = []
    valid: dict[str, DeviceConfig] = {}
    for name, raw in devices.items():
        label = f"{name} ({where[name]})" if name in where else str(name)
        problems += [f"{label}: {problem}" for problem in _name_problems(str(name))]
        if isinstance(raw, DeviceConfig):
            valid[str(name)] = raw
            continue
        if not isinstance(raw, Mapping):
            kind = "nothing" if raw is None else f"a {type(raw).__name__}"
            problems.append(f"{label}: a device is a mapping of fields, this is {kind}")
            continue
        try:
            valid[str(name)] = DeviceConfig.model_validate(dict(raw))
        except ValidationError as error:
            problems += [f"{label}: {problem}" for problem in _field_problems(error)]
    known = {str(name) for name in devices}
    needs = {name: device.needs for name, device in valid.items()}
    problems += _needs_problems(needs, where, known)
    if problems:
        raise _report(source, problems)
    return valid


def _name_problems(name: str) -> list[str]:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        return [
            "this is no name for a device: use letters, digits and '_', beginning with a letter, and no word of Python"
        ]
    return []


def _field_problems(error: ValidationError) -> list[str]:
    found = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"])
        kind = item["type"]
        if kind == "extra_forbidden":
            found.append(f"unknown field {path!r}{_did_you_mean(path, FIELDS)}")
        elif kind == "missing":
            found.append(f"the field {path!r} is missing")
        elif kind == "enum":
            allowed = str(item.get("ctx", {}).get("expected", ""))
            choices = re.findall(r"'([^']*)'", allowed)
            hint = _did_you_mean(str(item["input"]), choices)
            found.append(f"{path} cannot be {item['input']!r}: it is one of {', '.join(choices)}{hint}")
        elif kind == "value_error":
            found.append(f"{path}: {item['msg'].removeprefix('Value error, ')}")
        elif path.startswith("units."):
            if not any(problem.startswith("units") for problem in found):
                found.append(f"units must be a text or a mapping of signals to texts, not {item['input']!r}")
        else:
            message = item["msg"].removeprefix("Input ").split(", unable")[0]
            message = message.replace("valid dictionary", "mapping")
            found.append(f"{path} {message}, and is {item['input']!r}")
    return found


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    lower = {item.lower(): item for item in known}
    close = difflib.get_close_matches(word.lower().replace("_", ""), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def _needs_problems(
    needs: Mapping[str, list[str]], where: Mapping[str, str], known: Iterable[str] | None = None
) -> list[str]:
    names = set(needs) if known is None else set(known)
    problems = []
    for name, needed in needs.items():
        label = f"{name} ({where[name]})" if name in where else name
        for other in needed:
            if other not in names:
                problems.append(
                    f"{label}: needs {other!r}, which is not in the configuration{_did_you_mean(other, names)}"
                )
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            cycle = (*path[path.index(name) :], name)
            problems.append(f"{name}: needs itself, by way of {' -> '.join(cycle)}")
            done.update(cycle)
            return
        if name in done:
            return
        for other in needs.get(name, []):
            visit(other, (*path, name))
        done.add(name)

    for name in needs:
        visit(name, ())
    return problems


def _report(source: str, problems: list[str]) -> ConfigError:
    if len(problems) == 1:
        return ConfigError(f"{source} cannot be used: {problems[0]}")
    listed = "\n".join(f"  - {problem}" for problem in problems)
    return ConfigError(f"{source} cannot be used, it has {len(problems)} problems:\n{listed}")


def _default(key: str) -> Any:
    value = DeviceConfig.model_fields[key].default
    return value.value if isinstance(value, StrEnum) else value
