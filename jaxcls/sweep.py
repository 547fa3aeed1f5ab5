"""Train every cell of a grid, choose the best by validation, score it once on test."""

import functools
from collections.abc import Sequence

import jax
import optax

from jaxcls import train
from jaxcls.classifier import LINEAR, Classifier
from jaxcls.data import Folds, Splits
from jaxcls.engine import (
    Callback,
    Feed,
    Figures,
    Keep,
    Plan,
    Progress,
    Save,
    Snapshot,
    cells,
    mesh,
    minibatches,
    program,
)
from jaxcls.engine import plan_sweep as plan
from jaxcls.grid import Grid
from jaxcls.numerics import pinned_generator
from jaxcls.optimizers import Optimizer
from jaxcls.result import SweepResult
from jaxcls.sampling import Sampling

__all__ = ["Figures", "Keep", "Plan", "Snapshot", "execute", "plan", "run"]


def run(
    splits: Splits | Folds,
    grid: Grid,
    *,
    steps: int,
    batch_size: int = 200,
    classifier: Classifier = LINEAR,
    optimizer: str | Optimizer = optax.sgd,
    history: bool = False,
    devices: Sequence[jax.Device] | None = None,
    chunk_steps: int = 100,
    memory: int | None = None,
    callback: Callback | None = None,
    save: Save | None = None,
    resume: Snapshot | None = None,
    select: str = "accuracy",
    sampling: Sampling = "replacement",
    stream: bool | None = None,
    keep: Keep = "last",
) -> SweepResult:
    """Train every cell of ``grid`` on ``splits``.

    Args:
      splits: the data, prepared by a protocol of `jaxcls.data`; or in parts, for a grid with the axis ``fold``, whose
        folds `jaxcls.crossval` averages.
      grid: the cells.
      steps: minibatches that each cell trains on.
      batch_size: examples in a minibatch.
      classifier: the model's pure functions.
      optimizer: a name in ``jaxcls.optimizers.OPTIMIZERS``, or ``lr -> optax.GradientTransformation``, as `optax.sgd`,
        with the grid's other axes of the optimizer as keyword arguments; all are traced.
        `jaxcls.optimizers.scheduled` gives it a schedule.
      history: whether to record accuracies during training, see `jaxcls.result.History`.
      devices: what to train on, the cells split evenly; `jax.devices` for all, of every process. One when not given.
      chunk_steps: the most steps between host synchronisations.
      memory: bytes to stay within on each device, training the grid in blocks if need be;
        `jaxcls.memory.available` when not given.
      callback: called with a row of figures after compilation and after every chunk: ``step``, of ``steps``,
        counted over all blocks; ``cells`` in training; the median ``loss`` of those that are finite;
        ``diverged``, the number of those that are not.
      save: called before each ``callback``, with a function that takes a `Snapshot`:
        `jaxcls.artifacts.checkpoint.Saver` writes it to disk. An exception that it raises ends the sweep.
      resume: a snapshot of this very sweep, to resume from, to the same result bit for bit.
      select: what ranks the cells on val: ``accuracy``, ``mean-per-class``, ``top-5``, ``macro-f1`` or ``log-loss``, a
        key of ``jaxcls.result.SELECT``.
      sampling: how minibatches are drawn, see `jaxcls.sampling`.
      stream: whether the examples come to the device chunk by chunk, as they are needed, or lie there; the result is
        the same bit for bit. When not given, they come where they would take more than half of the memory.
      keep: the params of each cell that are its result: the ``last``, or the ``best`` on val, by ``select``, of those
        after the first step, each tenth of the steps from there, or each epoch with a history, and after the last.

    Returns:
      A `SweepResult`. A cell that diverges is a result, not an error. Without a test set, as for folds, the test
      accuracy is NaN.

    Raises:
      ValueError: ``steps``, ``batch_size`` or ``chunk_steps`` is below 1; the grid has no lr or no seed; the grid has
        hidden sizes and the model none, or the reverse; the grid has folds and the data none, or the reverse; a
        history is asked of folds; a single cell does not fit in memory; the optimizer branches on lr; the snapshot is
        of another sweep; ``select`` is unknown, or top-5 of five classes or fewer; or JAX is tracing, a mesh is set,
        or `jax.disable_jit` is on.
      TypeError: the examples are not of JAX's default float, or an argument has the wrong type.

    Example:
      >>> from jaxcls import data, grid, sweep
      >>> splits = data.standard(data.load_digits())
      >>> result = sweep.run(splits, grid.Grid(lr=[0.01, 0.1, 1e30], reg=[1e-3]), steps=300)
      >>> print(result.table["rank"])
      [2 1 0]
      >>> bool(result.table["val_accuracy"][result.best] > 0.9)
      True
    """
    planned = plan(
        splits,
        grid,
        steps=steps,
        batch_size=batch_size,
        classifier=classifier,
        optimizer=optimizer,
        history=history,
        devices=devices,
        chunk_steps=chunk_steps,
        memory=memory,
        sampling=sampling,
        stream=stream,
        keep=keep,
    )
    return execute(planned, splits, callback=callback, save=save, resume=resume, select=select)


