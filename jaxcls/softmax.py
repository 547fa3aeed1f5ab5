"""The linear softmax classifier: scores, loss and gradient.

    s     = X W                                 X: [N, D], W: [D, C]
    L     = cross_entropy(s, y) + reg Σ W²      no factor 1/2, as in both courses
    dL/dW = Xᵀ dL/ds + 2 reg W
    dL/dX = dL/ds Wᵀ
    dL/dreg = Σ W²

The bias is the last row of ``W``; `append_ones` appends the matching column of ones (the "bias trick"). It is
penalised with the other weights. ``dL/ds`` comes from `jaxcls.losses`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Integer, Key, Real

from jaxcls.losses import cross_entropy, cross_entropy_and_grad, hand_derived, sum_of_squares
from jaxcls.numerics import checks, einsum, full_precision, varying_alike


def init(
    num_features: int, num_classes: int, *, key: Key[Array, ""], scale: float = 1e-3, dtype: jnp.dtype | None = None
) -> Float[Array, "D C"]:
    """Small random weights: ``scale`` times a standard normal.

    Args:
      num_features: D, including the column of ones.
      num_classes: C.
      key: a PRNG key, `jax.random.key`.
      scale: standard deviation; 1e-3 in CS231n, 1e-6 in EECS 498.
      dtype: of the weights. Default: JAX's default float.

    Example:
      >>> import jax
      >>> init(65, 10, key=jax.random.key(0)).shape
      (65, 10)
    """
    # Drawn as one row: the same numbers, but XLA takes a second to compile a small matrix of them on a CPU.
    row = jax.random.normal(key, (num_features * num_classes,), dtype or jnp.result_type(float))
    return scale * row.reshape(num_features, num_classes)


def init_uniform(
    num_features: int, num_classes: int, *, key: Key[Array, ""], dtype: jnp.dtype | None = None
) -> Float[Array, "D C"]:
    """Random weights and biases, uniform within ``±1/√d`` of ``d = D - 1`` features, as `torch.nn.Linear` draws them.

    Arguments as in `init`.

    Example:
      >>> import jax
      >>> bool(jnp.abs(init_uniform(65, 10, key=jax.random.key(0))).max() <= 1 / 8)
      True
    """
    bound = max(num_features - 1, 1) ** -0.5
    row = jax.random.uniform(key, (num_features * num_classes,), dtype or jnp.result_type(float), -bound, bound)
    return row.reshape(num_features, num_classes)


def append_ones(X: Real[ArrayLike, "N d"]) -> Real[Array, "N D"]:
    """Append a column of ones for the bias, ``[X, 1]``: ``D = d + 1``.

    Example:
      >>> import jax.numpy as jnp
      >>> print(append_ones(jnp.array([[3.0, 1.0], [0.0, 2.0]])))
      [[3. 1. 1.]
       [0. 2. 1.]]
    """
    X = checks.array(X, "X")
    return jnp.concatenate([X, jnp.ones((X.shape[0], 1), X.dtype)], axis=1)


@full_precision
def logits(W: Float[ArrayLike, "D C"], X: Float[ArrayLike, "N D"]) -> Float[Array, "N C"]:
    """Scores ``X W``, the unnormalised log-probabilities.

    Raises:
      ValueError: a rank or size does not match.
      TypeError: ``X`` and ``W`` do not share one float dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> print(logits(jnp.eye(2), jnp.array([[3.0, 1.0]])))
      [[3. 1.]]
    """
    W, X, _ = _check(W, X)
    return X @ W


def predict(W: Float[ArrayLike, "D C"], X: Float[ArrayLike, "N D"]) -> Int[Array, "N"]:
    """Predicted class of each example: the highest score, ties to the lowest class.

    Example:
      >>> import jax.numpy as jnp
      >>> print(predict(jnp.eye(2), jnp.array([[3.0, 1.0], [0.0, 2.0]])))
      [0 1]
    """
    return jnp.argmax(logits(W, X), axis=1)


def loss(
    W: Float[ArrayLike, "D C"], X: Float[ArrayLike, "N D"], y: Integer[ArrayLike, "N"], reg: Real[ArrayLike, ""]
) -> Float[Array, ""]:
    """Softmax loss of a linear classifier; `jax.grad` uses the hand-derived gradient.

    Arguments and errors as in `loss_and_grad`, without stacks and weights. Differentiable in all but ``y``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> W, X, y = jnp.zeros((4, 10)), jnp.ones((5, 4)), jnp.arange(5)
      >>> print(f"{loss(W, X, y, 0.1):.4f}")  # ln 10 for any X
      2.3026
      >>> jax.grad(loss)(W, X, y, 0.1).shape
      (4, 10)
    """
    W, X, reg = _check(W, X, reg)
    return _loss(*varying_alike(W, X, checks.labels(y, X.shape[0]), reg))


@full_precision
def loss_and_grad(
    W: Float[ArrayLike, "D C *cells"],
    X: Float[ArrayLike, "N D"],
    y: Integer[ArrayLike, "N"],
    reg: Real[ArrayLike, "*cells"],
    label_smoothing: Float[Array, "*cells"] | float | None = None,
    *,
    weights: Float[Array, "N"] | None = None,
) -> tuple[Float[Array, "*cells"], Float[Array, "D C *cells"]]:
    """Softmax loss and its gradient for a linear classifier.

    ``L = cross_entropy(X W, y) + reg Σ W²`` and ``dL/dW = Xᵀ (softmax(X W) - onehot(y)) / N + 2 reg W``.

    Args:
      W: weights, ``[D, C]``, or ``[D, C, G]`` for a stack of models.
      X: examples, ``[N, D]``, in the dtype of ``W``, the column of ones last.
      y: integer labels in ``[0, C)``, ``[N]``.
      reg: regularisation strength, a scalar, or ``[G]`` for a stack.
      label_smoothing, weights: as in `jaxcls.losses.cross_entropy_and_grad`.

    Returns:
      The loss, a scalar or ``[G]``, and ``dL/dW``, like `jax.value_and_grad` of the loss.

    Raises:
      ValueError: a rank or size does not match, or there are no examples.
      TypeError: ``X`` and ``W`` do not share one float dtype, or the labels not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> X, y = jnp.array([[1.0, 2.0, 1.0], [3.0, -1.0, 1.0]]), jnp.array([0, 1])
      >>> loss, dW = loss_and_grad(jnp.zeros((3, 2)), X, y, 0.1)
      >>> print(f"{loss:.4f}")
      0.6931
      >>> print(dW)
      [[ 0.5  -0.5 ]
       [-0.75  0.75]
       [ 0.    0.  ]]

    References:
      CS231n, `assignment 1 <https://cs231n.github.io/assignments2025/assignment1/>`_, ``softmax.ipynb``.
    """
    W, X, reg = _check(W, X, reg)
    data_loss, dlogits = cross_entropy_and_grad(einsum("nd,dc->nc", X, W), y, weights, label_smoothing)
    loss = data_loss + reg * sum_of_squares(W)
    return loss, einsum("nd,nc->dc", X, dlogits, like=W) + 2 * reg[None, None] * W


@full_precision
def loss_and_grad_naive(
    W: Float[ArrayLike, "D C"], X: Float[ArrayLike, "N D"], y: Integer[ArrayLike, "N"], reg: Real[ArrayLike, ""]
) -> tuple[Float[Array, ""], Float[Array, "D C"]]:
    """Loop form of `loss_and_grad`, one example and one class at a time, as in the worksheets.

    The loops are `jax.lax.fori_loop`, so `jax.jit` and `jax.vmap` work. For reading and checking, not for training.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> X, y = jnp.array([[1.0, 2.0, 1.0], [3.0, -1.0, 1.0]]), jnp.array([0, 1])
      >>> loss, dW = jax.jit(loss_and_grad_naive)(jnp.zeros((3, 2)), X, y, 0.1)
      >>> print(f"{loss:.4f}")
      0.6931
    """
    W, X, reg = _check(W, X, reg)
    y = checks.labels(y, X.shape[0])
    n, num_classes = X.shape[0], W.shape[1]

    def one_example(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        scores = X[i] @ W
        scores -= jnp.max(scores)
        total = jnp.sum(jnp.exp(scores))

        def one_class(j: Array, dW: Array) -> Array:
            p = jnp.exp(scores[j]) / total
            return dW.at[:, j].add((p - (j == y[i])) * X[i])

        data_loss, dW = carry
        return data_loss + jnp.log(total) - scores[y[i]], jax.lax.fori_loop(0, num_classes, one_class, dW)

    start = jnp.zeros((), W.dtype), jnp.zeros_like(W)
    data_loss, dW = jax.lax.fori_loop(0, n, one_example, start)
    return data_loss / n + reg * sum_of_squares(W), dW / n + 2 * reg * W


@full_precision
def input_grad(
    W: Float[ArrayLike, "D C"], X: Float[ArrayLike, "N D"], y: Integer[ArrayLike, "N"]
) -> Float[Array, "N D"]:
    """Gradient of the loss with respect to the inputs, ``dL/dX``, ``[N, D]``.

    Example:
      >>> import jax.numpy as jnp
      >>> print(input_grad(jnp.eye(2), jnp.array([[0.0, 0.0]]), jnp.array([1])))
      [[ 0.5 -0.5]]
    """
    W, X, _ = _check(W, X)
    dlogits = cross_entropy_and_grad(X @ W, y)[1]
    return dlogits @ W.T


@hand_derived(loss_and_grad, input_grad, sum_of_squares)
def _loss(W: Array, X: Array, y: Array, reg: Array) -> Array:
    return cross_entropy(logits(W, X), y) + reg * sum_of_squares(W)


def _check(W: ArrayLike, X: ArrayLike, reg: ArrayLike = 0.0) -> tuple[Array, Array, Array]:
    W, reg = checks.array(W, "W"), checks.real(reg, "reg")
    if W.ndim != 2 + reg.ndim or W.shape[2:] != reg.shape:
        expected = ", ".join(["D", "C", *map(str, reg.shape)])
        raise ValueError(f"W must have shape [{expected}], got {list(W.shape)}")
    return W, checks.features(X, W.shape[0], W.dtype), reg.astype(W.dtype)
