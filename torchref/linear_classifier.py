"""The linear softmax classifier in PyTorch, with the course's signatures and hand-derived gradients.

    s     = X W                                          X: [N, D], W: [D, C]
    L     = (1/N) Σ_i (log Σ_j e^{s_ij} - s_{i,y_i}) + reg Σ W²
    dL/dW = Xᵀ (softmax(s) - onehot(y)) / N + 2 reg W

A literal implementation of these formulas, independent of `jaxcls`, as a reference for its tests. Every function runs
on the device and in the float dtype of its tensors.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LossFunction = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def softmax_loss_naive(W: Tensor, X: Tensor, y: Tensor, reg: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient, one example and one class at a time.

    Args:
      W: weights, ``[D, C]``.
      X: examples, ``[N, D]``.
      y: integer labels in ``[0, C)``, ``[N]``.
      reg: regularisation strength.

    Returns:
      The loss, a scalar tensor, and its gradient with respect to ``W``, ``[D, C]``.

    Example:
      >>> import torch
      >>> X, y = torch.tensor([[1.0, 2.0, 1.0], [3.0, -1.0, 1.0]]), torch.tensor([0, 1])
      >>> loss, dW = softmax_loss_naive(torch.zeros(3, 2), X, y, 0.1)
      >>> print(f"{loss:.4f}")
      0.6931
    """
    num_examples, num_classes = X.shape[0], W.shape[1]
    loss = torch.zeros((), dtype=W.dtype, device=W.device)
    dW = torch.zeros_like(W)
    for i in range(num_examples):
        scores = X[i] @ W
        scores = scores - scores.max()
        total = scores.exp().sum()
        loss = loss + total.log() - scores[y[i]]
        for j in range(num_classes):
            p = scores[j].exp() / total
            dW[:, j] += (p - int(j == y[i])) * X[i]
    return loss / num_examples + reg * (W * W).sum(), dW / num_examples + 2 * reg * W


def softmax_loss_vectorized(W: Tensor, X: Tensor, y: Tensor, reg: float) -> tuple[Tensor, Tensor]:
    """Vectorised form of `softmax_loss_naive`.

    Example:
      >>> import torch
      >>> X, y = torch.tensor([[1.0, 2.0, 1.0], [3.0, -1.0, 1.0]]), torch.tensor([0, 1])
      >>> loss, dW = softmax_loss_vectorized(torch.zeros(3, 2), X, y, 0.1)
      >>> print(dW)
      tensor([[ 0.5000, -0.5000],
              [-0.7500,  0.7500],
              [ 0.0000,  0.0000]])
    """
    n = X.shape[0]
    rows = torch.arange(n, device=X.device)
    scores = X @ W
    scores = scores - scores.max(dim=1, keepdim=True).values
    total = scores.exp().sum(dim=1, keepdim=True)
    loss = (total.log().squeeze(1) - scores[rows, y]).mean() + reg * (W * W).sum()
    dscores = scores.exp() / total
    dscores[rows, y] -= 1
    return loss, X.T @ (dscores / n) + 2 * reg * W


def sample_batch(
    X: Tensor, y: Tensor, num_train: int, batch_size: int, *, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw a minibatch with replacement from the first ``num_train`` examples, or take these ``rows``.

    Example:
      >>> import torch
      >>> X_batch, y_batch = sample_batch(torch.ones(10, 3), torch.arange(10), 10, 4)
      >>> X_batch.shape, y_batch.shape
      (torch.Size([4, 3]), torch.Size([4]))
    """
    if rows is None:
        rows = torch.randint(num_train, (batch_size,), device=X.device)
    return X[rows], y[rows]


def train_linear_classifier(
    loss_func: LossFunction,
    W: Tensor | None,
    X: Tensor,
    y: Tensor,
    learning_rate: float = 1e-3,
    reg: float = 1e-5,
    num_iters: int = 100,
    batch_size: int = 200,
    verbose: bool = False,
    *,
    batches: Tensor | None = None,
) -> tuple[Tensor, list[float]]:
    """Minibatch SGD.

    Args:
      loss_func: ``(W, X, y, reg) -> (loss, dW)``.
      W: initial weights, ``[D, C]``; 1e-6 times a standard normal if None. Not changed.
      X: examples, ``[N, D]``.
      y: integer labels, ``[N]``.
      learning_rate: learning rate.
      reg: regularisation strength.
      num_iters: number of steps.
      batch_size: examples in a minibatch.
      verbose: print the loss every 100 steps.
      batches: rows of each step's minibatch, ``[num_iters, batch_size]``. Default: drawn at random.

    Returns:
      The trained weights, and the loss at every step, before its update.

    Example:
      >>> import torch
      >>> X, y = torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), torch.tensor([0, 1])
      >>> W, losses = train_linear_classifier(softmax_loss_vectorized, torch.zeros(2, 2), X, y, 0.5, 1e-3)
      >>> print(f"{losses[0]:.2f} -> {losses[-1]:.2f}")
      0.69 -> 0.02
    """
    if W is None:
        W = 1e-6 * torch.randn(X.shape[1], int(y.max()) + 1, dtype=X.dtype, device=X.device)
    loss_history = []
    for t in range(num_iters):
        rows = None if batches is None else batches[t]
        X_batch, y_batch = sample_batch(X, y, X.shape[0], batch_size, rows=rows)
        loss, grad = loss_func(W, X_batch, y_batch, reg)
        loss_history.append(loss.item())
        W = W - learning_rate * grad
        if verbose and t % 100 == 0:
            print(f"iteration {t} / {num_iters}: loss {loss:f}")
    return W, loss_history


def predict_linear_classifier(W: Tensor, X: Tensor) -> Tensor:
    """Predicted class of each example, ``[N]``: the highest score.

    Example:
      >>> import torch
      >>> predict_linear_classifier(torch.eye(2), torch.tensor([[3.0, 1.0], [0.0, 2.0]]))
      tensor([0, 1])
    """
    return (X @ W).argmax(dim=1)
