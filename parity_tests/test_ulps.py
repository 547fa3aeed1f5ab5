"""The float32 error of jaxcls, in ulps, is no larger than that of autodiff or of torch's."""

import pytest

from parity_tests.campaigns import ulps
from parity_tests.support.cases import slow


@pytest.fixture(scope="module", params=[range(3), *slow(range(10))], ids=["3 seeds", "10 seeds"])
def errors(request: pytest.FixtureRequest) -> dict:
    return ulps.errors(request.param)


@pytest.mark.parametrize("other", ["jax.grad of the plain formula", "torch autograd"])
@pytest.mark.parametrize("quantity", ulps.QUANTITIES)
def test_mean_error_is_no_larger_than(quantity: str, other: str, errors: dict) -> None:
    assert errors[quantity, "jaxcls"].mean() <= errors[quantity, other].mean()


@pytest.mark.parametrize("quantity", ulps.QUANTITIES)
def test_no_problem_is_off_by_more_than_a_few_ulps(quantity: str, errors: dict) -> None:
    assert errors[quantity, "jaxcls"].max() < 8
