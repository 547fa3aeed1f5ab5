"""Ridge regression: the optimum of the documented objective, equal to scikit-learn's, at a gradient of 0."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaxcls import data, gradcheck, ridge, softmax
from parity_tests.support.battery import DIFFERENCES

C = 4
REG = np.logspace(-8, 3, 12)
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}  # of the largest weight
Problem = tuple[np.ndarray, np.ndarray]
JITTED = jax.jit(ridge.loss_and_grad)


def problem(num_examples: int, num_features: int, dtype: Any = np.float64) -> Problem:
    """Features far from 0 that say something of the labels."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((num_examples, num_features)), rng.integers(0, C, num_examples)
    y[:C] = np.arange(C)  # no class is missing
    return (X + 0.5 * np.eye(C, num_features)[y] + 3).astype(dtype), y


def correlated(X: np.ndarray) -> np.ndarray:
    """One direction that all features share, of 99 % of their variance."""
    return (0.1 * X + X[:, :1]).astype(X.dtype)


def spectrum(X: np.ndarray) -> np.ndarray:
    """Principal axes, along none of the features, of deviations from 1 to 1e-2."""
    d = X.shape[1]
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((d, d)))[0]
    return (X * np.logspace(0, -2, d) @ axes).astype(X.dtype)


PROBLEMS = {
    "more features than examples": lambda dtype: problem(30, 50, dtype),
    "many more features than examples": lambda dtype: problem(12, 301, dtype),
    "more examples than features": lambda dtype: problem(50, 30, dtype),
    "as many examples as features": lambda dtype: problem(30, 30, dtype),
    "several blocks": lambda dtype: problem(2 * ridge.BLOCK + 7, 5, dtype),
    "one feature": lambda dtype: problem(20, 1, dtype),
    "correlated features": lambda dtype: (correlated(problem(60, 20, dtype)[0]), problem(60, 20)[1]),
    "correlated features, more than examples": lambda dtype: (
        correlated(problem(20, 60, dtype)[0]),
        problem(20, 60)[1],
    ),
    "a spectrum of four decades": lambda dtype: (spectrum(problem(200, 20, dtype)[0]), problem(200, 20)[1]),
    "constant features": lambda dtype: (np.insert(problem(50, 8, dtype)[0], [0, 3], 0.1, axis=1), problem(50, 8)[1]),
}


def targets(y: np.ndarray, num_classes: int = C) -> np.ndarray:
    return 2 * np.eye(num_classes)[y] - 1


def sklearn(X: np.ndarray, T: np.ndarray, reg: float, weights: np.ndarray | None = None, **options: Any) -> np.ndarray:
    """scikit-learn's optimum by SVD in float64, the bias last.

    With a bias, features are differences from an example: else its mean of a constant feature may be off by a rounding,
    which a small alpha magnifies.
    """
    total, with_bias = len(X) if weights is None else weights.sum(), options.get("fit_intercept", True)
    model, X = Ridge(alpha=total * reg, solver="svd", **options), X.astype(np.float64)
    model.fit(X - X[0] if with_bias else X, T, sample_weight=weights)
    bias = [model.intercept_ - model.coef_ @ X[0]] if with_bias else np.zeros((0, T.shape[1]))
    return np.vstack([model.coef_.T, bias])


