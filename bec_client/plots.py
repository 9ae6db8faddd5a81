"""Pictures of a scan: in the terminal, and as PNG (matplotlib, without a display).

A `Figure` is what is drawn: a line with or without a fitted curve, a map of a grid, or coloured points in a plane. It can
be made from a scan that runs, from a file, or from arrays. matplotlib is imported only when a PNG is written.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bec_client.chart import POINT, line_chart, map_chart
from bec_lib.errors import ParameterError, StorageError
from bec_lib.messages import FitResult, SignalSchema


@dataclass(frozen=True, eq=False)
class Figure:
    """x, y: float arrays (n,). grid: float array (rows, columns) for a map, with x over columns and y over rows;
    then x and y are the axes, and `z_label` names the values. z: float array (n,) for points in a plane, their values.
    """

    title: str
    x: np.ndarray
    y: np.ndarray
    x_label: str
    y_label: str
    grid: np.ndarray | None = None
    z_label: str = ""
    fit: FitResult | None = None
    z: np.ndarray | None = None

    def with_fit(self, fit: FitResult | None) -> Figure:
        return replace(self, fit=fit)


def label(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def from_scan(scan: Any, x: str | None = None, y: str | None = None) -> Figure:
    """The figure of a scan that this client has followed, or of a scan of the history.

    x, y: "device.signal" or "device"; the first motor and the first detector by default.
    """
    points = getattr(scan, "points", None)
    if points is None:
        return from_file(scan.file_path, x=x, y=y)
    points.pull()
    if points.schema is None or not points.count:
        return from_file(scan.file_path, x=x, y=y)
    message = scan.status_message
    signals = points.schema.signals
    motors = list(message.motors if message else points.schema.motors)
    columns = {index: np.asarray(v) for index, v in enumerate(points.values) if not signals[index].shape}
    title = _title(message.scan_number, message.scan_name, motors) if message else "Scan"
    shape = list(message.shape) if message else []
    started = message.started if message else points.server_times[0]
    elapsed = np.asarray(points.server_times, dtype=float) - started
    return _figure(title, signals, columns, motors, shape, x, y, elapsed)


def from_file(path: str | Path, x: str | None = None, y: str | None = None) -> Figure:
    """The figure of a scan's file: a line over its first motor, a map of its grid, or the named columns."""
    from bec_client.history import COLLECTION, open_file

    with open_file(path) as file:
        facts = _facts(file.get(f"{COLLECTION}/metadata/bec"))
        title = (
            _title(facts["number"], facts["name"], facts["motors"]) if facts["number"] else Path(path).stem
        )
        root = next(
            (g for g in (f"{COLLECTION}/readout_groups/monitored", f"{COLLECTION}/devices") if g in file),
            None,
        )
        if root is None:
            made = _default_plot(file, title)
            if made is None:
                raise StorageError(
                    f"{path} has neither devices in {COLLECTION} nor a default plot; is it a scan's file?"
                )
            return made
        signals: list[SignalSchema] = []
        columns: dict[int, np.ndarray] = {}
        chosen = _hinted(file)
        for device in [*facts["motors"], *[name for name in file[root] if name not in facts["motors"]]]:
            group = file[root].get(device)
            for name in group if group is not None else []:
                data = group[name].get("value") if hasattr(group[name], "get") else None
                if data is None or data.ndim != 1 or data.dtype.kind not in "fiu":
                    continue
                unit = data.attrs.get("units", "")
                columns[len(signals)] = np.asarray(data[()])
                kind = "hinted" if not chosen or name in chosen else "normal"
                signals.append(SignalSchema(device=device, signal=name, unit=_text(unit), kind=kind))
        for name, labels in file.get(f"{COLLECTION}/labels", {}).items():
            if labels.ndim == 1 and labels.dtype.kind in "fiu":
                columns[len(signals)] = np.asarray(labels[()])
                signals.append(SignalSchema(device=name, signal=name, given="label"))
        elapsed = np.asarray(file["/entry/control/data"][()]) / 1e9 if "/entry/control/data" in file else None
        return _figure(title, signals, columns, facts["motors"], facts["shape"], x, y, elapsed)


