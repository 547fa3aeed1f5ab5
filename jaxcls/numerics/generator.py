"""Pinned random number generator.

A seed gives the same initial weights under any JAX configuration. Unpinned, ``JAX_DEFAULT_PRNG_IMPL`` and
``JAX_THREEFRY_PARTITIONABLE`` would change them, even within a resumed run. Minibatches do not depend on JAX: see
`jaxcls.sampling.minibatches`.
"""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def pinned_generator() -> Iterator[None]:
    """Context manager or decorator that selects Threefry keys and JAX's default way of drawing from them.

    Example:
      >>> import jax
      >>> with jax.default_prng_impl("rbg"), pinned_generator():
      ...     jax.random.key(0)
      Array((), dtype=key<fry>) overlaying:
      [0 0]
    """
    with jax.default_prng_impl("threefry2x32"), jax.threefry_partitionable(True):
        yield
