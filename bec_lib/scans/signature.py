"""Does a call fit a scan's published signature, and how is that signature shown?

Works on `ScanInfo` alone, so that a client checks, completes and documents scans that it does not have installed,
and the scan server checks the same call with the same words. Devices are given by name. Knows no limits of devices
and no session beyond the names that it is told.
"""

from __future__ import annotations

import difflib
import inspect
import math
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from bec_lib.messages import ParameterInfo, ScanInfo

# Keywords which every scan takes and no scan sees: they travel in fields of `ScanQueueMessage`.
CLIENT_KEYWORDS: tuple[ParameterInfo, ...] = (
    ParameterInfo(
        name="metadata", type="dict", default={}, doc="Kept with the scan, in its status and file."
    ),
    ParameterInfo(
        name="monitored", type="list", default=[], doc="Further devices to read at every point, by name."
    ),
    ParameterInfo(name="on_request", type="list", default=[], doc="Devices to leave out of the readings."),
    ParameterInfo(
        name="file_suffix", type="str", default="", doc="Appended to the names of the scan's files."
    ),
    ParameterInfo(name="file_directory", type="str", default="", doc="Folder below the scan's usual one."),
    ParameterInfo(name="scan_queue", type="str", default="primary", doc="The queue that runs the scan."),
)

_WORDS = {
    "device": "a device",
    "float": "a number",
    "int": "a whole number",
    "bool": "True or False",
    "str": "text",
    "list": "a list",
    "dict": "a dict",
}
_MANY = 5  # of a long list, so many of its wrong entries are named


@dataclass(frozen=True)
class BoundCall:
    """A call sorted into its parts. bundles: one tuple per repetition, e.g. ("samx", -1.0, 1.0). parameters: every
    parameter of the signature by name, defaults filled in.
    """

    bundles: tuple[tuple[Any, ...], ...]
    parameters: dict[str, Any]


def problems_of_call(
    info: ScanInfo,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    known_devices: Collection[str],
) -> list[str]:
    """What is wrong with a call, one sentence each, all at once; empty if it can be sent.

    args: as typed, devices by name. kwargs: without `CLIENT_KEYWORDS` (see `split_keywords`).
    Positional arguments fill the bundle; a scan without a bundle takes its parameters by position, too.
    """
    found: list[str] = []
    if info.bundle.parameters:
        found += _problems_of_bundles(info, args, known_devices)
        given = dict(kwargs)
    else:
        given, problems = _positional(info, args, kwargs)
        found += problems
    by_name = {parameter.name: parameter for parameter in info.parameters}
    for name, value in given.items():
        parameter = by_name.get(name)
        if parameter is None:
            known = ", ".join(by_name) or "none"
            found.append(
                f"{info.name} has no keyword {name!r}.{did_you_mean(name, by_name)} It takes: {known}."
            )
        elif not (value is None and not parameter.required and parameter.default is None):
            found += _problems_of_value(f"{name} of {info.name}", parameter, value, known_devices, "")
    found += [
        _missing(info, parameter)
        for name, parameter in by_name.items()
        if parameter.required and name not in given
    ]
    return found


def bind(info: ScanInfo, args: Sequence[Any], kwargs: Mapping[str, Any]) -> BoundCall:
    """Split the arguments into bundles, apply defaults and convert numbers to the declared types.

    Only for a call without problems; anything else may raise whatever it likes.
    """
    size = len(info.bundle.parameters)
    bundles: tuple[tuple[Any, ...], ...] = ()
    if size:
        bundles = tuple(
            tuple(
                _converted(parameter, value)
                for parameter, value in zip(info.bundle.parameters, args[start : start + size], strict=True)
            )
            for start in range(0, len(args), size)
        )
        given = dict(kwargs)
    else:
        given, _ = _positional(info, args, kwargs)
    return BoundCall(
        bundles,
        {
            parameter.name: _converted(parameter, given[parameter.name])
            if parameter.name in given
            else parameter.default
            for parameter in info.parameters
        },
    )


def problems_of_parameter(info: ScanInfo, parameter: ParameterInfo, value: Any) -> list[str]:
    """What is wrong with a value of a parameter, its default for instance, as far as it can be told without a session."""
    if value is None or parameter.type == "device":
        return []
    return _problems_of_value(f"{parameter.name} of {info.name}", parameter, value, (), "")


