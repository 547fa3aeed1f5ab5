"""Parameters with a trailing cell axis: many models as one stack.

The weights of G linear classifiers are ``W[D, C, G]``. All cells share the minibatch, so their scores are one product,
``X[N, D]`` with ``W[D, C·G]``. Per-cell values such as ``reg[G]`` are contiguous, so SIMD instructions run over cells,
even in sums over a few classes.

`jax.vmap` over the last axis is equivalent, but moves it to the front wherever a mapped array meets an unmapped one,
and XLA then transposes all weights twice. So the formulas for training accept a stack directly, and `stacked` makes
`jax.vmap` pass it to them.
"""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from jaxcls.numerics.sharding import explicit_sharding
from jaxcls.numerics.types import LossAndGrad, Params

COPIED, WIDE = 1025, 2**10  # columns of A at most and of B at least, for XLA's products in float32 on a CPU


def einsum(
    formula: str, A: Float[Array, "*shape_of_A"], B: Float[Array, "*shape_of_B"], *, like: Array | None = None
) -> Float[Array, "..."]:
    """`jax.numpy.einsum` of two matrices per cell; the second or both may be stacks.

    With ``like``, the result takes its sharding under a mesh with explicit axes.

    Example:
      >>> import jax.numpy as jnp
      >>> A, B = jnp.ones((2, 3)), jnp.ones((3, 4, 5))
      >>> AB = einsum("nk,km->nm", A, B)
      >>> AB.shape
      (2, 4, 5)
      >>> einsum("nm,km->nk", AB, B).shape
      (2, 3, 5)
    """
    a, b, result = re.split(",|->", formula)
    once, of_columns = jax.lax.optimization_barrier, a[0] == b[0]
    if A.ndim == 2:
        if of_columns and _copied(A, B):
            A, a = once(A.T), a[::-1]
        return jnp.einsum(
            f"{a},{b}...->{result}...", A, B, out_sharding=None if like is None else explicit_sharding(like)
        )
    # The barriers transpose each array once. Fused into the surrounding operations, this takes three times as long.
    cells_first = once(jnp.moveaxis(A, -1, 0))
    if of_columns and B.shape[1] < A.shape[1]:  # AᵀB as the transpose of BᵀA: the narrow one is read by its columns
        B, b = (once(B.T), b[::-1]) if A.dtype == np.float64 else (once(jnp.moveaxis(B, -1, 0)), b)
        return once(jnp.einsum(f"G{b},G{a}->G{result[::-1]}", B, cells_first)).T
    product = once(jnp.einsum(f"G{a},{b}G->G{result}", cells_first, B))
    return jnp.moveaxis(product, 0, -1)


def _copied(A: Float[Array, "N D"], B: Float[Array, "N *rest"]) -> bool:
    """Decide whether ``Aᵀ B`` is faster with a transposed copy of A: by 2 in float64, by 1.2 for many columns of B."""
    return A.dtype == np.float64 or (A.shape[1] <= COPIED and B.size >= WIDE * len(B))


def stacked(loss_and_grad: Callable[..., tuple[Array, Params]]) -> LossAndGrad:
    """Make `jax.vmap` over ``params`` and ``reg`` call ``loss_and_grad`` once, on a stack.

    Args:
      loss_and_grad: ``(params, X, y, reg) -> (loss, grads)`` for one model, and for a stack with ``reg[G]``; it may
        take more such numbers after reg.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcls import softmax
      >>> W, X, y = jnp.zeros((4, 10, 3)), jnp.ones((5, 4)), jnp.arange(5)
      >>> over_cells = jax.vmap(stacked(softmax.loss_and_grad), in_axes=(-1, None, None, 0), out_axes=(0, -1))
      >>> losses, dW = over_cells(W, X, y, jnp.array([0.0, 0.1, 0.2]))
      >>> losses.shape, dW.shape
      ((3,), (4, 10, 3))
    """

    @jax.custom_batching.custom_vmap
    def one(params: Params, X: ArrayLike, y: ArrayLike, *hyper: ArrayLike) -> tuple[Array, Params]:
        return loss_and_grad(params, X, y, *hyper)

    @one.def_vmap
    def many(
        size: int, is_mapped: PyTree, params: Params, X: ArrayLike, y: ArrayLike, *hyper: ArrayLike
    ) -> tuple[tuple[Array, Params], PyTree]:
        of_params, of_X, of_y, *of_hyper = is_mapped
        if all(jax.tree.leaves((of_params, of_hyper))) and not of_X and not of_y:
            params = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), params)
            loss, grads = loss_and_grad(params, X, y, *hyper)
            results = loss, jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), grads)
        else:
            axes = jax.tree.map(lambda mapped: 0 if mapped else None, tuple(is_mapped))
            results = jax.vmap(loss_and_grad, in_axes=axes)(params, X, y, *hyper)
        return results, jax.tree.map(lambda leaf: True, results)

    return one
