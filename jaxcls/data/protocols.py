"""Protocols that turn raw examples into splits: standardisation, and the two courses' CIFAR-10."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jaxcls.data.source import Source
from jaxcls.data.splits import Folds, Split, Splits, prepare


def standard(source: Source) -> Splits:
    """Standardise every feature to mean 0 and standard deviation 1 over train; centre a constant one.

    Example:
      >>> from jaxcls import data
      >>> splits = standard(data.load_digits())
      >>> splits.train.X.shape, splits.num_classes
      ((1257, 64), 10)
    """
    return _split(source, "standard", *_moments(source.X[source.train]))


def standard_folds(source: Source, parts: Sequence[NDArray[np.integer]]) -> Folds:
    """Standardise each fold by its own train, all parts but the one held out.

    Args:
      source: the examples; its own splits are ignored.
      parts: rows of each part.

    Raises:
      ValueError: a row is in two parts, or a part is empty.

    Example:
      >>> import numpy as np
      >>> from jaxcls import data
      >>> folds = standard_folds(data.load_digits(), np.array_split(np.arange(1797), 4))
      >>> folds.parts, folds.split(3).parts
      ((450, 449, 449, 449), (1348, 449))
    """
    rows = np.concatenate(parts)
    if len(np.unique(rows)) < len(rows):
        raise ValueError("parts must have no row in common, or what is held out would be trained on")
    mean, scale = _moments(source.X[rows])
    moments = [_moments(source.X[np.setdiff1d(rows, part, assume_unique=True)]) for part in parts]
    fold_mean, fold_scale = (np.stack(each) for each in zip(*moments, strict=True))
    sizes, name = tuple(len(part) for part in parts), f"{source.name}/standard, {len(parts)} folds"
    train = Split(prepare(source.X[rows], mean, scale), _labels(source.y[rows]))
    fold_mean, fold_scale = (fold_mean - mean) / scale, fold_scale / scale
    return Folds(train, sizes, mean, scale, fold_mean, fold_scale, source.class_names, name)


def cs231n(source: Source) -> Splits:
    """CS231n's CIFAR-10: pixels 0 to 255, height-width-channel, minus the mean image of train.

    Train is the first 49,000 images, val the next 1,000, test the first 1,000 of the test set: ``D = 3072``.

    Raises:
      ValueError: the source is not CIFAR-10.
    """
    _require_cifar10(source, "cs231n")
    X = source.X.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).reshape(-1, 3072)
    train, val, test = np.split(np.arange(51_000), [49_000, 50_000])
    source = replace(source, X=X, train=train, val=val, test=test, pixels=np.arange(3072).reshape(32, 32, 3))
    mean_image = X[train].mean(axis=0)
    return _split(source, "cs231n", mean_image, np.ones(3072))


def eecs498(source: Source) -> Splits:
    """EECS 498-007's CIFAR-10: pixels / 255, channel-height-width, minus each channel's mean.

    The means are over all 50,000 training images; train is the first 40,000 of them, val the last 10,000,
    test the 10,000 of the test set: ``D = 3072``.

    Raises:
      ValueError: the source is not CIFAR-10.
    """
    _require_cifar10(source, "eecs498")
    train, val, test = np.split(np.arange(60_000), [40_000, 50_000])
    source = replace(source, train=train, val=val, test=test)
    channel_means = source.X[:50_000].reshape(-1, 3, 1024).mean(axis=(0, 2))
    # x / 255 less the mean of x / 255 is (x - mean) / 255.
    return _split(source, "eecs498", np.repeat(channel_means, 1024), np.full(3072, 255.0))


PROTOCOLS: dict[str, Callable[[Source], Splits]] = {"standard": standard, "cs231n": cs231n, "eecs498": eecs498}


def _moments(X: NDArray) -> tuple[NDArray, NDArray]:
    """Mean and standard deviation of each feature; 1 for a deviation within the rounding of the mean."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    if not (finite := np.isfinite(mean) & np.isfinite(scale)).all():
        column = int(np.argmin(finite))
        raise ValueError(
            f"X must be finite when squared, its largest in column {column} is {abs(X[:, column]).max():g}"
        )
    return mean, np.where(scale > len(X) * np.finfo(float).eps * np.abs(mean), scale, 1.0)


def _labels(y: NDArray[np.integer]) -> NDArray[np.int32]:
    """Labels as int32, clipped, so that 2**32 stays out of range and does not become 0."""
    return np.clip(y, np.iinfo(np.int32).min, np.iinfo(np.int32).max).astype(np.int32)


def _split(source: Source, protocol: str, mean: NDArray, scale: NDArray) -> Splits:
    train, val, test = (
        Split(prepare(source.X[rows], mean, scale), _labels(source.y[rows]))
        for rows in (source.train, source.val, source.test)
    )
    return Splits(train, val, test, source.class_names, mean, scale, source.pixels, f"{source.name}/{protocol}")


def _require_cifar10(source: Source, protocol: str) -> None:
    if source.name != "cifar10":
        raise ValueError(f"protocol {protocol} prepares cifar10 only, got {source.name}")
