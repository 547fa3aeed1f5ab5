"""Successive halving: at each rung the best cells stay, and train on from where they are."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcls.result import SELECT, merit, ranks

# Shares of the steps at which one, two or three rungs lie; earlier ones would drop slow cells that win in the end.
SHARES = (1 / 4,), (1 / 8, 3 / 8), (1 / 10, 1 / 4, 1 / 2)
LEAVING = 0.75  # of a stack's width, at which cells that diverged or ran out of patience leave it


class Halving(NamedTuple):
    """At each rung all cells are scored on val, and the best stay; replicates of a cell are judged by their mean.

    A cell that stays ends as it would have ended without, to the rounding of a stack of another width.

    Attributes:
      keep: the share that stays, rounded up.
      rungs: numbers of steps, ascending; when not given, a tenth, a quarter and a half of all steps, in whole chunks;
        of few cells, two or one.
      metric: judges the cells, a key of ``jaxcls.result.SELECT``; the metric of the final ranks if not given.

    Reference:
      K. Jamieson and A. Talwalkar, *Non-stochastic Best Arm Identification and Hyperparameter Optimization*,
      AISTATS 2016.

    Example:
      >>> from jaxcls import data, grid, sweep
      >>> splits = data.standard(data.load_digits())
      >>> cells = grid.Points.random(9, lr=(1e-3, 1.0), reg=(1e-5, 1e-1))
      >>> found = sweep.run(splits, cells, steps=300, halving=sweep.Halving(rungs=(30, 100)))
      >>> found.table["stopped_at"].tolist()
      [30, 100, -1, 30, 30, 100, 30, 30, 30]
    """

    keep: float = 1 / 3
    rungs: Sequence[int] = ()
    metric: str | None = None


def check(halving: Halving, num_settings: int, steps: int) -> None:
    """Raise a ValueError unless this many settings can be halved within these steps.

    Example:
      >>> check(Halving(keep=2), 9, steps=100)
      Traceback (most recent call last):
      ...
      ValueError: halving.keep must lie between 0 and 1, got 2
    """
    if not 0 < halving.keep < 1:
        raise ValueError(f"halving.keep must lie between 0 and 1, got {halving.keep}")
    if num_settings < 2:
        raise ValueError(f"halving must have at least two cells, replicates not counted, got {num_settings}")
    ascending = (0, *halving.rungs, steps)
    if any(low >= high for low, high in itertools.pairwise(ascending)):
        raise ValueError(f"halving.rungs must ascend between 0 and {steps} steps, got {list(halving.rungs)}")
    if halving.metric is not None and halving.metric not in SELECT:
        raise ValueError(f"halving.metric must be one of {', '.join(SELECT)}, got {halving.metric}")


def rungs(halving: Halving, num_settings: int, steps: int, *, unit: int = 1) -> tuple[int, ...]:
    """The steps of each rung; those not given, in multiples of ``unit``.

    Example:
      >>> rungs(Halving(), 100, steps=1500), rungs(Halving(), 100, steps=1500, unit=100)
      ((150, 375, 750), (100, 300, 700))
    """
    if halving.rungs:
        return tuple(halving.rungs)
    number = min(len(SHARES), max(1, int(math.log(num_settings) / -math.log(halving.keep) + 1e-9)))
    ends = [unit * max(int(steps * share / unit), 1) for share in SHARES[number - 1]]
    return tuple(sorted({end for end in ends if end < steps}))


def survivors(
    table: NDArray, alive: NDArray[np.bool_], num_replicates: int, halving: Halving, select: str
) -> NDArray[np.bool_]:
    """Mask of the cells that stay, of those ``alive``, by the scores in a sweep's table.

    Example:
      >>> from jaxcls.grid import Grid
      >>> from jaxcls.result import empty_table
      >>> table = empty_table(Grid(lr=[0.1, 0.2, 0.3], reg=[0.0], seed=[0, 1]))
      >>> table["val_accuracy"], table["val_loss"] = [0.5, 0.9, 0.8, 0.8, 0.9, 0.1], 1.0
      >>> print(survivors(table, np.ones(6, bool), 2, Halving(), "accuracy"))
      [False False  True  True False False]
    """
    by_setting = (
        np.where(alive, values, np.nan) for values in (merit(table, halving.metric or select), table["val_loss"])
    )
    rank = ranks(*(values.reshape(-1, num_replicates).mean(axis=1) for values in by_setting))
    number = share(int(alive.reshape(-1, num_replicates).any(axis=1).sum()), halving.keep)
    return np.repeat((rank > 0) & (rank <= number), num_replicates)


def share(count: int, keep: float) -> int:
    """A share of a number of cells, rounded up.

    Example:
      >>> share(100, 1 / 3), share(99, 1 / 3)
      (34, 33)
    """
    return math.ceil(round(count * keep, 9))


def width(count: int, most: int, keep: float) -> int:
    """The narrowest stack for some cells, of those that halving ``most`` again and again has.

    Few widths mean few programs to compile.

    Example:
      >>> [width(count, 100, 1 / 3) for count in (100, 34, 20, 3)]
      [100, 34, 34, 4]
    """
    while count <= (narrower := share(most, keep)) < most:
        most = narrower
    return most
