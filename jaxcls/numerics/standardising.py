"""The standardisation of features on a device."""

from jaxtyping import Array, Float, Real
from numpy.typing import NDArray


def standardised(
    X: Real[Array, "N D"], mean: Float[Array | NDArray, "D"], scale: Float[Array | NDArray, "D"]
) -> Float[Array, "N D"]:
    """``(X - mean) / scale`` of raw features, in the dtype of the mean.

    Example:
      >>> import jax.numpy as jnp
      >>> print(standardised(jnp.array([[2], [4]], jnp.uint8), jnp.array([3.0]), jnp.array([2.0])))
      [[-0.5]
       [ 0.5]]
    """
    return (X.astype(mean.dtype) - mean[None]) / scale[None]
