"""The two-layer net against every oracle, and against both courses' toy problems."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.nn import functional

import torchref
from jaxcls import gradcheck, two_layer
from jaxcls.two_layer import Params
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

GOLDENS = Path(__file__).parent / "goldens"


def scores(params: Params, X: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(X @ params.W1 + params.b1[None])
    return hidden @ params.W2 + params.b2[None]


def plain(params: Params, X: jax.Array, y: jax.Array, reg: jax.Array) -> jax.Array:
    s = scores(params, X)
    data_loss = jnp.mean(jax.nn.logsumexp(s, axis=1) - jnp.take_along_axis(s, y[:, None], axis=1)[:, 0])
    return data_loss + reg * (jnp.sum(params.W1**2) + jnp.sum(params.W2**2))


def with_optax(params: Params, X: jax.Array, y: jax.Array, reg: jax.Array) -> jax.Array:
    data_loss = optax.losses.softmax_cross_entropy_with_integer_labels(scores(params, X), y).mean()
    return data_loss + reg * (jnp.sum(params.W1**2) + jnp.sum(params.W2**2))


def with_torch(params: Params, X: torch.Tensor, y: torch.Tensor, reg: torch.Tensor) -> torch.Tensor:
    hidden = functional.relu(X @ params.W1 + params.b1)
    penalty = (params.W1**2).sum() + (params.W2**2).sum()
    return functional.cross_entropy(hidden @ params.W2 + params.b2, y) + reg * penalty


def with_torchref(params: Params, X: torch.Tensor, y: torch.Tensor, reg: float) -> tuple[torch.Tensor, Params]:
    loss, grads = torchref.nn_forward_backward(params._asdict(), X, y, reg)
    return loss, Params(**grads)


TWO_LAYER = Model(
    two_layer.loss,
    two_layer.loss_and_grad,
    two_layer.loss_and_grad_naive,
    plain,
    with_optax,
    with_torch,
    {"nn_forward_backward": with_torchref},
)


def net(num_hidden: int) -> Any:
    """A maker of params with this many hidden units."""

    def params(rng: np.random.Generator, num_features: int, num_classes: int, dtype: np.dtype) -> Params:
        shapes = (num_features, num_hidden), (num_hidden,), (num_hidden, num_classes), (num_classes,)
        return Params(*((rng.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype) for shape in shapes))

    return params


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPE_CASES)
def test_every_way_agrees_with_every_oracle(shape: tuple[int, int, int], reg: float, dtype: np.dtype) -> None:
    check(TWO_LAYER, random_case(net(9), shape, reg, dtype), TOLERANCE[dtype.name], eager=max(shape) < 10)


def test_every_way_agrees_with_every_oracle_on_one_example() -> None:
    case = random_case(net(9), SHAPES["one example, two classes"], 0.3, np.dtype("float32"))
    check(TWO_LAYER, case, TOLERANCE["float32"])


@pytest.mark.parametrize("dtype", ["float32", *slow("float64")], indirect=True)
def test_one_hidden_unit(dtype: np.dtype) -> None:
    check(TWO_LAYER, random_case(net(1), (7, 5, 3), 0.1, dtype), TOLERANCE[dtype.name], eager=False)


def test_labels_of_one_class_only(dtype: np.dtype) -> None:
    case = random_case(net(9), ODD, 0.1, dtype)._replace(y=np.full(ODD[0], 2, np.int32))
    check(TWO_LAYER, case, TOLERANCE[dtype.name], eager=False)


@pytest.mark.parametrize("dead", [[2, 5], range(9)], ids=["two units", "the whole layer"])
def test_dead_units(dead: Any, dtype: np.dtype) -> None:
    """A unit that is off for every example passes nothing back; the penalty still pulls at its weights."""
    case = random_case(net(9), ODD, 0.1, dtype)
    case.params.b1[list(dead)] = -1e3
    check(TWO_LAYER, case, TOLERANCE[dtype.name], eager=False)
    grads = two_layer.loss_and_grad(*case)[1]
    np.testing.assert_array_equal(grads.b1[jnp.array(dead)], 0)


def test_relu_passes_nothing_at_exactly_zero(dtype: np.dtype) -> None:
    case = random_case(net(9), ODD, 0.0, dtype)
    case.params.W1[:, 3] = 0
    case.params.b1[3] = 0  # z is exactly 0 for every example
    check(TWO_LAYER, case, TOLERANCE[dtype.name], eager=False)
    grads = two_layer.loss_and_grad(*case)[1]
    np.testing.assert_array_equal(grads.W1[:, 3], 0)
    assert grads.b1[3] == 0


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_gradients_are_the_central_differences(reg: float) -> None:
    case = random_case(net(9), ODD, reg, np.dtype("float64"))
    check(TWO_LAYER, case, DIFFERENCES, against={"central differences": differences(TWO_LAYER, case)})


@pytest.mark.parametrize("num_classes", [5, *slow(2, 10)])
def test_loss_at_zero_weights_is_log_num_classes(num_classes: int, dtype: np.dtype) -> None:
    case = random_case(net(9), (*ODD[:2], num_classes), 0.7, dtype)
    case = case._replace(params=jax.tree.map(np.zeros_like, case.params))
    for way, values in ways(TWO_LAYER).items():
        np.testing.assert_allclose(values(case)["loss"], np.log(num_classes), rtol=TOLERANCE[dtype.name], err_msg=way)


@pytest.mark.usefixtures("float64")
def test_second_derivatives_are_those_of_the_plain_formula() -> None:
    params, X, y, reg = random_case(net(4), (6, 3, 3), 0.2, np.dtype("float64"))
    ours, theirs = (jax.jit(jax.hessian(loss))(params, X, y, reg) for loss in (two_layer.loss, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, theirs)


def test_predict_is_what_torchref_predicts(dtype: np.dtype) -> None:
    params, X, _, _ = random_case(net(9), (200, 17, 10), 0.0, dtype)
    tensors = {name: torch.tensor(array) for name, array in params._asdict().items()}
    theirs = torchref.nn_predict(tensors, torchref.nn_forward_backward, torch.tensor(X))
    np.testing.assert_array_equal(two_layer.predict(params, X), theirs)


def golden(name: str) -> tuple[dict[str, np.ndarray], Params]:
    with np.load(GOLDENS / f"{name}.npz") as file:
        arrays = dict(file)
    return arrays, Params(*(arrays[field] for field in Params._fields))


@pytest.mark.usefixtures("float64")
def test_the_toy_net_of_cs231n() -> None:
    """Scores, loss and gradients that the assignment of CS231n prints and checks."""
    arrays, params = golden("cs231n_toy")
    X, y = arrays["X"], arrays["y"]
    assert np.abs(two_layer.logits(params, X) - arrays["correct_scores"]).sum() < 1e-7
    for function in (two_layer.loss_and_grad, two_layer.loss_and_grad_naive):
        loss, grads = jax.jit(function)(params, X, y, 0.05)
        assert abs(float(loss) - 1.30378789133) < 1e-11  # as many digits as are printed
        assert abs(float(loss) - arrays["loss_reg005"]) < 1e-12
        for name, grad in grads._asdict().items():
            assert gradcheck.rel_error_elementwise(grad, arrays[f"d{name}"]) < 1e-8, name
    assert abs(float(jax.jit(two_layer.loss)(params, X, y, 0.0)) - arrays["loss_reg0"]) < 1e-12


def test_the_toy_net_of_eecs498_in_float32() -> None:
    arrays, params = golden("eecs_toy_cuda_float32")
    X, y = arrays["X"], arrays["y"].astype(np.int32)
    assert np.abs(two_layer.logits(params, X) - arrays["correct_scores"]).sum() < 1e-10
    assert float(jax.jit(two_layer.loss)(params, X, y, 0.05)) == pytest.approx(1.0986121892929077, rel=1e-7)


@pytest.mark.usefixtures("float64")
def test_the_toy_net_of_eecs498_in_float64() -> None:
    arrays, params = golden("eecs_toy_cuda_float64")
    case = Case(params, arrays["X"], arrays["y"].astype(np.int32), 0.05)
    loss, grads = two_layer.loss_and_grad(*case)
    assert abs(float(loss) - arrays["loss_reg005"]) < 1e-12
    np.testing.assert_allclose(two_layer.logits(params, case.X), arrays["scores"], rtol=1e-9)
    for name, grad in grads._asdict().items():
        assert gradcheck.rel_error_elementwise(grad, arrays[f"d{name}"]) < 1e-8, name

        def f(x: jax.Array, name: str = name) -> jax.Array:
            return two_layer.loss(params._replace(**{name: x}), *case[1:])

        # The course's step: a larger one would carry units of this tiny net across their kink.
        numeric = gradcheck.numeric_gradient(f, getattr(params, name), h=1e-7)
        assert gradcheck.rel_error_of_max(numeric, grad) < 1e-4, name


@pytest.mark.usefixtures("no_type_checker")
@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"b1": np.zeros(8, np.float32)}, ValueError, r"params must have shapes W1 \[D, H\], .* b1 \[8\], W2 \[9, 4\]"),
        ({"W2": np.zeros(9, np.float32)}, ValueError, r"params must have shapes .*, got W1 \[5, 9\].* W2 \[9\]"),
        ({"W1": np.zeros((5, 9), np.float16)}, TypeError, "params must share one dtype, got float16, float32"),
    ],
)
def test_static_mistakes_are_one_line_errors(change: dict, error: type, sentence: str) -> None:
    case = random_case(net(9), (3, 5, 4), 0.1, np.dtype("float32"))
    case = case._replace(params=case.params._replace(**change))
    for function in (two_layer.loss, two_layer.loss_and_grad, two_layer.loss_and_grad_naive):
        with pytest.raises(error, match=sentence):
            function(*case)
