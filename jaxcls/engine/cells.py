"""A whole grid as one wide matrix product.

Every cell sees the same minibatch, so the logits of all G cells are one product, ``X[B, D]`` with ``W[D, C·G]``:
parameters have a trailing cell axis, as in `jaxcls.numerics.stack`. Replicates (seeds) have their own minibatches,
so they are a batch of S such products, with a leading axis: W is ``[S, D, C, G]``.

Folds are replicates too. The examples lie on the device once, part by part, and a replicate trains on all parts but
the one held out. Data that are split once have two parts, train and val, and every replicate holds out val; so do
tries, but each has a train of its own.

Nets of several hidden sizes are padded to the widest, ``W1[D, H, G]``, with zeros for the missing units. A unit whose
incoming and outgoing weights are zero has a gradient of exactly zero, so the padding stays zero.

On a GPU the features are padded with zero columns, see `jaxcls.engine.devices.alignment`. Their weights begin at zero
and have a gradient of exactly zero, too.

Zero padding needs an optimizer that preserves it, which `preserves_zero_padding` tests: all that work element by
element or by norms do. Those that take means over an array, or add noise, get one program per size, unpadded.

Cells share nothing but their data: a cell that overflows changes no bit of another.
"""

import functools
import inspect
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Integer, Key, PyTree, Real
from numpy.typing import NDArray

from jaxcls import train
from jaxcls.classifier import LINEAR, Classifier
from jaxcls.data import Folds, Splits
from jaxcls.engine.devices import CELLS
from jaxcls.grid import OF_OPTIMIZER
from jaxcls.numerics import Params, standardised
from jaxcls.optimizers import Optimizer
from jaxcls.train import Hyper, Score, State

OF_OUTPUT = 500  # multiplications that take as long as the elementwise part of one output of a layer


class Problem(NamedTuple):
    """Everything that the cells of a group share.

    Attributes:
      classifier, optimizer: those of the sweep.
      sizes: ``(num_features, *num_hidden, num_classes)`` of each size that a cell may have, in ascending order.
      dtype: of params, and of examples once they are standardised.
      parts: how many examples each part has.
      alignment: X is padded to a multiple of so many columns.
      hyper: the names of the hyperparameters that the cells have, fields of `Hyper`.
      ema: the decay of the params' moving average, which is scored instead of them; None for none.
    """

    classifier: Classifier
    optimizer: Optimizer
    sizes: tuple[tuple[int, ...], ...]
    dtype: jnp.dtype
    parts: tuple[int, ...]
    alignment: int = 1
    hyper: tuple[str, ...] = ("lr", "reg")
    ema: float | None = None


class Replicates(NamedTuple):
    """The PRNG key and the fold of each replicate.

    Attributes:
      key: draws the initial weights.
      fold: which mean and scale standardise its examples; 0 for data that are split once.
    """

    key: Key[Array, "S"]
    fold: Int[Array, "S"]


class Kept(NamedTuple):
    """The best params of each cell so far, and the score on val that they had, higher for better: ``[S, G]``."""

    params: Params
    score: Float[Array, "S G"]


class Examples(NamedTuple):
    """All examples, part by part.

    Attributes:
      X, y: the examples, raw where JAX's default float is exact for them, and their labels.
      mean, scale: standardisation of X, ``[1, D]``, or in each fold; None where there is none.
    """

    X: Real[Array, "N d"]
    y: Integer[Array, "N"]
    mean: Float[Array, "P d"] | None = None
    scale: Float[Array, "P d"] | None = None


def problem(
    data: Splits | Folds,
    hidden: Sequence[int] = (),
    *,
    classifier: Classifier = LINEAR,
    optimizer: Optimizer = optax.sgd,
    alignment: int = 1,
    hyper: tuple[str, ...] = ("lr", "reg"),
    ema: float | None = None,
) -> Problem:
    """The `Problem` of a sweep over ``data``; for nets, of the cells with these ``hidden`` sizes.

    Example:
      >>> from jaxcls import data
      >>> problem(data.standard(data.load_digits())).sizes
      ((65, 10),)
    """
    dtype = np.dtype(jnp.result_type(float))
    num_features = jax.eval_shape(classifier.features, jax.ShapeDtypeStruct((1, data.num_features), dtype)).shape[1]
    layers = [(num_hidden,) * classifier.num_hidden_layers for num_hidden in sorted(hidden)] or [()]
    sizes = tuple((num_features, *layer, data.num_classes) for layer in layers)
    return Problem(classifier, optimizer, sizes, dtype, data.parts, alignment, hyper, ema)


