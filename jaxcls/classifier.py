"""What the trainer needs of a model: its pure functions, as one value."""

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
    """The pure functions of one model. Any model that supplies them trains and sweeps.

    A product with X must come first: in a sweep, columns of zeros may follow the features, and must change nothing.
    """

    init: Callable[..., Params]  # (num_features, *num_hidden, num_classes, *, key, dtype) -> params
    logits: Callable[[Params, Array], Float[Array, "N C"]]  # (params, X)
    loss: Callable[..., Float[Array, ""]]  # (params, X, y, reg)
    loss_and_grad: Callable[..., tuple[Float[Array, ""], Params]]  # (params, X, y, reg)
    features: Callable[[Any], Float[Array, "N D"]] = jnp.asarray  # prepared examples -> X
    num_hidden_layers: int = 0


def linear(*, init_scale: float = 1e-3, class_weights: Float[NDArray, "C"] | None = None) -> Classifier:
    """The linear softmax classifier, its weights drawn with standard deviation ``init_scale``.

    With ``class_weights``, ``[C]``, an example counts in the mean as much as its class does: those of
    `jaxcls.data.balanced` are 1 on average over all examples. They are checked when weights are first drawn.

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
    """The two-layer net, its weights drawn with standard deviation ``init_scale``; class weights as in `linear`.

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
    """``init`` at this scale; told how many classes there are, it checks that the class weights are theirs."""
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
    """Both functions, with each example weighted by its class."""
    if class_weights is None:
        return loss, stacked(loss_and_grad)

    def weighted(params: Params, X: Any, y: Any, reg: Any) -> tuple[Array, Params]:
        of_class = jnp.asarray(class_weights)  # here, in the precision of the call
        # Of a minibatch they sum to 1 on average, not each time: else rare classes would count less than they should.
        return loss_and_grad(params, X, y, reg, weights=of_class[y] / len(y))

    return lambda *problem: weighted(*problem)[0], stacked(weighted)


LINEAR = linear()
