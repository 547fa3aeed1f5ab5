"""The 1,797 handwritten digits bundled with scikit-learn: real data, no download."""

import numpy as np

from jaxcls.data.source import Source, hold_out
from jaxcls.numerics import require


def load_digits() -> Source:
    """Load 8 x 8 greyscale images of handwritten digits, pixels 0 to 16, split 1,257 / 270 / 270.

    Example:
      >>> load_digits().X.shape
      (1797, 64)

    Raises:
      ModuleNotFoundError: scikit-learn is not installed.

    References:
      Alpaydin and Kaynak, `Optical recognition of handwritten digits
      <https://archive.ics.uci.edu/dataset/80>`_, 1998. scikit-learn bundles its test set.
    """
    require("jaxcls.data.load_digits", "sklearn", extra="sklearn")
    from sklearn import datasets  # takes a second to import

    X, y = datasets.load_digits(return_X_y=True)
    names = tuple(str(digit) for digit in range(10))
    split, _ = hold_out(y, by_class=False)  # all published figures use this split
    return Source("digits", X, y, split["train"], split["val"], split["test"], names, np.arange(64).reshape(8, 8))
