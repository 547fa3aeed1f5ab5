"""Cross-entropy and hinge loss on logits, with hand-derived gradients. Every model computes its loss here.

For logits ``s`` of shape ``[N, C]``, labels ``y`` and probabilities ``p = softmax(s)``, the cross-entropy is

    L     = (1/N) Σ_i (log Σ_j e^{s_ij} - s_{i,y_i})
    dL/ds = (p - onehot(y)) / N

Computed literally, ``e^s`` overflows and ``p_y - 1`` cancels for a confident prediction. The code uses
``m_i = max_j s_ij``, ``e_ij = e^{s_ij - m_i}`` (at most 1) and ``others_i = Σ_{j≠y_i} e_ij``:

    Σ_j e_ij          = others_i + e_{i,y_i}    (at least 1: the largest term is e^0)
    L_i               = (m_i - s_{i,y_i}) + log1p(others_i - (1 - e_{i,y_i}))
    N dL/ds_{ij}      = e_ij / Σ_k e_ik         for j ≠ y_i
    N dL/ds_{i,y_i}   = -others_i / Σ_k e_ik    p_y - 1 without the subtraction

Label smoothing a takes (1 - a) onehot(y) + a/C for onehot(y), which adds

    L_i               + a (s_{i,y_i} - Σ_j s_ij / C)
    N dL/ds_ij        + a (onehot(y_i)_j - 1/C)

The multiclass hinge loss, with ``margin_ij = s_ij - s_{i,y_i} + 1`` for ``j ≠ y_i``, is

    L                 = (1/N) Σ_i Σ_{j≠y_i} max(0, margin_ij)
    N dL/ds_{ij}      = 1 where margin_ij > 0, else 0    for j ≠ y_i (at the kink, the subgradient 0)
    N dL/ds_{i,y_i}   = -(number of j ≠ y_i with margin_ij > 0)
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer

from jaxcls.numerics import Params, checks, full_precision, varying_alike


def cross_entropy_and_grad(
    logits: Float[ArrayLike, "N C *cells"],
    y: Integer[ArrayLike, "N"],
    weights: Float[Array, "N"] | None = None,
    label_smoothing: Float[Array, "*cells"] | float | None = None,
) -> tuple[Float[Array, "*cells"], Float[Array, "N C *cells"]]:
    """Mean softmax cross-entropy and its gradient with respect to the logits.

    Finite for any finite logits: a loss beyond the dtype's range saturates at the largest finite number, and its
    gradient is still correct.

    Args:
      logits: unnormalised log-probabilities, ``[N, C]``, or ``[N, C, G]`` for a stack of models.
      y: integer class labels in ``[0, C)``, ``[N]``. A label out of range makes loss and gradient NaN.
      weights: example weights in the mean, ``[N]``, which sum to 1. Default: 1/N each.
      label_smoothing: share of each label that is spread over all classes, a scalar, or ``[G]`` for a stack.

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
    n: int | Array = num_examples
    if weights is not None:  # an example of weight w enters as one of 1 / w
        inverse = 1 / checks.example_weights(weights, num_examples).astype(logits.dtype)
        n = inverse[:, None, None] if cells else inverse[None]
    # A sum over a short last axis does not vectorise, so the last axis holds the cells, or the examples of one model.
    # Without the barrier, XLA transposes the matmul that produced the logits, which takes half as long again.
    s = logits if cells else jax.lax.optimization_barrier(logits).T
    label = _classes(y, num_classes)
    label = label[:, None, None] if cells else label[None]
    losses, numerator, total = cross_entropy_terms(s, label)
    if label_smoothing is not None:
        smoothed, dsmoothed = _smoothing_terms(s, label, label_smoothing)
        losses = losses + smoothed

    losses = losses / n
    if weights is not None:
        losses = jnp.where(jnp.isinf(n), 0, losses)  # an overflow at weight 0 counts as 0, not NaN
    loss = jnp.minimum(jnp.sum(losses, axis=(0, 1)), jnp.finfo(s.dtype).max)
    ds = numerator / (total * n)
    if label_smoothing is not None:
        ds = ds + dsmoothed / n
    return loss, ds if cells else ds.T


