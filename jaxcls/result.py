"""What a sweep found: a row per cell, the best of them, and where the time went."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcls.classifier import Params
from jaxcls.grid import AXES, Grid

if TYPE_CHECKING:
    import pandas

SCORES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


class Timings(NamedTuple):
    """Where a sweep's seconds went."""

    compile_s: float
    run_s: float
    evaluate_s: float
    total_s: float


def total(timings: Iterable[Timings]) -> Timings:
    """The seconds of several searches together.

    Example:
      >>> total([Timings(1.0, 2.0, 0.0, 3.0), Timings(0.0, 1.0, 1.0, 2.0)])
      Timings(compile_s=1.0, run_s=3.0, evaluate_s=1.0, total_s=5.0)
    """
    return Timings(*(sum(seconds) for seconds in zip(*timings, strict=True)))


class History(NamedTuple):
    """What the courses record of a net in step 0 and once an epoch after it, each time after the step's update.

    Attributes:
      step: the steps, ``[E]``.
      train_accuracy: on the step's own minibatch, ``[cells, E]``; NaN from where a cell diverged.
      val_accuracy: on all of val, likewise.
    """

    step: NDArray[np.integer]
    train_accuracy: NDArray[np.floating]
    val_accuracy: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep found.

    Attributes:
      grid: the grid.
      table: a structured array, one row per cell in grid order, with the columns

        - ``lr``, ``reg``, ``hidden``, ``seed``, ``fold``, those that the grid has: the cell;
        - ``train_loss``: over all of train after the last step, penalty included;
        - ``val_loss``: the cross-entropy over val, without penalty; of a sweep with class weights, weighted by them;
        - ``train_accuracy``, ``val_accuracy``: fractions;
        - ``diverged_at``: the first step whose loss was not finite, or -1; a diverged cell's scores are NaN;
        - ``rank``: 1 for the highest validation accuracy, ties broken by lower validation loss, then by grid
          order; 0 for a diverged cell.
      losses: the minibatch loss before each step, penalty included, ``[cells, steps]``.
      history: accuracies during training; None unless asked for.
      params: the best cell's, on the host; None if every cell diverged.
      test_accuracy: the best cell's, which alone sees the test set; NaN if every cell diverged.
      timings: where the time went.
    """

    grid: Grid
    table: NDArray
    losses: NDArray[np.floating]
    history: History | None
    params: Params | None
    test_accuracy: float
    timings: Timings

    @property
    def best(self) -> int | None:
        """The row of the best cell; None if every cell diverged."""
        return next(iter(np.flatnonzero(self.table["rank"] == 1).tolist()), None)

    def cv_results(self) -> dict[str, Any]:
        """The table as scikit-learn's searches have it in ``cv_results_``, in which validation is called test.

        Example:
          >>> from jaxcls import data, grid, sweep
          >>> splits = data.standard(data.load_digits())
          >>> found = sweep.run(splits, grid.Grid(lr=[0.01, 0.1], reg=[0.0]), steps=100).cv_results()
          >>> found["params"][1], found["rank_test_score"].tolist()
          ({'lr': 0.1, 'reg': 0.0, 'seed': 0}, [2, 1])
        """
        return {
            "params": self.grid.cells(),
            **{f"param_{axis}": np.ma.MaskedArray(self.table[axis], mask=False) for axis in self.grid.axes},
            "mean_test_score": self.table["val_accuracy"],
            "mean_train_score": self.table["train_accuracy"],
            "rank_test_score": np.where(self.table["rank"] > 0, self.table["rank"], len(self.table)),
        }

    def to_pandas(self) -> "pandas.DataFrame":
        """The table as a data frame.

        Raises:
          ImportError: pandas is not installed.
        """
        import pandas  # an optional one, slow to import

        return pandas.DataFrame(self.table)


def empty_table(grid: Grid, **more: str) -> NDArray:
    """The table of a sweep that has not begun; ``more`` columns, by their dtypes, are the caller's to fill.

    Example:
      >>> print(empty_table(Grid(lr=[0.1], reg=[0.0]))[["lr", "val_loss", "rank"]])
      [(0.1, nan, 0)]
    """
    axes = [(axis, AXES[axis]) for axis in grid.axes]
    columns = [*axes, *((name, "f8") for name in SCORES), ("diverged_at", "i8"), ("rank", "i8"), *more.items()]
    table = np.zeros(len(grid), columns)
    for name, values in zip(grid.axes, zip(*(cell.values() for cell in grid.cells()), strict=True), strict=True):
        table[name] = values
    for name in SCORES:
        table[name] = np.nan
    table["diverged_at"] = -1
    return table


def ranks(accuracy: NDArray[np.floating], loss: NDArray[np.floating]) -> NDArray[np.integer]:
    """1 for the highest accuracy, ties broken by the lower loss, then by order; 0 where there is no finite loss.

    Example:
      >>> print(ranks(np.array([0.9, 0.8, 0.9, np.nan]), np.array([0.3, 0.2, 0.1, np.nan])))
      [2 3 1 0]
    """
    scored = np.flatnonzero(np.isfinite(loss))
    accuracy = np.round(accuracy, 12)  # of a mean over folds, the last bits depend on their order
    order = scored[np.lexsort((scored, loss[scored], -accuracy[scored]))]
    found = np.zeros(len(loss), int)
    found[order] = np.arange(len(order)) + 1
    return found


def rank_rows(table: NDArray) -> None:
    """Enter the ranks of a table's rows, by accuracy and loss on val."""
    table["rank"] = ranks(table["val_accuracy"], table["val_loss"])


def best_first(rank: NDArray[np.integer]) -> NDArray[np.intp]:
    """The rows in the order of their ranks, then those without one in the order of the grid.

    Example:
      >>> print(best_first(np.array([2, 0, 1, 0])))
      [2 0 1 3]
    """
    return np.argsort(np.where(rank > 0, rank, len(rank) + 1), kind="stable")
