"""Examples for the trainer: in train, val and test, or in folds."""

import functools
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from jaxcls.data.rows import Rows
from jaxcls.data.split import Moments, Split, rounded
from jaxcls.numerics import sha256


class _Sizes:
    """Sizes of splits and folds."""

    train: Split
    class_names: tuple[str, ...]

    @property
    def num_features(self) -> int:
        """D."""
        return self.train.num_features

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def num_folds(self) -> int:
        """K; 0 where the data are split once."""
        return 0

    def num_train(self, fold: int) -> int:
        """The number of examples that a fold trains on."""
        return len(self.train)

    def val_part(self, fold: int) -> int:
        """The part that a fold is validated on: the second, val."""
        return 1

    @property
    def one_val(self) -> bool:
        """True if all folds are validated on the same examples."""
        return self.num_folds < 2 or self.val_part(0) == self.val_part(1)

    @property
    def num_scored(self) -> int:
        """The number of examples behind a score over train: of folds with a val of their own, all."""
        return self.num_train(0) if self.one_val else len(self.train)


@dataclass(frozen=True, eq=False)
class Splits(_Sizes):
    """Train, validation and test examples, all standardised by ``X = (raw - mean) / scale``.

    Attributes:
      train, val, test: the examples; no test where none is to be scored.
      class_names: a name for each of the C classes.
      mean, scale: ``[D]``, float64, of the raw features; saved with a model.
      pixels: column of each pixel in the features, ``[height, width]`` or ``[height, width, 3]``; None when examples
        are not images.
      name: source and protocol, for the record.
      unit_length: whether raw features were scaled to length 1 before all else.
      feature_names: as in `Source`.

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
    unit_length: bool = False
    feature_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for role, split in self.items():
            if split.num_features != self.num_features:
                raise ValueError(
                    f"all splits must have the {self.num_features} features of train, {role} has {split.num_features}"
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

    def first_row(self, part: int, fold: int) -> int:
        """Of a part among `examples`."""
        return part * len(self.train)

    def rows(self, fold: int, numbers: NDArray[np.integer]) -> NDArray[np.integer]:
        """Of these of train among `examples`."""
        return numbers

    @functools.cached_property
    def examples(self) -> Split:
        """All examples of train, then all of val."""
        train, val = self.train, self.val
        y = np.concatenate([train.y, val.y])
        of_one = train.raw is val.raw and train.mean is val.mean and train.scale is val.scale
        if of_one and train.rows is not None and val.rows is not None:
            return replace(train, y=y, rows=np.concatenate([train.rows, val.rows]))
        if _equal(train.mean, val.mean) and _equal(train.scale, val.scale):
            return Split(Rows([train, val]), y, mean=train.mean, scale=train.scale)
        return Split(np.concatenate([train.X, val.X]), y)

    def moments(self) -> Moments | None:
        """The moments of `examples`, ``[1, D]``."""
        found = self.examples.moments()
        return None if found is None else (found[0][None], found[1][None])

    def fingerprint(self) -> str:
        """SHA-256 over every example and label: equal only if the data are, byte for byte."""
        return sha256(("", array) for _, split in self.items() for array in split.identity()).hex()


@dataclass(frozen=True, eq=False)
class Folds(_Sizes):
    """Examples in parts for cross-validation: fold k validates on part k and trains on all others.

    Attributes:
      train: all examples, part by part, standardised by the mean and scale of all.
      parts: how many examples each part has.
      mean, scale: ``[D]``, float64, of all examples.
      fold_mean, fold_scale: ``[K, D]``, float64, of each fold's own train.
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
        return len(self.fold_mean)

    def val_part(self, fold: int) -> int:
        """The part that is held out."""
        return fold

    def first_row(self, part: int, fold: int) -> int:
        """Of a part among `examples`, the same in every fold."""
        return sum(self.parts[:part])

    def fingerprint(self) -> str:
        """SHA-256 over every example and label, the parts, and each fold's standardisation."""
        arrays = [*self.train.identity(), np.array(self.parts), self.fold_mean, self.fold_scale]
        return sha256(("", array) for array in (*arrays, *(self.order or ()))).hex()

    @property
    def examples(self) -> Split:
        """All examples, part by part."""
        return self.train

    def moments(self) -> Moments | None:
        """Mean and scale of each fold, ``[K, D]``, by which a device standardises what `Split.stored` gave it.

        They are rounded to JAX's default float; None if it need not.
        """
        mean, scale = self.fold_mean, self.fold_scale
        if not self.train.stays_raw and self.train.mean is not None:
            mean, scale = (mean - self.mean) / self.scale, scale / self.scale
        return rounded(mean, scale)

    def num_train(self, fold: int) -> int:
        """The number of examples that this fold trains on."""
        return len(self.train.y) - self.parts[fold]

    def rows(self, fold: int, numbers: NDArray[np.integer]) -> NDArray[np.integer]:
        """The rows of train of these among the examples that this fold trains on, which count from 0."""
        if self.order is not None:
            return self.order[fold][numbers]
        return numbers + np.where(numbers >= sum(self.parts[:fold]), self.parts[fold], 0)

    def split(self, fold: int) -> Splits:
        """This fold's examples: val is the part held out, and there is no test set."""
        rows = self.rows(fold, np.arange(self.num_train(fold)))
        held_out = self.first_row(fold, fold) + np.arange(self.parts[fold])
        mean, scale = self.fold_mean[fold], self.fold_scale[fold]
        of_raw = np.arange(len(self.train.raw)) if self.train.rows is None else self.train.rows
        train, val = (
            replace(self.train, y=self.train.y[r], rows=of_raw[r], mean=mean, scale=scale) for r in (rows, held_out)
        )
        return Splits(train, val, None, self.class_names, mean, scale, None, self.name)


