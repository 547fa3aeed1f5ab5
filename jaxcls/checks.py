"""Static mistakes, in one sentence each.

Rank, size and dtype are known while JAX traces, so these raise at trace time and cost nothing in a compiled
function. Values (a label out of range, a NaN) are not known then: `jaxcls.data` checks those on the host.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def features(X: ArrayLike, num_features: int, dtype: jnp.dtype) -> jax.Array:
    """Return ``X`` as an array, or say why it is not ``[N, num_features]`` of ``dtype`` with ``N >= 1``."""
    X = jnp.asarray(X)
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


def labels(y: ArrayLike, num_examples: int) -> jax.Array:
    """Return ``y`` as an array, or say why it is not ``[num_examples]`` integers."""
    y = jnp.asarray(y)
    if y.shape != (num_examples,):
        raise ValueError(f"y must hold one label for each of the {num_examples} examples, got shape {list(y.shape)}")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"y must hold integer class labels, got {y.dtype}")
    return y


def one_line(error: Exception) -> str:
    """What somebody else's exception says, fit to stand in a sentence of ours: one line, printable, not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= 200 else text[:200] + "..."
