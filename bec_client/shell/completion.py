"""Completion of what IPython does not look into: chains such as `dev.samx.ve<TAB>`, and device names in calls.

IPython evaluates only what is surely harmless, and `dev.samx` is a call of a `__getattr__` to it; evaluating more would
let `mv(dev.samx, 1).<TAB>` move a motor. Here chains of names are followed through the client's own objects alone, and
nothing is asked of a device.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from bec_client.client import BECClient
from bec_client.dap import DAP, Fit, Model
from bec_client.devices import Device, DeviceContainer, Signal
from bec_client.history import Group, ReadoutGroupsOfFile, ScanData
from bec_client.report import ScanReport
from bec_client.scan_item import LiveData, LiveDevice, ScanItem
from bec_lib.errors import BECError

_CALL = re.compile(r"(?:scans\.\w+|\bu?mvr?|\bwm|dev\.wm)\(([^()]*)$")
_SCAN = re.compile(r"scans\.(\w+)\($")
_CHAIN = re.compile(r"^([A-Za-z]\w*(?:\.[A-Za-z]\w*)*)\.(\w*)$")
# Their attributes may be looked up: it costs a look into memory, Redis or a file at most.
_OPEN = (DAP, Model, Fit, ScanReport, ScanItem, ScanData, Group, ReadoutGroupsOfFile, LiveData, LiveDevice)
# Properties of the client that ask nobody.
_PARTS = ("dev", "live_updates_config")


def matchers(shell: Any, client: BECClient) -> list[Any]:
    """What IPython's completer is given: one matcher for arguments of calls, one for chains."""

    @context_matcher(identifier="bec.devices", priority=10)
    def devices(context: CompletionContext) -> SimpleMatcherResult:
        line = context.line_with_cursor[: context.cursor_position]
        word = re.split(r"[,(\s]", line)[-1]
        found = devices_in_call(line, word, client)
        if not found:
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(text=name, type="instance") for name in found],
            "matched_fragment": word,
        }

    @context_matcher(identifier="bec.names", priority=10)
    def names(context: CompletionContext) -> SimpleMatcherResult:
        line = context.line_with_cursor[: context.cursor_position]
        chain = re.split(r"[^\w.]", line)[-1]
        start = chain.rpartition(".")[2]
        found = names_in_chain(chain, shell.user_ns)
        if not found:
            return {"completions": []}
        return {
            "completions": [
                SimpleCompletion(text="." + name.rpartition(".")[2], type="instance") for name in found
            ],
            "matched_fragment": "." + start,
        }

    return [devices, names]


def devices_in_call(line: str, text: str, client: BECClient) -> list[str]:
    """Devices and keywords that may stand at the end of the line in place of `text`: `mv(sa<TAB>` offers dev.samx."""
    found = _CALL.search(line)
    if not found or "." in text or text.startswith(("'", '"')):
        return []
    word = re.split(r"[,\s]+", found.group(1))[-1]
    if "=" in word:
        return []
    try:
        names = [f"dev.{name}" for name in client.session.names() if name.startswith(text)]
        return names + _keywords(line[: found.start(1)], text, client)
    except BECError:
        return []


def _keywords(call: str, text: str, client: BECClient) -> list[str]:
    """The keywords of the scan that is called."""
    scan = _SCAN.search(call)
    if not scan or scan.group(1) not in client.scans:
        return []
    parameters = inspect.signature(client.scans[scan.group(1)]).parameters.values()
    return [f"{p.name}=" for p in parameters if p.kind is p.KEYWORD_ONLY and p.name.startswith(text)]


def names_in_chain(text: str, names: Mapping[str, Any]) -> list[str]:
    """What may follow a chain of names that leads through the client's objects."""
    found = _CHAIN.match(text)
    if not found:
        return []
    chain, start = found.groups()
    root, *steps = chain.split(".")
    if root not in names:
        return []
    item = names[root]
    try:
        for step in steps:
            item = _step(item, step)
            if item is None:
                return []
        if not type(item).__module__.startswith("bec_client."):
            return []
        return [f"{chain}.{n}" for n in dir(item) if n.startswith(start) and (start or not n.startswith("_"))]
    except (BECError, AttributeError, KeyError):
        return []


def _step(item: Any, name: str) -> Any:
    """The attribute, if looking it up asks no device; else None."""
    if isinstance(item, DeviceContainer):
        return item.get(name)
    if isinstance(item, (Device, Signal)):
        path = f"{item._path}.{name}" if item._path else name
        if hasattr(type(item), name) or item._entry.method(path) is not None:
            return None
        return getattr(item, name)
    if isinstance(item, _OPEN) or (isinstance(item, BECClient) and name in _PARTS):
        return getattr(item, name, None)
    return vars(item).get(name) if hasattr(item, "__dict__") else None
