"""The linear softmax classifier against every oracle."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.nn import functional

import torchref
from jaxcls import losses, softmax
from parity_tests.support.battery import (
    DIFFERENCES,
    ODD,
    SHAPE_CASES,
    SHAPES,
    TOLERANCE,
    Case,
    Model,
    check,
    differences,
    random_case,
    ways,
)
from parity_tests.support.cases import slow


def plain(W: jax.Array, X: jax.Array, y: jax.Array, reg: jax.Array) -> jax.Array:
    scores = X @ W
    label_scores = jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(scores, axis=1) - label_scores) + reg * jnp.sum(W * W)


def with_optax(W: jax.Array, X: jax.Array, y: jax.Array, reg: jax.Array) -> jax.Array:
    return optax.losses.softmax_cross_entropy_with_integer_labels(X @ W, y).mean() + reg * (W * W).sum()


def with_torch(W: torch.Tensor, X: torch.Tensor, y: torch.Tensor, reg: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(X @ W, y) + reg * (W * W).sum()


SOFTMAX = Model(
    softmax.loss,
    softmax.loss_and_grad,
    softmax.loss_and_grad_naive,
    plain,
    with_optax,
    with_torch,
    {name: getattr(torchref, name) for name in ("softmax_loss_naive", "softmax_loss_vectorized")},
)


def weights(rng: np.random.Generator, num_features: int, num_classes: int, dtype: np.dtype) -> np.ndarray:
    return (rng.standard_normal((num_features, num_classes)) / np.sqrt(num_features)).astype(dtype)


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPE_CASES)
def test_every_way_agrees_with_every_oracle(shape: tuple[int, int, int], reg: float, dtype: np.dtype) -> None:
    check(SOFTMAX, random_case(weights, shape, reg, dtype), TOLERANCE[dtype.name], eager=max(shape) < 10)


def test_every_way_agrees_with_every_oracle_on_one_example() -> None:
    case = random_case(weights, SHAPES["one example, two classes"], 0.3, np.dtype("float32"))
    check(SOFTMAX, case, TOLERANCE["float32"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("reg", [0.0, 0.3, 50.0])
@pytest.mark.parametrize("shape", [(7, 13, 5), *slow((1, 3, 2), (9, 1, 3))], ids=str)
def test_gradients_are_the_central_differences(shape: tuple[int, int, int], reg: float) -> None:
    case = random_case(weights, shape, reg, np.dtype("float64"))
    check(SOFTMAX, case, DIFFERENCES, against={"central differences": differences(SOFTMAX, case)})


def test_labels_of_one_class_only(dtype: np.dtype) -> None:
    case = random_case(weights, ODD, 0.1, dtype)._replace(y=np.full(ODD[0], 2, np.int32))
    check(SOFTMAX, case, TOLERANCE[dtype.name], eager=False)


EXTREMES: dict[str, Any] = {
    "scores of 1e4": [[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 1e4, -1e4]],
    "scores of 1e30": [[1e30, -1e30, 0.0], [-1e30, 1e30, 5.0], [0.0, 1e30, -1e30]],
    "ties at the top": [[3.0, 3.0, 1.0], [2.0, 2.0, 2.0], [1e4, 1e4, 1e4]],
    "all equal": [[7.0] * 3] * 3,
    "all zero": [[0.0] * 3] * 3,
}


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1], [2, 0, 1]], ids=str)
@pytest.mark.parametrize("scores", EXTREMES.values(), ids=EXTREMES.keys())
def test_extreme_scores(scores: list[list[float]], labels: list[int], dtype: np.dtype) -> None:
    # With X the identity, the scores are W itself.
    case = Case(np.array(scores, dtype), np.eye(3, dtype=dtype), np.array(labels, np.int32), 0.0)
    check(SOFTMAX, case, TOLERANCE[dtype.name], quantities=("dparams", "dX"), floor=np.abs(case.params).max() / 3)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("num_examples", [1, 3])
def test_any_finite_logits_give_finite_loss_and_gradient(dtype: np.dtype, num_examples: int, label: int) -> None:
    """The courses' ``-log(p[y])`` is infinite as soon as ``p[y]`` underflows."""
    largest = np.finfo(dtype).max
    logits = np.array([[largest, -largest, 0.0]] * num_examples, dtype)
    y = np.full(num_examples, label, np.int32)
    for function in (losses.cross_entropy_and_grad, jax.jit(losses.cross_entropy_and_grad)):
        loss, dlogits = function(logits, y)
        assert float(loss) == (0.0 if label == 0 else largest)  # 2 · largest is not a number: it saturates
        expected = np.array([1.0, 0.0, 0.0]) - np.eye(3)[label]
        np.testing.assert_allclose(dlogits, [expected / num_examples] * num_examples, rtol=1e-6)


def test_confident_prediction_keeps_its_digits() -> None:
    """``p_y - 1`` is 0 in float32 once the other scores are 17 below; the loss and gradient are not."""
    loss, dlogits = losses.cross_entropy_and_grad(jnp.array([[30.0, 0.0]]), jnp.array([0]))
    np.testing.assert_allclose(loss, np.exp(-30.0), rtol=1e-6)
    np.testing.assert_allclose(dlogits, [[-np.exp(-30.0), np.exp(-30.0)]], rtol=1e-6)


