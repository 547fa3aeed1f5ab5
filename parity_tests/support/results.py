"""Results of sweeps that are to be the same."""

import jax
import numpy as np

from jaxcls.result import SweepResult


def assert_same_bits(one: SweepResult, other: SweepResult) -> None:
    """Fail unless two results have the same table, losses, right predictions and params, bit for bit."""
    for column in one.table.dtype.names or ():
        np.testing.assert_array_equal(one.table[column], other.table[column])
    for name in ("losses", "right"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
