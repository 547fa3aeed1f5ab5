"""Examples on their way to the devices: all at once, to lie there; or a few at a time, read while others train.

Both give the compiled programs the same arguments, examples and the rows of them that make minibatches. So a program
does not know where its examples come from, and its results are the same to the bit.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Int, PyTree
from numpy.typing import NDArray

from jaxcls.data import Folds, Splits
from jaxcls.engine.cells import Examples
from jaxcls.engine.devices import EVERYWHERE, put
from jaxcls.numerics import common_number

Fed = tuple[Examples, jax.Array]  # and the rows of them, in the shape in which rows of the data were asked for
ALIGNMENT = 64  # bytes; JAX takes an array of the host that begins at a multiple of them as it is, others it copies
READ = 2**14  # rows read together
POOL = ThreadPoolExecutor(1, "load")  # while programs are compiled


class Feed:
    """The examples of a sweep.

    Args:
      on: the devices.
      data: the examples.
      stream: whether they come a few at a time.

    Example:
      >>> from jaxcls import data
      >>> from jaxcls.engine.devices import mesh
      >>> on, splits = mesh(jax.devices()[:1]), data.standard(data.load_digits())
      >>> for stream in (False, True):
      ...     examples, rows = Feed(on, splits, stream=stream)(np.array([[5, 1001, 5]]))
      ...     print(examples.X.shape, examples.y[rows])
      (1536, 64) [[1 6 1]]
      (3, 64) [[1 6 1]]
    """

    def __init__(self, on: Mesh, data: Splits | Folds, *, stream: bool) -> None:
        self.on, self.data, self.stream = on, data, stream
        moments = data.moments()
        self.moments = (None, None) if moments is None else tuple(put(on, each) for each in moments)
        self.wide = jnp.result_type(float) == np.float64
        self.count = common_number(len(data.examples))
        self.all = None if stream else POOL.submit(self._examples, np.arange(len(data.examples)), self.count)

    def __call__(self, rows: Int[NDArray, "*shape"]) -> Fed:
        """Examples on the devices, and where these rows are among them."""
        if self.all is not None:
            return self.all.result(), put(self.on, rows.astype(np.int32))
        wanted, place = np.unique(rows, return_inverse=True)
        return self._examples(wanted, rows.size), put(self.on, place.reshape(rows.shape).astype(np.int32))

    def ahead(self, jobs: Iterable[NDArray[np.integer]]) -> Iterator[Fed]:
        """`__call__` for each of these arrays of rows, one read while the one before it is used."""
        with ThreadPoolExecutor(1, "feed") as reader:
            following = None
            for rows in jobs:
                present, following = following, reader.submit(self, rows)
                if present is not None:
                    yield present.result()
            if following is not None:
                yield following.result()

    def shapes(self, count: int) -> Examples:
        """Shapes, dtypes and sharding of the examples that come with so many rows."""
        data, count = self.data.examples, count if self.stream else self.count
        X: PyTree = jax.ShapeDtypeStruct((count, data.num_features), data.stored_dtype)
        y: PyTree = jax.ShapeDtypeStruct((count,), np.int32)
        return jax.tree.map(self._shape, Examples(X, y, *self.moments))

    def _examples(self, rows: Int[NDArray, "M"], count: int) -> Examples:
        """These rows of the data, and zeros up to this number of them."""
        data = self.data.examples
        with jax.enable_x64(self.wide):  # a setting of each thread
            X, y = _aligned((count, data.num_features), data.stored_dtype), np.zeros(count, np.int32)
            order = data.order(rows)
            for first in range(0, len(rows), READ):
                some = order[first : first + READ]
                X[some] = data.stored(rows[some])
            X[len(rows) :] = 0
            y[: len(rows)] = data.y[rows]
            return Examples(put(self.on, X), put(self.on, y), *self.moments)

    def _shape(self, array: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(self.on, EVERYWHERE))


def _aligned(shape: tuple[int, int], dtype: np.dtype) -> NDArray:
    """An uninitialised array that JAX need not copy."""
    size = shape[0] * shape[1] * dtype.itemsize
    raw = np.empty(size + ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % ALIGNMENT
    return raw[first : first + size].view(dtype).reshape(shape)
