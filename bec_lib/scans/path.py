"""In which order are points visited, so that the motors travel little? Points in, a permutation of their indices out.

Distances are Euclidean in the axes' own units; scale axes that differ in unit or speed beforehand. All methods work
in any number of dimensions, and none makes a path longer than it was: if its order is longer, the old one is kept.
Their cost grows as n log n for `corridor` and `shell`, and about as n for `nearest` (a grid of cells that is made
coarser as the points run out); 100 000 points take some 50 ms and some 2 s.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

METHODS = ("corridor", "shell", "nearest")
# Of the width that is best for evenly spread points, these are tried.
_WIDTHS = (0.5, 0.75, 1.0, 1.4, 2.0)


def path_length(points: np.ndarray) -> float:
    """Sum of the distances between successive points."""
    return float(np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=1)).sum())


def optimised_order(points: np.ndarray, method: str | None) -> np.ndarray:
    """The order in which to visit the points, indices (n,). points: (n, dimensions), finite. method: of METHODS; None:
    as they are.
    """
    before = np.arange(len(points))
    if method is None or len(points) < 3:
        return before
    candidates = {"corridor": _corridors, "shell": _shells, "nearest": _nearest}[method](points)
    best = min((*candidates, before), key=lambda order: path_length(points[order]))
    return best


def _spacing(points: np.ndarray) -> float:
    """The mean distance of neighbours, if the points fill their box evenly."""
    extent = np.ptp(points, axis=0)
    extent = extent[extent > 0]
    return (
        float(np.prod(extent / len(points) ** (1 / len(extent))) ** (1 / len(extent))) if len(extent) else 0.0
    )


def _corridors(points: np.ndarray) -> list[np.ndarray]:
    """Cut space into corridors along the longest axis, and walk them up and down."""
    axes = np.argsort(np.ptp(points, axis=0))
    spacing = _spacing(points)
    if spacing == 0:
        return []
    orders = []
    for factor in _WIDTHS:
        # In the plane a corridor of sqrt(3) spacings makes the shortest strip tour of random points.
        width = math.sqrt(3) * spacing * factor
        cells = np.floor((points - points.min(axis=0)) / width).astype(np.int64)
        turned = np.zeros(len(points), dtype=np.int64)
        keys = []
        for axis in axes[:-1]:
            size = int(cells[:, axis].max())
            # Where the pass before has an odd number, this axis is walked backwards.
            column = np.where(turned % 2, size - cells[:, axis], cells[:, axis])
            keys.append(column)
            turned = turned * (size + 1) + column
        along = points[:, axes[-1]]
        keys.append(np.where(turned % 2, -along, along))
        orders.append(np.lexsort(keys[::-1]))
    return orders


def _shells(points: np.ndarray) -> list[np.ndarray]:
    """From the middle outwards in shells, each walked round; in more than two dimensions, round and layer by layer."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    away = points - middle
    spacing = _spacing(points)
    if spacing == 0 or points.shape[1] < 2:
        return []
    radius = np.sqrt((away**2).sum(axis=1))
    angle = np.arctan2(away[:, 1], away[:, 0])
    orders = []
    for factor in _WIDTHS:
        width = math.sqrt(3) * spacing * factor
        shell = np.floor(radius / width).astype(np.int64)
        turned = shell
        keys = [shell]
        for axis in range(points.shape[1] - 1, 1, -1):
            layer = np.floor(away[:, axis] / width).astype(np.int64)
            layer = np.where(turned % 2, -layer, layer)
            keys.append(layer)
            turned = turned + layer
        # Every other shell the other way round: the next begins where the last has ended.
        keys.append(np.where(turned % 2, -angle, angle))
        orders.append(np.lexsort(keys[::-1]))
    return orders


def _nearest(points: np.ndarray) -> list[np.ndarray]:
    """From the first point always to the nearest that is left."""
    count, dimensions = points.shape
    left = np.ones(count, dtype=bool)
    rows = points.tolist()
    here = 0
    left[0] = False
    order = [0]
    # Cells are made anew whenever three quarters of the points in them have been visited.
    while len(order) < count:
        indices = np.flatnonzero(left)
        size = _spacing(points[indices]) * 1.5 or 1.0
        low = points[indices].min(axis=0)
        cells: dict[tuple[int, ...], list[int]] = {}
        keys = np.floor((points[indices] - low) / size).astype(np.int64)
        highest = keys.max(axis=0).tolist()
        for index, key in zip(indices.tolist(), map(tuple, keys.tolist()), strict=True):
            cells.setdefault(key, []).append(index)
        rebuild = len(indices) // 4
        remaining = len(indices)
        origin = low.tolist()
        while remaining > rebuild:
            at = rows[here]
            cell = tuple(
                min(max(math.floor((x - o) / size), 0), top)
                for x, o, top in zip(at, origin, highest, strict=True)
            )
            here, home = _closest(rows, cells, at, cell, size, origin, dimensions)
            cells[home].remove(here)
            if not cells[home]:
                del cells[home]
            order.append(here)
            left[here] = False
            remaining -= 1
    return [np.array(order)]


def _closest(
    rows: list[list[float]],
    cells: dict[tuple[int, ...], list[int]],
    at: list[float],
    cell: tuple[int, ...],
    size: float,
    origin: list[float],
    dimensions: int,
) -> tuple[int, tuple[int, ...]]:
    """The nearest point and its cell. Looks at rings of cells about `cell` until no further one can hold a nearer."""
    best, found, home = math.inf, -1, cell
    ring = 0
    while True:
        keys = _ring(cell, ring, dimensions)
        if len(keys) > len(cells):
            # So few are left that looking at all of them is quicker.
            keys = list(cells)
            ring = -1
        for key in keys:
            for index in cells.get(key, ()):
                distance = math.dist(rows[index], at)
                if distance < best:
                    best, found, home = distance, index, key
        if ring < 0:
            return found, home
        # From `at` to the border of what has been looked at.
        margin = min(
            min(x - (o + (c - ring) * size), o + (c + ring + 1) * size - x)
            for x, o, c in zip(at, origin, cell, strict=True)
        )
        if found >= 0 and best <= max(margin, 0.0):
            return found, home
        ring += 1


def _ring(cell: tuple[int, ...], ring: int, dimensions: int) -> list[tuple[int, ...]]:
    """Cells whose largest distance from `cell` along any axis is `ring`."""
    return [
        tuple(c + step for c, step in zip(cell, steps, strict=True))
        for steps in _ring_steps(ring, dimensions)
    ]


_RINGS: dict[tuple[int, int], list[tuple[int, ...]]] = {}


def _ring_steps(ring: int, dimensions: int) -> list[tuple[int, ...]]:
    known = _RINGS.get((ring, dimensions))
    if known is None:
        known = [
            steps
            for steps in itertools.product(range(-ring, ring + 1), repeat=dimensions)
            if max(map(abs, steps)) == ring
        ]
        if len(known) < 2000:
            _RINGS[ring, dimensions] = known
    return known
