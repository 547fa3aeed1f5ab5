"""The best cell of a sweep as a torch module."""

from os import PathLike

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class Standardise(nn.Module):
    """Standardisation ``(X - mean) / scale`` in the dtype of ``mean``, then cast to that of ``like``."""

    mean: Tensor
    scale: Tensor
    like: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("like", torch.empty(0, dtype=like.dtype))

    def forward(self, X: Tensor) -> Tensor:
        """Standardise raw features ``[N, d]``."""
        return ((X - self.mean) / self.scale).to(self.like.dtype)


def load(path: str | PathLike[str]) -> nn.Sequential:
    """Load ``best.safetensors`` as a module from raw features ``[N, d]`` to logits ``[N, C]``.

    Returns:
      `Standardise` and one `torch.nn.Linear`; for a two-layer net, two of these with a `torch.nn.ReLU` between.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file does not hold a model of jaxcls.

    Example:
      >>> import tempfile, torch
      >>> from safetensors.torch import save_file
      >>> path = tempfile.mkdtemp() + "/best.safetensors"
      >>> save_file({"W": torch.eye(3, 2), "mean": torch.zeros(2), "scale": torch.ones(2)}, path)
      >>> load(path)(torch.tensor([[3.0, 1.0]])).argmax(1)
      tensor([0])
    """
    try:
        p = load_file(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected the best.safetensors of a run") from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} is no safetensors file: {' '.join(str(error).split())}") from None
    linear, net = {"W", "mean", "scale"}, {"W1", "b1", "W2", "b2", "mean", "scale"}
    if p.keys() == linear:
        return nn.Sequential(Standardise(p["mean"], p["scale"], p["W"]), _linear(p["W"][:-1], p["W"][-1]))
    if p.keys() == net:
        layers = _linear(p["W1"], p["b1"]), nn.ReLU(), _linear(p["W2"], p["b2"])
        return nn.Sequential(Standardise(p["mean"], p["scale"], p["W1"]), *layers)
    raise ValueError(f"{path} must hold {', '.join(sorted(linear))} or {', '.join(sorted(net))}, got {', '.join(p)}")


def _linear(W: Tensor, b: Tensor) -> nn.Linear:
    layer = nn.Linear(W.shape[0], W.shape[1], dtype=W.dtype)
    layer.weight, layer.bias = nn.Parameter(W.T.contiguous()), nn.Parameter(b.clone())
    return layer
