"""The linear softmax classifier at its optimum, for a whole path of regularisation strengths.

    L    = Σ_i w_i CE_i + reg Σ W²                  example weights w with a sum of 1; W: [D, C], the bias its last row
    dL   = Xᵀ dS + 2 reg W                          dS = w (p - onehot(y)), as `jaxcls.losses` has it
    H V  = Xᵀ (q∘U - q Σ_c p∘U) + 2 reg V           U = X V, q = w p: the Hessian times a direction V

L is convex. A step of Newton's method solves ``H d = -dL`` by conjugate gradients and goes as far along d as L falls.
Its decrement, ``-dL·d / 2``, says beforehand how far above its minimum L lies, and so when to stop.

Strengths share X, so each product above is one product for a stack of them, as `jaxcls.stack` has it. They share an
eigendecomposition too: were all examples as undecided as they are on average, H would be ``s_c XᵀX + 2 reg`` for class
c, with ``s_c = Σ_i w_i p_ic (1 - p_ic)``. (Böhning's bound has 1/2 for ``s_c``.) The inverse of that is at hand for
every strength, and with it the conjugate gradients converge in a few dozen products.

The bias is not penalised, as in scikit-learn, unless asked for: then this is the optimum of `jaxcls.softmax.loss`.

References:
  D. Böhning, `Multinomial logistic regression algorithm <https://doi.org/10.1007/BF00048682>`_, 1992.

  J. Nocedal and S. Wright, *Numerical Optimization*, 2006, algorithm 7.1.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Integer, Real
from numpy.typing import NDArray

from jaxcls import checks, softmax
from jaxcls.losses import cross_entropy_and_grad
from jaxcls.memory import Memory, available
from jaxcls.precision import full_precision
from jaxcls.stack import einsum

COLUMNS = 128  # strengths times classes at once: as wide as a CPU's products have to be to be fast
MOST_PRODUCTS = 250  # of the Hessian, in a step
MOST_HALVINGS = 30  # of a step


class Optimum(NamedTuple):
    """Where Newton's method ended, for each of K strengths.

    Attributes:
      W: the weights, the bias in the last row.
      loss: L there.
      gradient: the largest magnitude in dL/dW there.
      iterations: Newton steps taken.
      converged: whether the last of them could lower L by no more than a fraction ``tol``.
    """

    W: Float[NDArray, "D C K"]
    loss: Float[NDArray, "K"]
    gradient: Float[NDArray, "K"]
    iterations: Int[NDArray, "K"]
    converged: Bool[NDArray, "K"]


class Problem(NamedTuple):
    """What all strengths have in common: the examples, centred if the bias is free, and the eigenvectors of XᵀX."""

    X: Float[Array, "N D"]
    XT: Float[Array, "D N"]  # a product that has to turn X over takes twice as long
    y: Integer[Array, "N"]
    weights: Float[Array, "N"]
    mean: Float[Array, "D"]
    penalised: Float[Array, "D"]
    vectors: Float[Array, "D D"]
    values: Float[Array, "D"]


def path(
    X: Real[ArrayLike, "N d"],
    y: Integer[ArrayLike, "N"],
    reg: Real[ArrayLike, "K"] | Sequence[float],
    *,
    num_classes: int | None = None,
    weights: Real[ArrayLike, "N"] | None = None,
    penalise_bias: bool = False,
    start: Float[ArrayLike, "D C K"] | None = None,
    tol: float | None = None,
    max_iterations: int = 50,
    memory: int | None = None,
) -> Optimum:
    """The optimum for every strength, neighbours side by side, the strongest first: each block begins where one ended.

    Args:
      X: features, without a column of ones; in JAX's default float from here on.
      y: labels in ``[0, C)``.
      reg: strengths of the penalty ``reg Σ W²``, above 0; scikit-learn's C is ``1 / (2 N reg)``.
      num_classes: C; the largest label and one when not given.
      weights: what each example counts; all alike when not given. Only their proportions matter.
      penalise_bias: whether the bias is penalised with the rest, as `jaxcls.softmax.loss` does.
      start: weights to begin with for each strength, instead of its neighbours' optimum.
      tol: see `Optimum.converged`; the dtype's epsilon to the power 3/4 when not given, 2e-12 in float64.
      max_iterations: the most Newton steps.
      memory: bytes to stay within, with fewer strengths side by side if need be; `jaxcls.memory.available` when not
        given.

    Raises:
      ValueError: a shape does not fit, a label or a strength is out of range, a weight is negative or not finite, or
        a single strength does not fit in memory.
      TypeError: something is no array of numbers.

    Example:
      >>> import numpy as np
      >>> from jaxcls import data
      >>> train = data.standard(data.load_digits()).train
      >>> optimum = path(train.X, train.y, np.logspace(-1, -4, 7))
      >>> optimum.W.shape, optimum.converged.all()
      ((65, 10, 7), np.True_)
    """
    strengths = _strengths(reg)
    features, labels, num_classes = _examples(X, y, num_classes)
    (num_examples, num_features), dtype = features.shape, features.dtype
    shape = num_features + 1, num_classes, len(strengths)
    start = None if start is None else checks.real(start, "start").astype(dtype)
    if start is not None and start.shape != shape:
        raise ValueError(f"start must have shape {list(shape)}, got {list(start.shape)}")
    tol = float(jnp.finfo(dtype).eps) ** 0.75 if tol is None else tol
    run = functools.partial(_solve, tol=tol, max_iterations=max_iterations)
    budget = available() if memory is None else memory
    fitting = estimate(num_examples, num_features, num_classes, dtype=dtype).fits(budget)
    block = min(len(strengths), fitting, max(1, COLUMNS // num_classes))
    w = jnp.asarray(_shares(weights, num_examples), dtype)
    features, mean = _centred(features, w, penalise_bias=penalise_bias)  # the same name: the first copy can go
    eigen = _eigen(features, w, penalise_bias=penalise_bias)
    problem = Problem(features, features.T, labels, w, mean, *eigen)
    rows = np.argsort(-strengths, kind="stable")
    found: list[NDArray] = [np.zeros(shape, dtype), *(np.zeros(len(rows), kind) for kind in (dtype, dtype, int, bool))]
    W = jnp.zeros((*shape[:2], block), dtype)
    for first in range(0, len(rows), block):
        own = rows[np.minimum(np.arange(first, first + block), len(rows) - 1)]  # all blocks are of one shape
        W = jnp.broadcast_to(W[..., -1:], W.shape) if start is None else start[..., own]
        W, *_ = optima = run(problem, W, jnp.asarray(strengths[own], dtype))
        for whole, part in zip(found, jax.device_get(optima), strict=True):
            whole[..., own] = part
    return Optimum(*found)


def estimate(num_examples: int, num_features: int, num_classes: int, *, dtype: jnp.dtype) -> Memory:
    """What `path` takes: X centred, turned over, weighted; of each strength 13 times its scores and weights.

    Example:
      >>> estimate(1000, 20, 10, dtype=jnp.dtype("float32"))
      Memory(data=257292, cell=530920)
    """
    data = 3 * num_examples * (num_features + 1) + 3 * (num_features + 1) ** 2
    cell = 13 * (num_examples + num_features + 1) * num_classes  # 12 on a CPU, by what its processes held
    return Memory(data * dtype.itemsize, cell * dtype.itemsize)


@functools.partial(jax.jit, static_argnames=("tol", "max_iterations"))
@full_precision
def _solve(problem: Problem, W: Array, reg: Array, *, tol: float, max_iterations: int) -> tuple[Array, ...]:
    """The fields of `Optimum` for a stack of strengths, from ``W`` on."""
    X, mean = problem.X, problem.mean
    W = W.at[-1].add(_along(mean, W))
    W -= jnp.mean(W, 1, keepdims=True)  # the same taken from all classes leaves p as it is: this penalty is the least

    def going(state: Any) -> Array:
        *_, iteration, _, converged = state
        return (iteration < max_iterations) & ~jnp.all(converged)

    def step(state: Any) -> Any:
        W, S, iteration, iterations, converged = state
        loss, gradient, hessian, inverse = _expansion(problem, W, S, reg)
        d = _conjugate_gradients(hessian, inverse, -gradient, loss, ~converged)
        dS = einsum("nd,dc->nc", X, d)
        slope = _dot(gradient, d)

        def at(size: Array) -> tuple[Array, Array]:
            return W + size[None, None] * d, S + size[None, None] * dS

        size = _step_size(lambda size: _loss(problem, *at(size), reg), loss, slope, ~converged)
        done = converged | (-slope / 2 <= tol * loss)
        return *at(size), iteration + 1, iterations + ~converged, done

    nothing = jnp.zeros(reg.shape, int)
    state = W, einsum("nd,dc->nc", X, W), 0, nothing, nothing > 0
    W, _, _, iterations, converged = jax.lax.while_loop(going, step, state)
    loss, gradient, *_ = _expansion(problem, W, einsum("nd,dc->nc", X, W), reg)
    gradient += mean[:, None, None] * gradient[-1:]  # of the bias as it is with X not centred
    return W.at[-1].add(-_along(mean, W)), loss, jnp.max(jnp.abs(gradient), (0, 1)), iterations, converged


def _loss(problem: Problem, W: Array, S: Array, reg: Array) -> Float[Array, "K"]:
    data_loss, _ = cross_entropy_and_grad(S, problem.y, problem.weights)
    return data_loss + _penalty(W, _curvature(problem, reg))


def _penalty(W: Array, curvature: Array) -> Float[Array, "K"]:
    return jnp.sum(curvature / 2 * W * W, (0, 1))


def _curvature(problem: Problem, reg: Array) -> Float[Array, "D 1 K"]:
    """The penalty's second derivative."""
    return 2 * reg[None, None] * problem.penalised[:, None, None]


