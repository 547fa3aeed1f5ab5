"""Shared numerics: argument checks, precision, stacks, sharding, buckets of rows, PRNG, SHA-256, compilation time."""

from jaxcls.numerics import checks
from jaxcls.numerics.buckets import common_number, padded
from jaxcls.numerics.checks import one_line
from jaxcls.numerics.compiling import compile_seconds
from jaxcls.numerics.digest import sha256
from jaxcls.numerics.extras import require
from jaxcls.numerics.generator import pinned_generator
from jaxcls.numerics.precision import full_precision, matmul_precision
from jaxcls.numerics.sharding import varying_alike
from jaxcls.numerics.stack import einsum, stacked
from jaxcls.numerics.standardising import standardised
from jaxcls.numerics.types import Logits, LossAndGrad, Params

__all__ = [
    "Logits",
    "LossAndGrad",
    "Params",
    "checks",
    "common_number",
    "compile_seconds",
    "einsum",
    "full_precision",
    "matmul_precision",
    "one_line",
    "padded",
    "pinned_generator",
    "require",
    "sha256",
    "stacked",
    "standardised",
    "varying_alike",
]
