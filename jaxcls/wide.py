"""A whole grid as one program.

Every cell sees the same minibatch, so the scores of all G cells are one product, ``X[B, D]`` with ``W[D, C·G]``:
the cells lie last in each array, as `jaxcls.stack` has them. Replicates (seeds) differ in their minibatches too, so
they are a batch of S such products, and come first: W is ``[S, D, C, G]``.

Nets of several hidden sizes are all as wide as the widest, ``W1[D, H, G]``, and begin with zeros where they have
no units. A unit whose weights in and out are zero has a gradient of exactly zero, so they stay zeros.

Cells share nothing but their data: one that overflows leaves the others as they were, bit for bit.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Integer, Key

from jaxcls import train
from jaxcls.classifier import LINEAR, Classifier, Params
from jaxcls.data.splits import Splits
from jaxcls.devices import CELLS
from jaxcls.train import Hyper, Optimizer, Score, State


class Problem(NamedTuple):
    """What all cells have in common."""

    classifier: Classifier
    optimizer: Optimizer
    sizes: tuple[tuple[int, ...], ...]  # (num_features, *num_hidden, num_classes); a cell has one of these, rising
    dtype: jnp.dtype


def problem(
    splits: Splits,
    hidden: Sequence[int] = (),
    *,
    classifier: Classifier = LINEAR,
    optimizer: Optimizer = optax.sgd,
) -> Problem:
    """What the cells of a sweep over ``splits`` have in common, those of the ``hidden`` sizes if there are any.

    Example:
      >>> from jaxcls import data
      >>> problem(data.standard(data.load_digits())).sizes
      ((65, 10),)
    """
    num_features = jax.eval_shape(classifier.features, splits.train.X).shape[1]
    layers = [(num_hidden,) * classifier.num_hidden_layers for num_hidden in sorted(hidden)] or [()]
    sizes = tuple((num_features, *layer, splits.num_classes) for layer in layers)
    return Problem(classifier, optimizer, sizes, splits.train.X.dtype)


def cell(problem: Problem) -> State:
    """The shapes and dtypes of one cell's state; nothing is computed."""
    number = jnp.zeros((), problem.dtype)
    params = _params(problem, problem.sizes[-1])
    return jax.eval_shape(functools.partial(train.init, problem.optimizer), params, Hyper(number, number))


def specs(problem: Problem) -> State:
    """How the states of all cells are split over the devices of `jaxcls.devices.mesh`: by cell."""
    return jax.tree.map(lambda leaf: PartitionSpec(*[None] * (leaf.ndim + 1), CELLS), cell(problem))


def init(problem: Problem, hyper: Hyper, size: Int[Array, "G"], keys: Key[Array, "S"]) -> State:
    """The states of all cells before the first step; ``size`` says which of the problem's sizes each cell has.

    Cells of one replicate and one size begin with the same weights.
    """
    one = cell(problem)

    def start(drawn: Params, hyper: Hyper, size: Array) -> State:
        return train.init(problem.optimizer, jax.tree.map(lambda leaf: leaf[size], drawn), hyper)

    def replicate(key: Array) -> State:
        drawn = [jax.tree.map(_widen, _draw(problem, sizes, key), one.params) for sizes in problem.sizes]
        drawn = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
        return jax.vmap(start, in_axes=(None, 0, 0), out_axes=-1)(drawn, hyper, size)

    return jax.vmap(replicate)(keys)


def chunk(
    problem: Problem,
    state: State,
    hyper: Hyper,
    keys: Key[Array, "S"],
    first_step: Int[Array, ""],
    X: Float[Array, "N D"],
    y: Integer[Array, "N"],
    *,
    steps: int,
    batch_size: int,
) -> tuple[State, Float[Array, "T S G"]]:
    """Train all cells for ``steps`` more steps: the states after, and every step's minibatch losses."""
    return run(problem, state, hyper, X, y, _minibatches(keys, first_step, steps, batch_size, X.shape[0]))


def run(
    problem: Problem,
    state: State,
    hyper: Hyper,
    X: Float[Array, "N D"],
    y: Integer[Array, "N"],
    batches: Int[Array, "T S B"],
) -> tuple[State, Float[Array, "T S G"]]:
    """As `chunk`, on minibatches given."""
    step = functools.partial(train.step, problem.classifier, problem.optimizer)
    cells = jax.vmap(step, in_axes=(-1, 0, None, None), out_axes=(-1, 0))
    if batches.shape[1] > 1:
        replicates = jax.vmap(cells, in_axes=(0, None, 0, 0))
        return train.run(replicates, state, hyper, X, y, batches)
    # A batch of one product is slower than the product: XLA turns the minibatch over for it.
    state, losses = train.run(cells, jax.tree.map(lambda leaf: leaf[0], state), hyper, X, y, batches[:, 0])
    return jax.tree.map(lambda leaf: leaf[None], state), losses[:, None]


def evaluate(
    problem: Problem, params: Params, reg: Float[Array, "G"], X: Float[Array, "N D"], y: Integer[Array, "N"]
) -> Score:
    """Loss and number of right predictions of all cells, ``[S, G]`` each."""
    replicates = jax.vmap(_score(problem), in_axes=(0, None, None, None))
    return train.evaluate(functools.partial(replicates, params, reg), X, y)


def evaluate_minibatch(
    problem: Problem,
    params: Params,
    reg: Float[Array, "G"],
    keys: Key[Array, "S"],
    step: Int[Array, ""],
    X: Float[Array, "N D"],
    y: Integer[Array, "N"],
    *,
    batch_size: int,
) -> Score:
    """As `evaluate`, on the minibatch that each replicate is trained on in ``step``."""
    (batches,) = _minibatches(keys, step, 1, batch_size, X.shape[0])
    return jax.vmap(_score(problem), in_axes=(0, None, 0, 0))(params, reg, X[batches], y[batches])


def take(problem: Problem, params: Params, replicate: int, index: int, size: int) -> Params:
    """One cell's params, out of all, without the zeros that made it as wide as the others."""

    def own(leaf: Array, one: Any) -> Array:
        return leaf[(replicate, *[slice(length) for length in one.shape], index)]

    return jax.tree.map(own, params, _params(problem, problem.sizes[size]))


def _params(problem: Problem, sizes: tuple[int, ...]) -> Params:
    """The shapes and dtypes of the params of a model of these sizes."""
    return jax.eval_shape(functools.partial(_draw, problem, sizes), jax.random.key(0))


def _draw(problem: Problem, sizes: tuple[int, ...], key: Array) -> Params:
    key, _ = jax.random.split(key)  # the other half draws the minibatches
    return problem.classifier.init(*sizes, key=key, dtype=problem.dtype)


def _minibatches(keys: Array, first_step: Array, steps: int, batch_size: int, num_examples: int) -> Int[Array, "T S B"]:
    def draw(key: Array) -> Array:
        _, key = jax.random.split(key)
        return train.minibatches(key, first_step, steps, batch_size=batch_size, num_examples=num_examples)

    return jax.vmap(draw, out_axes=1)(keys)


def _score(problem: Problem) -> Any:
    """`train.score` of all cells of one replicate."""
    return jax.vmap(functools.partial(train.score, problem.classifier), in_axes=(-1, 0, None, None))


def _widen(leaf: Array, wide: Any) -> Array:
    """Zeros after the end of each axis, up to the shape of ``wide``."""
    return jnp.pad(leaf, [(0, to - length) for length, to in zip(leaf.shape, wide.shape, strict=True)])
