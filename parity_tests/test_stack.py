"""`jax.vmap` of a stacked formula equals that of the formula, whichever arguments are mapped."""

import itertools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcls import losses, softmax, two_layer
from jaxcls.numerics import stacked
from parity_tests.support.cases import slow

CELLS = 4
AXES = (-1, 0, 0, 0)  # of the cells in params, X, y, reg
MAPPED = list(itertools.product([True, False], repeat=4))
# Params and reg alone are one stack; with X or y mapped too they are not.
ONE_STACK = [(True, False, False, True), (True, True, False, True), (True, False, True, True)]


def cell_of(argument: Any, axis: int, cell: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.take(leaf, cell, axis=axis), argument)


@pytest.mark.parametrize(("model", "sizes"), [(softmax, (5, 3)), (two_layer, (5, 7, 3))], ids=["linear", "net"])
@pytest.mark.parametrize(
    "mapped",
    [
        *(mapped for mapped in MAPPED if mapped in ONE_STACK or sum(mapped) in (1, 4)),
        *slow(*(mapped for mapped in MAPPED if mapped not in ONE_STACK and sum(mapped) in (2, 3))),
    ],
    ids=str,
)
def test_any_of_the_arguments_may_be_mapped(
    model: ModuleType, sizes: tuple[int, ...], mapped: tuple[bool, ...]
) -> None:
    rng = np.random.default_rng(0)
    draw = jax.vmap(lambda key: model.init(*sizes, key=key, scale=1.0), out_axes=-1)
    params = jax.jit(draw)(jax.random.split(jax.random.key(0), CELLS))
    X = rng.standard_normal((CELLS, 6, 5), np.float32)
    y, reg = rng.integers(0, 3, (CELLS, 6), np.int32), np.linspace(0, 1, CELLS, dtype=np.float32)
    all_cells = list(zip((params, X, y, reg), AXES, mapped, strict=True))

    arguments = [argument if is_mapped else cell_of(argument, axis, 0) for argument, axis, is_mapped in all_cells]
    axes = [axis if is_mapped else None for _, axis, is_mapped in all_cells]
    found = jax.jit(jax.vmap(stacked(model.loss_and_grad), in_axes=axes))(*arguments)
    alone = jax.jit(model.loss_and_grad)
    for cell in range(CELLS):
        own = [cell_of(argument, axis, cell if is_mapped else 0) for argument, axis, is_mapped in all_cells]
        expected = jax.tree.leaves(alone(*own))
        for ours, theirs in zip(jax.tree.leaves(found), expected, strict=True):
            np.testing.assert_allclose(ours[cell], theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("no_type_checker")
def test_a_loss_without_stacks_rejects_one() -> None:
    with pytest.raises(ValueError, match=r"logits must have shape \[N, C\] .*, got \[2, 3, 4\]"):
        losses.cross_entropy(jnp.ones((2, 3, CELLS)), jnp.zeros(2, int))


@pytest.mark.usefixtures("no_type_checker")
def test_a_stack_needs_as_many_values_of_reg_as_models() -> None:
    X, y, reg = jnp.ones((2, 5)), jnp.zeros(2, int), jnp.zeros(CELLS)
    with pytest.raises(ValueError, match=r"W must have shape \[D, C, 4\], got \[5, 3, 2\]"):
        softmax.loss_and_grad(jnp.ones((5, 3, 2)), X, y, reg)
    with pytest.raises(ValueError, match=r"params must have shapes W1 \[D, H, 4\], .*, got W1 \[5, 7\]"):
        two_layer.loss_and_grad(two_layer.init(5, 7, 3, key=jax.random.key(0)), X, y, reg)
