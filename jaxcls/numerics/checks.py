"""Shape and dtype checks at trace time, with one-line errors.

Rank, size and dtype are known at trace time, so these checks cost nothing in a compiled function. Values (a label out
of range, a NaN) are not: `jaxcls.data` checks those on the host.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray


def array(x: ArrayLike | Sequence, name: str) -> jax.Array:
    """Convert ``x`` to a JAX array of the default width; raise if it is not an array of numbers.

    Example:
      >>> import numpy as np
      >>> array(np.array([1.0, 2.0], ">f8"), "x")
      Array([1., 2.], dtype=float32)
    """
    return jnp.asarray(numbers(x, name))


def real(x: ArrayLike | Sequence, name: str) -> jax.Array:
    """Convert ``x`` to an array; raise unless it holds real numbers."""
    return jnp.asarray(real_numbers(x, name))


def labels(y: ArrayLike, num_examples: int) -> jax.Array:
    """Convert ``y`` to an array; raise unless it is ``[num_examples]`` integers."""
    return jnp.asarray(label_numbers(y, num_examples))


def numbers(x: ArrayLike | Sequence, name: str) -> jax.Array | NDArray:
    """`array`, left on the host where it is not JAX's already.

    Example:
      >>> numbers([1.0, 2.0], "x")
      array([1., 2.], dtype=float32)
    """
    if isinstance(x, jax.Array) or hasattr(x, "__jax_array__"):
        return jnp.asarray(x)
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must be an array without a mask: fill or drop the masked entries")
    try:
        host = np.asarray(x)
    except ValueError:
        raise TypeError(f"{name} must be an array, got rows of several lengths") from None
    if host.dtype.kind not in "biufc" and host.dtype != jnp.bfloat16:
        raise TypeError(f"{name} must be an array of numbers, got {host.dtype}")
    host = host.astype(host.dtype.newbyteorder("="), copy=False)
    narrow = jax.dtypes.canonicalize_dtype(host.dtype)
    if host.dtype.kind in "iu" and narrow != host.dtype:  # in 32 bits 2**32 would wrap to 0
        host = np.clip(host, np.iinfo(narrow).min, np.iinfo(narrow).max)
    return host.astype(narrow, copy=False)


def real_numbers(x: ArrayLike | Sequence, name: str) -> jax.Array | NDArray:
    """`real`, left on the host where it is not JAX's already."""
    found = numbers(x, name)
    if jnp.iscomplexobj(found):
        raise TypeError(f"{name} must be real, got {found.dtype}")
    return found


def label_numbers(y: ArrayLike, num_examples: int) -> jax.Array | NDArray:
    """`labels`, left on the host where they are not JAX's already."""
    found = numbers(y, "y")
    if found.shape != (num_examples,):
        expected = f"one label for each of the {num_examples} examples"
        raise ValueError(f"y must hold {expected}, got shape {list(found.shape)}")
    if not jnp.issubdtype(found.dtype, jnp.integer):
        raise TypeError(f"y must hold integer class labels, got {found.dtype}")
    return found


def features(X: ArrayLike, num_features: int, dtype: jnp.dtype) -> jax.Array:
    """Convert ``X`` to an array; raise unless it is ``[N, num_features]`` of ``dtype`` with ``N >= 1``."""
    X = array(X, "X")
    if X.ndim != 2:
        raise ValueError(f"X must have shape [N, D], got {list(X.shape)}")
    if X.shape[0] == 0:
        raise ValueError("X must hold at least one example, got none")
    if X.shape[1] != num_features:
        hint = " (is the column of ones missing?)" if X.shape[1] == num_features - 1 else ""
        raise ValueError(f"X must have the {num_features} features the params expect, got {X.shape[1]}{hint}")
    if X.dtype != dtype or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"X and params must share one float dtype, got {X.dtype} and {dtype}")
    return X


def example_weights(weights: ArrayLike | Sequence, num_examples: int) -> jax.Array:
    """Convert ``weights`` to an array; raise unless it is ``[num_examples]`` real numbers."""
    weights = real(weights, "weights")
    if weights.shape != (num_examples,):
        raise ValueError(f"weights must hold one for each of the {num_examples} examples, got {list(weights.shape)}")
    return weights


def class_weights(weights: NDArray | Sequence[float], num_classes: int) -> None:
    """Raise unless there is one finite, non-negative weight per class, and one above 0.

    Example:
      >>> class_weights([1.0, -1.0], 2)
      Traceback (most recent call last):
      ...
      ValueError: class_weights must hold 2 finite values not below 0, one above it, got [1.0, -1.0]
    """
    given = np.asarray(weights, float)  # on the host: JAX may be tracing
    if given.shape != (num_classes,) or not (np.isfinite(given) & (given >= 0)).all() or not given.any():
        raise ValueError(
            f"class_weights must hold {num_classes} finite values not below 0, one above it, got {given.tolist()}"
        )


def folds(fold: Sequence[int], num_folds: int) -> None:
    """Raise unless a grid's folds match the data's ``num_folds``, 0 for data that are split once.

    Example:
      >>> folds([0, 1, 2], 2)
      Traceback (most recent call last):
      ...
      ValueError: grid.fold must be given for folds alone, each below 2, got [0, 1, 2]
    """
    if bool(fold) != bool(num_folds) or max(fold, default=-1) >= num_folds > 0:
        raise ValueError(f"grid.fold must be given for folds alone, each below {num_folds}, got {fold}")


def outside_of_jit(name: str) -> None:
    """Raise under a JAX transformation: for host functions that compile and run programs themselves.

    Example:
      >>> outside_of_jit("sweep.run")
    """
    if isinstance(jax.device_put(0.0), jax.core.Tracer):  # a traced one under jit, and nothing to compile
        raise ValueError(f"{name} must be called outside of jax.jit, jax.vmap and jax.grad: it compiles what it runs")


def own_mesh(name: str) -> None:
    """Raise under a transformation, a mesh or `jax.disable_jit`: for functions that compile on their own mesh.

    Example:
      >>> with jax.disable_jit():
      ...     own_mesh("sweep.run")
      Traceback (most recent call last):
      ...
      ValueError: sweep.run must be called without jax.disable_jit: it compiles what it runs
    """
    outside_of_jit(name)
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # set at run time
        raise ValueError(f"{name} must be called without jax.disable_jit: it compiles what it runs")
    if not jax.sharding.get_abstract_mesh().empty:
        raise ValueError(f"{name} must be called outside of jax.set_mesh: its argument devices selects the devices")


@contextmanager
def about(*files: str | Path | None) -> Iterator[None]:
    """Name files, but for None, in an error about what they hold.

    Example:
      >>> with about("a.npz", None):
      ...     raise ValueError("labels must be integers")
      Traceback (most recent call last):
      ...
      ValueError: a.npz: labels must be integers
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        if not (named := ", ".join(str(file) for file in files if file)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{named}: {error}") from None


def one_line(said: Exception | str) -> str:
    """Text of an exception or a foreign file as one short printable line.

    Example:
      >>> one_line(ValueError("first\\nand second"))
      'first and second'
    """
    text = " ".join(str(said).split()) or type(said).__name__
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= 200 else text[:200] + "..."
