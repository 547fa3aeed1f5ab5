"""Raw examples with train/val/test row indices: the output of loaders and the input of protocols."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """

    name: str
    X: NDArray
    y: NDArray
    train: NDArray[np.integer]
    val: NDArray[np.integer]
    test: NDArray[np.integer]
    class_names: tuple[str, ...]
    pixels: NDArray[np.integer] | None = None
    note: str = ""


def hold_out(
    y: NDArray, *, fraction: float = 0.15, seed: int = 0, by_class: bool = True
) -> tuple[NDArray[np.integer], ...]:
    """Split rows into train, val and test: shuffled by ``seed``, a ``fraction`` each for val and test.

    The split is stratified by class, with at least one example of each class in train. With too few examples for that,
    or without ``by_class``, it ignores the classes.

    Args:
      y: the labels of all examples, ``[N]``, of any dtype.
      fraction: the share of val, and of test.
      seed: seed of the shuffle.
      by_class: whether to stratify by class.

    Raises:
      ValueError: there are too few examples to put one into each split.

    Example:
      >>> train, val, test = hold_out(np.repeat([0, 1, 2], [99, 99, 2]))
      >>> [np.bincount(np.repeat([0, 1, 2], [99, 99, 2])[rows]).tolist() for rows in (train, val, test)]
      [[69, 69, 2], [15, 15], [15, 15]]
    """
    num_examples, held = len(y), max(1, round(fraction * len(y)))
    if num_examples < 2 * held + 1:
        raise ValueError(f"train, val and test need an example each, got {num_examples} examples in all")
    rows = np.random.default_rng(seed).permutation(num_examples)
    in_turn = np.arange(num_examples)
    if by_class:
        classes = np.unique(y, return_inverse=True)[1][rows]
        order = np.argsort(classes, kind="stable")
        spare = order[np.diff(classes[order], prepend=-1) == 0]  # all but the first of each class
        if len(spare) >= 2 * held:
            evenly = spare[np.arange(2 * held) * len(spare) // (2 * held)]
            in_turn = np.concatenate([evenly[::2], evenly[1::2], np.setdiff1d(in_turn, evenly)])
    val, test, train = np.split(rows[in_turn], [held, 2 * held])
    return train, val, test
