"""Examples for the linear solver, with eigenvectors of XᵀX, and the way back from coefficients to weights.

    XᵀX / N ≈ V diag(λ) Vᵀ + ρ (I - V Vᵀ)     of centred features, of a sample of the rows where there are many
    W       = V A / size, or A / size         A: coefficients, in the eigenbasis or along the features
    b       = b' - mean · W                   b': the bias of centred features

V holds all eigenvectors where these cost little beside the evaluations to come; else the leading ones, and ρ is the
mean of the other eigenvalues. Where the bias is penalised, features are not centred.

Reference:
  N. Halko, P.-G. Martinsson and J. A. Tropp, *Finding Structure with Randomness*, SIAM Review, 2011, section 5.1.
"""

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Integer, Real
from numpy.typing import NDArray

from jaxcls.numerics import padded, standardised

SAMPLE, PER_FEATURE = 2**13, 4  # rows that the eigenvectors are taken from, and if that is more, rows per feature
ARRAYS = (np.ndarray, jax.Array)  # features in memory, rather than those that are read
COPY = 2**30  # bytes of examples, up to which they are centred beforehand
ALL = 512  # eigenvectors, up to which all are computed; or where the examples are 1/64 of their number squared
FEW = 1024  # examples, up to which all are computed where there are 8 times as many features
LEADING = 128  # eigenvectors elsewhere


class Centring(NamedTuple):
    """The map ``(X - mean) / size``, which standardises raw features too."""

    mean: Float[Array | NDArray, "D"]
    size: Float[Array | NDArray, "D"]


Moments = tuple[Float[NDArray, "D"], Float[NDArray, "D"]]  # mean and scale


@runtime_checkable
class Source(Protocol):
    """Raw features that are read block by block, as `jaxcls.data.Split` has them."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(N, D)``."""

    @property
    def dtype(self) -> np.dtype:
        """Of the features."""

    def __getitem__(self, rows: Any, /) -> NDArray:
        """Some rows: a slice of them, or these."""


class Examples(NamedTuple):
    """Examples on the device; rotated, or centred, or features as they came, with their centring; or none, if read.

    The Hessian is nearly diagonal in the eigenbasis: of the coefficients, or where those are along the features, of
    ``vectors``.
    """

    X: Real[Array, "N P"] | None
    y: Integer[Array, "N"]
    weights: Float[Array, "F N"]
    centring: Centring | None
    penalised: Float[Array, "P+1"]  # 0 for an unpenalised bias, which is last, else 1
    curvature: Float[Array, "R+1"]  # eigenvalues of XᵀX; 1 for the bias
    rest: Float[Array, ""]  # the mean of the other eigenvalues; infinite if there are none
    vectors: Float[Array, "P R"] | None


class Vectors(NamedTuple):
    """Eigenvectors V on the host: ``matrix``, or where there are fewer examples than features ``rowsᵀ @ matrix``."""

    matrix: Float[NDArray, "D R"] | Float[NDArray, "N R"]
    rows: Float[NDArray, "N D"] | None = None

    def times(self, A: Float[NDArray, "R C F"]) -> Float[NDArray, "D C F"]:
        """``V A``."""
        product = np.tensordot(self.matrix, A, 1)
        return product if self.rows is None else np.tensordot(self.rows.T, product, 1)

    def transposed_times(self, W: Float[NDArray, "D C F"]) -> Float[NDArray, "R C F"]:
        """``Vᵀ W``."""
        return np.tensordot(self.matrix.T, W if self.rows is None else np.tensordot(self.rows, W, 1), 1)


class Basis(NamedTuple):
    """The eigenvectors of features centred at ``mean``, and whether coefficients are in their basis."""

    vectors: Vectors
    rotated: bool
    mean: Float[NDArray, "D"]
    size: float
    curvature: Float[NDArray, "R+1"]
    rest: float
    penalised: float


