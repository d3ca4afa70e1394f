"""The memory of this machine, and what this process may take of it."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_OF_THREADS = 2**28
"""Address space that stacks and heaps of threads take as they start: 64 MB each in glibc."""


def machine_memory() -> dict[str, int | None]:
    """Bytes of the machine or of the container's limit, `total`, and those that are `available`.

    `available` is None where the system does not tell.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = None
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                available = 1024 * int(line.split()[1])
    except OSError:  # not Linux
        pass
    for path in _LIMITS:
        limit = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if limit.isdecimal():
            total = min(total, int(limit))
    return {"total": total, "available": None if available is None else min(available, total)}


def peak_memory() -> int:
    """Most bytes of main memory that this process has taken."""
    status = Path("/proc/self/status")
    if status.exists():  # there, ru_maxrss begins with that of the process that started this one
        return 1024 * int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def address_space_left() -> int | None:
    """Bytes that this process may still map for data, where it has such a limit (`ulimit -v`); else None."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:  # not Linux
        return None
    return max(0, limit - pages * resource.getpagesize() - _OF_THREADS)
