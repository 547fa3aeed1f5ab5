"""Newton's method for the linear softmax classifier: from near the optimum to a proof of how near, in float64.

    L    = Σ_i w_i CE_i + reg Σ W²          example weights w that sum to 1; W: [D, C], the bias its last row
    dL   = Xᵀ dS + 2 reg W                  dS = q - w onehot(y), q = w p, from `jaxcls.losses`
    H V  = Xᵀ δq(X V) + 2 reg V             δq(U) = q∘(U - Σ_c p∘U): the Hessian times a direction V

A step solves ``H d = -dL`` by conjugate gradients, then backtracks along d.

The duality gap bounds L − min L. Any probabilities p' give a lower bound of the minimum,

    min L >= Σ_i w_i entropy(p'_i) - |Xᵀ (q' - w onehot(y))|² / (4 reg)         q' = w p'

provided that, for an unpenalised bias, q' has the same sum per class as the labels. The solver uses
``q' = q + δq(X d)``, shortened where it would be negative, and mixed with the smallest share of a constant distribution
that corrects the sums. L minus this bound, the duality gap, is close to the Newton decrement ``-dL·d / 2``. Unlike the
decrement, it is not an estimate: the bound holds for every d.

All values share X, so each product above is one product for a stack of values. They also share the eigenvectors of
XᵀX, and are solved in that basis. If every example had the same p, H would be nearly diagonal there, so its diagonal
is the preconditioner. With fewer examples than features, the basis spans the examples only: the optimum has no
component outside their span.

Precision: the eigenvectors, L, dL and the gap are float64 for every feature dtype. The conjugate gradients, which take
most of the time, run in the features' dtype. As in iterative refinement, each step corrects the error of the last
float32 direction, so float32 features converge to the precision of float32 weights, and the gap verifies it.

References:
  S. Boyd and L. Vandenberghe, *Convex Optimization*, 2004, section 5.5.1: the duality gap as a stopping criterion.

  J. Nocedal and S. Wright, *Numerical Optimization*, 2006, algorithm 7.1.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer
from numpy.typing import NDArray

from jaxcls.losses import cross_entropy_and_grad
from jaxcls.memory import Memory
from jaxcls.numerics import einsum, full_precision

COLUMNS = 128  # regularisation values × classes solved together: wide enough for fast products on a CPU
MAX_STEPS = 50
MAX_PRODUCTS = 250  # Hessian-vector products per Newton step
MAX_HALVINGS = 30  # of the step size, per line search


class Proof(NamedTuple):
    """Weights, L and its largest gradient magnitude there, and a proven bound of L − min L, for K values of reg."""

    W: Float[NDArray, "D C K"]
    loss: Float[NDArray, "K"]
    gap: Float[NDArray, "K"]
    gradient: Float[NDArray, "K"]
    steps: Int[NDArray, "K"]


class Problem(NamedTuple):
    """Examples in the eigenvector basis of XᵀX, centred unless the bias is penalised, and constants of the dual."""

    Z: Float[Array, "N R"]  # float64; for an unpenalised bias, the last column is ones
    Z_fast: Float[Array, "N R"]  # in the features' dtype
    ZT_fast: Float[Array, "R N"]  # stored: a product that transposes Z takes twice as long
    y: Integer[Array, "N"]
    weights: Float[Array, "N"]
    penalised: Float[Array, "R"]  # 0 for an unpenalised bias, else 1
    targets: Float[Array, "R C"]  # Zᵀ w onehot(y)


class Basis(NamedTuple):
    """Linear maps between coefficients and weights. The bias is that of centred features."""

    weights: Float[Array, "D R"]
    coefficients: Float[Array, "R D"]
    mean: Float[Array, "D"]
    size: Float[Array, ""]  # divisor of the features


class Expansion(NamedTuple):
    """L around given coefficients: value, gradient without and with the penalty, terms of the Hessian."""

    S: Float[Array, "N C K"]
    loss: Float[Array, "K"]
    data_gradient: Float[Array, "R C K"]
    gradient: Float[Array, "R C K"]
    is_label: Bool[Array, "N C 1"]
    p: Float[Array, "N C K"]
    q: Float[Array, "N C K"]
    q_others: Float[Array, "N C K"]  # q (1 - p) without cancellation


class _Descent(NamedTuple):
    """The loop of `_solve`: coefficients, scores, gap, steps of all values and of each, and which are unfinished."""

    A: Float[Array, "R C K"]
    S: Float[Array, "N C K"]
    gap: Float[Array, "K"]
    step: int | Int[Array, ""]
    steps: Int[Array, "K"]
    active: Bool[Array, "K"]


class _Solution(NamedTuple):
    """The loop of `_conjugate_gradients`: solution, residual, direction, their products, which are unfinished."""

    d: Float[Array, "R C K"]
    r: Float[Array, "R C K"]
    v: Float[Array, "R C K"]
    rz: Float[Array, "K"]
    products: int | Int[Array, ""]
    active: Bool[Array, "K"]


class _Search(NamedTuple):
    """The loop of `_step_size`: step sizes, halvings, and which are unfinished."""

    size: Float[Array, "K"]
    halvings: int | Int[Array, ""]
    active: Bool[Array, "K"]


def prove(
    X: Float[Array, "N d"],
    y: Integer[NDArray, "N"],
    weights: Float[NDArray, "N"],
    reg: Float[NDArray, "K"],
    start: Float[NDArray, "D C K"],
    *,
    penalise_bias: bool,
    tol: float,
    budget: int,
) -> Proof:
    """Continue from ``start``, in blocks of adjacent values, until the gap is at most ``tol * L`` or stops falling.

    Args:
      X, y, weights: the examples, with an example of every class.
      reg: regularisation values.
      start: weights near the optima, the bias in the last row.
      penalise_bias: whether the bias is penalised with the rest.
      tol: tolerance of the gap, relative to L.
      budget: memory in bytes, which bounds how many values are solved together.
    """
    num_classes = start.shape[1]
    fitting = estimate(len(X), X.shape[1], num_classes, X.dtype).fits(budget)
    block = min(len(reg), fitting, max(1, COLUMNS // num_classes))
    found = Proof(start.copy(), *(np.zeros(len(reg), kind) for kind in (X.dtype, X.dtype, X.dtype, int)))
    with jax.enable_x64(True):
        problem, basis = _rotate(X, y, weights, num_classes=num_classes, penalise_bias=penalise_bias)
        for first in range(0, len(reg), block):
            some = np.minimum(np.arange(first, first + block), len(reg) - 1)  # one shape for all blocks
            penalty = reg[some] / float(basis.size) ** 2
            A, *ended = _solve(problem, _coefficients(basis, start[..., some]), penalty, tol=tol)
            optima = _weights(problem, basis, A, penalty)
            (gap, steps), (W, loss, added, gradient) = jax.device_get((ended, optima))
            for whole, part in zip(found, (W, loss, gap + added, gradient, steps), strict=True):
                whole[..., some] = part
    return found


def estimate(num_examples: int, num_features: int, num_classes: int, dtype: jnp.dtype) -> Memory:
    """Memory of `prove` in bytes: for the examples, and for each regularisation value.

    Example:
      >>> estimate(1000, 20, 10, jnp.dtype("float32"))
      Memory(data=771876, cell=775960)
    """
    double, single = 8, dtype.itemsize  # factors fitted to peak memory measured on a CPU
    data = (3 * double + 3 * single) * (num_examples + num_features + 1) * (num_features + 1)
    cell = (7 * double + 5 * single) * (num_examples + num_features + 1) * num_classes
    return Memory(data, cell)


@functools.partial(jax.jit, static_argnames=("num_classes", "penalise_bias"))
@full_precision
def _rotate(X: Array, y: Array, w: Array, *, num_classes: int, penalise_bias: bool) -> tuple[Problem, Basis]:
    """Rotate the examples into the eigenvector basis of XᵀX, in float64."""
    dtype, X = X.dtype, X.astype(float)
    ones, one = jnp.ones((len(X), 1)), jnp.ones((1, 1))
    mean = jnp.append(jnp.zeros(X.shape[1]) if penalise_bias else w @ X, 0)
    X = jnp.append(X, ones, 1) if penalise_bias else X - mean[None, :-1]
    largest = jnp.max(jnp.abs(X))
    size = jnp.where(largest > 0, largest, 1)  # squares must not over- or underflow
    X = X / size
    if X.shape[0] < X.shape[1]:  # restricted to the span of the examples
        span, R = jnp.linalg.qr(X.T)
        _, vectors = jnp.linalg.eigh(R @ (w[:, None] * R.T))
        vectors = span @ vectors
    else:
        _, vectors = jnp.linalg.eigh(X.T @ (w[:, None] * X))
    Z, penalised = X @ vectors, jnp.ones(vectors.shape[1])
    basis = Basis(vectors / size, vectors.T * size, mean, size)
    if not penalise_bias:
        Z, penalised = jnp.append(Z, ones, 1), jnp.append(penalised, 0)
        block_diag = jax.scipy.linalg.block_diag
        basis = Basis(block_diag(basis.weights, one), block_diag(basis.coefficients, one), mean, size)
    targets = Z.T @ (w[:, None] * (y[:, None] == jnp.arange(num_classes)[None]))
    return Problem(Z, Z.astype(dtype), Z.T.astype(dtype), y, w, penalised, targets), basis


@functools.partial(jax.jit, static_argnames="tol")
@full_precision
def _solve(problem: Problem, A: Array, reg: Array, *, tol: float) -> tuple[Array, Array, Array]:
    """Newton's method for a stack of regularisation values, started at ``A``: coefficients, gap, steps."""

    def condition(state: _Descent) -> Array:
        return (state.step < MAX_STEPS) & jnp.any(state.active)

    def step(state: _Descent) -> _Descent:
        A, S, before, count, steps, active = state
        at = _expand(problem, A, S, reg)
        d = _direction(problem, at, reg, active, tol=tol)
        dS, slope = einsum("nr,rc->nc", problem.Z, d), _dot(at.gradient, d)
        gap = jnp.where(active, _gap(problem, A, at, dS, reg), before)

        def moved(size: Array) -> tuple[Array, Array]:
            return A + size[None, None] * d, S + size[None, None] * dS

        size = _step_size(lambda size: _loss(problem, *moved(size), reg), at.loss, slope, active)
        # Stop where the predicted decrease is below rounding and the last step did not halve the gap.
        unfinished = (gap > tol * at.loss) & (size > 0) & ((-slope > 1e-15 * at.loss) | (gap < before / 2))
        return _Descent(*moved(size), gap, count + 1, steps + active, active & unfinished)

    zeros = jnp.zeros(reg.shape, int)
    S, gap = einsum("nr,rc->nc", problem.Z, A), jnp.full(reg.shape, jnp.inf)
    found = jax.lax.while_loop(condition, step, _Descent(A, S, gap, 0, zeros, zeros == 0))
    return found.A, found.gap, found.steps


