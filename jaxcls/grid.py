"""The grid: every combination of learning rate, regularisation strength, hidden size, seed and fold."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The axes, in the order of cells, and the type of their values.
AXES: dict[str, type] = {"lr": float, "reg": float, "hidden": int, "seed": int, "fold": int}
REPLICATES = ("seed", "fold")  # axes of the same model again


@dataclass(frozen=True)
class Grid:
    """Every combination of its axes. The order of cells is lr by lr, within it reg by reg, and so on.

    Attributes:
      lr: learning rates; none for a solver that has no such thing.
      reg: regularisation values, of the L2 penalty.
      seed: one replicate each, with its own initial weights and its own minibatches; none where nothing is drawn.
      hidden: numbers of hidden units, for a net; none for the linear classifier, whose grid lacks this axis.
      fold: which parts of `jaxcls.data.Folds` to hold out, one at a time; none for data that are split once.

    Raises:
      ValueError: there is no reg, or an axis holds a value twice, or one that is negative, infinite or NaN.
      TypeError: a value is no number, or a seed, a hidden size or a fold no integer.

    Example:
      >>> len(Grid(lr=[0.1, 1.0], reg=[0.0, 1e-3, 1e-2]))
      6
      >>> Grid(lr=[0.1, -1.0], reg=[0.0])
      Traceback (most recent call last):
      ...
      ValueError: lr must hold finite values not below 0, got -1.0
    """

    lr: Sequence[float]
    reg: Sequence[float]
    seed: Sequence[int] = (0,)
    hidden: Sequence[int] = ()
    fold: Sequence[int] = ()

    def __post_init__(self) -> None:
        for axis, dtype in AXES.items():
            object.__setattr__(self, axis, _axis(axis, getattr(self, axis), dtype))
        if max(self.seed, default=0) >= 2**32:
            raise ValueError(f"seed must hold values below 2**32, got {max(self.seed)}")

    def __len__(self) -> int:
        return math.prod(map(len, self.axes.values()))

    @property
    def axes(self) -> dict[str, tuple[int | float, ...]]:
        """The values on each axis, by its name, in the order of cells.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0], hidden=[20]).axes
          {'lr': (0.1, 1.0), 'reg': (0.0,), 'hidden': (20,), 'seed': (0,)}
        """
        axes = {name: tuple(getattr(self, name)) for name in AXES}
        return {name: values for name, values in axes.items() if values}

    def cells(self) -> list[dict[str, int | float]]:
        """Every cell's hyperparameters, in grid order.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0]).cells()
          [{'lr': 0.1, 'reg': 0.0, 'seed': 0}, {'lr': 1.0, 'reg': 0.0, 'seed': 0}]
        """
        axes = self.axes
        return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]

    def columns(self) -> dict[str, NDArray]:
        """Every cell's value on each axis, in grid order, by the axis' name.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0, 0.5]).columns()["reg"].tolist()
          [0.0, 0.5, 0.0, 0.5]
        """
        axes = self.axes
        mesh = np.meshgrid(*axes.values(), indexing="ij")
        return {axis: values.ravel().astype(AXES[axis]) for axis, values in zip(axes, mesh, strict=True)}

    def only(self, row: int) -> "Grid":
        """The grid of this one cell.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0, 0.5]).only(3).axes
          {'lr': (1.0,), 'reg': (0.5,), 'seed': (0,)}
        """
        cell: dict[str, Any] = {axis: (value,) for axis, value in self.cells()[row].items()}
        return replace(self, **cell)

    def beyond(self, row: int) -> dict[str, tuple[int | float, ...]]:
        """Where the cell at ``row`` lies on the grid's edge: the axis, and the values to try next on it.

        An axis of one value has no edge, seeds and folds have none, and nothing lies beyond a value of 0.

        Example:
          >>> grid = Grid(lr=[0.01, 0.1, 1.0], reg=[0.0, 1e-3, 1e-2])
          >>> grid.beyond(8)
          {'lr': (1.0, 10.0, 100.0), 'reg': (0.01, 0.1, 1.0)}
          >>> grid.beyond(3)
          {}
        """
        cell = self.cells()[row]
        found = {axis: _beyond(cell[axis], sorted(self.axes[axis])) for axis in cell if axis not in REPLICATES}
        return {axis: values for axis, values in found.items() if values}


def edge(axis: str, values: Sequence[int | float]) -> str:
    """What to say of an axis that has something beyond the best cell, up to the colon.

    Example:
      >>> edge("lr", (1.0, 10.0, 100.0))
      'the best lr is the largest on its axis; a grid to try next:'
    """
    end = "largest" if values[-1] > values[0] else "smallest"
    return f"the best {axis} is the {end} on its axis; a grid to try next:"


def _axis(name: str, values: Any, dtype: type) -> tuple[Any, ...]:
    kind = np.integer if dtype is int else np.number
    lowest = 1 if name == "hidden" else 0
    try:
        array = np.asarray(list(values))
    except (TypeError, ValueError):  # no sequence; rows of several lengths
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}") from None
    if name != "reg" and array.shape == (0,):
        return ()
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must hold at least one value, got {values!r}")
    if not np.issubdtype(array.dtype, kind) or np.issubdtype(array.dtype, np.complexfloating):
        raise TypeError(f"{name} must hold {'integers' if dtype is int else 'numbers'}, got {values!r}")
    axis = tuple(dtype(value) for value in array)
    for value in axis:
        if not lowest <= value < math.inf:
            raise ValueError(f"{name} must hold finite values not below {lowest}, got {value}")
        if axis.count(value) > 1:
            raise ValueError(f"{name} must hold each value once, got {value} {axis.count(value)} times")
    return axis


def _beyond(value: int | float, values: list[int | float]) -> tuple[int | float, ...]:
    """Two steps past the end of a sorted axis at which ``value`` stands: of the axis' own ratio, between 2 and 10."""
    if len(values) < 2 or value == 0 or value not in (values[0], values[-1]):
        return ()
    neighbour = values[1] if value == values[0] else values[-2]
    ratio = value / neighbour if neighbour else 10.0
    ratio = min(max(ratio, 2.0), 10.0) if ratio > 1 else max(min(ratio, 0.5), 0.1)
    beyond = [value * ratio**k for k in range(3)]
    if isinstance(value, float):
        return tuple(float(f"{x:.3g}") for x in beyond)
    whole = tuple(round(x) for x in beyond if x >= 1)
    return whole if len(whole) > 1 else ()
