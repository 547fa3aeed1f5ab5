"""Ahead-of-time compiled functions for the blocks of a group: initialise, train, record, evaluate."""

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
from jaxtyping import Array, Int, PyTree, Shaped
from numpy.typing import NDArray

from jaxcls.data import Folds, Splits
from jaxcls.engine import cells
from jaxcls.engine.cells import Examples, Problem, Replicates
from jaxcls.engine.devices import BY_CELL, CELLS, EVERYWHERE, fetch, on_each, put
from jaxcls.engine.plan import Plan
from jaxcls.grid import Grid
from jaxcls.numerics import Params, matmul_precision, padded
from jaxcls.result import Scores, scores
from jaxcls.train import Hyper, State

POOL = ThreadPoolExecutor(thread_name_prefix="compile")


class Inputs(NamedTuple):
    """A block's hyperparameters ``[G]``, the index of each cell's size ``[G]``, and its replicates ``[S]``."""

    hyper: Hyper
    size: Int[Array, "G"]
    replicates: Replicates


@dataclass(frozen=True)
class Program:
    """The compiled functions of a group, with the examples that all its blocks share.

    Attributes:
      on: the devices.
      problem: the group's.
      plan: the sweep's.
      examples: on the devices.
      shapes: of a block's state, with its sharding.
      compiled_init, compiled_chunks, compiled_record, compiled_evaluate: what the methods call; chunks by their
        number of steps, no record without a history.
    """

    on: Mesh
    problem: Problem
    plan: Plan
    examples: Examples
    shapes: State
    compiled_init: Compiled
    compiled_chunks: dict[int, Compiled]
    compiled_record: Compiled | None
    compiled_evaluate: Compiled

    def inputs(self, rows: NDArray[np.integer]) -> Inputs:
        """A block's inputs, on the devices."""
        return inputs(self.on, self.problem, self.plan.grid, rows)

    def init(self, block: Inputs) -> State:
        """The state before the first step."""
        return self.compiled_init(*block)

    def restore(self, leaves: Sequence[NDArray]) -> State:
        """The state with these leaves, as `leaves` returned them.

        Raises:
          ValueError: they are not of this program's state.
        """
        shapes, tree = jax.tree.flatten(self.shapes)
        saved = [jax.eval_shape(without_keys, shape) for shape in shapes]
        if [(leaf.shape, leaf.dtype) for leaf in leaves] != [(shape.shape, shape.dtype) for shape in saved]:
            raise ValueError("the saved state must be of the model, optimizer and grid that resume from it")
        return jax.tree.unflatten(tree, map(place, leaves, shapes))

    def train(self, state: State, block: Inputs, batches: NDArray[np.int32]) -> tuple[State, NDArray[np.floating]]:
        """Train on minibatches, ``[T, S, B]``, in place; the new state, and their losses, ``[S, G, T]``."""
        args = block.hyper, block.replicates.held_out, self.examples, put(self.on, batches)
        state, losses = self.compiled_chunks[len(batches)](state, *args)
        return state, np.moveaxis(fetch(self.on, losses), 0, -1)

    def record(self, state: State, block: Inputs, batch: NDArray[np.int32]) -> tuple[NDArray, NDArray]:
        """Accuracies, ``[S, G]``: on a minibatch of each replicate, ``[S, B]``, and over val."""
        assert self.compiled_record
        args = state.params, block.hyper.reg, block.replicates.held_out, self.examples, put(self.on, batch)
        on_batch, on_val = fetch(self.on, self.compiled_record(*args))
        return on_batch / self.plan.batch_size, on_val / self.problem.parts[-1]

    def evaluate(self, state: State, block: Inputs) -> Scores:
        """Scores over train and val, ``[S, G]`` each."""
        args = state.params, block.hyper.reg, block.replicates.held_out, self.examples
        return scores(*fetch(self.on, self.compiled_evaluate(*args)))

    def take(self, state: State, rows: NDArray[np.integer], row: int) -> list[NDArray]:
        """The leaves of one cell's params, of the block with these rows."""
        replicate, index = np.argwhere(rows == row)[0].tolist()
        size = int(_sizes(self.problem, self.plan.grid, rows[0])[index])
        return self.leaves(cells.take(self.problem, state.params, replicate, index, size))

    def leaves(self, tree: PyTree) -> list[NDArray]:
        """The leaves of a tree on the host, PRNG keys as the numbers that they are made of."""
        return jax.tree.leaves(fetch(self.on, jax.tree.map(without_keys, tree)))


