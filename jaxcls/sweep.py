"""Train every cell of a grid, pick the best on validation, score it once on test."""

import contextlib
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from numpy.typing import NDArray

from jaxcls import train
from jaxcls.classifier import LINEAR, Classifier
from jaxcls.data import Folds, Splits
from jaxcls.engine import (
    CELLS,
    Cells,
    Examples,
    Problem,
    Replicates,
    alignment,
    blocks,
    cells,
    fetch,
    groups,
    mesh,
    program,
    put,
    without_keys,
)
from jaxcls.grid import AXES, Grid
from jaxcls.memory import Memory, available
from jaxcls.numerics import checks, pinned_generator
from jaxcls.result import SCORES, History, SweepResult, Timings, empty_table, rank_rows
from jaxcls.train import Hyper, Optimizer, Score

Figures = dict[str, int | float]


class Part(NamedTuple):
    """Cells that share a program: what they have in common, what they take, their rows in blocks that fit."""

    problem: Problem
    need: Memory
    blocks: list[NDArray[np.integer]]


def plan(
    splits: Splits | Folds,
    grid: Grid,
    *,
    steps: int,
    batch_size: int = 200,
    classifier: Classifier = LINEAR,
    optimizer: Optimizer = optax.sgd,
    devices: Sequence[jax.Device] | None = None,
    memory: int | None = None,
) -> list[Part]:
    """How `run` is going to train the grid; takes and raises what it does.

    Example:
      >>> from jaxcls import data, grid
      >>> (part,) = plan(data.standard(data.load_digits()), grid.Grid(lr=[0.1, 1.0], reg=[0.0]), steps=100)
      >>> part.need.data, part.blocks[0].shape
      (403128, (1, 2))
    """
    checks.own_mesh("sweep.run")
    checks.default_float(splits.train.X.dtype)
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name in ("lr", "seed"):
        if not getattr(grid, name):
            raise ValueError(f"{name} must hold at least one value, got ()")
    if bool(grid.hidden) != bool(classifier.num_hidden_layers):
        raise ValueError(f"grid.hidden must be given for a net and for nothing else, got {grid.hidden}")
    checks.folds(grid.fold, splits.num_folds)
    budget = available() if memory is None else memory
    devices = devices or jax.local_devices()[:1]
    columns = alignment(devices)
    work = 2 * batch_size * splits.num_features * steps * len(grid) / max(len(grid.hidden), 1)
    together = groups(grid.hidden, work) or [()]
    if (columns > 1 or len(grid.hidden) > len(together)) and not cells.preserves_zero_padding(
        classifier, optimizer, splits.num_classes
    ):
        columns, together = 1, [(size,) for size in grid.hidden] or [()]
    common = functools.partial(cells.problem, splits, classifier=classifier, optimizer=optimizer, alignment=columns)
    need = functools.partial(cells.estimate, batch_size=batch_size)
    if grid.hidden:
        (data, one), (_, two) = need(common((1,))), need(common((2,)))
        largest = (budget - data - one) // (two - one) + 1
        if 1 <= largest < max(grid.hidden):
            raise ValueError(f"hidden must be at most {largest} for a net to fit in memory, got {max(grid.hidden)}")
    parts = []
    for group in together:
        problem = common(group)
        memory_need = need(problem)
        rows = blocks(grid, group, memory_need.fits(budget), num_devices=len(devices))
        parts.append(Part(problem, memory_need, rows))
    return parts


class Snapshot(NamedTuple):
    """A sweep between two chunks: what it has found, and all that it needs to go on as if it had never stopped.

    The arrays are the sweep's own, which it goes on to fill: read them before the function that took them returns.

    Attributes:
      table, losses: as `SweepResult` has them, NaN and rank 0 where a cell is not that far.
      train_accuracy, val_accuracy: as `History` has them, likewise; ``[cells, 0]`` where none is asked for.
      best: the leaves of the best params so far; none before a block is done.
      block: how many blocks are done.
      step: how many steps the one in training has behind it.
      state: the leaves of its cells' state; none at step 0.
      timings: where the time went so far.
      fingerprint: SHA-256 of the data and the batch size; empty before any is taken.
    """

    table: NDArray
    losses: NDArray[np.floating]
    train_accuracy: NDArray[np.floating]
    val_accuracy: NDArray[np.floating]
    best: list[NDArray]
    block: int
    step: int
    state: list[NDArray]
    timings: Timings
    fingerprint: str


