"""The machine that this process runs on."""

import os


def memory() -> int:
    """Bytes of memory; 8 GiB where the system does not say, as Windows does not.

    Example:
      >>> memory() > 2**20
      True
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30


def cores() -> int:
    """How many cores this process may use.

    Example:
      >>> cores() >= 1
      True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
