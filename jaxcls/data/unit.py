"""Examples scaled to length 1, as zero-shot models compare them."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real
from numpy.typing import NDArray

from jaxcls.data.rows import Rows

BLOCK = 2**12  # examples in float64 at once
SHORTEST = 1e-12  # no example is divided by less, as in torch.nn.functional.normalize


def unit_length(X: Real[NDArray, "N D"]) -> Float[NDArray, "N D"]:
    """Examples divided by their L2 norms, in JAX's default float.

    Example:
      >>> unit_length(np.array([[3, 4], [0, 0]])).tolist()
      [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    found = np.empty(X.shape, jnp.result_type(float))
    for first in range(0, len(X), BLOCK):
        some = X[first : first + BLOCK].astype(np.float64)
        norms = np.linalg.norm(some, axis=1, keepdims=True)
        found[first : first + BLOCK] = some / np.maximum(norms, SHORTEST)
    return found


@dataclass(frozen=True)
class UnitLength:
    """Rows that are scaled when they are read."""

    rows: Rows

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    def __getitem__(self, which: slice) -> Float[NDArray, "M D"]:
        """Some rows that stand next to each other."""
        return unit_length(self.rows[which])


def scaled(X: NDArray | Rows) -> NDArray | Rows:
    """Features of unit length: of an array at once, of files when they are read."""
    return Rows([UnitLength(X)], ["X"]) if isinstance(X, Rows) else unit_length(X)
