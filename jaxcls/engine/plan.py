"""The plan of a sweep: which cells share a program, and which of them train together within the memory there is."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Int
from numpy.typing import NDArray

from jaxcls import train
from jaxcls.classifier import LINEAR, Classifier
from jaxcls.data import Folds, Splits
from jaxcls.engine import cells
from jaxcls.engine.cells import Problem
from jaxcls.engine.devices import alignment
from jaxcls.engine.schedule import Schedule
from jaxcls.grid import Grid
from jaxcls.memory import Memory, available
from jaxcls.numerics import checks, pinned_generator
from jaxcls.train import Optimizer

LEAST_SCORED = 2000  # of the examples of train
COMPILATION = 3e11  # multiplications that take about as long as compiling one more program


class Group(NamedTuple):
    """Cells that share a program.

    Attributes:
      problem: what they have in common.
      memory: bytes that they need.
      blocks: rows of the grid, ``[S, G]`` each, that train together; all of one shape.
    """

    problem: Problem
    memory: Memory
    blocks: list[NDArray[np.integer]]


class Block(NamedTuple):
    """Cells that train together: the number of their group, and their rows of the grid, ``[S, G]``."""

    group: int
    rows: NDArray[np.integer]


class Plan(NamedTuple):
    """The groups, blocks and steps by which a grid is trained.

    Attributes:
      grid: its cells.
      groups: one compiled program each.
      schedule: the steps of every block.
      batch_size: examples in a minibatch.
      devices: the cells of a block are split over these.
      num_scored: how many examples of train are scored after training.
    """

    grid: Grid
    groups: list[Group]
    schedule: Schedule
    batch_size: int
    devices: Sequence[jax.Device]
    num_scored: int

    @property
    def scored_rows(self) -> NDArray[np.int32] | None:
        """The rows of train that are scored, always the same; None for all."""
        num_train = self.groups[0].problem.parts[0]  # of folds, which are scored whole, the first part alone
        if self.num_scored >= num_train:
            return None
        rows = np.random.default_rng(0).choice(num_train, self.num_scored, replace=False)
        return np.sort(rows).astype(np.int32)

    @property
    def blocks(self) -> list[Block]:
        """All blocks, in the order in which they train."""
        return [Block(k, rows) for k, group in enumerate(self.groups) for rows in group.blocks]

    @property
    def nbytes(self) -> int:
        """Bytes of the data and of the largest block."""
        return max(group.memory.data + group.blocks[0].size * group.memory.cell for group in self.groups)


@pinned_generator()
def plan_sweep(
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
) -> Plan:
    """The plan that `jaxcls.sweep.run` follows, with its arguments and errors.

    Example:
      >>> from jaxcls import data, grid
      >>> planned = plan_sweep(data.standard(data.load_digits()), grid.Grid(lr=[0.1, 1.0], reg=[0.0]), steps=100)
      >>> planned.groups[0].memory.data, planned.blocks[0].rows.shape
      (403128, (1, 2))
    """
    checks.own_mesh("sweep.run")
    if not isinstance(splits, Splits | Folds):
        hint = "data.standard(data.from_arrays(X, y))"
        raise TypeError(f"splits must be prepared data, such as {hint}, got {type(splits).__name__}")
    if not isinstance(grid, Grid):
        raise TypeError(f"grid must be a Grid, such as Grid(lr=[0.1, 1.0], reg=[1e-3]), got {type(grid).__name__}")
    chosen = train.as_optimizer(optimizer)
    checks.default_float(splits.train.X.dtype)
    for name, value in (("steps", steps), ("batch_size", batch_size), ("chunk_steps", chunk_steps)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name in ("lr", "seed"):
        if not getattr(grid, name):
            raise ValueError(f"{name} must hold at least one value, got ()")
    if bool(grid.hidden) != bool(classifier.num_hidden_layers):
        raise ValueError(f"grid.hidden must be given for a net and for nothing else, got {grid.hidden}")
    checks.folds(grid.fold, splits.num_folds)
    if history and isinstance(splits, Folds):
        raise ValueError("history must be of data that are split once, got folds")
    devices = devices or jax.local_devices()[:1]
    columns, sizes = _padding(splits, grid, steps, batch_size, classifier, chosen, devices)
    problem = functools.partial(cells.problem, splits, classifier=classifier, optimizer=chosen, alignment=columns)
    cells.check_optimizer(problem(sizes[0]))
    need = functools.partial(cells.estimate, batch_size=batch_size)
    budget = available() if memory is None else memory
    if grid.hidden:
        (data, one), (_, two) = need(problem((1,))), need(problem((2,)))
        largest = (budget - data - one) // (two - one) + 1
        if 1 <= largest < max(grid.hidden):
            raise ValueError(f"hidden must be at most {largest} for a net to fit in memory, got {max(grid.hidden)}")
    groups = []
    for hidden in sizes:
        estimate = need(problem(hidden))
        rows = blocks(grid, hidden, estimate.fits(budget), num_devices=len(devices))
        groups.append(Group(problem(hidden), estimate, rows))
    num_scored = len(splits.train.y)
    schedule = Schedule(steps, chunk_steps, train.steps_per_epoch(num_scored, batch_size) if history else None)
    if isinstance(splits, Splits):  # scoring takes 0.6 of the time of training on as many, and may take a tenth of it
        num_scored = min(num_scored, max(steps * batch_size // 6, LEAST_SCORED))
    return Plan(grid, groups, schedule, batch_size, devices, num_scored)


def _padding(
    splits: Splits | Folds,
    grid: Grid,
    steps: int,
    batch_size: int,
    classifier: Classifier,
    optimizer: Optimizer,
    devices: Sequence[jax.Device],
) -> tuple[int, list[tuple[int, ...]]]:
    """The alignment of X's columns, and the hidden sizes of each group; neither pads for an optimizer that sees it."""
    work = 2 * batch_size * splits.num_features * steps * len(grid) / max(len(grid.hidden), 1)
    columns, sizes = alignment(devices), groups(grid.hidden, work) or [()]
    padded = columns > 1 or len(grid.hidden) > len(sizes)
    if padded and not cells.preserves_zero_padding(classifier, optimizer, splits.num_classes):
        return 1, [(size,) for size in grid.hidden] or [()]
    return columns, sizes