def check(ours: np.ndarray, theirs: np.ndarray, tolerance: float, label: str = "") -> None:
    error, size = np.abs(ours - theirs).max(), np.abs(theirs).max()
    assert error <= tolerance * size, f"{label}: off by {error / size:.1e} of its size, allowed {tolerance:.0e}"


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_whole_path_is_that_of_scikit_learn(name: str, weighted: bool, dtype: np.dtype) -> None:
    X, y = PROBLEMS[name](dtype)
    weights = np.random.default_rng(2).uniform(0.1, 3, len(y)) if weighted else None
    W = ridge.path(X, y, REG, weights=weights)
    assert W.dtype == dtype
    assert W.shape == (X.shape[1] + 1, C, len(REG))
    for k, reg in enumerate(REG):
        theirs = sklearn(X, targets(y), reg, weights)
        check(W[:-1, :, k], theirs[:-1], TOLERANCE[dtype.name], f"weights at {reg:g}")
        check(W[-1, :, k], theirs[-1], TOLERANCE[dtype.name], f"bias at {reg:g}")


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_with_the_bias_penalised_it_is_scikit_learn_without_an_intercept(shape: tuple, dtype: np.dtype) -> None:
    X, y = problem(*shape, dtype)
    weights = np.random.default_rng(2).uniform(0.1, 3, len(y))
    W = ridge.path(X, y, REG, weights=weights, penalise_bias=True)
    X = np.append(X, np.ones((len(X), 1)), axis=1)
    for k, reg in enumerate(REG):
        theirs = sklearn(X, targets(y), reg, weights, fit_intercept=False)
        check(W[..., k], theirs, TOLERANCE[dtype.name], f"{reg:g}")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_the_gradient_is_zero_at_the_optimum(shape: tuple[int, int]) -> None:
    X, y = problem(*shape)
    ones = softmax.append_ones(X)
    W = ridge.path(X, y, REG, penalise_bias=True)
    for k, reg in enumerate(REG):
        optimum, dW = JITTED(W[..., k], ones, y, reg)
        at_zero = np.abs(JITTED(0 * W[..., k], ones, y, reg)[1]).max()
        assert np.abs(dW).max() < 1e-12 * at_zero
        for off in (1.001 * W[..., k], W[..., k] + 1e-3):
            assert JITTED(off, ones, y, reg)[0] > optimum


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_an_unpenalised_bias_has_a_gradient_of_zero_too(shape: tuple[int, int]) -> None:
    X, y = problem(*shape)
    weights = np.random.default_rng(2).dirichlet(np.ones(len(y)))
    W = ridge.path(X, y, REG, weights=weights)

    @jax.jit
    def gradient(W: jax.Array, reg: jax.Array) -> jax.Array:
        def loss(W: jax.Array) -> jax.Array:
            error = jnp.sum((X @ W[:-1] + W[-1:] - targets(y)) ** 2, axis=1)
            return weights @ error + reg * jnp.sum(W[:-1] ** 2)

        return jax.grad(loss)(W)

    for k, reg in enumerate(REG):
        at_zero = np.abs(gradient(0 * W[..., k], reg)).max()
        assert np.abs(gradient(W[..., k], reg)).max() < 1e-12 * at_zero


def plain(W: jax.Array, X: jax.Array, y: jax.Array, reg: float) -> jax.Array:
    """A plain formula, independent of the implementation."""
    error = X @ W - (2 * jax.nn.one_hot(y, W.shape[1]) - 1)
    return jnp.mean(jnp.sum(error**2, axis=1)) + reg * jnp.sum(W**2)


@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_loss_and_gradient_are_those_of_a_plain_formula(reg: float, dtype: np.dtype) -> None:
    X, y = problem(7, 13, dtype)
    W = np.random.default_rng(3).standard_normal((13, C)).astype(dtype)
    expected = jax.jit(jax.value_and_grad(plain))(W, X, y, reg)
    for ours, theirs in zip(JITTED(W, X, y, reg), expected, strict=True):
        assert ours.dtype == dtype
        check(np.asarray(ours), np.asarray(theirs), {"float32": 1e-5, "float64": 1e-12}[dtype.name])


@pytest.mark.usefixtures("float64")
def test_the_gradient_is_the_central_difference_and_that_of_jax_grad() -> None:
    X, y = problem(7, 5)
    W = np.random.default_rng(3).standard_normal((5, C))
    _, dW = JITTED(W, X, y, 0.3)

    def loss(W: jax.Array) -> jax.Array:
        return JITTED(W, X, y, 0.3)[0]

    check(np.asarray(dW), np.asarray(gradcheck.numeric_gradient(loss, W)), DIFFERENCES)
    check(np.asarray(dW), np.asarray(jax.grad(loss)(W)), 1e-14)


