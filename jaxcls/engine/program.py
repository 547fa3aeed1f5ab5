"""Ahead-of-time compiled functions for one block of cells: begin, train for some steps, record, score."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array
from numpy.typing import NDArray

from jaxcls.classifier import Params
from jaxcls.engine import cells
from jaxcls.engine.cells import Examples, Problem, Replicates
from jaxcls.engine.devices import CELLS, EVERYWHERE, on_each, put
from jaxcls.train import Hyper, Score, State

Cells = tuple[Hyper, Array, Replicates]  # hyperparameters [G] each, which size each cell has [G], replicates [S]


class Program(NamedTuple):
    """The compiled functions; a state is that of all cells."""

    init: Callable[..., State]  # (*block) -> state
    chunk: Mapping[int, Callable[..., Any]]  # by steps; (state, hyper, replicates, step, examples) -> (state, losses)
    record: Any  # None without history; (params, reg, replicates, step, examples) -> right on the minibatch, on val
    evaluate: Callable[..., tuple[Score, Score]]  # (params, reg, held_out, examples) -> of train, of val
    state: State  # shapes, dtypes and where on the devices they lie


def build(
    on: Mesh,
    problem: Problem,
    block: Cells,
    examples: Examples,
    *,
    lengths: Collection[int],
    batch_size: int,
    history: bool,
) -> Program:
    """Compile for a block of cells of this shape: chunks of each of these lengths, ``record`` if there is a history."""

    def record(params: Params, reg: Array, replicates: Replicates, step: Array, examples: Examples) -> Any:
        on_batch = cells.evaluate_minibatch(problem, params, reg, replicates, step, examples, batch_size=batch_size)
        penalty, val = jnp.broadcast_to(reg, on_batch.loss.shape), len(problem.parts) - 1
        on_val = cells.evaluate_part(problem, params, penalty, replicates.held_out, examples, val)
        return on_batch.num_correct, on_val.num_correct

    by_cell, of_state = PartitionSpec(CELLS), cells.specs(problem)
    hyper, _, replicates = block
    init = on_each(on, functools.partial(cells.init, problem), (by_cell, by_cell, EVERYWHERE), of_state)
    state = jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(on, spec)),
        jax.eval_shape(init, *block),
        of_state,
    )
    step = put(on, np.int32(0))
    scores = PartitionSpec(None, CELLS)
    recording = on_each(on, record, (of_state.params, by_cell, EVERYWHERE, EVERYWHERE, EVERYWHERE), scores)
    evaluate = functools.partial(cells.evaluate, problem)
    evaluation = on_each(on, evaluate, (of_state.params, by_cell, EVERYWHERE, EVERYWHERE), scores)
    return Program(
        init.lower(*block).compile(),
        {
            steps: chunk(on, problem, steps=steps, batch_size=batch_size)
            .lower(state, hyper, replicates, step, examples)
            .compile()
            for steps in set(lengths)
        },
        recording.lower(state.params, hyper.reg, replicates, step, examples).compile() if history else None,
        evaluation.lower(state.params, hyper.reg, replicates.held_out, examples).compile(),
        state,
    )


def without_keys(leaf: Array) -> Array:
    """A leaf of a state as numbers: of PRNG keys, those that they are made of.

    Example:
      >>> print(without_keys(jax.random.key(7)))
      [0 7]
    """
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def restore(program: Program, leaves: Sequence[NDArray]) -> State:
    """The state of which these are the leaves, on the devices.

    Raises:
      ValueError: they are not of this program's state.
    """
    shapes, tree = jax.tree.flatten(program.state)
    saved = [jax.eval_shape(without_keys, shape) for shape in shapes]
    if [(leaf.shape, leaf.dtype) for leaf in leaves] != [(shape.shape, shape.dtype) for shape in saved]:
        raise ValueError("the saved state must be of the model, optimizer and grid that are to go on from it")
    return jax.tree.unflatten(tree, map(_place, leaves, shapes))


def chunk(on: Mesh, problem: Problem, *, steps: int, batch_size: int) -> Any:
    """`cells.chunk` under ``jax.jit``, each device with its own cells. The new state takes the place of the old."""
    by_cell, of_state = PartitionSpec(CELLS), cells.specs(problem)
    return on_each(
        on,
        functools.partial(cells.chunk, problem, steps=steps, batch_size=batch_size),
        (of_state, by_cell, EVERYWHERE, EVERYWHERE, EVERYWHERE),
        (of_state, PartitionSpec(None, None, CELLS)),
        donate_argnums=0,
    )


def _place(leaf: NDArray, shape: Any) -> Array:
    """A saved leaf on the devices, where and as what it was."""
    on, spec = shape.sharding.mesh, shape.sharding.spec
    if not _is_key(shape):
        return put(on, leaf, spec)
    generator = jax.random.key_impl(jnp.empty(0, shape.dtype))
    return jax.random.wrap_key_data(put(on, leaf, PartitionSpec(*spec, None)), impl=generator)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
