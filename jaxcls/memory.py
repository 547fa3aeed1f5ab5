"""Memory: how much there is, on the host and on the device, and how many cells fit into it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

GROUPS, LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # where Linux says them


class Memory(NamedTuple):
    """Bytes on the device: of the data, and of each cell in training beside them."""

    data: int
    cell: int

    def fits(self, budget: int) -> int:
        """How many cells can train at once within ``budget`` bytes.

        Raises:
          ValueError: not even one.

        Example:
          >>> Memory(data=600, cell=50).fits(1000)
          8
        """
        if (cells := (budget - self.data) // self.cell) < 1:
            raise ValueError(
                f"memory must hold the data and at least one cell, {self.data} + {self.cell} bytes, got {budget}"
            )
        return cells


def available() -> int:
    """Bytes to fill on each device: nine tenths of its memory; of the host's, half, shared by its devices."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(0.9 * stats["bytes_limit"])
    return host() // (2 * jax.local_device_count())


def host() -> int:
    """Bytes of memory on the host: the machine's, or what SLURM, Kubernetes or a container allow of it.

    8 GiB where the system does not say, as Windows does not.

    Example:
      >>> host() > 2**20
      True
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = 8 * 2**30
    return min([machine, *_limits()])


def _limits() -> Iterator[int]:
    """Those of the control groups that this process is in, and of all around them; of either version."""
    lines = GROUPS.read_text().splitlines() if GROUPS.exists() else []
    for controllers, group in (line.split(":", 2)[1:] for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (LIMITS / "memory", "memory.limit_in_bytes") if controllers else (LIMITS, "memory.max")
        inner = root / group.lstrip("/")
        for folder in (inner, *inner.parents):
            with contextlib.suppress(OSError, ValueError):  # none there, or it says "max"
                yield int((folder / name).read_text())