@jax.jit
@full_precision
def _coefficients(basis: Basis, W: Array) -> Float[Array, "R C K"]:
    W = W.astype(float)
    return einsum("rd,dc->rc", basis.coefficients, W.at[-1].add(_along(basis.mean, W)))


@jax.jit
@full_precision
def _weights(problem: Problem, basis: Basis, A: Array, reg: Array) -> tuple[Array, Array, Array, Array]:
    """W in the features' dtype, its loss, the loss that rounding W added, and the largest gradient magnitude."""
    dtype = problem.Z_fast.dtype
    exact = einsum("dr,rc->dc", basis.weights, A)
    W = exact.astype(dtype).astype(float)
    W = W.at[-1].set((exact[-1] - _along(basis.mean, W)).astype(dtype))
    A_rounded = einsum("rd,dc->rc", basis.coefficients, W.at[-1].add(_along(basis.mean, W)))
    S = einsum("nr,rc->nc", problem.Z, A_rounded)
    at = _expand(problem, A_rounded, S, reg)
    added = jnp.maximum(at.loss - _loss(problem, A, einsum("nr,rc->nc", problem.Z, A), reg), 0)
    gradient = einsum("dr,rc->dc", basis.coefficients.T, at.gradient)
    gradient += basis.mean[:, None, None] * gradient[-1:]
    return W.astype(dtype), at.loss, added, jnp.max(jnp.abs(gradient), (0, 1))


