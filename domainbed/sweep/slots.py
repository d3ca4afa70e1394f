"""The places that this machine has for runs, and the division of its cores among them."""

from __future__ import annotations

import os

from domainbed.sweep.process import Slot


def local_slots(workers: int | None = None) -> list[Slot]:
    """`workers` places, by default one a core (one in all, where there is a GPU to share)."""
    if workers is None:
        workers = 1 if gpus() else cores()
    return [Slot(threads=max(1, cores() // workers))] * workers


def gpu_slots(workers: int | None = None) -> list[Slot]:
    """`workers` places on each GPU, by default one; none where there is no GPU."""
    places = gpus() * (workers or 1)
    return [Slot({"CUDA_VISIBLE_DEVICES": gpu}, max(1, cores() // len(places)), fork=False) for gpu in places]


def slots_here(workers: int | None = None) -> list[Slot]:
    """`workers` places on each GPU where there are several, else `workers` in all."""
    return gpu_slots(workers) if len(gpus()) > 1 else local_slots(workers)


def cores() -> int:
    """How many cores this process may use; in a job of Slurm's, how many the job was given."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(here, int(given)) if given.isdecimal() else here


def gpus() -> list[str]:
    """The GPUs in CUDA_VISIBLE_DEVICES, or all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]
    import torch

    # Counted through the driver's library: no context is made that a fork would inherit.
    return [str(gpu) for gpu in range(torch.cuda.device_count())]
