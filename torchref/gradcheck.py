"""Numeric gradients by central differences, with the course's signatures. Use float64."""

import random
from collections.abc import Callable

import torch
from torch import Tensor


def compute_numeric_gradient(
    f: Callable[[Tensor], Tensor], x: Tensor, dLdf: Tensor | None = None, h: float = 1e-7
) -> Tensor:
    """Gradient of ``sum(dLdf * f(x))`` by central differences at every coordinate of ``x``.

    Args:
      f: a function of one tensor.
      x: the point at which to differentiate. Not modified.
      dLdf: the gradient with respect to the output of ``f``, in its shape; ones if None.
      h: half the width of the difference.

    Example:
      >>> import torch
      >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64)
      >>> compute_numeric_gradient(lambda x: (x**2).sum(), x).round(decimals=3)
      tensor([2., 4.], dtype=torch.float64)
    """
    grad = torch.zeros_like(x).reshape(-1)
    for k in range(x.numel()):
        difference = _difference(f, x, k, h)
        grad[k] = (difference if dLdf is None else difference * dLdf).sum()
    return grad.reshape(x.shape)


def grad_check_sparse(
    f: Callable[[Tensor], Tensor], x: Tensor, analytic_grad: Tensor, num_checks: int = 10, h: float = 1e-7
) -> list[float]:
    """Compare ``analytic_grad`` with central differences at random coordinates; print and return the errors.

    Example:
      >>> import torch
      >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64)
      >>> errors = grad_check_sparse(lambda x: (x**2).sum(), x, 2 * x, num_checks=1)  # doctest: +ELLIPSIS
      numerical: ... analytic: ... relative error: ...
      >>> max(errors) < 1e-6
      True
    """
    errors = []
    for _ in range(num_checks):
        k = random.randrange(x.numel())
        numerical, analytic = _difference(f, x, k, h).item(), analytic_grad.reshape(-1)[k].item()
        error = abs(numerical - analytic) / (abs(numerical) + abs(analytic) + 1e-12)
        print(f"numerical: {numerical:f} analytic: {analytic:f}, relative error: {error:e}")
        errors.append(error)
    return errors


def rel_error(x: Tensor, y: Tensor, eps: float = 1e-10) -> float:
    """Largest ``|x - y|`` over the largest ``|x| + |y|``.

    Example:
      >>> import torch
      >>> round(rel_error(torch.tensor([1.0, 3.0]), torch.tensor([1.5, 3.0])), 4)
      0.0833
    """
    top = (x - y).abs().max().item()
    bottom = (x.abs() + y.abs()).clamp(min=eps).max().item()
    return top / bottom


def _difference(f: Callable[[Tensor], Tensor], x: Tensor, k: int, h: float) -> Tensor:
    """``(f(x + h e_k) - f(x - h e_k)) / 2h``."""
    step = torch.zeros_like(x)
    step.view(-1)[k] = h
    return (f(x + step) - f(x - step)) / (2 * h)
