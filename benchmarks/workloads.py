"""Workloads: the sizes of real sweeps, with synthetic data."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Workload(NamedTuple):
    """Sizes of a sweep."""

    cells: int
    num_features: int  # for the linear classifier, including the column of ones
    num_classes: int
    batch_size: int
    num_examples: int
    steps: int  # of the whole sweep
    num_hidden: int = 0  # 0: the linear classifier

    @property
    def flops(self) -> int:
        """Multiplications and additions in the matrix products of one step, per cell."""
        if self.num_hidden:
            first, second = self.num_features * self.num_hidden, self.num_hidden * self.num_classes
            return self.batch_size * (4 * first + 6 * second)  # without the gradient of X
        return 4 * self.batch_size * self.num_features * self.num_classes

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights of all cells in float32."""
        weights = self.num_features * (self.num_hidden or self.num_classes) + self.num_hidden * self.num_classes
        return 4 * self.cells * weights

    @property
    def bytes(self) -> int:
        """Minimum traffic of a step of all cells in float32: weights read twice and written once, a minibatch read."""
        return 3 * self.weight_bytes + 4 * self.batch_size * self.num_features


WORKLOADS = {
    "cs231n": Workload(100, 3073, 10, 200, 49_000, 1500),
    "eecs498": Workload(25, 3073, 10, 200, 40_000, 2000),
    "grid-1": Workload(1, 3073, 10, 200, 49_000, 1500),
    "grid-10": Workload(10, 3073, 10, 200, 49_000, 1500),
    "grid-1000": Workload(1000, 3073, 10, 200, 49_000, 1500),
    "grid-10000": Workload(10_000, 3073, 10, 200, 49_000, 1500),  # on a GPU
    "two-layer": Workload(32, 3072, 10, 1000, 40_000, 3000, num_hidden=128),
    "digits": Workload(56, 65, 10, 100, 1257, 2000),
    "probe": Workload(96, 769, 100, 256, 50_000, 2000),
}


class Problem(NamedTuple):
    """Data of a workload, all float32: the same initial params and minibatches for all cells."""

    X: NDArray[np.float32]  # [N, D]
    y: NDArray[np.int32]
    params: tuple[NDArray[np.float32], ...]  # W [D, C], or W1 [D, H], b1 [H], W2 [H, C], b2 [C]
    lr: NDArray[np.float32]  # [G]
    reg: NDArray[np.float32]


def make(workload: Workload) -> Problem:
    """Draw standard normal features and random labels; no cell diverges."""
    rng = np.random.default_rng(0)
    d, c, h = workload.num_features, workload.num_classes, workload.num_hidden
    X = rng.standard_normal((workload.num_examples, d), np.float32)
    if not h:
        X[:, -1] = 1
    y = rng.integers(0, c, workload.num_examples, np.int32)
    shapes = ((d, h), (h,), (h, c), (c,)) if h else ((d, c),)
    params = tuple(np.float32(0.01) * rng.standard_normal(shape, np.float32) for shape in shapes)
    lr = np.geomspace(1e-3, 1e-2, workload.cells, dtype=np.float32)
    reg = np.geomspace(1e-4, 1e-2, workload.cells, dtype=np.float32)
    return Problem(X, y, params, lr, rng.permutation(reg))


def reference(problem: Problem, batches: NDArray[np.integer], cell: int) -> list[NDArray[np.float64]]:
    """Params of one cell after these minibatches, by the courses' formulas in numpy and float64."""
    params = [array.astype(np.float64) for array in problem.params]
    for batch in batches:
        step_numpy(params, problem.X[batch].astype(np.float64), problem.y[batch], problem.lr[cell], problem.reg[cell])
    return params


def step_numpy(params: list[NDArray], X: NDArray, y: NDArray, lr: float, reg: float) -> float:
    """Take one step of one cell with the courses' vectorised formulas, in place; return the loss."""
    if len(params) == 1:
        (W,) = params
        loss, dscores = _softmax(X @ W, y)
        loss += reg * np.sum(W * W)
        W -= lr * (X.T @ dscores + 2 * reg * W)
        return loss
    W1, b1, W2, b2 = params
    hidden = np.maximum(X @ W1 + b1, 0)
    loss, dscores = _softmax(hidden @ W2 + b2, y)
    loss += reg * (np.sum(W1 * W1) + np.sum(W2 * W2))
    dhidden = dscores @ W2.T
    dhidden[hidden <= 0] = 0
    W2 -= lr * (hidden.T @ dscores + 2 * reg * W2)
    b2 -= lr * dscores.sum(axis=0)
    W1 -= lr * (X.T @ dhidden + 2 * reg * W1)
    b1 -= lr * dhidden.sum(axis=0)
    return loss


def _softmax(scores: NDArray, y: NDArray) -> tuple[float, NDArray]:
    rows = np.arange(len(y))
    scores = scores - scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.mean(np.log(p[rows, y]))
    p[rows, y] -= 1
    return loss, p / np.asarray(len(y), p.dtype)
