"""Ahead-of-time compiled functions for the blocks of a group: initialise, train, score."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled, Wrapped
from jaxtyping import Array, Bool, Int, PyTree, Shaped, UInt8
from numpy.typing import NDArray

from jaxcls.engine import cells
from jaxcls.engine.cells import Kept, Problem, Replicates
from jaxcls.engine.devices import BY_CELL, CELLS, EVERYWHERE, fetch, on_each, put
from jaxcls.engine.feed import Fed, Feed
from jaxcls.engine.plan import Block, Plan
from jaxcls.engine.progress import Parked
from jaxcls.engine.scoring import scored_together
from jaxcls.grid import Cells
from jaxcls.numerics import Params, matmul_precision
from jaxcls.result import Scores, merit, scores
from jaxcls.train import EVALUATION_BATCH as SCORED
from jaxcls.train import Hyper, Score, State, filled_up

POOL = ThreadPoolExecutor(thread_name_prefix="compile")


class Inputs(NamedTuple):
    """A block's hyperparameters ``[G]``, the index of each cell's size ``[G]``, and its replicates ``[S]``."""

    hyper: Hyper
    size: Int[Array, "G"]
    replicates: Replicates


@dataclass(frozen=True)
class Program:
    """The compiled functions of a group, with the feed of the examples that all its blocks share.

    Attributes:
      on: the devices.
      problem: the group's.
      plan: the sweep's.
      feed: of the examples.
      shapes: of a block's state and of what is kept of it, with their sharding.
      compiled_init, compiled_chunks, compiled_score, compiled_keep: what the methods call; chunks by their number of
        steps, scores by the number of examples. Later stages initialise nothing.
      scored_cells: how many cells are scored together, as wide as the block or wider.
    """

    on: Mesh
    problem: Problem
    plan: Plan
    feed: Feed
    shapes: tuple[State, Kept | None]
    compiled_init: Compiled | None
    compiled_chunks: dict[int, Compiled]
    compiled_score: dict[int, Compiled]
    scored_cells: int
    compiled_keep: Compiled | None

    def inputs(self, rows: NDArray[np.integer]) -> Inputs:
        """A block's inputs, on the devices."""
        return inputs(self.on, self.problem, self.plan.grid, rows)

    def init(self, block: Inputs) -> tuple[State, Kept | None]:
        """The state before the first step; and the initial params, with no score, where the best are kept."""
        assert self.compiled_init is not None
        state = self.compiled_init(*block)
        if self.shapes[1] is None:
            return state, None
        lowest = np.full(self.shapes[1].score.shape, -np.inf, self.problem.dtype)
        return state, Kept(jax.tree.map(jnp.copy, state.params), put(self.on, lowest, PartitionSpec(None, CELLS)))

    def keep(
        self, kept: Kept | None, state: State, on_val: Scores, select: str, alive: NDArray[np.bool_]
    ) -> Kept | None:
        """Keep the params of cells in training that are better on val, ``[S, G]``, than any before."""
        if self.compiled_keep is None or kept is None:
            return None
        score = np.where(alive & np.isfinite(on_val.val_loss), merit(on_val._asdict(), select), -np.inf)
        on_device = put(self.on, score.astype(self.problem.dtype), PartitionSpec(None, CELLS))
        return self.compiled_keep(kept, state.scored, on_device)

    def restore(self, leaves: Sequence[NDArray]) -> tuple[State, Kept | None]:
        """The state and what is kept of it with these leaves, as `leaves` returned them.

        Raises:
          ValueError: they are not of this program's state.
        """
        shapes, tree = jax.tree.flatten(self.shapes)
        saved = [jax.eval_shape(without_keys, shape) for shape in shapes]
        if [(leaf.shape, leaf.dtype) for leaf in leaves] != [(shape.shape, shape.dtype) for shape in saved]:
            raise ValueError("the saved state must be of the model, optimizer and grid that resume from it")
        return jax.tree.unflatten(tree, map(place, leaves, shapes))

    def gather(self, parked: Sequence[Parked], rows: NDArray[np.integer]) -> list[NDArray]:
        """The leaves of the cells with these rows, ``[S, G]``, from where they are parked."""
        found = []
        for k, shape in enumerate(jax.tree.leaves(self.shapes)):
            saved = jax.eval_shape(without_keys, shape)
            leaf = np.empty(saved.shape, saved.dtype)
            cells_first = np.moveaxis(leaf, shape.ndim - 1, 1)
            for part in parked:
                source = np.moveaxis(part.leaves[k], shape.ndim - 1, 1)
                for to, wanted in enumerate(rows):
                    for replicate, there in enumerate(part.rows):
                        index, place = np.nonzero(wanted[:, None] == there)
                        if index.size:  # else it may be of another group, and another shape
                            cells_first[to, index] = source[replicate, place]
            found.append(leaf)
        return found

    def train(self, state: State, block: Inputs, fed: Fed) -> tuple[State, NDArray[np.floating]]:
        """Train on minibatches, ``[T, S, B]``, in place; the new state, and their losses, ``[S, G, T]``."""
        examples, batches = fed
        args = block.hyper, block.replicates.held_out, examples, batches
        state, losses = self.compiled_chunks[len(batches)](state, *args)
        return state, np.moveaxis(fetch(self.on, losses), 0, -1)

    def record(self, state: State, block: Inputs, batch: NDArray[np.integer]) -> tuple[NDArray, Scores]:
        """The accuracy, ``[S, G]``, on a minibatch of each replicate, ``[S, B]``; and scores over val."""
        on_batch, _ = self._score(self._to_score(state), block, [batch], 1)
        return scores(on_batch, on_batch).train_accuracy, self.validate(state, block)

    def validate(self, state: State, block: Inputs) -> Scores:
        """Scores over val, ``[S, G]``; those over train are not to be used."""
        if self.plan.grid.fold:
            return self.evaluate(state, block)[0]
        on_val, _ = self._part(self._to_score(state), block, len(self.problem.parts) - 1)
        return scores(on_val, on_val)

    def evaluate(self, state: State, block: Inputs) -> tuple[Scores, UInt8[NDArray, "S G bytes"]]:
        """Scores over train and val, ``[S, G]`` each, and a bit for each example of val that is rightly predicted."""
        held_out, params = np.asarray(fetch(self.on, block.replicates.held_out)), self._to_score(state)
        found, bits = zip(*(self._part(params, block, part) for part in range(len(self.problem.parts))), strict=True)
        right = np.zeros((*bits[0].shape[:2], self.plan.right_bytes), np.uint8)
        for replicate, part in enumerate(held_out.tolist()):
            packed = np.packbits(bits[part][replicate], axis=-1)
            right[replicate, :, : packed.shape[-1]] = packed
        return scores(*cells.over_parts(self.problem, found, held_out)), right

    def _part(self, params: Params, block: Inputs, part: int) -> tuple[Score, Bool[NDArray, "S G M"]]:
        """`_score` over the examples of one part; penalty included where it is trained on."""
        rows = self.plan.scored_rows(part)
        rows = rows[self.feed.data.examples.order(rows)]
        num_replicates = len(block.replicates.held_out)
        batches = [rows[first : first + SCORED] for first in range(0, len(rows), SCORED)]
        batches = [np.broadcast_to(batch, (num_replicates, len(batch))) for batch in batches]
        return self._score(params, block, batches, len(rows), part)

    def _score(
        self, params: Params, block: Inputs, batches: Sequence[NDArray[np.integer]], size: int, part: int | None = None
    ) -> tuple[Score, Bool[NDArray, "S G M"]]:
        """Scores, ``[S, G]``, over batches of rows, ``[S, M]`` each, of as many examples in all; on the host.

        With them, which of the examples each cell predicts rightly.
        """
        num_replicates, num_cells = len(block.replicates.held_out), len(block.size)
        by_cell = PartitionSpec(None, CELLS)
        penalised = fetch(self.on, block.replicates.held_out) != part
        reg = self._filled_up(np.where(penalised[:, None], fetch(self.on, block.hyper.reg), 0))
        found = jax.tree.map(
            lambda leaf: put(self.on, leaf, by_cell), cells.no_score(self.problem, num_replicates, self.scored_cells)
        )
        full = [filled_up(rows, self._scored_together(rows.shape[1]), size) for rows in batches]
        bits = []
        for (examples, rows), (_, shares) in zip(self.feed.ahead(rows for rows, _ in full), full, strict=True):
            share = put(self.on, shares.astype(self.problem.dtype))
            args = params, reg, block.replicates.held_out, examples, rows, share
            found, right = self.compiled_score[len(shares)](found, *args)
            bits.append(fetch(self.on, right)[:, :num_cells, shares > 0])
        found = jax.tree.map(lambda leaf: leaf[:, :num_cells], fetch(self.on, found))
        return found, np.concatenate(bits, axis=-1)

    def _to_score(self, state: State) -> Params:
        """The params that are scored, of as many cells as are scored together."""
        return jax.tree.map(self._filled_up, state.scored)

    def _filled_up(self, leaf: Array | NDArray) -> Array:
        """A leaf of params, or numbers of each cell, with the last cell repeated up to as many as are scored."""
        widths, missing = [(0, 0)] * (leaf.ndim - 1), self.scored_cells - leaf.shape[-1]
        if not missing and isinstance(leaf, jax.Array):
            return leaf
        filled = np.pad(fetch(self.on, leaf), [*widths, (0, missing)], mode="edge")
        return put(self.on, filled, PartitionSpec(*[None] * (leaf.ndim - 1), CELLS))

    def _scored_together(self, count: int) -> int:
        """The number of examples that so many are filled up to."""
        return min(size for size in self.compiled_score if size >= count)

    def take(self, state: State, rows: NDArray[np.integer], row: int) -> list[NDArray]:
        """The leaves of one cell's params, of the block with these rows."""
        replicate, index = np.argwhere(rows == row)[0].tolist()
        size = int(_sizes(self.problem, self.plan.grid, rows[0])[index])
        return self.leaves(cells.take(self.problem, state.scored, replicate, index, size))

    def leaves(self, tree: PyTree) -> list[NDArray]:
        """The leaves of a tree on the host, PRNG keys as the numbers that they are made of."""
        return jax.tree.leaves(fetch(self.on, jax.tree.map(without_keys, tree)))


