"""Hyperparameter grid: every combination of learning rate, regularisation strength, hidden size, seed and others."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

OF_OPTIMIZER = ("weight_decay", "momentum", "b1", "b2")  # axes that are keyword arguments of an optimizer
# The axes, in the order of cells, and the type of their values.
AXES: dict[str, type] = {"lr": float, "reg": float, **dict.fromkeys((*OF_OPTIMIZER, "label_smoothing"), float)}
AXES |= {"hidden": int, "seed": int, "fold": int}
BELOW_1 = ("momentum", "b1", "b2", "label_smoothing")
REPLICATES = ("seed", "fold")  # axes that repeat a cell with other random numbers or data


@dataclass(frozen=True)
class Grid:
    """Every combination of its axes. Cells are ordered by lr, then reg, those of the optimizer, hidden, seed and fold.

    Attributes:
      lr: learning rates; empty for a solver.
      reg: regularisation values of the L2 penalty.
      seed: one replicate per seed, each with other initial weights and minibatches; empty for a solver.
      hidden: numbers of hidden units of a net; empty for the linear classifier.
      fold: one replicate per fold of `jaxcls.data.Folds`, held out in turn; empty for data that are split once.
      weight_decay, momentum, b1, b2: keyword arguments of the optimizer, as `optax.adamw` and `optax.sgd` have them;
        empty for its own.
      label_smoothing: the share of each label that is spread over all classes; empty for none.

    Raises:
      ValueError: reg is empty, an axis has a duplicate, negative, infinite or NaN value, or one of those that are
        shares a value that is not below 1.
      TypeError: a value is not a number, or a seed, hidden size or fold is not an integer.

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
    weight_decay: Sequence[float] = ()
    momentum: Sequence[float] = ()
    b1: Sequence[float] = ()
    b2: Sequence[float] = ()
    label_smoothing: Sequence[float] = ()

    def __post_init__(self) -> None:
        for axis, dtype in AXES.items():
            object.__setattr__(self, axis, _axis(axis, getattr(self, axis), dtype))
        if max(self.seed, default=0) >= 2**32:
            raise ValueError(f"seed must hold values below 2**32, got {max(self.seed)}")
        for axis in BELOW_1:
            if (largest := max(getattr(self, axis), default=0)) >= 1:
                raise ValueError(f"{axis} must hold values below 1, got {largest:g}")

    def __len__(self) -> int:
        return math.prod(map(len, self.axes.values()))

    @property
    def axes(self) -> dict[str, tuple[int | float, ...]]:
        """Values of each axis that has any, by name, in the order of cells.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0], hidden=[20]).axes
          {'lr': (0.1, 1.0), 'reg': (0.0,), 'hidden': (20,), 'seed': (0,)}
        """
        axes = {name: tuple(getattr(self, name)) for name in AXES}
        return {name: values for name, values in axes.items() if values}

    @property
    def varied(self) -> dict[str, tuple[int | float, ...]]:
        """Values of each axis that has several, by name.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0]).varied
          {'lr': (0.1, 1.0)}
        """
        return {name: values for name, values in self.axes.items() if len(values) > 1}

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
        """Axes on whose boundary the cell at ``row`` lies, each with values to try next.

        Axes with one value, seeds, folds and shares have no boundary, and nothing lies beyond a value of 0.

        Example:
          >>> grid = Grid(lr=[0.01, 0.1, 1.0], reg=[0.0, 1e-3, 1e-2])
          >>> grid.beyond(8)
          {'lr': (1.0, 10.0, 100.0), 'reg': (0.01, 0.1, 1.0)}
          >>> grid.beyond(3)
          {}
        """
        cell = self.cells()[row]
        bounded = {*REPLICATES, *BELOW_1}
        found = {axis: _beyond(cell[axis], sorted(self.axes[axis])) for axis in cell if axis not in bounded}
        return {axis: values for axis, values in found.items() if values}


def edge(axis: str, values: Sequence[int | float]) -> str:
    """Message for a best cell on the grid's boundary, to be followed by the values to try next.

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
    except (TypeError, ValueError):  # not a sequence, or rows of different lengths
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
    """``value`` and two steps beyond it, if it ends a sorted axis; by the axis's last ratio, limited to 2 to 10."""
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