def _loss(problem: Problem, A: Array, S: Array, reg: Array) -> Float[Array, "K"]:
    data_loss, _ = cross_entropy_and_grad(S, problem.y, problem.weights)
    return data_loss + _dot(_curvature(problem, reg) / 2 * A, A)


def _curvature(problem: Problem, reg: Array) -> Float[Array, "R 1 K"]:
    """Second derivative of the penalty."""
    return 2 * reg[None, None] * problem.penalised[:, None, None]


def _expand(problem: Problem, A: Array, S: Array, reg: Array) -> Expansion:
    """Expand L around coefficients ``A`` with logits ``S``."""
    w, curvature = problem.weights[:, None, None], _curvature(problem, reg)
    data_loss, dS = cross_entropy_and_grad(S, problem.y, problem.weights)
    G = einsum("nr,nc->rc", problem.Z, dS)
    G -= jnp.mean(G, 1, keepdims=True)  # 0 up to rounding
    is_label = (problem.y[:, None] == jnp.arange(S.shape[1])[None])[..., None]
    q = dS + w * is_label
    p = q / jnp.maximum(w, jnp.finfo(w.dtype).tiny)
    q_others = jnp.where(is_label, -p * dS, q * (1 - p))
    loss = data_loss + _dot(curvature / 2 * A, A)
    return Expansion(S, loss, G, G + curvature * A, is_label, p, q, q_others)


