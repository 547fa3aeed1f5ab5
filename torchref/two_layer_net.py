"""The two-layer net in PyTorch, with the course's signatures and hand-derived gradients.

    z = X W1 + b1,  h = max(z, 0),  s = h W2 + b2
    L = (1/N) Σ_i (log Σ_j e^{s_ij} - s_{i,y_i}) + reg (Σ W1² + Σ W2²)

Parameters are a dict of tensors ``W1 [D, H], b1 [H], W2 [H, C], b2 [C]``.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchref.linear_classifier import sample_batch

Params = dict[str, Tensor]


def nn_forward_pass(params: Params, X: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``[N, C]`` and hidden activations ``[N, H]``.

    Example:
      >>> import torch
      >>> params = {"W1": torch.eye(2), "b1": torch.zeros(2), "W2": torch.eye(2), "b2": torch.ones(2)}
      >>> nn_forward_pass(params, torch.tensor([[3.0, -1.0]]))
      (tensor([[4., 1.]]), tensor([[3., 0.]]))
    """
    hidden = (X @ params["W1"] + params["b1"]).clamp(min=0)
    return hidden @ params["W2"] + params["b2"], hidden


def nn_forward_backward(
    params: Params, X: Tensor, y: Tensor | None = None, reg: float = 0.0
) -> Tensor | tuple[Tensor, Params]:
    """Scores if ``y`` is None, else the loss and its gradient with respect to every parameter.

    Example:
      >>> import torch
      >>> params = {"W1": torch.eye(2), "b1": torch.zeros(2), "W2": torch.zeros(2, 2), "b2": torch.zeros(2)}
      >>> loss, grads = nn_forward_backward(params, torch.tensor([[3.0, -1.0]]), torch.tensor([0]))
      >>> grads["W2"]
      tensor([[-1.5000,  1.5000],
              [ 0.0000,  0.0000]])
    """
    scores, hidden = nn_forward_pass(params, X)
    if y is None:
        return scores
    W1, W2 = params["W1"], params["W2"]
    n = X.shape[0]
    rows = torch.arange(n, device=X.device)
    scores = scores - scores.max(dim=1, keepdim=True).values
    total = scores.exp().sum(dim=1, keepdim=True)
    loss = (total.log().squeeze(1) - scores[rows, y]).mean() + reg * ((W1 * W1).sum() + (W2 * W2).sum())

    dscores = scores.exp() / total
    dscores[rows, y] -= 1
    dscores = dscores / n
    dz = (dscores @ W2.T) * (hidden > 0)
    return loss, {
        "W1": X.T @ dz + 2 * reg * W1,
        "b1": dz.sum(dim=0),
        "W2": hidden.T @ dscores + 2 * reg * W2,
        "b2": dscores.sum(dim=0),
    }


def nn_train(
    params: Params,
    loss_func: Callable[..., Any],
    pred_func: Callable[..., Tensor],
    X: Tensor,
    y: Tensor,
    X_val: Tensor,
    y_val: Tensor,
    learning_rate: float = 1e-3,
    learning_rate_decay: float = 0.95,
    reg: float = 5e-6,
    num_iters: int = 100,
    batch_size: int = 200,
    verbose: bool = False,
    *,
    batches: Tensor | None = None,
) -> dict[str, list[float]]:
    """Minibatch SGD, which updates ``params`` in place.

    After the first update, and after every ``max(N // batch_size, 1)`` updates from then on, it records the accuracy on
    the minibatch and on the validation data, and multiplies the learning rate by ``learning_rate_decay``.

    Args:
      params: the parameters.
      loss_func: ``(params, X, y, reg) -> (loss, grads)``, or scores without ``y``.
      pred_func: ``(params, loss_func, X) -> labels``.
      X: examples, ``[N, D]``.
      y: integer labels, ``[N]``.
      X_val: validation examples.
      y_val: validation labels.
      learning_rate: initial learning rate.
      learning_rate_decay: factor applied once an epoch.
      reg: regularisation strength.
      num_iters: number of steps.
      batch_size: examples in a minibatch.
      verbose: print the loss every 100 steps.
      batches: rows of each step's minibatch, ``[num_iters, batch_size]``. Default: drawn at random.

    Returns:
      ``loss_history`` at every step, before its update; ``train_acc_history`` and ``val_acc_history``.

    Example:
      >>> import torch
      >>> X, y, params = get_toy_data(dtype=torch.float64)
      >>> history = nn_train(params, nn_forward_backward, nn_predict, X, y, X, y, 0.1, 1.0, 1e-5, 200)
      >>> history["loss_history"][-1] < history["loss_history"][0]
      True
    """
    iterations_per_epoch = max(X.shape[0] // batch_size, 1)
    history: dict[str, list[float]] = {"loss_history": [], "train_acc_history": [], "val_acc_history": []}
    for t in range(num_iters):
        rows = None if batches is None else batches[t]
        X_batch, y_batch = sample_batch(X, y, X.shape[0], batch_size, rows=rows)
        loss, grads = loss_func(params, X_batch, y=y_batch, reg=reg)
        history["loss_history"].append(loss.item())
        for name in params:
            params[name] = params[name] - learning_rate * grads[name]
        if verbose and t % 100 == 0:
            print(f"iteration {t} / {num_iters}: loss {loss:f}")
        if t % iterations_per_epoch == 0:
            for split, examples, labels in (("train", X_batch, y_batch), ("val", X_val, y_val)):
                accuracy = (pred_func(params, loss_func, examples) == labels).double().mean().item()
                history[f"{split}_acc_history"].append(accuracy)
            learning_rate *= learning_rate_decay
    return history


def nn_predict(params: Params, loss_func: Callable[..., Any], X: Tensor) -> Tensor:
    """Predicted class of each example, ``[N]``: the highest score.

    Example:
      >>> import torch
      >>> params = {"W1": torch.eye(2), "b1": torch.zeros(2), "W2": torch.eye(2), "b2": torch.zeros(2)}
      >>> nn_predict(params, nn_forward_backward, torch.tensor([[3.0, 1.0], [0.0, 2.0]]))
      tensor([0, 1])
    """
    return loss_func(params, X).argmax(dim=1)


def get_toy_data(
    num_inputs: int = 5,
    input_size: int = 4,
    hidden_size: int = 10,
    num_classes: int = 3,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> tuple[Tensor, Tensor, Params]:
    """Small random net and data, the same at every call on one type of device.

    The course draws them on a GPU, where the same seed gives other numbers than on a CPU.

    Example:
      >>> X, y, params = get_toy_data()
      >>> X.shape, params["W1"].shape
      (torch.Size([5, 4]), torch.Size([4, 10]))
    """
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(dtype)

    params = {
        "W1": 1e-4 * normal(input_size, hidden_size),
        "b1": torch.zeros(hidden_size, dtype=dtype, device=device),
        "W2": 1e-4 * normal(hidden_size, num_classes),
        "b2": torch.zeros(num_classes, dtype=dtype, device=device),
    }
    X = 10 * normal(num_inputs, input_size)
    y = torch.tensor([0, 1, 2, 2, 1], device=device).repeat(-(-num_inputs // 5))[:num_inputs] % num_classes
    return X, y, params
