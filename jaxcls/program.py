"""What a block of cells runs, compiled: begin, train for some steps, look along the way, score."""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array
from numpy.typing import NDArray

from jaxcls import wide
from jaxcls.classifier import Params
from jaxcls.devices import CELLS, EVERYWHERE, on_each, put
from jaxcls.train import Hyper, Score, State
from jaxcls.wide import Problem

Cells = tuple[Hyper, Array, Array]  # hyperparameters [G] each, which size each cell has [G], replicates' keys [S]
Sets = tuple[tuple[Array, Array], tuple[Array, Array]]  # X and y of train and of val


class Program(NamedTuple):
    """The compiled functions; a state is that of all cells."""

    init: Callable[..., State]  # (*cells) -> state
    chunk: Mapping[int, Callable[..., Any]]  # by its steps T; (state, hyper, keys, step, *train) -> (state, losses)
    record: Any  # None without history; (params, reg, keys, step, train, val) -> right on the minibatch, on val
    evaluate: Callable[..., tuple[Score, Score]]  # (params, reg, train, val) -> of train and of val
    state: State  # shapes, dtypes and where on the devices they lie


def build(
    on: Mesh,
    problem: Problem,
    cells: Cells,
    sets: Sets,
    *,
    lengths: Collection[int],
    batch_size: int,
    history: bool,
) -> Program:
    """Compile for a block of cells of this shape: chunks of each of these lengths, ``record`` if there is a history."""

    def record(params: Params, reg: Array, keys: Array, step: Array, train_set: Any, val_set: Any) -> Any:
        on_batch = wide.evaluate_minibatch(problem, params, reg, keys, step, *train_set, batch_size=batch_size)
        return on_batch.num_correct, wide.evaluate(problem, params, reg, *val_set).num_correct

    def evaluate(params: Params, reg: Array, train_set: Any, val_set: Any) -> tuple[Score, Score]:
        no_penalty = jnp.zeros_like(reg)
        return (
            wide.evaluate(problem, params, reg, *train_set),
            wide.evaluate(problem, params, no_penalty, *val_set),
        )

    by_cell, of_state = PartitionSpec(CELLS), wide.specs(problem)
    hyper, _, keys = cells
    init = on_each(on, functools.partial(wide.init, problem), (by_cell, by_cell, EVERYWHERE), of_state)
    state = jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(on, spec)),
        jax.eval_shape(init, *cells),
        of_state,
    )
    step = put(on, np.int32(0))
    scores, of_sets = PartitionSpec(None, CELLS), (EVERYWHERE, EVERYWHERE)
    recording = on_each(on, record, (of_state.params, by_cell, EVERYWHERE, EVERYWHERE, *of_sets), scores)
    evaluation = on_each(on, evaluate, (of_state.params, by_cell, *of_sets), scores)
    return Program(
        init.lower(*cells).compile(),
        {
            steps: chunk(on, problem, steps=steps, batch_size=batch_size)
            .lower(state, hyper, keys, step, *sets[0])
            .compile()
            for steps in set(lengths)
        },
        recording.lower(state.params, hyper.reg, keys, step, *sets).compile() if history else None,
        evaluation.lower(state.params, hyper.reg, *sets).compile(),
        state,
    )


def restore(program: Program, leaves: Sequence[NDArray]) -> State:
    """The state of which these are the leaves, on the devices.

    Raises:
      ValueError: they are not of this program's state.
    """
    shapes, tree = jax.tree.flatten(program.state)
    if [(leaf.shape, leaf.dtype) for leaf in leaves] != [(shape.shape, shape.dtype) for shape in shapes]:
        raise ValueError("the saved state must be of the model, optimizer and grid that are to go on from it")
    placed = [put(shape.sharding.mesh, leaf, shape.sharding.spec) for leaf, shape in zip(leaves, shapes, strict=True)]
    return jax.tree.unflatten(tree, placed)


def chunk(on: Mesh, problem: Problem, *, steps: int, batch_size: int) -> Any:
    """`wide.chunk` under ``jax.jit``, each device with its own cells. The new state takes the place of the old."""
    by_cell, of_state = PartitionSpec(CELLS), wide.specs(problem)
    return on_each(
        on,
        functools.partial(wide.chunk, problem, steps=steps, batch_size=batch_size),
        (of_state, by_cell, EVERYWHERE, EVERYWHERE, EVERYWHERE, EVERYWHERE),
        (of_state, PartitionSpec(None, None, CELLS)),
        donate_argnums=0,
    )