def build(on: Mesh, plan: Plan, stage: int, block: Block, feed: Feed) -> Callable[[], Program]:
    """Begin to compile what a block needs in a stage, unless this process has done so for the same shapes before.

    Args:
      on: the mesh of ``plan.devices``.
      plan: the sweep's.
      stage: the number of the stage.
      block: one of the stage's.
      feed: of the examples.

    Returns:
      A function that waits for the program.
    """
    problem, (num_replicates, num_cells) = plan.groups[block.group].problem, block.rows.shape
    arrays = inputs(on, problem, plan.grid, block.rows)
    hyper, held_out = arrays.hyper, arrays.replicates.held_out
    state = shapes(on, problem, num_replicates, num_cells)
    of_any_parts = problem._replace(parts=())  # shared by data of other numbers of examples
    by_cell = PartitionSpec(None, CELLS)

    def array(*shape: int, dtype: np.dtype | None = None, spec: PartitionSpec = EVERYWHERE) -> PyTree:
        return jax.ShapeDtypeStruct(shape, dtype or np.int32, sharding=NamedSharding(on, spec))

    def compiling(function: Callable[[Mesh, Problem], Wrapped], *args: PyTree) -> Future[Compiled]:
        return _compiling(function, on, of_any_parts, _abstract(args), matmul_precision())

    def training(steps: int) -> Future[Compiled]:
        batches = array(steps, num_replicates, plan.batch_size)
        return compiling(train, state, hyper, held_out, feed.shapes(steps * num_replicates * plan.batch_size), batches)

    sizes, scored_cells = scored_together(plan, stage, block)
    scored = shapes(on, problem, num_replicates, scored_cells).params

    def scoring(count: int) -> Future[Compiled]:
        before = jax.tree.map(
            lambda leaf: array(*leaf.shape, dtype=leaf.dtype, spec=by_cell),
            cells.no_score(problem, num_replicates, scored_cells),
        )
        reg = array(num_replicates, scored_cells, dtype=problem.dtype, spec=by_cell)
        share = array(count, dtype=problem.dtype)
        examples, rows = feed.shapes(num_replicates * count), array(num_replicates, count)
        return compiling(score, before, scored, reg, held_out, examples, rows, share)

    starting = compiling(init, *arrays) if stage == 0 else None
    keeping, kept = None, None
    if plan.keep == "best":
        score_shape = array(num_replicates, num_cells, dtype=problem.dtype, spec=by_cell)
        kept = Kept(state.params, score_shape)
        keeping = compiling(keep, kept, state.params, score_shape)
    chunks = {steps: training(steps) for steps in {len(chunk) for chunk in plan.schedule.after(0, stage)}}
    scores = {size: scoring(size) for size in sizes}

    def wait() -> Program:
        try:
            return Program(
                on=on,
                problem=problem,
                plan=plan,
                feed=feed,
                shapes=(state, kept),
                compiled_init=None if starting is None else starting.result(),
                compiled_chunks={steps: chunk.result() for steps, chunk in chunks.items()},
                compiled_score={size: each.result() for size, each in scores.items()},
                scored_cells=scored_cells,
                compiled_keep=None if keeping is None else keeping.result(),
            )
        except Exception:
            _compiling.cache_clear()  # what failed, as for want of memory, is tried again
            raise

    return wait


