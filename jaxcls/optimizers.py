"""Optimizers: functions of a cell's hyperparameters that return an optax transformation, and their schedules."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

# Learning rate -> transformation, like optax.sgd; a grid's other axes of the optimizer are keyword arguments.
Optimizer = Callable[..., optax.GradientTransformation]

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
}


SCHEDULES: dict[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    # As in the linear evaluation of MoCo and SimSiam, in epochs 60 and 80 of 100.
    "steps": lambda steps: optax.piecewise_constant_schedule(1.0, {6 * steps // 10: 0.1, 8 * steps // 10: 0.1}),
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


def adamw(
    lr: optax.ScalarOrSchedule,
    b1: float | Array = 0.9,
    b2: float | Array = 0.999,
    *,
    weight_decay: float | Array = 1e-4,
    bias_row: int,
) -> optax.GradientTransformation:
    """`optax.adamw` for weights whose bias is a row of theirs, which is not decayed.

    Args:
      lr, b1, b2, weight_decay: as in `optax.adamw`.
      bias_row: the row of the bias, which is the number of features. In nets, biases are arrays of one axis.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer, W = adamw(0.5, weight_decay=1.0, bias_row=1), jnp.ones((2, 1))
      >>> optimizer.update(jnp.zeros((2, 1)), optimizer.init(W), W)[0].tolist()
      [[-0.5], [-0.0]]
    """

    def without_bias(update: Array, W: Array) -> Array:
        return update + weight_decay * W.at[bias_row].set(0) if W.ndim > 1 else update

    decay = optax.stateless(lambda updates, params: jax.tree.map(without_bias, updates, params))
    return optax.chain(optax.scale_by_adam(b1, b2), decay, optax.scale_by_learning_rate(lr))


def scheduled(optimizer: Optimizer, factor: Callable[[Array], Array]) -> Optimizer:
    """Multiply an optimizer's learning rate by a factor of the step's number.

    Args:
      optimizer: an optax optimizer that accepts a schedule as its learning rate: all but ``lbfgs``,
        ``optimistic_adam``, ``rprop`` and ``sm3``.
      factor: commonly with a peak of 1, as `schedule` returns it.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> sgd = scheduled(optax.sgd, schedule("cosine", 4))(1.0)
      >>> state, steps = sgd.init(jnp.ones(())), []
      >>> for _ in range(4):
      ...     update, state = sgd.update(jnp.ones(()), state)
      ...     steps.append(round(-float(update), 3))
      >>> steps
      [1.0, 0.854, 0.5, 0.146]
    """

    @functools.wraps(optimizer)  # its signature says which hyperparameters it takes
    def with_learning_rate(lr: Array, **others: Array) -> optax.GradientTransformation:
        return optimizer(lambda count: lr * factor(count), **others)

    return with_learning_rate


def schedule(name: str, steps: int, *, warmup: int = 0) -> Callable[[Array], Array]:
    """A schedule by its name: the factor of the learning rate at each step, 1 at its peak.

    Args:
      name: ``constant``; ``cosine``, ``(1 + cos(π t / T)) / 2``; or ``steps``, a tenth after 60 % and a hundredth after
        80 % of T.
      steps: the number of steps, of which those of the warm-up are taken to leave T.
      warmup: the number of first steps in which the factor rises, ``t / warmup``; the schedule follows.

    Raises:
      ValueError: there is no such schedule, or the warm-up takes all steps.

    Example:
      >>> print([round(float(schedule("cosine", 6, warmup=2)(t)), 3) for t in range(6)])
      [0.0, 0.5, 1.0, 0.854, 0.5, 0.146]
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup must lie in [0, {steps}), fewer than the steps, got {warmup}")
    factors = SCHEDULES[name](steps - warmup)
    if warmup:
        # A product, since a quotient of integers is float32 even where floats are float64.
        factors = optax.join_schedules([lambda count: count * (1.0 / warmup), factors], [warmup])
    # A table: on a CPU, XLA would compute a cosine again for every weight.
    with jax.enable_x64(True):
        table = np.asarray(factors(jnp.arange(steps)) * jnp.ones(steps))
    return lambda count: jnp.asarray(table, jnp.result_type(float))[count]


def decayed(optimizer: Optimizer, decay: float | None, steps_per_epoch: int) -> Optimizer:
    """Multiply an optimizer's learning rate by ``decay`` once per epoch, on the courses' schedule.

    The courses decay after every step whose index is a multiple of ``steps_per_epoch``, including 0. So only the first
    step has the full learning rate, and step t has ``lr * decay ** ceil(t / steps_per_epoch)``.

    Args:
      optimizer: as in `scheduled`.
      decay: the factor, 0.95 in both courses; None where each cell has its own, by the grid's axis ``decay``.
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
    if decay is not None and not 0 < decay <= 1:
        raise ValueError(f"decay must lie in (0, 1], got {decay}")
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")

    def by(decay: float | Array) -> Optimizer:
        # In integers: compiled, 90 / 30 may be 3.0000002, and its ceiling 4.
        return scheduled(optimizer, lambda count: decay ** -(-count // steps_per_epoch))

    def with_decay(lr: Array, *, decay: Array, **others: Array) -> optax.GradientTransformation:
        return by(decay)(lr, **others)

    return with_decay if decay is None else by(decay)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Steps per epoch as the courses count them, though they draw with replacement.

    Example:
      >>> steps_per_epoch(49_000, 200)
      245
    """
    return max(num_examples // batch_size, 1)
