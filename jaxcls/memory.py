"""How much memory there is, and how many cells fit into it."""

from typing import NamedTuple

import jax

from jaxcls import host


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


def available() -> int:
    """Bytes to fill on each device: nine tenths of its memory; of the host's, half, shared by its devices."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(0.9 * stats["bytes_limit"])
    return host.memory() // (2 * jax.local_device_count())
