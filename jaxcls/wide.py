"""A whole grid as one program.

Every cell sees the same minibatch, so the scores of all G cells are one product, ``X[B, D]`` with ``W[D, G·C]``.
`jax.vmap` writes that product by itself if the cells lie just before the last axis of each parameter: W is
``[D, G, C]``. Replicates (seeds) differ in their minibatches too, so they are a batch of S such products, and
come first: W is ``[S, D, G, C]``.

Cells share nothing but their data: one that overflows leaves the others as they were, bit for bit.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxcls import train
from jaxcls.classifier import Classifier, Params
from jaxcls.train import Hyper, Optimizer, Score, State


class Problem(NamedTuple):
    """What all cells have in common."""

    classifier: Classifier
    optimizer: Optimizer
    num_features: int
    num_classes: int
    dtype: jnp.dtype


def cell(problem: Problem) -> State:
    """The shapes and dtypes of one cell's state; nothing is computed."""
    number = jnp.zeros((), problem.dtype)
    return jax.eval_shape(functools.partial(_start, problem), Hyper(number, number), jax.random.key(0))


def init(problem: Problem, hyper: Hyper, keys: Key[Array, "S"]) -> State:
    """The states of all cells before the first step. Those of one replicate begin with the same weights."""
    cells = jax.vmap(functools.partial(_start, problem), in_axes=(0, None), out_axes=_cell_axes(cell(problem)))
    return jax.vmap(cells, in_axes=(None, 0))(hyper, keys)


def chunk(
    problem: Problem,
    state: State,
    hyper: Hyper,
    keys: Key[Array, "S"],
    first_step: Int[Array, ""],
    X: Float[Array, "N D"],
    y: Int[Array, "N"],
    *,
    steps: int,
    batch_size: int,
) -> tuple[State, Float[Array, "T S G"]]:
    """Train all cells for ``steps`` more steps: the states after, and every step's minibatch losses."""

    def draw(key: Array) -> Array:
        _, key = jax.random.split(key)
        return train.minibatches(key, first_step, steps, batch_size=batch_size, num_examples=X.shape[0])

    axes = _cell_axes(cell(problem))
    step = functools.partial(train.step, problem.classifier, problem.optimizer)
    cells = jax.vmap(step, in_axes=(axes, 0, None, None), out_axes=(axes, 0))
    replicates = jax.vmap(cells, in_axes=(0, None, 0, 0))
    return train.run(replicates, state, hyper, X, y, jax.vmap(draw, out_axes=1)(keys))


def evaluate(
    problem: Problem, params: Params, reg: Float[Array, "G"], X: Float[Array, "N D"], y: Int[Array, "N"]
) -> Score:
    """Loss and number of right predictions of all cells, ``[S, G]`` each."""
    axes = _cell_axes(cell(problem).params)
    cells = jax.vmap(functools.partial(train.score, problem.classifier), in_axes=(axes, 0, None, None))
    replicates = jax.vmap(cells, in_axes=(0, None, None, None))
    return train.evaluate(functools.partial(replicates, params, reg), X, y)


def take(problem: Problem, params: Params, replicate: int, index: int) -> Params:
    """One cell's params, out of all."""
    axes = _cell_axes(cell(problem).params)
    return jax.tree.map(lambda leaf, axis: jnp.take(leaf[replicate], index, axis=axis), params, axes)


def _start(problem: Problem, hyper: Hyper, key: Array) -> State:
    key, _ = jax.random.split(key)  # the other half draws the minibatches
    return train.init(
        problem.classifier,
        problem.optimizer,
        hyper,
        key=key,
        num_features=problem.num_features,
        num_classes=problem.num_classes,
        dtype=problem.dtype,
    )


def _cell_axes(one: Any) -> Any:
    """Where the cells lie in each leaf, given one cell's tree: just before the last axis."""
    return jax.tree.map(lambda leaf: max(leaf.ndim - 1, 0), one)