@pytest.mark.usefixtures("no_type_checker")
def test_weights_may_be_a_list_but_one_for_each_example() -> None:
    logits, y = np.array([[1.0, 2.0], [0.5, -1.0]], np.float32), np.array([0, 1])
    loss, dlogits = losses.cross_entropy_and_grad(logits, y, [1.0, 0.0])
    one, done = losses.cross_entropy_and_grad(logits[:1], y[:1])
    assert loss == one
    np.testing.assert_array_equal(dlogits, np.append(done, np.zeros((1, 2)), axis=0))
    with pytest.raises(ValueError, match=r"^weights must hold one for each of the 2 examples, got \[1\]$"):
        losses.cross_entropy_and_grad(logits, y, [1.0])


def test_a_loss_too_large_for_the_dtype_counts_for_nothing_at_weight_0() -> None:
    logits, y = jnp.array([[3e38, -3e38], [0.0, 1.0]]), jnp.array([1, 1])
    loss, dlogits = losses.cross_entropy_and_grad(logits, y, jnp.array([0.0, 1.0]))
    assert loss == losses.cross_entropy(logits[1:], y[1:])
    assert np.isfinite(dlogits).all()


@pytest.mark.usefixtures("float64")
def test_loss_at_weights_of_one_is_the_published_number() -> None:
    """CS231n 2016's check: 3,073 x 10 ones, reg 2.5e4, any X."""
    rng = np.random.default_rng(0)
    W, X, y = np.ones((3073, 10)), rng.uniform(-128, 128, (500, 3073)), rng.integers(0, 10, 500)
    for loss_and_grad in (softmax.loss_and_grad, softmax.loss_and_grad_naive):
        assert f"{loss_and_grad(W, X, y, 2.5e4)[0]:.6f}" == "768250002.302585"
    tensors = [torch.tensor(array) for array in (W, X, y)]
    assert f"{torchref.softmax_loss_vectorized(*tensors, 2.5e4)[0]:.6f}" == "768250002.302585"


@pytest.mark.parametrize("num_classes", [5, *slow(2, 3, 10, 1000)])
def test_loss_at_zero_weights_is_log_num_classes(num_classes: int, dtype: np.dtype) -> None:
    case = random_case(weights, (*ODD[:2], num_classes), 0.7, dtype)
    case = case._replace(params=np.zeros_like(case.params))
    for way, values in ways(SOFTMAX).items():
        np.testing.assert_allclose(values(case)["loss"], np.log(num_classes), rtol=TOLERANCE[dtype.name], err_msg=way)


@pytest.mark.usefixtures("float64")
def test_second_derivatives_are_those_of_the_plain_formula() -> None:
    W, X, y, reg = random_case(weights, (6, 4, 3), 0.2, np.dtype("float64"))
    for hessian in (jax.hessian, lambda f: jax.jacrev(jax.grad(f))):
        ours, theirs = (jax.jit(hessian(loss))(W, X, y, reg) for loss in (softmax.loss, plain))
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_predict_is_what_torchref_predicts(dtype: np.dtype) -> None:
    W, X, _, _ = random_case(weights, (200, 17, 10), 0.0, dtype)
    np.testing.assert_array_equal(
        softmax.predict(W, X), torchref.predict_linear_classifier(torch.tensor(W), torch.tensor(X))
    )


def test_the_column_of_ones_is_the_last() -> None:
    np.testing.assert_array_equal(softmax.append_ones(np.array([[3.0, 2.0], [0.0, 5.0]])), [[3, 2, 1], [0, 5, 1]])


def test_init_has_the_scale_asked_for() -> None:
    W = softmax.init(3073, 10, key=jax.random.key(0), scale=1e-6)
    assert W.shape == (3073, 10)
    np.testing.assert_allclose(W.std(), 1e-6, rtol=0.02)


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("function", [softmax.loss, softmax.loss_and_grad, softmax.loss_and_grad_naive])
@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"params": np.ones(4)}, ValueError, r"W must have shape \[D, C\], got \[4\]"),
        ({"X": np.ones(4)}, ValueError, r"X must have shape \[N, D\], got \[4\]"),
        ({"X": np.ones((0, 4))}, ValueError, "X must hold at least one example, got none"),
        ({"X": np.ones((2, 3))}, ValueError, r"the 4 features the params expect, got 3 \(is the column of ones"),
        ({"X": np.ones((2, 9))}, ValueError, "X must have the 4 features the params expect, got 9"),
        ({"X": np.ones((2, 4), np.uint8)}, TypeError, "must share one float dtype, got uint8 and float32"),
        ({"y": np.zeros(3, int)}, ValueError, "one label for each of the 2 examples, got shape \\[3\\]"),
        ({"y": np.zeros(2)}, TypeError, "y must hold integer class labels, got float32"),
    ],
)
def test_static_mistakes_are_one_line_errors(function: Any, change: dict, error: type, sentence: str) -> None:
    case = Case(np.ones((4, 3)), np.ones((2, 4)), np.zeros(2, int), 0.1)._replace(**change)
    with pytest.raises(error, match=sentence):
        jax.jit(function)(*case)
