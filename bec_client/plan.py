"""What a scan would do, before it does it: `scans.line_scan.plan(dev.samx, -1, 1, steps=11)`.

The scan server works it out as if it were to run the scan, and touches nothing. Here it is shown: a panel with points,
time, storage, limits and devices, and a picture of the way.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bec_client import tables
from bec_client.chart import path_chart
from bec_lib.errors import ParameterError, StorageError
from bec_lib.messages import MotorPlan, ScanPlan

MANY_NAMES = 12
FEW_POINTS = 400  # of which each has a mark in a picture


class Plan:
    """The answer to a dry run. Printed, it is a panel with a picture. info: all that the scan server says."""

    def __init__(self, info: ScanPlan, call: str = ""):
        self.info = info
        self.call = call or info.scan_name

    @property
    def num_points(self) -> int | None:
        return self.info.num_points

    @property
    def estimated_s(self) -> float | None:
        """Seconds, from its begin to its end; None if it cannot be told."""
        return self.info.estimated_s

    @property
    def positions(self) -> dict[str, np.ndarray]:
        """Motor -> targets, absolute, device units; of a very long scan some thousands of them, evenly."""
        return {name: np.asarray(values) for name, values in self.info.positions.items()}

    def show(self, width: int | None = None) -> None:
        """Print it, with the picture."""
        tables.show(self.panel(width))

    def panel(self, width: int | None = None) -> RenderableType:
        """The facts, and below them the picture of the trajectory. width: of the picture, characters."""
        info = self.info
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="cyan", no_wrap=True)
        grid.add_column()
        for name, value in self._facts():
            grid.add_row(name, value)
        parts: list[RenderableType] = [grid]
        if info.motors:
            parts += [Text(), _motor_table(info.motors)]
        title = f"[bold]Plan: {self.call}[/bold]" if "[" not in self.call else f"Plan: {info.scan_name}"
        panel = Panel(
            Group(*parts), title=title, title_align="left", border_style="cyan", expand=False,
            subtitle="nothing was moved", subtitle_align="right",
        )  # fmt: skip
        picture = self.picture(width)
        return Group(panel, Text(picture)) if picture else panel

    def picture(self, width: int | None = None, height: int | None = None) -> str:
        """The trajectory in characters: with one motor its position over the points, with more the path of the first two
        that move (the second over the first). Empty if the positions are not known before.
        """
        x, y, x_label, y_label = self._curve()
        if not len(x):
            return ""
        columns, lines = shutil.get_terminal_size((100, 40))
        drawn = path_chart(
            x, y, width=width or min(columns - 1, 100), height=height or min(max(12, lines // 2), 20),
            x_label=x_label, y_label=y_label, marks=len(x) <= FEW_POINTS,
        )  # fmt: skip
        return "\n".join(drawn)

    def save_png(self, path: str | Path) -> Path:
        """Draw the trajectory as a PNG. Raises StorageError if it cannot be written, ParameterError if there is nothing to
        draw.
        """
        x, y, x_label, y_label = self._curve()
        if not len(x):
            raise ParameterError(
                f"{self.call} has no positions that are known before, so there is no picture of it"
            )
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib.figure import Figure

        canvas = Figure(figsize=(8, 5.5), dpi=160, layout="constrained")
        axes = canvas.add_subplot()
        axes.plot(x, y, "-", color="#9fb6cf", linewidth=1)
        if len(x) <= FEW_POINTS:
            axes.plot(x, y, "o", markersize=4, color="#1f5fa8")
        axes.plot(x[:1], y[:1], "o", markersize=8, color="#2e8b57", label="first point")
        axes.plot(x[-1:], y[-1:], "s", markersize=8, color="#d1495b", label="last point")
        axes.legend(frameon=False)
        axes.grid(alpha=0.25)
        axes.set_title(self.call)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        file = Path(path)
        try:
            canvas.savefig(file)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"the picture {file} cannot be written: {getattr(error, 'strerror', '') or error}"
            ) from error
        return file

    def __str__(self) -> str:
        return tables.as_text(self.panel())

    __repr__ = __str__

    def _curve(self) -> tuple[np.ndarray, np.ndarray, str, str]:
        info, positions = self.info, self.positions
        units = {motor.name: motor.unit for motor in info.motors}

        def label(name: str) -> str:
            return f"{name} [{units[name]}]" if units.get(name) else name

        moving = [name for name, values in positions.items() if len(values) and np.ptp(values) > 0]
        names = moving[:2] or list(positions)[:1]
        if not names or len(info.index) < 2:
            return np.empty(0), np.empty(0), "", ""
        if len(names) == 2:
            # The last motor of a grid is the fast one: it lies.
            first, second = reversed(names) if len(info.shape) == 2 else names
            return positions[first], positions[second], label(first), label(second)
        return np.asarray(info.index, dtype=float) + 1, positions[names[0]], "point", label(names[0])

    def _facts(self) -> list[tuple[str, Text]]:
        info = self.info
        shape = " x ".join(str(n) for n in info.shape) if len(info.shape) > 1 else ""
        points = "decided while it runs" if info.num_points is None else f"{info.num_points}"
        found = [("points", Text(f"{points}{f' ({shape})' if shape else ''}"))] if info.file else []
        found.append(("time", self._time()))
        if info.file_bytes is not None and info.data_bytes is not None:
            found.append(
                (
                    "storage",
                    Text(f"about {size(info.file_bytes)}, of which {size(info.data_bytes)} are points"),
                )
            )
        for name, devices in [
            ("read", info.monitored),
            ("triggered", info.triggered),
            ("async", info.async_),
            ("baseline", info.baseline),
        ]:
            if devices:
                found.append((name, Text(_names(devices))))
        ways = ["moves count from where the motors stand"] if info.relative else []
        ways += ["the motors go back at the end"] if info.returns_to_start else []
        for name, sentences in [
            ("does", info.steps),
            ("sets", info.settings),
            ("", ways),
            ("note", info.notes),
        ]:
            found += [(name if k == 0 else "", Text(text)) for k, text in enumerate(sentences)]
        if info.file:
            found.append(("file", Text(info.file, style="dim", overflow="fold")))
        if info.waiting:
            verb = "requests are" if info.waiting > 1 else "request is"
            found.append(("queue", Text(f"{info.waiting} {verb} before it in {info.queue}", style="yellow")))
        return found

    def _time(self) -> Text:
        info = self.info
        if info.estimated_s is None or info.estimated_low_s is None or info.estimated_high_s is None:
            return Text("cannot be told")
        duration = tables.duration
        text = Text(f"about {duration(info.estimated_s)}", style="bold")
        band = f" ({duration(info.estimated_low_s)} to {duration(info.estimated_high_s)})"
        text.append(band, style="not bold")
        parts = []
        if info.moves_s > 0:
            parts.append(f"moves {duration(info.moves_s)}")
        if info.points_s > 0:
            parts.append(f"points {duration(info.points_s)}")
        if len(parts) > 1:
            text.append(f": {', '.join(parts)}", style="not bold")
        if info.guessed:
            text.append(
                f"\na guess: nothing was learned yet of {_names(info.guessed)}", style="not bold yellow"
            )
        return text


def size(count: int) -> str:
    """Bytes for people, in powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _names(names: list[str]) -> str:
    if len(names) <= MANY_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:MANY_NAMES])} and {len(names) - MANY_NAMES} more"


def _motor_table(motors: list[MotorPlan]) -> RenderableType:
    made = tables.Rows(
        "",
        "motor",
        ("stands at", "right"),
        ("from", "right"),
        ("to", "right"),
        ("travels", "right"),
        "unit",
        ("its limits", "flexible"),
        ("speed", "flexible"),
    )
    number = tables.number
    for motor in motors:
        speed = f"{motor.velocity:g} per s configured" if motor.velocity is not None else "not known"
        made.add_row(
            Text(motor.name, style="bold"),
            "" if motor.start is None else number(motor.start),
            "" if motor.low is None else number(motor.low),
            "" if motor.high is None else number(motor.high),
            number(motor.travel) if motor.low is not None else "",
            motor.unit,
            "none" if motor.limits is None else f"{motor.limits[0]:g} to {motor.limits[1]:g}",
            "learned" if motor.learned else speed,
        )
    return made


def plan_from(answer: Any, call: str) -> Plan:
    """From the scan server's answer to a dry run."""
    return Plan(ScanPlan.model_validate(answer), call)
