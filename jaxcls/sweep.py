"""Train every cell of a grid, choose the best by validation, score it once on test."""

from collections.abc import Mapping, Sequence

import jax
import optax

from jaxcls import train
from jaxcls.classifier import LINEAR, Classifier
from jaxcls.data import Folds, Splits
from jaxcls.engine import (
    Callback,
    Feed,
    Figures,
    Halving,
    Keep,
    Plan,
    Program,
    Progress,
    Save,
    Snapshot,
    cells,
    continued,
    mesh,
    minibatches,
    program,
    training,
)
from jaxcls.engine import plan_sweep as plan
from jaxcls.grid import Cells
from jaxcls.numerics import pinned_generator
from jaxcls.optimizers import Optimizer
from jaxcls.result import SweepResult
from jaxcls.sampling import LastBatch, Sampling

__all__ = ["Figures", "Halving", "Keep", "Plan", "Snapshot", "continued", "execute", "plan", "run"]


def run(
    splits: Splits | Folds,
    grid: Cells,
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
    last_batch: LastBatch = "continued",
    stream: bool | None = None,
    keep: Keep = "last",
    halving: Halving | None = None,
    patience: int | None = None,
    ema: float | None = None,
    keep_state: bool = False,
) -> SweepResult:
    """Train every cell of ``grid`` on ``splits``.

    Args:
      splits: the data, prepared by a protocol of `jaxcls.data`; or in parts, for a grid with the axis ``fold``, whose
        folds `jaxcls.crossval` averages.
      grid: the cells, a `jaxcls.grid.Grid` or `jaxcls.grid.Points`.
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
        key of ``jaxcls.table.SELECT``.
      sampling, last_batch: how minibatches are drawn, see `jaxcls.sampling`.
      stream: whether the examples come to the device chunk by chunk, as they are needed, or lie there; the result is
        the same bit for bit. When not given, they come where they would take more than half of the memory.
      keep: the params of each cell that are its result: the ``last``, or the ``best`` on val, by ``select``, of those
        after the first step, each tenth of the steps from there, or each epoch with a history, and after the last.
      halving: after some steps, the best cells stay and the others leave, see `Halving`.
      patience: how many of these evaluations in a row without a better score end a cell's training; with
        ``keep="best"``.
      ema: the decay of an exponential moving average of each cell's params, such as 0.999, which is scored and kept
        instead of them.
      keep_state: whether the result has a snapshot, with the state of all cells that were trained to the end.

    Returns:
      A `SweepResult`. A cell that diverges is a result, not an error. Without a test set, as for folds, the test
      accuracy is NaN.

    Raises:
      ValueError: ``steps``, ``batch_size``, ``chunk_steps`` or ``patience`` is below 1; the grid has no lr or no seed;
        the grid has hidden sizes and the model none, or the reverse; the grid has folds and the data none, or the
        reverse; a history is asked of folds; a single cell does not fit in memory; the optimizer branches on lr; the
        snapshot is of another sweep; halving has too few cells, or rungs that are not of the steps; ``select`` is
        unknown, or top-5 of five classes or fewer; or JAX is tracing, a mesh is set, or `jax.disable_jit` is on.
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
        last_batch=last_batch,
        stream=stream,
        keep=keep,
        halving=halving,
        patience=patience,
        ema=ema,
        keep_state=keep_state,
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
    with progress.timed("compile_s"):
        feed, ahead = Feed(on, splits, stream=plan.stream), None
    for stage in range(progress.stage, len(plan.schedule.stages)):
        with progress.timed("compile_s"):
            if ahead:
                ahead()
            of_groups = {stack.group: stack for block in progress.blocks for stack in block}  # of one shape each
            compiling = {k: program.build(on, plan, stage, stack, feed) for k, stack in of_groups.items()}
            programs = {k: wait() for k, wait in compiling.items()}
            if progress.at_rung:  # what follows is compiled while this stage trains
                ahead = program.build_ahead(on, plan, stage + 1, plan.expected_stacks(progress.alive), feed)
        if stage == progress.begin.stage:
            progress.report(progress.begin.block, progress.begin.step, lambda: progress.begin.state)
        for number in progress.remaining:
            _train(progress, number, programs)
        progress.end_stage()
    with progress.timed("evaluate_s"):
        problem = plan.groups[0].problem
        params = cells.params(problem, progress.best) if progress.best else None
        test = train.on_test(problem.classifier, params, splits)
    return progress.result(params, test)


def _train(progress: Progress, number: int, programs: Mapping[int, Program]) -> None:
    """Train a block for a stage, its stacks on the same minibatches, and score the cells that leave."""
    plan, block = progress.plan, progress.blocks[number]
    of_stacks = [programs[stack.group] for stack in block]
    with progress.timed("run_s"):
        leaves = progress.take_leaves(number, [compiled.gather for compiled in of_stacks])
        stacks = [training.Training.begin(*args) for args in zip(of_stacks, block, leaves, strict=True)]
        chunks, draw = progress.chunks(number), minibatches(plan, progress.data, block[0].rows)
        fed = of_stacks[0].feed.ahead(map(draw, chunks))
    for chunk in chunks:
        with progress.timed("run_s"):
            examples = next(fed)
            training.train(stacks, progress, chunk, examples)
        if plan.schedule.records(chunk[-1]):
            with progress.timed("evaluate_s"):
                (batch,) = draw(chunk[-1:])
                training.record(stacks, progress, chunk[-1], batch)
        progress.report(number, chunk.stop, lambda: [leaf for each in stacks for leaf in each.leaves()])
    with progress.timed("evaluate_s"):
        training.end(stacks, progress)
