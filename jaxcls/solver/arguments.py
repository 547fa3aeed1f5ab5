"""Checks of the arguments that the solvers of the linear classifier share."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcls.data import Prepared, Split, check_finite
from jaxcls.numerics import checks
from jaxcls.solver.eigenbasis import ARRAYS, Moments


def examples(
    X: ArrayLike | Split | Prepared, y: ArrayLike, num_classes: int | None
) -> tuple[jax.Array | NDArray | Split | Prepared, NDArray[np.integer], int]:
    """Features, labels and the number of classes, once they are checked.

    Raises:
      ValueError: X is not a matrix, there is not a label for each example, or one is out of range; or an array holds a
        feature that is not finite.
      TypeError: an argument is not an array of numbers.
    """
    X = X if isinstance(X, Split | Prepared) else checks.real_numbers(X, "X")
    if len(X.shape) != 2 or 0 in X.shape:
        raise ValueError(f"X must have shape [N, d] with N, d >= 1, got {list(X.shape)}")
    if isinstance(X, ARRAYS):  # the others are checked when they are prepared
        check_finite(np.asarray(X))
    labels = np.asarray(checks.label_numbers(y, X.shape[0]))
    num_classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes}), got {labels.min()} to {labels.max()}")
    return X, labels, num_classes


def shares(weights: ArrayLike | None, num_examples: int) -> Float[NDArray, "N *F"]:
    """Example weights as shares of 1, for each weighting; equal ones where there are none.

    Raises:
      ValueError: there is not a weight for each example, or one is negative or not finite, or all are 0.
    """
    if weights is None:
        return np.full(num_examples, 1 / num_examples)
    with np.errstate(over="ignore"):
        checks.real_numbers(weights, "weights")
    shares = np.asarray(weights, np.float64)  # float32 may not hold them, and only their proportions matter
    if len(shares) != num_examples or shares.ndim not in (1, 2):
        raise ValueError(f"weights must hold one for each of the {num_examples} examples, got {list(shares.shape)}")
    if not (np.isfinite(shares) & (shares >= 0)).all() or not shares.any(axis=0).all():
        raise ValueError("weights must be finite, not below 0, and not all 0")
    shares = shares / shares.max(axis=0)
    return shares / shares.sum(axis=0)


def regularisation(reg: ArrayLike | Sequence[float], *, zero: bool) -> Float[NDArray, "K"]:
    """Values of reg, above 0; or not below it, where there is an optimum without a penalty.

    Raises:
      ValueError: there is none, or one is out of range.
    """
    values = np.asarray(checks.real_numbers(reg, "reg"), np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"reg must hold at least one value, got shape {list(values.shape)}")
    if not (valid := (values >= 0 if zero else values > 0) & np.isfinite(values)).all():
        range_ = "not below 0" if zero else "above 0, where there is an optimum"
        raise ValueError(f"reg must hold finite values {range_}, got {values[~valid][0]:g}")
    return values


def check_moments(moments: Moments | None, num_features: int) -> None:
    """Raise unless these are the mean and the scale of each feature, the scale above 0."""
    if moments is None:
        return
    if (shapes := [np.shape(each) for each in moments]) != [(num_features,)] * 2:
        raise ValueError(f"moments must be a mean and a scale of shape [{num_features}], got {[*map(list, shapes)]}")
    if not (np.asarray(moments[1]) > 0).all():
        raise ValueError(f"moments must have a scale above 0, got {np.min(moments[1]):g}")
