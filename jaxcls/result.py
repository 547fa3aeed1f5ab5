"""The result of a sweep: a row per cell, the best of them, and the seconds of each stage."""

import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from jaxcls.classifier import Classifier
from jaxcls.data import check_finite, prepare, unit_length
from jaxcls.grid import Cells
from jaxcls.metrics import Metric, Outcomes, accuracy, measure
from jaxcls.numerics import Params
from jaxcls.table import SELECT, best_row, cv_results, dropped

if TYPE_CHECKING:
    import pandas


BLOCK = 10_000  # examples whose logits are computed at once


class Timings(NamedTuple):
    """Seconds of the stages of a sweep."""

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
    """Accuracies during training, recorded as the courses do: after step 0, and once an epoch from there.

    Where the best params are kept, and no history is asked for, they are recorded each tenth of the steps.

    Attributes:
      step: the steps, ``[E]``.
      epoch: the same in epochs.
      train_accuracy: on the step's own minibatch, ``[cells, E]``; NaN from where a cell diverged.
      val_accuracy: on all of val, ``[cells, E]``; NaN from where a cell diverged.
    """

    step: NDArray[np.integer]
    epoch: NDArray[np.floating]
    train_accuracy: NDArray[np.floating]
    val_accuracy: NDArray[np.floating]


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult:
    """The result of a sweep.

    Attributes:
      grid: the cells, a grid or points.
      table: a structured array, one row per cell in grid order, with the columns

        - ``lr``, ``reg``, ``hidden``, ``seed``, ``fold``: the cell, one column per axis of the grid;
        - ``train_loss``: over train after the last step, penalty included;
        - ``val_loss``: the cross-entropy over val, without penalty; of a sweep with class weights, weighted by them;
        - ``train_accuracy``, ``val_accuracy``: fractions;
        - ``val_mean_per_class``, ``val_top5``, ``val_macro_f1``: the mean of the accuracies on each class of val, the
          fraction of examples whose label is among the five highest logits, and the mean of the classes' F1;
        - ``diverged_at``: the first step whose loss was not finite, or -1; a diverged cell's scores are NaN;
        - ``stopped_at``: the number of steps after which halving dropped a cell or its patience ended, or -1; its
          scores are those it had then, on val alone if it was dropped;
        - ``rank``: 1 for the best by ``select``, ties broken by lower validation loss, then by grid order; after those
          that were trained to the end, those that were dropped, the last first; 0 for a diverged cell.
      losses: the minibatch loss before each step, penalty included, ``[cells, steps]``.
      history: accuracies during training; None unless asked for, or the best params are kept.
      params: the best cell's, on the host; None if every cell diverged.
      test: outcomes of the best cell on the test set; None if every cell diverged or there is no test set.
      timings: seconds of each stage.
      classifier: the model.
      mean, scale: ``[d]``, the standardisation of raw features; of folds, that of all examples, of
        tries that of the first.
      class_names: the label of each class.
      num_scored: the number of examples behind train's loss and accuracy: all of train, or a random part of it, always
        the same, where scoring all would take more than a tenth of the training.
      select: what ranks the cells, a key of ``jaxcls.table.SELECT``.
      unit_length: whether raw features are scaled to length 1 before they are standardised.
      right: a bit for each example of val that a cell predicts rightly, ``[cells, bytes]``, by ``numpy.packbits``.
      snapshot: of the finished sweep, for `jaxcls.sweep.continued`; None unless asked for.
      chosen: the row of the best cell where that is not the first in rank, as `jaxcls.crossval.one_se` chooses it.

    Example:
      >>> from jaxcls import data, grid, sweep
      >>> source = data.load_digits()
      >>> found = sweep.run(data.standard(source), grid.Grid(lr=[0.01, 0.1], reg=[0.0]), steps=100)
      >>> found
      SweepResult of 2 cells (2 lr x 1 reg x 1 seed), best lr 0.1, reg 0, seed 0: 0.9556 on val, 0.9111 on test
      >>> found.predict(source.X[:3])
      array(['0', '1', '2'], dtype='<U1')
    """

    grid: Cells
    table: NDArray
    losses: NDArray[np.floating]
    history: History | None
    params: Params | None
    test: Outcomes | None
    timings: Timings
    classifier: Classifier
    mean: NDArray[np.floating]
    scale: NDArray[np.floating]
    class_names: tuple[str, ...]
    num_scored: int
    select: str = "accuracy"
    unit_length: bool = False
    right: NDArray[np.uint8] | None = None
    chosen: int | None = None
    snapshot: Any = None

    def __repr__(self) -> str:
        text = f"SweepResult of {len(self.table)} cells ({self.grid})"
        if self.best is None:
            return f"{text}, all diverged"
        row = self.table[self.best]
        best = ", ".join(f"{axis} {row[axis]:.4g}" for axis in self.grid.axes)
        test = "" if math.isnan(self.test_accuracy) else f", {self.test_accuracy:.4f} on test"
        return f"{text}, best {best}: {row[self.column]:.4f} on val{test}"

    def predict_proba(self, X: NDArray) -> NDArray[np.floating]:
        """Probability of each class by the best cell, ``[N, C]``, for raw features ``[N, d]``.

        Raises:
          ValueError: there is no best cell's params, as of folds or where all cells diverged; or X has other features,
            or a value that is not finite.
        """
        if self.params is None:
            raise ValueError("the result must hold the params of a best cell, got none")
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(self.mean):
            raise ValueError(f"X must have shape [N, {len(self.mean)}], got {list(X.shape)}")
        check_finite(X)

        def logits(rows: NDArray) -> Array:
            scaled = unit_length(rows) if self.unit_length else rows
            prepared = prepare(scaled, self.mean, self.scale)
            return self.classifier.logits(self.params, self.classifier.features(prepared))

        scores = np.concatenate([logits(rows) for rows in np.split(X, range(BLOCK, len(X), BLOCK))])
        return np.asarray(jax.nn.softmax(scores, axis=1))

    def predict(self, X: NDArray) -> NDArray:
        """Label by the best cell, ``[N]``, for raw features ``[N, d]``; raises what `predict_proba` does."""
        return np.array(self.class_names)[self.predict_proba(X).argmax(axis=1)]

    @property
    def test_accuracy(self) -> float:
        """The accuracy of the best cell on the test set; NaN without one."""
        return math.nan if self.test is None else accuracy(self.test)

    @functools.cached_property
    def metrics(self) -> dict[str, Metric]:
        """Metrics of the best cell on the test set, with 95 % intervals, by `jaxcls.metrics.measure`; empty without."""
        return {} if self.test is None else measure(self.test, len(self.class_names))

    @property
    def stages(self) -> list[tuple[int, int, int]]:
        """Number of cells in training, first step and last, between the steps after which some stopped.

        Example:
          >>> from jaxcls import data, grid, sweep
          >>> cells = grid.Points.random(9, lr=(1e-3, 1.0), reg=(1e-5, 1e-1))
          >>> halving = sweep.Halving(rungs=(10, 30))
          >>> sweep.run(data.standard(data.load_digits()), cells, steps=100, halving=halving).stages
          [(9, 0, 10), (3, 10, 30), (1, 30, 100)]
        """
        stopped, trained = self.table["stopped_at"], np.maximum(self.steps_trained, 1)
        ends = [*np.unique(stopped[stopped >= 0]).tolist(), self.losses.shape[1]]
        return [(int((trained > first).sum()), first, last) for first, last in itertools.pairwise((0, *ends))]

    @property
    def steps_trained(self) -> NDArray[np.integer]:
        """The number of steps that each cell was trained for, until it stopped or diverged, ``[cells]``."""
        stopped, diverged = self.table["stopped_at"], self.table["diverged_at"]
        return np.where(stopped >= 0, stopped, np.where(diverged >= 0, diverged, self.losses.shape[1]))

    @property
    def column(self) -> str:
        """The column of the table that ranks the cells."""
        return SELECT[self.select][0]

    @property
    def criterion(self) -> str:
        """The selection rule in words."""
        return f"validation {SELECT[self.select][1]}"

    @property
    def on_val(self) -> str:
        """The selection rule as words to be put after a score."""
        return "" if self.select == "accuracy" else f", {SELECT[self.select][1].removeprefix('accuracy, ')}"

    @property
    def best(self) -> int | None:
        """The row of the best cell; None if every cell diverged, but for those that halving dropped."""
        return best_row(self.table) if self.chosen is None else self.chosen

    @property
    def within_one_se(self) -> NDArray[np.bool_]:
        """Mask of the cells whose accuracy on val is within one standard error of the highest, on the same examples.

        Of two cells, b examples are predicted rightly by the first alone and c by the second alone. The standard error
        of ``b - c`` is ``sqrt(b + c)``, as in McNemar's test. All False unless the cells are ranked by accuracy.
        """
        within = np.zeros(len(self.table), bool)
        first = np.flatnonzero(self.table["rank"] == 1)
        if self.right is None or self.select != "accuracy" or not first.size:
            return within
        best = self.right[first[0]]
        only_best, only_other = (
            np.bitwise_count(a & ~b).sum(axis=1) for a, b in ((best, self.right), (self.right, best))
        )
        behind, differing = only_best.astype(int) - only_other, only_best.astype(int) + only_other
        return (self.table["rank"] > 0) & ~dropped(self.table) & ((behind <= 0) | (behind**2 <= differing))

    def cv_results(self) -> dict[str, object]:
        """The table in the form of ``cv_results_`` of scikit-learn's searches, which call validation test.

        Example:
          >>> from jaxcls import data, grid, sweep
          >>> splits = data.standard(data.load_digits())
          >>> found = sweep.run(splits, grid.Grid(lr=[0.01, 0.1], reg=[0.0]), steps=100).cv_results()
          >>> found["params"][1], found["rank_test_score"].tolist()
          ({'lr': 0.1, 'reg': 0.0, 'seed': 0}, [2, 1])
        """
        scores = {"mean_test_score": self.table["val_accuracy"], "mean_train_score": self.table["train_accuracy"]}
        return cv_results(self.grid.cells(), self.table["rank"], scores)

    def to_pandas(self) -> "pandas.DataFrame":
        """The table as a data frame.

        Raises:
          ImportError: pandas is not installed.
        """
        import pandas  # an optional one, slow to import

        return pandas.DataFrame(self.table)
