"""One checker for every model: the ways jaxcls computes a gradient, the oracles that know it, the cases to try."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import torch

from jaxcls import gradcheck
from parity_tests.support.cases import named

# Largest difference over largest magnitude, of any array. Central differences have an error of their own.
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
DIFFERENCES = 1e-7

Values = dict[str, np.ndarray]  # "loss", "dparams", and where the way gives them "dX" and "dreg"


@dataclass(frozen=True, eq=False)
class Model:
    """A model under test, and what other frameworks say it is."""

    loss: Callable[..., Any]  # jaxcls: (params, X, y, reg)
    loss_and_grad: Callable[..., Any]
    loss_and_grad_naive: Callable[..., Any]
    plain: Callable[..., Any]  # a plain formula in JAX, independent of the implementation
    optax: Callable[..., Any]  # JAX, with optax's cross-entropy
    torch: Callable[..., Any]  # torch, with torch's cross-entropy: autograd differentiates it
    torchref: dict[str, Callable[..., Any]]  # torchref's loss functions, hand-derived


class Case(NamedTuple):
    """One problem: numpy arrays, ``params`` an array or a tree of them."""

    params: Any
    X: np.ndarray
    y: np.ndarray
    reg: float


@functools.cache
def ways(model: Model) -> dict[str, Callable[[Case], Values]]:
    """Every way in which jaxcls computes loss and gradient."""
    return {
        "eager": _direct(model.loss_and_grad),
        "jitted": _direct(jax.jit(model.loss_and_grad)),
        "loops": _direct(jax.jit(model.loss_and_grad_naive)),
        "jax.grad": _autodiff(model.loss),
        "jax.grad, jitted": _autodiff(model.loss, jax.jit),
        "vmapped over cells": _stacked(jax.jit(_over_cells(model.loss_and_grad))),
        "a stack": _stacked(jax.jit(model.loss_and_grad)),
        "jax.grad, vmapped over cells": _vmapped_autodiff(model.loss),
    }


@functools.cache
def oracles(model: Model) -> dict[str, Callable[[Case], Values]]:
    """Everyone else's answer."""
    return {
        "jax.grad of a plain formula": _autodiff(model.plain, jax.jit),
        "optax": _autodiff(model.optax, jax.jit),
        "torch autograd": _torch_autograd(model.torch),
        **{f"torchref.{name}": _torchref(function) for name, function in model.torchref.items()},
    }


def differences(model: Model, case: Case) -> Values:
    """Central differences of the loss, in float64."""

    def gradient(at: Any, rebuild: Callable[[Any], tuple]) -> np.ndarray:
        leaves, tree = jax.tree.flatten(at)
        grads = []
        for k, leaf in enumerate(leaves):

            def f(x: jax.Array, k: int = k) -> jax.Array:
                return model.loss(*rebuild(tree.unflatten([*leaves[:k], x, *leaves[k + 1 :]])))

            grads.append(gradcheck.numeric_gradient(f, leaf))
        return _flat(grads)

    params, X, y, reg = case
    return {
        "dparams": gradient(params, lambda params: (params, X, y, reg)),
        "dX": gradient(X, lambda X: (params, X, y, reg)),
        "dreg": gradient(np.float64(reg), lambda reg: (params, X, y, reg)),
    }


EAGER = {"eager", "jax.grad"}
QUANTITIES = ("loss", "dparams", "dX", "dreg")


def check(
    model: Model,
    case: Case,
    tolerance: float,
    *,
    against: dict[str, Values] | None = None,
    quantities: Sequence[str] = QUANTITIES,
    floor: float = 0.0,
    eager: bool = True,
) -> None:
    """Every way agrees with every oracle, in all that both of them give.

    Args:
      model: whose ways and oracles.
      case: the problem.
      tolerance: largest difference, as a fraction of the largest magnitude in the array.
      against: answers to compare with instead of the oracles'.
      quantities: which to compare.
      floor: the least magnitude to measure by, where the exact answer is a cancellation to 0.
      eager: also the ways that are not jitted, for which JAX compiles each operation for each shape.
    """
    theirs = against or {name: oracle(case) for name, oracle in oracles(model).items()}
    for way, values in ways(model).items():
        if way in EAGER and not eager:
            continue
        ours = values(case)
        for name, answer in theirs.items():
            for quantity in ours.keys() & answer.keys() & set(quantities):
                a, b, label = ours[quantity], answer[quantity], f"{quantity}, {way} against {name}"
                assert a.shape == b.shape, f"{label}: shape {a.shape}, expected {b.shape}"
                assert np.isfinite(a).all(), f"{label}: not finite"
                error = np.abs(a - b).max() / (max(np.abs(b).max(), floor) or 1)
                assert error <= tolerance, f"{label}: off by {error:.1e} of its size, allowed {tolerance:.0e}"