@functools.lru_cache(maxsize=128)
def _compiling(
    function: Callable[[Mesh, Problem], Wrapped], on: Mesh, problem: Problem, args: PyTree, precision: str
) -> Future[Compiled]:
    """Compile for arrays of these shapes; ``precision``, like the dtype, is a setting of JAX to compile again for.

    XLA compiles one function while Python traces the next.
    """
    return POOL.submit(function(on, problem).lower(*args).compile)


def _abstract(tree: PyTree) -> PyTree:
    """Shape, dtype and sharding of each array."""
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding), tree)


def inputs(on: Mesh, problem: Problem, grid: Cells, rows: NDArray[np.integer]) -> Inputs:
    """The inputs of a block with these rows of the grid, ``[S, G]``, on the devices."""
    columns = grid.columns()
    hyper = Hyper(**{axis: put(on, columns[axis][rows[0]].astype(problem.dtype), BY_CELL) for axis in problem.hyper})
    seeds = put(on, columns["seed"][rows[:, 0]].astype(np.uint32))
    replicates = Replicates(jax.vmap(jax.random.key)(seeds), put(on, _held_out(problem, grid, rows)))
    return Inputs(hyper, put(on, _sizes(problem, grid, rows[0]), BY_CELL), replicates)


def shapes(on: Mesh, problem: Problem, num_replicates: int, num_cells: int) -> State:
    """Shapes, dtypes and sharding of a block's state."""

    def of_block(leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        shape = (num_replicates, *leaf.shape, num_cells)
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=NamedSharding(on, spec))

    return jax.tree.map(of_block, cells.cell(problem), cells.specs(problem))


