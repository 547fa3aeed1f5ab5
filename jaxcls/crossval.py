"""Cross-validation of any search over a grid: every cell on every fold, then the best cell on all of train."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcls.data import Folds, Splits
from jaxcls.grid import AXES, Grid
from jaxcls.result import SCORES, SweepResult, rank_rows, total


class CrossValidation(NamedTuple):
    """What cross-validation found.

    Attributes:
      result: the means over the folds in its table, ranked, and in its losses; params and test accuracy of the best
        cell, trained on all of train; no history.
      folds: every cell on every fold.
    """

    result: SweepResult
    folds: SweepResult


def run(search: Callable[[Any, Grid], SweepResult], grid: Grid, folds: Folds, whole: Splits) -> CrossValidation:
    """Search with the folds as one more axis of the grid, and train the best cell anew.

    Args:
      search: `jaxcls.sweep.run` or `jaxcls.probe.run`, its other arguments bound by `functools.partial`.
      grid: the cells, without folds.
      folds: the examples in parts, as `jaxcls.data.standard_folds` makes them.
      whole: all examples of the folds as train, and the test set.

    Example:
      >>> from dataclasses import replace
      >>> import numpy as np
      >>> from jaxcls import data, probe
      >>> source = data.load_digits()
      >>> rows = np.concatenate([source.train, source.val])
      >>> folds = data.standard_folds(source, np.array_split(rows, 3))
      >>> whole = data.standard(replace(source, train=rows, val=rows))
      >>> found = run(probe.run, Grid(lr=(), reg=[1e-1, 1e-2, 1e-3], seed=()), folds, whole)
      >>> bool(found.result.test_accuracy > 0.95), len(found.folds.table)
      (True, 9)
    """
    found = search(folds, replace(grid, fold=range(folds.num_folds)))
    table = _over_folds(found.table.reshape(len(grid), -1))
    rank_rows(table)
    losses = found.losses.reshape(len(grid), folds.num_folds, found.losses.shape[1]).mean(axis=1)
    result = replace(found, grid=grid, table=table, losses=losses, history=None, params=None, test_accuracy=math.nan)
    if result.best is not None:
        cell = grid.cells()[result.best]
        axes: dict[str, Any] = {axis: (cell[axis],) if axis in cell else () for axis in AXES}
        best = search(whole, Grid(**axes))
        timings = total([found.timings, best.timings])
        result = replace(result, params=best.params, test_accuracy=best.test_accuracy, timings=timings)
    return CrossValidation(result, found)


def _over_folds(table: NDArray) -> NDArray:
    """The means of the scores, the worst of all else: a cell that diverged on one fold has diverged."""
    columns = [(name, table.dtype[name]) for name in table.dtype.names or () if name != "fold"]
    found = np.empty(len(table), columns)
    summaries: dict[str, Callable[..., Any]] = {"converged": np.all, "diverged_at": _first}
    summaries |= dict.fromkeys(SCORES, np.mean)
    for name, _ in columns:
        found[name] = summaries.get(name, np.max)(table[name], axis=1)
    return found


def _first(steps: NDArray[np.integer], axis: int) -> NDArray[np.integer]:
    """The least that is not -1, which stands for never; -1 where all are."""
    never = np.iinfo(steps.dtype).max
    first = np.min(np.where(steps < 0, never, steps), axis=axis)
    return np.where(first < never, first, -1)
