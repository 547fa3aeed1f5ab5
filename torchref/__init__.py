"""The mathematics of jaxcls in PyTorch, under the names and signatures of EECS 498-007, without autograd.

``torchref.probes`` has the linear probes of published projects, with autograd and `torch.optim`.
"""

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ModuleNotFoundError("torchref needs torch: pip install torch", name="torch")

from torchref.checkpoint import Labelled, Standardise, UnitLength, load
from torchref.gradcheck import compute_numeric_gradient, grad_check_sparse, rel_error
from torchref.linear_classifier import (
    predict_linear_classifier,
    sample_batch,
    softmax_loss_naive,
    softmax_loss_vectorized,
    train_linear_classifier,
)
from torchref.probes import (
    CAPI_DECAYS,
    CAPI_LEARNING_RATES,
    CLIP_BENCHMARK_DECAYS,
    DINOV2_LEARNING_RATES,
    capi_heads,
    clip_benchmark_heads,
    clip_benchmark_search,
    dinov2_linear_heads,
    epoch_batches,
    train_heads,
    warmup_cosine,
)
from torchref.two_layer_net import get_toy_data, nn_forward_backward, nn_forward_pass, nn_predict, nn_train

__all__ = [
    "CAPI_DECAYS",
    "CAPI_LEARNING_RATES",
    "CLIP_BENCHMARK_DECAYS",
    "DINOV2_LEARNING_RATES",
    "Labelled",
    "Standardise",
    "UnitLength",
    "capi_heads",
    "clip_benchmark_heads",
    "clip_benchmark_search",
    "compute_numeric_gradient",
    "dinov2_linear_heads",
    "epoch_batches",
    "get_toy_data",
    "grad_check_sparse",
    "load",
    "nn_forward_backward",
    "nn_forward_pass",
    "nn_predict",
    "nn_train",
    "predict_linear_classifier",
    "rel_error",
    "sample_batch",
    "softmax_loss_naive",
    "softmax_loss_vectorized",
    "train_heads",
    "train_linear_classifier",
    "warmup_cosine",
]
