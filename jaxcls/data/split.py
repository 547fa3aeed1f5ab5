"""Some examples: raw features with their standardisation, labels, and the one check of their shapes."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from jaxcls.data import moments
from jaxcls.data.rows import Rows

BLOCK = 2**18  # numbers prepared at once, in float64: what stays in cache
LARGE = 1e30  # means and deviations, up to which and from the inverse of which float32 has room for a standardisation

Moments = tuple[Float[NDArray, "*K D"], Float[NDArray, "*K D"]]

_TO_INTEGERS = dict.fromkeys("US", ": np.unique(y, return_inverse=True)[1] makes them, of the y of all files at once")
_TO_INTEGERS |= {"f": ": y.astype(int) makes them of whole numbers", "b": ": y.astype(int) makes them"}


def check_examples(X: NDArray | Rows, y: NDArray, X_name: str = "X", y_name: str = "y") -> None:
    """Checks that these are N examples and their N integer labels, N at least 1, with one-line errors.

    Raises:
      ValueError: a wrong rank, lengths that differ, no examples or features.
      TypeError: they are not arrays, or masked; the features are not real numbers, or the labels not integers.
    """
    for name, array in ((X_name, X), (y_name, y)):
        if hasattr(array, "toarray"):
            raise TypeError(f"{name} must be dense, {name}.toarray() makes it, got {type(array).__name__}")
        if not isinstance(array, np.ndarray | jax.Array | Rows) or isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{name} must be a plain array, got {type(array).__name__}")
    if X.ndim != 2 or y.ndim != 1:
        raise ValueError(
            f"{X_name} must have shape [N, D] and {y_name} shape [N], got {list(X.shape)} and {list(y.shape)}"
            + _to_ranks(X, y)
        )
    if len(X) != len(y):
        raise ValueError(f"{X_name} and {y_name} must have the same length, got {len(X)} examples and {len(y)} labels")
    if X.size == 0:
        raise ValueError(f"{X_name} must hold at least one example of one feature, got shape {list(X.shape)}")
    if not (np.issubdtype(X.dtype, np.integer) or jnp.issubdtype(X.dtype, jnp.floating)):
        raise TypeError(f"{X_name} must hold real numbers, got {X.dtype}")
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"{y_name} must hold integer labels, got {y.dtype}{_TO_INTEGERS.get(y.dtype.kind, '')}")


def _to_ranks(X: NDArray | Rows, y: NDArray) -> str:
    """A hint for the common shapes that are not a matrix and a vector of labels."""
    if X.ndim > 2:
        return ": X.reshape(len(X), -1) makes rows of pictures"
    if X.ndim == 2 and y.ndim == 2:
        return ": y.ravel() makes one of a column" if y.shape[1] == 1 else ": y.argmax(1) makes one of one-hot rows"
    return ""


@dataclass(frozen=True, eq=False)
class Split:
    """Examples: raw features with their standardisation, and integer labels ``y: [N]``.

    Attributes:
      raw: features of any real dtype, ``[M, D]``.
      y: labels.
      rows: the rows of ``raw`` that are these examples, ``[N]``; all when None.
      mean, scale: ``[D]``, of the standardisation ``X = (raw - mean) / scale``; None where ``raw`` is used as it is.
      digest: SHA-256 of ``raw``, if it is known.

    Raises:
      ValueError: ranks or lengths do not fit, there are no examples or features, or a feature is not finite.
      TypeError: they are not plain arrays, the features not real numbers, or the labels not integers.

    Example:
      >>> import numpy as np
      >>> Split(np.array([[2], [4]], np.uint8), np.array([0, 1]), mean=np.array([3.0]), scale=np.array([1.0])).X
      array([[-1.],
             [ 1.]], dtype=float32)
    """

    raw: NDArray | Rows
    y: NDArray[np.integer]
    rows: NDArray[np.integer] | None = None
    mean: NDArray[np.floating] | None = None
    scale: NDArray[np.floating] | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        check_examples(self.raw, self.y if self.rows is None else np.zeros(len(self.raw), int))
        if self.rows is not None and (len(self.rows) != len(self.y) or not len(self.y)):
            raise ValueError(
                f"rows must be at least one, with a label each, got {len(self.rows)} and {len(self.y)} labels"
            )
        if self.rows is None and not isinstance(self.raw, Rows):
            moments.check_finite(self.raw)

    def __len__(self) -> int:
        """N."""
        return len(self.y)

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, D)``."""
        return len(self.y), self.num_features

    @property
    def dtype(self) -> np.dtype:
        """The dtype of raw features, in this machine's byte order."""
        return self.raw.dtype.newbyteorder("=")

    def in_order(self) -> "Split":
        """The same examples in the order in which their rows lie."""
        if self.rows is None:
            return self
        order = self.order(np.arange(len(self)))
        return replace(self, y=self.y[order], rows=self.rows[order])

    def __getitem__(self, which: slice | Int[NDArray, "M"]) -> NDArray:
        """Raw features of some of the examples."""
        return np.asarray(self.raw[which if self.rows is None else self.rows[which]], self.dtype)

    @property
    def X(self) -> Float[NDArray, "N D"]:  # noqa: N802
        """All examples, prepared: standardised, in JAX's default float. Each use prepares them again."""
        return self.prepared(slice(None))

    @property
    def num_features(self) -> int:
        """D."""
        return self.raw.shape[1]

    def order(self, which: Int[NDArray, "M"]) -> Int[NDArray, "M"]:
        """The order of some of the examples in which their rows lie, as ``numpy.argsort`` gives it."""
        return np.argsort(which if self.rows is None else self.rows[which], kind="stable")

    @property
    def stays_raw(self) -> bool:
        """True if a device can standardise raw features in JAX's default float, which holds them all exactly."""
        if not np.can_cast(self.raw.dtype, jnp.result_type(float)):
            return False
        if self.mean is None or self.scale is None:
            return True
        return bool((np.abs(self.mean) < LARGE).all() and ((self.scale > 1 / LARGE) & (self.scale < LARGE)).all())

    @property
    def stored_dtype(self) -> np.dtype:
        """The dtype of `stored`."""
        return self.dtype if self.stays_raw else np.dtype(jnp.result_type(float))

    def prepared(self, which: slice | Int[NDArray, "M"]) -> Float[NDArray, "M D"]:
        """Some of the examples, prepared."""
        X = self[which]
        if self.mean is None or self.scale is None:
            return X.astype(jnp.result_type(float), copy=False)
        return prepare(X, self.mean, self.scale)

    def stored(self, which: slice | Int[NDArray, "M"]) -> NDArray:
        """Some of the examples as a device holds them: raw, or prepared where it cannot prepare them."""
        return self[which] if self.stays_raw else self.prepared(which)

    def moments(self) -> Moments | None:
        """Mean and scale, ``[D]``, by which a device standardises what `stored` gave it; None if it need not.

        They are rounded to JAX's default float.
        """
        if self.mean is None or self.scale is None or not self.stays_raw:
            return None
        return rounded(self.mean, self.scale)

    def identity(self) -> list[NDArray]:
        """Arrays that are equal only if the examples are, byte for byte."""
        digest = self.digest or moments.scan(self.raw, np.full(len(self.raw), -1), 0).digest
        rest = [array for array in (self.rows, self.mean, self.scale) if array is not None]
        return [np.frombuffer(bytes.fromhex(digest), np.uint8), self.y, *rest]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Examples as features that can be sliced, prepared when they are."""

    split: Split

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, D)``."""
        return self.split.shape

    @property
    def dtype(self) -> np.dtype:
        """JAX's default float."""
        return np.dtype(jnp.result_type(float))

    def __getitem__(self, which: Any) -> NDArray:
        """Some of the examples."""
        return self.split.prepared(which)


