"""Training one model by minibatch gradient descent, as pure functions of its hyperparameters.

A step draws nothing and decides nothing: the minibatch comes in, the new state goes out. `run` scans a step
over minibatches; `minibatches` draws them from the run's key. Nothing here is jitted or vmapped: the caller
does that, once, outside (`jaxcls.sweep` does it for a grid).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer, Key, Real
from numpy.typing import NDArray

from jaxcls.classifier import Classifier, Params
from jaxcls.data import Folds, Splits

EVALUATION_BATCH = 1000  # examples whose scores are in memory at once

Optimizer = Callable[[Array], optax.GradientTransformation]  # learning rate -> transformation, as optax.sgd is

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
}


def decayed(optimizer: Callable[..., optax.GradientTransformation], decay: float, steps_per_epoch: int) -> Optimizer:
    """An optimizer whose learning rate is multiplied by ``decay`` once an epoch, when the courses do it.

    They decay at the end of every step whose number is a multiple of ``steps_per_epoch``, number 0 included:
    so the first step alone has the whole learning rate, and step t has ``lr * decay ** ceil(t / steps_per_epoch)``.

    Args:
      optimizer: one of optax's that takes a schedule in place of a learning rate: all but ``lbfgs``,
        ``optimistic_adam``, ``rprop`` and ``sm3``.
      decay: the factor, 0.95 in both courses.
      steps_per_epoch: as the function `steps_per_epoch` has it.

    Raises:
      ValueError: the decay does not lie in (0, 1], or an epoch has no steps.

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
        # In whole numbers: compiled, 90 / 30 may be 3.0000002, and its ceiling 4.
        return optimizer(lambda count: lr * decay ** -(-count // steps_per_epoch))

    return with_learning_rate


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """How many minibatches the courses call an epoch, though they draw with replacement.

    Example:
      >>> steps_per_epoch(49_000, 200)
      245
    """
    return max(num_examples // batch_size, 1)


class Hyper(NamedTuple):
    """The hyperparameters a grid runs over: learning rate and regularisation strength, both may be traced."""

    lr: Real[Array, "..."]
    reg: Real[Array, "..."]


class State(NamedTuple):
    """What a step takes and returns."""

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
    """One step of gradient descent on one minibatch: the new state, and the loss before it.

    Where that loss is not finite the model has diverged, and its params mean nothing from there on.
    """
    loss, grads = classifier.loss_and_grad(state.params, X, y, hyper.reg)
    lr = jax.lax.platform_dependent(hyper.lr, loss, cpu=_unless_diverged, default=lambda lr, loss: lr)
    updates, opt_state = optimizer(lr).update(grads, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, updates), opt_state), loss


def _unless_diverged(lr: Array, loss: Array) -> Array:
    """The learning rate; 0 where the loss is not finite.

    This tells the compiler that the loss is read from the params before they are overwritten: where nothing says so,
    XLA copies all of them at every step on a CPU. On a GPU it does not, and reads them once for both the penalty and
    the update, unless the update waits for the loss.
    """
    return jnp.where(jnp.isfinite(loss), lr, 0)


def run(
    step: Callable[..., tuple[State, Any]],
    state: State,
    hyper: Hyper,
    X: Float[Array, "N D"],
    y: Integer[Array, "N"],
    batches: Int[Array, "T *batch"],
) -> tuple[State, Any]:
    """Scan ``step(state, hyper, X[batch], y[batch])`` over ``batches``.

    Returns:
      The state after the last step, and what every step returned beside its state (the loss), stacked.

    Example:
      >>> import functools, jax, jax.numpy as jnp, optax
      >>> from jaxcls import classifier, softmax
      >>> X, y = softmax.append_ones(jnp.array([[1.0], [-1.0]] * 50)), jnp.array([0, 1] * 50)
      >>> one_step = functools.partial(step, classifier.linear(), optax.sgd)
      >>> hyper = Hyper(lr=0.5, reg=1e-3)
      >>> key = jax.random.key(0)
      >>> state = init(optax.sgd, softmax.init(2, 2, key=key), hyper)
      >>> batches = minibatches(key, 0, 100, batch_size=20, num_examples=100)
      >>> state, losses = jax.jit(functools.partial(run, one_step))(state, hyper, X, y, batches)
      >>> print(f"{losses[0]:.2f} -> {losses[-1]:.2f}")
      0.69 -> 0.02
    """

    def body(state: State, batch: tuple[Array, Array]) -> tuple[State, Any]:
        examples, labels = batch
        return step(state, hyper, X[examples], labels)

    return jax.lax.scan(body, state, (batches, y[batches]))


def minibatches(
    key: Key[Array, ""], first_step: int | Array, steps: int, *, batch_size: int, num_examples: int | Array
) -> Int[Array, "T B"]:
    """The examples of each step, drawn with replacement as both courses draw them.

    Step t's come from ``fold_in(key, t)``, so they do not depend on how a run is cut into chunks.

    Example:
      >>> import jax
      >>> key = jax.random.key(0)
      >>> whole = minibatches(key, 0, 10, batch_size=4, num_examples=100)
      >>> tail = minibatches(key, 6, 4, batch_size=4, num_examples=100)
      >>> bool((whole[6:] == tail).all())
      True
    """

    def draw(t: Array) -> Array:
        return jax.random.randint(jax.random.fold_in(key, t), (batch_size,), 0, num_examples)

    return jax.vmap(draw)(first_step + jnp.arange(steps))


class Score(NamedTuple):
    """The loss and the number of right predictions, over some examples."""

    loss: Float[Array, "..."]
    num_correct: Int[Array, "..."]


def score(
    classifier: Classifier, params: Params, reg: Real[ArrayLike, ""], X: Float[Array, "N D"], y: Integer[Array, "N"]
) -> Score:
    """The mean loss (penalty included) and the number of right predictions."""
    # Two products are written here; the compiler sees that they are one.
    correct = jnp.argmax(classifier.logits(params, X), axis=1) == y
    return Score(classifier.loss(params, X, y, reg), jnp.sum(correct))


def evaluate(
    score: Callable[[Array, Array], Score],
    X: Float[Array, "N D"],
    y: Integer[Array, "N"],
    *,
    first: int = 0,
    count: int | None = None,
    batch_size: int = EVALUATION_BATCH,
) -> Score:
    """Mean loss and accuracy of ``count`` examples, ``batch_size`` at a time to bound the memory the logits take.

    Returns:
      A `Score` whose ``num_correct`` counts over all of them: from ``first`` on to the end, if no count is given.

    Example:
      >>> import functools, jax.numpy as jnp
      >>> from jaxcls import classifier
      >>> X, y = jnp.array([[1.0, 1.0], [-1.0, 1.0], [2.0, 1.0]]), jnp.array([0, 1, 1])
      >>> W = jnp.array([[1.0, -1.0], [0.0, 0.0]])
      >>> evaluate(functools.partial(score, classifier.linear(), W, 0.0), X, y).num_correct.item()
      2
    """
    n = X.shape[0] - first if count is None else count

    def weighted(start: int | Array, size: int) -> Score:
        batch = score(*(jax.lax.dynamic_slice_in_dim(array, first + start, size) for array in (X, y)))
        return batch._replace(loss=batch.loss * (size / n))

    size = min(batch_size, n)
    parts = jax.lax.map(lambda start: weighted(start, size), jnp.arange(n // size) * size)
    total = jax.tree.map(lambda part: jnp.sum(part, axis=0), parts)
    if rest := n % size:
        total = jax.tree.map(jnp.add, total, weighted(n - rest, rest))
    return total


def accuracy(classifier: Classifier, params: Params, X: Float[NDArray, "N d"], y: Integer[NDArray, "N"]) -> float:
    """The fraction of these examples that one model predicts right, from examples as a protocol prepared them.

    Example:
      >>> import numpy as np
      >>> from jaxcls import classifier
      >>> W, X = np.array([[1.0, -1.0], [0.0, 0.0]], np.float32), np.array([[1.0], [-1.0], [2.0]], np.float32)
      >>> accuracy(classifier.linear(), W, X, np.array([0, 1, 0]))
      1.0
    """
    one = functools.partial(score, classifier, params, jnp.zeros(()))
    return int(jax.jit(functools.partial(evaluate, one))(classifier.features(X), y).num_correct) / len(y)


def test_accuracy(classifier: Classifier, params: Params | None, data: Splits | Folds) -> float:
    """The accuracy of one model on the test set; NaN without a model or a test set, as folds have none."""
    if params is None or isinstance(data, Folds) or data.test is None:
        return math.nan
    return accuracy(classifier, params, data.test.X, data.test.y)
