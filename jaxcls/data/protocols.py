"""Protocols that turn raw examples into splits: as they are, scaled, standardised, and the courses' CIFAR-10."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxcls.data.moments import Pass, check_range, merged, scan
from jaxcls.data.rows import POOL, Rows
from jaxcls.data.source import Source
from jaxcls.data.split import Split
from jaxcls.data.splits import Folds, Splits, Tries
from jaxcls.data.unit import scaled


def raw(source: Source) -> Splits:
    """Take features as they are.

    Example:
      >>> from jaxcls import data
      >>> raw(data.load_digits()).train.X.max()
      np.float32(16.0)
    """
    return _split(source, "raw", _scan(source, []), *_as_it_is(source))


def l2(source: Source) -> Splits:
    """Scale every example to length 1.

    Example:
      >>> from jaxcls import data
      >>> print(np.linalg.norm(l2(data.load_digits()).train.X[:3], axis=1).round(6))
      [1. 1. 1.]
    """
    splits = raw(replace(source, X=scaled(source.X)))
    return replace(splits, name=f"{source.name}/l2", unit_length=True)


def standard(source: Source) -> Splits:
    """Standardise every feature to mean 0 and standard deviation 1 over train; centre a constant one.

    Example:
      >>> from jaxcls import data
      >>> splits = standard(data.load_digits())
      >>> splits.train.X.shape, splits.num_classes
      ((1257, 64), 10)
    """
    found = _scan(source, [source.train])
    return _split(source, "standard", found, found.groups[0].mean, found.groups[0].scale())


def raw_folds(source: Source, parts: Sequence[NDArray[np.integer]]) -> Folds:
    """`standard_folds` of features as they are."""
    return _folds(source, parts, "raw", _scan(source, []), [_as_it_is(source)] * (1 + len(parts)))


def l2_folds(source: Source, parts: Sequence[NDArray[np.integer]]) -> Folds:
    """`standard_folds` of examples scaled to length 1."""
    folds = raw_folds(replace(source, X=scaled(source.X)), parts)
    return replace(folds, name=f"{source.name}/l2, {len(parts)} folds")


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
    found = _scan(source, parts)
    others = [merged(found.groups[:k] + found.groups[k + 1 :]) for k in range(len(parts))]
    moments = [(each.mean, each.scale()) for each in (merged(found.groups), *others)]
    return _folds(source, parts, "standard", found, moments)


def cs231n(source: Source) -> Splits:
    """CS231n's CIFAR-10: pixels 0 to 255, height-width-channel, minus the mean image of train.

    Train is the first 49,000 images, val the next 1,000, test the first 1,000 of the test set: ``D = 3072``.

    Raises:
      ValueError: the source is not CIFAR-10.
    """
    _require_cifar10(source, "cs231n")
    X = _channels_last(np.asarray(source.X))
    train, val, test = np.split(np.arange(51_000), [49_000, 50_000])
    source = replace(source, X=X, train=train, val=val, test=test, pixels=np.arange(3072).reshape(32, 32, 3))
    found = _scan(source, [train])
    return _split(source, "cs231n", found, found.groups[0].mean, np.ones(3072))


def _channels_last(X: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images ``[N, 3 * 32 * 32]`` as ``[N, 32 * 32 * 3]``, the channels side by side."""
    found = np.empty_like(X)
    before, after = X.reshape(-1, 3, 32 * 32), found.reshape(-1, 32 * 32, 3)
    # A channel at a time, or NumPy's innermost loop runs over the three channels of one pixel.
    list(POOL.map(lambda k: np.copyto(after[..., k], before[:, k]), range(3)))
    return found


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
    found = _scan(source, [np.arange(50_000)])
    channel_means = found.groups[0].mean.reshape(3, 1024).mean(axis=1)
    # x / 255 less the mean of x / 255 is (x - mean) / 255.
    return _split(source, "eecs498", found, np.repeat(channel_means, 1024), np.full(3072, 255.0))


