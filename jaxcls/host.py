"""The machine that this process runs on, as far as it may use it."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

GROUPS, LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # where Linux says them


def memory() -> int:
    """Bytes of memory: the machine's, or what SLURM, Kubernetes or a container allow of it.

    8 GiB where the system does not say, as Windows does not.

    Example:
      >>> memory() > 2**20
      True
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        machine = 8 * 2**30
    return min([machine, *_limits()])


def cores() -> int:
    """How many cores this process may use.

    Example:
      >>> cores() >= 1
      True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Name of the processor; empty where the system has none.

    Example:
      >>> isinstance(processor(), str)
      True
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor()


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
