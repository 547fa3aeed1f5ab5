"""A whole grid as one program.

Every cell sees the same minibatch, so the scores of all G cells are one product, ``X[B, D]`` with ``W[D, C·G]``:
the cells lie last in each array, as `jaxcls.numerics.stack` has them. Replicates (seeds) differ in their minibatches
too, so they are a batch of S such products, and come first: W is ``[S, D, C, G]``.

Folds are replicates too. The examples lie on the device once, part by part, and a replicate draws from all parts but
the one that it holds out. Data that are split once have two parts, train and val, and all replicates hold out val.

Nets of several hidden sizes are all as wide as the widest, ``W1[D, H, G]``, and begin with zeros where they have
no units. A unit whose weights in and out are zero has a gradient of exactly zero, so they stay zeros.

On a GPU the features end in columns of zeros, as `jaxcls.engine.devices.alignment` says. What is multiplied by them
begins with zeros, and has a gradient of exactly zero, too.

Such zeros are for optimizers that preserve them, as `preserves_zero_padding` finds out: those that work element by
element, or by norms. One that takes means over an array, or adds noise, has one program per size, and no zeros.

Cells share nothing but their data: one that overflows leaves the others as they were, bit for bit.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer, Key

from jaxcls import train
from jaxcls.classifier import LINEAR, Classifier, Params
from jaxcls.data import Folds, Splits
from jaxcls.engine.devices import CELLS
from jaxcls.memory import Memory
from jaxcls.train import Hyper, Optimizer, Score, State


class Problem(NamedTuple):
    """What all cells have in common."""

    classifier: Classifier
    optimizer: Optimizer
    sizes: tuple[tuple[int, ...], ...]  # (num_features, *num_hidden, num_classes); a cell has one of these, rising
    dtype: jnp.dtype
    parts: tuple[int, ...]  # how many examples each part has
    alignment: int = 1  # X has a multiple of so many columns


class Replicates(NamedTuple):
    """What each replicate has of its own."""

    key: Key[Array, "S"]  # draws its initial weights and its minibatches
    held_out: Int[Array, "S"]  # the part that it is not trained on, but validated


class Examples(NamedTuple):
    """All examples, part by part."""

    X: Float[Array, "N D"]
    y: Integer[Array, "N"]
    mean: Float[Array, "P D"] | None = None  # how to prepare them where a part is held out; None if they are prepared
    scale: Float[Array, "P D"] | None = None


def problem(
    data: Splits | Folds,
    hidden: Sequence[int] = (),
    *,
    classifier: Classifier = LINEAR,
    optimizer: Optimizer = optax.sgd,
    alignment: int = 1,
) -> Problem:
    """What the cells of a sweep over ``data`` have in common, those of the ``hidden`` sizes if there are any.

    Example:
      >>> from jaxcls import data
      >>> problem(data.standard(data.load_digits())).sizes
      ((65, 10),)
    """
    num_features = jax.eval_shape(classifier.features, data.train.X).shape[1]
    layers = [(num_hidden,) * classifier.num_hidden_layers for num_hidden in sorted(hidden)] or [()]
    sizes = tuple((num_features, *layer, data.num_classes) for layer in layers)
    return Problem(classifier, optimizer, sizes, data.train.X.dtype, data.parts, alignment)


@functools.lru_cache
def preserves_zero_padding(classifier: Classifier, optimizer: Optimizer, num_classes: int) -> bool:
    """Whether params train as they would without the zeros behind them, by training a few with and without.

    Example:
      >>> import optax
      >>> preserves_zero_padding(LINEAR, optax.adam, 10), preserves_zero_padding(LINEAR, optax.adafactor, 10)
      (True, False)
    """
    transformation = optimizer(jnp.asarray(0.1))

    def trained(params: Params) -> Params:
        state = transformation.init(params)
        for size in (1, 1000):  # what clips large gradients is to do so
            grads = jax.tree.map(lambda leaf: size * leaf, params)  # noqa: B023
            updates, state = transformation.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    def shapes(width: int) -> Params:
        sizes = (width,) * (1 + classifier.num_hidden_layers)
        return jax.eval_shape(functools.partial(classifier.init, *sizes, num_classes), key=jax.random.key(0))

    few = jax.tree.map(lambda leaf: jnp.sin(1 + jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), shapes(2))

    def behind(params: Params) -> Params:
        return jax.tree.map(widen, params, shapes(3))

    without, padded = jax.jit(lambda: (behind(trained(few)), trained(behind(few))))()
    return jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, rtol=1e-4, atol=1e-6)), without, padded))


def cell(problem: Problem) -> State:
    """The shapes and dtypes of one cell's state; nothing is computed."""
    number = jnp.zeros((), problem.dtype)
    params = _params(problem, _widest(problem))
    try:
        return jax.eval_shape(functools.partial(train.init, problem.optimizer), params, Hyper(number, number))
    except jax.errors.ConcretizationTypeError:
        schedule = "optax.sgd(lambda count: lr * schedule(count))"
        raise ValueError(
            f"optimizer must not look at lr, which is traced: give a schedule a peak of 1, lambda lr: {schedule}"
        ) from None