def _title(number: int, name: str, motors: list[str]) -> str:
    return f"Scan {number}: {name}{' of ' if motors else ''}{', '.join(motors)}"


def _facts(group: Any) -> dict[str, Any]:
    """What the file says of its scan: number, name, motors, shape of the grid."""
    if group is None:
        return {"number": 0, "name": "", "motors": [], "shape": []}

    def read(name: str, default: Any) -> Any:
        return group[name][()] if name in group else default

    return {
        "number": int(read("scan_number", 0)),
        "name": _text(read("scan_name", b"")),
        "motors": [_text(name) for name in np.atleast_1d(read("scan_motors", []))],
        "shape": [int(n) for n in np.atleast_1d(read("shape", []))],
    }


def _hinted(file: Any) -> set[str]:
    """The names in the default plot: what the file's author thinks is worth drawing."""
    group = file.get("/entry/data")
    return set(group) if group is not None else set()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace").rstrip("\0") if isinstance(value, bytes) else str(value)


def from_fit(fit: Any) -> Figure:
    """The fitted curve alone."""
    x, y = fit.data
    return Figure("Fit", np.asarray(x), np.asarray(y), fit.x or "x", fit.y or "y")


def terminal(figure: Figure, width: int | None = None, height: int | None = None) -> str:
    """The figure as text. width, height: characters; what the terminal has by default."""
    columns, lines = shutil.get_terminal_size((100, 40))
    width = width or min(columns - 1, 120)
    height = height or min(max(15, lines - 6), 28)
    if figure.grid is not None:
        drawn = map_chart(
            figure.x, figure.y, figure.grid, width=width, height=height, title=figure.title,
            x_label=figure.x_label, y_label=figure.y_label, z_label=figure.z_label,
        )  # fmt: skip
        return "\n".join(drawn)
    if figure.z is not None:
        x, y, grid = _raster(figure.x, figure.y, figure.z, columns=min(width // 3, 36), rows=height - 6)
        drawn = map_chart(
            x, y, grid, width=width, height=height, title=figure.title,
            x_label=figure.x_label, y_label=figure.y_label, z_label=figure.z_label,
        )  # fmt: skip
        return "\n".join(drawn)
    curve = None
    legend = ""
    if figure.fit is not None and len(figure.fit.curve_x):
        curve = (np.asarray(figure.fit.curve_x), np.asarray(figure.fit.curve_y))
        legend = f"{POINT} data   ⠤ {_fit_label(figure)}"
    drawn = line_chart(
        figure.x, figure.y, curve=curve, width=width, height=height, title=figure.title,
        x_label=figure.x_label, y_label=figure.y_label, legend=legend,
    )  # fmt: skip
    return "\n".join(drawn)


def save_png(figure: Figure, path: str | Path) -> Path:
    """Write the figure as a PNG of about 1280 x 880 pixels. Raises StorageError if the file cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 5.5), dpi=160, layout="constrained")
    axes = canvas.add_subplot()
    if figure.grid is not None:
        mesh = axes.pcolormesh(figure.x, figure.y, figure.grid, shading="nearest", cmap="viridis")
        canvas.colorbar(mesh, label=figure.z_label)
    elif figure.z is not None:
        size = float(np.clip(12000 / max(1, len(figure.z)), 6, 120))
        dots = axes.scatter(figure.x, figure.y, c=figure.z, s=size, cmap="viridis")
        canvas.colorbar(dots, label=figure.z_label)
        axes.grid(alpha=0.25)
    else:
        if figure.fit is None:
            order = np.argsort(figure.x, kind="stable")
            axes.plot(figure.x[order], figure.y[order], "-", linewidth=0.8, alpha=0.4, color="#1f5fa8")
        axes.plot(figure.x, figure.y, "o", markersize=4.5, color="#1f5fa8", label="data")
        if figure.fit is not None and len(figure.fit.curve_x):
            axes.plot(figure.fit.curve_x, figure.fit.curve_y, "-", color="#d1495b", label=_fit_label(figure))
            axes.legend(frameon=False)
        axes.grid(alpha=0.25)
    axes.set_title(figure.title)
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    file = Path(path)
    try:
        canvas.savefig(file)
    except OSError as error:
        raise StorageError(f"the picture {file} cannot be written: {error.strerror or error}") from error
    return file


# Choosing what is drawn


def _figure(
    title: str,
    signals: list[SignalSchema],
    columns: dict[int, np.ndarray],
    motors: list[str],
    shape: list[int],
    x: str | None,
    y: str | None,
    elapsed: np.ndarray | None = None,
) -> Figure:
    """elapsed: of each point since the scan's start, s; used where nothing was moved."""
    signals, columns, elapsed = _projections(signals, columns, elapsed)
    hinted = [k for k in columns if signals[k].kind == "hinted" and not signals[k].given] or list(columns)
    of_motors = [next((k for k in hinted if signals[k].device == m), None) for m in motors]
    motor_columns = [k for k in of_motors if k is not None]
    others = [k for k in hinted if signals[k].device not in motors]
    x_column = _named(x, signals, columns) if x else (motor_columns[0] if motor_columns else None)
    y_column = _named(y, signals, columns) if y else next((k for k in others if k != x_column), None)
    if y_column is None:
        y_column = next((k for k in hinted if k != x_column), None)
    if y_column is None:
        raise ParameterError(f"{title} has no column of numbers to draw")
    y_values = columns[y_column].astype(float)
    y_label = label(signals[y_column].signal, signals[y_column].unit)
    is_whole = len(shape) == 2 and shape[0] * shape[1] == len(y_values)
    is_known = all(np.isfinite(columns[k].astype(float)).all() for k in motor_columns)
    if x is None and len(motor_columns) == 2 and is_whole and is_known:
        slow, fast = motor_columns
        return _map(
            title, columns[fast], columns[slow], y_values, shape, signals[fast], signals[slow], y_label
        )
    if x_column is None:
        if elapsed is not None and len(elapsed) == len(y_values):
            return Figure(title, elapsed, y_values, "time since the start [s]", y_label)
        return Figure(title, np.arange(1, len(y_values) + 1, dtype=float), y_values, "point", y_label)
    x_label = label(signals[x_column].signal, signals[x_column].unit)
    if x is None and len(shape) != 1 and len(motor_columns) == 2:
        across, up = motor_columns
        return Figure(
            title,
            columns[across].astype(float),
            columns[up].astype(float),
            x_label,
            label(signals[up].signal, signals[up].unit),
            z=y_values,
            z_label=y_label,
        )
    return Figure(title, columns[x_column].astype(float), y_values, x_label, y_label)


def _projections(
    signals: list[SignalSchema], columns: dict[int, np.ndarray], elapsed: np.ndarray | None
) -> tuple[list[SignalSchema], dict[int, np.ndarray], np.ndarray | None]:
    """Of a tomogram only the projections, if it has any: flat and dark fields are no part of the curve."""
    keys = [k for k in columns if signals[k].given and signals[k].device == "image_key"]
    if not keys:
        return signals, columns, elapsed
    wanted = columns[keys[0]] == 0
    if not wanted.any():
        return signals, columns, elapsed
    kept = {k: values[wanted] for k, values in columns.items()}
    return signals, kept, None if elapsed is None else elapsed[wanted]


def _raster(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, *, columns: int, rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in a plane as a grid of means, NaN where there is none: (columns,), (rows,), (rows, columns). There are no
    more cells than some for each point.
    """
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    x, y, z = x[good], y[good], z[good]
    if not len(z):
        return np.zeros(1), np.zeros(1), np.full((1, 1), np.nan)
    fine = max(2, round(len(z) ** 0.5))
    columns, rows = max(2, min(columns, fine)), max(2, min(rows, fine))
    edges = [np.histogram_bin_edges(values, bins) for values, bins in ((y, rows), (x, columns))]
    total = np.histogram2d(y, x, edges, weights=z)[0]
    count = np.histogram2d(y, x, edges)[0]
    grid = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    return middles[1], middles[0], grid


def _map(
    title: str,
    fast: np.ndarray,
    slow: np.ndarray,
    values: np.ndarray,
    shape: list[int],
    fast_signal: SignalSchema,
    slow_signal: SignalSchema,
    z_label: str,
) -> Figure:
    grid = values.reshape(shape)
    fast_grid = fast.astype(float).reshape(shape)
    # A snaked scan runs every other line backwards.
    order = np.argsort(fast_grid, axis=1)
    grid = np.take_along_axis(grid, order, axis=1)
    x_axis = np.take_along_axis(fast_grid, order, axis=1).mean(axis=0)
    y_axis = slow.astype(float).reshape(shape).mean(axis=1)
    rows = np.argsort(y_axis)
    # The first motor goes across, as in viewers of NeXus files, and as in the plane of a scan without a grid.
    return Figure(
        title,
        y_axis[rows],
        x_axis,
        label(slow_signal.signal, slow_signal.unit),
        label(fast_signal.signal, fast_signal.unit),
        grid=grid[rows].T,
        z_label=z_label,
    )


def _named(name: str, signals: list[SignalSchema], columns: dict[int, np.ndarray]) -> int:
    for index in columns:
        signal = signals[index]
        if name in (f"{signal.device}.{signal.signal}", signal.signal) or name == signal.device:
            return index
    known = ", ".join(f"{signals[k].device}.{signals[k].signal}" for k in columns)
    raise ParameterError(f"there is no column {name!r} to draw; there are {known}")


def _default_plot(file: Any, title: str) -> Figure | None:
    """What the file says is its plot: @default, @signal, @axes."""
    group = file
    for _ in range(3):
        default = group.attrs.get("default")
        if default is None:
            break
        name = default.decode() if isinstance(default, bytes) else str(default)
        if name not in group:
            break
        group = group[name]
    signal = group.attrs.get("signal")
    if signal is None:
        return None
    signal = signal.decode() if isinstance(signal, bytes) else str(signal)
    axes = group.attrs.get("axes", [])
    axes = [axes] if isinstance(axes, (str, bytes)) else list(axes)
    names = [a.decode() if isinstance(a, bytes) else str(a) for a in axes]

    def column(name: str) -> tuple[np.ndarray, str]:
        data = group[name]
        unit = data.attrs.get("units", "")
        return np.asarray(data[()]), label(name, _text(unit))

    values, values_label = column(signal)
    names = [name for name in names if name in group]
    if values.ndim == 2 and len(names) == 2:
        (slow, slow_label), (fast, fast_label) = column(names[0]), column(names[1])
        slow = slow.mean(axis=1) if slow.ndim == 2 else slow
        fast = fast.mean(axis=0) if fast.ndim == 2 else fast
        return Figure(
            title, fast, slow, fast_label, slow_label, grid=values.astype(float), z_label=values_label
        )
    if values.ndim != 1:
        return None
    if names:
        x, x_label = column(names[0])
        if x.shape == values.shape:
            return Figure(title, x.astype(float), values.astype(float), x_label, values_label)
    return Figure(
        title, np.arange(1, len(values) + 1, dtype=float), values.astype(float), "point", values_label
    )


# Drawing


def _fit_label(figure: Figure) -> str:
    assert figure.fit is not None
    text = " + ".join(figure.fit.models)
    center = figure.fit.params.get("center")
    if center is None:
        return text
    unit = figure.x_label.partition("[")[2].rstrip("]")
    return f"{text}, center {center:.4g} {unit}".rstrip()
