"""One pass over all features: their means and deviations, the check of their values, and their digest."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from jaxcls.data.rows import Rows

BLOCK = 2**18  # numbers in float64 that stay in cache
READ = 2**21  # numbers read together
TYPICAL = 31  # rows; an odd number, so that the median is one of their values


class Moments(NamedTuple):
    """Of some examples: their number, the mean of each feature, and the sum of its squared deviations from that.

    The mean is kept as its difference from an ``origin``, the same for all examples, so that features far from zero
    lose no digits.

    Example:
      >>> origin = np.array([2.0**40])
      >>> moments = merged([of(np.array([[0.0], [2.0]]), origin), of(np.array([[4.0]]), origin)])
      >>> moments.mean - origin, moments.scale()
      (array([2.]), array([1.63299316]))
    """

    num_examples: int
    offset: Float[NDArray, "D"]
    squares: Float[NDArray, "D"]
    origin: Float[NDArray, "D"]

    @property
    def mean(self) -> Float[NDArray, "D"]:
        """The mean of each feature."""
        return self.origin + self.offset

    def scale(self) -> Float[NDArray, "D"]:
        """The standard deviation; 1 for a constant, whose differences from the origin are all the same."""
        scale = np.sqrt(self.squares / self.num_examples)
        return np.where(scale > self.num_examples * np.finfo(float).eps * np.abs(self.offset), scale, 1.0)


class Pass(NamedTuple):
    """The findings of one pass over the features.

    Attributes:
      groups: the moments of each group of rows.
      low, high: the smallest and the largest value of each feature, of all rows.
      digest: SHA-256 of dtype, shape and values.
    """

    groups: list[Moments]
    low: Float[NDArray, "D"]
    high: Float[NDArray, "D"]
    digest: str


def of(differences: Float[NDArray, "N D"], origin: Float[NDArray, "D"]) -> Moments:
    """The moments of a few examples, given as differences from the origin, in float64."""
    offset = differences.sum(axis=0) / max(len(differences), 1)
    deviations = differences - offset
    return Moments(len(differences), offset, np.square(deviations, out=deviations).sum(axis=0), origin)


def merged(parts: Sequence[Moments]) -> Moments:
    """The moments of several sets of examples together.

    Reference:
      T. F. Chan, G. H. Golub and R. J. LeVeque, *Algorithms for Computing the Sample Variance*, 1983, equation 2.1.
    """
    count, offset, squares, origin = parts[0]
    for other in parts[1:]:
        if not other.num_examples:
            continue
        total, difference = count + other.num_examples, other.offset - offset
        offset = offset + difference * (other.num_examples / total)
        squares = squares + other.squares + difference**2 * (count * other.num_examples / total)
        count = total
    return Moments(count, offset, squares, origin)


def scan(X: NDArray | Rows, group: Int[NDArray, "N"], num_groups: int) -> Pass:
    """Read all features once, block by block, several blocks at a time.

    Args:
      X: raw features, of any real dtype.
      group: of each row; -1 for none.
      num_groups: their number.

    Raises:
      ValueError: a feature is not finite, or not when squared.

    Example:
      >>> found = scan(np.array([[1, 2], [3, 4], [9, 9]]), np.array([0, 0, -1]), 1)
      >>> found.groups[0].mean, found.high
      (array([2., 3.]), array([9., 9.]))
    """
    num_examples, num_features = X.shape
    few, many = max(1, BLOCK // num_features), max(1, READ // num_features)
    origin = _typical(X, np.flatnonzero(group >= 0))

    def read(first: int) -> tuple[list[Moments], NDArray, NDArray, bytes]:
        block = np.ascontiguousarray(X[first : first + many])
        parts, lows, highs = [], [], []
        for start in range(0, len(block), few):
            values = block[start : start + few].astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):  # set for each thread
                values -= origin
            parts.append(_of_groups(values, group[first + start : first + start + len(values)], num_groups, origin))
            lows.append(values.min(axis=0))
            highs.append(values.max(axis=0))
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = np.min(lows, axis=0) + origin, np.max(highs, axis=0) + origin
        if not (np.isfinite(low) & np.isfinite(high)).all():
            check_finite(block.astype(np.float64), whole=X, first=first)
        exact = block if block.dtype.itemsize <= 8 else block.astype(np.float64)  # a long double has idle bytes
        digest = hashlib.sha256(exact.view(np.uint8).data).digest()
        return [merged(each) for each in zip(*parts, strict=True)], low, high, digest

    with ThreadPoolExecutor(os.cpu_count(), "scan") as pool, np.errstate(over="ignore", invalid="ignore"):
        found = list(pool.map(read, range(0, num_examples, many)))
        parts, lows, highs, digests = zip(*found, strict=True)
        groups = [merged(each) for each in zip(*parts, strict=True)]
    whole = hashlib.sha256(f"{np.dtype(X.dtype).str}{X.shape}".encode())
    for digest in digests:
        whole.update(digest)
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    for moments in groups:
        if not (fine := np.isfinite(moments.mean) & np.isfinite(moments.squares)).all():
            column = int(np.argmin(fine))
            largest = max(abs(low[column]), abs(high[column]))
            raise ValueError(f"X must be finite when squared, its largest in column {column} is {largest:g}")
    return Pass(groups, low, high, whole.hexdigest())


def check_finite(X: NDArray, *, whole: NDArray | Rows | None = None, first: int = 0) -> None:
    """Checks that features are finite: all, or those of a whole from its row ``first`` on.

    Raises:
      ValueError: a NaN or infinite feature.
    """
    if not (finite := np.isfinite(X)).all():
        row, column = np.argwhere(~finite)[0].tolist()
        name, at = whole.where(first + row) if isinstance(whole, Rows) else ("X", first + row)
        raise ValueError(f"{name} must be finite, got {X[row, column]} at row {at}, column {column}")


def check_range(found: Pass, mean: Float[NDArray, "D"], scale: Float[NDArray, "D"]) -> None:
    """Check that JAX's default float holds all features once they are standardised.

    Raises:
      ValueError: it does not.
    """
    with np.errstate(over="ignore"):
        furthest = np.maximum(np.abs(found.low - mean), np.abs(found.high - mean)) / scale
    if not (fine := furthest <= float(jnp.finfo(jnp.result_type(float)).max)).all():
        column = int(np.argmin(fine))
        raise ValueError(
            f"X must be finite in {jnp.result_type(float)} once standardised, column {column} of some example is "
            f"{furthest[column]:g} deviations from the mean"
        )


def _typical(X: NDArray | Rows, rows: NDArray[np.integer]) -> Float[NDArray, "D"]:
    """A value near those of each feature: the median of a few of these rows, which no outlier moves far."""
    if not len(rows):
        return np.zeros(X.shape[1])
    few = rows[np.linspace(0, len(rows) - 1, TYPICAL).astype(int)]
    median = np.median(np.asarray(X[few], np.float64), axis=0)
    return np.where(np.isfinite(median), median, 0)


def _of_groups(X: NDArray, group: NDArray[np.integer], num_groups: int, origin: NDArray) -> list[Moments]:
    with np.errstate(over="ignore", invalid="ignore"):  # the whole is checked
        return [of(X if (mine := group == k).all() else X[mine], origin) for k in range(num_groups)]
