"""Types of the functions that a model is made of."""

from typing import Protocol, TypeAlias, runtime_checkable

from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

Params: TypeAlias = PyTree  # an array, or a NamedTuple of arrays


@runtime_checkable  # the type checker of the tests needs it
class Logits(Protocol):
    """Logits of N examples."""

    def __call__(self, params: Params, X: ArrayLike, /) -> Float[Array, "N C"]:
        """The logits, ``[N, C]``."""


@runtime_checkable
class LossAndGrad(Protocol):
    """Mean loss, penalty included, and its gradient with respect to the params."""

    def __call__(
        self, params: Params, X: ArrayLike, y: ArrayLike, reg: ArrayLike, /
    ) -> tuple[Float[Array, ""], Params]:
        """The loss, and the gradient as a tree like the params."""
