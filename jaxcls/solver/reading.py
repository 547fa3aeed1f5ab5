"""Features that the solver reads block by block while it runs, where they do not lie on the device."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import RLock

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Integer
from numpy.typing import NDArray

from jaxcls.solver.eigenbasis import Source

SOLVING = RLock()  # one solver reads at a time


class Blocks:
    """Blocks of rows of features that are read, one while the one before it is computed with.

    An error cannot pass through the solver: it gets NaN from then on, which ends it, and `blocks_of` raises the error.
    """

    def __init__(self, X: Source, rows: int) -> None:
        self.X, self.rows = X, rows
        self.error: Exception | None = None
        self.reader, self.ahead = ThreadPoolExecutor(1, "blocks"), (-1, Future[NDArray]())
        self.shape = jax.ShapeDtypeStruct((rows, *_of_words(X)), np.uint32 if X.dtype.itemsize == 8 else X.dtype)

    def __call__(self, start: int) -> NDArray:
        """The block from this row on."""
        try:
            if self.error:
                raise self.error
            at, block = self.ahead if self.ahead[0] == start else (start, self.reader.submit(self._read, start))
            following = min(at + self.rows, self.X.shape[0] - self.rows) if at + self.rows < self.X.shape[0] else 0
            self.ahead = following, self.reader.submit(self._read, following)
            return block.result()
        except Exception as error:  # of a disk
            self.error = self.error or error
            return np.full((*self.shape.shape, self.shape.dtype.itemsize), 255, np.uint8).view(self.shape.dtype)[..., 0]

    def _read(self, first: int) -> NDArray:
        block = np.ascontiguousarray(self.X[first : first + self.rows])
        return block.view(self.shape.dtype).reshape(self.shape.shape)


def _of_words(X: Source) -> tuple[int, ...]:
    """The shape of a row; of float64, as words of 32 bits, which pass where JAX has no wider ones."""
    return (X.shape[1], 2) if X.dtype.itemsize == 8 else (X.shape[1],)


_current: list[Blocks] = []  # what `read_block` reads; a compiled solver is kept, and must keep no features


def read_block(first: Integer[ArrayLike, ""]) -> NDArray:
    """The block from this row on, of what is being read."""
    return _current[-1](np.asarray(first).item())


@contextmanager
def blocks_of(X: Source, rows: int) -> Iterator[jax.ShapeDtypeStruct]:
    """Let a solver read these blocks meanwhile; the shape and dtype of one.

    Raises:
      ValueError: the features have changed while they were read.
      OSError: they cannot be read.
    """
    with SOLVING:
        blocks = Blocks(X, rows)
        _current.append(blocks)
        try:
            yield blocks.shape
        finally:
            _current.pop()
            blocks.reader.shutdown()
        if blocks.error:
            raise blocks.error