def _first_order(U: Array, is_label: Array, p: Array, q: Array) -> Array:
    """First-order change of q when the logits change by U, to full relative precision even for p near 1."""
    T = jnp.where(is_label, 0, q * (U - jnp.sum(p * U, 1, keepdims=True)))
    return jnp.where(is_label, -jnp.sum(T, 1, keepdims=True), T)


def _gap(problem: Problem, A: Array, at: Expansion, U: Array, reg: Array) -> Float[Array, "K"]:
    """Duality gap at q', the first-order update of q when the logits change by U."""
    penalised, tiny = problem.penalised[:, None, None], jnp.finfo(U.dtype).tiny
    T = _first_order(U, at.is_label, at.p, at.q)
    T *= jnp.minimum(1, 1 / jnp.max(-T / jnp.maximum(at.q, tiny), (0, 1)))[None, None]  # q' must not be negative
    divergence = jnp.sum(T * T / jnp.maximum(at.q, tiny), (0, 1))  # at least KL(q', q)
    dG = einsum("nr,nc->rc", problem.Z, T)
    dG -= jnp.mean(dG, 1, keepdims=True)
    # For an unpenalised bias (the last row): the share of a constant distribution that satisfies the equality.
    G, Zq = at.data_gradient + dG, at.data_gradient + dG + problem.targets[..., None]
    share = jnp.where(penalised[-1, 0] == 0, jnp.max(G[-1] / Zq[-1], 0), 0)
    rest = jnp.where(penalised > 0, at.gradient + dG - share[None, None] * Zq, 0)
    of_bias = share * np.log(U.shape[1]) + _dot(jnp.where(penalised > 0, share[None, None] * Zq, G), A)
    return jnp.maximum(divergence + of_bias + jnp.sum(rest * rest, (0, 1)) / (4 * reg), 0)


def _direction(problem: Problem, at: Expansion, reg: Array, active: Array, *, tol: float) -> Array:
    """Newton direction of the active cells, ``hessian(d) = -gradient``, solved more accurately near the minimum."""
    fast, curvature, tiny = problem.Z_fast.dtype, _curvature(problem, reg), jnp.finfo(reg.dtype).tiny
    diagonal = einsum("rn,nc->rc", problem.ZT_fast**2, at.q_others.astype(fast)) + curvature
    above = _dot(at.gradient / diagonal, at.gradient) / 2  # estimates L - min L
    # Rows and cells are scaled to magnitudes near 1, since nothing may over- or underflow in float32.
    unit = jnp.maximum(jnp.max(jnp.sum(at.q_others, 0), 0), tiny)[None, None]
    typical = jnp.mean(diagonal, 1, keepdims=True)
    row = jnp.sqrt(unit / jnp.maximum(typical, tiny))
    height = jnp.maximum(jnp.max(jnp.abs(row * at.gradient), (0, 1), keepdims=True), tiny)
    numbers = (
        -row * at.gradient / height,
        at.p,
        at.q / unit,
        curvature / typical,
        typical / diagonal,
        row,
        height / row / _residual_allowed(problem, at, reg, tol * at.loss),
    )
    b, p, q, curvature, inverse, row, residual = (array.astype(fast) for array in numbers)

    def hessian(V: Array) -> Array:
        U = einsum("nr,rc->nc", problem.Z_fast, row * V)
        return row * einsum("rn,nc->rc", problem.ZT_fast, _first_order(U, at.is_label, p, q)) + curvature * V

    def precondition(R: Array) -> Array:
        V = R * inverse
        return V - jnp.mean(V, 1, keepdims=True)  # a constant over the classes does not change p

    # Once L appears converged, a last step has to prove it: its residual must be small enough for the gap.
    forcing = jnp.clip(2 * above / at.loss, 1e-6, 0.1).astype(fast)

    def enough(r: Array, reduction: Array) -> Array:
        return jnp.where(above <= tol * at.loss, _dot(residual * r, residual * r) <= 1, reduction <= forcing)

    d = row * _conjugate_gradients(hessian, precondition, b, enough, active)
    d -= jnp.mean(d, 1, keepdims=True)  # what rounding has put there, over a tiny penalty
    return d.astype(unit.dtype) * (height / unit)