def _expansion(
    problem: Problem, W: Array, S: Array, reg: Array
) -> tuple[Array, Array, Callable[[Array], Array], Callable[[Array], Array]]:
    """L around ``W``, where the scores are ``S``: its value, its gradient, its Hessian, and roughly that's inverse."""
    X, XT, w, vectors = problem.X, problem.XT, problem.weights[:, None, None], problem.vectors
    onehot = (problem.y[:, None] == jnp.arange(S.shape[1])[None])[..., None]
    curvature = _curvature(problem, reg)
    data_loss, dS = cross_entropy_and_grad(S, problem.y, problem.weights)
    q = dS + w * onehot
    p = q / jnp.maximum(w, jnp.finfo(w.dtype).tiny)
    scale = jnp.sum(q * (1 - p), 0)[None] * problem.values[:, None, None] + curvature

    def hessian(V: Array) -> Array:
        U = einsum("nd,dc->nc", X, V)
        return einsum("dn,nc->dc", XT, q * (U - jnp.sum(p * U, 1, keepdims=True))) + curvature * V

    def inverse(R: Array) -> Array:
        V = einsum("de,ec->dc", vectors, einsum("ed,dc->ec", vectors.T, R) / scale)
        return V - jnp.mean(V, 1, keepdims=True)  # so W's mean stays 0

    return data_loss + _penalty(W, curvature), einsum("dn,nc->dc", XT, dS) + curvature * W, hessian, inverse