def prepare(X: NDArray, mean: NDArray, scale: NDArray) -> NDArray[np.floating]:
    """``(X - mean) / scale`` in float64, then rounded to JAX's default float.

    Rounding first would lose the variation of features whose mean is large beside their deviation.

    Args:
      X: raw features, ``[N, D]``, of any real dtype.
      mean, scale: ``[D]``.

    Example:
      >>> import numpy as np
      >>> print(prepare(np.array([[2, 4], [4, 8]]), np.array([3, 6]), np.array([1, 2])))
      [[-1. -1.]
       [ 1.  1.]]
    """
    prepared = np.empty(X.shape, jnp.result_type(float))
    with np.errstate(over="ignore", invalid="ignore"):  # a protocol says which feature is too large for the dtype
        step = max(1, BLOCK // max(1, X.shape[1]))
        for first in range(0, len(X), step):
            rows = slice(first, first + step)
            prepared[rows] = np.subtract(X[rows], mean, dtype=np.float64, casting="unsafe") / scale
    return prepared


def rounded(mean: NDArray, scale: NDArray) -> Moments | None:
    """Moments in JAX's default float; None where they change nothing."""
    dtype = jnp.result_type(float)
    return (mean.astype(dtype), scale.astype(dtype)) if mean.any() or (scale != 1).any() else None
