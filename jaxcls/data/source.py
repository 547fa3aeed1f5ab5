"""Raw examples with train/val/test row indices: the output of loaders and the input of protocols."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxcls.data.rows import Rows


@dataclass(frozen=True, eq=False)
class Source:
    """Raw labelled examples.

    Attributes:
      name: name of the data.
      X: raw features, ``[N, d]``, of any real dtype.
      y: labels, ``[N]``.
      train, val, test: rows of each split.
      class_names: a name for each class.
      pixels: as in `Splits`.
      note: a message for the user, or empty.
      feature_names: of the columns of X, where the data have them.
    """

    name: str
    X: NDArray | Rows
    y: NDArray
    train: NDArray[np.integer]
    val: NDArray[np.integer]
    test: NDArray[np.integer]
    class_names: tuple[str, ...]
    pixels: NDArray[np.integer] | None = None
    note: str = ""
    feature_names: tuple[str, ...] = ()


def hold_out(
    y: NDArray,
    roles: Sequence[str] = ("val", "test"),
    *,
    fraction: float = 0.15,
    seed: int = 0,
    by_class: bool = True,
) -> tuple[dict[str, NDArray], bool]:
    """Split rows into train and other roles: shuffled by ``seed``, a ``fraction`` for each role.

    The split is stratified by class, with at least one example of each class in train. With too few examples for that,
    or without ``by_class``, it ignores the classes.

    Args:
      y: the labels of all examples, ``[N]``, of any dtype.
      roles: names of the splits beside train.
      fraction: the share of each.
      seed: seed of the shuffle.
      by_class: whether to stratify by class.

    Returns:
      The rows of train and of each role, and whether they are stratified.

    Raises:
      ValueError: there are too few examples to put one into each split.

    Example:
      >>> y = np.repeat([0, 1, 2], [99, 99, 2])
      >>> rows, by_class = hold_out(y)
      >>> {role: np.bincount(y[rows[role]]).tolist() for role in rows}
      {'train': [69, 69, 2], 'val': [15, 15], 'test': [15, 15]}
    """
    num_examples, held = len(y), max(1, round(fraction * len(y)))
    num_held = len(roles) * held
    if num_examples < num_held + 1:
        splits = " and ".join(["train", *roles]) if len(roles) < 2 else f"train, {' and '.join(roles)}"
        raise ValueError(f"{splits} need an example each, got {num_examples} examples in all")
    rows = np.random.default_rng(seed).permutation(num_examples)
    in_turn, by_class = np.arange(num_examples), by_class and num_held > 0
    if by_class:
        classes = np.unique(y, return_inverse=True)[1][rows]
        order = np.argsort(classes, kind="stable")
        spare = order[np.diff(classes[order], prepend=-1) == 0]  # all but the first of each class
        if by_class := len(spare) >= num_held:
            evenly = spare[np.arange(num_held) * len(spare) // num_held]
            by_role = [evenly[k :: len(roles)] for k in range(len(roles))]
            in_turn = np.concatenate([*by_role, np.setdiff1d(in_turn, evenly)])
    *others, train = np.split(rows[in_turn], np.arange(1, len(roles) + 1) * held)
    return dict(zip(["train", *roles], [train, *others], strict=True)), by_class