def test_the_loss_at_zero_weights_is_the_number_of_classes(dtype: np.dtype) -> None:
    X, y = problem(9, 3, dtype)
    assert float(JITTED(np.zeros((3, C), dtype), X, y, 1.0)[0]) == C


@pytest.mark.parametrize("label", [-1, C])
def test_a_label_out_of_range_makes_loss_and_gradient_nan(label: int, dtype: np.dtype) -> None:
    X, y = problem(9, 3, dtype)
    y[5] = label
    for found in JITTED(np.zeros((3, C), dtype), X, y, 1.0):
        assert np.isnan(found).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_at_reg_0_it_is_the_least_squares_solution_of_minimum_norm(shape: tuple[int, int]) -> None:
    X, y = problem(*shape)
    X = np.append(X, X[:, :3], axis=1)
    W = ridge.path(X, y, [0.0, 1e-3], penalise_bias=True)
    theirs = np.linalg.lstsq(np.append(X, np.ones((len(X), 1)), axis=1), targets(y))[0]
    check(W[..., 0], theirs, 1e-10)
    W = ridge.path(X, y, [0.0])[..., 0]
    theirs = np.linalg.lstsq(X - X.mean(axis=0), targets(y) - targets(y).mean(axis=0))[0]
    check(W[:-1], theirs, 1e-10)
    check(W[:3], W[-4:-1], 1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (30, 27)], ids=str)
