"""Arrays that a file gives part by part: joined in memory, or on disk where they would take up much of that."""

import errno
import itertools
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxcls import memory
from jaxcls.data.rows import OnDisk, Rows

SHARE = 1 / 4  # of the memory


def joined(parts: Iterable[NDArray], num_rows: int) -> NDArray | Rows:
    """Parts of so many rows, one after another; a matrix of over a quarter of the memory in a temporary file.

    The file lies in the folder that `tempfile.gettempdir` names, and is removed with the rows, at the latest when the
    process ends.

    Raises:
      ValueError: there are no parts, or not so many rows, those of a matrix are of several widths, or the folder has no
        room for them.

    Example:
      >>> joined([np.eye(2), np.zeros((1, 2))], 3).shape
      (3, 2)
    """
    parts = _alike(parts)
    first = next(parts, None)
    if first is None:
        raise ValueError("it holds no rows")
    every = itertools.chain([first], parts)
    if first.ndim == 1:
        return np.concatenate([*every])  # of text, whose width is known at the end
    if num_rows * first.shape[1] * first.itemsize > SHARE * memory.host():
        return _on_disk(every)
    whole, end = np.empty((num_rows, first.shape[1]), first.dtype), 0
    for part in every:
        whole[end : end + len(part)] = part
        end += len(part)
    if end != num_rows:
        raise ValueError(f"it must hold {num_rows} rows, got {end}")
    return whole


def _alike(parts: Iterable[NDArray]) -> Iterator[NDArray]:
    """The parts, checked to be as wide as the first."""
    first = None
    for part in parts:
        first = part if first is None else first
        if part.shape[1:] != first.shape[1:]:
            raise ValueError(f"it must hold lists of one length, got {first.shape[1]} and {part.shape[1]}")
        yield part


def _on_disk(parts: Iterator[NDArray]) -> Rows:
    number, name = tempfile.mkstemp(prefix="jaxcls-", suffix=".rows")
    path, num_rows = Path(name), 0
    try:
        with os.fdopen(number, "wb") as file:
            for part in parts:
                file.write(np.ascontiguousarray(part).data)
                num_rows += len(part)
        rows = OnDisk(path, 0, (num_rows, part.shape[1]), part.dtype)
    except BaseException as error:
        path.unlink()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ValueError(f"its rows need more room than {path.parent} has: TMPDIR names another folder") from None
        raise
    weakref.finalize(rows, path.unlink)
    return Rows([rows])
