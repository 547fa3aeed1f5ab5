"""Linear probes of published projects, trained as those projects train them: with autograd and `torch.optim`.

    s_h     = X W_hᵀ + b_h                          X: [N, D], W_h: [C, D], b_h: [C], one head per setting h
    L       = Σ_h (1/B) Σ_i (log Σ_j e^{s_hij} - s_{h,i,y_i})
    lr_h(t) = lr_h · factor(t)                      t = 0, ..., T - 1

No term of L has two heads in it and the optimizers work element by element, so each head trains as if alone. Features
are computed beforehand; training is in their dtype and on their device. Initial heads are copied, never changed.
"""

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

Batches = Tensor | NDArray | Sequence[Tensor | NDArray]  # rows of each step's minibatch, [T, B] or a list of T arrays
Trained = tuple[list[nn.Linear], Tensor]

DINOV2_LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
CAPI_LEARNING_RATES = DINOV2_LEARNING_RATES[:10]
CAPI_DECAYS = (5e-4, 1e-3, 5e-2)
CLIP_BENCHMARK_DECAYS = tuple(np.logspace(-6, 2, 97).tolist())


def train_heads(
    heads: Sequence[nn.Linear], optimizer: Optimizer, scheduler: LRScheduler, X: Tensor, y: Tensor, batches: Batches
) -> Trained:
    """Train all heads, in place, on the same minibatches: one backward pass of the summed losses per step.

    Args:
      heads: linear layers from D features to C classes.
      optimizer: of the heads' parameters, commonly with a group per head.
      scheduler: of the optimizer's learning rates; stepped after every step.
      X: features, ``[N, D]``.
      y: integer labels in ``[0, C)``, ``[N]``.
      batches: rows of each step's minibatch, ``[T, B]``, or a list of T arrays, whose lengths may differ.

    Returns:
      The heads, and each head's loss at every step before its update, ``[T, heads]``.

    Example:
      >>> head, X, y = nn.Linear(2, 2), torch.eye(2), torch.tensor([0, 1])
      >>> optimizer = SGD([{"params": head.parameters(), "lr": 0.5}])
      >>> _, losses = train_heads([head], optimizer, CosineAnnealingLR(optimizer, 100), X, y, [torch.arange(2)] * 100)
      >>> losses.shape, bool(losses[-1] < losses[0])
      (torch.Size([100, 1]), True)
    """
    history = []
    for batch in batches:
        rows = torch.as_tensor(batch, device=X.device)
        X_batch, y_batch = X[rows], y[rows]
        losses = torch.stack([cross_entropy(head(X_batch), y_batch) for head in heads])
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        scheduler.step()
        history.append(losses.detach())
    return list(heads), torch.stack(history)


def dinov2_linear_heads(
    X: Tensor,
    y: Tensor,
    batches: Batches,
    *,
    learning_rates: Sequence[float] = DINOV2_LEARNING_RATES,
    initial: Sequence[nn.Linear] | None = None,
) -> Trained:
    """One head per learning rate, as in dinov2's ``eval/linear.py``: SGD with momentum 0.9, cosine to 0.

    Step t of T has learning rate ``lr · B / 256 · (1 + cos(π t / T)) / 2``, B being the length of the first batch.
    Default of ``initial``: weights from a normal of deviation 0.01, drawn for each head, zero biases.

    Example:
      >>> heads, losses = dinov2_linear_heads(torch.eye(4), torch.arange(4), epoch_batches(4, 2, steps=6, seed=0))
      >>> len(heads), losses.shape
      (13, torch.Size([6, 13]))
    """
    heads = _copies(initial, len(learning_rates), lambda: [_head(X, y, 0.01) for _ in learning_rates])
    scale = len(batches[0]) / 256
    groups = [{"params": h.parameters(), "lr": lr * scale} for h, lr in zip(heads, learning_rates, strict=True)]
    optimizer = SGD(groups, momentum=0.9, weight_decay=0)
    return train_heads(heads, optimizer, CosineAnnealingLR(optimizer, T_max=len(batches)), X, y, batches)


def clip_benchmark_heads(
    X: Tensor,
    y: Tensor,
    batches: Batches,
    *,
    weight_decays: Sequence[float] = CLIP_BENCHMARK_DECAYS,
    lr: float = 0.1,
    initial: Sequence[nn.Linear] | None = None,
) -> Trained:
    """One head per weight decay, as in CLIP_benchmark's ``linear_probe.py``: AdamW, cosine without warm-up.

    CLIP_benchmark scales the rows of X to norm 1 and keeps an epoch's last, smaller batch. Weights and biases decay:
    step t of T multiplies them by ``1 - lr(t) · decay``, ``lr(t) = lr · (1 + cos(π t / T)) / 2``, at first below -1 if
    the decay exceeds 2 / lr, such as the last 9 of the 97. Default of ``initial``: one draw of `torch.nn.Linear` for
    all heads, since CLIP_benchmark trains one at a time from the same seed, hence also on the same minibatches.

    Example:
      >>> batches = [torch.tensor([0, 1, 2]), torch.tensor([3])]
      >>> heads, losses = clip_benchmark_heads(torch.eye(4), torch.arange(4), batches, weight_decays=[1e-6, 1.0])
      >>> bool(losses[0, 0] == losses[0, 1]), bool((heads[0].weight == heads[1].weight).all())
      (True, False)
    """
    heads = _copies(initial, len(weight_decays), lambda: [_head(X, y)] * len(weight_decays))
    settings = zip(heads, weight_decays, strict=True)
    optimizer = AdamW([{"params": h.parameters(), "weight_decay": decay} for h, decay in settings], lr=lr)
    return train_heads(heads, optimizer, CosineAnnealingLR(optimizer, T_max=len(batches)), X, y, batches)


