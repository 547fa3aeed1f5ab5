"""Numeric gradients and relative errors, ours beside the course's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import torchref
from jaxcls import gradcheck, softmax

pytestmark = pytest.mark.usefixtures("float64")


def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return 1e-4 * rng.standard_normal((31, 10)), rng.uniform(-128, 128, (20, 31)), rng.integers(0, 10, 20)


def test_dense_gradient_is_that_of_torchref_and_the_true_one() -> None:
    x, upstream = np.linspace(-1, 2, 12).reshape(3, 4), np.arange(12.0).reshape(3, 4)
    ours = gradcheck.numeric_gradient(jnp.sin, x, upstream)
    theirs = torchref.compute_numeric_gradient(torch.sin, torch.tensor(x), torch.tensor(upstream))
    np.testing.assert_allclose(ours, upstream * np.cos(x), rtol=1e-8)
    np.testing.assert_allclose(theirs, upstream * np.cos(x), rtol=1e-6)


@pytest.mark.parametrize("reg", [0.0, 50.0])
def test_sparse_check_passes_on_the_gradient_and_fails_on_a_wrong_one(reg: float) -> None:
    """CS231n's own check: W = 1e-4 randn, h = 1e-5, ten probes, printed errors of 1e-6 to 1e-9 there."""
    W, X, y = problem()
    grad = softmax.loss_and_grad(W, X, y, reg)[1]

    def loss(W: jax.Array) -> jax.Array:
        return softmax.loss(W, X, y, reg)

    probes = gradcheck.sparse_check(loss, W, grad, key=jax.random.key(0))
    assert probes.relative_error.shape == (10,)
    assert probes.relative_error.max() < 1e-6
    wrong = gradcheck.sparse_check(loss, W, grad + 0.1, key=jax.random.key(0))
    assert wrong.relative_error.max() > 1e-3


@pytest.mark.usefixtures("no_type_checker")
def test_a_gradient_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^grad must have the shape of x, \[2, 3\], got \[1\]$"):
        gradcheck.sparse_check(lambda x: jnp.sum(x), jnp.ones((2, 3)), jnp.ones(1), key=jax.random.key(0))


@pytest.mark.parametrize("width", ["float32", "float64"])
def test_it_steps_as_far_as_the_dtype_needs(width: str) -> None:
    with jax.enable_x64(width == "float64"):
        x = jnp.linspace(-1, 2, 12)
        probes = gradcheck.sparse_check(lambda x: jnp.sum(jnp.sin(x)), x, jnp.cos(x), key=jax.random.key(0))
        assert probes.relative_error.max() < {"float32": 1e-3, "float64": 1e-8}[width]


def test_sparse_check_of_torchref_prints_and_passes(capsys: pytest.CaptureFixture) -> None:
    W, X, y = (torch.tensor(array) for array in problem())
    grad = torchref.softmax_loss_naive(W, X, y, 50.0)[1]
    errors = torchref.grad_check_sparse(lambda W: torchref.softmax_loss_naive(W, X, y, 50.0)[0], W, grad)
    assert len(errors) == 10
    assert max(errors) < 1e-4
    assert capsys.readouterr().out.count("relative error") == 10


def test_both_courses_relative_errors() -> None:
    a, b = np.array([1.0, -2.0, 1e-12]), np.array([1.1, -2.0, -1e-12])
    assert gradcheck.rel_error_elementwise(a, b) == pytest.approx(0.1 / 2.1)
    assert gradcheck.rel_error_of_max(a, b) == pytest.approx(0.1 / 4.0)
    assert torchref.rel_error(torch.tensor(a), torch.tensor(b)) == pytest.approx(0.1 / 4.0)
    assert gradcheck.rel_error_elementwise(a, a) == gradcheck.rel_error_of_max(a, a) == 0
