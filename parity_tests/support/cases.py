"""Parameters of tests: those of the default suite, and those that it leaves out."""

from collections.abc import Mapping
from typing import Any

import pytest


def slow(*values: Any) -> list[Any]:
    """Values that the default suite leaves out."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def named(values: Mapping[str, Any], *in_default: str) -> list[Any]:
    """Values under their names; slow, but for those named."""
    return [
        pytest.param(value, id=name, marks=() if name in in_default else pytest.mark.slow)
        for name, value in values.items()
    ]
