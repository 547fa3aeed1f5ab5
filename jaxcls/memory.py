"""Available memory of the host and the devices, and the number of cells that fit."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

GROUPS, LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # control groups of Linux


class Memory(NamedTuple):
    """Bytes on the device: for the data, and for each cell in training."""

    data: int
    cell: int

    def fits(self, budget: int) -> int:
        """Number of cells that can train at once within ``budget`` bytes.

        Raises:
          ValueError: not even one cell fits.

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
    """Memory budget of each device in bytes: 90 % of its memory; on a CPU, an equal share of half of the host's."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(0.9 * stats["bytes_limit"])
    return host() // (2 * jax.local_device_count())


@functools.cache  # to read the limits takes as long as to solve a small table
def host() -> int:
    """Memory of the host in bytes: the machine's, or the limit set by SLURM, Kubernetes or a container.

    8 GiB if the system does not report it (Windows).

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
    """Memory limits of this process's control groups and their parents, in version 1 or 2."""
    lines = GROUPS.read_text().splitlines() if GROUPS.exists() else []
    for controllers, group in (line.split(":", 2)[1:] for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (LIMITS / "memory", "memory.limit_in_bytes") if controllers else (LIMITS, "memory.max")
        inner = root / group.lstrip("/")
        for folder in (inner, *inner.parents):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                yield int((folder / name).read_text())
