"""Ahead-of-time compiled functions for the stacks of a group: initialise, train, score."""

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
from jaxtyping import Array, Bool, Int, PyTree, Shaped
from numpy.typing import NDArray

from jaxcls.engine import cells
from jaxcls.engine.blocks import Stack
from jaxcls.engine.cells import Kept, Problem, Replicates
from jaxcls.engine.devices import BY_CELL, CELLS, EVERYWHERE, fetch, on_each, put
from jaxcls.engine.feed import Fed, Feed
from jaxcls.engine.plan import Plan
from jaxcls.engine.scoring import scored_together
from jaxcls.engine.snapshot import Parked
from jaxcls.grid import Cells
from jaxcls.numerics import Params, matmul_precision, pinned_generator
from jaxcls.table import Scores, merit
from jaxcls.train import Hyper, Score, State

POOL = ThreadPoolExecutor(thread_name_prefix="compile")
AHEAD = ThreadPoolExecutor(1, "trace")


class Inputs(NamedTuple):
    """A stack's hyperparameters ``[G]``, the index of each cell's size ``[G]``, and its replicates ``[S]``."""

    hyper: Hyper
    size: Int[Array, "G"]
    replicates: Replicates


@dataclass(frozen=True)
class Program:
    """The compiled functions of a group, with the feed of the examples that all its stacks share.

    Attributes:
      on: the devices.
      problem: the group's.
      plan: the sweep's.
      feed: of the examples.
      shapes: of a stack's state and of what is kept of it, with their sharding.
      compiled_init, compiled_chunks, compiled_score, compiled_keep: what the methods call; chunks by their number of
        steps and the examples in a minibatch, scores by the number of examples. Later stages initialise nothing.
      scored_cells: how many cells are scored together, as wide as the stack or wider.
    """

    on: Mesh
    problem: Problem
    plan: Plan
    feed: Feed
    shapes: tuple[State, Kept | None]
    compiled_init: Compiled | None
    compiled_chunks: dict[tuple[int, int], Compiled]
    compiled_score: dict[int, Compiled]
    scored_cells: int
    compiled_keep: Compiled | None

    def inputs(self, rows: NDArray[np.integer]) -> Inputs:
        """A stack's inputs, on the devices."""
        return inputs(self.on, self.problem, self.plan.grid, rows)

    def init(self, stack: Inputs) -> tuple[State, Kept | None]:
        """The state before the first step; and the initial params, with no score, where the best are kept."""
        assert self.compiled_init is not None
        state = self.compiled_init(*stack)
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
        part, replicate, place = np.empty((3, len(self.plan.grid)), int)  # of each row of the grid
        for number, each in enumerate(parked):
            part[each.rows] = number
            replicate[each.rows], place[each.rows] = np.indices(each.rows.shape)
        found = []
        for k, shape in enumerate(jax.tree.leaves(self.shapes)):
            saved = jax.eval_shape(without_keys, shape)
            leaf = np.empty(saved.shape, saved.dtype)
            for number in np.unique(part[rows]).tolist():
                source, where = np.moveaxis(parked[number].leaves[k], shape.ndim - 1, 1), part[rows] == number
                of = rows[where]
                np.moveaxis(leaf, shape.ndim - 1, 1)[where] = source[replicate[of], place[of]]
            found.append(leaf)
        return found

    def train(self, state: State, stack: Inputs, fed: Fed) -> tuple[State, NDArray[np.floating]]:
        """Train on minibatches, ``[T, S, B]``, in place; the new state, and their losses, ``[S, G, T]``."""
        examples, batches = fed
        args = stack.hyper, stack.replicates.fold, examples, batches
        steps, _, size = batches.shape
        state, losses = self.compiled_chunks[steps, size](state, *args)
        return state, np.moveaxis(fetch(self.on, losses), 0, -1)

    def score(
        self, before: Score, params: Params, reg: Array, stack: Inputs, fed: Fed, share: NDArray[np.floating]
    ) -> tuple[Score, Bool[NDArray, "S G M"]]:
        """The sum of ``before``, in place, and of the `Score` over examples with these shares of a set.

        With it, on the host, which of the examples each cell predicts rightly.
        """
        examples, rows = fed
        on_device = put(self.on, share.astype(self.problem.dtype))
        args = params, reg, stack.replicates.fold, examples, rows, on_device
        found, right = self.compiled_score[len(share)](before, *args)
        return found, fetch(self.on, right)[:, : len(stack.size), share > 0]

    def no_score(self, num_replicates: int) -> Score:
        """Zeros to add scores to, of as many cells as are scored together."""
        zeros = cells.no_score(self.problem, num_replicates, self.scored_cells)
        return jax.tree.map(lambda leaf: put(self.on, leaf, PartitionSpec(None, CELLS)), zeros)

    def filled_up(self, leaf: Array | NDArray) -> Array:
        """A leaf of params, or numbers of each cell, with the last cell repeated up to as many as are scored."""
        widths, missing = [(0, 0)] * (leaf.ndim - 1), self.scored_cells - leaf.shape[-1]
        if not missing and isinstance(leaf, jax.Array):
            return leaf
        filled = np.pad(fetch(self.on, leaf), [*widths, (0, missing)], mode="edge")
        return put(self.on, filled, PartitionSpec(*[None] * (leaf.ndim - 1), CELLS))

    def scored_together(self, count: int) -> int:
        """The number of examples that so many are filled up to."""
        return min(size for size in self.compiled_score if size >= count)

    def take(self, state: State, rows: NDArray[np.integer], row: int) -> list[NDArray]:
        """The leaves of one cell's params, of the stack with these rows."""
        replicate, index = np.argwhere(rows == row)[0].tolist()
        size = int(_sizes(self.problem, self.plan.grid, rows[0])[index])
        return self.leaves(cells.take(self.problem, state.scored, replicate, index, size))

    def leaves(self, tree: PyTree) -> list[NDArray]:
        """The leaves of a tree on the host, PRNG keys as the numbers that they are made of."""
        return jax.tree.leaves(fetch(self.on, jax.tree.map(without_keys, tree)))


