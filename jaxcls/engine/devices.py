"""The cells of a grid over several devices: a step needs no communication between them.

A mesh has one axis, ``cells``. Data are on every device, whole; what belongs to cells is split. The same code
serves one CPU, the GPUs of a host, and the devices of many processes under `jax.distributed`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import ArrayLike

CELLS = "cells"
EVERYWHERE = PartitionSpec()


def mesh(devices: Sequence[jax.Device]) -> Mesh:
    """The devices in a row.

    Example:
      >>> import jax
      >>> mesh(jax.devices()[:1]).size
      1
    """
    return Mesh(np.asarray(devices), (CELLS,))


def alignment(devices: Sequence[jax.Device]) -> int:
    """The number that the columns of X should be a multiple of on these devices, zeros behind the features.

    On a GPU, rows of whole cache lines: matrix products read those fastest. And where XLA cuts a product into equal
    parts, it need not copy all weights first to make them longer.

    Example:
      >>> import jax
      >>> alignment(jax.devices("cpu"))
      1
    """
    return 32 if devices[0].platform == "gpu" else 1


def put(mesh: Mesh, array: ArrayLike, spec: PartitionSpec = EVERYWHERE) -> jax.Array:
    """Put onto the devices an array that every process holds whole.

    Example:
      >>> import jax, numpy as np
      >>> print(put(mesh(jax.devices()[:1]), np.arange(4), PartitionSpec(CELLS)))
      [0 1 2 3]
    """
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])


def fetch(mesh: Mesh, tree: Any) -> Any:
    """Whole arrays in numpy, on every process, from arrays that are split over devices."""
    return jax.device_get(_gather(mesh)(tree))


def on_each(mesh: Mesh, function: Callable[..., Any], in_specs: Any, out_specs: Any, **options: Any) -> Any:
    """``jax.jit`` of a function that each device runs on its own cells, and on all of what is no cell's.

    Args:
      mesh: the devices.
      function: what one device runs.
      in_specs: how each argument lies on the mesh: a `PartitionSpec`, or a tree of them.
      out_specs: how the result does.
      **options: of `jax.jit`.

    Example:
      >>> import jax, numpy as np
      >>> on, by_cell = mesh(jax.devices()[:1]), PartitionSpec(CELLS)
      >>> print(on_each(on, lambda lr: lr / 2, by_cell, by_cell)(np.array([2.0, 4.0])))
      [1. 2.]
    """
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return jax.jit(mapped, **options)


@functools.cache  # JAX compiles a function anew whenever it is a new object
def _gather(mesh: Mesh) -> Callable[..., Any]:
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, EVERYWHERE))
