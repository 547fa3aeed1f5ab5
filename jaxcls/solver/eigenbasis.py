"""Examples for the linear solver, with the eigenvectors of XᵀX, and the way back from coefficients to weights.

    XᵀX / N ≈ V diag(λ) Vᵀ           of centred features, of a sample of the rows where there are many
    W       = V A / size             A: coefficients in the eigenbasis
    b       = b' - mean · W          b': the bias of centred features

Where the bias is penalised, features are not centred.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Real
from numpy.typing import NDArray

SAMPLE = 4  # rows per feature that the eigenvectors are taken from; with fewer, the examples themselves are rotated
BUCKETS = 2**14  # examples, below which their number is rounded up, so that similar numbers share a compiled program


class Rotation(NamedTuple):
    """The map into the eigenbasis: ``(X - mean) / size @ vectors``."""

    mean: Float[Array, "D"]
    size: Float[Array, ""]
    vectors: Float[Array, "D D"]


class Examples(NamedTuple):
    """Examples on the device; features as they came, with their rotation, or rotated beforehand."""

    X: Real[Array, "N D"]
    y: Integer[Array, "N"]
    weights: Float[Array, "F N"]
    rotation: Rotation | None
    curvature: Float[Array, "R"]  # eigenvalues of XᵀX; 1 for the bias, which is last
    penalised: Float[Array, "R"]  # 0 for an unpenalised bias, else 1


class Basis(NamedTuple):
    """The eigenbasis on the host, float64: ``W = vectors @ A / size``, for features centred at ``mean``."""

    vectors: Float[NDArray, "D R"]
    mean: Float[NDArray, "D"]
    size: float
    curvature: Float[NDArray, "R+1"]
    penalised: Float[NDArray, "R+1"]


def prepare(
    X: Real[Array, "N d"],
    y: Integer[NDArray, "N"],
    weights: Float[NDArray, "F N"],
    *,
    penalise_bias: bool,
    dtype: np.dtype,
) -> tuple[Examples, Basis]:
    """Put the examples on the device, with the eigenvectors of XᵀX.

    Few rows per feature are rotated on the host, many are left as they came: a copy would cost more than it saves.
    """
    num_examples, num_features = X.shape
    few = num_examples <= SAMPLE * num_features
    rows = np.arange(num_examples) if few else np.linspace(0, num_examples - 1, SAMPLE * num_features).astype(int)
    sample = np.asarray(X)[rows].astype(np.float64)
    shares = weights.mean(axis=0)[rows]
    shares = shares / shares.sum() if shares.any() else np.full(len(rows), 1 / len(rows))
    mean = np.zeros(num_features) if penalise_bias else shares @ sample
    mean = mean.astype(dtype).astype(np.float64)  # as it is subtracted from rows that were left as they came
    sample -= mean
    size = float(np.asarray(np.abs(sample).max(), dtype)) or 1.0  # squares must not over- or underflow
    sample /= size
    if num_examples < num_features:  # the optimum has no component outside of the span of the examples
        span, R = np.linalg.qr(sample.T)
        eigenvalues, vectors = np.linalg.eigh(R @ (shares[:, None] * R.T))
        vectors = span @ vectors
    else:
        eigenvalues, vectors = np.linalg.eigh(sample.T @ (shares[:, None] * sample))
    padding = (0, _bucket(num_examples) - num_examples)
    rotated = (sample @ vectors).astype(dtype) if few else X
    curvature = np.append(np.maximum(eigenvalues, 0), 1).astype(dtype)
    penalised = np.append(np.ones(len(eigenvalues)), float(penalise_bias)).astype(dtype)
    examples = Examples(
        X=jnp.asarray(np.pad(rotated, (padding, (0, 0))) if any(padding) else rotated),
        y=jnp.asarray(np.pad(y, padding)),
        weights=jnp.asarray(np.pad(weights, ((0, 0), padding)), dtype),
        rotation=None if few else Rotation(*(jnp.asarray(each, dtype) for each in (mean, size, vectors))),
        curvature=jnp.asarray(curvature),
        penalised=jnp.asarray(penalised),
    )
    return examples, Basis(vectors, mean, size, curvature, penalised)


def _bucket(num_examples: int) -> int:
    """Examples with those of weight 0 that make up a common number: eight to each power of two."""
    step = max(32, 2 ** (num_examples.bit_length() - 4))
    return -(-num_examples // step) * step if num_examples <= BUCKETS else num_examples


def restored(
    basis: Basis,
    A: Float[NDArray, "F C R"],
    gradient: Float[NDArray, "F C R"],
    spread: Float[NDArray, "F C"],
    penalty: float,
) -> tuple[Float[NDArray, "D C F"], Float[NDArray, "F"], Float[NDArray, "F"]]:
    """Weights, the bias in the last row, what their rounding adds to L, and the largest magnitude in dL/dW."""
    dtype, (vectors, mean, size, *_) = A.dtype, basis
    A, G, spread = (a.astype(np.float64).T for a in (A, gradient, spread))  # [R, C, F]
    W = np.tensordot(vectors, A[:-1], 1) / size
    W = np.append(W, A[-1:] - np.tensordot(mean, W, 1)[None], 0)
    rounded = W.astype(dtype)
    # The rounding of W as a step from the optimum: half its product with the Hessian's approximate diagonal.
    off = rounded - W
    off_A = np.append(np.tensordot(vectors.T, off[:-1], 1) * size, off[-1:] + np.tensordot(mean, off[:-1], 1)[None], 0)
    diagonal = spread[None] * basis.curvature[:, None, None] + 2 * penalty * basis.penalised[:, None, None]
    added = np.sum(diagonal * off_A**2, axis=(0, 1)) / 2
    dW = np.append(np.tensordot(vectors, G[:-1], 1) * size + mean[:, None, None] * G[-1:], G[-1:], 0)
    return rounded, added, np.abs(dW).max(axis=(0, 1))