def build(on: Mesh, plan: Plan, stage: int, stack: Stack, feed: Feed) -> Callable[[], Program]:
    """Begin to compile what a stack needs in a stage, unless this process has done so for the same shapes before.

    Args:
      on: the mesh of ``plan.devices``.
      plan: the sweep's.
      stage: the number of the stage.
      stack: one of the stage's.
      feed: of the examples.

    Returns:
      A function that waits for the program.
    """
    problem, (num_replicates, num_cells) = plan.groups[stack.group].problem, stack.rows.shape
    arrays = inputs(on, problem, plan.grid, stack.rows)
    hyper, fold = arrays.hyper, arrays.replicates.fold
    state = shapes(on, problem, num_replicates, num_cells)
    of_any_parts = problem._replace(parts=())  # shared by data of other numbers of examples
    by_cell = PartitionSpec(None, CELLS)

    def array(*shape: int, dtype: np.dtype | None = None, spec: PartitionSpec = EVERYWHERE) -> PyTree:
        return jax.ShapeDtypeStruct(shape, dtype or np.int32, sharding=NamedSharding(on, spec))

    def compiling(function: Callable[[Mesh, Problem], Wrapped], *args: PyTree) -> Future[Compiled]:
        leaves, tree = jax.tree.flatten(_abstract(args))  # a tree may hold dictionaries, which cannot be a key
        return _compiling(function, on, of_any_parts, tuple(leaves), tree, matmul_precision())

    def training(steps: int, size: int) -> Future[Compiled]:
        examples, batches = feed.shapes(steps * num_replicates * size), array(steps, num_replicates, size)
        return compiling(train, state, hyper, fold, examples, batches)

    sizes, scored_cells = scored_together(plan, stage, stack)
    scored = shapes(on, problem, num_replicates, scored_cells).params

    def scoring(count: int) -> Future[Compiled]:
        before = jax.tree.map(
            lambda leaf: array(*leaf.shape, dtype=leaf.dtype, spec=by_cell),
            cells.no_score(problem, num_replicates, scored_cells),
        )
        reg = array(num_replicates, scored_cells, dtype=problem.dtype, spec=by_cell)
        share = array(count, dtype=problem.dtype)
        examples, rows = feed.shapes(num_replicates * count), array(num_replicates, count)
        return compiling(score, before, scored, reg, fold, examples, rows, share)

    starting = compiling(init, *arrays) if stage == 0 else None
    keeping, kept = None, None
    if plan.keep == "best":
        score_shape = array(num_replicates, num_cells, dtype=problem.dtype, spec=by_cell)
        kept = Kept(state.params, score_shape)
        keeping = compiling(keep, kept, state.params, score_shape)
    chunks = {(len(chunk), plan.size_of(chunk)) for chunk in plan.schedule.after(0, stage)}
    trainings = {shape: training(*shape) for shape in chunks}
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
                compiled_chunks={shape: each.result() for shape, each in trainings.items()},
                compiled_score={size: each.result() for size, each in scores.items()},
                scored_cells=scored_cells,
                compiled_keep=None if keeping is None else keeping.result(),
            )
        except Exception:
            _compiling.cache_clear()  # what failed, as for want of memory, is tried again
            raise

    return wait