def _conjugate_gradients(
    hessian: Callable[[Array], Array], inverse: Callable[[Array], Array], b: Array, loss: Array, active: Array
) -> Array:
    """``d`` with ``hessian(d) = b``, of the active cells, the better the nearer L is to its minimum."""
    z = inverse(b)
    above = _dot(b, z)  # twice by how much L lies above its minimum, about
    enough = above * jnp.clip(above / jnp.abs(loss), 1e-6, 0.1)

    def going(state: Any) -> Array:
        *_, count, active = state
        return (count < MOST_PRODUCTS) & jnp.any(active)

    def product(state: Any) -> Any:
        d, r, v, rz, count, active = state
        Hv = hessian(v)
        size = jnp.where(active, rz / _dot(v, Hv), 0)
        d, r = d + size[None, None] * v, r - size[None, None] * Hv
        z = inverse(r)
        rz, before = _dot(r, z), rz
        active &= rz > enough
        v = z + jnp.where(active, rz / before, 0)[None, None] * v
        return d, r, v, rz, count + 1, active

    # Where b is 0 there is nothing to solve, and nothing to divide by.
    d, *_ = jax.lax.while_loop(going, product, (jnp.zeros_like(b), b, z, above, 0, active & (above > 0)))
    return d


def _step_size(loss_at: Callable[[Array], Array], loss: Array, slope: Array, active: Array) -> Float[Array, "K"]:
    """1, or the first of its halves at which L falls by 1/10,000 of what its slope promises; 0 where not active."""
    rounding = 8 * jnp.finfo(loss.dtype).eps * jnp.abs(loss)

    def going(state: Any) -> Array:
        _, count, active = state
        return (count < MOST_HALVINGS) & jnp.any(active)

    def halve(state: Any) -> Any:
        size, count, active = state
        active &= ~(loss_at(size) <= loss + 1e-4 * size * slope + rounding)
        return jnp.where(active, size / 2, size), count + 1, active

    size, *_ = jax.lax.while_loop(going, halve, (jnp.ones_like(loss), 0, active))
    return jnp.where(active, size, 0)


