"""Features that are read when they are used: rows of files, of tables of other libraries, of several of them in turn.

A file is read by position, not mapped into memory: a disk that fails is then an error, where a map would end the
process, and what was read does not count as memory of the process.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

GAP = 2**13  # bytes between two rows, up to which they are read together
FEW = 4  # neighbours that are read one by one, which takes less time than to copy them from what was read
RUN = 2**22  # bytes read together at most
READERS = 8  # reads at once: what a disk answers side by side
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
        self.seen = _state(path.stat())
        if (size := self.seen[0]) < (end := offset + shape[0] * self.width):
            raise ValueError(f"it is truncated: its {shape[0]} rows end at byte {end}, got {size} bytes")

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray:
        """Some rows that stand next to each other."""
        first, stop, _ = rows.indices(len(self))
        found = np.empty((max(stop - first, 0), self.shape[1]), self.dtype)
        self.read(first, found)
        return found

    def read(self, first: int, found: NDArray) -> None:
        """Fill an array with the rows from ``first`` on.

        Raises:
          ValueError: the file has changed since it was opened.
          OSError: it cannot be read.
        """
        with self._open() as file:
            self._fill(file, memoryview(found.view(np.uint8).reshape(-1).data), self.offset + first * self.width)

    def scatter(self, rows: Int[NDArray, "M"], found: NDArray, places: Int[NDArray, "M"]) -> None:
        """Read rows that lie far apart into these places of an array; the same errors."""
        into, width = memoryview(found.view(np.uint8).reshape(-1).data), self.width
        ends = (self.offset + rows * width).tolist(), (places * width).tolist()
        with self._open() as file:
            for at, place in zip(*ends, strict=True):
                self._fill(file, into[place : place + width], at)

    @contextmanager
    def _open(self) -> Iterator[int]:
        """The file, for as long as something is read: one for each of a thousand shards would be too many.

        Raises:
          ValueError: the file has changed since it was first seen.
          OSError: it cannot be read.
        """
        try:
            file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                yield file
                now = _state(os.fstat(file))
            finally:
                os.close(file)
        except OSError as error:
            raise OSError(f"{self.path} cannot be read: {error.strerror}") from None
        if now != self.seen:
            raise ValueError(f"{self.path} has changed since it was opened")

    def _fill(self, file: int, into: memoryview, at: int) -> None:
        while into:
            count = _read(file, into, at)
            if not count:
                raise ValueError(f"{self.path} has changed since it was opened")
            into, at = into[count:], at + count


def _state(status: os.stat_result) -> tuple[int, int]:
    """Size and time of a file, which change when it does."""
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
            if (width := head.shape[1]) != (expected := heads[0].shape[1]):
                raise ValueError(f"{name} must have {expected} features as {self.names[0]}, got {width}")
        self.ends = np.cumsum([len(piece) for piece in self.pieces])
        self.shape = int(self.ends[-1]), heads[0].shape[1]
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

    def __getitem__(self, rows: slice | Int[NDArray, "M"]) -> NDArray:
        """These rows, in this order; read in the order in which they lie, neighbours together."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        rows = np.asarray(rows)
        if rows.dtype == bool or (len(rows) and not 0 <= rows.min() <= rows.max() < len(self)):
            raise IndexError(f"rows must be numbers from 0 to {len(self) - 1}")
        found, order = np.empty((len(rows), self.shape[1]), self.dtype), np.argsort(rows, kind="stable")
        rows = rows[order]
        starts, stops = self._runs(rows)
        alone = stops - starts <= FEW

        def read_runs(runs: Iterable[tuple[int, int]]) -> None:
            for first, stop in runs:
                low, into = int(rows[first]), order[first:stop]
                number, begin = self._piece(low)
                block = np.asarray(self.pieces[number][low - begin : int(rows[stop - 1]) - begin + 1])
                if not np.can_cast(block.dtype, self.dtype):
                    raise ValueError(f"X must be of one dtype, got {self.dtype} and, from row {low} on, {block.dtype}")
                found[into] = block[rows[first:stop] - low]

        def read_alone(some: Int[NDArray, "M"]) -> None:
            number = np.searchsorted(self.ends, rows[some], side="right")
            for each in np.unique(number).tolist():
                mine, piece = some[number == each], self.pieces[each]
                begin = self.ends[each] - len(piece)
                if isinstance(piece, OnDisk) and piece.dtype == self.dtype:
                    piece.scatter(rows[mine] - begin, found, order[mine])
                else:
                    read_runs([(first, first + 1) for first in mine.tolist()])

        runs = list(zip(starts[~alone].tolist(), stops[~alone].tolist(), strict=True))
        share = max(1, len(runs) // (4 * READERS))
        jobs = [functools.partial(read_runs, runs[first : first + share]) for first in range(0, len(runs), share)]
        scattered = np.flatnonzero(np.repeat(alone, stops - starts))
        jobs += [functools.partial(read_alone, some) for some in np.array_split(scattered, READERS) if len(some)]
        if len(jobs) > 2 and all(isinstance(piece, OnDisk) for piece in self.pieces):
            list(POOL.map(lambda job: job(), jobs))
        else:
            for job in jobs:
                job()
        return found

    def where(self, row: int) -> tuple[str, int]:
        """The name of the piece that holds a row, and the row's number in it."""
        number, begin = self._piece(row)
        return self.names[number], row - begin

    def _piece(self, row: int) -> tuple[int, int]:
        """The number of the piece that holds a row, and its first row."""
        number = int(np.searchsorted(self.ends, row, side="right"))
        return number, int(self.ends[number]) - len(self.pieces[number])

    def _runs(self, rows: Int[NDArray, "M"]) -> tuple[Int[NDArray, "R"], Int[NDArray, "R"]]:
        """The first and the last index of those that are read together, among rows in ascending order."""
        width = max(1, self.shape[1] * self.dtype.itemsize)
        far = np.diff(rows) > max(1, GAP // width)
        other = np.diff(np.searchsorted(self.ends, rows, side="right")) > 0
        long = np.diff(rows // max(1, RUN // width)) > 0
        cuts = np.flatnonzero(far | other | long) + 1
        bounds = np.concatenate([[0], cuts, [len(rows)]]) if len(rows) else np.zeros(1, int)
        return bounds[:-1], bounds[1:]
