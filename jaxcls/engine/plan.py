"""The plan of a sweep: which cells share a program, and which of them train together within the memory there is."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from jaxcls.data import Folds, Splits
from jaxcls.engine import cells
from jaxcls.engine import halving as halves
from jaxcls.engine.blocks import Block, Stack, stacks
from jaxcls.engine.cells import Problem
from jaxcls.engine.halving import Halving
from jaxcls.engine.schedule import Schedule
from jaxcls.grid import Cells
from jaxcls.memory import Memory
from jaxcls.sampling import Sampling
from jaxcls.sampling import minibatches as sampled

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
      sampling, epoch_size: as `jaxcls.sampling.minibatches` takes them.
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
    epoch_size: int | None = None
    stream: bool = False
    keep: Keep = "last"
    halving: Halving | None = None
    patience: int | None = None
    ema: float | None = None
    keep_state: bool = False

    def size_of(self, chunk: range) -> int:
        """Examples in each minibatch of a chunk."""
        if self.epoch_size and self.schedule.ends_epoch(chunk):
            return self.epoch_size % self.batch_size
        return self.batch_size

    def scored(self, part: int) -> NDArray[np.integer]:
        """The examples of a part that are scored, counted in it, always the same: all, but for a long train."""
        size, scored = self.groups[0].problem.parts[part], self.scored_parts[part]
        if scored < size:
            return np.sort(np.random.default_rng(0).choice(size, scored, replace=False))
        return np.arange(size)

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
        return state_nbytes(self.groups, self.halving.keep ** len(self.halving.rungs) if self.halving else 1.0)

    @property
    def nbytes(self) -> int:
        """Bytes of the data and of the largest block."""
        return self.groups[0].memory.data + max(map(self._nbytes, self.blocks))


def state_nbytes(groups: Sequence[Group], keep: float) -> int:
    """Bytes of the state of a share of the cells of each group.

    Example:
      >>> from jaxcls import data, sweep
      >>> from jaxcls.grid import Grid
      >>> planned = sweep.plan(data.standard(data.load_digits()), Grid(lr=[0.1, 1.0], reg=[0.0]), steps=100)
      >>> state_nbytes(planned.groups, 1.0), state_nbytes(planned.groups, 0.5)
      (5200, 2600)
    """
    return sum(halves.share(group.rows.size, keep) * cells.state_nbytes(group.problem) for group in groups)


def minibatches(
    plan: Plan, data: Splits | Folds, rows: NDArray[np.integer]
) -> Callable[[range], Int[NDArray, "T S B"]]:
    """Draws the minibatches of some steps for a stack with these rows of the grid.

    Each replicate draws from the examples that it trains on.

    Example:
      >>> from jaxcls import data, sweep
      >>> from jaxcls.grid import Grid
      >>> splits, grid = data.standard(data.load_digits()), Grid(lr=[0.1, 1.0], reg=[0.0], seed=[0, 1])
      >>> planned = sweep.plan(splits, grid, steps=100)
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
        draw = functools.partial(
            sampled,
            seed,
            batch_size=plan.batch_size,
            num_examples=count,
            sampling=plan.sampling,
            epoch_size=plan.epoch_size,
        )
        return lambda steps: of_examples(draw(steps))

    replicates = [of_replicate(first) for first in rows[:, 0].tolist()]
    return lambda steps: np.stack([draw(steps) for draw in replicates], axis=1)