def test_duplicate_features_share_their_weight(shape: tuple[int, int]) -> None:
    X, y = problem(*shape)
    single = ridge.path(X * np.sqrt([2] * 3 + [1] * (shape[1] - 3)), y, REG)
    double = ridge.path(np.append(X, X[:, :3], axis=1), y, REG)
    for k, reg in enumerate(REG):
        for copy in (double[:3, :, k], double[-4:-1, :, k]):
            check(copy, single[:3, :, k] / np.sqrt(2), 1e-10, f"{reg:g}")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_at_reg_0_features_1e_9_apart_are_duplicates(shape: tuple[int, int]) -> None:
    """Squares of 1e-9 are below float64's rounding of the Gram matrix."""
    X, y = problem(*shape)
    apart = np.random.default_rng(5).standard_normal((len(X), 3)) * 1e-9
    near, equal = (ridge.path(np.append(X, X[:, :3] + off, axis=1), y, [0.0]) for off in (apart, 0 * apart))
    check(near, equal, 1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_a_feature_of_deviation_1e_6_counts(shape: tuple[int, int]) -> None:
    X, y = problem(*shape)
    X[:, 0] *= 1e-6
    theirs = sklearn(X, targets(y), 1e-8)
    ours = ridge.path(X, y, [1e-8])[..., 0]
    check(ours[0], theirs[0], 1e-7)
    check(ours[1:-1], theirs[1:-1], 1e-10)


def test_constant_features_get_weight_0(dtype: np.dtype) -> None:
    X, y = problem(50, 8, dtype)
    X = np.insert(X, [0, 8], np.array([0.1, 1e6], dtype), axis=1)
    W = ridge.path(X, y, [0.0, *REG])
    np.testing.assert_array_equal(W[[0, 9]], 0)
    check(W[1:9], ridge.path(X[:, 1:9], y, [0.0, *REG])[:-1], 10 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("shape", [(12, 2), (2, 12)], ids=str)
def test_where_nothing_can_be_learnt_the_bias_is_the_mean_target(shape: tuple[int, int], dtype: np.dtype) -> None:
    X = np.vstack([np.full((1, shape[1]), 1e3), np.full(shape, 0.1)])  # the first example is absent
    y, weights = np.arange(shape[0] + 1) % 2, np.minimum(np.arange(shape[0] + 1), 1)
    W = ridge.path(X, y, [0.0, 1e-8, 1.0], num_classes=3, weights=weights)
    np.testing.assert_array_equal(W[:-1], 0)
    np.testing.assert_allclose(W[-1], np.array([[0], [0], [-1]]) + np.zeros(3), atol=np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_a_class_without_examples_gets_weight_0_and_bias_minus_1(shape: tuple[int, int], dtype: np.dtype) -> None:
    X, y = problem(*shape, dtype)
    W = ridge.path(X, y, REG, num_classes=C + 2)
    np.testing.assert_array_equal(W[:-1, C:], 0)
    np.testing.assert_array_equal(W[-1, C:], -1)
    np.testing.assert_array_equal(W[:, :C], ridge.path(X, y, REG))


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_moments_standardise_the_features(shape: tuple[int, int], dtype: np.dtype) -> None:
    X, y = problem(*shape, dtype)
    X *= np.logspace(-3, 3, shape[1]).astype(dtype)
    mean, scale = X.mean(axis=0), X.std(axis=0)
    W = ridge.path(X, y, REG, moments=(mean, scale))
    standardised = (X.astype(np.float64) - mean) / scale
    for k, reg in enumerate(REG):
        check(W[..., k], sklearn(standardised, targets(y), reg), TOLERANCE[dtype.name], f"{reg:g}")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_it_is_the_few_shot_regression_of_big_vision(shape: tuple[int, int]) -> None:
    """Their bias is the weight of a feature of 100: features 100 times smaller, a penalty 1e4 times smaller."""
    X, y = problem(*shape)
    mean, scale, l2 = X.mean(axis=0), X.std(axis=0) + 1e-5, 1024.0
    Z = np.pad((X - mean) / scale, ((0, 0), (0, 1)), constant_values=100.0)
    theirs = np.linalg.solve(Z.T @ Z + l2 * np.eye(Z.shape[1]), Z.T @ targets(y))
    W = ridge.path(X, y, [1e-4 * l2 / len(y)], moments=(mean, 100 * scale), penalise_bias=True)[..., 0]
    check(W / 100, theirs, 1e-10)


@pytest.mark.usefixtures("float64")
def test_weights_are_repetitions_and_weight_0_is_absence() -> None:
    X, y = problem(40, 20)
    X[0] = 1e3  # an outlier that is absent
    times = np.random.default_rng(4).integers(0, 4, 40)
    times[0], times[1 : C + 1] = 0, 1
    weighted = ridge.path(X, y, REG, weights=times)
    check(weighted, ridge.path(np.repeat(X, times, axis=0), np.repeat(y, times), REG), 1e-10)
    check(weighted, ridge.path(X[times > 0], y[times > 0], REG, weights=times[times > 0]), 1e-10)


@pytest.mark.parametrize("scale", [1e-60, 1e-30, 1e30, 1e60])
def test_only_the_proportions_of_weights_matter(scale: float) -> None:
    X, y = problem(40, 20)
    weights = np.random.default_rng(2).uniform(0, 3, 40)
    check(ridge.path(X, y, REG, weights=scale * weights), ridge.path(X, y, REG, weights=weights), 1e-6)


def test_each_value_is_solved_as_if_it_were_alone() -> None:
    X, y = problem(40, 20)
    alone = [ridge.path(X, y, [reg]) for reg in REG[::-1]]
    check(ridge.path(X, y, REG[::-1]), np.concatenate(alone, axis=2), 1e-6)


@pytest.mark.parametrize("kind", [np.float16, jnp.bfloat16, np.uint8, np.int64])
def test_features_of_any_real_type_are_computed_with_in_full(kind: Any, dtype: np.dtype) -> None:
    X, y = problem(50, 20)
    X = np.round(X).clip(0).astype(kind)
    np.testing.assert_array_equal(ridge.path(X, y, REG), ridge.path(X.astype(dtype), y, REG))
    np.testing.assert_array_equal(ridge.path(jnp.asarray(X), y, REG), ridge.path(X.astype(dtype), y, REG))


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_a_split_is_its_raw_features_and_prepared_its_prepared_ones(shape: tuple, dtype: np.dtype) -> None:
    X, y = problem(*shape, dtype)
    moments = X.mean(axis=0), X.std(axis=0)
    split = data.Split(np.repeat(X, 2, axis=0), y, np.arange(0, 2 * len(y), 2), *moments)
    expected = ridge.path(X, y, REG, moments=moments)
    np.testing.assert_array_equal(ridge.path(split, y, REG, moments=moments), expected)
    check(ridge.path(data.Prepared(split), y, REG), expected, TOLERANCE[dtype.name])


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)], ids=str)
def test_only_the_smaller_gram_matrix_is_decomposed_once(shape: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, eigh = [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda gram: shapes.append(gram.shape) or eigh(gram))
    ridge.path(*problem(*shape), REG)
    assert shapes == [(30, 30)]


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no value": ({"reg": []}, r"reg must hold at least one value, got shape \[0\]"),
    "one number": ({"reg": 0.1}, r"reg must hold at least one value, got shape \[\]"),
    "reg below 0": ({"reg": [0.0, -0.5]}, r"reg must hold finite values not below 0, got -0\.5"),
    "reg NaN": ({"reg": [np.nan]}, "reg must hold finite values not below 0, got nan"),
    "no matrix": ({"X": np.ones(50)}, r"X must have shape \[N, d\] with N, d >= 1, got \[50\]"),
    "NaN": ({"X": np.full((50, 3), np.nan)}, "X must be finite, got nan at row 0, column 0"),
    "labels": ({"num_classes": 3}, r"labels must lie in \[0, 3\), got 0 to 3"),
    "labels of others": ({"y": [0, 1]}, r"y must hold one label for each of the 50 examples, got shape \[2\]"),
    "weights of others": ({"weights": [1.0]}, r"weights must hold one for each of the 50 examples, got \[1\]"),
    "several weightings": ({"weights": np.ones((50, 2))}, r"weights must have shape \[50\], got \[50, 2\]"),
    "negative weights": ({"weights": -np.ones(50)}, "weights must be finite, not below 0, and not all 0"),
    "moments of others": (
        {"moments": (np.zeros(3), np.ones(1))},
        r"moments must be a mean and a scale of shape \[3\], got \[\[3\], \[1\]\]",
    ),
    "scale 0": ({"moments": (np.zeros(3), np.zeros(3))}, "moments must have a scale above 0, got 0"),
}


