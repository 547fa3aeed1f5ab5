"""Memory that a process may use."""

from pathlib import Path

import pytest

from jaxcls import memory


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/", {"memory.max": "1000"}, 1000),  # a container
        ("0::/job/step", {"job/memory.max": "3000", "job/step/memory.max": "max"}, 3000),
        ("0::/job/step", {"job/memory.max": "3000", "job/step/memory.max": "2000"}, 2000),
        (
            "5:cpu:/job\n4:memory:/job\n0::/",
            {"memory/job/memory.limit_in_bytes": "4000", "memory/memory.limit_in_bytes": str(2**63 - 4096)},
            4000,
        ),
    ],
)
def test_memory_is_what_the_control_groups_allow(
    groups: str, limits: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "LIMITS", tmp_path)
    host = memory.host.__wrapped__  # without its cache
    whole = host()
    assert whole > 2**20
    (tmp_path / "groups").write_text(groups)
    assert host() == whole
    for name, limit in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(limit)
    assert host() == expected
