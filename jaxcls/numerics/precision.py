"""Pinned precision of matrix products.

On a GPU, XLA multiplies float32 matrices in TF32 (10 bits of mantissa) by default, so results differ from a CPU's.
jaxcls multiplies in full float32 on every device, unless the caller sets JAX's own option:
``with jax.default_matmul_precision("tensorfloat32")`` or ``JAX_DEFAULT_MATMUL_PRECISION=tensorfloat32``.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def matmul_precision() -> str:
    """Matmul precision in effect: the caller's setting, else ``highest``."""
    return jax.config.jax_default_matmul_precision or "highest"  # type: ignore[attr-defined]  # set at run time


def full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator that runs matrix products at full precision, unless the caller has set another.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> square = full_precision(lambda a: a @ a)
      >>> "HIGHEST" in jax.jit(square).lower(jnp.ones((2, 2))).as_text()
      True
      >>> with jax.default_matmul_precision("tensorfloat32"):
      ...     "HIGHEST" in jax.jit(square).lower(jnp.ones((2, 2))).as_text()
      False
    """

    @functools.wraps(function)
    def pinned(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.default_matmul_precision(matmul_precision()):
            return function(*args, **kwargs)

    return pinned
