"""Properties of the cross-entropy for any logits, searched by hypothesis."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxcls import losses
from parity_tests.support.cases import slow

NUM_EXAMPLES, NUM_CLASSES = 3, 4
LARGEST = float(np.finfo(np.float32).max)

# One shape, compiled once; nothing in the mathematics depends on it.
cross_entropy_and_grad = jax.jit(losses.cross_entropy_and_grad)


def logits_within(bound: float) -> st.SearchStrategy[np.ndarray]:
    elements = st.floats(-bound, bound, width=32, allow_subnormal=False)
    return hnp.arrays(np.float32, (NUM_EXAMPLES, NUM_CLASSES), elements=elements)


labels = hnp.arrays(np.int32, NUM_EXAMPLES, elements=st.integers(0, NUM_CLASSES - 1))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(logits_within(LARGEST), labels)
def test_any_finite_logits_give_a_finite_loss_and_a_gradient_with_its_signs(logits: np.ndarray, y: np.ndarray) -> None:
    loss, dlogits = cross_entropy_and_grad(logits, y)
    assert 0 <= float(loss) < np.inf
    is_label = y[:, None] == np.arange(NUM_CLASSES)
    assert np.all(np.where(is_label, dlogits <= 0, dlogits >= 0))
    assert np.all(np.abs(dlogits) <= 1.000001 / NUM_EXAMPLES)
    np.testing.assert_allclose(dlogits.sum(axis=1), 0, atol=1e-7)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(logits_within(30.0), labels, st.integers(-1000, 1000))
def test_a_constant_added_to_all_scores_changes_nothing(logits: np.ndarray, y: np.ndarray, shift: int) -> None:
    logits = np.round(logits)  # so that the shifted scores are exact
    loss, dlogits = cross_entropy_and_grad(logits, y)
    shifted_loss, shifted_dlogits = cross_entropy_and_grad(jnp.asarray(logits + np.float32(shift)), y)
    np.testing.assert_array_equal(shifted_loss, loss)
    np.testing.assert_array_equal(shifted_dlogits, dlogits)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(logits_within(30.0), labels)
def test_a_step_against_the_gradient_lowers_the_loss(logits: np.ndarray, y: np.ndarray) -> None:
    loss, dlogits = cross_entropy_and_grad(logits, y)
    after, _ = cross_entropy_and_grad(logits - 0.1 * dlogits, y)
    assert float(after) <= float(loss) * (1 + 1e-6)


@pytest.mark.parametrize("loss_and_grad", [losses.cross_entropy_and_grad, losses.hinge_and_grad])
@pytest.mark.parametrize("y_dtype", [np.int8, np.int32, *slow(np.uint8, np.int16, np.uint16, np.uint32)])
@pytest.mark.parametrize("cells", [(), (2,)], ids=["one model", "a stack"])
@pytest.mark.parametrize("num_classes", [2, 130, 300])  # an int8 cannot hold the last two
def test_a_label_out_of_range_makes_its_loss_and_its_gradient_nan(
    num_classes: int, cells: tuple[int, ...], y_dtype: type[np.integer], loss_and_grad: Callable[..., Any]
) -> None:
    logits = np.linspace(-1, 1, 3 * num_classes * math.prod(cells), dtype=np.float32).reshape(3, num_classes, *cells)
    limits = np.iinfo(y_dtype)
    for label in {limits.min, -1, 0, min(num_classes - 1, limits.max), num_classes, limits.max}:
        if not limits.min <= label <= limits.max:
            continue
        loss, dlogits = loss_and_grad(logits, np.array([0, label, 1], y_dtype))
        wrong = not 0 <= label < num_classes
        assert np.isnan(loss).all() == np.isnan(loss).any() == wrong, label
        np.testing.assert_array_equal(np.isnan(dlogits).reshape(3, -1).all(axis=1), [False, wrong, False])
        np.testing.assert_array_equal(np.isnan(dlogits).reshape(3, -1).any(axis=1), [False, wrong, False])