@pinned_generator()
def run(
    splits: Splits | Folds,
    grid: Grid,
    *,
    steps: int,
    batch_size: int = 200,
    classifier: Classifier = LINEAR,
    optimizer: Optimizer = optax.sgd,
    history: bool = False,
    devices: Sequence[jax.Device] | None = None,
    chunk_steps: int = 100,
    memory: int | None = None,
    callback: Callable[[Figures], None] | None = None,
    save: Callable[[Callable[[], Snapshot]], None] | None = None,
    resume: Snapshot | None = None,
) -> SweepResult:
    """Train every cell of ``grid`` on ``splits``.

    Args:
      splits: the data, prepared by a protocol of `jaxcls.data`; or in parts, for a grid with the axis ``fold``, which
        `jaxcls.crossval` sums up.
      grid: the cells.
      steps: how many minibatches each cell is trained on.
      batch_size: examples in a minibatch, drawn with replacement.
      classifier: the model's pure functions.
      optimizer: ``lr -> optax.GradientTransformation``, as `optax.sgd` is; lr is traced, so a schedule has a peak of 1
        and is multiplied by it: ``lambda lr: optax.sgd(lambda count: lr * schedule(count))``.
      history: whether to record accuracies during training, as `History` says.
      devices: what to train on, the cells split evenly; `jax.devices` for all, of every process. One when not given.
      chunk_steps: the most steps between two looks at the run.
      memory: bytes to stay within on each device, training the grid in blocks if need be;
        `jaxcls.memory.available` when not given.
      callback: called with a row of figures when all is compiled, and after every chunk: ``step``, of ``steps``,
        counted over all blocks; ``cells`` in training; the median ``loss`` of those that are finite;
        ``diverged``, how many of them are not.
      save: called before each ``callback``, with a function that takes a `Snapshot`:
        `jaxcls.artifacts.checkpoint.Saver` writes it to disk. Whatever it raises ends the sweep.
      resume: a snapshot of this very sweep, to go on from, to the same result bit for bit.

    Returns:
      A `SweepResult`. A cell that diverges is a result, not an error. Of folds there is no test accuracy.

    Raises:
      ValueError: ``steps``, ``batch_size`` or ``chunk_steps`` is below 1, the grid has no lr or no seed, or hidden
        sizes and the model none or the other way about, or folds and the data none, or the data folds and a history
        is asked for, a single cell does not fit in memory, the optimizer looks at lr, or the snapshot is of another
        sweep; or JAX is tracing, a mesh is set, or `jax.disable_jit` is on.
      TypeError: the examples are not of JAX's default float.

    Example:
      >>> from jaxcls import data, grid, sweep
      >>> splits = data.standard(data.load_digits())
      >>> result = sweep.run(splits, grid.Grid(lr=[0.01, 0.1, 1e30], reg=[1e-3]), steps=300)
      >>> print(result.table["rank"])
      [2 1 0]
      >>> bool(result.table["val_accuracy"][result.best] > 0.9)
      True
    """
    if chunk_steps < 1:
        raise ValueError(f"chunk_steps must be at least 1, got {chunk_steps}")
    if history and isinstance(splits, Folds):
        raise ValueError("history must be of data that are split once, got folds")
    parts = plan(
        splits,
        grid,
        steps=steps,
        batch_size=batch_size,
        classifier=classifier,
        optimizer=optimizer,
        devices=devices,
        memory=memory,
    )
    on = mesh(devices or jax.local_devices()[:1])
    blocks = [(k, rows) for k, part in enumerate(parts) for rows in part.blocks]
    epoch = train.steps_per_epoch(len(splits.train.y), batch_size) if history else None
    chunks = _chunks(steps, chunk_steps, epoch)
    recorded = np.array(range(0, steps, epoch) if epoch else [], np.int64)
    begin = _initial_snapshot(grid, steps, len(recorded), parts[0].problem)
    fingerprint = functools.cache(functools.partial(_fingerprint, splits, batch_size))
    if resume is not None:
        begin = _resumed(resume, begin._replace(fingerprint=fingerprint()), len(blocks), chunks)
    table, losses, train_accuracy, val_accuracy, best, *_ = begin
    spent, started = begin.timings._asdict(), time.perf_counter()

    def look(block: int, step: int, leaves: Callable[[], list[NDArray]]) -> None:
        """Let others see how far it is."""

        def take() -> Snapshot:
            spent["total_s"] = begin.timings.total_s + time.perf_counter() - started
            now = begin._replace(best=best, block=block, step=step, state=leaves(), timings=Timings(**spent))
            return now._replace(fingerprint=fingerprint())

        if save:
            save(take)
        if callback:
            rows = np.unique(blocks[block][1])  # without those that fill it up
            callback(_figures(steps * len(blocks), steps * block + step, losses[rows, :step]))

    with _timed(spent, "compile_s"):
        examples = _examples(on, parts[0].problem, splits)
        programs = {
            k: program.build(
                on,
                parts[k].problem,
                _cells(on, table, parts[k].blocks[0], parts[k].problem),  # all blocks of a part are of one shape
                examples,
                lengths={len(chunk) for chunk in chunks},
                batch_size=batch_size,
                history=history,
            )
            for k in {k for k, _ in blocks[begin.block :]}
        }
    look(begin.block, begin.step, lambda: begin.state)
    for block in range(begin.block, len(blocks)):
        k, rows = blocks[block]
        runs, problem = programs[k], parts[k].problem
        hyper, size, replicates = _cells(on, table, rows, problem)
        behind = begin.step if block == begin.block else 0
        with _timed(spent, "run_s"):
            state = program.restore(runs, begin.state) if behind else runs.init(hyper, size, replicates)
        for chunk in (chunk for chunk in chunks if chunk.start >= behind):
            with _timed(spent, "run_s"):
                step = put(on, np.int32(chunk.start))
                state, found = runs.chunk[len(chunk)](state, hyper, replicates, step, examples)
                losses[rows, chunk.start : chunk.stop] = np.moveaxis(fetch(on, found), 0, -1)
            last = chunk.stop - 1
            if epoch and last % epoch == 0:
                with _timed(spent, "evaluate_s"):
                    step = put(on, np.int32(last))
                    num_correct = fetch(on, runs.record(state.params, hyper.reg, replicates, step, examples))
                    train_accuracy[rows, last // epoch] = num_correct[0] / batch_size
                    val_accuracy[rows, last // epoch] = num_correct[1] / problem.parts[-1]
            look(block, chunk.stop, functools.partial(_leaves, on, state))
        with _timed(spent, "evaluate_s"):
            scores = fetch(on, runs.evaluate(state.params, hyper.reg, replicates.held_out, examples))
            _enter_scores(table, rows, losses, scores, problem)
            rank_rows(table)
            if first := np.argwhere(table["rank"][rows] == 1).tolist():
                replicate, index = first[0]
                own = int(_sizes(table[rows[0]], problem)[index])
                best = _leaves(on, cells.take(problem, state.params, replicate, index, own))
    with _timed(spent, "evaluate_s"):
        tree = jax.tree.structure(cells.cell(parts[0].problem).params)
        params = jax.tree.unflatten(tree, best) if best else None
        test_accuracy = math.nan
        if params is not None and isinstance(splits, Splits):
            test_accuracy = train.accuracy(classifier, params, splits.test.X, splits.test.y)
    diverged_at = table["diverged_at"][:, None]
    for accuracy in (train_accuracy, val_accuracy):
        # The step before the one whose loss was not finite is the one that spoilt the params.
        accuracy[(diverged_at >= 0) & (recorded >= diverged_at - 1)] = np.nan
    along = History(recorded, train_accuracy, val_accuracy) if history else None
    spent["total_s"] = begin.timings.total_s + time.perf_counter() - started
    return SweepResult(grid, table, losses, along, params, test_accuracy, Timings(**spent))


def _initial_snapshot(grid: Grid, steps: int, recorded: int, problem: Problem) -> Snapshot:
    """The snapshot before the first step."""
    losses = np.full((len(grid), steps), np.nan, problem.dtype)
    train_accuracy, val_accuracy = np.full((2, len(grid), recorded), np.nan)
    no_time = Timings(0.0, 0.0, 0.0, 0.0)
    return Snapshot(empty_table(grid), losses, train_accuracy, val_accuracy, [], 0, 0, [], no_time, "")


def _fingerprint(data: Splits | Folds, batch_size: int) -> str:
    return hashlib.sha256(f"{data.fingerprint()} {batch_size}".encode()).hexdigest()


def _resumed(resume: Snapshot, begin: Snapshot, num_blocks: int, chunks: list[range]) -> Snapshot:
    """A copy of a snapshot for the sweep to fill, once it is known to be of one that begins like this."""
    table, losses, train_accuracy, val_accuracy = (np.array(array) for array in resume[:4])
    filled, expected = (table, losses, train_accuracy, val_accuracy), begin[:4]
    same = [(a.shape, a.dtype) for a in filled] == [(a.shape, a.dtype) for a in expected]
    axes = [axis for axis in AXES if axis in (begin.table.dtype.names or ())]
    same = same and all((table[axis] == begin.table[axis]).all() for axis in axes)
    same = same and resume.fingerprint == begin.fingerprint
    if not same or resume.block not in range(num_blocks) or resume.step not in {0, *(chunk.stop for chunk in chunks)}:
        raise ValueError(
            "resume must be a snapshot of this very sweep, got one of another grid, length, history, batch size or data"
        )
    return resume._replace(table=table, losses=losses, train_accuracy=train_accuracy, val_accuracy=val_accuracy)


def _examples(on: Mesh, problem: Problem, data: Splits | Folds) -> Examples:
    if isinstance(data, Folds):
        moments = (moment.astype(problem.dtype) for moment in (data.fold_mean, data.fold_scale))
        return Examples(*(put(on, array) for array in (data.train.X, data.train.y, *moments)))
    X, y = (np.concatenate([getattr(split, name) for split in (data.train, data.val)]) for name in ("X", "y"))
    return Examples(cells.features(problem, put(on, X)), put(on, y))


def _leaves(on: Mesh, tree: Any) -> list[NDArray]:
    return jax.tree.leaves(fetch(on, jax.tree.map(without_keys, tree)))


def _chunks(steps: int, chunk_steps: int, epoch: int | None) -> list[range]:
    """The steps of each chunk, at most ``chunk_steps``; where an epoch is given, cut behind the steps recorded."""
    chunks, first = [], 0
    for end in [*range(1, steps, epoch), steps] if epoch else [steps]:
        chunks += [range(start, min(start + chunk_steps, end)) for start in range(first, end, chunk_steps)]
        first = end
    return chunks


def _cells(on: Mesh, table: NDArray, rows: NDArray[np.integer], problem: Problem) -> Cells:
    """A block's hyperparameters, ``[G]`` each, which size each cell has, ``[G]``, and its replicates, ``[S]``."""
    first = table[rows[0]]
    by_cell = PartitionSpec(CELLS)
    lr, reg = (put(on, first[name].astype(problem.dtype), by_cell) for name in ("lr", "reg"))
    seeds = put(on, table["seed"][rows[:, 0]].astype(np.uint32))
    replicates = Replicates(jax.vmap(jax.random.key)(seeds), put(on, _held_out(table, rows, problem)))
    return Hyper(lr, reg), put(on, _sizes(first, problem), by_cell), replicates


def _held_out(table: NDArray, rows: NDArray[np.integer], problem: Problem) -> NDArray[np.int32]:
    """The part that each replicate validates on: its fold; without folds val, the last one."""
    if "fold" not in (table.dtype.names or ()):
        return np.full(len(rows), len(problem.parts) - 1, np.int32)
    return table["fold"][rows[:, 0]].astype(np.int32)


def _sizes(cells: NDArray, problem: Problem) -> NDArray[np.int32]:
    """Which of the problem's sizes each of these rows of the table has."""
    if "hidden" not in (cells.dtype.names or ()):
        return np.zeros(len(cells), np.int32)
    return np.searchsorted([sizes[1] for sizes in problem.sizes], cells["hidden"]).astype(np.int32)


def _enter_scores(
    table: NDArray,
    rows: NDArray[np.integer],
    losses: NDArray[np.floating],
    scores: tuple[Score, Score],
    problem: Problem,
) -> None:
    steps = losses.shape[1]
    num_val = np.array(problem.parts)[_held_out(table, rows, problem)]
    for name, score, count in zip(("train", "val"), scores, (sum(problem.parts) - num_val, num_val), strict=True):
        table[f"{name}_loss"][rows] = score.loss
        table[f"{name}_accuracy"][rows] = np.asarray(score.num_correct) / count[:, None]
    finite = np.isfinite(losses[rows])
    outcome = np.isfinite(table["train_loss"][rows] + table["val_loss"][rows])
    diverged_at = np.where(finite.all(axis=-1), np.where(outcome, -1, steps), np.argmin(finite, axis=-1))
    table["diverged_at"][rows] = diverged_at
    for name in SCORES:
        table[name][rows[diverged_at >= 0]] = np.nan


def _figures(steps: int, step: int, losses: NDArray[np.floating]) -> Figures:
    """What a callback is told: ``losses`` are those of the cells in training so far, ``[cells, steps]``."""
    last = losses[:, -1:]
    alive = last[np.isfinite(last)]
    return {
        "step": step,
        "steps": steps,
        "cells": len(losses),
        "loss": float(np.median(alive)) if alive.size else math.nan,
        "diverged": int(np.sum(~np.isfinite(losses).all(axis=1))),
    }


@contextlib.contextmanager
def _timed(spent: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - start
