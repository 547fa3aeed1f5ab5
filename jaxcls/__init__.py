"""Train a whole grid of shallow classifiers at once, with gradients derived by hand."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxcls import (
        classifier,
        crossval,
        data,
        gradcheck,
        grid,
        logistic,
        losses,
        memory,
        metrics,
        optimizers,
        probe,
        refine,
        result,
        ridge,
        sampling,
        softmax,
        sweep,
        table,
        train,
        two_layer,
    )

__all__ = [
    "classifier",
    "crossval",
    "data",
    "gradcheck",
    "grid",
    "logistic",
    "losses",
    "memory",
    "metrics",
    "optimizers",
    "probe",
    "refine",
    "result",
    "ridge",
    "sampling",
    "softmax",
    "sweep",
    "table",
    "train",
    "two_layer",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Import a module when it is first used: who wants one loss waits for nothing else."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"jaxcls.{name}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