def tries(splits: Splits, subsets: Sequence[NDArray[np.integer]]) -> Tries:
    """Several subsets of train, each with the same val and test, standardised by the subset if that is by train.

    Args:
      splits: made by `standard`, `raw` or `l2`.
      subsets: the examples of each, counted in train, as many in all.

    Raises:
      ValueError: they are not as many in all, or train and val are not standardised alike.

    Example:
      >>> from jaxcls import data
      >>> few = tries(standard(data.load_digits()), [np.arange(50), np.arange(90, 140)])
      >>> few.split(1).parts, len(few.examples)
      ((50, 270), 370)
    """
    if len(sizes := {len(subset) for subset in subsets}) != 1:
        raise ValueError(f"subsets must be of one size, got {sorted(sizes)}")
    examples, (num_train, num_val) = splits.examples, splits.parts
    if examples.mean is not splits.train.mean:
        raise ValueError("splits must have one mean and scale, those of train and val are others")
    moments = [(splits.mean, splits.scale)] * len(subsets)
    if splits.name.endswith("/standard"):
        found = [scan(examples[subset], np.zeros(len(subset), int), 1) for subset in subsets]
        moments = [_of_device(examples.raw, each.groups[0].mean, each.groups[0].scale()) for each in found]
        for each, own in zip(found, moments, strict=True):
            check_range(each, *own)
    (mean, scale), *_ = moments
    chosen = np.concatenate([*subsets, num_train + np.arange(num_val)])
    rows = chosen if examples.rows is None else examples.rows[chosen]
    return Tries(
        train=Split(examples.raw, examples.y[chosen], rows, mean, scale, examples.digest),
        parts=(sizes.pop(), num_val),
        **_of_folds((mean, scale), moments),
        class_names=splits.class_names,
        name=f"{splits.name}, {len(subsets)} tries",
        whole=splits,
    )


PROTOCOLS: dict[str, Callable[[Source], Splits]] = {
    "standard": standard,
    "raw": raw,
    "l2": l2,
    "cs231n": cs231n,
    "eecs498": eecs498,
}
FOLDS: dict[str, Callable[[Source, Sequence[NDArray[np.integer]]], Folds]] = {
    "standard": standard_folds,
    "raw": raw_folds,
    "l2": l2_folds,
}


def _as_it_is(source: Source) -> tuple[NDArray, NDArray]:
    """The mean and scale of features that are not standardised."""
    return np.zeros(source.X.shape[1]), np.ones(source.X.shape[1])


def _scan(source: Source, groups: Sequence[NDArray[np.integer]]) -> Pass:
    """One pass over the features, with the moments of these rows."""
    group = np.full(len(source.X), -1)
    for k, rows in enumerate(groups):
        group[rows] = k
    return scan(source.X, group, len(groups))


def _of_device(X: NDArray | Rows, mean: NDArray, scale: NDArray) -> tuple[NDArray, NDArray]:
    """Moments as a device applies them to raw features: rounded where it does, see `Split.stays_raw`."""
    default = jnp.result_type(float)
    if not np.can_cast(X.dtype, default):
        return mean, scale
    with np.errstate(over="ignore", under="ignore"):
        rounded = mean.astype(default).astype(float), scale.astype(default).astype(float)
    return rounded if np.isfinite(rounded).all() and rounded[1].all() else (mean, scale)


def _labels(y: NDArray[np.integer]) -> NDArray[np.int32]:
    """Labels as int32, clipped, so that 2**32 stays out of range and does not become 0."""
    return np.clip(y, np.iinfo(np.int32).min, np.iinfo(np.int32).max).astype(np.int32)


def _split(source: Source, protocol: str, found: Pass, mean: NDArray, scale: NDArray) -> Splits:
    mean, scale = _of_device(source.X, mean, scale)
    check_range(found, mean, scale)
    train, val, test = (
        Split(source.X, _labels(source.y[rows]), rows, mean, scale, found.digest)
        for rows in (source.train, source.val, source.test)
    )
    name, columns = f"{source.name}/{protocol}", source.feature_names
    return Splits(train, val, test, source.class_names, mean, scale, source.pixels, name, feature_names=columns)


def _folds(
    source: Source,
    parts: Sequence[NDArray[np.integer]],
    protocol: str,
    found: Pass,
    moments: Sequence[tuple[NDArray, NDArray]],
) -> Folds:
    """Folds with these means and scales: of all examples, then of each fold's train."""
    rows = np.concatenate(parts)
    if len(np.unique(rows)) < len(rows):
        raise ValueError("parts must have no row in common, or what is held out would be trained on")
    (mean, scale), *folds = (_of_device(source.X, *each) for each in moments)
    for each in folds:
        check_range(found, *each)
    return Folds(
        train=Split(source.X, _labels(source.y[rows]), rows, mean, scale, found.digest),
        parts=tuple(len(part) for part in parts),
        **_of_folds((mean, scale), folds),
        class_names=source.class_names,
        name=f"{source.name}/{protocol}, {len(parts)} folds",
    )


def _of_folds(whole: tuple[NDArray, NDArray], folds: Sequence[tuple[NDArray, NDArray]]) -> dict[str, Any]:
    """Mean and scale of `Folds`, and those of each fold."""
    (mean, scale), (fold_mean, fold_scale) = whole, map(np.stack, zip(*folds, strict=True))
    return {"mean": mean, "scale": scale, "fold_mean": fold_mean, "fold_scale": fold_scale}


def _require_cifar10(source: Source, protocol: str) -> None:
    if source.name != "cifar10":
        raise ValueError(f"protocol {protocol} prepares cifar10 only, got {source.name}")
