"""The best linear probe for some features: every value of reg solved to convergence, the best by validation."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from jaxcls import newton, softmax, train
from jaxcls.classifier import LINEAR
from jaxcls.data import Folds, Splits
from jaxcls.grid import Grid
from jaxcls.numerics import checks
from jaxcls.result import SCORES, SweepResult, Timings, empty_table, rank_rows, total
from jaxcls.train import Score

MORE = {"gap": "f8", "gradient": "f8", "iterations": "i8", "converged": "?"}  # columns, beside those of any sweep
REG = tuple(np.logspace(1, -9, 96).tolist())


def run(
    splits: Splits | Folds,
    grid: Grid | None = None,
    *,
    class_weights: NDArray[np.floating] | None = None,
    tol: float | None = None,
    max_iterations: int = 50,
) -> SweepResult:
    """Solve the softmax classifier for every value of reg: what `jaxcls.sweep.run` is for a solver.

    Args:
      splits: the data, prepared by a protocol of `jaxcls.data`; or in parts, for a grid with the axis ``fold``.
      grid: values of reg and nothing else, ``Grid(lr=(), reg=..., seed=())``; 96 from 10 to 1e-9 when not given.
      class_weights: what an example of each class counts, ``[C]``, as `jaxcls.data.balanced` has it.
      tol, max_iterations: as in `jaxcls.newton.path`.

    Returns:
      A `SweepResult` whose table has four more columns, as `jaxcls.newton.Optimum` has them: ``gap``, ``gradient``,
      ``iterations`` and ``converged``. It has no losses during training, and counts compilation as running. Of folds,
      solved one after another, it has no params and no test accuracy.

    Raises:
      TypeError: the examples are not of JAX's default float.
      ValueError: the grid has other axes than ``reg``, and ``fold`` for folds, a value is not above 0, or a class
        weight below it, or there is not one for each class.

    Example:
      >>> from jaxcls import data
      >>> result = run(data.standard(data.load_digits()), Grid(lr=(), reg=[1e-1, 1e-2, 1e-3], seed=()))
      >>> result.table["converged"].all(), result.grid.cells()[result.best]
      (np.True_, {'reg': 0.01})
    """
    started = time.perf_counter()
    grid = Grid(lr=(), reg=REG, seed=()) if grid is None else grid
    checks.default_float(splits.train.X.dtype)
    checks.folds(grid.fold, splits.num_folds)
    if class_weights is not None:
        checks.class_weights(class_weights, splits.num_classes)
    if isinstance(splits, Folds):
        search = functools.partial(run, class_weights=class_weights, tol=tol, max_iterations=max_iterations)
        return _each_fold(search, splits, grid)
    if list(grid.axes) != ["reg"]:
        raise ValueError(f"grid must have the axis reg alone for a solver, got {', '.join(grid.axes)}")
    weights = None if class_weights is None else class_weights[splits.train.y]
    optimum = newton.path(
        splits.train.X,
        splits.train.y,
        grid.reg,
        num_classes=splits.num_classes,
        weights=weights,
        tol=tol,
        max_iterations=max_iterations,
    )
    solved = time.perf_counter()
    table = empty_table(grid, **MORE)
    for name in MORE:
        table[name] = getattr(optimum, name)
    on_train, on_val = (_scores(optimum.W, split.X, split.y) for split in (splits.train, splits.val))
    table["train_loss"], table["val_loss"] = optimum.loss, on_val.loss
    table["train_accuracy"] = np.asarray(on_train.num_correct) / len(splits.train.y)
    table["val_accuracy"] = np.asarray(on_val.num_correct) / len(splits.val.y)
    rank_rows(table)
    best = int(np.argmax(table["rank"] == 1))
    test_accuracy = train.accuracy(LINEAR, optimum.W[..., best], splits.test.X, splits.test.y)
    now = time.perf_counter()
    timings = Timings(compile_s=0.0, run_s=solved - started, evaluate_s=now - solved, total_s=now - started)
    losses = np.zeros((len(grid), 0), optimum.W.dtype)
    return SweepResult(grid, table, losses, None, optimum.W[..., best], test_accuracy, timings)


def _each_fold(search: Callable[[Splits, Grid], SweepResult], folds: Folds, grid: Grid) -> SweepResult:
    found = [search(folds.split(fold), replace(grid, fold=())) for fold in grid.fold]
    table = empty_table(grid, **MORE)
    for column, each in zip(table.reshape(-1, len(found)).T, found, strict=True):  # fold is the last axis
        for name in (*SCORES, *MORE):
            column[name] = each.table[name]
    rank_rows(table)
    timings = total(each.timings for each in found)
    losses = np.zeros((len(grid), 0), found[0].losses.dtype)
    return SweepResult(grid, table, losses, None, None, math.nan, timings)


@jax.jit  # here, with W an argument: a function made in `run` would be compiled anew for every fold
def _scores(W: Array, X: Array, y: Array) -> Score:
    """The loss without penalty of each cell of a stack, and what it predicts right."""
    cells = jax.vmap(functools.partial(train.score, LINEAR), in_axes=(-1, None, None, None))
    return train.evaluate(functools.partial(cells, W, jnp.zeros(())), softmax.append_ones(X), y)