def test_a_feature_that_is_not_finite_is_named_by_its_row() -> None:
    X, y = problem(ridge.BLOCK + 9, 2)
    X[ridge.BLOCK + 3, 1] = np.inf
    with pytest.raises(ValueError, match=f"^X must be finite, got inf at row {ridge.BLOCK + 3}, column 1$"):
        ridge.path(X, y, [0.1])


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str) -> None:
    X, y = problem(50, 3)
    change, sentence = MISTAKES[mistake]
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        ridge.path(**({"X": X, "y": y, "reg": [0.1]} | change))


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"W": np.ones(3)}, ValueError, r"W must have shape \[D, C\], got \[3\]"),
        ({"reg": np.ones(2)}, ValueError, r"reg must be a scalar, got shape \[2\]"),
        (
            {"X": np.ones((2, 2))},
            ValueError,
            r"X must have the 3 features .*, got 2 \(is the column of ones missing\?\)",
        ),
        ({"X": np.ones((2, 3), int)}, TypeError, "X and params must share one float dtype, got int32 and float32"),
        ({"y": np.zeros(3, int)}, ValueError, r"y must hold one label for each of the 2 examples, got shape \[3\]"),
        ({"y": np.zeros(2)}, TypeError, "y must hold integer class labels, got float32"),
    ],
)
def test_a_mistake_in_the_loss_is_one_line(change: dict[str, Any], error: type, sentence: str) -> None:
    right = {"W": np.ones((3, 2)), "X": np.ones((2, 3)), "y": np.zeros(2, int), "reg": 0.1}
    with pytest.raises(error, match=f"^{sentence}$"):
        ridge.loss_and_grad(**(right | change))


def test_the_path_is_called_outside_of_jit() -> None:
    X, y = problem(9, 3)
    with pytest.raises(ValueError, match=r"^ridge\.path must be called outside of jax\.jit, jax\.vmap and jax\.grad: "):
        jax.jit(lambda X: ridge.path(X, y, [0.1]))(X)