def split_keywords(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scan's own keywords, and those of `CLIENT_KEYWORDS` that were given."""
    names = {parameter.name for parameter in CLIENT_KEYWORDS}
    own = {name: value for name, value in kwargs.items() if name not in names}
    return own, {name: value for name, value in kwargs.items() if name in names}


def devices_of_call(info: ScanInfo, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Names of the devices that stand in a call's arguments, in order, each once."""
    call = bind(info, args, kwargs)
    found: list[str] = []
    for bundle in call.bundles:
        found += [v for p, v in zip(info.bundle.parameters, bundle, strict=True) if p.type == "device"]
    found += [call.parameters[p.name] for p in info.parameters if p.type == "device"]
    return list(dict.fromkeys(name for name in found if name))


def signature_of(info: ScanInfo) -> inspect.Signature:
    """For `inspect.signature`, completion and `scans.line_scan?`. The bundle is one `*` argument that bears the names
    of its parts; all else is by keyword.
    """
    found: list[inspect.Parameter] = []
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    if info.bundle.parameters:
        names = "_".join(parameter.name for parameter in info.bundle.parameters)
        found.append(inspect.Parameter(names, inspect.Parameter.VAR_POSITIONAL))
        kind = inspect.Parameter.KEYWORD_ONLY
    ordered = sorted(info.parameters, key=lambda parameter: not parameter.required)
    found += [_inspect_parameter(parameter, kind) for parameter in ordered]
    found += [
        _inspect_parameter(parameter, inspect.Parameter.KEYWORD_ONLY)
        for parameter in (CLIENT_KEYWORDS if info.is_scan else CLIENT_KEYWORDS[-1:])
    ]
    return inspect.Signature(found)


def signature_text(info: ScanInfo) -> str:
    """One line, as one would type it: `line_scan(device, start, stop, ..., steps, relative=False)`."""
    parts = [parameter.name for parameter in info.bundle.parameters]
    if parts and info.bundle.at_most != 1:
        parts = parts * max(1, info.bundle.at_least) + ["..."]
    ordered = sorted(info.parameters, key=lambda parameter: not parameter.required)
    parts += [
        f"{parameter.name}=..."
        if parameter.required and info.bundle.parameters
        else parameter.name
        if parameter.required
        else f"{parameter.name}={parameter.default!r}"
        for parameter in ordered
    ]
    return f"{info.name}({', '.join(parts)})"


def help_text(info: ScanInfo) -> str:
    """The documentation of a scan: signature, text, and every argument with its type, unit, bounds and meaning."""
    lines = [signature_text(info), ""]
    if info.doc:
        lines += [inspect.cleandoc(info.doc), ""]
    if info.bundle.parameters:
        names = ", ".join(parameter.name for parameter in info.bundle.parameters)
        lines.append(f"Positional arguments: ({names}), {_repetitions(info)}")
        lines += [f"    {_line_of(parameter)}" for parameter in info.bundle.parameters]
        lines.append("")
    if info.parameters:
        lines.append("Keywords:" if info.bundle.parameters else "Arguments:")
        lines += [f"    {_line_of(parameter)}" for parameter in info.parameters]
        lines.append("")
    if info.is_scan:
        lines.append("Keywords of every scan:")
        lines += [f"    {_line_of(parameter)}" for parameter in CLIENT_KEYWORDS]
    return "\n".join(lines).rstrip() + "\n"


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A question for the end of a sentence, with a space in front; empty if nothing is near."""
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=3, cutoff=0.6)
    if not near:
        lowered = {str(k).lower(): str(k) for k in known}
        near = [lowered[str(name).lower()]] if str(name).lower() in lowered else []
    return f" Did you mean {' or '.join(near)}?" if near else ""


# Checking


def _problems_of_bundles(info: ScanInfo, args: Sequence[Any], known_devices: Collection[str]) -> list[str]:
    bundle = info.bundle
    names = ", ".join(parameter.name for parameter in bundle.parameters)
    size = len(bundle.parameters)
    found = []
    groups = len(args) // size
    too_many = bundle.at_most is not None and groups > bundle.at_most
    if len(args) % size or groups < bundle.at_least or too_many:
        found.append(
            f"{info.name} takes its positional arguments in groups of {size} ({names}), {_repetitions(info)}; "
            f"{len(args)} given. Example: {signature_text(info)}."
        )
        if len(args) % size:
            return found
    devices: list[str] = []
    for index, value in enumerate(args):
        parameter = bundle.parameters[index % size]
        group = args[index - index % size : index - index % size + size]
        of_device = f" for {group[0]}" if index % size and bundle.parameters[0].type == "device" else ""
        label = f"{parameter.name}{of_device} of {info.name} (argument {index + 1})"
        found += _problems_of_value(label, parameter, value, known_devices, _hint(info, args))
        if parameter.type == "device" and isinstance(value, str):
            if value in devices:
                found.append(f"{info.name} got device {value} twice; give each device once.")
            devices.append(value)
    return found


def _positional(
    info: ScanInfo, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    names = [parameter.name for parameter in info.parameters]
    found = []
    if len(args) > len(names):
        found.append(
            f"{info.name} takes at most {len(names)} arguments ({', '.join(names) or 'none'}), {len(args)} given."
        )
    given = dict(zip(names, args, strict=False))
    found += [f"{info.name} got {name} twice, by position and by name." for name in given if name in kwargs]
    return {**given, **kwargs}, found


def _problems_of_value(
    label: str, parameter: ParameterInfo, value: Any, known_devices: Collection[str], hint: str
) -> list[str]:
    match parameter.type:
        case "device":
            if not isinstance(value, str):
                return [f"{label} must be a device, not {_shown(value)}.{hint}"]
            if value not in known_devices:
                return [
                    f"{label}: there is no device {value!r} in the session.{did_you_mean(value, known_devices)}"
                ]
            return []
        case "float" | "int":
            return _problems_of_number(label, parameter, value, hint)
        case "bool":
            fits = isinstance(value, (bool, np.bool_))
        case "str":
            fits = isinstance(value, str)
        case "list":
            if not isinstance(value, (list, tuple, np.ndarray)):
                return [f"{label} must be a list, not {_shown(value)}.{hint}"]
            return _problems_of_list(label, value)
        case "dict":
            fits = isinstance(value, Mapping)
        case _:
            fits = True
    if not fits:
        return [f"{label} must be {_WORDS[parameter.type]}, not {_shown(value)}.{hint}"]
    return _problems_of_choice(label, parameter, value)


def _problems_of_number(label: str, parameter: ParameterInfo, value: Any, hint: str) -> list[str]:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        return [f"{label} must be {_WORDS[parameter.type]}, not {_shown(value)}.{hint}"]
    if not math.isfinite(value):
        return [f"{label} is {value}; it must be a finite number."]
    if parameter.type == "int" and not isinstance(value, Integral) and not float(value).is_integer():
        return [f"{label} must be a whole number, not {value}."]
    unit = f" {parameter.unit}" if parameter.unit else ""
    bounds = [
        (parameter.ge, "at least", operator.ge),
        (parameter.gt, "greater than", operator.gt),
        (parameter.le, "at most", operator.le),
        (parameter.lt, "less than", operator.lt),
    ]
    found = [
        f"{label} is {value}{unit}; it must be {word} {bound:g}{unit}."
        for bound, word, holds in bounds
        if bound is not None and not holds(value, bound)
    ]
    return found + _problems_of_choice(label, parameter, value)


def _problems_of_list(label: str, value: Any) -> list[str]:
    if len(value) == 0:
        return [f"{label} is empty; give at least one value."]
    wrong = [
        index
        for index, item in enumerate(value)
        if isinstance(item, float | np.floating) and not math.isfinite(item)
    ]
    if not wrong:
        return []
    shown = ", ".join(f"[{index}] = {value[index]}" for index in wrong[:_MANY])
    more = f" and {len(wrong) - _MANY} more" if len(wrong) > _MANY else ""
    return [f"{label} has values that are not finite: {shown}{more}."]


def _problems_of_choice(label: str, parameter: ParameterInfo, value: Any) -> list[str]:
    if parameter.choices is None or value in parameter.choices:
        return []
    allowed = ", ".join(repr(choice) for choice in parameter.choices)
    return [f"{label} is {value!r}; it must be one of {allowed}."]


def _hint(info: ScanInfo, args: Sequence[Any]) -> str:
    """The commonest slip: a required number was typed behind the groups instead of by name."""
    missing = [p.name for p in info.parameters if p.required]
    size = len(info.bundle.parameters)
    if missing and len(args) % size == 1:
        return f" Did you mean {missing[0]}={args[-1]!r}?"
    return ""


def _converted(parameter: ParameterInfo, value: Any) -> Any:
    if value is None:
        return None
    match parameter.type:
        case "float":
            return float(value)
        case "int":
            return int(value)
        case "bool":
            return bool(value)
        case "list":
            return value.tolist() if isinstance(value, np.ndarray) else list(value)
        case _:
            return value


# Showing


def _repetitions(info: ScanInfo) -> str:
    least, most = info.bundle.at_least, info.bundle.at_most
    if most is None:
        return "at least once" if least <= 1 else f"at least {_times(least)}"
    if least == most:
        return f"exactly {_times(least)}"
    return f"{least} to {most} times"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _inspect_parameter(parameter: ParameterInfo, kind: Any) -> inspect.Parameter:
    types: dict[str, Any] = {"float": float, "int": int, "bool": bool, "str": str, "list": list, "dict": dict}
    return inspect.Parameter(
        parameter.name,
        kind,
        default=inspect.Parameter.empty if parameter.required else parameter.default,
        annotation=types.get(parameter.type, inspect.Parameter.empty),
    )


def _line_of(parameter: ParameterInfo) -> str:
    facts = [parameter.type if parameter.type != "any" else "anything"]
    if parameter.unit:
        facts.append(f"in {parameter.unit}")
    elif parameter.reference_unit:
        facts.append(f"in the unit of the {parameter.reference_unit}")
    for bound, sign in (
        (parameter.ge, ">="),
        (parameter.gt, ">"),
        (parameter.le, "<="),
        (parameter.lt, "<"),
    ):
        if bound is not None:
            facts.append(f"{sign} {bound:g}")
    if parameter.choices is not None:
        facts.append("one of " + ", ".join(repr(choice) for choice in parameter.choices))
    if not parameter.required and parameter.default is not None:
        facts.append(f"default {parameter.default!r}")
    return f"{parameter.name} ({', '.join(facts)}): {parameter.doc}".rstrip(": ")


def _missing(info: ScanInfo, parameter: ParameterInfo) -> str:
    kind = f", {_WORDS[parameter.type]}" if parameter.type in _WORDS else ""
    doc = f" ({parameter.doc.removesuffix('.')})" if parameter.doc else ""
    return f"{info.name} needs {parameter.name}=...{kind}{doc}."


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]}..." if len(text) > 60 else text
