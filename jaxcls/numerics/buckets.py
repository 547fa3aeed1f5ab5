"""Common numbers of examples, so that similar numbers share a compiled program."""

import numpy as np
from jaxtyping import Array, Shaped
from numpy.typing import NDArray

LARGEST = 2**14  # examples, above which their number stays as it is


def padded(rows: Shaped[NDArray | Array, "N *rest"]) -> Shaped[NDArray | Array, "M *rest"]:
    """Rows, and zeros up to the next common number of them: eight to each power of two, multiples of 32.

    Example:
      >>> [len(padded(np.ones((count, 4)))) for count in (5, 150, 160, 1797, 20_000)]
      [32, 160, 160, 1920, 20000]
    """
    step = max(32, 2 ** (len(rows).bit_length() - 4))
    missing = -len(rows) % step if len(rows) <= LARGEST else 0
    return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1)) if missing else rows
