"""Training one model by minibatch gradient descent, as pure functions of its hyperparameters.

`step` is a pure function of state and minibatch. `run` scans a step over minibatches, which `jaxcls.sampling` draws.
Nothing here is jitted or vmapped: the caller does that once, as `jaxcls.sweep` does for a grid.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Integer, PyTree, Real
from numpy.typing import NDArray

from jaxcls.classifier import Classifier
from jaxcls.data import Folds, Split, Splits
from jaxcls.numerics import Params, standardised

EVALUATION_BATCH = 1000  # examples evaluated at a time
PREDICTED = 10_000  # examples whose classes are predicted at a time

Optimizer = Callable[[Array], optax.GradientTransformation]  # learning rate -> transformation, like optax.sgd

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
}


def as_optimizer(optimizer: str | Optimizer) -> Optimizer:
    """An optimizer by its name, or as it is given.

    Raises:
      ValueError: there is none of this name.
      TypeError: it is not a function of the learning rate, such as a transformation that was already made with one.

    Example:
      >>> as_optimizer("adam") is optax.adam
      True
      >>> as_optimizer(optax.adam(1e-3))
      Traceback (most recent call last):
      ...
      TypeError: optimizer must be a function of lr, such as lambda lr: optax.adam(lr), got one with a fixed lr
    """
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, or of optax, got {optimizer!r}")
        return OPTIMIZERS[optimizer]
    if not callable(optimizer):
        made = hasattr(optimizer, "update")
        got = "one with a fixed lr" if made else type(optimizer).__name__
        raise TypeError(f"optimizer must be a function of lr, such as lambda lr: optax.adam(lr), got {got}")
    return optimizer


def decayed(optimizer: Callable[..., optax.GradientTransformation], decay: float, steps_per_epoch: int) -> Optimizer:
    """Multiply an optimizer's learning rate by ``decay`` once per epoch, on the courses' schedule.

    The courses decay after every step whose index is a multiple of ``steps_per_epoch``, including 0. So only the first
    step has the full learning rate, and step t has ``lr * decay ** ceil(t / steps_per_epoch)``.

    Args:
      optimizer: an optax optimizer that accepts a schedule as its learning rate: all but ``lbfgs``,
        ``optimistic_adam``, ``rprop`` and ``sm3``.
      decay: the factor, 0.95 in both courses.
      steps_per_epoch: the result of the function `steps_per_epoch`.

    Raises:
      ValueError: ``decay`` is not in (0, 1], or ``steps_per_epoch`` is below 1.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> sgd = decayed(optax.sgd, 0.5, steps_per_epoch=2)(1.0)
      >>> state, steps = sgd.init(jnp.ones(())), []
      >>> for _ in range(5):
      ...     update, state = sgd.update(jnp.ones(()), state)
      ...     steps.append(-float(update))
      >>> steps
      [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    if not 0 < decay <= 1:
        raise ValueError(f"decay must lie in (0, 1], got {decay}")
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")

    def with_learning_rate(lr: Array) -> optax.GradientTransformation:
        # In integers: compiled, 90 / 30 may be 3.0000002, and its ceiling 4.
        return optimizer(lambda count: lr * decay ** -(-count // steps_per_epoch))

    return with_learning_rate


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Steps per epoch as the courses count them, though they draw with replacement.

    Example:
      >>> steps_per_epoch(49_000, 200)
      245
    """
    return max(num_examples // batch_size, 1)


class Hyper(NamedTuple):
    """Hyperparameters of a cell: learning rate and regularisation strength. Both may be traced."""

    lr: Real[Array, "..."]
    reg: Real[Array, "..."]


class State(NamedTuple):
    """Training state: params and optimizer state."""

    params: Params
    opt_state: optax.OptState


def init(optimizer: Optimizer, params: Params, hyper: Hyper) -> State:
    """The state before the first step."""
    return State(params, optimizer(hyper.lr).init(params))


def step(
    classifier: Classifier,
    optimizer: Optimizer,
    state: State,
    hyper: Hyper,
    X: Float[Array, "B D"],
    y: Integer[Array, "B"],
) -> tuple[State, Float[Array, ""]]:
    """Take one gradient step on a minibatch; return the new state and the loss before it.

    If the loss is not finite, the model has diverged and its params are meaningless from then on.
    """
    loss, grads = classifier.loss_and_grad(state.params, X, y, hyper.reg)
    lr = jax.lax.platform_dependent(hyper.lr, loss, cpu=_unless_diverged, default=lambda lr, loss: lr)
    updates, opt_state = optimizer(lr).update(grads, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, updates), opt_state), loss


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
    """Mean loss over a set of examples, and of each class the number of correct predictions and of examples."""

    loss: Float[Array | NDArray, "..."]
    num_correct: Int[Array | NDArray, "... C"]
    num_examples: Int[Array | NDArray, "... C"]


def score(
    classifier: Classifier, params: Params, reg: Real[Array, ""], X: Float[Array, "N D"], y: Integer[Array, "N"]
) -> Score:
    """The `Score` of one model, penalty included."""
    # Both lines compute the logits; XLA merges the two products into one, and drops the gradient.
    loss, _ = classifier.loss_and_grad(params, X, y, reg)
    logits = classifier.logits(params, X)
    correct = jnp.argmax(logits, axis=1) == y
    is_label = y[:, None] == jnp.arange(logits.shape[1])[None]
    num_correct = correct.astype(jnp.float32) @ is_label.astype(jnp.float32)  # exact, and faster than a sum of integers
    return Score(loss, num_correct.astype(int), jnp.sum(is_label, axis=0))


def evaluate(
    score: Callable[[Array, Array], Score],
    X: Float[Array, "N D"],
    y: Integer[Array, "N"],
    *,
    batch_size: int = EVALUATION_BATCH,
) -> Score:
    """The `Score` of all examples, ``batch_size`` at a time to bound the memory of the logits.

    Example:
      >>> import functools, jax.numpy as jnp
      >>> from jaxcls import classifier
      >>> X, y = jnp.array([[1.0, 1.0], [-1.0, 1.0], [2.0, 1.0]]), jnp.array([0, 1, 1])
      >>> W = jnp.array([[1.0, -1.0], [0.0, 0.0]])
      >>> evaluate(functools.partial(score, classifier.linear(), W, jnp.zeros(())), X, y).num_correct
      Array([1, 1], dtype=int32)
    """
    n = X.shape[0]

    def weighted(start: int | Array, size: int) -> Score:
        batch = score(*(jax.lax.dynamic_slice_in_dim(array, start, size) for array in (X, y)))
        return batch._replace(loss=batch.loss * (size / n))

    size = min(batch_size, n)
    parts = jax.lax.map(lambda start: weighted(start, size), jnp.arange(n // size) * size)
    total = jax.tree.map(lambda part: jnp.sum(part, axis=0), parts)
    if rest := n % size:
        total = jax.tree.map(jnp.add, total, weighted(n - rest, rest))
    return total


def predict(classifier: Classifier, params: Params, split: Split) -> Int[NDArray, "N"]:
    """The class of each example by one model, prepared a few at a time.

    Example:
      >>> import numpy as np
      >>> from jaxcls import classifier
      >>> W, X = np.array([[1.0, -1.0], [0.0, 0.0]], np.float32), np.array([[1.0], [-1.0], [2.0]], np.float32)
      >>> print(predict(classifier.linear(), W, Split(X, np.array([0, 1, 0]))))
      [0 1 0]
    """
    predicted, order = np.empty(len(split), int), split.order(np.arange(len(split)))
    moments = split.moments()
    for first in range(0, len(split), PREDICTED):
        some = order[first : first + PREDICTED]
        predicted[some] = _predict(classifier, params, split.stored(some), moments)
    return predicted


@functools.partial(jax.jit, static_argnums=0)  # at module level, so that a second call compiles nothing
def _predict(classifier: Classifier, params: Params, X: Array, moments: tuple[Array, Array] | None) -> Array:
    X = X.astype(float) if moments is None else standardised(X, *moments)
    return jnp.argmax(classifier.logits(params, classifier.features(X)), axis=1)


def accuracy_on_test(classifier: Classifier, params: Params | None, data: Splits | Folds) -> float:
    """The accuracy of one model on the test set; NaN without a model or a test set, as folds have none."""
    if params is None or isinstance(data, Folds) or data.test is None:
        return math.nan
    return float(np.mean(predict(classifier, params, data.test) == data.test.y))