def estimate(problem: Problem, *, batch_size: int) -> Memory:
    """What training takes: the data; of each cell its state, a gradient, an update, and some activations.

    Example:
      >>> from jaxcls import data
      >>> estimate(problem(data.standard(data.load_digits())), batch_size=200)
      Memory(data=403128, cell=167800)
    """
    state = cell(problem)
    num_columns, *activations = _widest(problem)
    data = sum(problem.parts) * (num_columns * problem.dtype.itemsize + 4)
    outputs = max(batch_size, train.EVALUATION_BATCH) * sum(activations) * problem.dtype.itemsize
    return Memory(data, _nbytes(state) + 2 * _nbytes(state.params) + 4 * outputs)


def features(problem: Problem, X: Float[ArrayLike, "B d"]) -> Float[Array, "B D"]:
    """What the classifier takes, of examples as a protocol prepared them: with the zeros behind.

    Example:
      >>> from jaxcls import data
      >>> splits = data.standard(data.load_digits())
      >>> features(problem(splits, alignment=32), splits.val.X).shape
      (270, 96)
    """
    X = problem.classifier.features(X)
    zeros = _widest(problem)[0] - X.shape[1]
    return jnp.pad(X, [(0, 0), (0, zeros)]) if zeros else X


def specs(problem: Problem) -> State:
    """How the states of all cells are split over the devices of `jaxcls.engine.devices.mesh`: by cell."""
    return jax.tree.map(lambda leaf: PartitionSpec(*[None] * (leaf.ndim + 1), CELLS), cell(problem))


def init(problem: Problem, hyper: Hyper, size: Int[Array, "G"], replicates: Replicates) -> State:
    """The states of all cells before the first step; ``size`` says which of the problem's sizes each cell has.

    Cells of one replicate and one size begin with the same weights.
    """
    one = cell(problem)

    def start(drawn: Params, hyper: Hyper, size: Array) -> State:
        return train.init(problem.optimizer, jax.tree.map(lambda leaf: leaf[size], drawn), hyper)

    def replicate(key: Array) -> State:
        drawn = [jax.tree.map(widen, _draw(problem, sizes, key), one.params) for sizes in problem.sizes]
        drawn = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
        return jax.vmap(start, in_axes=(None, 0, 0), out_axes=-1)(drawn, hyper, size)

    return jax.vmap(replicate)(replicates.key)


def chunk(
    problem: Problem,
    state: State,
    hyper: Hyper,
    replicates: Replicates,
    first_step: Int[Array, ""],
    examples: Examples,
    *,
    steps: int,
    batch_size: int,
) -> tuple[State, Float[Array, "T S G"]]:
    """Train all cells for ``steps`` more steps: the states after, and every step's minibatch losses."""
    batches = _minibatches(problem, replicates, first_step, steps, batch_size)
    return run(problem, state, hyper, replicates.held_out, examples, batches)


def run(
    problem: Problem,
    state: State,
    hyper: Hyper,
    held_out: Int[Array, "S"],
    examples: Examples,
    batches: Int[Array, "T S B"],
) -> tuple[State, Float[Array, "T S G"]]:
    """As `chunk`, on minibatches given."""
    step = functools.partial(train.step, problem.classifier, problem.optimizer)
    cells = jax.vmap(step, in_axes=(-1, 0, None, None), out_axes=(-1, 0))

    def replicate(held_out: Array, state: State, hyper: Hyper, X: Array, y: Array) -> Any:
        return cells(state, hyper, _features(problem, examples, held_out, X), y)

    if batches.shape[1] > 1:
        replicates = jax.vmap(replicate, in_axes=(0, 0, None, 0, 0))
        return train.run(functools.partial(replicates, held_out), state, hyper, examples.X, examples.y, batches)
    # A batch of one product is slower than the product: XLA turns the minibatch over for it.
    one, state = functools.partial(replicate, held_out[0]), jax.tree.map(lambda leaf: leaf[0], state)
    state, losses = train.run(one, state, hyper, examples.X, examples.y, batches[:, 0])
    return jax.tree.map(lambda leaf: leaf[None], state), losses[:, None]


