"""Sharding annotations that hand-derived gradients need, and that autodiff adds by itself."""

from typing import TypeVarTuple

import jax
from jax.sharding import AxisType, NamedSharding

Ts = TypeVarTuple("Ts")


def varying_alike(*arguments: *Ts) -> tuple[*Ts]:
    """Make all arguments vary over the union of their mesh axes in `jax.shard_map`.

    A custom gradient rule must return cotangents that vary over the same axes as its arguments. Replicated params are
    therefore made to vary like sharded examples; the transpose of that sums their cotangents over the devices.

    Example:
      >>> import jax.numpy as jnp
      >>> varying_alike(jnp.zeros(2), jnp.zeros(()))  # outside of shard_map nothing varies
      (Array([0., 0.], dtype=float32), Array(0., dtype=float32))
    """
    axes = frozenset().union(*(_varies_over(leaf) for leaf in jax.tree.leaves(arguments)))
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, tuple(axes - _varies_over(leaf)), to="varying"), arguments)


def explicit_sharding(array: jax.Array) -> NamedSharding | None:
    """Sharding of an array under a mesh with explicit axes; None without such a mesh.

    Example:
      >>> import jax.numpy as jnp
      >>> explicit_sharding(jnp.zeros(2)) is None
      True
    """
    sharding = jax.typeof(array).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def _varies_over(leaf: jax.Array) -> frozenset[str]:
    return jax.typeof(leaf).manual_axis_type.varying
