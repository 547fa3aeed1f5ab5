"""The random number generator, pinned.

A seed stands for the same initial weights and minibatches whatever JAX is configured to draw them with:
``JAX_DEFAULT_PRNG_IMPL`` and ``JAX_THREEFRY_PARTITIONABLE`` change both, and a resumed run must not notice.
"""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def pinned_generator() -> Iterator[None]:
    """A context, or a decorator, in which keys are Threefry's and are drawn from as JAX does by default.

    Example:
      >>> import jax
      >>> with jax.default_prng_impl("rbg"), pinned_generator():
      ...     jax.random.key(0)
      Array((), dtype=key<fry>) overlaying:
      [0 0]
    """
    with jax.default_prng_impl("threefry2x32"), jax.threefry_partitionable(True):
        yield
