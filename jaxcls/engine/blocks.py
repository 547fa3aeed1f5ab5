"""The cells of a grid that share a program, those of them that train side by side, and those that train together."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

COMPILATION = 3e11  # multiplications that take about as long as compiling the programs of one more group


class Stack(NamedTuple):
    """Cells of one program, side by side: the number of their group, and their rows of the grid, ``[S, G]``."""

    group: int
    rows: NDArray[np.integer]


class Block(tuple[Stack, ...]):
    """Stacks that train together, on the same minibatches."""

    @property
    def rows(self) -> NDArray[np.integer]:
        """The rows of the grid that they train, once each, as some may fill up a stack."""
        return np.unique(np.concatenate([stack.rows.ravel() for stack in self]))


def groups(sizes: Mapping[int, int], work: float) -> list[tuple[int, ...]]:
    """The sizes that share a program, in which all are padded to the largest: of cells' nets, or of batches.

    Padding costs multiplications, another program costs a compilation: these are the groups that cost least.

    Args:
      sizes: how many there are of each size.
      work: multiplications for one unit of one of them, over the whole run.

    Example:
      >>> groups({2: 1, 8: 1, 32: 1, 128: 1}, work=1e8)
      [(2, 8, 32, 128)]
      >>> groups({2: 1, 8: 1, 32: 1, 128: 1}, work=1e10)
      [(2, 8), (32,), (128,)]
    """
    ascending = sorted(sizes)
    cheapest: list[tuple[float, list[tuple[int, ...]]]] = [(0.0, [])]  # of the first k sizes
    for end in range(1, len(ascending) + 1):
        ways = []
        for start in range(end):
            cost, before = cheapest[start]
            group = tuple(ascending[start:end])
            padded = sum(sizes[size] for size in group) * group[-1]
            ways.append((cost + COMPILATION + work * padded, [*before, group]))
        cheapest.append(min(ways, key=lambda way: way[0]))
    return cheapest[-1][1]


def stacks(rows: NDArray[np.integer], fits: int, *, num_devices: int = 1) -> list[NDArray[np.integer]]:
    """Rows of a grid in stacks of one shape: whole replicates while they fit, else parts of one.

    Args:
      rows: ``[S, G]``, a column for the replicates of each setting.
      fits: the most cells of a stack on one device.
      num_devices: every device gets as many cells of a stack.

    Example:
      >>> [stack.tolist() for stack in stacks(np.array([[0, 2], [1, 3]]), fits=2)]
      [[[0, 2]], [[1, 3]]]
    """
    num_replicates, num_cells = rows.shape
    if not num_cells:
        return []
    per_device = -(-num_cells // num_devices)
    replicates = _even_parts(num_replicates, max(1, fits // per_device))
    cells = _even_parts(num_cells, fits * num_devices, multiple=num_devices)
    return [rows[np.ix_(r, c)] for r in replicates for c in cells]


def _even_parts(count: int, limit: int, *, multiple: int = 1) -> NDArray[np.integer]:
    """``range(count)`` in rows of at most ``limit``, all equally long: the last index fills up the last row.

    The length is a multiple of ``multiple``, as the limit has to be.

    One shape means one compilation; a cell trained twice costs less than a second one.
    """
    number = -(-count // limit)
    length = -(-count // (number * multiple)) * multiple
    return np.minimum(np.arange(number * length), count - 1).reshape(number, length)
