"""A diagram in characters: points as dots, a curve in Braille, a map in shades. Numbers in, lines of text out.

Written here because it is small: what a scan needs is one diagram with readable axes, and the libraries for it change
their interfaces more often than this is long.
"""

from __future__ import annotations

import math

import numpy as np

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a Braille cell, by row and column
_SHADES = " ░▒▓█"
POINT = "●"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within [low, high], some `about` of them: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    raw = span / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3g}"


def line_chart(
    x: np.ndarray,
    y: np.ndarray,
    *,
    curve: tuple[np.ndarray, np.ndarray] | None = None,
    width: int = 100,
    height: int = 24,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    legend: str = "",
) -> list[str]:
    """Points, and a curve through them. x, y: float arrays (n,); what is not finite is left out.

    width, height: of the whole, characters. Returns one line saying so if there is nothing to draw.
    """
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if not len(x):
        return [f"{title}: no points to draw"]
    xs, ys = [x], [y]
    if curve is not None:
        xs.append(curve[0])
        ys.append(curve[1])
    x_low, x_high = _range(np.concatenate(xs), 0.0)
    y_low, y_high = _range(np.concatenate(ys), 0.04)
    rows = max(4, height - 5)
    y_ticks = ticks(y_low, y_high, max(2, rows // 4))
    margin = max(len(tick_text(value)) for value in y_ticks) + 1
    columns = max(10, width - margin - 3)

    cells = [[" "] * columns for _ in range(rows)]
    if curve is not None:
        _draw_curve(cells, *curve, x_low, x_high, y_low, y_high)
    for px, py in zip(x, y, strict=True):
        column = round((px - x_low) / (x_high - x_low) * (columns - 1))
        row = rows - 1 - round((py - y_low) / (y_high - y_low) * (rows - 1))
        cells[row][column] = POINT

    at_row = {rows - 1 - round((value - y_low) / (y_high - y_low) * (rows - 1)): value for value in y_ticks}
    head = f"{title}   {legend}" if legend else title
    lines = [head, f"{' ' * margin}{y_label}"] if y_label else [head]
    for row in range(rows):
        text = tick_text(at_row[row]) if row in at_row else ""
        lines.append(f"{text:>{margin}} {'┤' if text else '│'}{''.join(cells[row])}")
    return [*lines, *_x_axis(x_low, x_high, columns, margin, x_label)]


def path_chart(
    x: np.ndarray,
    y: np.ndarray,
    *,
    width: int = 100,
    height: int = 20,
    x_label: str = "",
    y_label: str = "",
    marks: bool = True,
) -> list[str]:
    """The way from point to point, in Braille. x, y: finite, in order. marks: each point has a dot; the first is S, the last
    E in any case.
    """
    x_low, x_high = _range(x, 0.02)
    y_low, y_high = _range(y, 0.04)
    rows = max(4, height - 4)
    y_ticks = ticks(y_low, y_high, max(2, rows // 4))
    margin = max(len(tick_text(value)) for value in y_ticks) + 1
    columns = max(10, width - margin - 3)
    # In dots, counted from the upper left.
    across = (x - x_low) / (x_high - x_low) * (columns * 2 - 1)
    down = (y_high - y) / (y_high - y_low) * (rows * 4 - 1)
    cells = [[" "] * columns for _ in range(rows)]
    dots: dict[tuple[int, int], int] = {}
    for k in range(len(x) - 1):
        count = int(max(abs(across[k + 1] - across[k]), abs(down[k + 1] - down[k]))) + 2
        dx = np.rint(np.linspace(across[k], across[k + 1], count)).astype(int)
        dy = np.rint(np.linspace(down[k], down[k + 1], count)).astype(int)
        for column, row in zip(dx.tolist(), dy.tolist(), strict=True):
            place = (row // 4, column // 2)
            dots[place] = dots.get(place, 0) | _DOTS[row % 4][column % 2]
    for (row, column), bits in dots.items():
        cells[row][column] = chr(0x2800 + bits)

    def mark(k: int, character: str) -> None:
        cells[round(float(down[k])) // 4][round(float(across[k])) // 2] = character

    for k in range(len(x)) if marks else ():
        mark(k, POINT)
    mark(0, "S")
    mark(-1, "E")
    at_row = {round((y_high - value) / (y_high - y_low) * (rows * 4 - 1)) // 4: value for value in y_ticks}
    lines = [f"{' ' * margin} {y_label}   S first point, E last point"]
    for row in range(rows):
        text = tick_text(at_row[row]) if row in at_row else ""
        lines.append(f"{text:>{margin}} {'┤' if text else '│'}{''.join(cells[row])}")
    return [*lines, *_x_axis(x_low, x_high, columns, margin, x_label)]


def map_chart(
    x: np.ndarray,
    y: np.ndarray,
    grid: np.ndarray,
    *,
    width: int = 100,
    height: int = 30,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    z_label: str = "",
) -> list[str]:
    """A grid in shades, two characters a cell where there is room. grid: float array (len(y), len(x)); y grows upwards.
    What is not finite is shown as `··`.
    """
    step = max(1, -(-grid.shape[0] // max(1, height - 5)))
    grid, y = grid[::step], y[::step]
    spacing = abs(float(y[-1] - y[0])) / max(1, len(y) - 1)
    decimals = max(0, 1 - math.floor(math.log10(spacing))) if spacing > 0 else 6
    rows = [f"{float(value):.{min(decimals, 9)}f}" for value in y]
    margin = max(len(text) for text in rows) + 1
    room = max(2, width - margin - 3)
    step = max(1, -(-grid.shape[1] // room))
    grid, x = grid[:, ::step], x[::step]
    wide = min(6, max(1, room // grid.shape[1]))
    finite = grid[np.isfinite(grid)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    span = (high - low) or 1.0
    lines = [title, f"{' ' * margin}{y_label}"]
    for row in range(grid.shape[0] - 1, -1, -1):
        shades = [
            _SHADES[min(4, int((value - low) / span * 4.999))] if math.isfinite(value) else "·"
            for value in grid[row]
        ]
        lines.append(f"{rows[row]:>{margin}} ┤{''.join(s * wide for s in shades)}│")
    columns = grid.shape[1] * wide
    lines += _x_axis(float(x[0]), float(x[-1]), columns, margin, x_label)
    lines.append(f"{' ' * margin}  {z_label}: '{_SHADES[0]}' {low:.6g} to '{_SHADES[-1]}' {high:.6g}")
    return lines


def _draw_curve(
    cells: list[list[str]],
    x: np.ndarray,
    y: np.ndarray,
    x_low: float,
    x_high: float,
    y_low: float,
    y_high: float,
) -> None:
    rows, columns = len(cells), len(cells[0])
    order = np.argsort(x)
    fine = np.linspace(float(x.min()), float(x.max()), columns * 8)
    dots_x = (fine - x_low) / (x_high - x_low) * (columns * 2 - 1)
    dots_y = (np.interp(fine, x[order], y[order]) - y_low) / (y_high - y_low) * (rows * 4 - 1)
    marks: dict[tuple[int, int], int] = {}
    for dx, dy in zip(np.rint(dots_x).astype(int), np.rint(dots_y).astype(int), strict=True):
        down = rows * 4 - 1 - dy
        if 0 <= down < rows * 4 and 0 <= dx < columns * 2:
            place = (down // 4, dx // 2)
            marks[place] = marks.get(place, 0) | _DOTS[down % 4][dx % 2]
    for (row, column), bits in marks.items():
        cells[row][column] = chr(0x2800 + bits)


def _x_axis(low: float, high: float, columns: int, margin: int, label: str) -> list[str]:
    axis = ["─"] * columns
    texts = [" "] * (columns + 8)
    end = -1
    for value in ticks(min(low, high), max(low, high), max(3, columns // 12)):
        place = round((value - low) / ((high - low) or 1.0) * (columns - 1))
        axis[place] = "┬"
        text = tick_text(value)
        start = max(0, place - len(text) // 2)
        if start > end:
            texts[start : start + len(text)] = text
            end = start + len(text)
    space = " " * (margin + 2)
    lines = [f"{' ' * margin} └{''.join(axis)}", f"{space}{''.join(texts).rstrip()}"]
    return [*lines, f"{space}{label.center(columns).rstrip()}"] if label else lines


def _range(values: np.ndarray, pad: float) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    if low == high:
        half = abs(low) * 0.1 or 1.0
        return low - half, high + half
    return low - pad * (high - low), high + pad * (high - low)
