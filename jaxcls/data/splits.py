"""Prepared examples for the trainer, with the one check of their values."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcls.numerics import sha256

BLOCK = 2**18  # numbers prepared at once, in float64: what stays in cache

_TO_INTEGERS = dict.fromkeys("US", ": np.unique(y, return_inverse=True)[1] makes them, of the y of all files at once")
_TO_INTEGERS |= {"f": ": y.astype(int) makes them of whole numbers", "b": ": y.astype(int) makes them"}


def check_examples(X: NDArray, y: NDArray, X_name: str = "X", y_name: str = "y") -> None:
    """Checks that these are N examples and their N integer labels, N at least 1, with one-line errors.

    Raises:
      ValueError: a wrong rank, lengths that differ, no examples or features, a NaN or infinite feature.
      TypeError: they are not arrays, or masked; the features are not real numbers, or the labels not integers.
    """
    for name, array in ((X_name, X), (y_name, y)):
        if hasattr(array, "toarray"):
            raise TypeError(f"{name} must be dense, {name}.toarray() makes it, got {type(array).__name__}")
        if not isinstance(array, np.ndarray | jax.Array) or isinstance(array, np.ma.MaskedArray):
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
    if not (np.issubdtype(X.dtype, np.integer) or np.issubdtype(X.dtype, np.floating)):
        raise TypeError(f"{X_name} must hold real numbers, got {X.dtype}")
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"{y_name} must hold integer labels, got {y.dtype}{_TO_INTEGERS.get(y.dtype.kind, '')}")
    if not (finite := np.isfinite(X)).all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(f"{X_name} must be finite, got {X[row, column]} at row {row}, column {column}")


def _to_ranks(X: NDArray, y: NDArray) -> str:
    """A hint for the common shapes that are not a matrix and a vector of labels."""
    if X.ndim > 2:
        return ": X.reshape(len(X), -1) makes rows of pictures"
    if X.ndim == 2 and y.ndim == 2:
        return ": y.ravel() makes one of a column" if y.shape[1] == 1 else ": y.argmax(1) makes one of one-hot rows"
    return ""


@dataclass(frozen=True, eq=False)
class Split:
    """Examples ``X: [N, D]``, floating point, and their integer labels ``y: [N]``.

    Raises:
      ValueError: ranks or lengths do not fit, there are no examples or features, or a feature is not finite.
      TypeError: they are not plain arrays, the features not floating point, or the labels not integers.

    Example:
      >>> import numpy as np
      >>> Split(np.ones((3, 2)), np.array([0, 1]))
      Traceback (most recent call last):
      ...
      ValueError: X and y must have the same length, got 3 examples and 2 labels
    """

    X: NDArray[np.floating]
    y: NDArray[np.integer]

    def __post_init__(self) -> None:
        check_examples(self.X, self.y)
        if not np.issubdtype(self.X.dtype, np.floating):
            raise TypeError(f"X must be floating point, got {self.X.dtype}")


class _Sizes:
    """Sizes of splits and folds."""

    train: Split
    class_names: tuple[str, ...]

    @property
    def num_features(self) -> int:
        """D."""
        return self.train.X.shape[1]

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def num_folds(self) -> int:
        """K; 0 where the data are split once."""
        return 0


@dataclass(frozen=True, eq=False)
class Splits(_Sizes):
    """Train, validation and test examples, all prepared by ``X = (raw - mean) / scale``.

    Attributes:
      train, val, test: the examples; no test where none is to be scored.
      class_names: a name for each of the C classes.
      mean, scale: ``[D]``, float64, of the raw features; saved with a model.
      pixels: column of each pixel in the features, ``[height, width]`` or ``[height, width, 3]``; None when examples
        are not images.
      name: source and protocol, for the record.

    Raises:
      ValueError: splits of different width, a label outside ``[0, C)``, or fewer than two classes in train.
    """

    train: Split
    val: Split
    test: Split | None
    class_names: tuple[str, ...]
    mean: NDArray[np.floating]
    scale: NDArray[np.floating]
    pixels: NDArray[np.integer] | None
    name: str

    def __post_init__(self) -> None:
        for role, split in self.items():
            if split.X.shape[1] != self.num_features:
                raise ValueError(
                    f"all splits must have the {self.num_features} features of train, {role} has {split.X.shape[1]}"
                )
            _check_labels(split.y, self.num_classes, role)
        if (self.train.y == self.train.y[0]).all():
            raise ValueError(f"train must hold at least two classes, got only class {self.train.y[0]}")

    def items(self) -> tuple[tuple[str, Split], ...]:
        """The splits with their names, train first."""
        test = () if self.test is None else (("test", self.test),)
        return ("train", self.train), ("val", self.val), *test

    @property
    def parts(self) -> tuple[int, ...]:
        """The number of examples in train and in val."""
        return len(self.train.y), len(self.val.y)

    def fingerprint(self) -> str:
        """SHA-256 over every prepared example and label: equal only if the data are, byte for byte."""
        return sha256(("", array) for _, split in self.items() for array in (split.X, split.y)).hex()


@dataclass(frozen=True, eq=False)
class Folds(_Sizes):
    """Examples in parts for cross-validation: fold k validates on part k and trains on all others.

    Attributes:
      train: all examples, part by part, prepared by the mean and scale of all: ``X = (raw - mean) / scale``.
      parts: how many examples each part has.
      mean, scale: ``[D]``, float64, of all examples.
      fold_mean, fold_scale: ``[K, D]``, the further standardisation of X by each fold's own train.
      class_names: a name for each of the C classes.
      name: source and protocol, for the record.
      order: for each fold, the rows of train that it trains on, in the order that minibatches count them; None for
        the order in which they stand.

    Raises:
      ValueError: there are fewer than two parts, one is empty, or they do not add up to train; a label is outside
        ``[0, C)``.
    """

    train: Split
    parts: tuple[int, ...]
    mean: NDArray[np.floating]
    scale: NDArray[np.floating]
    fold_mean: NDArray[np.floating]
    fold_scale: NDArray[np.floating]
    class_names: tuple[str, ...]
    name: str
    order: tuple[NDArray[np.integer], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.parts) < 2 or min(self.parts) < 1 or sum(self.parts) != len(self.train.y):
            raise ValueError(
                f"parts must be two or more, none empty, of {len(self.train.y)} examples in all, got {self.parts}"
            )
        _check_labels(self.train.y, self.num_classes, "train")

    @property
    def num_folds(self) -> int:
        """K."""
        return len(self.parts)

    def fingerprint(self) -> str:
        """SHA-256 over every example and label, the parts, and each fold's standardisation."""
        arrays = [self.train.X, self.train.y, np.array(self.parts), self.fold_mean, self.fold_scale]
        return sha256(("", array) for array in (*arrays, *(self.order or ()))).hex()

    def num_train(self, fold: int) -> int:
        """The number of examples that this fold trains on."""
        return len(self.train.y) - self.parts[fold]

    def rows(self, fold: int, numbers: NDArray[np.integer]) -> NDArray[np.integer]:
        """The rows of train of these among the examples that this fold trains on, which count from 0."""
        if self.order is not None:
            return self.order[fold][numbers]
        return numbers + np.where(numbers >= sum(self.parts[:fold]), self.parts[fold], 0)

    def split(self, fold: int) -> Splits:
        """This fold's examples, prepared: val is the part held out, and there is no test set."""
        rows = self.rows(fold, np.arange(self.num_train(fold)))
        held_out = sum(self.parts[:fold]) + np.arange(self.parts[fold])
        mean, scale = self.fold_mean[fold], self.fold_scale[fold]
        train, val = (Split(prepare(self.train.X[r], mean, scale), self.train.y[r]) for r in (rows, held_out))
        mean, scale = self.mean + self.scale * mean, self.scale * scale  # of raw features
        return Splits(train, val, None, self.class_names, mean, scale, None, self.name)


def balanced(y: NDArray[np.integer], num_classes: int) -> NDArray[np.floating]:
    """Balanced class weights ``N / (C · count)``, ``[C]``: 1 on average over ``y``.

    Example:
      >>> import numpy as np
      >>> print(balanced(np.array([0, 0, 0, 1]), 2))
      [0.66666667 2.        ]
    """
    count = np.bincount(y, minlength=num_classes)
    present = np.count_nonzero(count)
    return np.divide(len(y), present * count, out=np.zeros(num_classes), where=count > 0)


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
    with np.errstate(over="ignore", invalid="ignore"):  # `Split` says where a feature is too large for the dtype
        step = max(1, BLOCK // max(1, X.shape[1]))
        for first in range(0, len(X), step):
            rows = slice(first, first + step)
            prepared[rows] = np.subtract(X[rows], mean, dtype=np.float64, casting="unsafe") / scale
    return prepared


def _check_labels(y: NDArray[np.integer], num_classes: int, role: str) -> None:
    outside = (y < 0) | (y >= num_classes)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"labels must lie in [0, {num_classes}), got {y[row]} at row {row} of {role}")
