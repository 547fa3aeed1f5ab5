"""What holds for any logits at all, searched by hypothesis."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxcls import losses

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
