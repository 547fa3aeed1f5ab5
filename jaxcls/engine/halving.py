"""Successive halving: at each rung the best cells stay, and train on from where they are."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcls.engine.blocks import COMPILATION
from jaxcls.table import check_select, merit, ranks

# Shares of the steps at which one, two or three rungs lie; earlier ones would drop slow cells that win in the end.
SHARES = (1 / 4,), (1 / 8, 3 / 8), (1 / 10, 1 / 4, 1 / 2)
LEAVING = 0.75  # of a stack's width, at which cells that diverged or ran out of patience leave it
NARROWING = COMPILATION / 4  # what a narrower stack takes: its cells are initialised already


class Halving(NamedTuple):
    """At each rung all cells are scored on val, and the best stay; replicates of a cell are judged by their mean.

    A cell that stays ends as it would have ended without, to the rounding of a stack of another width.

    Attributes:
      keep: the share that stays, rounded up.
      rungs: numbers of steps, ascending; when not given, a tenth, a quarter and a half of all steps, in whole chunks;
        of few cells, two or one.
      metric: judges the cells, a key of ``jaxcls.table.SELECT``; the metric of the final ranks if not given.

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


def check(halving: Halving, num_settings: int, num_classes: int, steps: int) -> None:
    """Raise a ValueError unless this many settings can be halved within these steps.

    Example:
      >>> check(Halving(keep=2), 9, num_classes=10, steps=100)
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
    if halving.metric is not None:
        check_select(halving.metric, num_classes, "halving.metric")


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
      >>> from jaxcls.table import empty_table
      >>> table = empty_table(Grid(lr=[0.1, 0.2, 0.3], reg=[0.0], seed=[0, 1]))
      >>> table["val_accuracy"], table["val_loss"] = [0.5, 0.9, 0.8, 0.8, 0.9, 0.1], 1.0
      >>> print(survivors(table, np.ones(6, bool), 2, Halving(), "accuracy"))
      [False False  True  True False False]
    """
    accuracy, loss = (
        np.where(alive, values, np.nan).reshape(-1, num_replicates).mean(axis=1)
        for values in (merit(table, halving.metric or select), table["val_loss"])
    )
    rank = ranks(accuracy, loss)
    number = share(int(alive.reshape(-1, num_replicates).any(axis=1).sum()), halving.keep)
    return np.repeat((rank > 0) & (rank <= number), num_replicates)


def share(count: int, keep: float) -> int:
    """A share of a number of cells, rounded up.

    Example:
      >>> share(100, 1 / 3), share(99, 1 / 3)
      (34, 33)
    """
    return math.ceil(round(count * keep, 9))


def widths(most: int, halving: Halving | None, work: float) -> list[int]:
    """The widths of the stacks that cells train in, in descending order; each needs programs of its own.

    At a rung a stack gets narrower where that saves more than they take to compile, if as many steps follow as lie
    before it. Without halving, cells leave at any time, and each width is three quarters of the one before.

    Args:
      most: the number of all cells.
      halving: with its rungs.
      work: multiplications of one step of a cell.

    Example:
      >>> rungs = Halving(rungs=(100, 300, 700))
      >>> widths(100, rungs, work=1e8), widths(100, rungs, work=1e7), widths(100, rungs, work=1e6)
      ([100, 34, 12, 4], [100, 12], [100])
      >>> widths(8, None, work=1e6)
      [8, 6, 5, 4, 3]
    """
    found, count = [most], most
    if halving is None:
        while (narrower := share(found[-1], LEAVING)) < found[-1]:
            found.append(narrower)
        return found
    for rung in halving.rungs:
        count = share(count, halving.keep)
        if (found[-1] - count) * rung * work > NARROWING:
            found.append(count)
    return found
