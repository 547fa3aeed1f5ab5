"""Train a whole grid of shallow classifiers at once, with gradients derived by hand."""

from jaxcls import (
    classifier,
    crossval,
    data,
    gradcheck,
    grid,
    losses,
    memory,
    newton,
    probe,
    result,
    softmax,
    sweep,
    train,
    two_layer,
)

__all__ = [
    "classifier",
    "crossval",
    "data",
    "gradcheck",
    "grid",
    "losses",
    "memory",
    "newton",
    "probe",
    "result",
    "softmax",
    "sweep",
    "train",
    "two_layer",
]
__version__ = "0.1.0"
