"""The cells of a search: every combination of learning rate, regularisation and others, or a list of points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

OF_OPTIMIZER = ("weight_decay", "momentum", "b1", "b2", "decay")  # axes that are keyword arguments of an optimizer
# The axes, in the order of cells, and the type of their values.
AXES: dict[str, type] = {"lr": float, "reg": float, **dict.fromkeys((*OF_OPTIMIZER, "label_smoothing"), float)}
AXES |= {"hidden": int, "seed": int, "fold": int}
BELOW_1 = ("momentum", "b1", "b2", "label_smoothing")
SHARES = (*BELOW_1, "decay")  # axes whose values are not compared by their logarithms
REPLICATES = ("seed", "fold")  # axes that repeat a cell with other random numbers or data

Range = tuple[int | float, ...] | list[int | float] | list[int] | list[float]  # from the lower to the higher; a choice
C = TypeVar("C", bound="Cells")


@dataclass(frozen=True)
class Cells:
    """The cells of a search: settings, each with every seed and on every fold. It is a `Grid`, or `Points`.

    Attributes:
      lr: learning rates; empty for a solver.
      reg: regularisation values of the L2 penalty.
      seed: one replicate per seed, each with other initial weights and minibatches; empty for a solver.
      hidden: numbers of hidden units of a net; empty for the linear classifier.
      fold: one replicate per fold of `jaxcls.data.Folds`, held out in turn; empty for data that are split once.
      weight_decay, momentum, b1, b2: keyword arguments of the optimizer, as `optax.adamw` and `optax.sgd` have them;
        empty for its own.
      label_smoothing: the share of each label that is spread over all classes; empty for none.
      decay: what the learning rate is multiplied by after each epoch, with `jaxcls.optimizers.decayed`; empty for 1.

    Raises:
      ValueError: reg is empty, an axis has a negative, infinite or NaN value, one of those that are shares a value that
        is not below 1, or decay one above it, or seed or fold a duplicate.
      TypeError: a value is not a number, or a seed, hidden size or fold is not an integer.
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
    decay: Sequence[float] = ()

    def __post_init__(self) -> None:
        for axis, dtype in AXES.items():
            object.__setattr__(self, axis, _axis(axis, getattr(self, axis), dtype))
        if max(self.seed, default=0) >= 2**32:
            raise ValueError(f"seed must hold values below 2**32, got {max(self.seed)}")
        for axis in BELOW_1:
            if (largest := max(getattr(self, axis), default=0)) >= 1:
                raise ValueError(f"{axis} must hold values below 1, got {largest:g}")
        if (largest := max(self.decay, default=1)) > 1:
            raise ValueError(f"decay must hold values of at most 1, got {largest:g}")
        for axis in REPLICATES:
            self._check_distinct(axis)

    def _check_distinct(self, axis: str) -> None:
        values = getattr(self, axis)
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{axis} must hold each value once, got {value} {values.count(value)} times")

    def __len__(self) -> int:
        return self.num_settings * self.num_replicates

    @property
    def num_replicates(self) -> int:
        """The cells of each setting, one per seed and fold, which follow each other in the order of cells."""
        return max(len(self.seed), 1) * max(len(self.fold), 1)

    @property
    def num_settings(self) -> int:
        """The number of cells, replicates not counted."""
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """The kind of cells in a word, for the record."""
        return type(self).__name__.lower()

    @property
    def axes(self) -> dict[str, tuple[int | float, ...]]:
        """The different values of each axis that has any, by name, in the order of cells.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0], hidden=[20]).axes
          {'lr': (0.1, 1.0), 'reg': (0.0,), 'hidden': (20,), 'seed': (0,)}
        """
        axes = {name: tuple(dict.fromkeys(getattr(self, name))) for name in AXES}
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
        """Every cell's hyperparameters, in their order.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0]).cells()
          [{'lr': 0.1, 'reg': 0.0, 'seed': 0}, {'lr': 1.0, 'reg': 0.0, 'seed': 0}]
        """
        columns = {axis: values.tolist() for axis, values in self.columns().items()}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def columns(self) -> dict[str, NDArray]:
        """Every cell's value on each axis, in their order, by the axis' name.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0, 0.5]).columns()["reg"].tolist()
          [0.0, 0.5, 0.0, 0.5]
        """
        raise NotImplementedError

    def only(self: C, row: int) -> C:
        """This one cell of them.

        Example:
          >>> Grid(lr=[0.1, 1.0], reg=[0.0, 0.5]).only(3).axes
          {'lr': (1.0,), 'reg': (0.5,), 'seed': (0,)}
        """
        cell: dict[str, Any] = {axis: (value,) for axis, value in self.cells()[row].items()}
        return replace(self, **cell)

    def beyond(self, row: int) -> dict[str, tuple[int | float, ...]]:
        """Axes on whose boundary the cell at ``row`` lies, each with values to try next; points have no boundary."""
        return {}


