"""Multinomial logistic regression: the linear softmax classifier at its optimum, for a path of regularisation values.

    L    = Σ_i w_i CE_i + reg Σ W²          example weights w that sum to 1; W: [D, C], the bias its last row

L is convex. `path` minimises it by L-BFGS, one value after another from the largest, each from where the last ones
point to, and all weightings of the examples, such as the folds of a cross-validation, side by side. With
``certify=True`` Newton's method continues in float64, until the duality gap proves how near the optimum is.

The bias is not penalised, as in scikit-learn. With ``penalise_bias=True`` the result is the optimum of
`jaxcls.softmax.loss`.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Integer, Real
from numpy.typing import NDArray

from jaxcls.data import Prepared, Split
from jaxcls.memory import Memory, available
from jaxcls.numerics import checks
from jaxcls.solver import ARRAYS, Moments, arguments, lbfgs, newton

IN_FLIGHT = 2**13  # rows of features that are read block by block: computed with, read, and being read
TOL = {4: 1e-6, 8: 1e-7}  # by bytes of a float; see docs/accuracy.md for what it decides


class Optimum(NamedTuple):
    """Minimisers of L for K regularisation values; with several weightings F, each array has a last axis for them.

    Attributes:
      W: the weights, the bias in the last row.
      loss: L at W.
      gap: how far ``loss`` is above ``min L``: an estimate, twice the slope along the last quasi-Newton direction; with
        ``certify=True``, an upper bound, computed in float64. Both include the rounding of W.
      gradient: the largest magnitude in dL/dW.
      iterations: evaluations of L and its gradient, and Newton steps.
      converged: whether ``gap <= tol * loss``.
    """

    W: Float[NDArray, "D C K *F"]
    loss: Float[NDArray, "K *F"]
    gap: Float[NDArray, "K *F"]
    gradient: Float[NDArray, "K *F"]
    iterations: Int[NDArray, "K *F"]
    converged: Bool[NDArray, "K *F"]


def path(
    X: Real[ArrayLike, "N d"] | Split | Prepared,
    y: Integer[ArrayLike, "N"],
    reg: Real[ArrayLike, "K"] | Sequence[float],
    *,
    moments: Moments | None = None,
    num_classes: int | None = None,
    weights: Real[ArrayLike, "N *F"] | None = None,
    penalise_bias: bool = False,
    tol: float | None = None,
    max_iterations: int = 1000,
    certify: bool = False,
    memory: int | None = None,
) -> Optimum:
    """Minimise L for every regularisation value, largest first, each warm-started from the last ones.

    Args:
      X: features, without a column of ones, of any real dtype; computed with in JAX's default float. A
        `jaxcls.data.Split` is read block by block, its raw features, once for every evaluation of L; `Prepared` of it
        its prepared ones.
      y: labels in ``[0, C)``. A class without examples gets zero weights and a bias of negligible probability.
      reg: regularisation values, above 0; scikit-learn's C is ``1 / (2 N reg)``.
      moments: mean and scale, ``[d]``, that standardise X; the weights are then those of standardised features.
      num_classes: C. Default: the largest label plus 1.
      weights: example weights, of which only the proportions matter; or several weightings, solved side by side, such
        as the folds of a cross-validation with held-out examples at 0. Default: equal weights.
      penalise_bias: whether the bias is penalised with the rest, as `jaxcls.softmax.loss` does.
      tol: tolerance of the gap, relative to the smaller of L and what L gained over the best constant prediction;
        to L alone with ``certify``. Default: 1e-6 in float32 and 1e-7 in float64; with ``certify`` the dtype's epsilon
        to the power 3/4, 6e-6 and 2e-12.
      max_iterations: maximum number of evaluations of L and its gradient, per value.
      certify: whether to prove the gap, by Newton's method in float64.
      memory: memory limit in bytes, which bounds how many weightings are solved side by side. Default:
        `jaxcls.memory.available`.

    Raises:
      ValueError: a shape does not match, a label, a value or ``tol`` is out of range, a weight is negative or not
        finite, a feature is not finite, or a single value does not fit in memory.
      TypeError: an argument is not an array of numbers.

    Example:
      >>> import numpy as np
      >>> from jaxcls import data
      >>> train = data.standard(data.load_digits()).train
      >>> optimum = path(train.X, train.y, np.logspace(-1, -4, 7))
      >>> optimum.W.shape, optimum.converged.all()
      ((65, 10, 7), np.True_)
    """
    checks.outside_of_jit("logistic.path")
    values = arguments.regularisation(reg, zero=False)
    features, labels, num_classes = arguments.examples(X, y, num_classes)
    arguments.check_moments(moments, features.shape[1])
    shares = arguments.shares(weights, len(labels))
    dtype = np.dtype(jnp.result_type(float))
    if tol is not None and not 0 <= tol < np.inf:
        raise ValueError(f"tol must be finite and not below 0, got {tol}")
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    if tol is None:
        tol = float(np.finfo(dtype).eps) ** 0.75 if certify else TOL[dtype.itemsize]
    solve = functools.partial(
        _of_some_classes,
        features,
        labels,
        moments=moments,
        num_classes=num_classes,
        penalise_bias=penalise_bias,
        tol=tol,
        max_iterations=max_iterations,
        certify=certify,
        budget=available() if memory is None else memory,
    )
    order, weighted = np.argsort(-values, kind="stable"), np.atleast_2d(shares.T)
    present = np.stack([np.bincount(labels, w, num_classes) > 0 for w in weighted])
    sets = list({of_set.tobytes(): of_set for of_set in present}.values())
    together = [np.flatnonzero((present == of_set).all(axis=1)) for of_set in sets]  # of examples of the same classes
    parts = [
        solve(weighted[some], values[order], np.flatnonzero(of_set))
        for some, of_set in zip(together, sets, strict=True)
    ]
    found = _joined(parts)
    at = np.ix_(np.argsort(order), np.argsort(np.concatenate(together)))
    W, *scores = (whole[..., at[0], at[1]] for whole in found)
    shape = (len(values), *shares.shape[1:])
    loss, gap, gradient, iterations = (each.reshape(shape) for each in scores)
    converged = np.isfinite(loss) & (gap <= tol * loss)
    return Optimum(W.reshape(*W.shape[:2], *shape), loss, gap, gradient, iterations, converged)


def estimate(num_examples: int, num_features: int, num_classes: int, *, dtype: jnp.dtype) -> Memory:
    """Memory of `path` without ``certify`` in bytes: for the examples, and for each weighting.

    Example:
      >>> estimate(1000, 20, 10, dtype=jnp.dtype("float32"))
      Memory(data=572800, cell=525600)
    """
    return lbfgs.estimate(num_examples, num_features, num_classes, dtype)


def _of_some_classes(
    X: jax.Array | NDArray | Split | Prepared,
    labels: NDArray[np.integer],
    weights: Float[NDArray, "F N"],
    reg: Float[NDArray, "K"],
    present: Int[NDArray, "P"],
    *,
    moments: Moments | None,
    num_classes: int,
    penalise_bias: bool,
    tol: float,
    max_iterations: int,
    certify: bool,
    budget: int,
) -> lbfgs.Solutions:
    """`path` of weightings that have examples of the same classes, the values in descending order.

    The other classes get a bias that gives them a probability of at most epsilon times L: the scores of those present
    have a mean of 0, so the largest is at least that.
    """
    dtype = np.dtype(jnp.result_type(float))
    labels = np.searchsorted(present, labels).clip(max=len(present) - 1)  # any label will do for an example of weight 0
    held = X.shape[0] if isinstance(X, ARRAYS) else min(X.shape[0], IN_FLIGHT)
    fitting = lbfgs.estimate(held, X.shape[1], len(present), dtype).fits(budget)
    columns = 1 if isinstance(X, ARRAYS) else lbfgs.COLUMNS // len(present)
    some = functools.partial(
        lbfgs.path,
        moments=moments,
        num_classes=len(present),
        penalise_bias=penalise_bias,
        tol=max(tol, TOL[dtype.itemsize]) if certify else tol,
        max_evaluations=max_iterations,
    )
    parts = np.split(weights, range(fitting, len(weights), fitting))
    found = _joined([some(X, labels, w, reg, side_by_side=max(min(columns, fitting) // len(w), 1)) for w in parts])
    if certify:
        standardised = jnp.asarray(X if isinstance(X, ARRAYS) else X[:]).astype(dtype)
        if moments is not None:
            standardised = (standardised - moments[0][None]) / moments[1][None]
        prove = functools.partial(
            newton.prove, standardised.astype(dtype), labels, penalise_bias=penalise_bias, tol=tol, budget=budget
        )
        for f, w in enumerate(weights):
            proof = prove(w, reg, found.W[..., f])
            for whole, part in zip(found[:-1], proof[:-1], strict=True):
                whole[..., f] = part
            found.evaluations[:, f] += proof.steps
    if len(present) == num_classes:
        return found
    W = np.zeros((len(found.W), num_classes, *found.loss.shape), dtype)
    W[-1] = np.log(np.finfo(dtype).eps * np.minimum(found.loss, 1))
    W[:, present] = found.W
    return found._replace(W=W)


def _joined(parts: Sequence[lbfgs.Solutions]) -> lbfgs.Solutions:
    """The solutions of several weightings as one."""
    return lbfgs.Solutions(*(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)))
