"""Features that are read when they are used: rows of files, of tables of other libraries, of several of them in turn.

A file is read by position, not mapped into memory: a disk that fails is then an error, where a map would end the
process, and what was read does not count as memory of the process.
"""

import itertools
import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from numpy.typing import ArrayLike, NDArray

GAP = 2**14  # bytes between two rows, up to which they are read together
RUN = 2**22  # bytes read together at most
READERS = 16  # reads at once: what a disk answers side by side
POOL, SEEK = ThreadPoolExecutor(READERS, "read"), Lock()


@runtime_checkable
class Piece(Protocol):
    """Rows that can be sliced: an array, `OnDisk`, a dataset of h5py or zarr, a column of Hugging Face's datasets."""

    def __len__(self) -> int:
        """The number of rows."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Some rows that stand next to each other, as an array or what NumPy makes one of."""


class OnDisk:
    """The rows of a matrix in a file.

    Args:
      path: the file.
      offset: of the first number, in bytes.
      shape: of the matrix, whose rows lie one after another.
      dtype: of its numbers, in any byte order.

    Raises:
      ValueError: the file ends before the matrix does.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, int], dtype: np.dtype) -> None:
        self.path, self.offset, self.shape, self.dtype = path, offset, shape, dtype
        self.width = shape[1] * dtype.itemsize  # bytes of a row
        self.file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self.file)
        self.seen = self._state()
        if (size := self.seen[0]) < (end := offset + shape[0] * self.width):
            raise ValueError(f"it is truncated: its {shape[0]} rows end at byte {end}, got {size} bytes")

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray:
        """Some rows that stand next to each other.

        Raises:
          ValueError: the file has changed since it was opened.
          OSError: it cannot be read.
        """
        first, stop, _ = rows.indices(len(self))
        found = np.empty((max(stop - first, 0), self.shape[1]), self.dtype)
        into, at = memoryview(found.view(np.uint8).reshape(-1).data), self.offset + first * self.width
        while into:
            try:
                count = _read(self.file, into, at)
            except OSError as error:
                raise OSError(f"{self.path} cannot be read: {error.strerror}") from None
            if not count or self._state() != self.seen:
                raise ValueError(f"{self.path} has changed since it was opened")
            into, at = into[count:], at + count
        return found

    def _state(self) -> tuple[int, int]:
        """Size and time of the file, which change when it does."""
        status = os.fstat(self.file)
        return status.st_size, status.st_mtime_ns


def _read(file: int, into: memoryview, at: int) -> int:
    """Read from a position of an open file; how many bytes were read."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [into], at)
    with SEEK:  # on Windows a position belongs to the file
        os.lseek(file, at, os.SEEK_SET)
        content = os.read(file, len(into))
    into[: len(content)] = content
    return len(content)


class Rows:
    """Features ``[N, D]`` in one or several pieces, as if they were one array; nothing is kept of what was read.

    Args:
      pieces: each with the same number of columns.
      names: of the pieces, for errors about what they hold.

    Attributes:
      shape: ``(N, D)``.
      dtype: the common one of the pieces, in this machine's byte order.

    Raises:
      ValueError: the pieces are of different widths.

    Example:
      >>> rows = Rows([np.eye(3), np.zeros((2, 3))])
      >>> rows.shape, rows[np.array([4, 0])].tolist()
      ((5, 3), [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    """

    ndim = 2

    def __init__(self, pieces: Sequence[Piece], names: Sequence[str] = ()) -> None:
        self.pieces: list[Piece] = []
        self.names: list[str] = []
        for piece, name in zip(pieces, names or ["X"] * len(pieces), strict=True):
            inner = piece.pieces if isinstance(piece, Rows) else [piece]
            self.pieces += inner
            self.names += piece.names if isinstance(piece, Rows) and len(inner) > 1 else [name] * len(inner)
        heads = [np.asarray(piece[0:1]) for piece in self.pieces]
        for name, head in zip(self.names, heads, strict=True):
            if head.ndim != 2:
                raise ValueError(f"{name} must have shape [N, D], got {['N', *head.shape[1:]]}")
        if len(widths := {head.shape[1] for head in heads}) != 1:
            wide = ", ".join(f"{name} {head.shape[1]}" for name, head in zip(self.names, heads, strict=True))
            raise ValueError(f"all pieces must be of one width, got {wide}")
        self.ends = np.cumsum([len(piece) for piece in self.pieces])
        self.shape = int(self.ends[-1]), widths.pop()
        dtype = heads[0].dtype if len(heads) == 1 else np.result_type(*(head.dtype for head in heads))
        self.dtype = dtype.newbyteorder("=")

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    @property
    def size(self) -> int:
        """The number of numbers."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.size * self.dtype.itemsize

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> NDArray:
        """All rows."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: slice | Int[ArrayLike, "M"]) -> NDArray:
        """These rows, in this order; read in the order in which they lie, neighbours together."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows)
        found, order = np.empty((len(rows), self.shape[1]), self.dtype), np.argsort(rows, kind="stable")
        runs = self._runs(rows[order])

        def read(first: int, stop: int) -> None:
            into = order[first:stop]
            wanted = rows[into]
            number, start = self._piece(int(wanted[0]))
            block = np.asarray(self.pieces[number][int(wanted[0]) - start : int(wanted[-1]) - start + 1])
            if len(wanted) == len(block) == into[-1] - into[0] + 1 and (np.diff(into) == 1).all():
                found[into[0] : into[-1] + 1] = block
            else:
                found[into] = block[wanted - wanted[0]]

        side_by_side = len(runs) > 2 and all(isinstance(piece, OnDisk) for piece in self.pieces)
        for _ in (POOL.map if side_by_side else map)(read, *zip(*runs, strict=True)) if runs else ():
            pass
        return found

    def where(self, row: int) -> tuple[str, int]:
        """The name of the piece that holds a row, and the row's number in it."""
        number, start = self._piece(row)
        return self.names[number], row - start

    def _piece(self, row: int) -> tuple[int, int]:
        """The number of the piece that holds a row, and the piece's first row."""
        number = int(np.searchsorted(self.ends, row, side="right"))
        return number, int(self.ends[number - 1]) if number else 0

    def _runs(self, rows: Int[NDArray, "M"]) -> list[tuple[int, int]]:
        """The first and last index, of rows in ascending order, of those that are read together."""
        if not len(rows):
            return []
        width = max(1, self.shape[1] * self.dtype.itemsize)
        far = np.diff(rows) > max(1, GAP // width)
        other = np.diff(np.searchsorted(self.ends, rows, side="right")) > 0
        long = np.diff(rows // max(1, RUN // width)) > 0
        cuts = [0, *(np.flatnonzero(far | other | long) + 1).tolist(), len(rows)]
        return list(itertools.pairwise(cuts))
