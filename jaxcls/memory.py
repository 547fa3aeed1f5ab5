"""How much memory a sweep takes, and how much there is."""

from typing import Any, NamedTuple

import jax

from jaxcls import host, train, wide
from jaxcls.wide import Problem


class Memory(NamedTuple):
    """Bytes on the device: of the data, and of each cell in training beside them."""

    data: int
    cell: int

    def fits(self, budget: int) -> int:
        """How many cells can train at once within ``budget`` bytes.

        Raises:
          ValueError: not even one.

        Example:
          >>> Memory(data=600, cell=50).fits(1000)
          8
        """
        if (cells := (budget - self.data) // self.cell) < 1:
            raise ValueError(
                f"memory must hold the data and at least one cell, {self.data} + {self.cell} bytes, got {budget}"
            )
        return cells


def estimate(problem: Problem, *, batch_size: int) -> Memory:
    """What training takes: the data; of each cell its state, a gradient, an update, and some activations.

    Example:
      >>> from jaxcls import data, wide
      >>> estimate(wide.problem(data.standard(data.load_digits())), batch_size=200)
      Memory(data=403128, cell=167800)
    """
    cell = wide.cell(problem)
    num_features, *activations = problem.sizes[-1]
    data = sum(problem.parts) * (num_features * problem.dtype.itemsize + 4)
    outputs = max(batch_size, train.EVALUATION_BATCH) * sum(activations) * problem.dtype.itemsize
    return Memory(data, _nbytes(cell) + 2 * _nbytes(cell.params) + 4 * outputs)


def available() -> int:
    """Bytes a sweep may fill on each device: nine tenths of its memory; of the host's, half, shared by its devices."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(0.9 * stats["bytes_limit"])
    return host.memory() // (2 * jax.local_device_count())


def _nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
