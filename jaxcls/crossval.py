"""Cross-validation of any search over a grid: every cell on every fold, then the best cell on all of train."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from jaxcls.data import Folds, Splits, Tries
from jaxcls.grid import Cells, Grid
from jaxcls.metrics import Outcomes
from jaxcls.result import SweepResult, total
from jaxcls.table import SCORES, rank_rows

Choose = Literal["best", "one-se"]


@runtime_checkable
class Search(Protocol):
    """`jaxcls.sweep.run` or `jaxcls.probe.search`, with their other arguments bound by `functools.partial`."""

    def __call__(self, data: Splits | Folds, grid: Cells, /) -> SweepResult:
        """Train every cell of the grid, on every fold if the grid has that axis."""


class CrossValidation(NamedTuple):
    """Result of cross-validation.

    Attributes:
      result: a table of means over the folds, ranked, and mean losses; params and test accuracy of the best cell,
        trained on all of train; no history.
      folds: every cell on every fold.
    """

    result: SweepResult
    folds: SweepResult


def run(
    search: Search, grid: Cells, folds: Folds, whole: Splits, *, penalty: float = 1.0, choose: Choose = "best"
) -> CrossValidation:
    """Search with the folds as one more axis of the grid, then train the best cell on all of train.

    Args:
      search: trains a grid.
      grid: the cells, without folds.
      folds: the examples in parts, made by `jaxcls.data.standard_folds`.
      whole: all examples of the folds as train, and the test set.
      penalty: see `refit`.
      choose: the ``best`` cell, or the simplest within one standard error of it, ``one-se``, as in `one_se`.

    Example:
      >>> from dataclasses import replace
      >>> import numpy as np
      >>> from jaxcls import data, probe
      >>> source = data.load_digits()
      >>> rows = np.concatenate([source.train, source.val])
      >>> folds = data.standard_folds(source, np.array_split(rows, 3))
      >>> whole = data.standard(replace(source, train=rows, val=rows))
      >>> found = run(probe.search, Grid(lr=(), reg=[1e-1, 1e-2, 1e-3], seed=()), folds, whole)
      >>> bool(found.result.test_accuracy > 0.95), len(found.folds.table)
      (True, 9)
    """
    found = search(folds, replace(grid, fold=range(folds.num_folds)))
    result = averaged(found, grid)
    if choose == "one-se" and (row := simplest(result)) != result.best:
        result = replace(result, chosen=row)
    return CrossValidation(refit(search, result, whole, penalty=penalty), found)


def refit(search: Search, found: SweepResult, whole: Splits, *, penalty: float = 1.0) -> SweepResult:
    """Train the best cell of a search on more examples, commonly those of train and val, and score it on test.

    Args:
      search: trains a grid.
      found: its result, which keeps its grid, table and losses.
      whole: the examples to train on, with the test set.
      penalty: what the cell's reg is multiplied by.

    Example:
      >>> from dataclasses import replace
      >>> import numpy as np
      >>> from jaxcls import data, probe
      >>> source = data.load_digits()
      >>> found = probe.run(data.standard(source), reg=[1e-1, 1e-2, 1e-3])
      >>> rows = np.concatenate([source.train, source.val])
      >>> again = refit(probe.search, found, data.standard(replace(source, train=rows, val=rows)))
      >>> again.best == found.best, bool((again.params == found.params).all())
      (True, False)
    """
    if found.best is None:
        return found
    cell = found.grid.only(found.best)
    best = _of_one(search)(whole, replace(cell, reg=[penalty * value for value in cell.reg]))
    timings = total([found.timings, best.timings])
    names = ("grid", "table", "losses", "num_scored", "select", "right", "chosen")
    kept = {name: getattr(found, name) for name in names}
    return replace(best, **kept, history=None, timings=timings)


def _of_one(search: Search) -> Search:
    """The search for a single cell, which cannot be halved."""
    if isinstance(search, functools.partial) and search.keywords.get("halving"):
        return functools.partial(search, halving=None)
    return search


def one_se(search: Search, found: SweepResult, splits: Splits) -> SweepResult:
    """Take the simplest cell within one standard error of the best: most regularised, then slowest in learning.

    Args:
      search: trains a grid.
      found: its result on ``splits``; ranked by accuracy.
      splits: the data.

    Example:
      >>> from jaxcls import data, probe
      >>> splits = data.standard(data.load_digits())
      >>> found = probe.run(splits, reg=[1.0, 1e-1, 1e-2, 1e-3])
      >>> simple = one_se(probe.search, found, splits)
      >>> found.table["reg"][[found.best, simple.best]].tolist()
      [0.001, 0.01]
    """
    row = simplest(found)
    if row is None or row == found.best:
        return found
    again = _of_one(search)(splits, found.grid.only(row))
    timings = total([found.timings, again.timings])
    return replace(found, params=again.params, test=again.test, chosen=row, timings=timings)


def simplest(found: SweepResult) -> int | None:
    """The row of the simplest cell within one standard error of the best; None if all diverged."""
    rows = np.flatnonzero(found.within_one_se)
    if not rows.size:
        return None
    simple = {"reg": -1, "weight_decay": -1, "lr": 1, "hidden": 1}  # the most decisive first
    keys = [sign * found.table[axis][rows] for axis, sign in simple.items() if axis in found.grid.axes]
    return int(rows[np.lexsort(keys[::-1])[0]])


def peak(search: Search, grid: Grid, splits: Splits) -> SweepResult:
    """Search coarse to fine along the one axis with several values: every 16th of 97, then around the best so far.

    The stride is the largest power of two that leaves seven values or more; it is halved until all neighbours of the
    best are trained. The result has the cells that were trained, in the order of the axis.

    Args:
      search: trains a grid.
      grid: the cells.
      splits: the data.

    Raises:
      ValueError: not one axis has several values.

    Reference:
      A. Radford et al., *Learning Transferable Visual Models From Natural Language Supervision*, 2021, appendix A.3.

    Example:
      >>> import numpy as np
      >>> from jaxcls import data, probe
      >>> splits, path = data.standard(data.load_digits()), np.logspace(1, -9, 97).tolist()
      >>> found = peak(probe.search, Grid(lr=(), reg=path, seed=()), splits)
      >>> len(found.table), bool(found.table["val_accuracy"].max() > 0.96)
      (15, True)
    """
    if len(grid.varied) != 1:
        several = ", ".join(grid.varied) or "none"
        raise ValueError(f"grid must have one axis with several values for a peak, got {several}")
    ((axis, unsorted),) = grid.varied.items()
    values = sorted(unsorted, reverse=unsorted[0] > unsorted[-1])

    def some(indices: Sequence[int]) -> Grid:
        columns: dict[str, Any] = {axis: [values[k] for k in indices]}
        return replace(grid, **columns)

    stride = 2 ** max(int(math.log2(max(len(values) - 1, 1) / 6)), 0)
    found: SweepResult | None = None
    trained: list[int] = []
    new = list(range(0, len(values), stride))
    while new:
        following = search(splits, some(new))
        found, trained = (following, new) if found is None else _joined(found, trained, following, new, some)
        if found.best is None:
            break
        stride //= 2
        around = (trained[found.best] - stride, trained[found.best] + stride) if stride else ()
        new = [k for k in around if 0 <= k < len(values) and k not in trained]
    assert found
    return found


def _joined(
    one: SweepResult, of_one: list[int], other: SweepResult, of_other: list[int], some: Callable[[Sequence[int]], Grid]
) -> tuple[SweepResult, list[int]]:
    """Two results on cells of one axis as one, and the indices of its cells on the axis, in order."""
    indices = of_one + of_other
    order = np.argsort(indices)
    names = ("table", "losses", "right")
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(each, name) for each in (one, other)])[order] for name in names
    }
    rank_rows(arrays["table"], one.select)
    best = indices[order[np.argmax(arrays["table"]["rank"] == 1)]]
    kept = other if best in of_other else one
    timings = total([one.timings, other.timings])
    indices = [indices[k] for k in order]
    return replace(kept, grid=some(indices), **arrays, history=None, timings=timings), indices


def tries(search: Search, grid: Cells, few: Tries) -> tuple[SweepResult, list[Outcomes]]:
    """Search with the tries as one more axis of the grid, then train the cell that is best on average in each.

    Args:
      search: trains a grid.
      grid: the cells.
      few: subsets of train, with a test set, made by `jaxcls.data.tries`.

    Returns:
      A table of means over the tries, with params and outcomes on test of the first; and the outcomes of all.

    Example:
      >>> from jaxcls import data, probe
      >>> few = data.tries(data.standard(data.load_digits()), np.arange(300).reshape(3, 100))
      >>> result, outcomes = tries(probe.search, Grid(lr=(), reg=[1e-1, 1e-3], seed=()), few)
      >>> len(result.table), len(outcomes)
      (2, 3)
    """
    folds = range(few.num_folds)
    if len(grid) == 1:
        of_best = [search(few.split(fold), grid) for fold in folds]
        table, losses = (np.stack([getattr(each, name) for each in of_best], axis=1) for name in ("table", "losses"))
        right = np.concatenate([each.right for each in of_best if each.right is not None], axis=1)
        whole, timings = _averaged(of_best[0], grid, table, losses, right), [each.timings for each in of_best]
    else:
        found = search(few, replace(grid, fold=folds))
        whole = averaged(found, grid)
        cell = None if whole.best is None else grid.only(whole.best)
        of_best = [] if cell is None else [_of_one(search)(few.split(fold), cell) for fold in folds]
        timings = [found.timings, *(each.timings for each in of_best)]
    if whole.best is None:
        return whole, []
    of_first = {name: getattr(of_best[0], name) for name in ("params", "test", "mean", "scale", "unit_length")}
    return replace(whole, **of_first, timings=total(timings)), [each.test for each in of_best if each.test is not None]


def averaged(found: SweepResult, grid: Cells) -> SweepResult:
    """A result on folds as one of their means, for the grid without folds: ranked, and without params.

    Example:
      >>> from jaxcls import data, probe
      >>> few = data.tries(data.standard(data.load_digits()), np.arange(300).reshape(3, 100))
      >>> grid = Grid(lr=(), reg=[1e-1, 1e-3], seed=())
      >>> averaged(probe.search(few, replace(grid, fold=range(3))), grid).table["rank"].tolist()
      [2, 1]
    """
    table = found.table.reshape(len(grid), -1)
    losses = found.losses.reshape(*table.shape, found.losses.shape[1])
    right = None if found.right is None else found.right.reshape(len(grid), -1)
    return _averaged(found, grid, table, losses, right)


def _averaged(found: SweepResult, grid: Cells, table: NDArray, losses: NDArray, right: NDArray | None) -> SweepResult:
    """One of several results, with the means of all: of a table and losses whose second axis they are."""
    means = over_folds(table)
    rank_rows(means, found.select)
    losses = losses.mean(axis=1)
    return replace(found, grid=grid, table=means, losses=losses, right=right, history=None, params=None, test=None)


def over_folds(table: NDArray) -> NDArray:
    """A table of one row per cell from one row per cell and fold, ``[cells, folds]``, which is left unranked.

    Scores are averaged, with the deviation of the accuracy on val in a column of its own. Diagnostics take their worst
    value: a cell that diverged on one fold has diverged.

    Example:
      >>> from jaxcls.table import empty_table
      >>> table = empty_table(Grid(lr=(), reg=[0.1], seed=(), fold=[0, 1]))
      >>> table["val_loss"] = 1.0, 2.0
      >>> over_folds(table.reshape(1, 2))[["reg", "val_loss"]].tolist()
      [(0.1, 1.5)]
    """
    columns = [(name, table.dtype[name]) for name in table.dtype.names or () if name != "fold"]
    found = np.empty(len(table), [*columns, ("val_deviation", "f8")])
    found["val_deviation"] = np.std(table["val_accuracy"], axis=1)
    summaries: dict[str, Callable[..., NDArray]] = {"converged": np.min, "diverged_at": _first}
    summaries |= dict.fromkeys(SCORES, np.mean)
    for name, _ in columns:
        found[name] = summaries.get(name, np.max)(table[name], axis=1)
    return found


def _first(steps: NDArray[np.integer], axis: int) -> NDArray[np.integer]:
    """The least step that is not -1; -1 if all are."""
    never = np.iinfo(steps.dtype).max
    first = np.min(np.where(steps < 0, never, steps), axis=axis)
    return np.where(first < never, first, -1)
