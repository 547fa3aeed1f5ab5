"""Train every cell of a grid, pick the best on validation, score it once on test."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from numpy.typing import NDArray

from jaxcls import train, wide
from jaxcls.classifier import LINEAR, Classifier, Params
from jaxcls.data.splits import Split, Splits
from jaxcls.grid import Grid
from jaxcls.memory import available, estimate
from jaxcls.train import Hyper, Optimizer, Score
from jaxcls.wide import Problem

Figures = dict[str, int | float]
SCORES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
COLUMNS = {"lr": "f8", "reg": "f8", "seed": "i8", **dict.fromkeys(SCORES, "f8"), "diverged_at": "i8", "rank": "i8"}


class Timings(NamedTuple):
    """Where a sweep's seconds went."""

    compile_s: float
    run_s: float
    evaluate_s: float
    total_s: float


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep found.

    Attributes:
      grid: the grid.
      table: a structured array, one row per cell in grid order, with the columns

        - ``lr``, ``reg``, ``seed``: the cell;
        - ``train_loss``: over all of train after the last step, penalty included;
        - ``val_loss``: the cross-entropy over val, without penalty;
        - ``train_accuracy``, ``val_accuracy``: fractions;
        - ``diverged_at``: the first step whose loss was not finite, or -1; a diverged cell's scores are NaN;
        - ``rank``: 1 for the highest validation accuracy, ties broken by lower validation loss, then by grid
          order; 0 for a diverged cell.
      losses: the minibatch loss before each step, penalty included, ``[cells, steps]``.
      params: the best cell's, on the host; None if every cell diverged.
      test_accuracy: the best cell's, which alone sees the test set; NaN if every cell diverged.
      timings: where the time went.
    """

    grid: Grid
    table: NDArray
    losses: NDArray[np.floating]
    params: Params | None
    test_accuracy: float
    timings: Timings

    @property
    def best(self) -> int | None:
        """The row of the best cell; None if every cell diverged."""
        return next(iter(np.flatnonzero(self.table["rank"] == 1).tolist()), None)


def run(
    splits: Splits,
    grid: Grid,
    *,
    steps: int,
    batch_size: int = 200,
    classifier: Classifier = LINEAR,
    optimizer: Optimizer = optax.sgd,
    chunk_steps: int = 100,
    memory: int | None = None,
    callback: Callable[[Figures], None] | None = None,
) -> SweepResult:
    """Train every cell of ``grid`` on ``splits``.

    Args:
      splits: the data, prepared by a protocol of `jaxcls.data`.
      grid: the cells.
      steps: how many minibatches each cell is trained on.
      batch_size: examples in a minibatch, drawn with replacement.
      classifier: the model's pure functions.
      optimizer: ``lr -> optax.GradientTransformation``, as `optax.sgd` is.
      chunk_steps: steps between two looks at the run.
      memory: bytes to stay within, training the grid in blocks if need be; `jaxcls.memory.available` when not given.
      callback: called with a row of figures when all is compiled, and after every chunk: ``step``, of ``steps``,
        counted over all blocks; ``cells`` in training; the median ``loss`` of those that are finite;
        ``diverged``, how many of them are not.

    Returns:
      A `SweepResult`. A cell that diverges is a result, not an error.

    Raises:
      ValueError: ``steps``, ``batch_size`` or ``chunk_steps`` is below 1, or a single cell does not fit in memory.

    Example:
      >>> from jaxcls import data, grid, sweep
      >>> splits = data.standard(data.load_digits())
      >>> result = sweep.run(splits, grid.Grid(lr=[0.01, 0.1, 1e30], reg=[1e-3]), steps=300)
      >>> print(result.table["rank"])
      [2 1 0]
      >>> bool(result.table["val_accuracy"][result.best] > 0.9)
      True
    """
    for name, value in (("steps", steps), ("batch_size", batch_size), ("chunk_steps", chunk_steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    problem = Problem(classifier, optimizer, splits.num_features, splits.num_classes, splits.train.X.dtype)
    need = estimate(splits, batch_size=batch_size, classifier=classifier, optimizer=optimizer)
    blocks = _blocks(grid, need.fits(available() if memory is None else memory))
    table = np.array([(*cell, *[np.nan] * len(SCORES), -1, 0) for cell in grid.cells()], list(COLUMNS.items()))
    losses = np.full((len(grid), steps), np.nan, problem.dtype)
    lengths = [min(chunk_steps, steps - first) for first in range(0, steps, chunk_steps)]
    callback = callback or (lambda row: None)
    params: Params | None = None
    spent = dict.fromkeys(Timings._fields, 0.0)

    with _timed(spent, "total_s"):
        with _timed(spent, "compile_s"):
            train_set, val_set = (jax.device_put((split.X, split.y)) for split in (splits.train, splits.val))
            program = _compile(problem, *_cells(table, blocks[0], problem), train_set, val_set, lengths, batch_size)
        callback(_figures(len(blocks) * steps, 0, losses[blocks[0], :0]))
        for number, rows in enumerate(blocks):
            hyper, keys = _cells(table, rows, problem)
            with _timed(spent, "run_s"):
                state, first = program.init(hyper, keys), 0
                for length in lengths:
                    state, chunk = program.chunk[length](state, hyper, keys, jnp.int32(first), *train_set)
                    losses[rows, first : first + length] = np.moveaxis(np.asarray(chunk), 0, -1)
                    first += length
                    callback(_figures(len(blocks) * steps, number * steps + first, losses[rows, :first]))
            with _timed(spent, "evaluate_s"):
                scores = program.evaluate(state.params, hyper.reg, train_set, val_set)
                _enter_scores(table, rows, losses, scores, splits)
                _enter_ranks(table)
                if best := np.argwhere(table["rank"][rows] == 1).tolist():
                    params = jax.device_get(wide.take(problem, state.params, *best[0]))
        with _timed(spent, "evaluate_s"):
            test_accuracy = math.nan if params is None else _accuracy(classifier, params, splits.test)
    return SweepResult(grid, table, losses, params, test_accuracy, Timings(**spent))


def _accuracy(classifier: Classifier, params: Params, split: Split) -> float:
    """The fraction of a `Split` that one model predicts right."""
    score = functools.partial(train.score, classifier, params, jnp.zeros(()))
    num_correct = jax.jit(functools.partial(train.evaluate, score))(split.X, split.y).num_correct
    return int(num_correct) / len(split.y)


class _Program(NamedTuple):
    """What a block of cells runs, compiled."""

    init: Callable[..., Any]
    chunk: Mapping[int, Callable[..., Any]]  # by its number of steps
    evaluate: Callable[..., Any]


def _compile(
    problem: Problem,
    hyper: Hyper,
    keys: Array,
    train_set: tuple[Array, Array],
    val_set: tuple[Array, Array],
    lengths: list[int],
    batch_size: int,
) -> _Program:
    def evaluate(params: Params, reg: Array, train_set: Any, val_set: Any) -> tuple[Score, Score]:
        no_penalty = jnp.zeros_like(reg)
        return (
            wide.evaluate(problem, params, reg, *train_set),
            wide.evaluate(problem, params, no_penalty, *val_set),
        )

    init = jax.jit(functools.partial(wide.init, problem))
    state = jax.eval_shape(init, hyper, keys)
    chunk = functools.partial(wide.chunk, problem, batch_size=batch_size)
    # The state is donated: each chunk writes the new one over the old.
    chunks = {
        steps: jax.jit(functools.partial(chunk, steps=steps), donate_argnums=0)
        .lower(state, hyper, keys, jnp.int32(0), *train_set)
        .compile()
        for steps in set(lengths)
    }
    return _Program(
        init.lower(hyper, keys).compile(),
        chunks,
        jax.jit(evaluate).lower(state.params, hyper.reg, train_set, val_set).compile(),
    )


def _blocks(grid: Grid, fits: int) -> list[NDArray[np.integer]]:
    """The rows of each block, ``[S, G]``, all of one shape: whole replicates while they fit, else parts of one."""
    rows = np.arange(len(grid)).reshape(-1, len(grid.seed)).T
    num_seeds, num_pairs = rows.shape
    seeds = _even_parts(num_seeds, max(1, fits // num_pairs))
    pairs = _even_parts(num_pairs, fits)
    return [rows[np.ix_(s, p)] for s in seeds for p in pairs]


def _even_parts(count: int, limit: int) -> NDArray[np.integer]:
    """``range(count)`` in rows of at most ``limit``, all equally long: the last index fills up the last row.

    One shape means one compilation; a cell trained twice costs less than a second one.
    """
    number = -(-count // limit)
    length = -(-count // number)
    return np.minimum(np.arange(number * length), count - 1).reshape(number, length)


def _cells(table: NDArray, rows: NDArray[np.integer], problem: Problem) -> tuple[Hyper, Array]:
    """The hyperparameters of a block's cells, ``[G]`` each, and the keys of its replicates, ``[S]``."""
    lr, reg = (jnp.asarray(table[name][rows[0]], problem.dtype) for name in ("lr", "reg"))
    return Hyper(lr, reg), jax.vmap(jax.random.key)(jnp.asarray(table["seed"][rows[:, 0]], jnp.uint32))