def init(on: Mesh, problem: Problem) -> Wrapped:
    """`cells.init` under `jax.jit`, each device with its own cells."""
    in_specs = BY_CELL, BY_CELL, EVERYWHERE
    return on_each(on, functools.partial(cells.init, problem), in_specs, cells.specs(problem))


def train(on: Mesh, problem: Problem) -> Wrapped:
    """`cells.run` in the same way; the new state replaces the old in place."""
    of_state = cells.specs(problem)
    in_specs = (of_state, BY_CELL, EVERYWHERE, EVERYWHERE, EVERYWHERE)
    out_specs = (of_state, PartitionSpec(None, None, CELLS))
    return on_each(on, functools.partial(cells.run, problem), in_specs, out_specs, donate_argnums=0)


def score(on: Mesh, problem: Problem) -> Wrapped:
    """`cells.score` in the same way; the new scores replace the old in place."""
    by_cell = PartitionSpec(None, CELLS)
    in_specs = (by_cell, cells.specs(problem).params, by_cell, EVERYWHERE, EVERYWHERE, EVERYWHERE, EVERYWHERE)
    out_specs = by_cell, PartitionSpec(None, CELLS, None)
    return on_each(on, functools.partial(cells.score, problem), in_specs, out_specs, donate_argnums=0)


def keep(on: Mesh, problem: Problem) -> Wrapped:
    """`cells.keep` in the same way; what is kept replaces what was."""
    by_cell, params = PartitionSpec(None, CELLS), cells.specs(problem).params
    specs: PyTree = Kept(params, by_cell)  # type: ignore[arg-type]  # a tree of specs
    return on_each(on, cells.keep, (specs, params, by_cell), specs, donate_argnums=0)


def without_keys(leaf: Array) -> Array:
    """A leaf of a state as numbers: of PRNG keys, the key data.

    Example:
      >>> print(without_keys(jax.random.key(7)))
      [0 7]
    """
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def place(leaf: NDArray, shape: jax.ShapeDtypeStruct) -> Array:
    """A leaf of a state, of the shape and dtype of `without_keys`, on the devices of ``shape.sharding``."""
    on, spec = shape.sharding.mesh, shape.sharding.spec
    if not _is_key(shape):
        return put(on, leaf, spec)
    generator = jax.random.key_impl(jnp.empty(0, shape.dtype))
    return jax.random.wrap_key_data(put(on, leaf, PartitionSpec(*spec, None)), impl=generator)


def _is_key(leaf: Shaped[Array, "..."] | jax.ShapeDtypeStruct) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _held_out(problem: Problem, grid: Cells, rows: NDArray[np.integer]) -> NDArray[np.int32]:
    """The part that each replicate holds out: its fold, or else val, the last one."""
    val = np.full(len(rows), len(problem.parts) - 1, np.int32)
    return grid.columns()["fold"][rows[:, 0]].astype(np.int32) if grid.fold else val


def _sizes(problem: Problem, grid: Cells, rows: NDArray[np.integer]) -> NDArray[np.int32]:
    """Index into ``problem.sizes`` of each of these rows."""
    if not grid.hidden:
        return np.zeros(len(rows), np.int32)
    return np.searchsorted([sizes[1] for sizes in problem.sizes], grid.columns()["hidden"][rows]).astype(np.int32)
