"""The plan of a sweep: which cells share a program, and which of them train together within the memory there is."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import jax
import numpy as np
import optax
from jaxtyping import Int
from numpy.typing import NDArray

from jaxcls import optimizers, train
from jaxcls.classifier import LINEAR, Classifier
from jaxcls.data import Folds, Rows, Splits
from jaxcls.engine import cells
from jaxcls.engine import halving as halves
from jaxcls.engine.blocks import COMPILATION, Block, Stack, groups, stacks
from jaxcls.engine.cells import Problem
from jaxcls.engine.devices import alignment
from jaxcls.engine.halving import Halving
from jaxcls.engine.schedule import Schedule
from jaxcls.grid import Cells, Grid, Points
from jaxcls.memory import Memory, available, host
from jaxcls.numerics import checks, pinned_generator
from jaxcls.optimizers import Optimizer
from jaxcls.sampling import Sampling, check
from jaxcls.sampling import minibatches as sampled

SMALL = 2**26  # bytes of examples that are read whole, though a short training draws but a few of them
CHUNK = 2**29  # bytes that streamed examples take
IN_FLIGHT = 4  # chunks: in training, read, being read, and the rows that this reads
LEAST_SCORED = 2000  # of the examples of train
LONG = 10 * COMPILATION  # the work of a sweep that its diverged cells leave after a tenth


Keep = Literal["last", "best"]  # params: after the last step, or of the evaluation with the best score on val


class Group(NamedTuple):
    """Cells that share a program.

    Attributes:
      problem: what they have in common.
      memory: bytes that they need.
      rows: of the grid, ``[S, G]``, a column for the replicates of each setting.
    """

    problem: Problem
    memory: Memory
    rows: NDArray[np.integer]


class Plan(NamedTuple):
    """The groups, blocks and steps by which a grid is trained.

    Attributes:
      grid: its cells.
      groups: one compiled program each.
      schedule: the steps of every block.
      batch_size: examples in a minibatch.
      devices: the cells of a block are split over these.
      memory: bytes that there are on each of them.
      num_scored: how many examples of train are scored after training.
      sampling: as `jaxcls.sampling` draws minibatches.
      stream: whether the examples come to the devices chunk by chunk.
      keep: the params of each cell that are its result.
      halving: who stays at each rung, of given steps; None for all.
      patience: the evaluations without a better score after which a cell's training ends; None for no end.
      ema: the decay of the params' moving average, which is scored instead of them; None for none.
      keep_state: whether the state of the cells is kept at the end.
    """

    grid: Cells
    groups: list[Group]
    schedule: Schedule
    batch_size: int
    devices: Sequence[jax.Device]
    memory: int
    num_scored: int
    sampling: Sampling = "replacement"
    stream: bool = False
    keep: Keep = "last"
    halving: Halving | None = None
    patience: int | None = None
    ema: float | None = None
    keep_state: bool = False

    def scored_rows(self, part: int) -> NDArray[np.integer]:
        """The examples of a part that are scored, always the same: all, but for a long train."""
        parts, scored = self.groups[0].problem.parts, self.scored_parts[part]
        if scored < parts[part]:
            return np.sort(np.random.default_rng(0).choice(parts[part], scored, replace=False))
        return sum(parts[:part]) + np.arange(parts[part])

    @property
    def scored_parts(self) -> tuple[int, ...]:
        """The number of examples of each part that are scored."""
        first, *others = self.groups[0].problem.parts
        return (min(first, self.num_scored), *others)

    @property
    def right_bytes(self) -> int:
        """Bytes of a bit for each example that a cell is validated on."""
        _, *validated = self.groups[0].problem.parts
        return -(-max(self.groups[0].problem.parts if self.grid.fold else validated) // 8)

    @property
    def blocks(self) -> list[Block]:
        """All blocks, in the order in which they train."""
        return self.blocks_of(np.ones(len(self.grid), bool))

    def blocks_of(self, alive: NDArray[np.bool_]) -> list[Block]:
        """The blocks of the settings that have a cell in this mask.

        Where examples are read while cells train, a block has as many stacks as fit, so that each is read once for all.
        """
        found: list[Block] = []
        for stack in self._stacks(alive):
            if found and self.stream and self._fit(together := Block((*found[-1], stack))):
                found[-1] = together
            else:
                found.append(Block((stack,)))
        return found

    def _fit(self, stacks: Block) -> bool:
        """True if stacks draw the same minibatches, and fit in memory together."""
        drawn = [(stack.rows[:, 0] % self.grid.num_replicates).tolist() for stack in stacks]
        of_device = self._nbytes(stacks) // len(self.devices)
        return all(each == drawn[0] for each in drawn) and self.groups[0].memory.data + of_device <= self.memory

    def _nbytes(self, stacks: Block) -> int:
        """Bytes of the cells of stacks."""
        return sum(stack.rows.size * self.groups[stack.group].memory.cell for stack in stacks)

    def _stacks(self, alive: NDArray[np.bool_]) -> list[Stack]:
        """The stacks of the settings that have a cell in this mask; of one group, all have one shape."""
        found = []
        for number, group in enumerate(self.groups):
            rows = group.rows[:, alive[group.rows].any(axis=0)]
            work = 2 * self.batch_size * cells.work(group.problem) * len(rows)
            widths = halves.widths(group.rows.shape[1], self.halving, work)
            if rows.size and (missing := min(each for each in widths if each >= rows.shape[1]) - rows.shape[1]):
                rows = np.pad(rows, [(0, 0), (0, missing)], mode="edge")
            fits = group.memory.fits(self.memory)
            found += [Stack(number, part) for part in stacks(rows, fits, num_devices=len(self.devices))]
        return found

    def expected_stacks(self, alive: NDArray[np.bool_]) -> list[Stack]:
        """Stacks of the shapes that are likely after the next rung: every group loses the same share."""
        if self.halving is None:
            return []
        likely = np.zeros(len(self.grid), bool)
        for group in self.groups:
            rows = group.rows[:, alive[group.rows].any(axis=0)]
            likely[rows[:, : halves.share(rows.shape[1], self.halving.keep)]] = True
        return self._stacks(likely)

    def steps_done(self, alive: NDArray[np.bool_], stage: int, block: int, step: int) -> tuple[int, int]:
        """The steps of all blocks so far, and those of the whole sweep; a later stage counts as much with fewer blocks.

        Args:
          alive: mask of the cells that this stage trains.
          stage, block: the number of stages that are done, and of the blocks of this one.
          step: that the next block has come to.
        """
        steps, first_blocks, blocks = self.schedule.stages[stage], len(self.blocks), len(self.blocks_of(alive))
        done = block * len(steps) + max(step - steps.start, 0)
        return steps.start * first_blocks + done * first_blocks // max(blocks, 1), self.schedule.steps * first_blocks

    @property
    def state_nbytes(self) -> int:
        """The most bytes that the state of the cells takes that are trained to the end."""
        return _state_nbytes(self.groups, self.halving.keep ** len(self.halving.rungs) if self.halving else 1.0)

    @property
    def nbytes(self) -> int:
        """Bytes of the data and of the largest block."""
        return self.groups[0].memory.data + max(map(self._nbytes, self.blocks))


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
    if not isinstance(splits, Splits | Folds):
        hint = "data.standard(data.from_arrays(X, y))"
        raise TypeError(f"splits must be prepared data, such as {hint}, got {type(splits).__name__}")
    if not isinstance(grid, Grid | Points):
        raise TypeError(
            f"grid must be a Grid or Points, such as Grid(lr=[0.1, 1.0], reg=[1e-3]), got {type(grid).__name__}"
        )
    chosen = optimizers.as_optimizer(optimizer)
    check(sampling)
    for name, value in (("steps", steps), ("batch_size", batch_size), ("chunk_steps", chunk_steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name in ("lr", "seed"):
        if not getattr(grid, name):
            raise ValueError(f"{name} must hold at least one value, got ()")
    if bool(grid.hidden) != bool(classifier.num_hidden_layers):
        raise ValueError(f"grid.hidden must be given for a net and for nothing else, got {grid.hidden}")
    checks.folds(grid.fold, splits.num_folds)
    if keep not in get_args(Keep):
        raise ValueError(f"keep must be last or best, got {keep!r}")
    if keep == "best" and isinstance(splits, Folds):
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
    devices = devices or jax.local_devices()[:1]
    hyper = tuple(axis for axis in grid.axes if axis in train.Hyper._fields)
    cells.check_optimizer(cells.problem(splits, grid.hidden[:1], classifier=classifier, optimizer=chosen, hyper=hyper))
    columns, sizes = _padding(splits, grid, steps, batch_size, classifier, chosen, devices, hyper)
    problem = functools.partial(
        cells.problem, splits, classifier=classifier, optimizer=chosen, alignment=columns, hyper=hyper, ema=ema
    )
    need = functools.partial(cells.estimate, batch_size=batch_size, keep=keep)
    budget = available() if memory is None else memory
    data = nbytes(splits)
    if stream is None:
        drawn = grid.num_replicates * steps * batch_size
        in_files = isinstance(splits.examples.raw, Rows)
        stream = data > budget // 2 or (in_files and drawn < len(splits.examples) and data > SMALL)
    if stream:
        row = data // len(splits.examples)
        of_step = IN_FLIGHT * grid.num_replicates * batch_size * row
        chunk_steps = min(chunk_steps, max(min(budget // 2, CHUNK) // of_step, 1))
        data = max(chunk_steps * of_step, IN_FLIGHT * grid.num_replicates * train.EVALUATION_BATCH * row)
    if grid.hidden:
        one, two = need(problem((1,))), need(problem((2,)))
        largest = (budget - data - one) // (two - one) + 1
        if 1 <= largest < max(grid.hidden):
            raise ValueError(f"hidden must be at most {largest} for a net to fit in memory, got {max(grid.hidden)}")
    all_rows = np.arange(len(grid)).reshape(-1, grid.num_replicates).T  # replicates are the last axes
    groups = []
    for hidden in sizes:
        estimate = Memory(data, need(problem(hidden)))
        rows = all_rows[:, np.isin(grid.columns()["hidden"][all_rows[0]], hidden)] if hidden else all_rows
        groups.append(Group(problem(hidden), estimate, rows))
    fits = min(group.memory.fits(budget) for group in groups)
    num_scored, every = len(splits.train.y), max((trained or steps) // 10, 1) if keep == "best" else None
    if history:
        every = optimizers.steps_per_epoch(num_scored, batch_size)
    schedule = Schedule(steps, chunk_steps, every)
    if halving:
        halving = _with_rungs(halving, schedule, grid)
    leaving = {*(halving.rungs if halving else ()), *((schedule.recorded + 1).tolist() if patience else ())}
    if trained is not None:
        if not 0 < trained < steps:
            raise ValueError(f"steps must be more than the {trained} that the cells were trained for, got {steps}")
        if patience or any(rung >= trained for rung in (halving.rungs if halving else ())):
            raise ValueError("cells that are trained further must have neither a patience nor more rungs")
        leaving.add(trained)
    if not leaving and _work(grid, splits, steps * batch_size) > LONG and fits >= len(grid):
        leaving.add(min(schedule.chunk_steps * -(-steps // (10 * schedule.chunk_steps)), steps))
    schedule = schedule._replace(rungs=tuple(sorted(leaving - {steps})))
    if schedule.rungs and (states := _state_nbytes(groups, 1.0)) > host():
        raise ValueError(f"the states of all cells must fit in the host's memory of {host()} bytes, got {states} bytes")
    if isinstance(splits, Splits):  # scoring takes 0.9 of the time of training on as many, and may take a tenth of it
        num_scored = min(num_scored, max(steps * batch_size // 9, LEAST_SCORED))
    return Plan(
        grid,
        groups,
        schedule,
        batch_size,
        devices,
        budget,
        num_scored,
        sampling,
        stream,
        keep,
        halving,
        patience,
        ema,
        keep_state,
    )


def _state_nbytes(groups: Sequence[Group], keep: float) -> int:
    """Bytes of the state of a share of the cells of each group."""
    return sum(halves.share(group.rows.size, keep) * cells.state_nbytes(group.problem) for group in groups)


def _work(grid: Cells, data: Splits | Folds, num_examples: int) -> float:
    """Multiplications of a sweep whose cells train on so many examples each."""
    units = grid.columns().get("hidden", np.full(len(grid), data.num_classes))
    return 2.0 * num_examples * data.num_features * float(units.sum())


def _with_rungs(halving: Halving, schedule: Schedule, grid: Cells) -> Halving:
    """With its rungs, each at the end of a chunk that there is anyway, unless they were given."""
    halves.check(halving, grid.num_settings, schedule.steps)
    unit = schedule.chunk_steps if schedule.steps >= 10 * schedule.chunk_steps else 1
    ends, found = (schedule.recorded + 1).tolist(), []
    for rung in halves.rungs(halving, grid.num_settings, schedule.steps, unit=unit):
        later = [end for end in ends if end >= rung and not halving.rungs]
        found.append(later[0] if later else rung)
    return halving._replace(rungs=tuple(dict.fromkeys(found)))


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


def minibatches(
    plan: Plan, data: Splits | Folds, rows: NDArray[np.integer]
) -> Callable[[range], Int[NDArray, "T S B"]]:
    """Draws the minibatches of some steps for a stack with these rows of the grid.

    Each replicate draws from the examples that it trains on.

    Example:
      >>> from jaxcls import data
      >>> splits, grid = data.standard(data.load_digits()), Grid(lr=[0.1, 1.0], reg=[0.0], seed=[0, 1])
      >>> planned = plan_sweep(splits, grid, steps=100)
      >>> minibatches(planned, splits, planned.blocks[0][0].rows)(range(10)).shape
      (10, 2, 200)
    """
    columns = plan.grid.columns()

    def of_replicate(first: int) -> Callable[[range], NDArray[np.integer]]:
        seed, fold = int(columns["seed"][first]), int(columns["fold"][first]) if plan.grid.fold else 0
        count = data.num_train(fold)
        of_examples: Callable[[NDArray[np.integer]], NDArray[np.integer]] = functools.partial(data.rows, fold)
        if plan.sampling == "blocks":  # which are to lie together
            own = of_examples(np.arange(count))
            of_examples = own[data.examples.order(own)].__getitem__
        draw = functools.partial(sampled, seed, batch_size=plan.batch_size, num_examples=count, sampling=plan.sampling)
        return lambda steps: of_examples(draw(steps))

    replicates = [of_replicate(first) for first in rows[:, 0].tolist()]
    return lambda steps: np.stack([draw(steps) for draw in replicates], axis=1)
