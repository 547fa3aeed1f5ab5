"""Training one model by minibatch gradient descent, as pure functions of its hyperparameters.

`step` is a pure function of state and minibatch. `run` scans a step over minibatches, which `jaxcls.sampling` draws.
Nothing here is jitted or vmapped: the caller does that once, as `jaxcls.sweep` does for a grid.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Integer, PyTree, Real
from numpy.typing import NDArray

from jaxcls import metrics
from jaxcls.classifier import Classifier
from jaxcls.data import Folds, Split, Splits
from jaxcls.grid import OF_OPTIMIZER
from jaxcls.metrics import Outcomes
from jaxcls.numerics import Params, standardised
from jaxcls.optimizers import Optimizer

EVALUATION_BATCH = 1000  # examples evaluated at a time
PREDICTED = 10_000  # examples whose classes are predicted at a time


class Hyper(NamedTuple):
    """Hyperparameters of a cell, as a grid has them; all may be traced. None for those that are not given."""

    lr: Real[Array, "..."]
    reg: Real[Array, "..."]
    weight_decay: Real[Array, "..."] | None = None
    momentum: Real[Array, "..."] | None = None
    b1: Real[Array, "..."] | None = None
    b2: Real[Array, "..."] | None = None
    decay: Real[Array, "..."] | None = None
    label_smoothing: Real[Array, "..."] | None = None

    @property
    def of_optimizer(self) -> dict[str, Array]:
        """The keyword arguments of the optimizer."""
        return {name: value for name in OF_OPTIMIZER if (value := getattr(self, name)) is not None}

    @property
    def of_loss(self) -> tuple[Array, ...]:
        """The arguments of the loss after the labels."""
        return (self.reg,) if self.label_smoothing is None else (self.reg, self.label_smoothing)


class Average(NamedTuple):
    """Exponential moving average (EMA) of params, and the number of steps that it is over."""

    params: Params
    steps: Int[Array, "..."]


class State(NamedTuple):
    """Training state: params, optimizer state, and the average of params, if there is one."""

    params: Params
    opt_state: optax.OptState
    average: Average | None = None

    @property
    def scored(self) -> Params:
        """The params that are evaluated and kept: their average, if there is one."""
        return self.params if self.average is None else self.average.params


def init(optimizer: Optimizer, params: Params, hyper: Hyper, *, ema: float | None = None) -> State:
    """The state before the first step."""
    opt_state = optimizer(hyper.lr, **hyper.of_optimizer).init(params)
    if ema is None:
        return State(params, opt_state)
    return State(params, opt_state, Average(jax.tree.map(jnp.copy, params), jnp.zeros((), int)))


def step(
    classifier: Classifier,
    optimizer: Optimizer,
    state: State,
    hyper: Hyper,
    X: Float[Array, "B D"],
    y: Integer[Array, "B"],
    *,
    ema: float | None = None,
) -> tuple[State, Float[Array, ""]]:
    """Take one gradient step on a minibatch; return the new state and the loss before it.

    ``ema`` is the decay of the params' moving average, if their state has one. In the first steps the decay is smaller,
    ``(1 + t) / (10 + t)`` in step t, so that the average forgets the initial params.

    If the loss is not finite, the model has diverged and its params are meaningless from then on.
    """
    loss, grads = classifier.loss_and_grad(state.params, X, y, *hyper.of_loss)
    lr = jax.lax.platform_dependent(hyper.lr, loss, cpu=_unless_diverged, default=lambda lr, loss: lr)
    updates, opt_state = optimizer(lr, **hyper.of_optimizer).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return State(params, opt_state, _averaged(state.average, params, ema)), loss


def _averaged(average: Average | None, params: Params, ema: float | None) -> Average | None:
    if average is None or ema is None:
        return None
    steps = average.steps + 1
    decay = jnp.minimum(ema, (1.0 + steps) / (10.0 + steps))
    new = jax.tree.map(
        lambda mean, param: mean + (1 - decay).astype(mean.dtype) * (param - mean), average.params, params
    )
    return Average(new, steps)


def _unless_diverged(lr: Array, loss: Array) -> Array:
    """The learning rate, or 0 if the loss is not finite.

    The update then depends on the loss, so XLA reads the params for the loss before it overwrites them. Without this
    dependency, XLA copies all params at every step on a CPU. On a GPU it makes no copy, and the dependency would only
    prevent it from reading the params once for both the penalty and the update.
    """
    return jnp.where(jnp.isfinite(loss), lr, 0)


def run(
    step: Callable[[State, Hyper, Array, Array], tuple[State, PyTree]],
    state: State,
    hyper: Hyper,
    X: Real[Array, "N D"],
    y: Integer[Array, "N"],
    batches: Int[Array | NDArray, "T *batch"],
) -> tuple[State, PyTree]:
    """Scan ``step(state, hyper, X[batch], y[batch])`` over ``batches``.

    Returns:
      The state after the last step, and the second output of all steps (the losses), stacked.

    Example:
      >>> import functools, jax, jax.numpy as jnp, optax
      >>> from jaxcls import classifier, sampling, softmax
      >>> X, y = softmax.append_ones(jnp.array([[1.0], [-1.0]] * 50)), jnp.array([0, 1] * 50)
      >>> one_step = functools.partial(step, classifier.linear(), optax.sgd)
      >>> hyper = Hyper(lr=0.5, reg=1e-3)
      >>> state = init(optax.sgd, softmax.init(2, 2, key=jax.random.key(0)), hyper)
      >>> batches = sampling.minibatches(0, range(100), batch_size=20, num_examples=100)
      >>> state, losses = jax.jit(functools.partial(run, one_step))(state, hyper, X, y, batches)
      >>> print(f"{losses[0]:.2f} -> {losses[-1]:.2f}")
      0.69 -> 0.02
    """

    def body(state: State, batch: tuple[Array, Array]) -> tuple[State, PyTree]:
        examples, labels = batch
        return step(state, hyper, X[examples], labels)

    batches = jnp.asarray(batches)
    return jax.lax.scan(body, state, (batches, y[batches]))


class Score(NamedTuple):
    """Mean loss over a set of examples, and numbers of examples: all of them, or those of each class.

    Attributes:
      loss: penalty included.
      num_top5: whose label is among the five highest logits.
      num_correct: with this label, rightly predicted.
      num_predicted: with this prediction.
      num_examples: with this label.
    """

    loss: Float[Array | NDArray, "..."]
    num_top5: Int[Array | NDArray, "..."]
    num_correct: Int[Array | NDArray, "... C"]
    num_predicted: Int[Array | NDArray, "... C"]
    num_examples: Int[Array | NDArray, "... C"]


def score(
    classifier: Classifier,
    params: Params,
    reg: Real[Array, "G"],
    X: Float[Array, "M D"],
    y: Integer[Array, "M"],
    share: Float[Array, "M"],
) -> tuple[Score, Bool[Array, "G M"]]:
    """The `Score` of a stack of models over some examples of a set, and which of them each predicts rightly.

    Args:
      classifier: the models' functions.
      params: with a last axis of models.
      reg: of each model, for the penalty in its loss.
      X, y: the examples, and others that fill up their number.
      share: of each in the mean over the set; 0 for those that fill up.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcls import classifier
      >>> X, y = jnp.array([[1.0, 1.0], [-1.0, 1.0], [2.0, 1.0]]), jnp.array([0, 1, 1])
      >>> W, none = jnp.array([[[1.0], [-1.0]], [[0.0], [0.0]]]), jnp.zeros(1)
      >>> found, right = score(classifier.linear(), W, none, X, y, jnp.array([0.5, 0.5, 0.0]))
      >>> print(found.num_correct, right)
      [[1 1]] [[ True  True False]]
    """

    def loss(params: Params, reg: Array, X: Array, y: Array) -> Array:
        return classifier.loss_and_grad(params, X[None], y[None], reg)[0]

    # The examples outside: within, each would be a product of its own.
    losses = jax.vmap(jax.vmap(loss, in_axes=(-1, 0, None, None)), in_axes=(None, None, 0, 0))(params, reg, X, y)
    # The loss computes the logits too; XLA merges the two products into one, and drops the gradient.
    logits = jax.vmap(classifier.logits, in_axes=(-1, None), out_axes=-1)(params, X)
    predicted, num_classes = jnp.argmax(logits, axis=1), logits.shape[1]
    right = predicted == y[:, None]
    is_top5 = metrics.rank(logits, y) < 5 if num_classes > 5 else jnp.ones_like(right)
    counted = (share > 0).astype(jnp.float32)  # whose products are exact here, and faster than sums of integers
    is_label = counted[:, None] * (y[:, None] == jnp.arange(num_classes)[None])
    num_predicted = jax.vmap(lambda of_cell: jnp.zeros(num_classes).at[of_cell].add(counted))(predicted.T)
    num_examples = jnp.broadcast_to(counted @ is_label, num_predicted.shape)
    counts = [count.astype(int) for count in (counted @ is_top5, right.T @ is_label, num_predicted, num_examples)]
    return Score(jnp.matmul(share, losses, precision="highest"), *counts), right.T


def filled_up(rows: Int[NDArray, "*S M"], size: int, of_set: int) -> tuple[Int[NDArray, "*S size"], NDArray]:
    """Rows of a set of so many, the first repeated up to this number of them; and the share of each, see `score`.

    Example:
      >>> filled_up(np.array([3, 4]), 4, of_set=10)
      (array([3, 4, 3, 3]), array([0.1, 0.1, 0. , 0. ]))
    """
    missing = size - rows.shape[-1]
    repeated = np.repeat(rows[..., :1], missing, axis=-1)
    return np.concatenate([rows, repeated], axis=-1), np.repeat([1 / of_set, 0.0], [rows.shape[-1], missing])


def outcomes(classifier: Classifier, params: Params, split: Split) -> Outcomes:
    """The `jaxcls.metrics.Outcomes` of one model, of a few examples at a time.

    Example:
      >>> import numpy as np
      >>> from jaxcls import classifier
      >>> W, X = np.array([[1.0, -1.0], [0.0, 0.0]], np.float32), np.array([[1.0], [-1.0], [2.0]], np.float32)
      >>> print(outcomes(classifier.linear(), W, Split(X, np.array([0, 1, 0]))).predicted)
      [0 1 0]
    """
    order, moments, found = split.order(np.arange(len(split))), split.moments(), []
    for first in range(0, len(split), PREDICTED):
        some = order[first : first + PREDICTED]
        found.append(jax.device_get(_outcomes(classifier, params, split.stored(some), split.y[some], moments)))
    back = np.argsort(order)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[back], *found)


@functools.partial(jax.jit, static_argnums=0)  # at module level, so that a second call compiles nothing
def _outcomes(
    classifier: Classifier, params: Params, X: Array, y: Array, moments: tuple[Array, Array] | None
) -> Outcomes:
    X = X.astype(float) if moments is None else standardised(X, *moments)
    return metrics.outcomes(classifier.logits(params, classifier.features(X)), y)


def on_test(classifier: Classifier, params: Params | None, data: Splits | Folds) -> Outcomes | None:
    """The outcomes of one model on the test set; None without a model or a test set, as folds have none."""
    if params is None or isinstance(data, Folds) or data.test is None:
        return None
    return outcomes(classifier, params, data.test)
