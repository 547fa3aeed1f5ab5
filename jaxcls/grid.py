"""The grid of hyperparameters: every combination of learning rate, regularisation strength and seed."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Every combination of three axes. The order of cells is lr by lr, within it reg by reg, within it seed by seed.

    Attributes:
      lr: learning rates.
      reg: strengths of the L2 penalty.
      seed: one replicate each, with its own initial weights and its own minibatches.

    Raises:
      ValueError: an axis is empty, or holds a value twice, or one that is negative, infinite or NaN.
      TypeError: a value is no number, or a seed no integer.

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

    def __post_init__(self) -> None:
        for axis, dtype in (("lr", float), ("reg", float), ("seed", int)):
            object.__setattr__(self, axis, _axis(axis, getattr(self, axis), dtype))
        if max(self.seed) >= 2**32:
            raise ValueError(f"seed must hold values below 2**32, got {max(self.seed)}")

    def __len__(self) -> int:
        return len(self.lr) * len(self.reg) * len(self.seed)

    def cells(self) -> list[tuple[float, float, int]]:
        """``(lr, reg, seed)`` of every cell, in grid order.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0], seed=[0, 1]).cells()
          [(0.1, 0.0, 0), (0.1, 0.0, 1), (1.0, 0.0, 0), (1.0, 0.0, 1)]
        """
        return list(itertools.product(self.lr, self.reg, self.seed))

    def beyond(self, row: int) -> dict[str, tuple[float, ...]]:
        """Where the cell at ``row`` lies on the grid's edge: the axis, and the values to try next on it.

        An axis of one value has no edge, and nothing lies beyond a value of 0.

        Example:
          >>> grid = Grid(lr=[0.01, 0.1, 1.0], reg=[0.0, 1e-3, 1e-2])
          >>> grid.beyond(8)
          {'lr': (1.0, 10.0, 100.0), 'reg': (0.01, 0.1, 1.0)}
          >>> grid.beyond(3)
          {}
        """
        lr, reg, _ = self.cells()[row]
        found = {"lr": _beyond(lr, sorted(self.lr)), "reg": _beyond(reg, sorted(self.reg))}
        return {axis: values for axis, values in found.items() if values}


def _axis(name: str, values: Any, dtype: type) -> tuple[Any, ...]:
    kind = np.integer if dtype is int else np.number
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must hold at least one value, got {values!r}")
    if not np.issubdtype(array.dtype, kind) or np.issubdtype(array.dtype, np.complexfloating):
        raise TypeError(f"{name} must hold {'integers' if dtype is int else 'numbers'}, got {values!r}")
    axis = tuple(dtype(value) for value in array)
    for value in axis:
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must hold finite values not below 0, got {value}")
        if axis.count(value) > 1:
            raise ValueError(f"{name} must hold each value once, got {value} {axis.count(value)} times")
    return axis


def _beyond(value: float, values: list[float]) -> tuple[float, ...]:
    """Two steps past the end of a sorted axis at which ``value`` stands: of the axis' own ratio, at least doubling."""
    if len(values) < 2 or value == 0 or value not in (values[0], values[-1]):
        return ()
    neighbour = values[1] if value == values[0] else values[-2]
    ratio = value / neighbour if neighbour else 10.0
    ratio = max(ratio, 2.0) if ratio > 1 else min(ratio, 0.5)
    return tuple(float(f"{value * ratio**k:.3g}") for k in range(3))
