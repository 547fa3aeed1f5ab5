"""The model interface: the pure functions that training needs, in one NamedTuple."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpy.typing import NDArray

from jaxcls import softmax, two_layer
from jaxcls.numerics import checks, stacked

Params = Any  # an array or a NamedTuple of arrays


class Classifier(NamedTuple):
    """Pure functions of one model, as `jaxcls.train` and `jaxcls.sweep` call them.

    The first operation on X must be a matrix product, since a sweep may append zero columns to X.
    """

    init: Callable[..., Params]  # (num_features, *num_hidden, num_classes, *, key, dtype) -> params
    logits: Callable[[Params, Array], Float[Array, "N C"]]  # (params, X)
    loss: Callable[..., Float[Array, ""]]  # (params, X, y, reg)
    loss_and_grad: Callable[..., tuple[Float[Array, ""], Params]]  # (params, X, y, reg)
    features: Callable[[Any], Float[Array, "N D"]] = jnp.asarray  # prepared examples -> X
    num_hidden_layers: int = 0


def linear(*, init_scale: float = 1e-3, class_weights: Float[NDArray, "C"] | None = None) -> Classifier:
    """Linear softmax classifier whose initial weights have standard deviation ``init_scale``.

    ``class_weights``, ``[C]``, weight the loss of each example by its class; those of `jaxcls.data.balanced` average
    1 over the examples. They are checked when ``init`` is called.

    Raises:
      ValueError: ``init_scale`` is negative or not finite.

    Example:
      >>> import jax
      >>> W = linear(init_scale=1e-6).init(65, 10, key=jax.random.key(0))
      >>> W.shape
      (65, 10)
    """
    init = _drawn(softmax.init, init_scale, class_weights)
    losses = _weighted(softmax.loss, softmax.loss_and_grad, class_weights)
    return Classifier(init, softmax.logits, *losses, softmax.append_ones)


def two_layer_net(*, init_scale: float = 1e-4, class_weights: Float[NDArray, "C"] | None = None) -> Classifier:
    """Two-layer net whose initial weights have standard deviation ``init_scale``; class weights as in `linear`.

    Example:
      >>> import jax
      >>> params = two_layer_net().init(64, 20, 10, key=jax.random.key(0))
      >>> params.W1.shape
      (64, 20)
    """
    init = _drawn(two_layer.init, init_scale, class_weights)
    losses = _weighted(two_layer.loss, two_layer.loss_and_grad, class_weights)
    return Classifier(init, two_layer.logits, *losses, num_hidden_layers=1)


def _drawn(init: Callable[..., Params], scale: float, class_weights: NDArray | None) -> Callable[..., Params]:
    """``init`` at this scale, which also checks the class weights against the number of classes."""
    if not 0 <= scale < math.inf:
        raise ValueError(f"init_scale must be finite and not below 0, got {scale}")
    init = functools.partial(init, scale=scale)
    if class_weights is None:
        return init

    def checked(*sizes: int, **options: Any) -> Params:
        checks.class_weights(class_weights, sizes[-1])
        return init(*sizes, **options)

    return checked


def _weighted(
    loss: Callable[..., Any], loss_and_grad: Callable[..., Any], class_weights: NDArray | None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Both functions with class weights."""
    if class_weights is None:
        return loss, stacked(loss_and_grad)

    def weighted(params: Params, X: Any, y: Any, reg: Any) -> tuple[Array, Params]:
        of_class = jnp.asarray(class_weights)  # converted here, in the caller's precision
        # The weights of a minibatch sum to 1 only on average: normalising each one would underweight rare classes.
        return loss_and_grad(params, X, y, reg, weights=of_class[y] / len(y))

    return lambda *problem: weighted(*problem)[0], stacked(weighted)


LINEAR = linear()
