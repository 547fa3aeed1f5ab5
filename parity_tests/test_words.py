"""The project speaks the field's language: the worst phrases of the dialect that it once had stay away."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = [path for pattern in ("*.md", "[a-z]*/**/*.md", "[a-z]*/**/*.py") for path in ROOT.glob(pattern)]
DIALECT = (
    r'^\s*r?"""(What|Which|As|Where|Whether|How|That|Those)\b',  # a docstring begins with an imperative or a noun
    r"\blikewise\b",
    r"\bthat which\b",
    r"\bone that\b",
    r"\bthe other way about\b",
    r"\bat hand\b",
    r"\bturn(ed|s)? over\b",
    r"\bto its optimum\b",
    r"\bto the (last )?digits?\b",
    r"strengths\b",
    r"\bnobody\b",
    r"\bgives? back\b",
    r"\bgo(es)? on\b",
    r"\banew\b",
    r"\bdef test_\w+_s_",
)


def test_no_text_is_in_dialect() -> None:
    dialect = re.compile("|".join(DIALECT), re.IGNORECASE | re.MULTILINE)
    found = {path.name: dialect.search(path.read_text("utf-8")) for path in TEXTS if path != Path(__file__)}
    assert len(found) > 80
    assert {name: match[0] for name, match in found.items() if match} == {}


@pytest.mark.parametrize(
    "line", ['    """What a sweep found."""', "the columns, likewise", "def test_the_best_cell_s_rank():"]
)
def test_dialect_would_be_found(line: str) -> None:
    assert any(re.search(pattern, line, re.IGNORECASE) for pattern in DIALECT)
