"""L-BFGS for the linear softmax classifier: one value of reg or several at once, for several weightings of examples.

    L   = Σ_i w_i CE_i + reg Σ W²              one w per weighting, such as the folds of a cross-validation
    dL  = dSᵀ X + 2 reg W                      dS = w (p - onehot(y)), W: [C, D]

Each evaluation reads X once, in blocks of rows: a block's scores, its loss and its part of the gradient are computed
while the block is in cache, so no array has the size of all scores, and X may be of a narrow dtype.

If every example had the same p, the Hessian would be nearly diagonal in the basis of the eigenvectors of XᵀX,
``s_c λ_d + 2 reg`` with ``s_c = Σ_i w_i p_ic (1 - p_ic)``. L-BFGS starts from the inverse of this diagonal, which every
evaluation renews, scales it to the curvature along the last step, and corrects it by the last pairs of steps and
gradient differences.

Along a path of reg, largest first, each solution starts where the last two or three in log reg point to, and keeps the
pairs of the last: only the penalty's part of a gradient difference depends on reg, and is known. Where that start was
too far off to end below the last, it starts again from the last itself. Values that are solved side by side start from
the same solution, which takes more evaluations of each, and fewer of them all.

References:
  J. Nocedal and S. Wright, *Numerical Optimization*, 2006, algorithm 7.4.
"""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int, Integer, Real
from numpy.typing import NDArray

from jaxcls.losses import cross_entropy_terms
from jaxcls.memory import Memory
from jaxcls.numerics import full_precision
from jaxcls.solver import eigenbasis
from jaxcls.solver.eigenbasis import ARRAYS, Examples, Moments, Source
from jaxcls.solver.reading import blocks_of, read_block

PAIRS, FEW_PAIRS, MANY_PAIRS = 40, 20, 80  # many for many digits, few where more would take longer than they save
FEWEST_PAIRS = 8  # of few examples, where 20 take longer than an evaluation
CACHED, LIGHT = 2**18, 2**16  # numbers in the pairs of all weightings, and of one, that take little time
EXAMPLES = 50  # to a pair, from where on it takes little time beside an evaluation
MANY_DIGITS = 1e-8  # the tolerance from which on it pays to take more pairs, and a parabola
KNOTS = 3  # solutions that a parabola goes through
NEAR = np.log(3)  # steps in log reg up to which it lies nearer to the next than a line does
SLACK = 1e-2  # share of L that a solution may lie above the last, of a larger reg, before it counts as above
CAUTION = 4  # L − min L is rarely below -slope / 2, half of a Newton decrement: the pairs do not see all of the Hessian
SMALLEST_STEP = 1e-8  # of the line search, below which a value has stalled
ROWS = {"cpu": 2**11}  # in a block, so that its scores stay in cache
BLOCK = 2**25  # numbers in a block and its scores, at most
COLUMNS = 128  # of scores, which take about as long to compute as an example takes to be read
NARROW = 64  # times as many features as scores, from where on these are little beside X, and one block is best


class Pairs(NamedTuple):
    """Last steps and gradient differences, scaled to ``s · y = 1``; zeros where there is none yet.

    Those of each weighting are a ring: a new pair replaces the oldest where it lies, so that no other moves.
    """

    S: Float[Array, "F M Q"]
    Y: Float[Array, "F M Q"]
    SY: Float[Array, "F M M"]  # the products ``s_i · y_j``, oldest first; for i >= j not those in use
    oldest: Int[Array, "F"]  # its place


class Evaluation(NamedTuple):
    """L at given coefficients, its gradient, and ``s_c``."""

    loss: Float[Array, "F"]
    gradient: Float[Array, "F C P"]
    spread: Float[Array, "F C"]


class Descent(NamedTuple):
    """The loop of `solve`: coefficients, L there, the direction, its slope and step size, and which are unfinished."""

    A: Float[Array, "F C P"]
    at: Evaluation
    direction: Float[Array, "F C P"]
    slope: Float[Array, "F"]
    size: Float[Array, "F"]
    pairs: Pairs
    evaluations: Int[Array, "F"]
    active: Bool[Array, "F"]


