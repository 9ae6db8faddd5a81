"""A running scan in the terminal: rows as points arrive, a progress bar, live fits, and Ctrl-C.

Used by the shell, by `bec scan` and by scripts. Rows are printed in blocks, at most ten times a second, so that a
fast scan is not slowed down by being watched. On anything that is no terminal there is a table and no bar.

Ctrl-C: the first pauses after the point in hand, the second aborts, the third halts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bec_client import tables
from bec_client.dap import describe_live
from bec_client.report import ScanInterruption, ScanReport
from bec_client.scan_item import Points, ScanItem
from bec_lib.errors import BECError, BrokerError
from bec_lib.messages import ItemState, ScanSchemaMessage, SignalSchema

if TYPE_CHECKING:
    from bec_client.client import BECClient

REFRESH_S = 0.1
LAST_POINTS_S = 5.0  # after a scan's end, for its last points
FILE_S = 30.0
STOP_S = 5.0
BROKER_S = 30.0  # a lost broker is given up after
MANY_ROWS = 60  # of one block; more are shown by their first and last
MIN_WIDTH = 9
GAP = "  "


@dataclass(frozen=True)
class Column:
    """One column of the live table: which column of the points, and how it is shown."""

    index: int
    title: str
    unit: str
    precision: int | None
    width: int


class LiveTable:
    """A scan's points as lines of text. width: of the terminal, characters."""

    def __init__(self, schema: ScanSchemaMessage, width: int, num_points: int | None = None):
        self.point_width = max(5, len(str(num_points or 0)))
        chosen = _chosen(schema)
        self.columns, self.left_out = _fitting(chosen, width - self.point_width)

    def header(self) -> list[str]:
        """The titles, the units if there are any, and a rule."""
        titles = [
            "point".rjust(self.point_width),
            *[_cut(c.title, c.width).rjust(c.width) for c in self.columns],
        ]
        lines = [GAP.join(titles)]
        if any(column.unit for column in self.columns):
            units = [" " * self.point_width]
            units += [_cut(f"[{c.unit}]" if c.unit else "", c.width).rjust(c.width) for c in self.columns]
            lines.append(GAP.join(units))
        lines.append("─" * len(lines[0]))
        return lines

    def rows(self, points: Points, first: int, end: int) -> list[str]:
        """Lines of the points from `first` to before `end`; of very many only the first and the last."""
        if end - first > MANY_ROWS:
            head, tail = MANY_ROWS // 6, MANY_ROWS // 6
            note = (
                f"{'⋮'.rjust(self.point_width)}{GAP}{end - first - head - tail} points more, all in the file"
            )
            return [
                *self.rows(points, first, first + head),
                note,
                *self.rows(points, end - tail, end),
            ]
        return [self.row(points, index) for index in range(first, end)]

    def row(self, points: Points, index: int) -> str:
        cells = [str(index + 1).rjust(self.point_width)]
        for column in self.columns:
            values = points.values[column.index]
            text = tables.number(values[index], column.precision)
            if len(text) > column.width:
                text = _shorter(values[index], column.width)
            cells.append(text.rjust(column.width))
        return GAP.join(cells)


def _chosen(schema: ScanSchemaMessage) -> list[tuple[int, SignalSchema]]:
    """Motors first, then the other devices, of each the hinted scalars, or its first scalar if none is hinted."""
    by_device: dict[str, list[tuple[int, SignalSchema]]] = {}
    for index, signal in enumerate(schema.signals):
        if not signal.shape and signal.dtype != "str":
            by_device.setdefault(signal.device, []).append((index, signal))
    motors = [name for name in schema.motors if name in by_device]
    found = []
    for device in [*motors, *[name for name in by_device if name not in schema.motors]]:
        hinted = [item for item in by_device[device] if item[1].kind == "hinted"]
        found += hinted or by_device[device][:1]
    return found


def _fitting(chosen: Sequence[tuple[int, SignalSchema]], width: int) -> tuple[list[Column], list[str]]:
    """The columns that have room, narrowed if need be, and the names of those that have not."""

    def columns(cap: int) -> list[Column]:
        return [
            Column(
                index, s.signal, s.unit, s.precision, min(cap, max(MIN_WIDTH, len(s.signal), len(s.unit) + 2))
            )
            for index, s in chosen
        ]

    for cap in (24, 14, 11, MIN_WIDTH):
        made = columns(cap)
        if sum(column.width + len(GAP) for column in made) <= width:
            return made, []
    kept: list[Column] = []
    for column in made:
        if sum(c.width + len(GAP) for c in [*kept, column]) > width and kept:
            break
        kept.append(column)
    return kept, [column.title for column in made[len(kept) :]]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _shorter(value: Any, width: int) -> str:
    for digits in (6, 5, 4, 3, 2):
        text = f"{value:.{digits}g}" if isinstance(value, (int, float)) else str(value)
        if len(text) <= width:
            return text
    return "#" * width


