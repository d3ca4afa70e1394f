"""The number of CPU cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ALLOCATED = ("SLURM_CPUS_PER_TASK", "NSLOTS", "NCPUS")  # of Slurm, Grid Engine and PBS
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Number of CPU cores that this process may use.

    In a job of Slurm, Grid Engine or PBS, at most the number it was given, which the machine need not
    enforce. In a container, at most its quota, rounded up.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([available, *_limits()])


def _limits() -> Iterator[int]:
    for name in _ALLOCATED:
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value):
            yield int(value)
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        yield -(-int(quota) // int(period))
    except (OSError, ValueError):  # no container, or "max": no quota
        pass