def evaluate(
    problem: Problem, params: Params, reg: Float[Array, "G"], held_out: Int[Array, "S"], examples: Examples
) -> tuple[Score, Score]:
    """Losses and numbers of right predictions of all cells, ``[S, G]`` each: of train, penalty included, and of val."""
    size = jnp.asarray(problem.parts)[:, None, None]
    is_val = (jnp.arange(len(problem.parts))[:, None] == held_out[None])[..., None]
    penalty = jnp.where(is_val, 0, reg[None, None])
    scores = [
        evaluate_part(problem, params, penalty[part], held_out, examples, part) for part in range(len(problem.parts))
    ]
    loss, num_correct = jax.tree.map(lambda *parts: jnp.stack(parts), *scores)
    share = size / jnp.sum(size, 0, where=~is_val, keepdims=True)
    on_train = Score(jnp.sum(share.astype(loss.dtype) * loss, 0, where=~is_val), jnp.sum(num_correct, 0, where=~is_val))
    return on_train, Score(jnp.sum(loss, 0, where=is_val), jnp.sum(num_correct, 0, where=is_val))


def evaluate_part(
    problem: Problem,
    params: Params,
    reg: Float[Array, "S G"],
    held_out: Int[Array, "S"],
    examples: Examples,
    part: int,
) -> Score:
    """Loss and number of right predictions of all cells over one part, ``[S, G]`` each."""
    replicates = jax.vmap(functools.partial(_score, problem, examples), in_axes=(0, 0, 0, None, None))
    first, count = sum(problem.parts[:part]), problem.parts[part]
    score = functools.partial(replicates, held_out, params, reg)
    return train.evaluate(score, examples.X, examples.y, first=first, count=count)


def evaluate_minibatch(
    problem: Problem,
    params: Params,
    reg: Float[Array, "G"],
    replicates: Replicates,
    step: Int[Array, ""],
    examples: Examples,
    *,
    batch_size: int,
) -> Score:
    """As `evaluate_part`, on the minibatch that each replicate is trained on in ``step``."""
    (batches,) = _minibatches(problem, replicates, step, 1, batch_size)
    score = jax.vmap(functools.partial(_score, problem, examples), in_axes=(0, 0, None, 0, 0))
    return score(replicates.held_out, params, reg, examples.X[batches], examples.y[batches])


def take(problem: Problem, params: Params, replicate: int, index: int, size: int) -> Params:
    """One cell's params, out of all, without the zeros that made it as wide as the others."""

    def own(leaf: Array, one: Any) -> Array:
        return leaf[(replicate, *[slice(length) for length in one.shape], index)]

    return jax.tree.map(own, params, _params(problem, problem.sizes[size]))


def widen(leaf: Array, wide: Any) -> Array:
    """Zeros after the end of each axis, up to the shape of ``wide``.

    Example:
      >>> print(widen(jnp.ones(2), jnp.ones(3)))
      [1. 1. 0.]
    """
    return jnp.pad(leaf, [(0, to - length) for length, to in zip(leaf.shape, wide.shape, strict=True)])


def _params(problem: Problem, sizes: tuple[int, ...]) -> Params:
    """The shapes and dtypes of the params of a model of these sizes."""
    return jax.eval_shape(functools.partial(_draw, problem, sizes), jax.random.key(0))


def _draw(problem: Problem, sizes: tuple[int, ...], key: Array) -> Params:
    key, _ = jax.random.split(key)  # the other half draws the minibatches
    return problem.classifier.init(*sizes, key=key, dtype=problem.dtype)


def _minibatches(
    problem: Problem, replicates: Replicates, first_step: Array, steps: int, batch_size: int
) -> Int[Array, "T S B"]:
    """Drawn from what a replicate does not hold out."""
    size = jnp.asarray(problem.parts)
    first = jnp.cumsum(size) - size

    def draw(replicate: Replicates) -> Array:
        _, key = jax.random.split(replicate.key)
        num_out = size[replicate.held_out]
        num_examples = sum(problem.parts) - num_out
        drawn = train.minibatches(key, first_step, steps, batch_size=batch_size, num_examples=num_examples)
        return drawn + jnp.where(drawn >= first[replicate.held_out], num_out, 0)

    return jax.vmap(draw, out_axes=1)(replicates)


def _features(problem: Problem, examples: Examples, held_out: Int[Array, ""], X: Float[Array, "B d"]) -> Array:
    """What the classifier takes, of some examples."""
    if examples.mean is None or examples.scale is None:
        return X
    return features(problem, (X - examples.mean[held_out][None]) / examples.scale[held_out][None])


def _score(
    problem: Problem, examples: Examples, held_out: Array, params: Params, reg: Array, X: Array, y: Array
) -> Score:
    """`train.score` of all cells of one replicate."""
    cells = jax.vmap(functools.partial(train.score, problem.classifier), in_axes=(-1, 0, None, None))
    return cells(params, reg, _features(problem, examples, held_out, X), y)


def _nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _widest(problem: Problem) -> tuple[int, ...]:
    """The widest of the sizes, and its features with the zeros behind."""
    num_features, *layers = problem.sizes[-1]
    return (num_features + -num_features % problem.alignment, *layers)
