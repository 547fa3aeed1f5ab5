"""Gradients of the losses where the examples are sharded over CPU devices: ``sharded.py DEVICES [eager]``.

Each is held to that of a plain formula on one device: inside `jax.shard_map`, with its defaults, and under a mesh
whose axes are explicit.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def main(devices: int, eager: bool) -> None:
    """Check all, jitted, and eagerly too if asked to; raises where one is not right."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from jaxcls import losses, softmax, two_layer

    def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])

    def hinge(logits: jax.Array, y: jax.Array) -> jax.Array:
        margins = jax.nn.relu(logits - logits[jnp.arange(len(y)), y][:, None] + 1)
        return jnp.mean(jnp.sum(margins, axis=1)) - 1

    def linear(W: jax.Array, X: jax.Array, y: jax.Array, reg: jax.Array) -> jax.Array:
        return cross_entropy(X @ W, y) + reg * jnp.sum(W * W)

    def net(params: two_layer.Params, X: jax.Array, y: jax.Array, reg: jax.Array) -> jax.Array:
        logits = jnp.maximum(X @ params.W1 + params.b1, 0) @ params.W2 + params.b2
        return cross_entropy(logits, y) + reg * (jnp.sum(params.W1**2) + jnp.sum(params.W2**2))

    key, by_example, everywhere = jax.random.key(0), PartitionSpec("examples"), PartitionSpec()
    X, y, reg = jax.random.normal(key, (2 * devices, 5)), jnp.arange(2 * devices) % 3, jnp.float32(0.1)
    W, params = softmax.init(5, 3, key=key, scale=1.0), two_layer.init(5, 4, 3, key=key, scale=1.0)
    specs = everywhere, by_example, by_example, everywhere
    kinds: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...], tuple[PartitionSpec, ...]]] = {
        "softmax.loss": (softmax.loss, linear, (W, X, y, reg), specs),
        "two_layer.loss": (two_layer.loss, net, (params, X, y, reg), specs),
        "losses.cross_entropy": (losses.cross_entropy, cross_entropy, (X, y), (by_example, by_example)),
        "losses.hinge": (losses.hinge, hinge, (X, y), (by_example, by_example)),
    }
    for name, (ours, plain, problem, where) in kinds.items():
        for argument in (k for k, a in enumerate(problem) if a is not y):
            expected = jax.grad(plain, argument)(*problem)

            def of_a_part(*problem: Any, argument: int = argument, ours: Callable[..., Any] = ours) -> Any:
                return jax.grad(lambda *problem: ours(*problem) / devices, argument)(*problem)

            mesh = jax.make_mesh((devices,), ("examples",), axis_types=(AxisType.Auto,))
            mapped = jax.shard_map(of_a_part, mesh=mesh, in_specs=where, out_specs=where[argument])
            check(f"{name}, argument {argument}, in shard_map", jax.jit(mapped)(*problem), expected)

            mesh = jax.make_mesh((devices,), ("examples",), axis_types=(AxisType.Explicit,))
            with jax.set_mesh(mesh):
                placed = [jax.device_put(a, NamedSharding(mesh, at)) for a, at in zip(problem, where, strict=True)]
                for compiled in {True, not eager}:
                    grad = jax.grad(ours, argument)
                    found = (jax.jit(grad) if compiled else grad)(*placed)
                    check(f"{name}, argument {argument}, explicit, jit {compiled}", found, expected)


def check(name: str, found: Any, expected: Any) -> None:
    """Raise unless all leaves are alike."""
    import jax

    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-5, err_msg=name)


if __name__ == "__main__":
    main(int(sys.argv[1]), "eager" in sys.argv)
