"""Common numbers of examples, so that similar numbers share a compiled program."""

import numpy as np
from jaxtyping import Array, Shaped
from numpy.typing import NDArray

LARGEST = 2**14  # examples, above which their number stays as it is


def common_number(count: int) -> int:
    """The next common number of examples.

    Example:
      >>> [common_number(count) for count in (5, 150, 160, 1797, 20_000)]
      [32, 160, 160, 1920, 20000]
    """
    step = max(32, 2 ** (count.bit_length() - 4))
    return count + -count % step if count <= LARGEST else count


def padded(rows: Shaped[NDArray | Array, "N *rest"]) -> Shaped[NDArray | Array, "M *rest"]:
    """Rows, and zeros up to the next common number of them: eight to each power of two, multiples of 32.

    Example:
      >>> padded(np.ones((5, 4))).shape
      (32, 4)
    """
    missing = common_number(len(rows)) - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing else rows