@dataclass(frozen=True, eq=False)
class Tries(Folds):
    """Several subsets of train, of one size, and one val: fold k trains on subset k.

    Attributes:
      train: the subsets one after another, then val.
      parts: the size of a subset and of val.
      whole: the splits that the subsets are of.
    """

    whole: Splits = field(kw_only=True)

    def __post_init__(self) -> None:
        size, held_out = self.parts
        if size < 1 or held_out < 1 or len(self.train.y) != size * len(self.fold_mean) + held_out:
            raise ValueError(
                f"parts must be the size of each of {len(self.fold_mean)} subsets and of val, "
                f"of {len(self.train.y)} examples in all, got {self.parts}"
            )
        _check_labels(self.train.y, self.num_classes, "train")

    def val_part(self, fold: int) -> int:
        """The second, val."""
        return 1

    def first_row(self, part: int, fold: int) -> int:
        """Of a fold's subset, or of val, among ``examples``."""
        return self.parts[0] * (self.num_folds if part else fold)

    def num_train(self, fold: int) -> int:
        """The size of a subset."""
        return self.parts[0]

    def rows(self, fold: int, numbers: NDArray[np.integer]) -> NDArray[np.integer]:
        """Of these of a fold's subset among ``examples``."""
        return self.first_row(0, fold) + numbers

    def split(self, fold: int) -> Splits:
        """This fold's examples, with val and test."""
        of_fold = {"mean": self.fold_mean[fold], "scale": self.fold_scale[fold]}
        rows = self.rows(fold, np.arange(self.parts[0]))
        assert self.train.rows is not None
        train = replace(self.train, y=self.train.y[rows], rows=self.train.rows[rows], **of_fold)
        val, test = replace(self.whole.val, **of_fold), self.whole.test
        return replace(self.whole, train=train, val=val, test=test and replace(test, **of_fold), **of_fold)


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


def _equal(one: NDArray | None, other: NDArray | None) -> bool:
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def _check_labels(y: NDArray[np.integer], num_classes: int, role: str) -> None:
    outside = (y < 0) | (y >= num_classes)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"labels must lie in [0, {num_classes}), got {y[row]} at row {row} of {role}")
