"""Files from strangers: the right data or a one-line error, and nothing else happens."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity_tests.campaigns import damage
from parity_tests.support.cases import slow

edits = st.lists(
    st.tuples(
        st.sampled_from(list(damage.EDITS)),
        st.sampled_from(list(damage.PLACES)),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def is_read_right_or_refused(name: str, edits: list[damage.Edit]) -> None:
    kind = damage.kinds()[name]
    damage.outcome(kind, damage.damaged(kind.whole, edits))


LARGE = [name for name in damage.KINDS if name.startswith("cifar-10")]  # of 30 MB each
SETTINGS = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("name", [name for name in damage.KINDS if name not in LARGE] + slow(*LARGE))
@settings(max_examples=50, **SETTINGS)
@given(edits)
def test_a_damaged_file_is_read_right_or_refused(name: str, edits: list[damage.Edit]) -> None:
    is_read_right_or_refused(name, edits)


@pytest.mark.parametrize("name", LARGE)
@settings(max_examples=10, **SETTINGS)
@given(edits)
def test_a_large_damaged_file_is_read_right_or_refused(name: str, edits: list[damage.Edit]) -> None:
    is_read_right_or_refused(name, edits)


@pytest.mark.parametrize("name", damage.KINDS)
def test_a_whole_file_is_read_right(name: str) -> None:
    kind = damage.kinds()[name]
    assert damage.outcome(kind, kind.whole) == "right"


@pytest.mark.parametrize("name", damage.HOSTILE)
def test_a_hostile_file_is_refused(name: str) -> None:
    made = damage.hostile_pickles(1_000_000) if name == LARGE[0] else damage.HOSTILE[name]()
    for what, raw in made.items():
        assert damage.outcome(damage.kinds()[name], raw) == "refused", what


@pytest.mark.slow
def test_a_hostile_pickle_as_long_as_a_batch_is_refused() -> None:
    for what, raw in damage.hostile_pickles().items():
        assert damage.outcome(damage.kinds()[LARGE[0]], raw) == "refused", what


def test_the_hook_sees_what_no_reader_may_do(tmp_path) -> None:
    with damage.watched() as events:
        (tmp_path / "file").write_text("")
        exec("1")
    assert [event.split()[0] for event in events] == ["open", "exec"]
