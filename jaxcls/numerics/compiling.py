"""The seconds that JAX spends compiling."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax.monitoring

COMPILING = "/jax/core/compile/"  # events of tracing, lowering and compiling begin so


@contextmanager
def compile_seconds() -> Iterator[list[float]]:
    """A list to which each compilation inside the ``with`` block adds the seconds of its stages.

    Example:
      >>> import jax
      >>> with compile_seconds() as first:
      ...     one = jax.jit(lambda x: x + 1)(1.0)
      >>> sum(first) > 0
      True
    """
    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.startswith(COMPILING):
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
