"""May this request go into the queue? A verdict on what was typed, with every problem at once.

Looks at names, arguments and the state of devices. Does not know positions: limits are the assembler's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from bec_lib.devices.registry import Registry
from bec_lib.errors import ParameterError, ReasonCode
from bec_lib.file_paths import file_target
from bec_lib.messages import ScanInfo, ScanQueueMessage
from bec_lib.scans.signature import devices_of_call, did_you_mean, problems_of_call

# Which one it is, is known when the scan begins; what is wrong with a name does not depend on it.
_SOME_FOLDER = Path("/the-data-folder")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Rejected:
    """A refusal: the code for programs, the text for people."""

    code: ReasonCode
    message: str


def check(
    request: ScanQueueMessage,
    scans: Mapping[str, ScanInfo],
    devices: Registry,
    *,
    failed_plugins: Mapping[str, str] | None = None,
) -> Rejected | None:
    """What is wrong with a request, or None. scans: the catalogue; devices: the session in force."""
    info = scans.get(request.scan_type)
    if info is None:
        return Rejected(
            ReasonCode.UNKNOWN_SCAN, _unknown_scan(request.scan_type, scans, failed_plugins or {})
        )
    found = [
        (
            ReasonCode.UNKNOWN_DEVICE if "there is no device" in problem else ReasonCode.INVALID_ARGUMENT,
            problem,
        )
        for problem in problems_of_call(info, request.args, request.kwargs, devices)
    ]
    if not found:
        found = [
            (ReasonCode.DEVICE_DISABLED, f"{problem}.")
            for name in devices_of_call(info, request.args, request.kwargs)
            if (problem := devices[name].problem())
        ]
    found += _problems_of_readout(request, devices)
    found += [(ReasonCode.INVALID_ARGUMENT, problem) for problem in _problems_of_names(request)]
    return rejected(request.scan_type, found)


def rejected(scan_name: str, problems: list[tuple[ReasonCode, str]]) -> Rejected | None:
    """One refusal for all problems; its code is theirs if they share one."""
    if not problems:
        return None
    codes = {code for code, _ in problems}
    code = codes.pop() if len(codes) == 1 else ReasonCode.INVALID_ARGUMENT
    if len(problems) == 1:
        return Rejected(code, problems[0][1])
    listed = "\n".join(f"  - {problem}" for _, problem in problems)
    return Rejected(code, f"{scan_name} has {len(problems)} problems:\n{listed}")


def is_name(text: str) -> bool:
    """May it be part of a key: the name of a client, a user or a queue?"""
    return bool(_NAME.fullmatch(text))


def _unknown_scan(name: str, scans: Collection[str], failed: Mapping[str, str]) -> str:
    text = f"there is no scan {name!r}.{did_you_mean(name, scans)} There are: {', '.join(sorted(scans)) or 'none'}."
    if failed:
        told = "; ".join(f"{plugin}: {reason}" for plugin, reason in failed.items())
        text += f" Plugins that could not be loaded: {told}."
    return text


def _problems_of_readout(request: ScanQueueMessage, devices: Registry) -> list[tuple[ReasonCode, str]]:
    found: list[tuple[ReasonCode, str]] = []
    for keyword, names in (("monitored", request.monitored), ("on_request", request.on_request)):
        for name in names:
            if name not in devices:
                found.append(
                    (
                        ReasonCode.UNKNOWN_DEVICE,
                        f"{keyword}: there is no device {name!r} in the session.{did_you_mean(name, devices)}",
                    )
                )
            elif keyword == "monitored" and devices[name].problem():
                found.append((ReasonCode.DEVICE_DISABLED, f"{keyword}: {devices[name].problem()}."))
    return found


def _problems_of_names(request: ScanQueueMessage) -> list[str]:
    found = []
    if not is_name(request.queue):
        found.append(
            f"the queue {request.queue!r} cannot have that name: use letters, digits, '_', '-' and '.', at most 64."
        )
    if request.file_suffix or request.file_directory:
        try:
            file_target(_SOME_FOLDER, "", 1, request.file_suffix, request.file_directory)
        except ParameterError as error:
            found.append(f"{error.message}.".replace(str(_SOME_FOLDER), "the data folder"))
    return found
