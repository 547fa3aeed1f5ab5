"""The best cell of a sweep as a torch module."""

import json
from os import PathLike

import torch
from safetensors import safe_open
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


class UnitLength(nn.Module):
    """Examples divided by their L2 norms."""

    def forward(self, X: Tensor) -> Tensor:
        """Scale features ``[N, d]``."""
        return nn.functional.normalize(X, dim=1)


class Labelled(nn.Sequential):
    """A module from raw features to logits, with the label of each column of the logits in ``classes``."""

    classes: tuple[str, ...]

    def labels(self, X: Tensor) -> list[str]:
        """Label of each of the raw features ``[N, d]``, by the largest logit."""
        with torch.no_grad():
            return [self.classes[k] for k in self(X).argmax(1).tolist()]


def load(path: str | PathLike[str]) -> Labelled:
    """Load ``best.safetensors`` as a module from raw features ``[N, d]`` to logits ``[N, C]``.

    Returns:
      `Standardise`, with `UnitLength` for a run with features of unit length, and one `torch.nn.Linear`; for a
      two-layer net, two of these with a `torch.nn.ReLU` between. Its
      ``classes`` are the labels of the data that it was trained on, as text.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file does not hold a model of jaxcls.

    Example:
      >>> import tempfile, torch
      >>> from safetensors.torch import save_file
      >>> path = tempfile.mkdtemp() + "/best.safetensors"
      >>> save_file({"W": torch.eye(3, 2), "mean": torch.zeros(2), "scale": torch.ones(2)}, path)
      >>> model, X = load(path), torch.tensor([[3.0, 1.0]])
      >>> model(X).argmax(1), model.labels(X)
      (tensor([0]), ['0'])
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("jaxcls", "{}"))
            p = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, expected the best.safetensors of a run") from None
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} is no safetensors file: {' '.join(str(error).split())}") from None
    linear, net = {"W", "mean", "scale"}, {"W1", "b1", "W2", "b2", "mean", "scale"}
    if p.keys() not in (linear, net):
        raise ValueError(
            f"{path} must hold {', '.join(sorted(linear))} or {', '.join(sorted(net))}, got {', '.join(p)}"
        )
    first = p["W" if "W" in p else "W1"]
    layers: list[nn.Module] = [Standardise(p["mean"], p["scale"], first)]
    layers += [UnitLength()] if header.get("unit_length") else []
    if "W" in p:
        layers += [_linear(first[:-1], first[-1])]
    else:
        layers += [_linear(first, p["b1"]), nn.ReLU(), _linear(p["W2"], p["b2"])]
    model = Labelled(*layers)
    model.classes = tuple(header.get("classes", map(str, range(p["W" if "W" in p else "W2"].shape[1]))))
    return model


def _linear(W: Tensor, b: Tensor) -> nn.Linear:
    layer = nn.Linear(W.shape[0], W.shape[1], dtype=W.dtype)
    layer.weight, layer.bias = nn.Parameter(W.T.contiguous()), nn.Parameter(b.clone())
    return layer
