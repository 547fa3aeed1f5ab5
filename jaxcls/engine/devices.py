"""The cells of a grid over several devices: a step needs no communication between them.

The mesh has one axis, ``cells``. The examples are replicated on every device; arrays with a cell axis are sharded.
The same code serves one CPU, the GPUs of a host, and the devices of many processes under `jax.distributed`.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Wrapped
from jax.typing import ArrayLike
from jaxtyping import PyTree

CELLS = "cells"
BY_CELL, EVERYWHERE = PartitionSpec(CELLS), PartitionSpec()


def mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A mesh of the devices with the one axis ``cells``.

    Example:
      >>> import jax
      >>> mesh(jax.devices()[:1]).size
      1
    """
    return Mesh(np.asarray(devices), (CELLS,))


def alignment(devices: Sequence[jax.Device]) -> int:
    """The number of columns to whose multiple X is zero-padded on these devices.

    On a GPU, so that rows are whole cache lines, which matrix products read fastest, and so that XLA need not copy all
    weights to pad them before it splits a product.

    Example:
      >>> import jax
      >>> alignment(jax.devices("cpu"))
      1
    """
    return 32 if devices[0].platform == "gpu" else 1


def put(mesh: Mesh, array: ArrayLike, spec: PartitionSpec = EVERYWHERE) -> jax.Array:
    """An array that every process holds whole, on the devices of the mesh.

    Example:
      >>> import jax, numpy as np
      >>> print(put(mesh(jax.devices()[:1]), np.arange(4), PartitionSpec(CELLS)))
      [0 1 2 3]
    """
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])


def fetch(mesh: Mesh, tree: PyTree) -> PyTree:
    """Whole numpy arrays, on every process, of a tree that is sharded over the devices."""
    return jax.device_get(_gather(mesh)(tree) if jax.process_count() > 1 else tree)


def on_each(
    mesh: Mesh,
    function: Callable[..., PyTree],
    in_specs: PyTree,
    out_specs: PyTree,
    *,
    donate_argnums: int | None = None,
) -> Wrapped:
    """``jax.jit`` of a function that each device runs on its own cells.

    Args:
      mesh: the devices.
      function: takes and returns one device's shard of each array.
      in_specs: a `PartitionSpec` of each argument, or a tree of them.
      out_specs: of the result.
      donate_argnums: the argument whose memory the result takes.

    Example:
      >>> import jax, numpy as np
      >>> on, by_cell = mesh(jax.devices()[:1]), PartitionSpec(CELLS)
      >>> print(on_each(on, lambda lr: lr / 2, by_cell, by_cell)(np.array([2.0, 4.0])))
      [1. 2.]
    """
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return jax.jit(mapped, donate_argnums=donate_argnums)


@functools.cache  # JAX compiles a new function object again
def _gather(mesh: Mesh) -> Wrapped:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, EVERYWHERE))