def clip_benchmark_search(score: Callable[[int], float]) -> tuple[int, list[int]]:
    """Search CLIP_benchmark's 97 weight decays for the peak, in 19 evaluations.

    Of equal accuracies the first evaluated wins: the smaller decay. Where none exceeds 0, index 0 does.

    Args:
      score: validation accuracy at an index of ``CLIP_BENCHMARK_DECAYS``; called again for an index that is repeated.

    Returns:
      The best index, and all indices in the order of their evaluation.

    Example:
      >>> clip_benchmark_search(lambda index: 1 - abs(index - 37) / 100)
      (37, [0, 16, 32, 48, 64, 80, 96, 24, 32, 40, 36, 40, 44, 34, 36, 38, 35, 36, 37])
    """
    evaluated: list[int] = []

    def peak(indices: Sequence[int]) -> int:
        best, highest = 0, 0.0
        for index in indices:
            evaluated.append(index)
            if (accuracy := score(index)) > highest:
                best, highest = index, accuracy
        return best

    best = peak(range(0, 97, 16))
    for distance in (8, 4, 2, 1):
        best = peak((max(best - distance, 0), best, min(best + distance, 96)))
    return best, evaluated


def capi_heads(
    X: Tensor,
    y: Tensor,
    batches: Batches,
    *,
    warmup: int,
    learning_rates: Sequence[float] = CAPI_LEARNING_RATES,
    weight_decays: Sequence[float] = CAPI_DECAYS,
    eps: float | None = None,
    initial: Sequence[nn.Linear] | None = None,
) -> Trained:
    """One head per learning rate and weight decay, as in capi's ``eval_classification.py``: AdamW, betas 0.9 and 0.95.

    Step t has learning rate ``lr · B / 256 · warmup_cosine(T, warmup)(t)``, B being the length of the first batch. The
    decays of the first learning rate come first; biases do not decay. Default of ``eps``: 1e-8 times the number of
    heads, because capi also averages its loss over the heads: AdamW divides gradients by that number to the same
    effect. Default of ``initial``: weights from a normal of deviation 0.02, drawn for each head, zero biases.

    Example:
      >>> heads, losses = capi_heads(torch.eye(4), torch.arange(4), epoch_batches(4, 2, steps=6, seed=0), warmup=2)
      >>> len(heads), losses.shape
      (30, torch.Size([6, 30]))
    """
    settings = [(lr * len(batches[0]) / 256, decay) for lr in learning_rates for decay in weight_decays]
    heads = _copies(initial, len(settings), lambda: [_head(X, y, 0.02) for _ in settings])
    groups = []
    for head, (lr, decay) in zip(heads, settings, strict=True):
        groups.append({"params": [head.weight], "lr": lr, "weight_decay": decay})
        groups.append({"params": [head.bias], "lr": lr, "weight_decay": 0.0})
    optimizer = AdamW(groups, betas=(0.9, 0.95), eps=1e-8 * len(heads) if eps is None else eps)
    return train_heads(heads, optimizer, LambdaLR(optimizer, warmup_cosine(len(batches), warmup)), X, y, batches)


def warmup_cosine(steps: int, warmup: int) -> Callable[[int], float]:
    """Factor of the learning rate in capi: from 0 to 1 in the first W of T steps, then from 1 to 0, ends included.

    It is ``t / (W - 1)`` for t < W, then ``(1 + cos(π (t - W) / (T - W - 1))) / 2``.

    Example:
      >>> print([warmup_cosine(6, 3)(t) for t in range(6)])
      [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    rise, fall = max(warmup - 1, 1), max(steps - warmup - 1, 1)
    return lambda t: t / rise if t < warmup else (1 + math.cos(math.pi * (t - warmup) / fall)) / 2


def epoch_batches(num_examples: int, batch_size: int, steps: int, seed: int) -> Tensor:
    """Minibatches without replacement, ``[steps, batch_size]``: epoch by epoch, without each one's last partial batch.

    Raises:
      ValueError: a batch has more examples than there are, or none.

    Example:
      >>> batches = epoch_batches(5, 2, steps=4, seed=0)
      >>> batches.shape, batches[:2].unique().shape, batches[2:].unique().shape
      (torch.Size([4, 2]), torch.Size([4]), torch.Size([4]))
    """
    if not 0 < batch_size <= num_examples:
        raise ValueError(f"batch_size must lie in [1, {num_examples}], got {batch_size}")
    generator, per_epoch = torch.Generator().manual_seed(seed), num_examples // batch_size
    epochs = [torch.randperm(num_examples, generator=generator) for _ in range(math.ceil(steps / per_epoch))]
    return torch.cat([rows[: per_epoch * batch_size] for rows in epochs]).reshape(-1, batch_size)[:steps]


def _head(X: Tensor, y: Tensor, deviation: float | None = None) -> nn.Linear:
    """A head of torch's default initialisation, or with normal weights of this deviation and zero biases."""
    head = nn.Linear(X.shape[1], int(y.max()) + 1, dtype=X.dtype, device=X.device)
    if deviation is not None:
        nn.init.normal_(head.weight, std=deviation)
        nn.init.zeros_(head.bias)
    return head


def _copies(initial: Sequence[nn.Linear] | None, count: int, draw: Callable[[], list[nn.Linear]]) -> list[nn.Linear]:
    """Separate copies of the caller's heads, or of those drawn, which may be one head many times."""
    if initial is not None and len(initial) != count:
        raise ValueError(f"initial must have one head per setting, {count}, got {len(initial)}")
    return [copy.deepcopy(head) for head in (draw() if initial is None else initial)]