class LiveUpdates:
    """How this client shows what runs: `bec.live_updates`.

    enabled: False to show nothing, as with hide_report=True everywhere. print_live_table: False for the bar alone.
    print_client_messages: False for no notices, but those of alarms.
    return_when_paused: after Ctrl-C has paused a scan, give the prompt back (the shell), or stay with it (scripts).
    """

    def __init__(self, client: BECClient, console: Console | None = None):
        self._client = client
        self._console = console
        # Before something is shown; and what changes below the rows. A notebook has its own.
        self.begin: Callable[[], Any] = lambda: None
        self.open_live: Callable[[Console], Any] = _live
        self.enabled = True
        self.print_live_table = True
        self.print_client_messages = True
        self.return_when_paused = False
        self.live: Live | None = None  # what is on the screen now; others print above it

    @property
    def console(self) -> Console:
        return self._console or tables.console()

    def show_on(
        self, console: Console, begin: Callable[[], Any], open_live: Callable[[Console], Any]
    ) -> None:
        """Show what runs there from now on. open_live: makes what `rich.live.Live` is to a terminal."""
        self._console = console
        self.begin = begin
        self.open_live = open_live

    def show(self, report: ScanReport) -> None:
        """Show a request until it has ended. Raises what went wrong with it."""
        if not report.is_scan:
            self.show_move(report)
            return
        self.begin()
        LiveView(self._client, report, self.console, self).run()

    def show_move(self, report: ScanReport) -> None:
        """Show where the devices of a move are until all have arrived. Ctrl-C stops them."""
        self.begin()
        names = [a for a in report.request.args[::2] if isinstance(a, str)]
        if report._ticket.finished.wait(REFRESH_S):
            self._moved(report, names)
            return
        try:
            with self.open_live(self.console) as live:
                while not report._ticket.finished.wait(REFRESH_S):
                    held = self._held_by_others(names)
                    waits = "" if held else self._waits(report)
                    shown = self._positions(report, names, held)
                    live.update(Group(shown, Text(waits, style="yellow")) if waits else shown, refresh=True)
                    if live.console.is_terminal is False:
                        for name, holder in held.items():
                            self.console.print(Text(f"{name} is held by {holder}; the move waits for that"))
                        if waits:
                            self.console.print(Text(waits))
                        report.wait()
        except KeyboardInterrupt:
            report.cancel()
            report._ticket.finished.wait(STOP_S)
            self.console.print(Text("Stopped.", style="yellow"))
            self._say_where(names)
            raise
        self._moved(report, names)

    def _moved(self, report: ScanReport, names: list[str]) -> None:
        report.wait()
        self._say_where(names)

    def _say_where(self, names: list[str]) -> None:
        for row in self._client.session.positions(names):
            value = tables.number(row["readback"], row.get("precision"))
            self.console.print(Text.assemble((row["name"], "bold"), f" is at {value} {row['unit']}".rstrip()))

    def _held_by_others(self, names: list[str]) -> dict[str, str]:
        """Who has devices of a move that has not begun."""
        own = f"a move of {self._client.username}"
        holders = self._client.session.holders_lately()
        return {name: holders[name] for name in names if holders.get(name, own) != own}

    def _waits(self, report: ScanReport) -> str:
        """Why a move that has not begun has not."""
        snapshot = self._client.queue.status.get(report.request.queue)
        if snapshot is None:
            return ""
        states = [item.status for item in snapshot.items if item.request_id == report.request_id]
        hidden = snapshot.num_items > len(snapshot.items)
        if states != [ItemState.PENDING] and not (hidden and not states):
            return ""
        return f"the move waits{_why_waiting(self._client, report)}"

    def _positions(self, report: ScanReport, names: list[str], held: dict[str, str]) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        relative = bool(report.request.kwargs.get("relative"))
        for name, target in zip(names, report.request.args[1::2], strict=False):
            try:
                reading = self._client.devices[name].read(cached=True)
                value = next(iter(reading.values()))["value"]
            except (BECError, StopIteration):
                value = None
            goal = f"by {tables.number(target)}" if relative else f"→ {tables.number(target)}"
            holder = f"waits: held by {held[name]}" if name in held else ""
            unit = self._client.devices[name].unit
            grid.add_row(
                Text(name, style="bold"), tables.number(value), goal, unit, Text(holder, style="yellow")
            )
        return grid


