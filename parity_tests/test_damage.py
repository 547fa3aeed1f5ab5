"""Files from strangers: the right data or a one-line error, and nothing else happens."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parity_tests.campaigns import damage

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


@pytest.mark.parametrize("name", damage.KINDS)
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(edits)
def test_a_damaged_file_is_read_right_or_refused(name: str, edits: list[damage.Edit]) -> None:
    kind = damage.kinds()[name]
    damage.outcome(kind, damage.damaged(kind.whole, edits))


@pytest.mark.parametrize("name", damage.KINDS)
def test_a_whole_file_is_read_right(name: str) -> None:
    kind = damage.kinds()[name]
    assert damage.outcome(kind, kind.whole) == "right"


@pytest.mark.parametrize("name", damage.HOSTILE)
def test_a_hostile_file_is_refused(name: str) -> None:
    for what, raw in damage.HOSTILE[name]().items():
        assert damage.outcome(damage.kinds()[name], raw) == "refused", what


def test_the_hook_sees_what_no_reader_may_do(tmp_path) -> None:
    with damage.watched() as events:
        (tmp_path / "file").write_text("")
        exec("1")
    assert [event.split()[0] for event in events] == ["open", "exec"]
