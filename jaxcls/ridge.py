"""Ridge regression to one-hot targets in {-1, +1}, in closed form for a whole path of regularisation values.

    s     = X W + b                                  W: [D, C], the bias b its last row
    t_ic  = 1 if c = y_i, else -1
    L     = Σ_i w_i Σ_c (s_ic - t_ic)² + reg Σ W²    example weights w that sum to 1; 1/N by default
    dL/ds = 2 w (s - t)
    dL/dW = Xᵀ dL/ds + 2 reg W

The bias is not penalised, as in scikit-learn. With weighted means, Z = √w (X - mean X) and T = √w (t - mean t), the
gradient is 0 at

    (ZᵀZ + reg I) W = ZᵀT                            b = mean t - mean X · W

One eigendecomposition of the smaller Gram matrix gives W for every value of reg:

    ZᵀZ = V diag(λ) Vᵀ      W = V   diag(1 / (λ + reg)) VᵀZᵀT      where N ≥ d
    ZZᵀ = U diag(λ) Uᵀ      W = ZᵀU diag(1 / (λ + reg)) UᵀT        where N < d

With ``penalise_bias=True`` the means are 0, X has a last column of ones, and W is the optimum of `loss_and_grad`.

Reference:
  T. Hastie, R. Tibshirani and J. Friedman, *The Elements of Statistical Learning*, 2nd edition, section 3.4.1.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer, Real
from numpy.typing import NDArray

from jaxcls.data import Prepared, Split, check_finite
from jaxcls.losses import sum_of_squares
from jaxcls.numerics import checks, full_precision
from jaxcls.solver import ARRAYS, Moments, arguments

BLOCK = 2**12  # examples in float64 at a time
NULL = 1e-12  # of the largest component: where X has no variance, rounding leaves up to 4e-13


class _Examples(NamedTuple):
    """The examples as they came; each pass over them converts a block at a time."""

    X: NDArray | Split | Prepared
    y: NDArray[np.integer]
    weights: Float[NDArray, "N"]
    num_classes: int
    moments: Moments | None
    penalise_bias: bool

    @property
    def shape(self) -> tuple[int, int]:
        """N and the number of weights per class that are penalised."""
        return len(self.y), self.X.shape[1] + self.penalise_bias


def path(
    X: Real[ArrayLike, "N d"] | Split | Prepared,
    y: Integer[ArrayLike, "N"],
    reg: Real[ArrayLike, "K"] | Sequence[float],
    *,
    num_classes: int | None = None,
    moments: Moments | None = None,
    weights: Real[ArrayLike, "N"] | None = None,
    penalise_bias: bool = False,
) -> Float[NDArray, "_ C K"]:
    """Minimise L for every regularisation value, from one eigendecomposition in float64 on the host.

    Args:
      X: features, without a column of ones, of any real dtype. A `jaxcls.data.Split` is read block by block, its raw
        features, twice; `Prepared` of it its prepared ones.
      y: labels in ``[0, C)``. A class without examples gets zero weights and a bias of -1.
      reg: regularisation values, not below 0; scikit-learn's ``Ridge(alpha)`` is ``reg = alpha / N``, or ``alpha`` over
        the sum of its sample weights. At 0, the least-squares solution of minimum norm. A direction of the features
        along which λ + reg is below the rounding of the largest λ, about ``1e-16 min(N, d)`` of it, gets weight 0.
      num_classes: C. Default: the largest label plus 1.
      moments: mean and scale, ``[d]``, that standardise X; the weights are then those of standardised features.
      weights: example weights, ``[N]``, of which only the proportions matter. Default: equal weights.
      penalise_bias: whether the bias is penalised with the rest, as `loss_and_grad` does.

    Returns:
      The weights, ``[d + 1, C, K]``, the bias in the last row, in JAX's default float. Their relative error in float64
      is about ``1e-16 max(λ) / (min(λ) + reg)``, as of any solution of (ZᵀZ + reg I) W = ZᵀT.

    Raises:
      ValueError: a shape does not match, a label or a value is out of range, a weight is negative or not finite, or a
        feature is not finite.
      TypeError: an argument is not an array of numbers.

    Example:
      >>> import numpy as np
      >>> from jaxcls import data, softmax
      >>> digits = data.standard(data.load_digits())
      >>> W = path(digits.train.X, digits.train.y, np.logspace(-1, -4, 7))
      >>> W.shape
      (65, 10, 7)
      >>> predicted = softmax.predict(W[..., 0], softmax.append_ones(digits.val.X))
      >>> bool(np.mean(predicted == digits.val.y) > 0.9)
      True
    """
    checks.outside_of_jit("ridge.path")
    values = arguments.regularisation(reg, zero=True)
    features, labels, num_classes = arguments.examples(X, y, num_classes)
    shares = arguments.shares(weights, len(labels))
    if shares.ndim != 1:
        raise ValueError(f"weights must have shape [{len(labels)}], got {list(shares.shape)}")
    arguments.check_moments(moments, features.shape[1])
    host = np.asarray(features) if isinstance(features, ARRAYS) else features
    given = _Examples(host, labels, shares, num_classes, moments, penalise_bias)

    mean_X, mean_t = _means(given)
    eigenvalues, left, right = _eigen(given, mean_X, mean_t)
    scaled = right[:, :, None] * _inverse(eigenvalues, values)[:, None, :]
    exact = np.tensordot(left, scaled, 1)
    W = np.empty((features.shape[1] + 1, num_classes, len(values)), jnp.result_type(float))
    W[: len(exact)] = exact
    if not penalise_bias:
        W[-1] = mean_t[:, None] - np.tensordot(mean_X, exact, 1)
    return W


@full_precision
def loss_and_grad(
    W: Float[ArrayLike, "D C"], X: Float[ArrayLike, "N D"], y: Integer[ArrayLike, "N"], reg: Real[ArrayLike, ""]
) -> tuple[Float[Array, ""], Float[Array, "D C"]]:
    """Squared error to targets in {-1, +1} and its gradient for a linear classifier, all of W penalised.

    ``L = (1/N) Σ (X W - t)² + reg Σ W²`` and ``dL/dW = 2 Xᵀ (X W - t) / N + 2 reg W``.

    Args:
      W: weights, ``[D, C]``.
      X: examples, ``[N, D]``, in the dtype of ``W``, the column of ones last.
      y: integer labels in ``[0, C)``, ``[N]``. A label out of range makes loss and gradient NaN.
      reg: regularisation strength, a scalar.

    Returns:
      The loss, a scalar, and ``dL/dW``, like `jax.value_and_grad` of the loss.

    Raises:
      ValueError: a rank or size does not match, or there are no examples.
      TypeError: ``X`` and ``W`` do not share one float dtype, or the labels not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> X, y = jnp.array([[1.0, 2.0, 1.0], [3.0, -1.0, 1.0]]), jnp.array([0, 1])
      >>> loss, dW = loss_and_grad(jnp.zeros((3, 2)), X, y, 0.1)
      >>> print(loss)  # a squared error of 1 for each class
      2.0
      >>> print(dW)
      [[ 2. -2.]
       [-3.  3.]
       [ 0.  0.]]
    """
    W, X, y, reg = _check(W, X, y, reg)
    n, num_classes = X.shape[0], W.shape[1]
    error = X @ W - _targets(y, num_classes).astype(W.dtype)
    dlogits = 2 * error / n
    return jnp.sum(error * error) / n + reg * sum_of_squares(W), X.T @ dlogits + 2 * reg * W


def _targets(y: Integer[Array, "N"], num_classes: int) -> Float[Array, "N C"]:
    """1 at the label and -1 elsewhere; NaN for a label out of range."""
    t = jnp.where(y[:, None] == jnp.arange(num_classes)[None], 1.0, -1.0)
    return jnp.where(((y >= 0) & (y < num_classes))[:, None], t, jnp.nan)


def _blocks(examples: _Examples) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    """Blocks of w, X and t, in float64."""
    for first in range(0, len(examples.y), BLOCK):
        yield _block(examples, first, first + BLOCK)


def _block(examples: _Examples, first: int, end: int) -> tuple[NDArray, NDArray, NDArray]:
    rows = slice(first, end)
    X = np.asarray(examples.X[rows], np.float64)
    check_finite(X, first=first)
    if examples.moments is not None:
        X = (X - examples.moments[0]) / examples.moments[1]
    if examples.penalise_bias:
        X = np.append(X, np.ones((len(X), 1)), axis=1)
    t = np.where(examples.y[rows, None] == np.arange(examples.num_classes), 1.0, -1.0)
    return examples.weights[rows], X, t


def _means(examples: _Examples) -> tuple[Float[NDArray, "D"], Float[NDArray, "C"]]:
    """Weighted means of X and t; 0 where the bias is penalised.

    They are summed as differences from one example, so that a constant feature is exactly 0 once centred.
    """
    heaviest = int(np.argmax(examples.weights))
    _, X_0, t_0 = _block(examples, heaviest, heaviest + 1)
    if examples.penalise_bias:
        return np.zeros_like(X_0[0]), np.zeros_like(t_0[0])
    mean_X, mean_t = X_0[0], t_0[0]
    for w, X, t in _blocks(examples):
        mean_X = mean_X + w @ (X - X_0)
        mean_t = mean_t + w @ (t - t_0)
    return mean_X, mean_t


def _eigen(
    examples: _Examples, mean_X: Float[NDArray, "D"], mean_t: Float[NDArray, "C"]
) -> tuple[Float[NDArray, "R"], Float[NDArray, "D R"], Float[NDArray, "R C"]]:
    """Eigenvalues λ of the smaller Gram matrix, and the factors of ``W = left diag(1 / (λ + reg)) right``."""
    num_examples, num_features = examples.shape
    centred = (
        (np.sqrt(w)[:, None] * (X - mean_X), np.sqrt(w)[:, None] * (t - mean_t)) for w, X, t in _blocks(examples)
    )
    if num_examples < num_features:
        Z, T = (np.concatenate(blocks) for blocks in zip(*centred, strict=True))
        eigenvalues, U = np.linalg.eigh(Z @ Z.T)
        return eigenvalues, _without_rounding(Z.T @ U, axis=0), U.T @ T
    ZtZ, ZtT = np.zeros((num_features, num_features)), np.zeros((num_features, examples.num_classes))
    for Z, T in centred:
        ZtZ += Z.T @ Z
        ZtT += Z.T @ T
    eigenvalues, V = np.linalg.eigh(ZtZ)
    return eigenvalues, V, _without_rounding(V.T @ ZtT, axis=1)


def _without_rounding(components: Float[NDArray, "A B"], axis: int) -> Float[NDArray, "A B"]:
    """Components along each eigenvector, 0 where they are rounding, which 1 / (λ + reg) would magnify."""
    size = np.linalg.norm(components, axis=axis, keepdims=True)
    return np.where(size > NULL * size.max(), components, 0)


def _inverse(eigenvalues: Float[NDArray, "R"], reg: Float[NDArray, "K"]) -> Float[NDArray, "R K"]:
    """``1 / (λ + reg)``; 0 where the sum is within the rounding of λ, up to 11 epsilons of the largest as measured."""
    total = eigenvalues[:, None] + reg
    limits = np.finfo(float)
    rounding = max(max(len(eigenvalues), 16) * limits.eps * float(eigenvalues.max()), limits.tiny)
    return np.divide(1, total, out=np.zeros_like(total), where=total > rounding)


def _check(W: ArrayLike, X: ArrayLike, y: ArrayLike, reg: ArrayLike) -> tuple[Array, Array, Array, Array]:
    W, reg = checks.array(W, "W"), checks.real(reg, "reg")
    if W.ndim != 2:
        raise ValueError(f"W must have shape [D, C], got {list(W.shape)}")
    if reg.ndim:
        raise ValueError(f"reg must be a scalar, got shape {list(reg.shape)}")
    X = checks.features(X, W.shape[0], W.dtype)
    return W, X, checks.labels(y, X.shape[0]), reg.astype(W.dtype)