def _enter_scores(
    table: NDArray,
    rows: NDArray[np.integer],
    losses: NDArray[np.floating],
    scores: tuple[Score, Score],
    splits: Splits,
) -> None:
    steps = losses.shape[1]
    for name, score, split in (("train", scores[0], splits.train), ("val", scores[1], splits.val)):
        table[f"{name}_loss"][rows] = score.loss
        table[f"{name}_accuracy"][rows] = np.asarray(score.num_correct) / len(split.y)
    finite = np.isfinite(losses[rows])
    outcome = np.isfinite(table["train_loss"][rows] + table["val_loss"][rows])
    diverged_at = np.where(finite.all(axis=-1), np.where(outcome, -1, steps), np.argmin(finite, axis=-1))
    table["diverged_at"][rows] = diverged_at
    for name in SCORES:
        table[name][rows[diverged_at >= 0]] = np.nan


def _enter_ranks(table: NDArray) -> None:
    scored = np.flatnonzero(np.isfinite(table["val_loss"]))
    order = scored[np.lexsort((scored, table["val_loss"][scored], -table["val_accuracy"][scored]))]
    table["rank"] = 0
    table["rank"][order] = np.arange(len(order)) + 1


def _figures(steps: int, step: int, losses: NDArray[np.floating]) -> Figures:
    """What a callback is told: ``losses`` are those of the block in training so far, ``[S, G, steps]``."""
    last = losses[..., -1:]
    alive = last[np.isfinite(last)]
    return {
        "step": step,
        "steps": steps,
        "cells": losses.shape[0] * losses.shape[1],
        "loss": float(np.median(alive)) if alive.size else math.nan,
        "diverged": int(np.sum(~np.isfinite(losses).all(axis=-1))),
    }


@contextlib.contextmanager
def _timed(spent: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - start
