"""The precision of matrix products, pinned.

On a GPU, XLA multiplies float32 matrices in TF32 (10 bits of mantissa) unless told otherwise, so the same
line gives other numbers there than on a CPU. Here float32 products are float32 products, on every device,
until the caller asks for less with JAX's own switch: ``with jax.default_matmul_precision("tensorfloat32")``
or ``JAX_DEFAULT_MATMUL_PRECISION=tensorfloat32``.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")


def matmul_precision() -> str:
    """The precision in force: what the caller has set, else ``highest``."""
    return jax.config.jax_default_matmul_precision or "highest"  # type: ignore[attr-defined]  # set at run time


def full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """Run ``function`` with every ``@`` in it at full precision, unless the caller has set another.

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
