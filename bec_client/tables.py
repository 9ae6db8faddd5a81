"""How things look in a terminal: one look for all tables, and the words of values, states and times.

Makes rich renderables and text out of values; asks nobody.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bec_lib.errors import BECError
from bec_lib.messages import (
    AlarmMessage,
    BeamlineStateMessage,
    DeviceInfoMessage,
    DeviceSessionMessage,
    InterlockConfig,
    InterlockPhase,
    InterlockState,
    QueueSnapshot,
    ScanHistoryMessage,
    ScanInfo,
    Severity,
    StatusMessage,
)
from bec_lib.scans.signature import help_text

if TYPE_CHECKING:
    from bec_client.macros import Macro

STATE_STYLES = {
    "RUNNING": "green",
    "running": "green",
    "ready": "green",
    "closed": "green",
    "BUSY": "yellow",
    "PAUSED": "yellow",
    "paused": "yellow",
    "user_completed": "yellow",
    "STARTING": "yellow",
    "STOPPING": "yellow",
    "stopping": "yellow",
    "LOCKED": "magenta",
    "ERROR": "bold red",
    "failed": "bold red",
    "silent": "bold red",
    "aborted": "red",
    "halted": "red",
    "disabled": "dim",
    "clear": "green",
    "valid": "green",
    "waiting": "yellow",
    "settling": "yellow",
    "warning": "yellow",
    "tripped": "bold red",
    "invalid": "red",
    "unknown": "dim",
}

PIPE_WIDTH = 200

_console: Console | None = None


def console() -> Console:
    """The terminal, for everything that is printed."""
    global _console
    if _console is None:
        _console = Console(highlight=False, soft_wrap=False)
        if not _console.is_terminal and not _console.is_jupyter and "COLUMNS" not in os.environ:
            # In a pipe or a file nothing needs to be wrapped.
            _console = Console(highlight=False, soft_wrap=False, width=PIPE_WIDTH)
    return _console


def show(item: RenderableType) -> None:
    console().print(item)


def as_text(item: RenderableType) -> str:
    """What would be printed, as a string, for `__str__`."""
    width = console().width
    buffer = io.StringIO()
    # In a notebook rich would show it instead.
    Console(file=buffer, width=width, highlight=False, force_terminal=False, force_jupyter=False).print(item)
    return buffer.getvalue().rstrip("\n")


class Rows:
    """A table in the one look, which stays readable in a narrow terminal.

    A column is its title, or its title with words on how it is set: "right" aligned; "flexible": it gets the room that
    the others leave, and is cut at its end; "optional": left out where there is no room, the last one first.
    """

    MIN_FLEXIBLE = 24
    GAP = 2

    def __init__(self, title: str, *columns: str | tuple[str, str]):
        self.title = title
        given = [column if isinstance(column, tuple) else (column, "") for column in columns]
        self._names = [name for name, _ in given]
        self._settings = [set(words.split()) for _, words in given]
        self._rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = [k for k, name in enumerate(self._names) if name or any(row[k].plain for row in self._rows)]
        widths = {k: max([cell_len(self._names[k]), *(row[k].cell_len for row in self._rows)]) for k in shown}
        self._fit(widths, options.max_width - 1)
        if self.title:
            yield Text(self.title, style="bold", no_wrap=True, overflow="ellipsis")
        yield self._line({k: Text(self._names[k], style="bold cyan") for k in widths}, widths)
        rule = "─" * min(options.max_width - 1, sum(widths.values()) + self.GAP * (len(widths) - 1))
        yield Text(" " + rule, style="dim", no_wrap=True, overflow="crop")
        for row in self._rows:
            yield self._line({k: row[k] for k in widths}, widths)

    def _fit(self, widths: dict[int, int], room: int) -> None:
        def excess() -> int:
            return sum(widths.values()) + self.GAP * (len(widths) - 1) - room

        flexible = [k for k in widths if "flexible" in self._settings[k]]
        while excess() > sum(max(0, widths[k] - self.MIN_FLEXIBLE) for k in flexible if k in widths):
            optional = [k for k in widths if "optional" in self._settings[k]]
            if not optional:
                break
            del widths[optional[-1]]
        for k in flexible:
            if k in widths and excess() > 0:
                widths[k] = max(min(self.MIN_FLEXIBLE, widths[k]), widths[k] - excess())

    def _line(self, cells: Mapping[int, Text], widths: Mapping[int, int]) -> Text:
        line = Text(" ", no_wrap=True, overflow="ellipsis")
        for position, (k, width) in enumerate(widths.items()):
            cell = cells[k].copy()
            cell.truncate(width, overflow="ellipsis")
            if "right" in self._settings[k]:
                cell.pad_left(width - cell.cell_len)
            elif position < len(widths) - 1:
                cell.pad_right(width - cell.cell_len)
            line.append_text(cell)
            if position < len(widths) - 1:
                line.append(" " * self.GAP)
        return line


def state(text: Any) -> Text:
    return Text(str(text), style=STATE_STYLES.get(str(text), ""))


def number(value: Any, precision: int | None = None, width: int = 0) -> str:
    """A value for people. precision: decimals, None for six significant digits. Arrays are named by their shape."""
    shape = getattr(value, "shape", ())
    if shape not in ((), None):
        text = f"<{' x '.join(str(n) for n in shape)}>"
    elif isinstance(value, bool) or value is None:
        text = "-" if value is None else str(value)
    elif isinstance(value, float) or hasattr(value, "dtype"):
        if not math.isfinite(value):
            text = str(float(value))
        elif precision is not None and abs(value) < 10**9:
            text = f"{float(value):z.{precision}f}"  # z: no "-0.000"
        elif 1e6 <= abs(value) < 1e10:
            text = f"{value:.0f}"
        else:
            text = f"{value:.6g}"
    elif isinstance(value, list):
        text = f"<{len(value)} values>"
    else:
        text = str(value)
    return text.rjust(width) if width else text


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"


def clock_time(seconds: float) -> str:
    if not seconds:
        return ""
    when = datetime.fromtimestamp(seconds)
    return (
        when.strftime("%H:%M:%S")
        if when.date() == datetime.now().date()
        else when.strftime("%Y-%m-%d %H:%M:%S")
    )


# Tables


def service_table(
    services: Mapping[str, StatusMessage | None], ends: Mapping[str, str] | None = None
) -> RenderableType:
    """ends: why silent services ended."""
    made = Rows(
        "Services",
        "service",
        "state",
        ("host", "optional"),
        ("process", "right optional"),
        ("up", "right optional"),
        ("doing", "flexible"),
    )
    now = time.time()
    for role, status in services.items():
        if status is None:
            made.add_row(role, state("silent"), "", "", "", (ends or {}).get(role, ""))
            continue
        doing = status.message
        if status.busy is not None:
            doing = f"{status.busy.what}, for {duration(now - status.busy.since)}"
        shown = "BUSY" if status.busy is not None and status.status == "RUNNING" else str(status.status)
        made.add_row(
            role, state(shown), status.host, str(status.pid), duration(max(0.0, now - status.started)), doing
        )
    return made


def queue_table(queues: Mapping[str, QueueSnapshot]) -> RenderableType:
    if not queues:
        return Text("The scan server has published no queue yet.")
    parts: list[RenderableType] = []
    for name, snapshot in queues.items():
        title = Text.assemble(("Queue ", "bold"), (name, "bold"), " ", state(snapshot.status))
        if snapshot.message:
            title.append(f"  {snapshot.message}")
        parts.append(title)
        for lock, reason in snapshot.locks.items():
            parts.append(Text(f"  locked by {lock}: {reason}", style="magenta"))
        if not snapshot.items:
            parts.append(Text("  empty", style="dim"))
            continue
        made = Rows(
            "",
            ("", "right"),
            "scan",
            ("number", "right"),
            "state",
            "user",
            ("motors", "optional"),
            ("points", "right optional"),
            ("submitted", "optional"),
            ("waits for", "flexible"),
        )
        waiting = 0
        for item in snapshot.items:
            waits = item.status == "pending"
            waiting += waits
            made.add_row(
                str(waiting) if waits else "▶",
                item.scan_name,
                "" if item.scan_number is None else str(item.scan_number),
                state(item.status),
                item.user,
                ", ".join(item.motors),
                "" if item.num_points is None else str(item.num_points),
                clock_time(item.submitted),
                item.waiting_for,
            )
        hidden = snapshot.num_items - len(snapshot.items)
        if hidden > 0:
            made.add_row("⋮", f"{hidden} more", *[""] * 7)
        parts.append(made)
    return Group(*parts)


def history_table(messages: Sequence[ScanHistoryMessage]) -> RenderableType:
    if not messages:
        return Text("No scans yet.")
    folder = _common_folder([m.file_path for m in messages if m.file_path])
    made = Rows(
        f"History{', files in ' + folder if folder else ''}",
        ("number", "right"),
        "scan",
        ("motors", "optional"),
        ("points", "right"),
        "status",
        ("user", "optional"),
        "started",
        ("took", "right optional"),
        ("file", "flexible"),
    )
    for m in messages:
        made.add_row(
            str(m.scan_number), m.scan_name, ", ".join(m.motors), str(m.num_points), state(m.status), m.user,
            clock_time(m.started), duration(max(0.0, m.ended - m.started)),
            Text(m.file_error or _below(m.file_path, folder), style="red" if m.file_error else ""),
        )  # fmt: skip
    return made


def _common_folder(paths: Sequence[str]) -> str:
    folders = [os.path.dirname(os.path.dirname(path)) for path in paths]
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:
        return ""


def _below(path: str, folder: str) -> str:
    return os.path.relpath(path, folder) if folder and path else path


def alarm_table(alarms: Sequence[AlarmMessage]) -> RenderableType:
    if not alarms:
        return Text("No alarms.")
    made = Rows("Alarms", "time", "severity", "from", "device", ("what", "flexible"))
    for alarm in alarms:
        style = {Severity.MAJOR: "bold red", Severity.MINOR: "yellow"}.get(alarm.severity, "")
        made.add_row(
            clock_time(alarm.timestamp),
            Text(alarm.severity.name, style=style),
            alarm.source,
            alarm.info.device or "",
            Text(alarm.info.error_message),
        )
    return made


def scan_table(scans: Mapping[str, ScanInfo]) -> RenderableType:
    if not scans:
        return Text("No scans are published; is the scan server running?")
    made = Rows("Scans", "call", ("what it does", "flexible"))
    for name in sorted(scans):
        doc = scans[name].doc.strip().split(". ")[0].replace("\n", " ")
        made.add_row(Text(_short_call(scans[name]), style="bold"), doc.rstrip(".") + "." if doc else "")
    return Group(made, Text("All arguments of one: scans.line_scan?", style="dim"))


def _short_call(info: ScanInfo) -> str:
    """What must be given: `line_scan(device, start, stop, ..., steps)`."""
    parts = [parameter.name for parameter in info.bundle.parameters]
    if parts and info.bundle.at_most != 1:
        parts.append("...")
    parts += [parameter.name for parameter in info.parameters if parameter.required]
    return f"{info.name}({', '.join(parts)})"


def position_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    if not rows:
        return Text("The session has no positioners; name devices, for example dev.wm('*').")
    made = Rows(
        "",
        "device",
        ("readback", "right"),
        ("setpoint", "right"),
        ("low", "right"),
        ("high", "right"),
        "unit",
        *(["held by"] if any(row["held_by"] for row in rows) else []),
        ("", "flexible"),
    )
    for row in rows:
        precision = row.get("precision")
        made.add_row(
            Text(row["name"], style="bold"),
            Text(number(row["readback"], precision) if row["readback"] is not None else "N/A"),
            number(row["setpoint"], precision) if row["setpoint"] is not None else "",
            number(row["low"]) if row["low"] is not None else "",
            number(row["high"]) if row["high"] is not None else "",
            row["unit"],
            *([row["held_by"]] if any(row["held_by"] for row in rows) else []),
            Text(row["error"], style="red"),
        )
    return made


def device_table(
    infos: Sequence[DeviceInfoMessage],
    session: DeviceSessionMessage | None,
    holders: Mapping[str, str] | None = None,
) -> RenderableType:
    """holders: device -> who has it now, of those that somebody has."""
    if not infos:
        return Text("No devices are loaded. Load a device file with `bec config load FILE`.")
    source = f" from {session.source}" if session and session.source else ""
    made = Rows(
        f"{len(infos)} devices{source}",
        "device",
        ("class", "optional"),
        "state",
        ("read", "optional"),
        ("unit", "optional"),
        ("limits", "optional"),
        *(["held by"] if holders else []),
        ("description", "flexible"),
    )
    for info in infos:
        limits = "" if info.limits is None else f"{info.limits[0]:g} to {info.limits[1]:g}"
        shown = state(info.state)
        made.add_row(
            Text(info.name, style="bold"),
            info.device_class.rsplit(".", 1)[-1],
            shown,
            str(info.config.get("readoutPriority", "")),
            info.unit,
            limits,
            *([holders.get(info.name, "")] if holders else []),
            Text(info.error, style="red") if info.error else str(info.config.get("description", "")),
        )
    return made


def device_summary(info: DeviceInfoMessage, held_by: str = "") -> RenderableType:
    head = Table.grid(padding=(0, 2))
    facts: dict[str, Any] = {
        "class": info.device_class,
        "state": f"{info.state}{': ' + info.error if info.error else ''}",
        "read": info.config.get("readoutPriority", ""),
        "unit": info.unit,
        "limits": "" if info.limits is None else f"{info.limits[0]:g} to {info.limits[1]:g} {info.unit}",
        "tags": ", ".join(info.config.get("deviceTags") or []),
        "read only": "yes" if info.config.get("readOnly") else "",
        "held by": held_by,
        "server": info.server,
        "description": info.config.get("description", ""),
    }
    for key, value in facts.items():
        if value:
            head.add_row(Text(key, style="cyan"), Text(str(value)))
    signals = Rows("Signals", "name", "kind", "unit", "type", "", ("what it is", "flexible"))
    for signal in info.signals:
        shape = f" {signal.shape}" if signal.shape else ""
        signals.add_row(
            signal.name, signal.kind, signal.unit, f"{signal.dtype}{shape}", "" if signal.writable else "read-only",
            signal.doc,
        )  # fmt: skip
    parts: list[RenderableType] = [Text(info.name, style="bold"), head, signals]
    if info.methods:
        methods = Rows("Methods and properties", "name", ("what it does", "flexible"))
        for method in info.methods:
            doc = method.doc.strip().splitlines()
            methods.add_row(f"{method.name}{method.signature}", doc[0] if doc else "")
        parts.append(methods)
    return Group(*parts)


def schema_table(info: ScanInfo, metadata: Mapping[str, Any]) -> RenderableType:
    """What a scan takes, and the metadata that it would have."""
    given = Rows("", ("metadata of this client", ""), ("", "flexible"))
    for name, value in metadata.items():
        given.add_row(Text(name, style="bold"), str(value))
    note = Text("Metadata is free: any names, values that can be written to a file.", style="dim")
    return Group(Text(help_text(info).rstrip()), *([given] if metadata else []), note)


def variable_table(variables: Mapping[str, tuple[Any, str, float]]) -> RenderableType:
    """Global variables: name -> value, who set it, when (seconds UTC)."""
    if not variables:
        return Text('No global variables. bec.set_global_var("sample_name", "gold") makes one.', style="dim")
    rows = Rows("Global variables", "name", ("value", "flexible"), ("set by", "optional"), ("at", "optional"))
    for name, (value, user, sent) in variables.items():
        shown = (
            value if isinstance(value, str) else number(value) if not isinstance(value, list) else repr(value)
        )
        rows.add_row(Text(name, style="bold"), " ".join(shown.split()), user, clock_time(sent))
    return rows


def macro_table(macros: Collection[Macro], folders: Sequence[Path]) -> RenderableType:
    """Macros that are loaded, and where they come from."""
    if not macros:
        text = f"No macros. bec.macros.load_all_user_macros() looks in {', '.join(map(str, folders))}."
        return Text(text, style="dim")
    rows = Rows("Macros", "name", ("what it does", "flexible"), ("file", "flexible"))
    for macro in macros:
        rows.add_row(Text(macro.name, style="bold"), macro.doc, str(macro.file))
    return rows


# Errors


def error_panel(error: BaseException, hint: str = "") -> RenderableType:
    """One clear panel: what, where, and what to do."""
    text = Text(str(error) or type(error).__name__)
    device = getattr(error, "device", None)
    if device and device not in text.plain:
        text.append(f"\ndevice {device}", style="dim")
    if hint:
        text.append("\n" + hint, style="dim")
    return Panel(
        text, title=f"[bold red]{_title(error)}", title_align="left", border_style="red", box=box.ROUNDED
    )


def _title(error: BaseException) -> str:
    if not isinstance(error, BECError):
        return type(error).__name__
    words = {
        "LimitError": "Out of limits",
        "ParameterError": "The call is not right",
        "UnknownScan": "Unknown scan",
        "MissingFeature": "Not there",
        "WrongName": "Not there",
        "RequestRejected": "Refused",
        "UnknownDevice": "Unknown device",
        "DeviceAttributeError": "Unknown device",
        "DeviceError": "Device error",
        "ScanAborted": "Scan aborted",
        "ScanFailed": "Scan failed",
        "ServiceDown": "A service is not running",
        "DeadlineExceeded": "Not done in time",
        "BrokerError": "No connection to Redis",
        "ConfigError": "Configuration",
        "StorageError": "File",
    }
    return words.get(type(error).__name__, type(error).__name__)


def interlock_table(
    definitions: Mapping[str, InterlockConfig], status: Mapping[str, InterlockState]
) -> RenderableType:
    """Interlocks with their conditions and what they are in just now."""
    if not definitions:
        return Text('No interlocks. bec.interlocks.add("beam", "curr.curr < 100") makes one.', style="dim")
    rows = Rows(
        "Interlocks",
        "name",
        "state",
        ("trips when", "flexible"),
        ("clears when", "optional flexible"),
        ("settle", "right optional"),
        ("action", "optional"),
        ("queues", "optional"),
        ("why", "flexible"),
    )
    for name, config in definitions.items():
        found = status.get(name, InterlockState(phase=InterlockPhase.WAITING))
        since = f" for {duration(max(0.0, time.time() - found.tripped_since))}" if found.tripped_since else ""
        rows.add_row(
            Text(name, style="bold"),
            Text(f"{found.phase.value}{since}", style=STATE_STYLES.get(found.phase.value, "")),
            config.trips_when,
            config.clears_when,
            f"{config.settle_time_s:g} s" if config.settle_time_s else "",
            config.action.value,
            ", ".join(config.queues) or "all",
            found.why,
        )
    return rows


def beamline_state_table(states: Mapping[str, BeamlineStateMessage]) -> RenderableType:
    """Beamline states, and what is the matter with them."""
    if not states:
        return Text("No beamline states.", style="dim")
    rows = Rows(
        "Beamline states", "name", "status", ("since", "optional"), ("kind", "optional"), ("", "flexible")
    )
    for name, found in states.items():
        rows.add_row(
            Text(name, style="bold"),
            Text(found.status.value, style=STATE_STYLES.get(found.status.value, "")),
            duration(max(0.0, time.time() - found.since)),
            found.kind,
            found.label,
        )
    return rows