def build(on: Mesh, plan: Plan, group: int, examples: Examples) -> Program:
    """The functions of a group, compiled unless this process has compiled them for the same shapes before.

    Args:
      on: the mesh of ``plan.devices``.
      plan: the sweep's.
      group: the number of the group.
      examples: as `examples` puts them on the devices.
    """
    problem, _, blocks = plan.groups[group]
    block = inputs(on, problem, plan.grid, blocks[0])  # all blocks of a group have one shape
    hyper, held_out, state = block.hyper, block.replicates.held_out, shapes(on, problem, *blocks[0].shape)

    def compiling(function: Callable[[Mesh, Problem], Wrapped], problem: Problem, *args: PyTree) -> Future[Compiled]:
        return _compiling(function, on, problem, _abstract(args), matmul_precision())

    def batches(*shape: int) -> jax.ShapeDtypeStruct:
        shape = (*shape, len(held_out), plan.batch_size)
        return jax.ShapeDtypeStruct(shape, np.int32, sharding=NamedSharding(on, EVERYWHERE))

    of_any_parts = problem._replace(parts=())  # shared by data of other numbers of examples
    scoring = compiling(evaluate, problem, state.params, hyper.reg, held_out, examples)
    starting = compiling(init, of_any_parts, *block)
    chunks = {
        steps: compiling(train, of_any_parts, state, hyper, held_out, examples, batches(steps))
        for steps in {len(chunk) for chunk in plan.schedule.chunks}
    }
    recording = None
    if plan.schedule.epoch is not None:
        recording = compiling(record, problem, state.params, hyper.reg, held_out, examples, batches())
    try:
        return Program(
            on=on,
            problem=problem,
            plan=plan,
            examples=examples,
            shapes=state,
            compiled_init=starting.result(),
            compiled_chunks={steps: chunk.result() for steps, chunk in chunks.items()},
            compiled_record=recording.result() if recording else None,
            compiled_evaluate=scoring.result(),
        )
    except Exception:
        _compiling.cache_clear()  # what failed, as for want of memory, is tried again
        raise


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


def examples(on: Mesh, plan: Plan, data: Splits | Folds) -> Examples:
    """All examples that cells train and validate on, on the devices."""
    problem, rows = plan.groups[0].problem, plan.scored_rows
    if isinstance(data, Folds):
        mean, scale = (put(on, moment.astype(problem.dtype)) for moment in (data.fold_mean, data.fold_scale))
        return Examples(put(on, padded(data.train.X)), put(on, padded(data.train.y)), mean, scale)
    scored = None if rows is None else put(on, rows)
    X, y = ([put(on, getattr(split, name)) for split in (data.train, data.val)] for name in ("X", "y"))
    return Examples(_features(problem, *X), jnp.concatenate(y), scored=scored)


@functools.partial(jax.jit, static_argnums=0)
def _features(problem: Problem, *parts: Array) -> Array:
    """The classifier's inputs for all parts, in one copy."""
    return cells.features(problem, jnp.concatenate(parts))


def inputs(on: Mesh, problem: Problem, grid: Grid, rows: NDArray[np.integer]) -> Inputs:
    """The inputs of a block with these rows of the grid, ``[S, G]``, on the devices."""
    columns = grid.columns()
    hyper = Hyper(*(put(on, columns[axis][rows[0]].astype(problem.dtype), BY_CELL) for axis in Hyper._fields))
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


def evaluate(on: Mesh, problem: Problem) -> Wrapped:
    """`cells.evaluate` in the same way."""
    in_specs = cells.specs(problem).params, BY_CELL, EVERYWHERE, EVERYWHERE
    return on_each(on, functools.partial(cells.evaluate, problem), in_specs, PartitionSpec(None, CELLS))


def record(on: Mesh, problem: Problem) -> Wrapped:
    """Numbers of correct predictions, ``[S, G]``, on a minibatch and over val, in the same way."""

    def of_cells(params: Params, reg: Array, held_out: Array, examples: Examples, batch: Array) -> tuple[Array, Array]:
        val = len(problem.parts) - 1
        on_batch = cells.evaluate_minibatch(problem, params, reg, held_out, examples, batch)
        penalty = jnp.broadcast_to(reg, on_batch.loss.shape)
        on_val = cells.evaluate_part(problem, params, penalty, held_out, examples, val)
        return jnp.sum(on_batch.num_correct, -1), jnp.sum(on_val.num_correct, -1)

    in_specs = cells.specs(problem).params, BY_CELL, EVERYWHERE, EVERYWHERE, EVERYWHERE
    return on_each(on, of_cells, in_specs, PartitionSpec(None, CELLS))


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


def _held_out(problem: Problem, grid: Grid, rows: NDArray[np.integer]) -> NDArray[np.int32]:
    """The part that each replicate holds out: its fold, or else val, the last one."""
    val = np.full(len(rows), len(problem.parts) - 1, np.int32)
    return grid.columns()["fold"][rows[:, 0]].astype(np.int32) if grid.fold else val


def _sizes(problem: Problem, grid: Grid, rows: NDArray[np.integer]) -> NDArray[np.int32]:
    """Index into ``problem.sizes`` of each of these rows."""
    if not grid.hidden:
        return np.zeros(len(rows), np.int32)
    return np.searchsorted([sizes[1] for sizes in problem.sizes], grid.columns()["hidden"][rows]).astype(np.int32)
