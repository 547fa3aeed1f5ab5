"""Cross-validation of any search over a grid: every cell on every fold, then the best cell on all of train."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcls import outcome
from jaxcls.data.splits import Splits
from jaxcls.grid import Grid
from jaxcls.outcome import SCORES, SweepResult, Timings


class CrossValidation(NamedTuple):
    """What cross-validation found.

    Attributes:
      result: the means over the folds in its table, ranked, and in its losses; params and test accuracy of the best
        cell, trained on all of train; no history.
      folds: the table of each fold.
    """

    result: SweepResult
    folds: list[NDArray]


def run(
    search: Callable[[Splits, Grid], SweepResult], grid: Grid, folds: Iterable[Splits], whole: Splits
) -> CrossValidation:
    """Search every fold, and train the best cell anew.

    Args:
      search: `jaxcls.sweep.run` or `jaxcls.probe.run`, its other arguments bound by `functools.partial`.
      grid: the cells.
      folds: for each fold, splits whose val is what it holds out. Their test is not looked at: let it be val again.
      whole: all examples of the folds as train, and the test set.

    Example:
      >>> from dataclasses import replace
      >>> import numpy as np
      >>> from jaxcls import data, probe
      >>> source = data.load_digits()
      >>> rows = np.concatenate([source.train, source.val])
      >>> parts = [(rows[np.arange(len(rows)) % 3 != k], rows[np.arange(len(rows)) % 3 == k]) for k in range(3)]
      >>> folds = [data.standard(replace(source, train=kept, val=out, test=out)) for kept, out in parts]
      >>> whole = data.standard(replace(source, train=rows, val=rows))
      >>> found = run(probe.run, Grid(lr=(), reg=[1e-1, 1e-2, 1e-3], seed=()), folds, whole)
      >>> bool(found.result.test_accuracy > 0.95), len(found.folds)
      (True, 3)
    """
    found = [search(fold, grid) for fold in folds]
    table = _means([each.table for each in found])
    outcome.rank(table)
    losses = np.mean([each.losses for each in found], axis=0)
    result = replace(found[0], table=table, losses=losses, history=None, params=None, test_accuracy=math.nan)
    searches = list(found)
    if result.best is not None:
        cell = grid.cells()[result.best]
        axes: dict[str, Any] = {axis: (cell[axis],) if axis in cell else () for axis in outcome.AXES}
        searches.append(search(whole, Grid(**axes)))
        result = replace(result, params=searches[-1].params, test_accuracy=searches[-1].test_accuracy)
    timings = Timings(*(sum(spent) for spent in zip(*(each.timings for each in searches), strict=True)))
    return CrossValidation(replace(result, timings=timings), [each.table for each in found])


def _means(tables: list[NDArray]) -> NDArray:
    """One table of several: the means of the scores; a cell that diverged in one of them has diverged."""
    table = tables[0].copy()
    for name in SCORES:
        table[name] = np.mean([each[name] for each in tables], axis=0)
    table["diverged_at"] = np.max([each["diverged_at"] for each in tables], axis=0)
    if "converged" in (table.dtype.names or ()):
        table["converged"] = np.all([each["converged"] for each in tables], axis=0)
    return table