def cross_entropy_terms(
    s: Float[Array, "*batch C last"], label: Int[Array, "*#batch 1 #last"]
) -> tuple[Float[Array, "*batch 1 last"], Float[Array, "*batch C last"], Float[Array, "*batch 1 last"]]:
    """Cross-entropy of each example, and ``dL/ds`` as a numerator and its divisor; classes are the second last axis.

    Example:
      >>> import jax.numpy as jnp
      >>> losses, numerator, total = cross_entropy_terms(jnp.zeros((4, 2)), jnp.array([[0, 1]]))
      >>> print((numerator / total).T)
      [[-0.75  0.25  0.25  0.25]
       [ 0.25 -0.75  0.25  0.25]]
    """
    is_label = label == jnp.expand_dims(jnp.arange(s.shape[-2]), (*range(s.ndim - 2), -1))
    m = jax.lax.stop_gradient(jnp.max(s, axis=-2, keepdims=True))  # the loss does not depend on m
    e = jnp.exp(jnp.where(is_label, -jnp.inf, s) - m)  # of the other classes; 0 for the label
    others = jnp.sum(e, axis=-2, keepdims=True)
    s_label = jnp.take_along_axis(s, label, axis=-2, mode="fill")  # NaN out of range
    e_label = jnp.exp(s_label - m)
    losses = (m - s_label) + jnp.log1p(others - (1 - e_label))
    return losses, jnp.where(is_label, -others, e), others + e_label


def _smoothing_terms(s: Array, label: Array, a: Array | float) -> tuple[Array, Array]:
    """The loss of each example and ``dL/ds`` that label smoothing adds, in the layout of `cross_entropy_terms`."""
    a = jnp.expand_dims(jnp.asarray(a, s.dtype), range(s.ndim - jnp.ndim(a)))
    uniform = 1 / s.shape[-2]
    is_label = label == jnp.expand_dims(jnp.arange(s.shape[-2]), (*range(s.ndim - 2), -1))
    target = jnp.where(is_label, 1, 0) - jnp.asarray(uniform, s.dtype)
    return jnp.sum(a * target * s, axis=-2, keepdims=True), a * target


def cross_entropy(logits: Float[ArrayLike, "N C"], y: Integer[ArrayLike, "N"]) -> Float[Array, ""]:
    """Mean softmax cross-entropy; `jax.grad` uses the hand-derived gradient.

    Arguments and errors as in `cross_entropy_and_grad`, without stacks and weights.

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
    """Mean multiclass hinge loss (Weston-Watkins SVM) and its gradient with respect to the logits.

    Finite for any finite logits: a loss beyond the dtype's range saturates at the largest finite number, and its
    gradient is still correct.

    Args:
      logits: scores, ``[N, C]``, or ``[N, C, G]`` for a stack of models.
      y: integer class labels in ``[0, C)``, ``[N]``. A label out of range makes loss and gradient NaN.

    Returns:
      The loss, a scalar or ``[G]``, and ``dL/dlogits`` in the shape of the logits.

    Raises:
      ValueError: a shape is wrong or there are no examples.
      TypeError: the logits are not floating point, or the labels not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> loss, dlogits = hinge_and_grad(jnp.array([[3.0, 5.0, -2.0], [1.0, 5.0, 2.0]]), jnp.array([0, 1]))
      >>> print(loss)  # (5 - 3 + 1 + 0) / 2
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
    violated = jnp.sign(losses)  # 1 or 0; NaN where the loss is NaN
    return loss, (violated - is_label * jnp.sum(violated, axis=1, keepdims=True)) / n


