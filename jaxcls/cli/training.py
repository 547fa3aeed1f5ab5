"""Flags of the commands that name an optimizer with its schedule."""

import functools
from collections.abc import Mapping
from typing import Literal

from jaxcls import optimizers
from jaxcls.optimizers import Optimizer

Name = Literal["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"]
ScheduleName = Literal["constant", "cosine", "steps"]
TAKEN_BY = {  # flags of hyperparameters that some optimizers have
    "weight_decay": ("adamw",),
    "momentum": ("momentum", "nesterov", "rmsprop"),
    "b2": ("adam", "adamw"),
}


def check_counts(**counts: int) -> None:
    """Raise a ValueError if a flag of a number of things is below 1.

    Example:
      >>> check_counts(steps=9, batch_size=0)
      Traceback (most recent call last):
      ValueError: --batch-size must be at least 1, got 0
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {count}")


def check_axes(name: str, axes: Mapping[str, tuple[float | str, ...]], *, flag: str) -> None:
    """Raise a ValueError if an optimizer, named by a flag, is given values of what it does not have.

    Example:
      >>> check_axes("sgd", {"weight_decay": (0.1,)}, flag="--optimizer")
      Traceback (most recent call last):
      ValueError: --weight-decay is for --optimizer adamw, got sgd
    """
    for axis, values in axes.items():
        if values and not takes(name, axis):
            raise ValueError(f"--{axis.replace('_', '-')} is for {flag} {' or '.join(TAKEN_BY[axis])}, got {name}")


def takes(name: str, axis: str) -> bool:
    """True if an optimizer has this axis.

    Example:
      >>> takes("adam", "b2"), takes("adam", "momentum"), takes("adam", "label_smoothing")
      (True, False, True)
    """
    return axis not in TAKEN_BY or name in TAKEN_BY[axis]


@functools.cache  # the same optimizer for the same flags, so that its programs are compiled once
def optimizer(name: Name, *, schedule: ScheduleName, warmup: int, steps: int, bias_row: int | None = None) -> Optimizer:
    """An optimizer by its name, with a schedule over these steps; AdamW that leaves out the bias, if its row is given.

    Raises:
      ValueError: the warm-up takes all steps, or the optimizer has no weight decay to leave a bias out of.
    """
    chosen = optimizers.OPTIMIZERS[name]
    if bias_row is not None:
        if name != "adamw":
            raise ValueError(f"--no-decay-bias is for adamw, got {name}")
        chosen = functools.partial(optimizers.adamw, bias_row=bias_row)
    if warmup and not 0 < warmup < steps:
        raise ValueError(f"--warmup must lie in [0, {steps}), fewer than the steps, got {warmup}")
    if schedule == "constant" and not warmup:
        return chosen
    return optimizers.scheduled(chosen, optimizers.schedule(schedule, steps, warmup=warmup))