def prepare(
    X: Real[Array | NDArray, "N d"] | Source,
    y: Integer[NDArray, "N"],
    weights: Float[NDArray, "F N"],
    *,
    moments: Moments | None = None,
    penalise_bias: bool,
    dtype: np.dtype,
) -> tuple[Examples, Basis]:
    """Put the examples on the device, but for features that are to be read, with eigenvectors of XᵀX.

    With ``moments``, X are the features that these standardise.
    """
    num_examples, num_features = X.shape
    every, sampled = all_eigenvectors(num_examples, num_features), sample_size(num_examples, num_features)
    rows = np.linspace(0, num_examples - 1, sampled).astype(int)
    sample = (np.asarray(X) if isinstance(X, ARRAYS) else X)[rows].astype(np.float64 if every else dtype)
    if moments is not None:
        sample = ((sample - moments[0]) / moments[1]).astype(sample.dtype, copy=False)
    shares = weights.mean(axis=0)[rows]
    shares = shares / shares.sum() if shares.any() else np.full(len(rows), 1 / len(rows))
    mean = np.zeros(num_features) if penalise_bias else shares @ sample
    mean = mean.astype(dtype).astype(np.float64)  # as it is subtracted from rows that were left as they came
    sample -= mean.astype(sample.dtype)
    size = float(np.asarray(np.abs(sample).max(), dtype)) or 1.0  # squares must not over- or underflow
    sample /= sample.dtype.type(size)
    rest, centring, rotated = np.inf, None, every and num_examples <= PER_FEATURE * num_features
    prepared: NDArray | Array | None
    if not every:
        eigenvalues, vectors, rest = _leading(sample, shares.astype(dtype))
    elif num_examples < num_features and dtype == np.float32:
        eigenvalues, vectors, coordinates = _of_few(sample, shares)
    else:
        eigenvalues, vectors = _all(sample, shares)
        coordinates = sample @ vectors.matrix if rotated else sample
    if rotated:
        prepared = padded(coordinates.astype(dtype))
    else:
        centre, divisor = mean, np.full(num_features, size)
        if moments is not None:
            centre, divisor = (moments[0] + moments[1] * mean).astype(dtype), moments[1] * size
            mean = (centre - moments[0]) / moments[1]  # of standardised features, as it is subtracted from raw ones
        centring = Centring(centre.astype(dtype), divisor.astype(dtype))
        prepared = padded(X) if isinstance(X, ARRAYS) else None
    curvature = np.append(np.maximum(eigenvalues, 0), 1).astype(dtype)
    width = num_features if prepared is None else prepared.shape[1]
    examples = {
        "X": prepared,
        "y": y if prepared is None else padded(y),
        "weights": (weights if prepared is None else padded(weights.T).T).astype(dtype),
        "centring": centring,
        "penalised": np.append(np.ones(width), penalise_bias).astype(dtype),
        "curvature": curvature,
        "rest": np.asarray(rest, dtype),
        "vectors": None if rotated else vectors.matrix.astype(dtype, copy=False),
    }
    basis = Basis(vectors, rotated, mean, size, curvature, rest, float(penalise_bias))
    beforehand = prepared is not None and prepared.size * dtype.itemsize <= COPY
    return _placed(examples, centre=beforehand), basis


@functools.partial(jax.jit, static_argnames="centre")  # `jax.device_put` takes twice as long for a small table
def _placed(arrays: dict[str, Any], *, centre: bool) -> Examples:
    """Examples on the device; centred, if so told."""
    examples = Examples(**arrays)
    if examples.X is None or examples.centring is None or not centre:
        return examples
    return examples._replace(X=centred(examples.X, examples.centring), centring=None)


def centred(X: Real[Array, "N D"], centring: Centring) -> Float[Array, "N D"]:
    """Examples as they came, centred."""
    return standardised(X, *centring)


def sample_size(num_examples: int, num_features: int) -> int:
    """The number of rows that the eigenvectors are taken from."""
    return min(num_examples, max(PER_FEATURE * num_features, SAMPLE))


def all_eigenvectors(num_examples: int, num_features: int) -> bool:
    """Decide whether to compute all eigenvectors, or the leading ones."""
    few = num_examples <= FEW and num_features >= 8 * num_examples
    return few or min(num_examples, num_features) <= ALL or num_features**2 <= 64 * num_examples


def _all(X: NDArray, shares: NDArray) -> tuple[NDArray, Vectors]:
    """All eigenvectors; of fewer examples than features, those in their span, where the optimum is."""
    if len(X) >= X.shape[1]:
        eigenvalues, vectors = np.linalg.eigh(X.T @ (shares[:, None] * X))
        return eigenvalues, Vectors(vectors)
    span, R = scipy.linalg.qr(X.T, mode="economic", check_finite=False)  # faster than NumPy's
    eigenvalues, vectors = np.linalg.eigh(R @ (shares[:, None] * R.T))
    return eigenvalues, Vectors(span @ vectors)