def hinge(logits: Float[ArrayLike, "N C"], y: Integer[ArrayLike, "N"]) -> Float[Array, ""]:
    """Mean multiclass hinge loss; `jax.grad` uses the hand-derived gradient.

    Arguments and errors as in `hinge_and_grad`, without stacks.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> print(jax.grad(hinge)(jnp.zeros((2, 4)), jnp.array([0, 1])))
      [[-1.5  0.5  0.5  0.5]
       [ 0.5 -1.5  0.5  0.5]]
    """
    return _hinge(*varying_alike(*_check(logits, y)))


def _differentiable(loss_and_grad: Callable[..., tuple[Array, Array]]) -> Callable[[Array, Array], Array]:
    """The loss of ``loss_and_grad``, with its gradient as the reverse-mode rule."""
    loss = jax.custom_vjp(lambda logits, y: loss_and_grad(logits, y)[0])
    loss.defvjp(loss_and_grad, lambda dlogits, g: (g * dlogits, None))
    return loss


_cross_entropy, _hinge = _differentiable(cross_entropy_and_grad), _differentiable(hinge_and_grad)


@full_precision
def sum_of_squares(W: Float[ArrayLike, "D C *cells"]) -> Float[Array, "*cells"]:
    """L2 penalty ``Σ W²`` of one array of weights, without a factor 1/2; per model for a stack.

    Example:
      >>> import jax.numpy as jnp
      >>> print(sum_of_squares(jnp.ones((3073, 10))))
      30730.0
    """
    W = checks.array(W, "W")
    if W.ndim > 2:  # a matmul would make XLA transpose the stack first
        return jnp.sum(W * W, axis=(0, 1))
    # A dot product: XLA accumulates it in several partial sums, which round less than the one of jnp.sum(W * W).
    return jnp.tensordot(W, W, 2)


_Loss = Callable[[Params, Array, Array, Array], Array]


class Residuals(NamedTuple):
    """Values that the backward pass of `hand_derived` takes from the forward pass."""

    params: Params
    X: Array
    y: Array
    dparams: Params


def hand_derived(
    loss_and_grad: Callable[[Params, Array, Array, Array], tuple[Array, Params]],
    input_grad: Callable[[Params, Array, Array], Array],
    penalty: Callable[[Params], Array],
) -> Callable[[_Loss], _Loss]:
    """Decorator that gives ``loss(params, X, y, reg)`` hand-derived gradients in reverse mode.

    Args:
      loss_and_grad: ``(params, X, y, reg) -> (loss, dL/dparams)``.
      input_grad: ``(params, X, y) -> dL/dX``.
      penalty: ``params -> dL/dreg``.
    """

    def decorate(loss: _Loss) -> _Loss:
        def forward(params: Params, X: Array, y: Array, reg: Array) -> tuple[Array, Residuals]:
            value, dparams = loss_and_grad(params, X, y, reg)
            return value, Residuals(params, X, y, dparams)

        def backward(residuals: Residuals, g: Array) -> tuple[Params, Array, None, Array]:
            params, X, y, dparams = residuals
            # Under jit, XLA drops the gradients that are not used.
            return jax.tree.map(lambda d: g * d, dparams), g * input_grad(params, X, y), None, g * penalty(params)

        differentiable = jax.custom_vjp(loss)
        differentiable.defvjp(forward, backward)
        return differentiable

    return decorate


def _classes(y: Array, num_classes: int) -> Int[Array, "N"]:
    y = y.astype(int)  # an int8 could not hold the number of classes
    return jnp.where(y < 0, num_classes, y)  # out of range, not counted from the last class


def _check(logits: ArrayLike, y: ArrayLike, ranks: tuple[int, ...] = (2,)) -> tuple[Array, Array]:
    logits = checks.array(logits, "logits")
    if logits.ndim not in ranks or 0 in logits.shape:
        raise ValueError(f"logits must have shape [N, C] with N, C >= 1, got {list(logits.shape)}")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    return logits, checks.labels(y, logits.shape[0])