class Solution(NamedTuple):
    """Coefficients, L, its gradient and ``s_c`` there, the estimate of L − min L, and the evaluations it took."""

    A: Float[Array, "F C P"]
    at: Evaluation
    above: Float[Array, "F"]
    evaluations: Int[Array, "F"]


class Solutions(NamedTuple):
    """Weights, the bias in the last row; L, an estimate of L − min L, the largest magnitude in dL/dW, evaluations."""

    W: Float[NDArray, "D C K F"]
    loss: Float[NDArray, "K F"]
    gap: Float[NDArray, "K F"]
    gradient: Float[NDArray, "K F"]
    evaluations: Int[NDArray, "K F"]


def path(
    X: Real[Array | NDArray, "N d"] | Source,
    y: Integer[NDArray, "N"],
    weights: Float[NDArray, "F N"],
    reg: Float[NDArray, "K"],
    *,
    moments: Moments | None = None,
    num_classes: int,
    penalise_bias: bool,
    tol: float,
    max_evaluations: int,
    side_by_side: int = 1,
) -> Solutions:
    """Minimise L for each value of reg, largest first, and each weighting.

    Args:
      X, y, weights: the examples, X in memory or to be read block by block; the weights of each weighting sum to 1.
      reg: regularisation values, in descending order.
      moments: mean and scale that standardise X.
      num_classes: C; each class has an example.
      penalise_bias: whether the bias is penalised with the rest.
      tol: see `solve`.
      max_evaluations: of L and its gradient, per value; as many again where it starts a second time.
      side_by_side: how many values are solved at a time.
    """
    dtype = np.dtype(jnp.result_type(float))
    examples, basis = eigenbasis.prepare(X, y, weights, moments=moments, penalise_bias=penalise_bias, dtype=dtype)
    num_weightings, num_params = len(weights), num_classes * len(examples.penalised)
    one_block = examples.X is not None and examples.centring is None and examples.X.dtype == dtype
    num_examples, width = len(examples.y), len(examples.penalised) - 1
    columns = side_by_side * num_weightings * num_classes
    rows = rows_in_a_block(num_examples, width, columns, one_block=one_block)
    start = np.zeros((num_weightings, num_classes, len(examples.penalised)), dtype)
    start[..., -1], constant = _constant(y, weights, num_classes, penalise_bias=penalise_bias, dtype=dtype)
    many_digits = max(tol, np.finfo(dtype).eps) <= MANY_DIGITS
    num_pairs = _num_pairs(num_params, num_weightings, num_examples, many_digits=many_digits)
    none, products = (np.zeros((num_weightings, num_pairs, size), dtype) for size in (num_params, num_pairs))
    pairs = no_pairs = Pairs._make([none, none, products, np.zeros(num_weightings, np.int32)])
    penalties = np.clip(reg / basis.size**2, np.finfo(dtype).tiny, np.finfo(dtype).max * np.finfo(dtype).eps)
    length = -(-len(penalties) // -(-len(penalties) // side_by_side))
    found: list[tuple[NDArray, ...]] = []
    last: list[Array | NDArray] = [start] * KNOTS
    before = np.full(num_weightings, np.inf)
    for first in range(0, len(penalties), length):
        solved, part = penalties[: first or 1][-KNOTS:], penalties[first : first + length]
        some = part[np.minimum(np.arange(length), len(part) - 1)]  # all of one length, for one program
        begun_at = functools.partial(
            _read_and_solve,
            X,
            examples,
            (*last,),
            reg=some.astype(dtype),
            last_reg=np.asarray(solved[-1], dtype),
            constant=constant.astype(dtype),
            tol=np.asarray(tol, dtype),
            max_evaluations=max_evaluations,
            rows=rows,
        )
        solution, pairs = begun_at(shares=_shares(solved, some, many_digits).astype(dtype), pairs=pairs)
        if (_losses(solution, length) > before * (1 + max(tol, SLACK))).any():  # of a smaller reg they are smaller
            spent = solution.evaluations
            solution, pairs = begun_at(shares=np.tile(np.eye(KNOTS, dtype=dtype)[-1], (length, 1)), pairs=no_pairs)
            solution = solution._replace(evaluations=solution.evaluations + spent)
        before = _losses(solution, length)[-1]
        every = jnp.split(solution.A, length) if length > 1 else [solution.A]
        last = [*last, *every[: len(part)]][-KNOTS:]
        A, at, above, evaluations = jax.tree.map(np.asarray, solution)
        for k, penalty in enumerate(part):
            own = slice(k * num_weightings, (k + 1) * num_weightings)
            W, added, largest = eigenbasis.restored(basis, A[own], at.gradient[own], at.spread[own], penalty)
            found.append((W, at.loss[own], above[own] + added, largest, evaluations[own]))
    return Solutions(*(np.stack(arrays, axis=-2) for arrays in zip(*found, strict=True)))


def _constant(
    y: Integer[NDArray, "N"], weights: Float[NDArray, "F N"], num_classes: int, *, penalise_bias: bool, dtype: np.dtype
) -> tuple[Float[NDArray, "F C"], Float[NDArray, "F"]]:
    """The bias of the best constant prediction of each weighting, 0 where it is penalised, and L there.

    Example:
      >>> weights = np.full((1, 4), 0.25)
      >>> bias, loss = _constant(np.array([0, 1, 1, 1]), weights, 2, penalise_bias=False, dtype=np.dtype(float))
      >>> print(bias.round(3), loss.round(3))
      [[-0.549  0.549]] [0.562]
    """
    if penalise_bias:
        return np.zeros((len(weights), num_classes)), np.full(len(weights), np.log(num_classes))
    frequencies = np.stack([np.bincount(y, weights=w, minlength=num_classes) for w in weights])
    logs = np.log(np.maximum(frequencies, np.finfo(dtype).eps))
    return logs - logs.mean(axis=1, keepdims=True), -np.sum(frequencies * logs, axis=1)


def _read_and_solve(
    X: Array | NDArray | Source, examples: Examples, last: tuple[Array | NDArray, ...], *, rows: int, **options: Any
) -> tuple[Solution, Pairs]:
    """`solve`, of examples on the device, or with the blocks of X that it reads."""
    with blocks_of(X, rows) if not isinstance(X, ARRAYS) and examples.X is None else nullcontext() as read:
        return jax.block_until_ready(solve(examples, last, rows=rows, read=read, **options))


def _losses(solution: Solution, length: int) -> Float[NDArray, "V F"]:
    """L of each value and weighting."""
    return np.asarray(solution.at.loss).reshape(length, -1)


def estimate(num_examples: int, num_features: int, num_classes: int, dtype: jnp.dtype) -> Memory:
    """Memory of `path` in bytes: for the examples, and for each weighting."""
    few = eigenbasis.sample_size(num_examples, num_features)
    if eigenbasis.all_eigenvectors(num_examples, num_features):
        vectors = 8 * (3 * few + 4 * min(num_examples, num_features))
    else:
        vectors = dtype.itemsize * (few + 4 * eigenbasis.LEADING)
    data = num_features * (num_examples * dtype.itemsize + vectors)
    rows = rows_in_a_block(num_examples, num_features, num_classes, one_block=True)
    num_pairs = _num_pairs(num_classes * num_features, 1, num_examples, many_digits=True)
    cell = num_classes * ((4 * num_pairs + 20) * (num_features + 1) + 6 * rows) * dtype.itemsize
    return Memory(data, cell)


def _num_pairs(num_params: int, num_weightings: int, num_examples: int, *, many_digits: bool) -> int:
    """The number of pairs that are kept.

    Example:
      >>> _num_pairs(650, 5, 1437, many_digits=False), _num_pairs(650, 5, 1437, many_digits=True)
      (40, 80)
      >>> _num_pairs(3220, 1, 160, many_digits=False), _num_pairs(4002, 1, 2000, many_digits=False)
      (8, 40)
    """
    for number in (MANY_PAIRS, PAIRS) if many_digits else (PAIRS,):
        light = number * num_params <= LIGHT or number * EXAMPLES <= num_examples
        if light and number * num_params * num_weightings <= CACHED:
            return min(num_params, number)
    few_examples = num_examples < FEW_PAIRS * EXAMPLES
    return min(num_params, FEWEST_PAIRS if few_examples and not many_digits else FEW_PAIRS)


def _shares(solved: Float[NDArray, "K"], penalties: Float[NDArray, "V"], many_digits: bool) -> Float[NDArray, "V 3"]:
    """The shares of the last solutions in the coefficients where each of these values starts.

    These lie on the line through the last two in log reg; or if near, on the parabola through three, which
    multiplies the errors of the solutions by twice as much.

    Example:
      >>> print(_shares(np.array([0.8, 0.4, 0.2]), np.array([0.1]), many_digits=False).round(2))
      [[ 0. -1.  2.]]
      >>> print(_shares(np.array([0.8, 0.4, 0.2]), np.array([0.1]), many_digits=True).round(2))
      [[ 1. -3.  3.]]
    """
    knots = np.log(solved[-KNOTS:])
    steps = -np.diff([*knots, np.log(penalties[-1])])
    if not (many_digits and (steps > 0).all() and steps.max() < NEAR):
        knots = knots[-2:]
    if knots[0] == knots[-1]:
        knots = knots[-1:]
    at = np.maximum(np.log(penalties), knots[-1] - 2 * np.ptp(knots))[:, None]
    shares = np.zeros((len(penalties), KNOTS))
    for k, knot in enumerate(knots, KNOTS - len(knots)):
        others = knots[knots != knot]
        shares[:, k] = np.prod((at - others) / (knot - others), axis=1)
    return shares


def rows_in_a_block(num_examples: int, num_features: int, columns: int, *, one_block: bool) -> int:
    """Rows that are evaluated together, for so many columns of scores; all, if allowed, where scores are few."""
    if one_block and _few_scores(columns, num_features):
        return num_examples
    most = max(256, BLOCK // (num_features + 2 * columns))
    num_blocks = -(-num_examples // min(most, ROWS.get(jax.default_backend(), most)))
    return -(-num_examples // num_blocks)


def _few_scores(columns: int, num_features: int) -> bool:
    """Decide whether the scores are little beside X."""
    return NARROW * columns <= num_features


@functools.partial(jax.jit, static_argnames=("max_evaluations", "rows", "read"))
@full_precision
def solve(
    examples: Examples,
    last: tuple[Float[Array | NDArray, "F C P"], ...],
    pairs: Pairs,
    reg: Float[Array, "V"],
    last_reg: Float[Array, ""],
    shares: Float[Array, "V 3"],
    constant: Float[Array, "F"],
    tol: Float[Array, ""],
    *,
    max_evaluations: int,
    rows: int,
    read: jax.ShapeDtypeStruct | None = None,
) -> tuple[Solution, Pairs]:
    """Minimise L for some values of reg; results are of every weighting at the first value, and then at the others.

    Args:
      examples: see `jaxcls.solver.eigenbasis`.
      last: coefficients of the last three values of reg, the nearest last.
      pairs: of the last value; those returned are of the last of these.
      reg: the values.
      last_reg: the last value.
      shares: of each of these in the coefficients where a value starts, see `_shares`.
      constant: L of the best constant prediction.
      tol: stop where the estimate of L − min L is at most this share of L, and of what L has gained over ``constant``.
      max_evaluations: of L and its gradient.
      rows: see `rows_in_a_block`.
      read: shape and dtype of a block of X, see `jaxcls.solver.reading`, where X is not on the device.
    """
    num_values, num_weightings = len(reg), len(constant)
    tiled = functools.partial(jnp.concatenate, axis=0)
    reg = jnp.repeat(reg, num_weightings)[:, None, None]
    A = jnp.einsum("vk,kfcp->vfcp", shares, jnp.stack(last)).reshape(-1, *last[0].shape[1:])
    pairs = jax.tree.map(lambda array: tiled([array] * num_values), pairs)
    constant = tiled([constant] * num_values)
    shape, dtype = A.shape, A.dtype
    penalised = examples.penalised[None, None]
    penalty = 2 * reg * penalised
    rounding = 4 * jnp.finfo(dtype).eps
    flat, whole = functools.partial(jnp.reshape, shape=(shape[0], -1)), functools.partial(jnp.reshape, shape=shape)

    def step(state: Descent) -> Descent:
        A, before, d, slope, size, pairs, evaluations, active = state
        trial = A + size[:, None, None] * d
        at = _evaluate(examples, trial, penalty, rows, read)
        accepted = active & (at.loss <= before.loss + 1e-4 * size * slope + rounding * jnp.abs(before.loss))
        pairs = _append(pairs, flat(trial - A), flat(at.gradient - before.gradient), accepted & (evaluations > 0))

        def chosen(new: Array, old: Array) -> Array:
            return jnp.where(jnp.expand_dims(accepted, range(1, new.ndim)), new, old)

        A, now = chosen(trial, A), jax.tree.map(chosen, at, before)

        def inverse(*vectors: Array) -> Array:
            q = jnp.stack([whole(vector) for vector in vectors])
            return _diagonal_inverse(examples, now.spread, reg, q).reshape(len(vectors), len(reg), -1)

        d_new = whole(_direction(flat(now.gradient), pairs, inverse))
        d_new -= jnp.mean(d_new, 1, keepdims=True)  # a constant over the classes does not change p
        slope_new = _dot(flat(now.gradient), flat(d_new))
        # A rejected step is shortened to the minimum of the parabola through L, its slope and L at the trial.
        excess = (at.loss - before.loss) / size - slope
        shorter = jnp.where(jnp.isfinite(excess) & (excess > 0), -slope / (2 * excess), 0)
        size = jnp.where(accepted, 1, size * jnp.clip(shorter, 0.1, 0.5))
        d, slope = chosen(d_new, d), chosen(slope_new, slope)
        allowed = jnp.maximum(tol * jnp.minimum(now.loss, constant - now.loss), rounding * now.loss)
        evaluations = evaluations + active
        active &= (_above(slope) > allowed) & (size > SMALLEST_STEP) & (evaluations < max_evaluations)
        return Descent(A, now, d, slope, size, pairs, evaluations, active)

    zeros = jnp.zeros(shape[0], dtype)
    nowhere = Evaluation(zeros + jnp.inf, jnp.zeros_like(A), jnp.zeros(shape[:2], dtype))
    more = jnp.broadcast_to(penalty - 2 * last_reg * penalised, shape)
    pairs = _for_another_penalty(pairs, flat(more))
    first = Descent(A, nowhere, jnp.zeros_like(A), zeros, zeros + 1, pairs, zeros.astype(int), zeros == 0)
    end = jax.lax.while_loop(lambda state: jnp.any(state.active), step, first)
    return Solution(end.A, end.at, _above(end.slope), end.evaluations), jax.tree.map(
        lambda array: array[-num_weightings:], end.pairs
    )


def _above(slope: Array) -> Float[Array, "F"]:
    """An estimate of L − min L from the slope along the direction of descent."""
    return -CAUTION * slope / 2


def _evaluate(examples: Examples, A: Array, penalty: Array, rows: int, read: jax.ShapeDtypeStruct | None) -> Evaluation:
    """L at each of these coefficients, ``[F, C, P]``, of one weighting after another, block by block of rows."""
    X, y, weights, centring, *_ = examples
    number, num_classes, _ = A.shape
    W, b = A[..., :-1], A[..., -1:]

    def block(sums: Evaluation, start: Array) -> tuple[Evaluation, None]:
        first = jnp.minimum(start, len(y) - rows)  # the last block overlaps the one before, at a weight of 0
        if X is None:
            assert read
            X_b = io_callback(read_block, read, first)
            X_b = X_b if X_b.ndim == 2 else jax.lax.bitcast_convert_type(X_b, A.dtype)
        else:
            X_b = jax.lax.dynamic_slice_in_dim(X, first, rows)
        X_b = X_b if centring is None else eigenbasis.centred(X_b, centring)
        y_b = jax.lax.dynamic_slice_in_dim(y, first, rows)
        w_b = jax.lax.dynamic_slice_in_dim(weights, first, rows, axis=1)
        w_b = jnp.where(first + jnp.arange(rows) >= start, w_b, 0)
        w_b = jnp.concatenate([w_b] * (number // len(w_b)))
        s = _times(W.reshape(-1, W.shape[-1]), X_b, alone=rows == len(y)).reshape(number, num_classes, rows) + b
        losses, numerator, total = cross_entropy_terms(s, y_b[None, None])
        ds = numerator / total
        # Sums over rows are products, which the CPU computes in parallel, where it adds one number after another.
        loss = jnp.einsum("fn,fn->f", jnp.where(w_b > 0, losses[:, 0], 0), w_b)  # an overflow at weight 0 counts as 0
        spread = jnp.einsum("fcn,fn->fc", jnp.abs(ds) * (1 - jnp.abs(ds)), w_b)
        ds = w_b[:, None] * ds
        dW = (ds.reshape(-1, rows) @ X_b).reshape(W.shape)
        db = ds @ jnp.ones((rows, 1), ds.dtype)
        here = Evaluation(loss, jnp.append(dW, db, 2), spread)
        return jax.tree.map(jnp.add, sums, here), None

    shapes = (number,), (number, num_classes, A.shape[2]), (number, num_classes)
    nothing = Evaluation(*(jnp.zeros(shape, A.dtype) for shape in shapes))
    sums, _ = jax.lax.scan(block, nothing, jnp.arange(0, len(y), rows))
    G = sums.gradient
    of_penalty = jnp.einsum("fcp,fcp->f", penalty * A, A) / 2
    return Evaluation(sums.loss + of_penalty, G + penalty * A, sums.spread)


def _times(W: Float[Array, "M D"], X: Float[Array, "N D"], *, alone: bool) -> Float[Array, "M N"]:
    """``W Xᵀ``, where X may be the only block.

    XLA's CPU transposes X for a few rows of W, unless it is told not to; and for others whenever it multiplies, unless
    a barrier keeps the transposed block, the same in every evaluation, out of the product and so out of the loop.
    """
    if _few_scores(*W.shape):
        return jax.lax.optimization_barrier(X @ W.T).T
    return W @ (jax.lax.optimization_barrier(X.T) if alone else X.T)


def _diagonal_inverse(examples: Examples, spread: Array, reg: Array, q: Array) -> Float[Array, "_ F C P"]:
    """The products of some q with the inverse of a Hessian that is diagonal in the eigenbasis."""
    vectors, curvature = examples.vectors, examples.curvature[None, None]
    penalised = examples.penalised[None, None, -curvature.size :]
    spread = jnp.maximum(spread, jnp.finfo(q.dtype).tiny)[..., None]
    inverse = 1 / (spread * curvature + 2 * reg * penalised)[None]
    if vectors is None:
        return inverse * q
    rest = 1 / (spread * examples.rest + 2 * reg)[None]
    along = jnp.einsum("kfcp,pr->kfcr", q[..., :-1], vectors)
    product = rest * q[..., :-1] + jnp.einsum("kfcr,pr->kfcp", (inverse[..., :-1] - rest) * along, vectors)
    return jnp.append(product, inverse[..., -1:] * q[..., -1:], -1)


def _direction(g: Array, pairs: Pairs, inverse: Callable[..., Array]) -> Float[Array, "F Q"]:
    """``-H g``, H the L-BFGS approximation of the inverse Hessian that starts from ``inverse``.

    It is scaled to the curvature along the last step. The two loops over the pairs are two triangular systems, with R
    the products ``s_i · y_j`` for i < j, and 1 for i = j:

        R a = S g,    d = inverse(g - Yᵀ a),    Rᵀ b = a - Y d,    H g = d + Sᵀ b
    """
    S, Y, SY, oldest = pairs
    R = jnp.triu(SY, 1) + jnp.eye(SY.shape[1], dtype=SY.dtype)[None]
    last = _at(Y, oldest - 1)
    a = solve_triangular(R, _turned(jnp.einsum("fmq,fq->fm", S, g), oldest)[..., None])[..., 0]
    d = g - jnp.einsum("fmq,fm->fq", Y, _turned(a, -oldest))
    d, of_last = inverse(d, last)
    curvature = _dot(last, of_last)[:, None]  # 1 if the inverse is right
    d = d / jnp.where(curvature > 0, curvature, 1)
    b = solve_triangular(R, (a - _turned(jnp.einsum("fmq,fq->fm", Y, d), oldest))[..., None], trans=1)[..., 0]
    return -d - jnp.einsum("fmq,fm->fq", S, _turned(b, -oldest))


def _append(pairs: Pairs, s: Array, y: Array, where: Array) -> Pairs:
    """The pairs with one more for those ``where`` it is to be kept, and has positive curvature."""
    S, Y, SY, oldest = pairs
    product, each = _dot(s, y), jnp.arange(len(s))
    where &= product > jnp.finfo(s.dtype).eps * jnp.sqrt(_dot(s, s) * _dot(y, y))
    scale = jax.lax.rsqrt(jnp.where(where, product, 1))
    S, Y = (
        old.at[each, oldest].set(jnp.where(where[:, None], scale[:, None] * new, _at(old, oldest)))
        for old, new in ((S, s), (Y, y))
    )
    after = (oldest + where) % S.shape[1]
    with_last = _turned(jnp.einsum("fmq,fq->fm", S, _at(Y, after - 1)), after)
    more = jnp.pad(SY[:, 1:, 1:], ((0, 0), (0, 1), (0, 1))).at[:, :, -1].set(with_last)
    return Pairs(S, Y, jnp.where(where[:, None, None], more, SY), after)


def _at(ring: Array, place: Array) -> Float[Array, "F Q"]:
    """The vector of each weighting at its place."""
    return ring[jnp.arange(len(ring)), place % ring.shape[1]]


def _turned(ring: Array, first: Array) -> Float[Array, "F M *Q"]:
    """The ring of each weighting, begun at a place.

    Example:
      >>> print(_turned(jnp.arange(8.0).reshape(2, 4), jnp.array([1, -1])))
      [[1. 2. 3. 0.]
       [7. 4. 5. 6.]]
    """
    places = (first[:, None] + jnp.arange(ring.shape[1])[None]) % ring.shape[1]
    return ring[jnp.arange(len(ring))[:, None], places]


def _for_another_penalty(pairs: Pairs, more: Array) -> Pairs:
    """The pairs where the penalty's second derivative is larger by ``more``, ``[F, Q]``, without those it undoes."""
    S = _turned(pairs.S, pairs.oldest)
    Y = _turned(pairs.Y, pairs.oldest) + more[:, None] * S
    product = jnp.einsum("fmq,fmq->fm", S, Y)[..., None]
    scale = jnp.where(product > 1e-3, jax.lax.rsqrt(jnp.where(product > 1e-3, product, 1)), 0)
    S, Y = scale * S, scale * Y
    return Pairs(S, Y, jnp.einsum("fmq,fnq->fmn", S, Y), jnp.zeros_like(pairs.oldest))


def _dot(a: Array, b: Array) -> Float[Array, "F"]:
    """The inner product of each weighting's vectors; as a product, which the CPU computes in parallel."""
    return jnp.einsum("fq,fq->f", a, b)