def minibatches(plan: Plan, data: Splits | Folds, rows: NDArray[np.integer], steps: range) -> Int[NDArray, "T S B"]:
    """The minibatches of a block with these rows: each replicate draws from the examples that it trains on.

    Example:
      >>> from jaxcls import data
      >>> splits, grid = data.standard(data.load_digits()), Grid(lr=[0.1, 1.0], reg=[0.0], seed=[0, 1])
      >>> planned = plan_sweep(splits, grid, steps=100)
      >>> minibatches(planned, splits, planned.blocks[0].rows, range(10)).shape
      (10, 2, 200)
    """
    columns, drawn = plan.grid.columns(), []
    for first in rows[:, 0]:
        seed = int(columns["seed"][first])
        draw = functools.partial(train.minibatches, seed, steps, batch_size=plan.batch_size)
        if isinstance(data, Folds):
            fold = int(columns["fold"][first])
            drawn.append(data.rows(fold, draw(num_examples=data.num_train(fold))))
        else:
            drawn.append(draw(num_examples=len(data.train.y)))
    return np.stack(drawn, axis=1).astype(np.int32)


def groups(hidden: Sequence[int], work: float) -> list[tuple[int, ...]]:
    """The hidden sizes that share a program, in which every net is as wide as the widest.

    Padding costs multiplications, another program costs a compilation: these are the groups that cost least.

    Args:
      hidden: the sizes.
      work: multiplications for one unit of every size, over the whole run.

    Example:
      >>> groups([2, 8, 32, 128], work=1e8)
      [(2, 8, 32, 128)]
      >>> groups([2, 8, 32, 128], work=1e10)
      [(2, 8), (32,), (128,)]
    """
    sizes = sorted(hidden)
    cheapest: list[tuple[float, list[tuple[int, ...]]]] = [(0.0, [])]  # of the first k sizes
    for end in range(1, len(sizes) + 1):
        ways = []
        for start in range(end):
            cost, before = cheapest[start]
            group = tuple(sizes[start:end])
            ways.append((cost + COMPILATION + work * len(group) * group[-1], [*before, group]))
        cheapest.append(min(ways, key=lambda way: way[0]))
    return cheapest[-1][1]


def blocks(grid: Grid, group: Sequence[int], fits: int, *, num_devices: int = 1) -> list[NDArray[np.integer]]:
    """The rows of each block, ``[S, G]``, of the cells with a hidden size in ``group``; the linear grid's is empty.

    All blocks are of one shape: whole replicates while they fit, else parts of one.

    Args:
      grid: the grid.
      group: hidden sizes.
      fits: the most cells of a block on one device.
      num_devices: every device gets as many cells of a block.

    Example:
      >>> [block.tolist() for block in blocks(Grid(lr=[0.1, 1.0], reg=[0.0], seed=[0, 1]), (), fits=2)]
      [[[0, 2]], [[1, 3]]]
    """
    rows = np.arange(len(grid)).reshape([len(values) for values in grid.axes.values()])
    if group:
        rows = rows[:, :, np.isin(grid.hidden, group)]
    rows = rows.reshape(-1, len(grid.seed) * max(len(grid.fold), 1)).T
    num_replicates, num_cells = rows.shape
    per_device = -(-num_cells // num_devices)
    replicates = _even_parts(num_replicates, max(1, fits // per_device))
    cells = _even_parts(num_cells, fits * num_devices, multiple=num_devices)
    return [rows[np.ix_(r, c)] for r in replicates for c in cells]


def _even_parts(count: int, limit: int, *, multiple: int = 1) -> NDArray[np.integer]:
    """``range(count)`` in rows of at most ``limit``, all equally long: the last index fills up the last row.

    The length is a multiple of ``multiple``, as the limit has to be.

    One shape means one compilation; a cell trained twice costs less than a second one.
    """
    number = -(-count // limit)
    length = -(-count // (number * multiple)) * multiple
    return np.minimum(np.arange(number * length), count - 1).reshape(number, length)
