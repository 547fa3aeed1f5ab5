"""The two-layer net: scores, loss and gradients.

    z = X W1 + b1                                   X: [N, D], W1: [D, H], b1: [H]
    h = max(z, 0)
    s = h W2 + b2                                   W2: [H, C], b2: [C]
    L = cross_entropy(s, y) + reg (Σ W1² + Σ W2²)   biases are not penalised

    dL/dW2 = hᵀ dL/ds + 2 reg W2        dL/db2 = Σ_i dL/ds_i
    dL/dz  = dL/ds W2ᵀ where z > 0      the gradient of ReLU at exactly 0 is taken as 0
    dL/dW1 = Xᵀ dL/dz + 2 reg W1        dL/db1 = Σ_i dL/dz_i
    dL/dX  = dL/dz W1ᵀ

The biases are separate parameters, so X has no column of ones. ``dL/ds`` comes from `jaxcls.losses`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer, Key, Real

from jaxcls import softmax
from jaxcls.losses import cross_entropy, cross_entropy_and_grad, hand_derived, sum_of_squares
from jaxcls.numerics import checks, einsum, full_precision, varying_alike


class Params(NamedTuple):
    """Parameters ``W1 [D, H]``, ``b1 [H]``, ``W2 [H, C]``, ``b2 [C]``; their gradients have the same structure."""

    W1: Float[Array, "D H"]
    b1: Float[Array, "H"]
    W2: Float[Array, "H C"]
    b2: Float[Array, "C"]


def init(
    num_features: int,
    num_hidden: int,
    num_classes: int,
    *,
    key: Key[Array, ""],
    scale: float = 1e-4,
    dtype: jnp.dtype | None = None,
) -> Params:
    """Random weights, ``scale`` times a standard normal, and zero biases.

    Args:
      num_features: D.
      num_hidden: H.
      num_classes: C.
      key: a PRNG key, `jax.random.key`.
      scale: standard deviation of the weights; 1e-4 in both courses.
      dtype: of the params. Default: JAX's default float.

    Example:
      >>> import jax
      >>> params = init(3072, 50, 10, key=jax.random.key(0))
      >>> params.W1.shape, params.b2.shape
      ((3072, 50), (10,))
    """
    dtype = dtype or jnp.result_type(float)
    key1, key2 = jax.random.split(key)
    return Params(
        softmax.init(num_features, num_hidden, key=key1, scale=scale, dtype=dtype),
        jnp.zeros(num_hidden, dtype),
        softmax.init(num_hidden, num_classes, key=key2, scale=scale, dtype=dtype),
        jnp.zeros(num_classes, dtype),
    )


def init_uniform(
    num_features: int, num_hidden: int, num_classes: int, *, key: Key[Array, ""], dtype: jnp.dtype | None = None
) -> Params:
    """Random weights and biases of both layers, as `jaxcls.softmax.init_uniform` draws them; arguments as in `init`.

    Example:
      >>> import jax
      >>> params = init_uniform(64, 100, 10, key=jax.random.key(0))
      >>> bool(jnp.abs(params.W2).max() <= 0.1), params.b1.shape
      (True, (100,))
    """
    key1, key2 = jax.random.split(key)
    first = softmax.init_uniform(num_features + 1, num_hidden, key=key1, dtype=dtype)
    second = softmax.init_uniform(num_hidden + 1, num_classes, key=key2, dtype=dtype)
    return Params(first[:-1], first[-1], second[:-1], second[-1])


@full_precision
def logits(params: Params, X: Float[ArrayLike, "N D"]) -> Float[Array, "N C"]:
    """Scores ``max(X W1 + b1, 0) W2 + b2``.

    Raises:
      ValueError: a rank or size does not match.
      TypeError: ``X`` and the params do not share one float dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> params = Params(jnp.eye(2), jnp.zeros(2), jnp.eye(2), jnp.ones(2))
      >>> print(logits(params, jnp.array([[3.0, -1.0]])))
      [[4. 1.]]
    """
    (W1, b1, W2, b2), X, _ = _check(params, X)
    return jnp.maximum(X @ W1 + b1[None], 0) @ W2 + b2[None]


def predict(params: Params, X: Float[ArrayLike, "N D"]) -> Int[Array, "N"]:
    """Predicted class of each example: the highest score, ties to the lowest class.

    Example:
      >>> import jax.numpy as jnp
      >>> params = Params(jnp.eye(2), jnp.zeros(2), jnp.eye(2), jnp.zeros(2))
      >>> print(predict(params, jnp.array([[3.0, 1.0], [0.0, 2.0]])))
      [0 1]
    """
    return jnp.argmax(logits(params, X), axis=1)


def loss(
    params: Params, X: Float[ArrayLike, "N D"], y: Integer[ArrayLike, "N"], reg: Real[ArrayLike, ""]
) -> Float[Array, ""]:
    """Softmax loss of a two-layer net; `jax.grad` uses the hand-derived gradients.

    Arguments and errors as in `loss_and_grad`, without stacks and weights. Differentiable in all but ``y``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params = init(4, 8, 10, key=jax.random.key(0), scale=0.0)
      >>> print(f"{loss(params, jnp.ones((5, 4)), jnp.arange(5), 0.1):.4f}")  # ln 10
      2.3026
    """
    params, X, reg = _check(params, X, reg)
    return _loss(*varying_alike(params, X, checks.labels(y, X.shape[0]), reg))


@full_precision
def loss_and_grad(
    params: Params,
    X: Float[ArrayLike, "N D"],
    y: Integer[ArrayLike, "N"],
    reg: Real[ArrayLike, "*cells"],
    label_smoothing: Float[Array, "*cells"] | float | None = None,
    *,
    weights: Float[Array, "N"] | None = None,
) -> tuple[Float[Array, "*cells"], Params]:
    """Softmax loss and its gradients for a two-layer net.

    Args:
      params: `Params`; for a stack of models, each array has a last axis ``G``.
      X: examples, ``[N, D]``, in the dtype of the params, without a column of ones.
      y: integer labels in ``[0, C)``, ``[N]``.
      reg: regularisation strength of ``W1`` and ``W2``, a scalar, or ``[G]`` for a stack.
      label_smoothing, weights: as in `jaxcls.losses.cross_entropy_and_grad`.

    Returns:
      The loss, a scalar or ``[G]``, and the gradients as `Params`, like `jax.value_and_grad` of the loss.

    Raises:
      ValueError: a rank or size does not match, or there are no examples.
      TypeError: ``X`` and the params do not share one float dtype, or the labels not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> params = Params(jnp.eye(2), jnp.zeros(2), jnp.zeros((2, 2)), jnp.zeros(2))
      >>> loss, grads = loss_and_grad(params, jnp.array([[3.0, -1.0]]), jnp.array([0]), 0.0)
      >>> print(grads.W2)  # the second hidden unit is off
      [[-1.5  1.5]
       [ 0.   0. ]]

    References:
      CS231n, `assignment 1 <https://cs231n.github.io/assignments2025/assignment1/>`_, ``two_layer_net.ipynb``.
    """
    (W1, b1, W2, b2), X, reg = _check(params, X, reg)
    z = einsum("nd,dh->nh", X, W1) + b1[None]
    h = jnp.maximum(z, 0)
    scores = einsum("nh,hc->nc", h, W2) + b2[None]
    data_loss, dlogits = cross_entropy_and_grad(scores, y, weights, label_smoothing)
    loss = data_loss + reg * penalty(params)

    dz = jnp.where(z > 0, einsum("nc,hc->nh", dlogits, W2), 0)
    grads = Params(
        W1=einsum("nd,nh->dh", X, dz, like=W1) + 2 * reg[None, None] * W1,
        b1=jnp.sum(dz, axis=0),
        W2=einsum("nh,nc->hc", h, dlogits, like=W2) + 2 * reg[None, None] * W2,
        b2=jnp.sum(dlogits, axis=0),
    )
    return loss, grads


@full_precision
def loss_and_grad_naive(
    params: Params, X: Float[ArrayLike, "N D"], y: Integer[ArrayLike, "N"], reg: Real[ArrayLike, ""]
) -> tuple[Float[Array, ""], Params]:
    """Loop form of `loss_and_grad`, one example, one class and one hidden unit at a time.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params = init(4, 8, 3, key=jax.random.key(0), scale=1.0)
      >>> problem = params, jnp.ones((2, 4)), jnp.array([0, 2]), 0.1
      >>> naive, grads = jax.jit(loss_and_grad_naive)(*problem)
      >>> bool(jnp.allclose(naive, loss_and_grad(*problem)[0]))
      True
    """
    params, X, reg = _check(params, X, reg)
    y = checks.labels(y, X.shape[0])
    W1, b1, W2, b2 = params
    n, num_hidden, num_classes = X.shape[0], W1.shape[1], W2.shape[1]

    def one_example(i: Array, carry: tuple[Array, Params]) -> tuple[Array, Params]:
        z = X[i] @ W1 + b1
        h = jnp.maximum(z, 0)
        scores = h @ W2 + b2
        scores -= jnp.max(scores)
        total = jnp.sum(jnp.exp(scores))

        def one_class(j: Array, carry: tuple[Params, Array]) -> tuple[Params, Array]:
            grads, dh = carry
            dscore = jnp.exp(scores[j]) / total - (j == y[i])
            grads = grads._replace(W2=grads.W2.at[:, j].add(dscore * h), b2=grads.b2.at[j].add(dscore))
            return grads, dh + dscore * W2[:, j]

        def one_unit(k: Array, grads: Params) -> Params:
            dz = jnp.where(z[k] > 0, dh[k], 0)
            return grads._replace(W1=grads.W1.at[:, k].add(dz * X[i]), b1=grads.b1.at[k].add(dz))

        data_loss, grads = carry
        grads, dh = jax.lax.fori_loop(0, num_classes, one_class, (grads, jnp.zeros_like(h)))
        grads = jax.lax.fori_loop(0, num_hidden, one_unit, grads)
        return data_loss + jnp.log(total) - scores[y[i]], grads

    start = jnp.zeros((), X.dtype), jax.tree.map(jnp.zeros_like, params)
    data_loss, grads = jax.lax.fori_loop(0, n, one_example, start)
    grads = jax.tree.map(lambda grad: grad / n, grads)
    grads = grads._replace(W1=grads.W1 + 2 * reg * W1, W2=grads.W2 + 2 * reg * W2)
    return data_loss / n + reg * penalty(params), grads


@full_precision
def input_grad(params: Params, X: Float[ArrayLike, "N D"], y: Integer[ArrayLike, "N"]) -> Float[Array, "N D"]:
    """Gradient of the loss with respect to the inputs, ``dL/dX``, ``[N, D]``.

    Example:
      >>> import jax.numpy as jnp
      >>> params = Params(jnp.eye(2), jnp.ones(2), jnp.eye(2), jnp.zeros(2))
      >>> print(input_grad(params, jnp.zeros((1, 2)), jnp.array([1])))
      [[ 0.5 -0.5]]
    """
    (W1, b1, W2, b2), X, _ = _check(params, X)
    z = X @ W1 + b1[None]
    dlogits = cross_entropy_and_grad(jnp.maximum(z, 0) @ W2 + b2[None], y)[1]
    return jnp.where(z > 0, dlogits @ W2.T, 0) @ W1.T


def penalty(params: Params) -> Float[Array, "*cells"]:
    """L2 penalty ``Σ W1² + Σ W2²``, without the biases; per model for a stack.

    Example:
      >>> import jax.numpy as jnp
      >>> print(penalty(Params(jnp.ones((4, 5)), jnp.ones(5), jnp.ones((5, 3)), jnp.ones(3))))
      35.0
    """
    return sum_of_squares(params.W1) + sum_of_squares(params.W2)


@hand_derived(loss_and_grad, input_grad, penalty)
def _loss(params: Params, X: Array, y: Array, reg: Array) -> Array:
    return cross_entropy(logits(params, X), y) + reg * penalty(params)


def _check(params: Params, X: ArrayLike, reg: ArrayLike = 0.0) -> tuple[Params, Array, Array]:
    if not isinstance(params, Params):
        raise TypeError(f"params must be two_layer.Params, got {type(params).__name__}")
    params, reg = Params(*map(checks.array, params, Params._fields)), checks.real(reg, "reg")
    shapes = {name: array.shape for name, array in params._asdict().items()}
    (d, h), c = (*shapes["W1"], -1, -1)[:2], (*shapes["b2"], -1)[0]
    stack = reg.shape
    if [*shapes.values()] != [(d, h, *stack), (h, *stack), (h, c, *stack), (c, *stack)]:
        cells = "".join(f", {length}" for length in stack)
        expected = f"W1 [D, H{cells}], b1 [H{cells}], W2 [H, C{cells}], b2 [C{cells}]"
        got = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"params must have shapes {expected}, got {got}")
    if len({array.dtype for array in params}) > 1:
        raise TypeError(f"params must share one dtype, got {', '.join(str(array.dtype) for array in params)}")
    X = checks.features(X, params.W1.shape[0], params.W1.dtype)
    return params, X, reg.astype(X.dtype)
