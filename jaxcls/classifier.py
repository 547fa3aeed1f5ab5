"""What the trainer needs of a model: its pure functions, as one value."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcls import softmax, two_layer
from jaxcls.stack import stacked

Params = Any  # an array or a NamedTuple of arrays


class Classifier(NamedTuple):
    """The pure functions of one model. Any model that supplies them trains and sweeps."""

    init: Callable[..., Params]  # (num_features, *num_hidden, num_classes, *, key, dtype) -> params
    logits: Callable[[Params, Array], Float[Array, "N C"]]  # (params, X)
    loss: Callable[..., Float[Array, ""]]  # (params, X, y, reg)
    loss_and_grad: Callable[..., tuple[Float[Array, ""], Params]]  # (params, X, y, reg)
    features: Callable[[Any], Float[Array, "N D"]] = jnp.asarray  # prepared examples -> X
    num_hidden_layers: int = 0


def linear(*, init_scale: float = 1e-3) -> Classifier:
    """The linear softmax classifier, its weights drawn with standard deviation ``init_scale``.

    Example:
      >>> import jax
      >>> W = linear(init_scale=1e-6).init(65, 10, key=jax.random.key(0))
      >>> W.shape
      (65, 10)
    """
    init = functools.partial(softmax.init, scale=init_scale)
    return Classifier(init, softmax.logits, softmax.loss, stacked(softmax.loss_and_grad), softmax.append_ones)


def two_layer_net(*, init_scale: float = 1e-4) -> Classifier:
    """The two-layer net, its weights drawn with standard deviation ``init_scale``.

    Example:
      >>> import jax
      >>> params = two_layer_net().init(64, 20, 10, key=jax.random.key(0))
      >>> params.W1.shape
      (64, 20)
    """
    init = functools.partial(two_layer.init, scale=init_scale)
    return Classifier(init, two_layer.logits, two_layer.loss, stacked(two_layer.loss_and_grad), num_hidden_layers=1)


LINEAR = linear()