def _of_few(X: NDArray, shares: NDArray) -> tuple[NDArray, Vectors, NDArray]:
    """`_all` from the inner products of the examples, which is faster, and the examples' coordinates.

    Squares in float64 hold what float32 can tell apart; a direction that they do not hold is replaced by zeros.
    """
    products, roots = X @ X.T, np.sqrt(shares)
    eigenvalues, vectors = np.linalg.eigh(roots[:, None] * products * roots[None])
    inverse = _inverse_roots(eigenvalues, len(X))
    matrix = roots[:, None] * vectors * inverse
    return np.where(inverse > 0, eigenvalues, 0), Vectors(matrix, X), products @ matrix


def _leading(X: NDArray, shares: NDArray) -> tuple[NDArray, Vectors, float]:
    """The leading eigenvectors, by one step of subspace iteration from a random start, and the mean of the rest."""
    start = np.random.default_rng(0).standard_normal((len(X), LEADING), X.dtype)
    for _ in range(2):
        span = _orthonormal(X.T @ start)
        along = X @ span
        start = shares[:, None] * along
    eigenvalues, vectors = np.linalg.eigh(along.T @ start)
    total = shares @ np.einsum("nd,nd->n", X, X)
    rest = max(float(total - eigenvalues.sum()), 0) / (min(X.shape) - LEADING)
    return eigenvalues, Vectors(span @ vectors), rest


def _orthonormal(A: NDArray) -> NDArray:
    """An orthonormal basis of A's columns, by their inner products: a quarter of the time of a QR decomposition.

    Directions that these do not tell from rounding are zeros, which costs a preconditioner nothing.
    """
    wide = A.astype(np.float64)
    eigenvalues, vectors = np.linalg.eigh(wide.T @ wide)
    return (wide @ (vectors * _inverse_roots(eigenvalues, len(A)))).astype(A.dtype)


def _inverse_roots(eigenvalues: NDArray, count: int) -> NDArray:
    """``1/√λ`` of sums over so many products, in ascending order; 0 where λ may be rounding alone."""
    held = eigenvalues > count * np.finfo(float).eps * max(eigenvalues[-1], np.finfo(float).tiny)
    return np.where(held, 1 / np.sqrt(np.where(held, eigenvalues, 1)), 0)


def restored(
    basis: Basis,
    A: Float[NDArray, "F C P"],
    gradient: Float[NDArray, "F C P"],
    spread: Float[NDArray, "F C"],
    penalty: float,
) -> tuple[Float[NDArray, "D C F"], Float[NDArray, "F"], Float[NDArray, "F"]]:
    """Weights, the bias in the last row, what their rounding adds to L, and the largest magnitude in dL/dW."""
    dtype, (vectors, rotated, mean, size, *_) = A.dtype, basis
    A, G, spread = (a.astype(np.float64).T for a in (A, gradient, spread))  # [P, C, F]
    both = np.concatenate([A, G], axis=2)[:-1]
    W, dW = np.split(vectors.times(both) if rotated else both, 2, axis=2)
    W = W / size
    W = np.append(W, A[-1:] - np.tensordot(mean, W, 1)[None], 0)
    rounded = W.astype(dtype)
    # The rounding of W as a step from the optimum: half its product with the Hessian's approximate diagonal.
    off = (rounded - W)[:-1] * size
    along = vectors.transposed_times(off)
    off_A = np.append(along, (rounded - W)[-1:] + np.tensordot(mean, off, 1)[None] / size, 0)
    penalised = np.append(np.ones(len(along)), basis.penalised)
    diagonal = spread[None] * basis.curvature[:, None, None] + 2 * penalty * penalised[:, None, None]
    added = np.sum(diagonal * off_A**2, axis=(0, 1)) / 2
    if np.isfinite(basis.rest):
        beyond = np.maximum(np.sum(off**2, axis=0) - np.sum(along**2, axis=0), 0)
        added += np.sum((spread * basis.rest + 2 * penalty) * beyond, axis=0) / 2
    dW = np.append(dW * size + mean[:, None, None] * G[-1:], G[-1:], 0)
    return rounded, added, np.abs(dW).max(axis=(0, 1))
