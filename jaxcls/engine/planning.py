"""From the arguments of a sweep to its plan: checked, streamed or not, in groups that share a program, with rungs."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import jax
import numpy as np
import optax
from numpy.typing import NDArray

from jaxcls import optimizers, train
from jaxcls.classifier import LINEAR, Classifier
from jaxcls.data import Folds, Rows, Splits
from jaxcls.engine import cells
from jaxcls.engine import halving as halves
from jaxcls.engine.blocks import COMPILATION, groups
from jaxcls.engine.devices import alignment
from jaxcls.engine.halving import Halving
from jaxcls.engine.plan import Group, Keep, Plan, state_nbytes
from jaxcls.engine.schedule import Schedule
from jaxcls.grid import Cells, Grid, Points
from jaxcls.memory import Memory, available, host
from jaxcls.numerics import checks, pinned_generator
from jaxcls.optimizers import Optimizer
from jaxcls.sampling import LastBatch, Sampling, epoch_size

SMALL = 2**26  # bytes of examples that are read whole, though a short training draws but a few of them
CHUNK = 2**29  # bytes that streamed examples take
IN_FLIGHT = 4  # chunks: in training, read, being read, and the rows that this reads
LEAST_SCORED = 2000  # of the examples of train
LONG = 10 * COMPILATION  # the work of a sweep that its diverged cells leave after a tenth


class Loaded(NamedTuple):
    """The way of examples to a device: in chunks or not, the steps of a chunk, and the bytes that they take there."""

    stream: bool
    chunk_steps: int
    nbytes: int


@pinned_generator()
def plan_sweep(
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
    sampling: Sampling = "replacement",
    last_batch: LastBatch = "continued",
    stream: bool | None = None,
    keep: Keep = "last",
    halving: Halving | None = None,
    patience: int | None = None,
    ema: float | None = None,
    keep_state: bool = False,
    trained: int | None = None,
) -> Plan:
    """The plan that `jaxcls.sweep.run` follows, with its arguments and errors.

    ``trained`` is the number of steps of a finished sweep whose cells it trains further, see `jaxcls.sweep.continued`.

    Example:
      >>> from jaxcls import data, grid
      >>> planned = plan_sweep(data.standard(data.load_digits()), grid.Grid(lr=[0.1, 1.0], reg=[0.0]), steps=100)
      >>> planned.groups[0].memory.data, planned.blocks[0][0].rows.shape
      (397020, (1, 2))
    """
    checks.own_mesh("sweep.run")
    _check_cells(splits, grid, classifier)
    for name, value in (("steps", steps), ("batch_size", batch_size), ("chunk_steps", chunk_steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    num_train = min(splits.num_train(fold) for fold in grid.fold or (0,))  # in step, though folds differ in length
    drawn = epoch_size(num_train, batch_size, last_batch, sampling)
    batch_size = batch_size if drawn is None else min(batch_size, drawn)
    _check_kept(splits, keep, patience, ema, history)
    optimizer, devices = optimizers.as_optimizer(optimizer), devices or jax.local_devices()[:1]
    hyper = tuple(axis for axis in grid.axes if axis in train.Hyper._fields)
    cells.check_optimizer(
        cells.problem(splits, grid.hidden[:1], classifier=classifier, optimizer=optimizer, hyper=hyper)
    )
    columns, sizes = _padding(splits, grid, steps, batch_size, classifier, optimizer, devices, hyper)
    problem = functools.partial(
        cells.problem, splits, classifier=classifier, optimizer=optimizer, alignment=columns, hyper=hyper, ema=ema
    )
    budget = available() if memory is None else memory
    loaded = _loaded(splits, grid, budget, stream, steps, batch_size, chunk_steps)

    def need(hidden: tuple[int, ...]) -> Memory:
        return Memory(loaded.nbytes, cells.estimate(problem(hidden), batch_size=batch_size, keep=keep))

    _check_largest(grid, need, budget)
    of_sizes = [Group(problem(hidden), need(hidden), rows) for hidden, rows in _rows(grid, sizes)]
    epoch, every = -(-drawn // batch_size) if drawn and drawn % batch_size else None, None
    if history:
        every = epoch or optimizers.steps_per_epoch(len(splits.train.y), batch_size)
    elif keep == "best":
        every = max((trained or steps) // 10, 1)
        if epoch:  # else each chunk would have another length, and a program of its own
            every = max(round(every / epoch), 1) * epoch
    schedule = Schedule(steps, loaded.chunk_steps, every, epoch=epoch)
    if halving:
        halves.check(halving, grid.num_settings, splits.num_classes, steps)
        halving = _with_rungs(halving, schedule, grid)
    leaving = _leaving(schedule, halving, patience, trained)
    one_block = min(group.memory.fits(budget) for group in of_sizes) >= len(grid)
    if not leaving and one_block and _work(grid, splits, steps * batch_size) > LONG:
        leaving.add(schedule.chunk_steps * -(-steps // (10 * schedule.chunk_steps)))
    schedule = schedule._replace(rungs=tuple(sorted(step for step in leaving if step < steps)))
    if schedule.rungs and (states := state_nbytes(of_sizes, 1.0)) > host():
        raise ValueError(f"the states of all cells must fit in the host's memory of {host()} bytes, got {states} bytes")
    num_scored = splits.num_scored
    if splits.one_val:  # scoring takes 0.9 of the time of training on as many, and may take a tenth of it
        num_scored = min(num_scored, max(steps * batch_size // 9, LEAST_SCORED))
    return Plan(
        grid=grid,
        groups=of_sizes,
        schedule=schedule,
        batch_size=batch_size,
        devices=devices,
        memory=budget,
        num_scored=num_scored,
        sampling=sampling,
        epoch_size=drawn,
        stream=loaded.stream,
        keep=keep,
        halving=halving,
        patience=patience,
        ema=ema,
        keep_state=keep_state,
    )


def _check_cells(splits: Splits | Folds, grid: Cells, classifier: Classifier) -> None:
    """Raise unless this grid of this model can be trained on these data."""
    if not isinstance(splits, Splits | Folds):
        hint = "data.standard(data.from_arrays(X, y))"
        raise TypeError(f"splits must be prepared data, such as {hint}, got {type(splits).__name__}")
    if not isinstance(grid, Grid | Points):
        raise TypeError(
            f"grid must be a Grid or Points, such as Grid(lr=[0.1, 1.0], reg=[1e-3]), got {type(grid).__name__}"
        )
    for name in ("lr", "seed"):
        if not getattr(grid, name):
            raise ValueError(f"{name} must hold at least one value, got ()")
    if bool(grid.hidden) != bool(classifier.num_hidden_layers):
        raise ValueError(f"grid.hidden must be given for a net and for nothing else, got {grid.hidden}")
    checks.folds(grid.fold, splits.num_folds)


def _check_kept(splits: Splits | Folds, keep: Keep, patience: int | None, ema: float | None, history: bool) -> None:
    """Raise unless these data can be scored during training as asked for."""
    if keep not in get_args(Keep):
        raise ValueError(f"keep must be last or best, got {keep!r}")
    if keep == "best" and not splits.one_val:
        raise ValueError("keep must be last for folds, which are scored once, got best")
    if patience is not None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        if keep != "best":
            raise ValueError(f"keep must be best for a patience, whose cells keep their best weights, got {keep}")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema must lie between 0 and 1, got {ema}")
    if history and isinstance(splits, Folds):
        raise ValueError("history must be of data that are split once, got folds")


def _check_largest(grid: Cells, need: Callable[[tuple[int, ...]], Memory], budget: int) -> None:
    """Raise unless the widest net of a grid fits in memory."""
    if not grid.hidden:
        return
    (data, one), (_, two) = need((1,)), need((2,))
    largest = (budget - data - one) // (two - one) + 1
    if 1 <= largest < max(grid.hidden):
        raise ValueError(f"hidden must be at most {largest} for a net to fit in memory, got {max(grid.hidden)}")


def _loaded(
    splits: Splits | Folds, grid: Cells, budget: int, stream: bool | None, steps: int, batch_size: int, chunk_steps: int
) -> Loaded:
    """In chunks if so asked; or where they would take half of the memory, or are in files and few of them are drawn."""
    data, num_replicates = nbytes(splits), grid.num_replicates
    if stream is None:
        drawn = num_replicates * steps * batch_size
        in_files = isinstance(splits.examples.raw, Rows)
        stream = data > budget // 2 or (in_files and drawn < len(splits.examples) and data > SMALL)
    if not stream:
        return Loaded(stream, chunk_steps, data)
    row = data // len(splits.examples)
    of_step = IN_FLIGHT * num_replicates * batch_size * row
    chunk_steps = min(chunk_steps, max(min(budget // 2, CHUNK) // of_step, 1))
    scored = IN_FLIGHT * num_replicates * train.EVALUATION_BATCH * row
    return Loaded(stream, chunk_steps, max(chunk_steps * of_step, scored))


def _rows(grid: Cells, sizes: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], NDArray[np.integer]]]:
    """The hidden sizes of each group, with their rows of the grid, ``[S, G]``."""
    rows = np.arange(len(grid)).reshape(-1, grid.num_replicates).T  # replicates are the last axes
    hidden = grid.columns().get("hidden", np.empty(0))
    return [(size, rows[:, np.isin(hidden[rows[0]], size)] if size else rows) for size in sizes]


def _work(grid: Cells, data: Splits | Folds, num_examples: int) -> float:
    """Multiplications of a sweep whose cells train on so many examples each."""
    units = grid.columns().get("hidden", np.full(len(grid), data.num_classes))
    return 2.0 * num_examples * data.num_features * float(units.sum())


def _with_rungs(halving: Halving, schedule: Schedule, grid: Cells) -> Halving:
    """With its rungs, each at the end of a chunk that there is anyway, unless they were given."""
    unit = schedule.chunk_steps if schedule.steps >= 10 * schedule.chunk_steps else 1
    ends, found = (schedule.recorded + 1).tolist(), []
    for rung in halves.rungs(halving, grid.num_settings, schedule.steps, unit=unit):
        later = [end for end in ends if end >= rung and not halving.rungs]
        found.append(later[0] if later else rung)
    return halving._replace(rungs=tuple(dict.fromkeys(found)))


def _leaving(schedule: Schedule, halving: Halving | None, patience: int | None, trained: int | None) -> set[int]:
    """The numbers of steps after which cells may leave: at rungs, when out of patience, and where others ended before.

    Raises:
      ValueError: cells cannot be trained further from there.
    """
    rungs = set(halving.rungs) if halving else set()
    if trained is None:
        return rungs | (set((schedule.recorded + 1).tolist()) if patience else set())
    if not 0 < trained < schedule.steps:
        raise ValueError(f"steps must be more than the {trained} that cells were trained for, got {schedule.steps}")
    if patience or any(rung >= trained for rung in rungs):
        raise ValueError("cells that are trained further must have neither a patience nor more rungs")
    return rungs | {trained}


def nbytes(data: Splits | Folds) -> int:
    """Bytes of all examples on a device.

    Example:
      >>> from jaxcls import data
      >>> nbytes(data.standard(data.load_digits()))
      397020
    """
    return len(data.examples) * (data.examples.num_features * data.examples.stored_dtype.itemsize + 4)


def _padding(
    splits: Splits | Folds,
    grid: Cells,
    steps: int,
    batch_size: int,
    classifier: Classifier,
    optimizer: Optimizer,
    devices: Sequence[jax.Device],
    hyper: tuple[str, ...],
) -> tuple[int, list[tuple[int, ...]]]:
    """The alignment of X's columns, and the hidden sizes of each group; neither pads for an optimizer that sees it."""
    work = 2.0 * batch_size * splits.num_features * steps
    hidden, cells_of = np.unique(grid.columns().get("hidden", ()), return_counts=True)
    columns, sizes = (
        alignment(devices),
        groups(dict(zip(hidden.tolist(), cells_of.tolist(), strict=True)), work) or [()],
    )
    padded = columns > 1 or len(hidden) > len(sizes)
    if padded and not cells.preserves_zero_padding(classifier, optimizer, splits.num_classes, hyper):
        return 1, [(size,) for size in hidden.tolist()] or [()]
    return columns, sizes
