"""Sharded examples: what a gradient written by hand has to say of them, as autodiff says by itself."""

from typing import TypeVarTuple

import jax
from jax.sharding import AxisType, NamedSharding

Ts = TypeVarTuple("Ts")


def varying_alike(*arguments: *Ts) -> tuple[*Ts]:
    """The same arguments, all of them varying over the mesh axes of `jax.shard_map` that any of them varies over.

    A rule for a gradient must return cotangents that vary as its arguments do. Where the params are the same on every
    device and the examples are not, the params are made to vary first: the cotangent of that is the sum over devices.

    Example:
      >>> import jax.numpy as jnp
      >>> varying_alike(jnp.zeros(2), jnp.zeros(()))  # outside of shard_map nothing varies
      (Array([0., 0.], dtype=float32), Array(0., dtype=float32))
    """
    axes = frozenset().union(*(_varies_over(leaf) for leaf in jax.tree.leaves(arguments)))
    return jax.tree.map(lambda leaf: jax.lax.pcast(leaf, tuple(axes - _varies_over(leaf)), to="varying"), arguments)


def explicit_sharding(array: jax.Array) -> NamedSharding | None:
    """The sharding of an array under a mesh with explicit axes; None where there is no such mesh.

    Example:
      >>> import jax.numpy as jnp
      >>> explicit_sharding(jnp.zeros(2)) is None
      True
    """
    sharding = jax.typeof(array).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def _varies_over(leaf: jax.Array) -> frozenset[str]:
    return jax.typeof(leaf).manual_axis_type.varying