def _residual_allowed(problem: Problem, at: Expansion, reg: Array, gap: Array) -> Float[Array, "R 1 K"]:
    """Largest residual of a step, per row of A, at which `_gap` returns about ``gap``."""
    penalised = jnp.sqrt(reg * gap)
    share = gap / (4 * (np.log(at.S.shape[1]) + 2 * jnp.max(jnp.abs(at.S), (0, 1))))
    share = jnp.minimum(share, penalised / jnp.sqrt(_dot(problem.targets[..., None], problem.targets[..., None])))
    bias = share * jnp.min(problem.targets[-1])
    return jnp.where(problem.penalised[:, None, None] > 0, penalised[None, None], bias[None, None])


def _conjugate_gradients(
    hessian: Callable[[Array], Array],
    precondition: Callable[[Array], Array],
    b: Array,
    enough: Callable[[Array, Array], Array],
    active: Array,
) -> Array:
    """Solve ``hessian(d) = b`` for the active cells, until ``enough(residual, reduction of its squared norm)``."""
    z = precondition(b)
    bz = _dot(b, z)

    def condition(state: _Solution) -> Array:
        return (state.products < MAX_PRODUCTS) & jnp.any(state.active)

    def product(state: _Solution) -> _Solution:
        d, r, v, rz, count, active = state
        Hv = hessian(v)
        size = jnp.where(active, rz / _dot(v, Hv), 0)
        d, r = d + size[None, None] * v, r - size[None, None] * Hv
        z = precondition(r)
        rz, before = _dot(r, z), rz
        active &= ~enough(r, rz / bz)
        v = z + jnp.where(active, rz / before, 0)[None, None] * v
        return _Solution(d, r, v, rz, count + 1, active)

    # Where b is 0, so is d, and the divisor bz.
    active &= (bz > 0) & ~enough(b, jnp.ones_like(bz))
    return jax.lax.while_loop(condition, product, _Solution(jnp.zeros_like(b), b, z, bz, 0, active)).d


def _step_size(loss_at: Callable[[Array], Array], loss: Array, slope: Array, active: Array) -> Float[Array, "K"]:
    """Backtracking line search (Armijo): the first of 1, 1/2, 1/4, ... accepted; 0 if inactive or if none is."""
    rounding = 8 * jnp.finfo(loss.dtype).eps * jnp.abs(loss)

    def condition(state: _Search) -> Array:
        return (state.halvings < MAX_HALVINGS) & jnp.any(state.active)

    def halve(state: _Search) -> _Search:
        size, count, active = state
        active &= ~(loss_at(size) <= loss + 1e-4 * size * slope + rounding)
        return _Search(jnp.where(active, size / 2, size), count + 1, active)

    found = jax.lax.while_loop(condition, halve, _Search(jnp.ones_like(loss), 0, active))
    return jnp.where(active & ~found.active, found.size, 0)


def _along(mean: Array, W: Array) -> Array:
    return jnp.einsum("d,dck->ck", mean, W)


def _dot(a: Array, b: Array) -> Float[Array, "K"]:
    return jnp.sum(a * b, (0, 1))