def _points(count: int) -> str:
    return f"{count} point{'' if count == 1 else 's'}"


def _why_waiting(client: BECClient, report: ScanReport) -> str:
    """Why a request has not begun, to be put after what says that it waits; empty if nobody has told."""
    snapshot = client.queue.status.get(report.request.queue)
    if snapshot is None:
        return ""
    text = ""
    if snapshot.locks:
        text += "; the queue is locked by " + ", ".join(f"{k} ({v})" for k, v in snapshot.locks.items())
    elif snapshot.status == "PAUSED":
        text += "; the queue is paused, %resume or `bec queue resume` goes on"
    ids = [item.request_id for item in snapshot.items]
    if report.request_id in ids:
        place = ids.index(report.request_id)
        item = snapshot.items[place]
        if item.waiting_for and not snapshot.locks:
            is_held = item.waiting_for.startswith("held by")
            text += f", {item.waiting_for}" if is_held else f" for {item.waiting_for}"
        elif place:
            head = snapshot.items[0]
            number = f" (scan {head.scan_number})" if head.scan_number is not None else ""
            text += f", place {place + 1} in the queue, behind {head.scan_name} of {head.user}{number}"
    elif snapshot.num_items > len(ids):
        text += f", behind more than {len(ids)} others"
    return text


class LiveView:
    """One scan on one terminal, from the queue to its file."""

    def __init__(self, client: BECClient, report: ScanReport, console: Console, options: LiveUpdates):
        self._client = client
        self._report = report
        self._console = console
        self._options = options
        self._rate_from: tuple[float, int] | None = None
        self._presses = 0
        self._pause_asked = False
        self._was_paused = False
        self._was_held = False
        self._shown = report.rows_shown  # what was seen before a pause is not printed again
        self._fits_shown = 0
        self._fit_text = ""
        self._table: LiveTable | None = None
        self._announced = False
        self._note = ""
        self._lost_since: float | None = None
        self._began = time.monotonic()
        self._ended_at: float | None = None
        self._watch_due = time.monotonic() + 2.0

    @property
    def _scan(self) -> ScanItem:
        assert self._report.scan is not None
        return self._report.scan

    def run(self) -> None:
        """Until the scan has ended and its file is final, or until it is paused and the prompt is wanted."""
        with self._options.open_live(self._console) as live:
            self._options.live = live
            try:
                while not self._look(live):
                    pass
            finally:
                self._options.live = None
        self._finish()

    def _look(self, live: Live) -> bool:
        """A turn; Ctrl-C is a command, and a lost broker is waited for."""
        try:
            ended = self._turn(live)
            self._lost_since = None
            return ended
        except KeyboardInterrupt:
            self._pressed(live)
        except BrokerError as error:
            now = time.monotonic()
            self._lost_since = self._lost_since or now
            if now - self._lost_since > BROKER_S:
                raise
            self._note = "Redis is silent, waiting for it"
            self._show_progress(live)
            if not self._console.is_terminal and self._lost_since == now:
                self._say(live, error.message)
            self._report._ticket.finished.wait(1.0)
        return False

    def _turn(self, live: Live) -> bool:
        """One look; True when there is nothing more to show."""
        scan, report = self._scan, self._report
        began = time.monotonic()
        if not scan.opened.is_set() and not report.done:
            scan.opened.wait(REFRESH_S)
            if not scan.opened.is_set():
                self._show_waiting(live)
                return False
        if report.done and not scan.opened.wait(REFRESH_S if report.succeeded else 0.0):
            return True  # it never began: taken out of the queue, or refused at its start
        points = scan.points
        over = report.done and scan.ended.is_set()
        points.pull(block_s=None if over or points.seal is not None else 2 * REFRESH_S)
        self._print_new(live)
        if report.done or scan.ended.is_set():
            # The last points are on their way when the scan has ended.
            self._ended_at = self._ended_at or time.monotonic()
            expected = scan.num_readouts
            complete = points.seal is not None or (expected is not None and points.count >= expected)
            if report.done and (complete or time.monotonic() - self._ended_at > LAST_POINTS_S):
                return True
            if complete:
                report._ticket.finished.wait(REFRESH_S)
            else:
                points.pull(block_s=REFRESH_S)
            return False
        self._show_progress(live)
        self._client.callbacks.poll()
        self._watch(live)
        self._tell_if_held(live)
        if scan.status == "paused" and not (self._held_by() and not self._presses):
            self._was_paused = True
        elif self._was_paused:
            # It goes on: the next Ctrl-C is a first one again.
            self._was_paused = False
            self._presses = 0
        if scan.status == "paused" and self._pause_asked and self._options.return_when_paused:
            self._pause_asked = False
            done, total = points.count, scan.num_points
            raise ScanInterruption(
                f"Scan {scan.scan_number} is paused after point {done}{f' of {total}' if total else ''}. "
                "%resume goes on with it, %abort ends it (so does Ctrl-C on an empty line)."
            )
        left = REFRESH_S - (time.monotonic() - began)
        if left > 0:
            report._ticket.finished.wait(left)
        return False

    def _tell_if_held(self, live: Live) -> None:
        """Where there is no line that changes, say once that a scan is held, and once that it goes on."""
        held = self._held_by()
        if bool(held) is not self._was_held:
            self._was_held = bool(held)
            if not self._console.is_terminal:
                self._say(live, held[:1].upper() + held[1:] if held else "Going on.")

    # Printing

    def _print_new(self, live: Live) -> None:
        scan, points = self._scan, self._scan.points
        lines: list[Text] = []
        if not self._announced and scan.status_message is not None:
            self._announced = True
            lines.append(self._title())
        if points.schema is not None and self._table is None and self._options.print_live_table:
            width = self._console.width
            self._table = LiveTable(points.schema, width, scan.num_points)
            lines += [
                Text(line, style="bold cyan", no_wrap=True, overflow="crop") for line in self._table.header()
            ]
            if self._table.left_out:
                names = ", ".join(self._table.left_out)
                lines.append(Text(f"no room for: {names}", style="dim", overflow="ellipsis", no_wrap=True))
        if self._table is not None and points.count > self._shown:
            rows = self._table.rows(points, self._shown, points.count)
            lines.append(Text("\n".join(rows), no_wrap=True, overflow="crop"))
        self._shown = self._report.rows_shown = points.count
        if points.num_fits > self._fits_shown:
            self._fits_shown = points.num_fits
            self._fit_text = "   ".join(describe_live(m) for m in points.fits.values() if m.fit is not None)
        if lines:
            live.console.print(*lines, sep="\n")

    def _title(self) -> Text:
        m = self._scan.status_message
        assert m is not None
        motors = f" of {', '.join(m.motors)}" if m.motors else ""
        points = f", {_points(m.num_points)}" if m.num_points is not None else ""
        estimate = f", about {tables.duration(m.estimated_s)}" if m.estimated_s and m.estimated_s > 1 else ""
        return Text.assemble((f"Scan {m.scan_number}", "bold"), f": {m.scan_name}{motors}{points}{estimate}")

    def _show_progress(self, live: Live) -> None:
        if not self._console.is_terminal:
            return
        scan = self._scan
        total, done = scan.num_points, scan.points.count
        message = scan.status_message
        elapsed = time.time() - message.started if message and message.started else 0.0
        grid = Table.grid(padding=(0, 1))
        paused = scan.status == "paused"
        style = "yellow" if paused else "green"
        bar = ProgressBar(
            total=total or None, completed=done, width=32, pulse=total is None, complete_style=style
        )
        count = f"{done} / {total}" if total else _points(done)
        left = ""
        rate = self._rate(done)
        if total and rate and not paused:
            left = f"{tables.duration((total - done) / rate)} left"
        held = self._held_by()
        word = Text("held" if held else "paused" if paused else "", style="bold yellow")
        grid.add_row(
            bar, count, tables.duration(max(0.0, elapsed)), left, word, Text(self._note, style="yellow")
        )
        parts: list[RenderableType] = [grid]
        if held:
            parts.append(Text(held, style="yellow"))
        if self._fit_text:
            # Room is left at the end: a terminal echoes ^C there, and a line that wraps would not be erased.
            fit = Text(self._fit_text, style="magenta", no_wrap=True)
            fit.truncate(self._console.width - 4, overflow="ellipsis")
            parts.append(fit)
        live.update(Group(*parts), refresh=True)

    def _held_by(self) -> str:
        """Which interlock holds the scan, and why, or what a pause waits for; empty if it is nothing."""
        message = self._scan.status_message
        return message.message if message is not None and message.status == "paused" else ""

    def _rate(self, done: int) -> float | None:
        """Points per second since this view has seen the first; None before that can be told."""
        if not done:
            return None
        now = time.monotonic()
        if self._rate_from is None:
            self._rate_from = (now, done)
        since, count = self._rate_from
        return (done - count) / (now - since) if done > count and now - since > 0.5 else None

    def _show_waiting(self, live: Live) -> None:
        waited = time.monotonic() - self._began
        if waited < 0.3 or not self._console.is_terminal:
            self._watch(live)
            return
        text = f"{self._report.what}: waiting{_why_waiting(self._client, self._report)}"
        live.update(Text(f"{text}  {tables.duration(waited)}  {self._note}", style="yellow"), refresh=True)
        self._watch(live)

    def _watch(self, live: Live) -> None:
        """Say who is missing, and give up when somebody is missing for long."""
        if time.monotonic() < self._watch_due:
            return
        self._watch_due = time.monotonic() + 2.0
        try:
            missing = self._client.service_status.missing(
                ["scan_server", "scan_bundler", "file_writer", *self._client.session.server_roles()]
            )
        except BECError as error:
            self._note = error.message
            return
        was = self._note
        self._note = (
            f"the {' and '.join(missing).replace('_', ' ')} is silent, waiting for it" if missing else ""
        )
        if self._note and not was and not self._console.is_terminal:
            live.console.print(self._note)

    # Ctrl-C

    def _pressed(self, live: Live) -> None:
        self._presses += 1
        queue, scan_id = self._client.queue, self._scan.scan_id
        target = self._report.request.queue
        try:
            if not self._scan.opened.is_set():
                self._say(live, "Taken out of the queue.")
                queue.request_scan_abortion(scan_id, target)
            elif self._presses == 1 and (self._scan.status != "paused" or self._held_by()):
                self._pause_asked = True
                on = "" if self._options.return_when_paused else "; `bec queue resume` goes on then"
                self._say(live, f"Pausing after this point{on}. Ctrl-C again aborts the scan.")
                queue.request_scan_interruption(True, scan_id, target)
            elif self._presses <= 2:
                self._pause_asked = False
                self._presses = 2
                self._say(live, "Aborting the scan. Ctrl-C again halts it, without its clean-up moves.")
                queue.request_scan_abortion(scan_id, target)
            elif self._presses == 3:
                self._say(live, "Halting the scan.")
                queue.request_scan_halt(scan_id, target)
            else:
                raise KeyboardInterrupt
        except BECError as error:
            if self._report.done:
                return
            self._say(live, str(error))

    def _say(self, live: Live, text: str) -> None:
        live.console.print(Text(text, style="yellow"))

    # The end

    def _finish(self) -> None:
        scan, report = self._scan, self._report
        if self._fit_text:
            self._console.print(Text(self._fit_text, style="magenta"))
        if not report.succeeded:
            self._summary(scan, None)
            report.wait(timeout=LAST_POINTS_S, file_written=False)
            return
        report.wait(timeout=LAST_POINTS_S, file_written=False)
        problem: BECError | None = None
        try:
            report.wait_for_file(FILE_S)
        except BECError as error:
            problem = error
        self._summary(scan, problem)
        if problem is not None:
            raise problem

    def _summary(self, scan: ScanItem, problem: BECError | None) -> None:
        m = scan.status_message
        if m is None:
            return
        took = f" in {tables.duration(m.ended - m.started)}" if m.ended else ""
        count = m.num_readouts if m.num_readouts is not None else scan.points.count
        text = Text.assemble(
            (f"Scan {m.scan_number} ", "bold"),
            tables.state(m.status),
            f": {_points(count)}{took}.",
        )
        if problem is None and scan.file_path and scan.filed.is_set():
            text.append(f"\n{scan.file_path}", style="dim")
        self._console.print(text, soft_wrap=True)


def _live(console: Console) -> Live:
    return Live(
        Text(""),
        console=console,
        auto_refresh=False,
        transient=True,
        # What the user's callbacks print stands above the bar.
        redirect_stdout=True,
        redirect_stderr=False,
    )
