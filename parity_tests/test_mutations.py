"""The campaign of mutations fits the code as it is."""

import pytest

from parity_tests.campaigns.mutations import LIKELY, MUTATIONS, ROOT, Mutation, mutated


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.file}, {mutation.kind}")
def test_what_a_mutation_replaces_stands_once_in_its_file(mutation: Mutation) -> None:
    text = (ROOT / "jaxcls" / f"{mutation.file}.py").read_text("utf-8")
    assert mutated(text, mutation) != text
    assert mutation.file in LIKELY
