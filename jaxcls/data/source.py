"""What a loader returns and a protocol prepares: raw examples, and which of them are for what."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Source:
    """Raw labelled examples.

    Attributes:
      name: where they come from.
      X: raw features, ``[N, d]``, of any real dtype.
      y: labels, ``[N]``.
      train, val, test: rows of each split.
      class_names: a name for each class.
      pixels: as in `Splits`.
      note: a sentence the user should see, or empty.
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


def hold_out(num_examples: int, *, fraction: float = 0.15, seed: int = 0) -> list[NDArray[np.integer]]:
    """Rows of train, val and test: shuffled by ``seed``, ``fraction`` of them for val and as many for test.

    Raises:
      ValueError: there are too few examples to put one into each split.

    Example:
      >>> [len(rows) for rows in hold_out(1797)]
      [1257, 270, 270]
    """
    held = max(1, round(fraction * num_examples))
    if num_examples < 2 * held + 1:
        raise ValueError(f"train, val and test need an example each, got {num_examples} examples in all")
    val, test, train = np.split(np.random.default_rng(seed).permutation(num_examples), [held, 2 * held])
    return [train, val, test]
