"""The number of CPU cores that this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Number of CPU cores that this process may use. In a Slurm job, at most the number it was given."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allocated = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(available, int(allocated)) if allocated.isdecimal() else available
