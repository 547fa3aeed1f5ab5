"""Compiled programs: the right numbers, and no needless copies or transposes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcls import engine, softmax
from jaxcls.classifier import Classifier, linear, two_layer_net
from jaxcls.engine import program
from jaxcls.engine.devices import mesh
from jaxcls.train import Hyper
from parity_tests.support.cases import named, slow

FEATURES, HIDDEN, CLASSES = 3073, 16, 10


def exact(W: np.ndarray, X: np.ndarray, y: np.ndarray, reg: float) -> tuple[float, np.ndarray]:
    """Loss and gradient in numpy and float64."""
    W, X = W.astype(np.float64), X.astype(np.float64)
    rows, scores = np.arange(len(y)), X @ W
    scores -= scores.max(axis=1, keepdims=True)
    e = np.exp(scores)
    p = e / e.sum(axis=1, keepdims=True)
    loss = np.mean(np.log(e.sum(axis=1)) - scores[rows, y]) + reg * np.sum(W * W)
    p[rows, y] -= 1
    return loss, X.T @ p / len(y) + 2 * reg * W


# jax issue 39103: on the CPU, jaxlib 0.10.2 gives wrong numbers for a jitted, vmapped product of a few columns
# followed by a reduction, beyond some 16,384 (float64) or 32,768 (float32) rows. These are such sizes and around.
ROWS = [40_001, *slow(16_385, 32_769)]
COLUMNS = [(3, 3), *slow((3, 2), (8, 10), (3, 64))]


@pytest.mark.parametrize("shape", COLUMNS, ids=str)
@pytest.mark.parametrize("num_examples", ROWS)
def test_jitted_numbers_are_right_where_the_cpu_compiler_is_known_to_err(
    num_examples: int, shape: tuple[int, int], dtype: np.dtype
) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((num_examples, shape[0])).astype(dtype)
    W, y = rng.standard_normal(shape).astype(dtype), rng.integers(0, shape[1], num_examples).astype(np.int32)
    loss, dW = exact(W, X, y, 0.1)
    cells, regs = np.stack([W] * 3, axis=1), np.array([0.3, 0.1, 0.2], dtype)
    over_cells = jax.jit(jax.vmap(softmax.loss_and_grad, in_axes=(1, None, None, 0), out_axes=(0, 1)))
    cell_losses, cell_grads = over_cells(cells, X, y, regs)
    # A loss per example, as a user maps it: the pattern of the report.
    per_example = jax.jit(jax.vmap(lambda x, label: softmax.loss(W, x[None], label[None], 0.1)))(X, y)
    # Sums of 40,001 terms; rounding grows with them.
    rtol = {"float32": 1e-5, "float64": 1e-13}[dtype.name]
    for ours in (softmax.loss_and_grad(W, X, y, 0.1), jax.jit(softmax.loss_and_grad)(W, X, y, 0.1)):
        np.testing.assert_allclose(ours[0], loss, rtol=rtol)
        np.testing.assert_allclose(ours[1], dW, atol=rtol * np.abs(dW).max())
    np.testing.assert_allclose(cell_losses[1], loss, rtol=rtol)
    np.testing.assert_allclose(cell_grads[:, 1], dW, atol=rtol * np.abs(dW).max())
    np.testing.assert_allclose(per_example.mean(), loss, rtol=rtol)


def compiled_chunk(classifier: Classifier, optimizer: engine.cells.Optimizer, replicates: int, cells: int) -> str:
    """The optimised HLO of a chunk of training, CS231n's sizes."""
    layers = (HIDDEN,) * classifier.num_hidden_layers
    problem = engine.Problem(classifier, optimizer, ((FEATURES, *layers, CLASSES),), jnp.dtype("float32"), (400, 100))
    hyper = Hyper(jnp.linspace(1e-7, 5e-7, cells), jnp.linspace(2.5e4, 5e4, cells))
    state = program.shapes(mesh(jax.devices()[:1]), problem, replicates, cells)
    num_raw = FEATURES - (not classifier.num_hidden_layers)  # without the column of ones
    X, y = jax.ShapeDtypeStruct((500, num_raw), jnp.uint8), jax.ShapeDtypeStruct((500,), jnp.int32)
    mean = jax.ShapeDtypeStruct((1, num_raw), jnp.float32)
    batches = jax.ShapeDtypeStruct((20, replicates, 200), jnp.int32)
    args = state, hyper, jnp.ones(replicates, int), engine.cells.Examples(X, y, mean, mean), batches
    return program.train(mesh(jax.devices()[:1]), problem).lower(*args).compile().as_text()


OPTIMIZERS = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "adam": optax.adam,
}


cpu_only = pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads what XLA's CPU compiler writes")


@cpu_only
@pytest.mark.parametrize("replicates", [*slow(1), 2])
@pytest.mark.parametrize(
    "optimizer",
    named(OPTIMIZERS, "momentum"),
)
@pytest.mark.parametrize("classifier", [linear(), two_layer_net()], ids=["linear", "net"])
def test_no_weights_are_copied_or_transposed(
    classifier: Classifier, optimizer: engine.cells.Optimizer, replicates: int
) -> None:
    cells = 25  # enough for the weights to be larger than a minibatch, which the compiler may transpose
    smallest = FEATURES * cells * CLASSES  # of a net, it may transpose the second layer's, far smaller than the first's
    moved = []
    for line in compiled_chunk(classifier, optimizer, replicates, cells).splitlines():
        if operation := re.search(r"= \w+\[([\d,]+)\]\S* (copy|transpose)\(", line):
            size = np.prod([int(length) for length in operation[1].split(",")])
            if size >= smallest * replicates:
                moved.append(line.strip()[:120])
    assert not moved


@cpu_only
def test_scores_of_all_cells_are_one_product() -> None:
    cells = 7
    text = compiled_chunk(linear(), optax.sgd, 1, cells)
    products = re.findall(r"= f32\[([\d,]+)\]\S* dot\(", text)
    shapes = sorted(tuple(int(n) for n in product.split(",") if n != "1") for product in products)
    assert (200, cells * CLASSES) in shapes, shapes
    assert (FEATURES, cells * CLASSES) in shapes, shapes


@cpu_only
def test_the_scores_of_one_model_are_not_transposed() -> None:
    """The product would be: the formula's sums run over transposed scores."""
    W, X = jax.ShapeDtypeStruct((FEATURES, CLASSES), jnp.float32), jax.ShapeDtypeStruct((500, FEATURES), jnp.float32)
    y = jax.ShapeDtypeStruct((500,), jnp.int32)
    text = jax.jit(softmax.loss_and_grad).lower(W, X, y, 0.1).compile().as_text()
    products = re.findall(r"= f32\[([\d,]+)\]\S* dot\(", text)
    assert sorted(products) == [f"{FEATURES},{CLASSES}", f"500,{CLASSES}"]
