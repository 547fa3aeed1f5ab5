"""The table of a search, a row per cell: its scores, and the ranks by them."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcls.grid import AXES, Cells
from jaxcls.metrics import f1, mean_per_class
from jaxcls.train import Score


class Scores(NamedTuple):
    """Scores of some cells after the last step, penalty included in train's loss alone."""

    train_loss: NDArray[np.floating]
    train_accuracy: NDArray[np.floating]
    val_loss: NDArray[np.floating]
    val_accuracy: NDArray[np.floating]
    val_mean_per_class: NDArray[np.floating]
    val_top5: NDArray[np.floating]
    val_macro_f1: NDArray[np.floating]


SCORES = Scores._fields
Select = Literal["accuracy", "mean-per-class", "top-5", "macro-f1", "log-loss"]
# The column that ranks the cells, and its name.
SELECT: dict[str, tuple[str, str]] = {
    "accuracy": ("val_accuracy", "accuracy"),
    "mean-per-class": ("val_mean_per_class", "accuracy, mean over classes"),
    "top-5": ("val_top5", "top-5 accuracy"),
    "macro-f1": ("val_macro_f1", "macro-averaged F1"),
    "log-loss": ("val_loss", "log loss"),
}


def check_select(select: str, num_classes: int, name: str = "select") -> None:
    """Raise unless it is a key of ``SELECT`` that can tell cells apart; the message calls it by its ``name``.

    Example:
      >>> check_select("recall", 10)
      Traceback (most recent call last):
      ...
      ValueError: select must be one of accuracy, mean-per-class, top-5, macro-f1, log-loss, got recall
    """
    if select not in SELECT:
        raise ValueError(f"{name} must be one of {', '.join(SELECT)}, got {select}")
    if select == "top-5" and num_classes <= 5:
        raise ValueError(f"{name} must be another than top-5 for five classes or fewer, got {num_classes}")


def empty_table(grid: Cells, **more: str) -> NDArray:
    """The table of a sweep before training; ``more`` columns, by their dtypes, are zero for the caller to fill.

    Example:
      >>> from jaxcls.grid import Grid
      >>> print(empty_table(Grid(lr=[0.1], reg=[0.0]))[["lr", "val_loss", "rank"]])
      [(0.1, nan, 0)]
    """
    axes = [(axis, AXES[axis]) for axis in grid.axes]
    integers = ("diverged_at", "stopped_at", "rank")
    columns = [*axes, *((name, "f8") for name in SCORES), *((name, "i8") for name in integers), *more.items()]
    table = np.zeros(len(grid), columns)
    for name, values in grid.columns().items():
        table[name] = values
    for name in SCORES:
        table[name] = np.nan
    table["diverged_at"] = table["stopped_at"] = -1
    return table


def scores(on_train: Score, on_val: Score) -> Scores:
    """The scores in the table, from those over train and over val.

    Example:
      >>> from jaxcls.train import Score
      >>> score = Score(np.float32(0.5), np.array(5), np.array([3, 1, 0]), np.array([4, 1, 0]), np.array([3, 2, 0]))
      >>> scores(score, score).val_accuracy.item(), scores(score, score).val_mean_per_class.item()
      (0.8, 0.75)
    """
    train_loss, _, train_correct, _, train_examples = map(np.asarray, on_train)
    val_loss, num_top5, num_correct, num_predicted, num_examples = map(np.asarray, on_val)
    return Scores(
        train_loss=train_loss,
        train_accuracy=train_correct.sum(-1) / train_examples.sum(-1),
        val_loss=val_loss,
        val_accuracy=num_correct.sum(-1) / num_examples.sum(-1),
        val_mean_per_class=mean_per_class(num_correct, num_examples),
        val_top5=num_top5 / num_examples.sum(-1),
        val_macro_f1=f1(num_correct, num_predicted, num_examples),
    )


def merit(table: NDArray | Mapping[str, NDArray], select: str) -> NDArray[np.floating]:
    """A key of ``SELECT``, of a table or another collection of its columns, as numbers to be maximised.

    Example:
      >>> print(merit({"val_loss": np.array([0.3, 0.1])}, "log-loss"))
      [-0.3 -0.1]
    """
    values = table[SELECT[select][0]]
    return -values if select == "log-loss" else values


def ranks(
    accuracy: NDArray[np.floating], loss: NDArray[np.floating], steps: NDArray[np.integer] | None = None
) -> NDArray[np.integer]:
    """1 for the highest accuracy, ties broken by the lower loss, then by order; 0 where there is no finite loss.

    More steps, if given, come before a higher accuracy.

    Example:
      >>> print(ranks(np.array([0.9, 0.8, 0.9, np.nan]), np.array([0.3, 0.2, 0.1, np.nan])))
      [2 3 1 0]
    """
    scored = np.flatnonzero(np.isfinite(loss))
    accuracy = np.round(accuracy, 12)  # of a mean over folds, the last bits depend on their order
    before = np.zeros(len(loss)) if steps is None else -steps
    order = scored[np.lexsort((scored, loss[scored], -accuracy[scored], before[scored]))]
    found = np.zeros(len(loss), int)
    found[order] = np.arange(len(order)) + 1
    return found


