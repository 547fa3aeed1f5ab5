"""Checks of the arguments that the solvers of the linear classifier share."""

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcls.data import Prepared, Split
from jaxcls.numerics import checks


def examples(
    X: ArrayLike | Split | Prepared, y: ArrayLike, num_classes: int | None
) -> tuple[jax.Array | Split | Prepared, NDArray[np.integer], int]:
    """Features, labels and the number of classes, once they are checked.

    Raises:
      ValueError: X is not a matrix, there is not a label for each example, or one is out of range.
      TypeError: an argument is not an array of numbers.
    """
    X = X if isinstance(X, Split | Prepared) else checks.real(X, "X")
    if len(X.shape) != 2 or 0 in X.shape:
        raise ValueError(f"X must have shape [N, d] with N, d >= 1, got {list(X.shape)}")
    labels = np.asarray(checks.labels(y, X.shape[0]))
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
        checks.real(weights, "weights")
    shares = np.asarray(weights, np.float64)  # float32 may not hold them, and only their proportions matter
    if len(shares) != num_examples or shares.ndim not in (1, 2):
        raise ValueError(f"weights must hold one for each of the {num_examples} examples, got {list(shares.shape)}")
    if not (np.isfinite(shares) & (shares >= 0)).all() or not shares.any(axis=0).all():
        raise ValueError("weights must be finite, not below 0, and not all 0")
    shares = shares / shares.max(axis=0)
    return shares / shares.sum(axis=0)
