"""Error of float32 in ulps: jaxcls beside autodiff and torch, against mpmath at 50 digits.

    python -m parity_tests.campaigns.ulps

Every implementation is given the same float32 inputs, and the exact answer is computed from those. An error is
counted in ulps, the distance of neighbouring float32 numbers, at the largest element of its array: that is the
measure in which a product's rounding does not depend on chance cancellations.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import torch
from torch.nn import functional

import torchref
from jaxcls import softmax

REG = float(np.float32(0.1))
QUANTITIES = ("loss", "dW", "dX")
Values = dict[str, np.ndarray]


class Problem(NamedTuple):
    W: np.ndarray  # [D, C]
    X: np.ndarray  # [N, D]
    y: np.ndarray  # [N]


def battery(seeds: range) -> Iterator[Problem]:
    """Random problems, from timid scores (all near 0) to confident ones (tens apart)."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        for num_examples, num_features, num_classes in ((1, 3, 2), (5, 4, 3), (20, 17, 10), (8, 33, 5), (50, 8, 7)):
            for scale in (0.01, 0.3, 1.0, 3.0, 10.0):
                W = scale * rng.standard_normal((num_features, num_classes)) / np.sqrt(num_features)
                X = rng.standard_normal((num_examples, num_features))
                yield Problem(W.astype(np.float32), X.astype(np.float32), rng.integers(0, num_classes, num_examples))


def exact(problem: Problem) -> Values:
    """Loss and gradients at 50 digits, as arrays of mpmath numbers."""
    number, exp = (np.vectorize(f, otypes=[object]) for f in (mpmath.mpf, mpmath.exp))
    W, X, n = number(problem.W.astype(float)), number(problem.X.astype(float)), len(problem.y)
    with mpmath.workdps(50):
        e = exp(X @ W)
        p = e / e.sum(axis=1, keepdims=True)
        label = np.arange(n), problem.y
        loss = REG * (W * W).sum() - sum(mpmath.log(value) for value in p[label]) / n
        p[label] -= 1
        return {"loss": np.array(loss, dtype=object), "dW": X.T @ p / n + 2 * REG * W, "dX": p @ W.T / n}


def plain_loss(W: jax.Array, X: jax.Array, y: jax.Array, reg: float) -> jax.Array:
    """The formula as anyone would write it in JAX, nothing of jaxcls in it."""
    scores = X @ W
    label_scores = jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(scores, axis=1) - label_scores) + reg * jnp.sum(W * W)


def by_jax(loss: Callable) -> Callable[[Problem], Values]:
    """A loss function's value and its gradients by `jax.grad`, jitted."""
    value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))

    def values(problem: Problem) -> Values:
        loss, (dW, dX) = value_and_grad(*problem, REG)
        return {"loss": np.asarray(loss), "dW": np.asarray(dW), "dX": np.asarray(dX)}

    return values


def by_torch_autograd(problem: Problem) -> Values:
    """``nn.functional.cross_entropy`` and its gradients by autograd."""
    W, X = (torch.tensor(array, requires_grad=True) for array in (problem.W, problem.X))
    loss = functional.cross_entropy(X @ W, torch.tensor(problem.y)) + REG * (W * W).sum()
    loss.backward()
    return {"loss": loss.detach().numpy(), "dW": W.grad.numpy(), "dX": X.grad.numpy()}


def by_torchref(problem: Problem) -> Values:
    """The reference package, which has no gradient for X."""
    loss, dW = torchref.softmax_loss_vectorized(*map(torch.tensor, problem), REG)
    return {"loss": loss.numpy(), "dW": dW.numpy()}


IMPLEMENTATIONS: dict[str, Callable[[Problem], Values]] = {
    "jaxcls": by_jax(softmax.loss),
    "jax.grad of the plain formula": by_jax(plain_loss),
    "torch autograd": by_torch_autograd,
    "torchref": by_torchref,
}


def errors(seeds: range = range(10)) -> dict[tuple[str, str], np.ndarray]:
    """By quantity and implementation: the mean error in ulps of every problem."""
    found: dict[tuple[str, str], list[float]] = {}
    for problem in battery(seeds):
        truth = exact(problem)
        for name, implementation in IMPLEMENTATIONS.items():
            for quantity, value in implementation(problem).items():
                found.setdefault((quantity, name), []).append(_mean_ulps(value, truth[quantity]))
    return {key: np.array(values) for key, values in found.items()}


def _mean_ulps(value: np.ndarray, truth: np.ndarray) -> float:
    ulp = float(np.spacing(np.abs(truth.astype(np.float32)).max()))
    distances = [abs(mpmath.mpf(float(a)) - b) for a, b in zip(value.flat, truth.flat, strict=True)]
    return float(sum(distances)) / len(distances) / ulp


if __name__ == "__main__":
    found = errors()
    print(
        f"{'float32 error in ulps':<10}{'':27}{'mean':>8}{'largest':>14}   of {len(found['loss', 'jaxcls'])} problems"
    )
    for quantity in QUANTITIES:
        for name in IMPLEMENTATIONS:
            if (quantity, name) in found:
                values = found[quantity, name]
                print(f"{quantity:<6} {name:<32} {values.mean():>17.3f}{values.max():>14.1f}")