def random_case(
    make_params: Callable[..., Any], shape: tuple[int, int, int], reg: float, dtype: np.dtype, seed: int = 0
) -> Case:
    """N, D, C and reg; standard normal features, uniform labels."""
    num_examples, num_features, num_classes = shape
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((num_examples, num_features)).astype(dtype)
    params = make_params(rng, num_features, num_classes, dtype)
    return Case(params, X, rng.integers(0, num_classes, num_examples).astype(np.int32), reg)


SHAPES = {  # N, D, C
    "one example, two classes": (1, 3, 2),
    "one feature": (9, 1, 3),
    "odd sizes": (7, 13, 5),
    "wide": (3, 301, 5),
    "tall": (301, 3, 7),
    "many classes": (20, 6, 113),
    "digits": (50, 65, 10),
}
# As parameters. For each shape some ten programs are compiled.
SHAPE_CASES = named(SHAPES, "odd sizes")
ODD = SHAPES["odd sizes"]  # for other tests, which need not compile theirs


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(tree)])


def _direct(loss_and_grad: Callable[..., Any]) -> Callable[[Case], Values]:
    def values(case: Case) -> Values:
        loss, grads = loss_and_grad(*case)
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, case.params)
        return {"loss": _flat(loss), "dparams": _flat(grads)}

    return values


def _autodiff(loss: Callable[..., Any], transform: Callable = lambda f: f) -> Callable[[Case], Values]:
    value_and_grad = transform(jax.value_and_grad(_doubled(loss), argnums=(0, 1, 3)))

    def values(case: Case) -> Values:
        params, X, y, reg = case
        value, (dparams, dX, dreg) = value_and_grad(jax.tree.map(jnp.asarray, params), X, y, reg)
        found = {"loss": value, "dparams": dparams, "dX": dX, "dreg": dreg}
        return {name: _flat(array) / 2 for name, array in found.items()}

    return values


def _doubled(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Twice the loss, so that a gradient that comes in is not 1, and must be passed on."""
    return lambda *args: 2 * loss(*args)


CELLS = 3  # the case itself is in the middle, between cells of other values of reg


def _stack(case: Case) -> tuple[Any, jax.Array]:
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * CELLS, axis=-1), case.params)
    return params, jnp.asarray([case.reg + 1, case.reg, case.reg + 2], jax.tree.leaves(case.params)[0].dtype)


def _stacked(loss_and_grad: Callable[..., Any]) -> Callable[[Case], Values]:
    def values(case: Case) -> Values:
        params, regs = _stack(case)
        loss, grads = loss_and_grad(params, case.X, case.y, regs)
        return {"loss": _flat(loss[1]), "dparams": _flat(jax.tree.map(lambda g: g[..., 1], grads))}

    return values


def _over_cells(loss_and_grad: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(loss_and_grad, in_axes=(-1, None, None, 0), out_axes=(0, -1))


def _vmapped_autodiff(loss: Callable[..., Any]) -> Callable[[Case], Values]:
    value_and_grad = jax.value_and_grad(_doubled(loss), argnums=(0, 1, 3))
    over_cells = jax.jit(jax.vmap(value_and_grad, in_axes=(-1, None, None, 0), out_axes=(0, (-1, 0, 0))))

    def values(case: Case) -> Values:
        params, regs = _stack(case)
        value, (dparams, dX, dreg) = over_cells(params, case.X, case.y, regs)
        dparams = jax.tree.map(lambda g: g[..., 1], dparams)
        found = {"loss": value[1], "dparams": dparams, "dX": dX[1], "dreg": dreg[1]}
        return {name: _flat(array) / 2 for name, array in found.items()}

    return values


def _torch_autograd(loss: Callable[..., Any]) -> Callable[[Case], Values]:
    def values(case: Case) -> Values:
        params = jax.tree.map(lambda leaf: torch.tensor(leaf, requires_grad=True), case.params)
        X = torch.tensor(case.X, requires_grad=True)
        reg = torch.tensor(case.reg, dtype=X.dtype, requires_grad=True)
        value = loss(params, X, torch.tensor(case.y.astype(np.int64)), reg)
        value.backward()
        grads = [leaf.grad for leaf in jax.tree.leaves(params)]
        return {"loss": _flat(value.detach()), "dparams": _flat(grads), "dX": _flat(X.grad), "dreg": _flat(reg.grad)}

    return values


def _torchref(loss_and_grad: Callable[..., Any]) -> Callable[[Case], Values]:
    def values(case: Case) -> Values:
        params = jax.tree.map(torch.tensor, case.params)
        loss, grads = loss_and_grad(params, torch.tensor(case.X), torch.tensor(case.y.astype(np.int64)), case.reg)
        return {"loss": _flat(loss), "dparams": _flat(grads)}

    return values