@dataclass(frozen=True)
class Grid(Cells):
    """Every combination of its axes. Cells are ordered by lr, then reg, those of the optimizer, hidden, seed and fold.

    The axes are the attributes of `Cells`.

    Raises:
      ValueError, TypeError: what `Cells` raises, or an axis has a duplicate.

    Example:
      >>> len(Grid(lr=[0.1, 1.0], reg=[0.0, 1e-3, 1e-2]))
      6
      >>> Grid(lr=[0.1, -1.0], reg=[0.0])
      Traceback (most recent call last):
      ...
      ValueError: lr must hold finite values not below 0, got -1.0
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis in AXES:
            self._check_distinct(axis)

    def __str__(self) -> str:
        return " x ".join(f"{len(values)} {axis}" for axis, values in self.axes.items())

    @property
    def num_settings(self) -> int:
        """The number of cells, replicates not counted."""
        return math.prod(len(values) for axis, values in self.axes.items() if axis not in REPLICATES)

    def columns(self) -> dict[str, NDArray]:
        """Every cell's value on each axis, in grid order, by the axis' name."""
        axes = self.axes
        mesh = np.meshgrid(*axes.values(), indexing="ij")
        return {axis: values.ravel().astype(AXES[axis]) for axis, values in zip(axes, mesh, strict=True)}

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
        bounded = {*REPLICATES, *SHARES}
        found = {axis: _beyond(cell[axis], sorted(self.axes[axis])) for axis in cell if axis not in bounded}
        return {axis: values for axis, values in found.items() if values}


@dataclass(frozen=True)
class Points(Cells):
    """A list of settings: columns of equal length, and every seed and fold for each of them.

    The columns are the attributes of `Cells`.

    Raises:
      ValueError, TypeError: what `Cells` raises, or the columns differ in length.

    Example:
      >>> points = Points(lr=[0.1, 1.0], reg=[0.0, 1e-3], seed=[0, 1])
      >>> points.cells()[2]
      {'lr': 1.0, 'reg': 0.001, 'seed': 0}
      >>> print(points)
      2 points of lr, reg x 2 seed
      >>> Points(lr=[0.1, 1.0], reg=[0.0])
      Traceback (most recent call last):
      ...
      ValueError: the columns of points must be equally long, got lr 2, reg 1
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = {axis: len(getattr(self, axis)) for axis in AXES if axis not in REPLICATES and getattr(self, axis)}
        if len(set(lengths.values())) > 1:
            got = ", ".join(f"{axis} {length}" for axis, length in lengths.items())
            raise ValueError(f"the columns of points must be equally long, got {got}")

    @classmethod
    def random(cls, number: int, *, seed: int = 0, **axes: Range) -> "Points":
        """Points that fill a space evenly, by a scrambled Sobol sequence.

        Args:
          number: of points; the sequence is most even for powers of 2.
          seed: of the scrambling. The points' own seed is 0; ``replace(points, seed=[0, 1])`` gives them others.
          axes: for each, a tuple of two numbers, the lowest and the highest, or a list of numbers to choose from. A
            range with a ratio of ten or more is drawn log-uniformly, but for axes of shares, such as momentum.

        Raises:
          ValueError: the number is below 1, there is no such axis, or a range does not ascend, or begins at 0 or below
            where logarithms are to be taken.

        Reference:
          A. B. Owen, *Scrambling Sobol' and Niederreiter-Xing Points*, Journal of Complexity 14, 1998.

        Example:
          >>> points = Points.random(4, lr=(1e-3, 1.0), reg=(1e-6, 1e-2), hidden=[64, 256])
          >>> [f"{lr:.3f}" for lr in points.lr], points.hidden
          (['0.017', '0.224', '0.137', '0.002'], (256, 64, 256, 64))
        """
        from scipy.stats.qmc import Sobol  # as slow to import as all of jaxcls

        if number < 1:
            raise ValueError(f"number must be at least 1, got {number}")
        for axis, values in axes.items():
            _check_range(axis, values)
        # To a power of 2, short of which scipy warns that the sequence is not balanced.
        sequence = Sobol(len(axes), rng=np.random.default_rng(seed)).random_base2(math.ceil(math.log2(number)))
        columns: dict[str, Any] = {
            axis: _scaled(axis, values, sequence[:number, k]) for k, (axis, values) in enumerate(axes.items())
        }
        return cls(**{"lr": (), "reg": ()} | columns)

    def __str__(self) -> str:
        names = ", ".join(axis for axis in self.axes if axis not in REPLICATES)
        replicates = "".join(f" x {len(values)} {axis}" for axis, values in self.axes.items() if axis in REPLICATES)
        return f"{self.num_settings} points of {names}{replicates}"

    @property
    def num_settings(self) -> int:
        """The number of points."""
        return len(self.reg)

    def columns(self) -> dict[str, NDArray]:
        """Every cell's value on each axis, by the axis' name; all replicates of a point before the next."""
        seed, fold = np.meshgrid(self.seed or (0,), self.fold or (0,), indexing="ij")
        replicates = {"seed": np.tile(seed.ravel(), len(self.reg)), "fold": np.tile(fold.ravel(), len(self.reg))}
        return {
            axis: replicates[axis] if axis in REPLICATES else np.repeat(np.asarray(getattr(self, axis)), seed.size)
            for axis in self.axes
        }