def rank_rows(table: NDArray, select: str = "accuracy") -> None:
    """Enter the ranks of a table's rows, by a key of ``SELECT`` and the loss on val."""
    out = dropped(table)
    steps = np.where(out, table["stopped_at"], np.iinfo(int).max) if out.any() else None
    table["rank"] = ranks(merit(table, select), table["val_loss"], steps)


def best_row(table: NDArray) -> int | None:
    """The row of rank 1; None if every cell diverged, but for those that halving dropped.

    Example:
      >>> from jaxcls.grid import Grid
      >>> table = empty_table(Grid(lr=[0.1, 0.2], reg=[0.0]))
      >>> table["rank"] = 2, 1
      >>> best_row(table)
      1
    """
    return next(iter(np.flatnonzero((table["rank"] == 1) & ~dropped(table)).tolist()), None)


def best_first(rank: NDArray[np.integer]) -> NDArray[np.intp]:
    """Rows in the order of their ranks, then those without rank in grid order.

    Example:
      >>> print(best_first(np.array([2, 0, 1, 0])))
      [2 0 1 3]
    """
    return np.argsort(np.where(rank > 0, rank, len(rank) + 1), kind="stable")


def dropped(table: NDArray) -> NDArray[np.bool_]:
    """Mask of the rows that halving dropped, whose scores are those of a rung, on val alone.

    Example:
      >>> from jaxcls.grid import Grid
      >>> table = empty_table(Grid(lr=[0.1, 0.2], reg=[0.0]))
      >>> table["stopped_at"] = 100, -1
      >>> print(dropped(table))
      [ True False]
    """
    if "stopped_at" not in (table.dtype.names or ()):  # of estimators, or of a run where none was
        return np.zeros(len(table), bool)
    return (table["stopped_at"] >= 0) & np.isnan(table["train_loss"])


def tied(table: NDArray, select: str = "accuracy") -> NDArray[np.intp]:
    """Rows that share the highest value of a key of ``SELECT``, so that their validation loss decides among them.

    Example:
      >>> from jaxcls.grid import Grid
      >>> table = empty_table(Grid(lr=[0.1, 0.2, 0.3], reg=[0.0]))
      >>> table["val_accuracy"] = 0.9, 0.8, 0.9
      >>> print(tied(table))
      [0 2]
    """
    values = np.where(dropped(table), np.nan, np.round(merit(table, select), 12))  # as `ranks` compares them
    return np.flatnonzero(values == np.max(values, initial=-np.inf, where=~np.isnan(values)))


def edges(grid: Cells, table: NDArray, select: str = "accuracy") -> dict[str, tuple[int | float, ...]]:
    """Axes on whose boundary the best cell lies, each with values to try next, as `jaxcls.grid.Grid.beyond` has them.

    An axis along which the best cell ties with another is left out: more of its values would tell nothing.

    Example:
      >>> from jaxcls.grid import Grid
      >>> grid = Grid(lr=[0.1, 0.2], reg=[0.0])
      >>> table = empty_table(grid)
      >>> table["rank"], table["val_accuracy"] = [2, 1], [0.8, 0.9]
      >>> edges(grid, table)
      {'lr': (0.2, 0.4, 0.8)}
      >>> table["val_accuracy"] = 0.9
      >>> edges(grid, table)
      {}
    """
    beyond, ties = grid.beyond(int(np.argmax(table["rank"] == 1))), table[tied(table, select)]
    return {axis: values for axis, values in beyond.items() if len(np.unique(ties[axis])) == 1}


def cv_results(
    cells: Sequence[Mapping[str, object]], rank: NDArray[np.integer], scores: Mapping[str, NDArray]
) -> dict[str, object]:
    """The dict ``cv_results_`` of scikit-learn's searches.

    Args:
      cells: the hyperparameters of each cell.
      rank: as `ranks` returns it; a cell without rank is last.
      scores: more columns, by their names.

    Example:
      >>> cv_results([{"reg": 0.1}, {"reg": 0.2}], np.array([1, 0]), {})["rank_test_score"].tolist()
      [1, 2]
    """
    return {
        "params": list(cells),
        **{f"param_{name}": np.ma.MaskedArray([cell[name] for cell in cells], mask=False) for name in cells[0]},
        **scores,
        "rank_test_score": np.where(rank > 0, rank, len(rank)),
    }