@pinned_generator()
def execute(
    plan: Plan,
    splits: Splits | Folds,
    *,
    callback: Callback | None = None,
    save: Save | None = None,
    resume: Snapshot | None = None,
    select: str = "accuracy",
) -> SweepResult:
    """Train the cells of a plan on the data that it was made for; the other arguments are those of `run`.

    Example:
      >>> from jaxcls import data, grid, sweep
      >>> splits = data.standard(data.load_digits())
      >>> planned = sweep.plan(splits, grid.Grid(lr=[0.1], reg=[0.0]), steps=100)
      >>> sweep.execute(planned, splits).losses.shape
      (1, 100)
    """
    progress, on = Progress(plan, splits, callback, save, resume, select), mesh(plan.devices)
    begin, blocks, problem = progress.begin, progress.blocks, plan.groups[0].problem
    with progress.timed("compile_s"):
        feed = Feed(on, splits, stream=plan.stream)
        remaining = {block.group for block in blocks[begin.block :]}
        programs = {group: program.build(on, plan, group, feed) for group in remaining}
    progress.report(begin.block, begin.step, lambda: begin.state)

    for number, (group, rows) in enumerate(blocks[begin.block :], begin.block):
        compiled, chunks = programs[group], progress.remaining(number)
        with progress.timed("run_s"):
            block = compiled.inputs(rows)
            resumed = number == begin.block and begin.step > 0
            if resumed:
                state, kept = compiled.restore(begin.state)
            else:
                state = compiled.init(block)
                kept = compiled.nothing_kept(state)
            draw = minibatches(plan, splits, rows)
            fed = feed.ahead(map(draw, chunks))
        for chunk in chunks:
            with progress.timed("run_s"):
                state, losses = compiled.train(state, block, next(fed))
                progress.enter_losses(rows, chunk, losses)
            if plan.schedule.records(chunk[-1]):
                with progress.timed("evaluate_s"):
                    (batch,) = draw(chunk[-1:])
                    on_batch, on_val = compiled.record(state, block, batch)
                    progress.enter_accuracies(rows, chunk[-1], on_batch, on_val.val_accuracy)
                    kept = compiled.keep(kept, state, on_val, select)
            progress.report(number, chunk.stop, functools.partial(compiled.leaves, (state, kept)))
        with progress.timed("evaluate_s"):
            scores, right = compiled.evaluate(state, block)
            if kept := compiled.keep(kept, state, scores, select):
                state = state._replace(params=kept.params)
                scores, right = compiled.evaluate(state, block)
            best = progress.enter_scores(rows, scores, right)
            if best is not None:
                progress.best = compiled.take(state, rows, best)

    with progress.timed("evaluate_s"):
        params = cells.params(problem, progress.best) if progress.best else None
        test = train.on_test(problem.classifier, params, splits)
    return progress.result(params, test)