def of_table(table: NDArray, *, points: bool) -> Cells:
    """The grid, or the points, whose cells are the rows of a table, in its order.

    Example:
      >>> grid = Grid(lr=[0.1, 1.0], reg=[0.0], seed=[0, 1])
      >>> columns = [("lr", "f8"), ("reg", "f8"), ("seed", "i8")]
      >>> table = np.array([tuple(cell.values()) for cell in grid.cells()], columns)
      >>> of_table(table, points=False) == grid, of_table(table, points=True).lr
      (True, (0.1, 1.0))
    """
    names = table.dtype.names or ()
    columns: dict[str, Any] = {axis: tuple(table[axis].tolist()) if axis in names else () for axis in AXES}
    different = {axis: tuple(dict.fromkeys(values)) for axis, values in columns.items()}
    if not points:
        return Grid(**different)
    replicates = {axis: different[axis] for axis in REPLICATES}
    count = math.prod(len(values) for values in replicates.values() if values)
    return Points(**{axis: values[::count] for axis, values in columns.items()} | replicates)


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
    return axis


def _check_range(axis: str, values: Range) -> None:
    """Raise unless values of this axis can be drawn from a range, a tuple, or chosen from a list."""
    if axis not in AXES or axis in REPLICATES:
        drawn = ", ".join(name for name in AXES if name not in REPLICATES)
        raise ValueError(f"axes must be some of {drawn}, got {axis}")
    if isinstance(values, list):
        _axis(axis, values, AXES[axis])
        return
    if len(values) != 2 or not -math.inf < values[0] < values[1] < math.inf:
        raise ValueError(f"{axis} must be a range from a lower to a higher number, got {values!r}")
    if values[0] <= 0 and axis not in SHARES:
        raise ValueError(f"{axis} must be a range of positive numbers, to be drawn by their logarithms, got {values!r}")


def _scaled(axis: str, values: Range, shares: NDArray[np.floating]) -> list[int | float]:
    """Values of an axis at these shares, in [0, 1), of a range or of a list."""
    if isinstance(values, list):
        return [values[k] for k in np.floor(shares * len(values)).astype(int)]
    low, high = values
    if AXES[axis] is int:  # each number as likely as the others near it
        low, high = low - 0.5, high + 0.5
    if axis not in SHARES and values[1] >= 10 * values[0]:
        drawn = np.exp(np.log(low) + shares * np.log(high / low))
    else:
        drawn = low + shares * (high - low)
    drawn = np.clip(np.rint(drawn), values[0], values[1]) if AXES[axis] is int else np.clip(drawn, low, high)
    return [AXES[axis](value) for value in drawn]


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
