"""The multiclass hinge loss against every oracle."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional

from jaxcls import gradcheck
from jaxcls.losses import hinge, hinge_and_grad
from parity_tests.support.battery import DIFFERENCES, TOLERANCE
from parity_tests.support.cases import slow

Answer = tuple[Any, Any]  # loss, dL/dlogits
CELLS = 3  # the problem itself is in the middle of a stack


def plain(logits: jax.Array, y: jax.Array) -> jax.Array:
    margins = jax.nn.relu(1 + logits - jnp.take_along_axis(logits, y[:, None], axis=1))
    return jnp.sum(margins * (1 - jax.nn.one_hot(y, logits.shape[1]))) / len(y)


def as_the_worksheet_has_it(logits: np.ndarray, y: np.ndarray) -> Answer:
    """CS231n's ``svm_loss_naive``, in the dtype of the logits."""
    loss, dlogits = logits.dtype.type(0), np.zeros_like(logits)
    for i in range(len(y)):
        for j in range(logits.shape[1]):
            margin = logits[i, j] - logits[i, y[i]] + 1
            if j != y[i] and margin > 0:
                loss += margin
                dlogits[i, j] += 1
                dlogits[i, y[i]] -= 1
    return loss / len(y), dlogits / len(y)


def with_torch(logits: np.ndarray, y: np.ndarray) -> Answer:
    tensor = torch.tensor(logits, requires_grad=True)
    loss = logits.shape[1] * functional.multi_margin_loss(tensor, torch.tensor(y.astype(np.int64)))  # theirs is over C
    loss.backward()
    return loss.detach(), tensor.grad


def stack(logits: np.ndarray) -> np.ndarray:
    return np.stack([logits + 1, logits, -logits], axis=-1)


def of_a_stack(logits: np.ndarray, y: np.ndarray) -> Answer:
    loss, dlogits = JITTED(stack(logits), y)
    return loss[1], dlogits[..., 1]


def vmapped(function: Callable[..., Any]) -> Callable[..., Any]:
    over_cells = jax.jit(jax.vmap(function, in_axes=(-1, None)))

    def answer(logits: np.ndarray, y: np.ndarray) -> Answer:
        loss, dlogits = over_cells(stack(logits), y)
        return loss[1], dlogits[1]

    return answer


JITTED = jax.jit(hinge_and_grad)
WAYS = {
    "eager": hinge_and_grad,
    "jitted": JITTED,
    "a stack": of_a_stack,
    "vmapped": vmapped(hinge_and_grad),
    "jax.grad": jax.value_and_grad(hinge),
    "jax.grad, jitted": jax.jit(jax.value_and_grad(hinge)),
    "jax.grad, vmapped": vmapped(jax.value_and_grad(hinge)),
}
ORACLES = {
    "jax.grad of a plain formula": jax.jit(jax.value_and_grad(plain)),
    "the worksheet's loops": as_the_worksheet_has_it,
    "torch autograd of multi_margin_loss": with_torch,
}


def problem(num_examples: int, num_classes: int, dtype: np.dtype, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = (scale * rng.standard_normal((num_examples, num_classes))).astype(dtype)
    return logits, rng.integers(0, num_classes, num_examples).astype(np.int32)


def check(ours: Answer, theirs: Answer, tolerance: float, label: str) -> None:
    for name, a, b in zip(("loss", "dlogits"), ours, theirs, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(), err_msg=f"{name}, {label}")


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0], ids=["all violated", "some violated", "few violated"])
@pytest.mark.parametrize(
    "shape",
    [(1, 2), (7, 5), *slow((1, 7), (9, 2), (301, 3), (20, 113))],
    ids=str,
)
def test_every_way_agrees_with_every_oracle(shape: tuple[int, int], scale: float, dtype: np.dtype) -> None:
    logits, y = problem(*shape, dtype, scale)
    theirs = {name: oracle(logits, y) for name, oracle in ORACLES.items()}
    for way, answer in WAYS.items():
        ours = answer(logits, y)
        assert ours[0].dtype == ours[1].dtype == dtype
        for name, expected in theirs.items():
            check(ours, expected, TOLERANCE[dtype.name], f"{way} against {name}")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(1, 2), (7, 5), *slow((9, 2))], ids=str)
def test_the_gradient_is_the_central_difference(shape: tuple[int, int]) -> None:
    logits, y = problem(*shape, np.dtype("float64"))
    numeric = gradcheck.numeric_gradient(lambda s: hinge(s, y), logits)
    np.testing.assert_allclose(hinge_and_grad(logits, y)[1], numeric, atol=DIFFERENCES)


@pytest.mark.usefixtures("float64")
def test_through_a_linear_model_the_gradient_is_the_central_difference() -> None:
    rng = np.random.default_rng(0)
    X, y, W = rng.standard_normal((6, 4)), rng.integers(0, 3, 6), rng.standard_normal((4, 3))

    def loss(W: jax.Array) -> jax.Array:
        return 7 * hinge(X @ W, y) + 0.1 * jnp.sum(W * W)

    np.testing.assert_allclose(jax.grad(loss)(W), gradcheck.numeric_gradient(loss, W), atol=DIFFERENCES)


@pytest.mark.parametrize("num_classes", [1, 2, 3, 10, 1000])
def test_hinge_of_equal_logits_is_C_minus_1(num_classes: int, dtype: np.dtype) -> None:  # noqa: N802  as the field has it
    loss, dlogits = JITTED(np.full((4, num_classes), 7, dtype), np.arange(4) % num_classes)
    assert float(loss) == num_classes - 1
    np.testing.assert_array_equal(dlogits[0] * 4, [1 - num_classes, *[1] * (num_classes - 1)])


