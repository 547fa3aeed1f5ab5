"""Numeric gradients by central differences, and the relative errors of both courses.

    df/dx_k ≈ (f(x + h e_k) - f(x - h e_k)) / 2h

The truncation error shrinks as h², the rounding error grows as ε/h: in float64 ``h = 1e-5`` leaves about ten
good digits. float32 leaves four or five, and only near the best ``h``, so check gradients in float64
(``with jax.enable_x64(True):``).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Real

from jaxcls.numerics import checks


def numeric_gradient(
    f: Callable[[Array], Array],
    x: Float[ArrayLike, "*shape"],
    upstream: Real[ArrayLike, "..."] = 1.0,
    *,
    h: float | None = None,
) -> Float[Array, "*shape"]:
    """Gradient of ``sum(upstream * f(x))`` by central differences at every coordinate of ``x``.

    Args:
      f: a pure function of one array.
      x: the point at which to differentiate.
      upstream: the gradient with respect to the output of ``f``, in its shape; 1 for a scalar function.
      h: half the width of the difference. Default: 1e-5 in float64, 5e-3 in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> print(numeric_gradient(lambda x: jnp.sum(x**2), jnp.array([1.0, 2.0])).round(2))
      [2. 4.]

    References:
      EECS 498-007, ``compute_numeric_gradient``; CS231n, ``eval_numerical_gradient``.
    """
    x, upstream = _point(x), checks.array(upstream, "upstream")

    def partial(k: Array) -> Array:
        return jnp.sum(_difference(f, x, k, h) * upstream)

    return jax.lax.map(partial, jnp.arange(x.size)).reshape(x.shape)


class Probes(NamedTuple):
    """Result of `sparse_check`: both gradients at each ``coordinate`` of the flattened array, and the error."""

    coordinate: Int[Array, "K"]
    numeric: Float[Array, "K"]
    analytic: Float[Array, "K"]
    relative_error: Float[Array, "K"]


def sparse_check(
    f: Callable[[Array], Array],
    x: Float[ArrayLike, "*shape"],
    grad: Float[ArrayLike, "*shape"],
    *,
    key: Key[Array, ""],
    num_checks: int = 10,
    h: float | None = None,
) -> Probes:
    """Compare ``grad`` with central differences of the scalar ``f`` at a few random coordinates of ``x``.

    The relative error is ``|n - a| / (|n| + |a|)``, or 0 where both gradients are 0. ``h`` as in `numeric_gradient`.

    Raises:
      ValueError: ``grad`` does not have the shape of ``x``.
      TypeError: ``x`` is empty or not floating point.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.arange(1.0, 7.0).reshape(2, 3)
      >>> probes = sparse_check(lambda x: jnp.sum(x**2), x, 2 * x, key=jax.random.key(0))
      >>> bool(jnp.all(probes.relative_error < 1e-3))
      True

    References:
      CS231n and EECS 498-007, ``grad_check_sparse``.
    """
    x = _point(x)
    coordinate = jax.random.randint(key, (num_checks,), 0, x.size)
    numeric = jax.lax.map(lambda k: _difference(f, x, k, h), coordinate)
    grad = checks.array(grad, "grad")
    if grad.shape != x.shape:
        raise ValueError(f"grad must have the shape of x, {list(x.shape)}, got {list(grad.shape)}")
    analytic = grad.ravel()[coordinate]
    size = jnp.abs(numeric) + jnp.abs(analytic)
    error = jnp.abs(numeric - analytic) / jnp.where(size > 0, size, 1)
    return Probes(coordinate, numeric, analytic, error)


def rel_error_elementwise(a: Float[ArrayLike, "*shape"], b: Float[ArrayLike, "*shape"], eps: float = 1e-8) -> float:
    """Largest ``|a - b| / (|a| + |b|)`` over all elements, the relative error of CS231n.

    Example:
      >>> import jax.numpy as jnp
      >>> round(rel_error_elementwise(jnp.array([1.0, 3.0]), jnp.array([1.0, 5.0])), 4)
      0.25
    """
    a, b = checks.array(a, "a"), checks.array(b, "b")
    return float(jnp.max(jnp.abs(a - b) / jnp.maximum(jnp.abs(a) + jnp.abs(b), eps)))


def rel_error_of_max(a: Float[ArrayLike, "*shape"], b: Float[ArrayLike, "*shape"], eps: float = 1e-10) -> float:
    """Largest ``|a - b|`` over the largest ``|a| + |b|``, the relative error of EECS 498-007.

    Example:
      >>> import jax.numpy as jnp
      >>> round(rel_error_of_max(jnp.array([1.0, 3.0]), jnp.array([1.5, 3.0])), 4)
      0.0833
    """
    a, b = checks.array(a, "a"), checks.array(b, "b")
    return float(jnp.max(jnp.abs(a - b)) / jnp.maximum(jnp.max(jnp.abs(a) + jnp.abs(b)), eps))


def _point(x: ArrayLike) -> Array:
    x = checks.array(x, "x")
    if x.size == 0 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x must hold floating-point numbers to be perturbed, got {x.size} of {x.dtype}")
    return x


def _difference(f: Callable[[Array], Array], x: Array, k: Array, h: float | None) -> Array:
    """``(f(x + h e_k) - f(x - h e_k)) / 2h``."""
    if h is None:  # balances truncation and rounding error
        h = max(1e-5, float(jnp.finfo(x.dtype).eps) ** (1 / 3))
    step = jnp.zeros(x.size, x.dtype).at[k].set(h).reshape(x.shape)
    return (f(x + step) - f(x - step)) / (2 * h)