@functools.lru_cache
def preserves_zero_padding(
    classifier: Classifier, optimizer: Optimizer, num_classes: int, hyper: tuple[str, ...] = ()
) -> bool:
    """True if zero padding leaves training unchanged, tested on a few params with and without.

    Example:
      >>> import optax
      >>> preserves_zero_padding(LINEAR, optax.adam, 10), preserves_zero_padding(LINEAR, optax.adafactor, 10)
      (True, False)
    """
    numbers = Hyper(**dict.fromkeys(("lr", "reg", *hyper), jnp.asarray(0.1)))
    transformation = optimizer(numbers.lr, **numbers.of_optimizer)

    def trained(params: Params) -> Params:
        state = transformation.init(params)
        for size in (1, 1000):  # 1000 reaches the threshold of gradient clipping
            grads = jax.tree.map(lambda leaf: size * leaf, params)  # noqa: B023
            updates, state = transformation.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    def shapes(width: int) -> Params:
        sizes = (width,) * (1 + classifier.num_hidden_layers)
        return jax.eval_shape(functools.partial(classifier.init, *sizes, num_classes), key=jax.random.key(0))

    few = jax.tree.map(lambda leaf: jnp.sin(1 + jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), shapes(2))

    def padded(params: Params) -> Params:
        return jax.tree.map(widen, params, shapes(3))

    without, with_zeros = jax.jit(lambda: (padded(trained(few)), trained(padded(few))))()
    return jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, rtol=1e-4, atol=1e-6)), without, with_zeros))


def cell(problem: Problem) -> State:
    """Shapes and dtypes of one cell's state, without computing it.

    Raises:
      ValueError: the optimizer branches on lr, which is traced.
    """
    params = _params(problem, _widest(problem))
    try:
        start = functools.partial(train.init, problem.optimizer, ema=problem.ema)
        return jax.eval_shape(start, params, _hyper(problem))
    except jax.errors.ConcretizationTypeError:
        schedule = "optax.sgd(lambda count: lr * schedule(count))"
        raise ValueError(
            f"optimizer must not look at lr, which is traced: give a schedule a peak of 1, lambda lr: {schedule}"
        ) from None


def check_optimizer(problem: Problem) -> None:
    """Check that the optimizer updates params from their gradient alone.

    Raises:
      TypeError: it needs more, as `optax.lbfgs` needs the loss; or does not take a hyperparameter of the cells.
    """
    takes = inspect.signature(problem.optimizer).parameters.values()
    if not any(each.kind == each.VAR_KEYWORD for each in takes):
        for name in set(problem.hyper) & set(OF_OPTIMIZER) - {each.name for each in takes}:
            raise TypeError(f"optimizer must take the grid's {name} as a keyword argument, which this one does not")
    params, opt_state, _ = cell(problem)

    def update(hyper: Hyper, *of: PyTree) -> PyTree:
        return problem.optimizer(hyper.lr, **hyper.of_optimizer).update(*of)

    try:
        jax.eval_shape(update, _hyper(problem), params, opt_state, params)
    except TypeError as error:
        raise TypeError(f"optimizer must update from the gradient alone: {error}") from None


def estimate(problem: Problem, *, batch_size: int, keep: str = "last") -> int:
    """Bytes of a cell in training: its state, a gradient, an update, activations, and the params that are kept.

    Example:
      >>> from jaxcls import data
      >>> estimate(problem(data.standard(data.load_digits())), batch_size=200)
      167800
    """
    state = cell(problem)
    outputs = max(batch_size, train.EVALUATION_BATCH) * sum(_widest(problem)[1:]) * problem.dtype.itemsize
    return _nbytes(state) + (3 if keep == "best" else 2) * _nbytes(state.params) + 4 * outputs


