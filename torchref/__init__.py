"""The mathematics of jaxcls in PyTorch, under the names and signatures of EECS 498-007; no autograd anywhere."""

from torchref.gradcheck import compute_numeric_gradient, grad_check_sparse, rel_error
from torchref.linear_classifier import (
    predict_linear_classifier,
    sample_batch,
    softmax_loss_naive,
    softmax_loss_vectorized,
    train_linear_classifier,
)

__all__ = [
    "compute_numeric_gradient",
    "grad_check_sparse",
    "predict_linear_classifier",
    "rel_error",
    "sample_batch",
    "softmax_loss_naive",
    "softmax_loss_vectorized",
    "train_linear_classifier",
]
