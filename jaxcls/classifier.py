"""The model interface: the pure functions that training needs, in one NamedTuple."""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from numpy.typing import NDArray

from jaxcls import softmax, two_layer
from jaxcls.numerics import Logits, LossAndGrad, Params, checks, stacked


class Classifier(NamedTuple):
    """Pure functions of one model, as `jaxcls.train` and `jaxcls.sweep` call them.

    The first operation on X must be a matrix product, since a sweep may append zero columns to X.

    Attributes:
      init: draws params; called as ``init(num_features, *num_hidden, num_classes, key=key, dtype=dtype)``.
      logits: of the params and a batch of X.
      loss_and_grad: of the params, a batch of X and y, and reg; and of label smoothing, for grids that have it. The
        loss is a mean over the batch plus a penalty.
      features: X of prepared examples; appends a column of ones where the bias is a row of the weights.
      num_hidden_layers: how many hidden sizes ``init`` takes.
    """

    init: Callable[..., Params]
    logits: Logits
    loss_and_grad: LossAndGrad
    features: Callable[[ArrayLike], Float[Array, "N D"]] = jnp.asarray
    num_hidden_layers: int = 0


Init = Literal["normal", "uniform"]  # uniform as in `jaxcls.softmax.init_uniform`, without a scale


def linear(
    *, init_scale: float = 1e-3, init: Init = "normal", class_weights: Float[NDArray, "C"] | None = None
) -> Classifier:
    """Linear softmax classifier whose initial weights have standard deviation ``init_scale``.

    With ``init="uniform"`` they are those of `jaxcls.softmax.init_uniform` instead.

    ``class_weights``, ``[C]``, weight the loss of each example by its class; those of `jaxcls.data.balanced` average
    1 over the examples. They are checked when ``init`` is called.

    Raises:
      ValueError: ``init_scale`` is negative or not finite, or ``init`` unknown.

    Example:
      >>> import jax
      >>> W = linear(init_scale=1e-6).init(65, 10, key=jax.random.key(0))
      >>> W.shape
      (65, 10)
    """
    draw = _drawn(softmax.init, softmax.init_uniform, init, init_scale, class_weights)
    return Classifier(draw, softmax.logits, _weighted(softmax.loss_and_grad, class_weights), softmax.append_ones)


def two_layer_net(
    *, init_scale: float = 1e-4, init: Init = "normal", class_weights: Float[NDArray, "C"] | None = None
) -> Classifier:
    """Two-layer net whose initial weights have standard deviation ``init_scale``; other arguments as in `linear`.

    The default is the courses'. From it SGD takes 190 steps on digits to halve the loss (lr 0.1, H 100), from 1e-2 77,
    from 0.1 18; so the command takes 1e-2, and the estimators, which train for few steps, 0.1.

    Example:
      >>> import jax
      >>> params = two_layer_net().init(64, 20, 10, key=jax.random.key(0))
      >>> params.W1.shape
      (64, 20)
    """
    draw = _drawn(two_layer.init, two_layer.init_uniform, init, init_scale, class_weights)
    loss_and_grad = _weighted(two_layer.loss_and_grad, class_weights)
    return Classifier(draw, two_layer.logits, loss_and_grad, num_hidden_layers=1)


def _drawn(
    normal: Callable[..., Params],
    uniform: Callable[..., Params],
    name: str,
    scale: float,
    class_weights: NDArray | None,
) -> Callable[..., Params]:
    """The initialisation of this name, which also checks the class weights against the number of classes."""
    if not 0 <= scale < math.inf:
        raise ValueError(f"init_scale must be finite and not below 0, got {scale}")
    if name not in get_args(Init):
        raise ValueError(f"init must be {' or '.join(get_args(Init))}, got {name!r}")
    init = _at_scale(normal, scale) if name == "normal" else uniform
    if class_weights is None:
        return init

    def checked(*sizes: int, **options: object) -> Params:
        checks.class_weights(class_weights, sizes[-1])
        return init(*sizes, **options)

    return checked


# Cached, since what is compiled for one classifier serves all that are equal to it.
_stacked = functools.cache(stacked)


@functools.cache
def _at_scale(init: Callable[..., Params], scale: float) -> Callable[..., Params]:
    return functools.partial(init, scale=scale)


def _weighted(loss_and_grad: Callable[..., tuple[Array, Params]], class_weights: NDArray | None) -> LossAndGrad:
    """``loss_and_grad`` with class weights, for one model and for a stack."""
    if class_weights is None:
        return _stacked(loss_and_grad)

    def weighted(params: Params, X: ArrayLike, y: ArrayLike, *hyper: ArrayLike) -> tuple[Array, Params]:
        of_example = jnp.asarray(class_weights)[y]  # converted here, in the caller's precision
        # The weights of a minibatch sum to 1 only on average: normalising each one would underweight rare classes.
        return loss_and_grad(params, X, y, *hyper, weights=of_example / of_example.size)

    return stacked(weighted)


LINEAR = linear()