def _examples(X: ArrayLike, y: ArrayLike, num_classes: int | None) -> tuple[Array, Array, int]:
    X = checks.real(X, "X").astype(jnp.result_type(float))
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must have shape [N, d] with N, d >= 1, got {list(X.shape)}")
    labels = checks.labels(y, len(X))
    num_classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes}), got {labels.min()} to {labels.max()}")
    return X, labels, num_classes


@functools.partial(jax.jit, static_argnames="penalise_bias")
@full_precision
def _centred(X: Array, weights: Array, *, penalise_bias: bool) -> tuple[Array, Array]:
    """X with a column of ones, and the mean that was subtracted: 0 where the bias is penalised."""
    mean = jnp.zeros(X.shape[1], X.dtype) if penalise_bias else weights @ X
    return softmax.append_ones(X - mean[None]), jnp.append(mean, 0)


@functools.partial(jax.jit, static_argnames="penalise_bias")
@full_precision
def _eigen(X: Array, weights: Array, *, penalise_bias: bool) -> tuple[Array, Array, Array]:
    """Which rows of W are penalised, and the eigenvectors and eigenvalues of XᵀX, a free bias by itself."""
    penalised = jnp.ones(X.shape[1], X.dtype).at[-1].set(1 if penalise_bias else 0)
    own = X if penalise_bias else X[:, :-1]
    values, vectors = jnp.linalg.eigh(own.T @ (weights[:, None] * own))
    if not penalise_bias:  # against which X is centred
        values, vectors = jnp.append(values, 1), jax.scipy.linalg.block_diag(vectors, jnp.ones((1, 1), X.dtype))
    return penalised, vectors, jnp.maximum(values, 0)


def _strengths(reg: ArrayLike | Sequence[float]) -> Float[NDArray, "K"]:
    strengths = np.asarray(checks.real(reg, "reg"), np.float64)
    if strengths.ndim != 1 or not strengths.size:
        raise ValueError(f"reg must hold at least one strength, got shape {list(strengths.shape)}")
    if not ((strengths > 0) & np.isfinite(strengths)).all():
        wrong = strengths[~((strengths > 0) & np.isfinite(strengths))][0]
        raise ValueError(f"reg must hold finite values above 0, where there is an optimum, got {wrong:g}")
    return strengths


def _shares(weights: ArrayLike | None, num_examples: int) -> Float[NDArray, "N"]:
    if weights is None:
        return np.full(num_examples, 1 / num_examples)
    shares = np.asarray(checks.example_weights(weights, num_examples), np.float64)
    if not (np.isfinite(shares) & (shares >= 0)).all() or not shares.any():
        raise ValueError("weights must be finite, not below 0, and not all 0")
    return shares / shares.sum()


def _along(mean: Array, W: Array) -> Array:
    return jnp.einsum("d,dck->ck", mean, W)


def _dot(a: Array, b: Array) -> Float[Array, "K"]:
    return jnp.sum(a * b, (0, 1))