def work(problem: Problem) -> float:
    """Multiplications that take as long as one example takes to score in one cell.

    Example:
      >>> from jaxcls import data
      >>> work(problem(data.standard(data.load_digits())))
      5650.0
    """
    products = sum(width * following for width, following in itertools.pairwise(_widest(problem)))
    return products + OF_OUTPUT * float(sum(_widest(problem)[1:]))


def state_nbytes(problem: Problem) -> int:
    """Bytes of a cell's state.

    Example:
      >>> from jaxcls import data
      >>> state_nbytes(problem(data.standard(data.load_digits())))
      2600
    """
    return _nbytes(cell(problem))


def features(problem: Problem, X: Float[ArrayLike, "B d"]) -> Float[Array, "B D"]:
    """The classifier's inputs for prepared examples, with their zero columns.

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
    """Partition specs of the state of all cells: split by cell over the mesh of `jaxcls.engine.devices.mesh`."""
    return jax.tree.map(lambda leaf: PartitionSpec(*[None] * (leaf.ndim + 1), CELLS), cell(problem))


def init(problem: Problem, hyper: Hyper, size: Int[Array, "G"], replicates: Replicates) -> State:
    """The state of all cells before the first step.

    Cells of one replicate and one size start from the same weights.

    Args:
      problem: the group's.
      hyper: of each cell.
      size: index into ``problem.sizes`` of each cell.
      replicates: S of them.
    """
    one = cell(problem)

    def start(drawn: Params, hyper: Hyper, size: Array) -> State:
        return train.init(problem.optimizer, jax.tree.map(lambda leaf: leaf[size], drawn), hyper, ema=problem.ema)

    def replicate(key: Array) -> State:
        drawn = [jax.tree.map(widen, _draw(problem, sizes, key), one.params) for sizes in problem.sizes]
        drawn = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
        return jax.vmap(start, in_axes=(None, 0, 0), out_axes=-1)(drawn, hyper, size)

    return jax.vmap(replicate)(replicates.key)


def run(
    problem: Problem,
    state: State,
    hyper: Hyper,
    fold: Int[Array, "S"],
    examples: Examples,
    batches: Int[Array, "T S B"],
) -> tuple[State, Float[Array, "T S G"]]:
    """Train all cells on these minibatches; the new state, and the minibatch loss before each step."""
    step = functools.partial(train.step, problem.classifier, problem.optimizer, ema=problem.ema)
    cells = jax.vmap(step, in_axes=(-1, 0, None, None), out_axes=(-1, 0))

    def replicate(fold: Array, state: State, hyper: Hyper, X: Array, y: Array) -> tuple[State, Array]:
        return cells(state, hyper, _features(problem, examples, fold, X), y)

    if batches.shape[1] > 1:
        replicates = jax.vmap(replicate, in_axes=(0, 0, None, 0, 0))
        return train.run(functools.partial(replicates, fold), state, hyper, examples.X, examples.y, batches)
    # A batch of one product is slower than the product: XLA transposes the minibatch for it.
    one, state = functools.partial(replicate, fold[0]), jax.tree.map(lambda leaf: leaf[0], state)
    state, losses = train.run(one, state, hyper, examples.X, examples.y, batches[:, 0])
    return jax.tree.map(lambda leaf: leaf[None], state), losses[:, None]


def score(
    problem: Problem,
    before: Score,
    params: Params,
    reg: Float[Array, "S G"],
    fold: Int[Array, "S"],
    examples: Examples,
    rows: Int[Array, "S M"],
    share: Float[Array, "M"],
) -> tuple[Score, Bool[Array, "S G M"]]:
    """The `Score` of all cells, ``[S, G]``, over examples with these shares of a set, added to that ``before``.

    Returns:
      The sum, and which examples each cell predicts rightly.
    """

    def replicate(fold: Array, params: Params, reg: Array, X: Array, y: Array) -> tuple[Score, Array]:
        return train.score(problem.classifier, params, reg, _features(problem, examples, fold, X), y, share)

    found, right = jax.vmap(replicate)(fold, params, reg, examples.X[rows], examples.y[rows])
    return jax.tree.map(jnp.add, before, found), right


def keep(kept: Kept, params: Params, score: Float[Array, "S G"]) -> Kept:
    """These params where their score is higher, else those that are kept; the score of NaN params is not."""
    better = score > kept.score

    def chosen(new: Array, old: Array) -> Array:
        return jnp.where(jnp.expand_dims(better, range(1, new.ndim - 1)), new, old)

    return Kept(jax.tree.map(chosen, params, kept.params), jnp.where(better, score, kept.score))


def no_score(problem: Problem, num_replicates: int, num_cells: int) -> Score:
    """The `Score` of all cells over no examples."""
    cells, num_classes = (num_replicates, num_cells), problem.sizes[-1][-1]
    counts = np.zeros((*cells, num_classes), jax.dtypes.canonicalize_dtype(int))
    return Score(np.zeros(cells, problem.dtype), counts[..., 0], counts, counts, counts)


def over_parts(problem: Problem, found: Sequence[Score], val_part: Int[NDArray, "S"]) -> tuple[Score, Score]:
    """Scores over train and val from those over each part, of replicates that are validated on these."""
    is_val = np.arange(len(problem.parts))[:, None] == val_part
    size = np.where(is_val, 0, np.asarray(problem.parts)[:, None])
    share = size / size.sum(axis=0)
    loss, *counts = (np.stack(each) for each in zip(*found, strict=True))

    def over(share: NDArray, parts: NDArray) -> Score:
        sums = (np.sum(each, 0, where=parts.reshape(parts.shape + (1,) * (each.ndim - 2))) for each in counts)
        return Score(np.sum(share[..., None] * loss, 0, where=parts[..., None]), *sums)

    return over(share, ~is_val), over(np.ones_like(share), is_val)


def take(problem: Problem, params: Params, replicate: int, index: int, size: int) -> Params:
    """One cell's params, without zero padding."""

    def unpadded(leaf: Array, own: jax.ShapeDtypeStruct) -> Array:
        return leaf[(replicate, *[slice(length) for length in own.shape], index)]

    return jax.tree.map(unpadded, params, _params(problem, problem.sizes[size]))