def test_hinge_of_the_lectures_three_pictures_is_theirs(dtype: np.dtype) -> None:
    """CS231n, lecture 3: a cat, a car and a frog, with losses of 2.9, 0 and 12.9."""
    scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]], dtype)
    losses = [float(hinge(scores[i : i + 1], np.array([i]))) for i in range(3)]
    np.testing.assert_allclose(losses, [2.9, 0.0, 12.9], rtol=1e-6)
    np.testing.assert_allclose(hinge(scores, np.arange(3)), 15.8 / 3, rtol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_margin_of_exactly_0_passes_no_gradient(way: str, dtype: np.dtype) -> None:
    logits, y = np.array([[3, 2, 1.5], [0, 1, 2]], dtype), np.array([0, 2])
    loss, dlogits = WAYS[way](logits, y)
    assert float(loss) == 0
    np.testing.assert_array_equal(dlogits, np.zeros((2, 3)))
    np.testing.assert_array_equal(dlogits, with_torch(logits, y)[1])


@pytest.mark.parametrize("num_examples", [1, 3])
def test_any_finite_logits_give_finite_loss_and_gradient(num_examples: int, dtype: np.dtype) -> None:
    largest = np.finfo(dtype).max
    logits = np.array([[largest, -largest, 0.0]] * num_examples, dtype)
    for label, loss, counts in ((0, 0.0, [0, 0, 0]), (1, largest, [1, -2, 1]), (2, largest, [1, 0, -1])):
        found, dlogits = JITTED(logits, np.full(num_examples, label))
        np.testing.assert_allclose(found, loss, rtol=1e-6)  # label 1's is 3 times larger than any number: it saturates
        np.testing.assert_allclose(dlogits, [np.array(counts) / num_examples] * num_examples, rtol=1e-6)


@pytest.mark.parametrize("half", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_exact_where_the_margins_are(half: Any) -> None:
    logits, y = np.round(problem(8, 4, np.dtype("float32"))[0] * 4) / 4, np.arange(8) % 4
    exact = JITTED(logits, y)
    loss, dlogits = JITTED(jnp.asarray(logits, half), y)
    assert loss.dtype == dlogits.dtype == half
    np.testing.assert_allclose(loss, exact[0], rtol=float(jnp.finfo(half).eps))
    np.testing.assert_array_equal(dlogits, exact[1])


# One shape, compiled once; nothing in the mathematics depends on it.
labels = hnp.arrays(np.int32, 3, elements=st.integers(0, 3))


def logits_within(bound: float) -> st.SearchStrategy[np.ndarray]:
    elements = st.floats(-bound, bound, width=32, allow_subnormal=False)
    return hnp.arrays(np.float32, (3, 4), elements=elements)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(logits_within(float(np.finfo(np.float32).max)), labels)
def test_any_finite_logits_give_a_finite_loss_and_a_gradient_with_its_signs(logits: np.ndarray, y: np.ndarray) -> None:
    loss, dlogits = JITTED(logits, y)
    assert 0 <= float(loss) < np.inf
    is_label = y[:, None] == np.arange(4)
    assert np.all(np.where(is_label, dlogits <= 0, dlogits >= 0))
    np.testing.assert_allclose(dlogits.sum(axis=1), 0, atol=1e-6)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(logits_within(30.0), labels)
def test_no_lower_than_any_of_its_tangents(logits: np.ndarray, y: np.ndarray) -> None:
    """The loss is convex, and what is called its gradient a subgradient, at a kink too."""
    logits = np.round(logits)  # so that margins of exactly 0 are common
    loss, dlogits = JITTED(logits, y)
    for elsewhere in (np.zeros_like(logits), -logits, logits[::-1], logits + np.eye(3, 4, dtype=np.float32)):
        assert JITTED(elsewhere, y)[0] >= loss + np.sum(dlogits * (elsewhere - logits)) - 1e-3  # of up to 180


@pytest.mark.usefixtures("float64")
def test_second_derivatives_are_zero() -> None:
    logits, y = problem(4, 3, np.dtype("float64"))
    for hessian in (jax.hessian(hinge), jax.jacrev(jax.grad(hinge))):
        np.testing.assert_array_equal(jax.jit(hessian)(logits, y), np.zeros((4, 3, 4, 3)))


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize("function", [hinge, hinge_and_grad])
@pytest.mark.parametrize(
    ("logits", "y", "error", "sentence"),
    [
        (np.ones(3), np.zeros(3, int), ValueError, r"logits must have shape \[N, C\] with N, C >= 1, got \[3\]"),
        (np.ones((0, 3)), np.zeros(0, int), ValueError, r"logits must have shape \[N, C\] .*, got \[0, 3\]"),
        (np.ones((2, 3), int), np.zeros(2, int), TypeError, "logits must be floating point, got int32"),
        (np.ones((2, 3)), np.zeros(3, int), ValueError, r"one label for each of the 2 examples, got shape \[3\]"),
        (np.ones((2, 3)), np.zeros(2), TypeError, "y must hold integer class labels, got float32"),
    ],
)
def test_static_mistakes_are_one_line_errors(
    function: Callable[..., Any], logits: np.ndarray, y: np.ndarray, error: type, sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        jax.jit(function)(logits, y)


@pytest.mark.usefixtures("no_type_checker")
def test_the_loss_alone_rejects_a_stack() -> None:
    with pytest.raises(ValueError, match=r"logits must have shape \[N, C\] .*, got \[2, 3, 4\]"):
        hinge(jnp.ones((2, 3, 4)), jnp.zeros(2, int))