def build_ahead(on: Mesh, plan: Plan, stage: int, stacks: Sequence[Stack], feed: Feed) -> Callable[[], None]:
    """`build` in a thread, so that other stacks train meanwhile; a function that waits for it.

    JAX's settings are those of a thread, so the caller's are set in that one too. Several processes must begin their
    computations in one order, and build in place.
    """
    wide, precision = jnp.result_type(float) == np.float64, matmul_precision()

    def work() -> None:
        with jax.enable_x64(wide), jax.default_matmul_precision(precision), pinned_generator():
            for stack in stacks:
                build(on, plan, stage, stack, feed)

    if jax.process_count() == 1:
        return AHEAD.submit(work).result
    work()
    return lambda: None


@functools.lru_cache(maxsize=128)
def _compiling(
    function: Callable[[Mesh, Problem], Wrapped],
    on: Mesh,
    problem: Problem,
    leaves: tuple[jax.ShapeDtypeStruct, ...],
    tree: jax.tree_util.PyTreeDef,
    precision: str,
) -> Future[Compiled]:
    """Compile for arrays of these shapes; ``precision``, like the dtype, is a setting of JAX to compile again for.

    XLA compiles one function while Python traces the next.
    """
    return POOL.submit(function(on, problem).lower(*jax.tree.unflatten(tree, leaves)).compile)


def _abstract(tree: PyTree) -> PyTree:
    """Shape, dtype and sharding of each array."""
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding), tree)


def inputs(on: Mesh, problem: Problem, grid: Cells, rows: NDArray[np.integer]) -> Inputs:
    """The inputs of a stack with these rows of the grid, ``[S, G]``, on the devices."""
    columns = grid.columns()
    hyper = Hyper(**{axis: put(on, columns[axis][rows[0]].astype(problem.dtype), BY_CELL) for axis in problem.hyper})
    seeds = put(on, columns["seed"][rows[:, 0]].astype(np.uint32))
    fold = columns["fold"][rows[:, 0]] if grid.fold else np.zeros(len(rows))
    replicates = Replicates(jax.vmap(jax.random.key)(seeds), put(on, fold.astype(np.int32)))
    return Inputs(hyper, put(on, _sizes(problem, grid, rows[0]), BY_CELL), replicates)


def shapes(on: Mesh, problem: Problem, num_replicates: int, num_cells: int) -> State:
    """Shapes, dtypes and sharding of a stack's state."""

    def of_stack(leaf: jax.ShapeDtypeStruct, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        shape = (num_replicates, *leaf.shape, num_cells)
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=NamedSharding(on, spec))

    return jax.tree.map(of_stack, cells.cell(problem), cells.specs(problem))


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


def _sizes(problem: Problem, grid: Cells, rows: NDArray[np.integer]) -> NDArray[np.int32]:
    """Index into ``problem.sizes`` of each of these rows."""
    if not grid.hidden:
        return np.zeros(len(rows), np.int32)
    return np.searchsorted([sizes[1] for sizes in problem.sizes], grid.columns()["hidden"][rows]).astype(np.int32)