def params(problem: Problem, leaves: Sequence[ArrayLike]) -> Params:
    """The params of one cell from their leaves."""
    return jax.tree.unflatten(jax.tree.structure(cell(problem).params), leaves)


def widen(leaf: Array, wide: Array | jax.ShapeDtypeStruct) -> Array:
    """A leaf padded with zeros, at the end of each axis, to the shape of ``wide``.

    Example:
      >>> print(widen(jnp.ones(2), jnp.ones(3)))
      [1. 1. 0.]
    """
    return jnp.pad(leaf, [(0, to - length) for length, to in zip(leaf.shape, wide.shape, strict=True)])


def _hyper(problem: Problem) -> Hyper:
    """Shapes and dtypes of one cell's hyperparameters."""
    number: Any = jax.ShapeDtypeStruct((), problem.dtype)
    return Hyper(**dict.fromkeys(problem.hyper, number))


def _params(problem: Problem, sizes: tuple[int, ...]) -> Params:
    """Shapes and dtypes of the params of a model of these sizes."""
    return jax.eval_shape(lambda: _draw(problem, sizes, jax.random.key(0)))


def _draw(problem: Problem, sizes: tuple[int, ...], key: Array) -> Params:
    return problem.classifier.init(*sizes, key=key, dtype=problem.dtype)


def _features(problem: Problem, examples: Examples, fold: Int[Array, ""], X: Real[Array, "B d"]) -> Array:
    """The classifier's inputs for some raw examples."""
    if examples.mean is not None and examples.scale is not None:
        which = fold if len(examples.mean) > 1 else 0
        return features(problem, standardised(X, examples.mean[which], examples.scale[which]))
    return features(problem, X.astype(problem.dtype))


def _nbytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _widest(problem: Problem) -> tuple[int, ...]:
    """The largest size, its features counted with their zero columns."""
    num_features, *layers = problem.sizes[-1]
    return (num_features + -num_features % problem.alignment, *layers)
