"""Data loaders, the protocols that prepare their examples, and the resulting splits and folds."""

from jaxcls.data.arrays import from_arrays, load, load_features
from jaxcls.data.cifar10 import CLASS_NAMES as CIFAR10_CLASSES
from jaxcls.data.cifar10 import load_cifar10
from jaxcls.data.digits import load_digits
from jaxcls.data.files import NAMES, matching, name_of
from jaxcls.data.mirror import mirrored
from jaxcls.data.moments import check_finite
from jaxcls.data.protocols import (
    FOLDS,
    PROTOCOLS,
    cs231n,
    eecs498,
    l2,
    l2_folds,
    raw,
    raw_folds,
    standard,
    standard_folds,
    tries,
)
from jaxcls.data.rows import Rows
from jaxcls.data.source import Source, hold_out
from jaxcls.data.split import Prepared, Split, prepare
from jaxcls.data.splits import Folds, Splits, Tries, balanced
from jaxcls.data.unit import unit_length

__all__ = [
    "CIFAR10_CLASSES",
    "FOLDS",
    "NAMES",
    "PROTOCOLS",
    "Folds",
    "Prepared",
    "Rows",
    "Source",
    "Split",
    "Splits",
    "Tries",
    "balanced",
    "check_finite",
    "cs231n",
    "eecs498",
    "from_arrays",
    "hold_out",
    "l2",
    "l2_folds",
    "load",
    "load_cifar10",
    "load_digits",
    "load_features",
    "matching",
    "mirrored",
    "name_of",
    "prepare",
    "raw",
    "raw_folds",
    "standard",
    "standard_folds",
    "tries",
    "unit_length",
]
