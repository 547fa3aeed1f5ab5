"""Cross-entropy and hinge loss on logits, and their gradients, derived by hand: the one copy of that mathematics.

For logits ``s`` of shape ``[N, C]``, labels ``y`` and probabilities ``p = softmax(s)``, the cross-entropy is

    L     = (1/N) Σ_i (log Σ_j e^{s_ij} - s_{i,y_i})
    dL/ds = (p - onehot(y)) / N

Said like that, ``e^s`` overflows, and ``p_y - 1`` loses every digit of a confident prediction. So with
``m_i = max_j s_ij``, ``e_ij = e^{s_ij - m_i}`` (never above 1) and ``others_i = Σ_{j≠y_i} e_ij``:

    Σ_j e_ij          = others_i + e_{i,y_i}    (at least 1: the largest term is e^0)
    L_i               = (m_i - s_{i,y_i}) + log1p(others_i - (1 - e_{i,y_i}))
    N dL/ds_{ij}      = e_ij / Σ_k e_ik         for j ≠ y_i
    N dL/ds_{i,y_i}   = -others_i / Σ_k e_ik    which is p_y - 1, without the subtraction

The multiclass hinge loss, with ``margin_ij = s_ij - s_{i,y_i} + 1`` for ``j ≠ y_i``, is

    L                 = (1/N) Σ_i Σ_{j≠y_i} max(0, margin_ij)
    N dL/ds_{ij}      = 1 where margin_ij > 0, else 0    for j ≠ y_i; at exactly 0 the kink's subgradient 0
    N dL/ds_{i,y_i}   = -(how many of those are 1)
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer

from jaxcls.numerics import checks, full_precision, varying_alike


def cross_entropy_and_grad(
    logits: Float[ArrayLike, "N C *cells"], y: Integer[ArrayLike, "N"], weights: Float[Array, "N"] | None = None
) -> tuple[Float[Array, "*cells"], Float[Array, "N C *cells"]]:
    """Mean softmax cross-entropy, and its gradient with respect to the logits.

    Finite for any finite logits: where the loss itself is larger than the dtype can hold, it saturates at
    the largest finite number, and the gradient is still right.

    Args:
      logits: unnormalised log-probabilities, ``[N, C]``, or those of a stack of models, ``[N, C, G]``.
      y: integer class labels in ``[0, C)``, ``[N]``. A label out of range makes loss and gradient NaN.
      weights: what each example counts in the mean, ``[N]``, with a sum of 1; 1/N each when not given.

    Returns:
      The loss in nats, a scalar or ``[G]``, and ``dL/dlogits`` in the shape of the logits.

    Raises:
      ValueError: a shape is wrong or there are no examples.
      TypeError: the logits are not floating point, or the labels not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> loss, dlogits = cross_entropy_and_grad(jnp.zeros((2, 4)), jnp.array([0, 1]))
      >>> print(f"{loss:.4f}")  # ln 4
      1.3863
      >>> print(dlogits)
      [[-0.375  0.125  0.125  0.125]
       [ 0.125 -0.375  0.125  0.125]]

    References:
      CS231n, `Softmax classifier <https://cs231n.github.io/linear-classify/#softmax-classifier>`_.
    """
    logits, y = _check(logits, y, ranks=(2, 3))
    num_examples, num_classes, *cells = logits.shape
    n: Any = num_examples
    if weights is not None:  # each example is one of its own n
        own = 1 / checks.example_weights(weights, num_examples).astype(logits.dtype)
        n = own[:, None, None] if cells else own[None]
    label = _classes(y, num_classes)[:, None]
    is_label = label == jnp.arange(num_classes)[None]
    # Sums over a last axis of a few classes would not vectorise: behind them come the examples, or else the cells.
    # The barrier keeps the compiler from turning over the product that made the logits, which takes half as long again.
    s = logits if cells else jax.lax.optimization_barrier(logits).T
    is_label, label = (is_label[:, :, None], label[:, :, None]) if cells else (is_label.T, label.T)
    over_classes = functools.partial(jnp.sum, axis=-2, keepdims=True)

    m = jax.lax.stop_gradient(jnp.max(s, axis=-2, keepdims=True))  # the loss does not depend on m
    e = jnp.exp(jnp.where(is_label, -jnp.inf, s) - m)  # of the other classes; 0 for the label
    others = over_classes(e)
    s_label = jnp.take_along_axis(s, label, axis=-2, mode="fill")  # NaN out of range
    e_label = jnp.exp(s_label - m)

    losses = ((m - s_label) + jnp.log1p(others - (1 - e_label))) / n
    if weights is not None:
        losses = jnp.where(jnp.isinf(n), 0, losses)  # not NaN, where what counts for nothing is infinite
    loss = jnp.minimum(jnp.sum(losses, axis=(0, 1)), jnp.finfo(s.dtype).max)
    ds = jnp.where(is_label, -others, e) / ((others + e_label) * n)
    return loss, ds if cells else ds.T


def cross_entropy(logits: Float[ArrayLike, "N C"], y: Integer[ArrayLike, "N"]) -> Float[Array, ""]:
    """Mean softmax cross-entropy. `jax.grad` of it runs the hand-derived rule.

    Takes and raises what `cross_entropy_and_grad` does, but no stacks and no weights.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> print(jax.grad(cross_entropy)(jnp.zeros((2, 4)), jnp.array([0, 1])))
      [[-0.375  0.125  0.125  0.125]
       [ 0.125 -0.375  0.125  0.125]]
    """
    return _cross_entropy(*varying_alike(*_check(logits, y)))


def hinge_and_grad(
    logits: Float[ArrayLike, "N C *cells"], y: Integer[ArrayLike, "N"]
) -> tuple[Float[Array, "*cells"], Float[Array, "N C *cells"]]:
    """Mean multiclass hinge loss (Weston and Watkins' SVM), and its gradient with respect to the logits.

    Finite for any finite logits: where the loss itself is larger than the dtype can hold, it saturates at
    the largest finite number, and the gradient is still right.

    Args:
      logits: scores, ``[N, C]``, or those of a stack of models, ``[N, C, G]``.
      y: integer class labels in ``[0, C)``, ``[N]``. A label out of range makes loss and gradient NaN.

    Returns:
      The loss, a scalar or ``[G]``, and ``dL/dlogits`` in the shape of the logits.

    Raises:
      ValueError: a shape is wrong or there are no examples.
      TypeError: the logits are not floating point, or the labels not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> loss, dlogits = hinge_and_grad(jnp.array([[3.0, 5.0, -2.0], [1.0, 5.0, 2.0]]), jnp.array([0, 1]))
      >>> print(loss)  # 5 - 3 + 1, and nothing from the second example, over 2
      1.5
      >>> print(dlogits)
      [[-0.5  0.5  0. ]
       [ 0.   0.   0. ]]

    References:
      CS231n, `Multiclass SVM <https://cs231n.github.io/linear-classify/#svm>`_.
    """
    logits, y = _check(logits, y, ranks=(2, 3))
    n, num_classes = logits.shape[:2]
    label = jnp.expand_dims(_classes(y, num_classes), range(1, logits.ndim))
    is_label = label == jax.lax.broadcasted_iota(label.dtype, logits.shape, 1)

    s_label = jnp.take_along_axis(logits, label, axis=1, mode="fill")  # NaN out of range
    losses = jnp.where(is_label, 0, jnp.maximum(logits - s_label + 1, 0))
    loss = jnp.minimum(jnp.sum(losses / n, axis=(0, 1)), jnp.finfo(logits.dtype).max)
    violated = jnp.sign(losses)  # 1 or 0, and NaN where the loss is
    return loss, (violated - is_label * jnp.sum(violated, axis=1, keepdims=True)) / n


def hinge(logits: Float[ArrayLike, "N C"], y: Integer[ArrayLike, "N"]) -> Float[Array, ""]:
    """Mean multiclass hinge loss. `jax.grad` of it runs the hand-derived rule.

    Takes and raises what `hinge_and_grad` does, but no stacks.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> print(jax.grad(hinge)(jnp.zeros((2, 4)), jnp.array([0, 1])))
      [[-1.5  0.5  0.5  0.5]
       [ 0.5 -1.5  0.5  0.5]]
    """
    return _hinge(*varying_alike(*_check(logits, y)))


def _differentiable(loss_and_grad: Callable[..., tuple[Array, Array]]) -> Callable[[Array, Array], Array]:
    """The loss alone, which reverse-mode autodiff differentiates by the gradient beside it."""
    loss = jax.custom_vjp(lambda logits, y: loss_and_grad(logits, y)[0])
    loss.defvjp(loss_and_grad, lambda dlogits, g: (g * dlogits, None))
    return loss


_cross_entropy, _hinge = _differentiable(cross_entropy_and_grad), _differentiable(hinge_and_grad)


@full_precision
def sum_of_squares(W: Float[ArrayLike, "D C *cells"]) -> Float[Array, "*cells"]:
    """``Σ W²``: the L2 penalty of one array of weights, with no factor 1/2; of each model of a stack.

    Example:
      >>> import jax.numpy as jnp
      >>> print(sum_of_squares(jnp.ones((3073, 10))))
      30730.0
    """
    W = checks.array(W, "W")
    if W.ndim > 2:  # a product would have XLA turn the stack over first
        return jnp.sum(W * W, axis=(0, 1))
    # As a product: XLA sums those in several partial sums, which round less than the one of jnp.sum(W * W).
    return jnp.tensordot(W, W, 2)


def hand_derived(
    loss_and_grad: Callable[..., Any], input_grad: Callable[..., Any], penalty: Callable[..., Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate ``loss(params, X, y, reg)`` so that reverse-mode autodiff runs gradients written by hand.

    Args:
      loss_and_grad: ``(params, X, y, reg) -> (loss, dL/dparams)``.
      input_grad: ``(params, X, y) -> dL/dX``.
      penalty: ``params -> dL/dreg``.
    """

    def decorate(loss: Callable[..., Any]) -> Callable[..., Any]:
        def forward(params: Any, X: Array, y: Array, reg: Array) -> Any:
            value, dparams = loss_and_grad(params, X, y, reg)
            return value, (params, X, y, dparams)

        def backward(residuals: Any, g: Array) -> Any:
            params, X, y, dparams = residuals
            # Under jit, whichever of these is not asked for is never computed.
            return jax.tree.map(lambda d: g * d, dparams), g * input_grad(params, X, y), None, g * penalty(params)

        differentiable = jax.custom_vjp(loss)
        differentiable.defvjp(forward, backward)
        return differentiable

    return decorate


def _classes(y: Array, num_classes: int) -> Int[Array, "N"]:
    y = y.astype(int)  # an int8 could not hold the number of classes
    return jnp.where(y < 0, num_classes, y)  # not the last class, but out of range


def _check(logits: ArrayLike, y: ArrayLike, ranks: tuple[int, ...] = (2,)) -> tuple[Array, Array]:
    logits = checks.array(logits, "logits")
    if logits.ndim not in ranks or 0 in logits.shape:
        raise ValueError(f"logits must have shape [N, C] with N, C >= 1, got {list(logits.shape)}")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    return logits, checks.labels(y, logits.shape[0])
