"""Cells around the best of a search, and both as one list."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from jaxcls.grid import AXES, REPLICATES, SHARES, Cells, Grid, Points, Range

FEW = 8  # values of an axis that are rather a list to choose from than a range
FEWEST = 8  # points around the best
NEAR = 0.02  # relative distance of values that are as good as one
NARROWER = 6  # the share of a range that lies on each side of the best


def around(cells: Cells, row: int) -> Cells:
    """Cells around the one at ``row``: of a grid, three values of each axis; of points, a third as many of a third.

    Values of a grid lie halfway to their neighbours, by their logarithms where they can, or beyond a boundary. Points
    are drawn from a third of each range.

    Example:
      >>> grid = Grid(lr=[0.01, 0.1, 1.0], reg=[0.0, 1e-3, 1e-2])
      >>> around(grid, 5).axes
      {'lr': (0.0316, 0.1, 0.316), 'reg': (0.01, 0.1, 1.0), 'seed': (0,)}
      >>> print(around(Points.random(64, lr=(1e-3, 1.0), reg=(1e-6, 1e-2)), 10))
      21 points of lr, reg x 1 seed
    """
    best, varied = cells.cells()[row], {axis for axis in cells.varied if axis not in REPLICATES}
    if isinstance(cells, Grid):
        beyond = cells.beyond(row)
        new: dict[str, Any] = {
            axis: beyond.get(axis) or _between(axis, best[axis], cells.axes[axis]) for axis in varied
        }
        return replace(cells, **new)
    ranges: dict[str, Any] = {axis: [best[axis]] for axis in cells.axes if axis not in REPLICATES}
    ranges |= {axis: _range(axis, best[axis], cells.axes[axis]) for axis in varied}
    number = max(cells.num_settings // 3, FEWEST)
    return replace(Points.random(number, seed=cells.num_settings, **ranges), seed=cells.seed, fold=cells.fold)


def joined(one: Cells, other: Cells) -> Points:
    """The points of both, without those of the other that are in the first.

    Raises:
      ValueError: they have other axes, seeds or folds; or the other has no point that is not in the first.

    Example:
      >>> joined(Grid(lr=[0.1, 1.0], reg=[0.0]), Grid(lr=[1.0, 10.0], reg=[0.0])).lr
      (0.1, 1.0, 10.0)
    """
    if list(one.axes) != list(other.axes) or any(getattr(one, axis) != getattr(other, axis) for axis in REPLICATES):
        raise ValueError(f"both must have the same axes, seeds and folds, got {one} and {other}")
    names = [axis for axis in one.axes if axis not in REPLICATES]
    first, second = (
        list(zip(*(cells.columns()[name][:: cells.num_replicates].tolist() for name in names), strict=True))
        for cells in (one, other)
    )
    both = first + [cell for cell in second if cell not in first]
    if len(both) == len(first):
        raise ValueError("a cell to add must be new, got only those of the first search")
    columns: dict[str, Any] = {"lr": ()} | dict(zip(names, zip(*both, strict=True), strict=True))
    return Points(**columns, seed=one.seed, fold=one.fold)


def _between(axis: str, value: int | float, values: tuple[int | float, ...]) -> tuple[int | float, ...]:
    """A value of a grid's axis, and those halfway to its neighbours."""
    ordered = sorted(values)
    place = ordered.index(value)
    found = [value]
    for neighbour in ordered[max(place - 1, 0) : place + 2]:
        geometric = axis not in SHARES and min(neighbour, value) > 0
        middle = math.sqrt(neighbour * value) if geometric else (neighbour + value) / 2
        middle = AXES[axis](round(middle) if AXES[axis] is int else float(f"{middle:.3g}"))
        if not any(math.isclose(middle, other, rel_tol=NEAR) for other in found):
            found.append(middle)
    return tuple(sorted(found))


def _range(axis: str, value: int | float, values: tuple[int | float, ...]) -> Range:
    """A third of the range of some values, around one of them; of few, the values next to it."""
    ordered = sorted(values)
    low, high, share = ordered[0], ordered[-1], axis in SHARES
    if len(ordered) <= FEW or (low <= 0 and not share):
        place = ordered.index(value)
        return ordered[max(place - 1, 0) : place + 2]
    if share:
        step = (high - low) / NARROWER
        return max(value - step, 0.0), min(value + step, float(np.nextafter(1, 0)))
    factor = (high / low) ** (1 / NARROWER)
    if AXES[axis] is int:
        return max(int(value / factor), 1), int(value * factor) + 1
    return value / factor, value * factor
