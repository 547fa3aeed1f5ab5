"""The best linear probe for some features: every value of reg solved to convergence, the best by validation."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from jaxcls import logistic, ridge, softmax, train
from jaxcls.classifier import LINEAR
from jaxcls.data import Folds, Prepared, Split, Splits
from jaxcls.grid import Cells, Grid
from jaxcls.memory import available
from jaxcls.numerics import checks, compile_seconds, standardised
from jaxcls.result import SweepResult, Timings, total
from jaxcls.table import SCORES, best_row, check_select, empty_table, rank_rows, scores
from jaxcls.train import EVALUATION_BATCH, Score

# Columns beside those of a sweep.
MORE = {"gap": "f8", "gradient": "f8", "iterations": "i8", "converged": "?"}
REG = tuple(np.logspace(1, -9, 96).tolist())


def run(
    splits: Splits | Folds,
    reg: Sequence[float] = REG,
    *,
    class_weights: NDArray[np.floating] | None = None,
    tol: float | None = None,
    max_iterations: int = 1000,
    certify: bool = False,
    memory: int | None = None,
    select: str = "accuracy",
    stream: bool | None = None,
) -> SweepResult:
    """Solve the linear softmax classifier for every regularisation value, and choose the best by validation.

    Args:
      splits: the data, prepared by a protocol of `jaxcls.data`; or in folds, each of which is solved.
      reg: regularisation values of the L2 penalty; 96 from 10 to 1e-9 when not given.
      class_weights: weight of the examples of each class, ``[C]``, see `jaxcls.data.balanced`.
      tol, max_iterations, certify, memory: as in `jaxcls.logistic.path`.
      select, stream: as in `jaxcls.sweep.run`; a stream reads the examples once for each evaluation.

    Returns:
      A `SweepResult` whose table has four more columns, as in `jaxcls.logistic.Optimum`: ``gap``, ``gradient``,
      ``iterations`` and ``converged``. It has no losses during training. Of folds, solved one after another, it has no
      params and no test accuracy: `jaxcls.crossval` chooses by them.

    Raises:
      TypeError: the examples are not of JAX's default float.
      ValueError: a value is not above 0, or given twice; or a class weight is negative, or their number is not that
        of the classes; or ``select`` is unknown.

    Example:
      >>> from jaxcls import data
      >>> result = run(data.standard(data.load_digits()), reg=[1e-1, 1e-3, 1e-5])
      >>> result.table["converged"].all(), result.grid.cells()[result.best]
      (np.True_, {'reg': 0.001})
    """
    grid = Grid(lr=(), reg=reg, seed=(), fold=range(splits.num_folds))
    return search(
        splits,
        grid,
        class_weights=class_weights,
        tol=tol,
        max_iterations=max_iterations,
        certify=certify,
        memory=memory,
        select=select,
        stream=stream,
    )


def search(
    splits: Splits | Folds,
    grid: Cells,
    *,
    solver: str = "lbfgs",
    class_weights: NDArray[np.floating] | None = None,
    tol: float | None = None,
    max_iterations: int = 1000,
    certify: bool = False,
    memory: int | None = None,
    select: str = "accuracy",
    stream: bool | None = None,
) -> SweepResult:
    """`run` for the regularisation values and folds of a grid, as `jaxcls.crossval.run` calls it.

    With ``solver="ridge"``, for `jaxcls.ridge.path`, whose columns of `jaxcls.logistic.Optimum` are those of an exact
    solution, and whose losses are cross-entropies of its scores, without the penalty. It reads the examples block by
    block in any case.

    Raises:
      ValueError: the grid has other axes than ``reg``, and ``fold`` for folds; or there is no such solver,
        or ridge is given a tolerance.
    """
    if solver not in ("lbfgs", "ridge"):
        raise ValueError(f"solver must be lbfgs or ridge, got {solver!r}")
    if solver == "ridge" and (certify or tol is not None):
        raise ValueError("solver must be lbfgs for a tol or certify, as ridge is exact, got ridge")
    checks.folds(grid.fold, splits.num_folds)
    check_select(select, splits.num_classes)
    if class_weights is not None:
        checks.class_weights(class_weights, splits.num_classes)
    if (axes := [axis for axis in grid.axes if axis != "fold"]) != ["reg"]:
        raise ValueError(f"grid must have the axis reg alone for a solver, got {', '.join(axes)}")

    def solve(data: Splits) -> SweepResult:
        if solver == "ridge":
            path = functools.partial(_ridge, data.train.in_order(), class_weights, grid.reg, data.num_classes)
            return _solve(path, data, replace(grid, fold=()), select)
        path = functools.partial(
            _path,
            data.train.in_order(),
            stream=stream,
            class_weights=class_weights,
            reg=grid.reg,
            num_classes=data.num_classes,
            tol=tol,
            max_iterations=max_iterations,
            certify=certify,
            memory=memory,
        )
        return _solve(path, data, replace(grid, fold=()), select)

    return _folds(solve, splits, grid) if isinstance(splits, Folds) else solve(splits)


def _ridge(train: Split, class_weights: NDArray | None, reg: Sequence[float], num_classes: int) -> logistic.Optimum:
    """`ridge.path` of these examples, as exact optima."""
    weights = _weights(class_weights, train.y)
    W = ridge.path(Prepared(train), train.y, reg, num_classes=num_classes, weights=weights)
    zeros = np.zeros(len(reg))
    return logistic.Optimum(W, zeros * np.nan, zeros, zeros, zeros.astype(int) + 1, zeros == 0)


def _path(
    train: Split, *, stream: bool | None, class_weights: NDArray | None, memory: int | None, **options: Any
) -> logistic.Optimum:
    """`logistic.path` of these examples: raw where the device can standardise them, else prepared.

    They are read block by block where they would take more than half of the memory.
    """
    weights = _weights(class_weights, train.y)
    budget = available() if memory is None else memory
    if stream is None:
        stream = len(train) * train.num_features * train.dtype.itemsize > budget // 2
    moments = None if train.mean is None or train.scale is None else (train.mean, train.scale)
    X: Split | Prepared | NDArray
    if train.stays_raw:
        X = train if stream else train[:]
    else:
        X, moments = Prepared(train) if stream else train.X, None
    return logistic.path(X, train.y, moments=moments, weights=weights, memory=memory, **options)


def _weights(class_weights: NDArray | None, y: NDArray[np.integer]) -> NDArray | None:
    """The weight of each example, by its class."""
    return None if class_weights is None else class_weights[y]


def _solve(path: Callable[[], logistic.Optimum], splits: Splits, grid: Cells, select: str) -> SweepResult:
    """The values of a grid solved by ``path`` on train, and scored."""
    started = time.perf_counter()
    with compile_seconds() as in_solving:
        optimum = path()
    solved = time.perf_counter()
    table = empty_table(grid, **MORE)
    for name in MORE:
        table[name] = getattr(optimum, name)
    with compile_seconds() as in_scoring:
        (on_train, _), (on_val, right) = (_scores(optimum.W, split) for split in (splits.train, splits.val))
    penalised = np.where(np.isnan(optimum.loss), on_train.loss, optimum.loss)
    for name, values in scores(on_train._replace(loss=penalised), on_val)._asdict().items():
        table[name] = values
    rank_rows(table, select)
    best = best_row(table)
    W = None if best is None else optimum.W[..., best]
    test = train.on_test(LINEAR, W, splits)
    now = time.perf_counter()
    timings = Timings(
        compile_s=sum(in_solving) + sum(in_scoring),
        run_s=solved - started - sum(in_solving),
        evaluate_s=now - solved - sum(in_scoring),
        total_s=now - started,
    )
    found = _result(splits, grid, table, select=select, timings=timings, right=right)
    return replace(found, params=W, test=test, unit_length=splits.unit_length)


def _folds(solve: Callable[[Splits], SweepResult], folds: Folds, grid: Cells) -> SweepResult:
    """The folds of a grid solved one after another, as one result."""
    found = [solve(folds.split(fold)) for fold in grid.fold]
    table = empty_table(grid, **MORE)
    for column, each in zip(table.reshape(-1, len(found)).T, found, strict=True):  # fold is the last axis
        for name in (*SCORES, *MORE):
            column[name] = each.table[name]
    rank_rows(table, found[0].select)
    bits = [each.right for each in found if each.right is not None]
    right = np.zeros((len(table) // len(found), len(found), max(packed.shape[1] for packed in bits)), np.uint8)
    for fold, packed in enumerate(bits):
        right[:, fold, : packed.shape[1]] = packed
    timings, right = total(each.timings for each in found), right.reshape(len(table), -1)
    return _result(folds, grid, table, select=found[0].select, timings=timings, right=right)


def _result(
    data: Splits | Folds, grid: Cells, table: NDArray, *, select: str, timings: Timings, right: NDArray[np.uint8]
) -> SweepResult:
    """The result without params, and without losses during training."""
    return SweepResult(
        grid=grid,
        table=table,
        losses=np.zeros((len(grid), 0), jnp.result_type(float)),
        history=None,
        params=None,
        test=None,
        timings=timings,
        classifier=LINEAR,
        mean=data.mean,
        scale=data.scale,
        class_names=data.class_names,
        num_scored=data.num_scored,
        select=select,
        right=right,
    )


def _scores(W: NDArray, split: Split) -> tuple[Score, NDArray[np.uint8]]:
    """The `Score` of each cell of a stack, without penalty, and a bit for each example that it predicts rightly."""
    order, moments, found = split.order(np.arange(len(split))), split.moments(), []
    on_device, right = jnp.asarray(W), np.empty((W.shape[-1], len(split)), bool)
    for first in range(0, len(split), EVALUATION_BATCH):
        some = order[first : first + EVALUATION_BATCH]
        rows, shares = train.filled_up(some, EVALUATION_BATCH, len(split))
        score, is_right = jax.device_get(_score(on_device, split.stored(rows), split.y[rows], shares, moments))
        found.append(score)
        right[:, some] = is_right[:, : len(some)]
    return jax.tree.map(lambda *parts: np.sum(parts, axis=0), *found), np.packbits(right, axis=1)


@jax.jit  # at module level, with W an argument, so that all folds share one compiled function
def _score(W: Array, X: Array, y: Array, share: Array, moments: tuple[Array, Array] | None) -> tuple[Score, Array]:
    X = X.astype(W.dtype) if moments is None else standardised(X, *moments)
    no_penalty = jnp.zeros(W.shape[-1], W.dtype)
    return train.score(LINEAR, W, no_penalty, softmax.append_ones(X), y, share.astype(W.dtype))
