"""CPU cores and GPUs of this machine, divided into slots for runs."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

from domainbed.cores import cores
from domainbed.errors import UsageError

FORKS = sys.platform == "linux"
"""Whether runs start in forks. Elsewhere (macOS) libraries that torch has loaded do not survive a fork."""


@dataclass(frozen=True)
class Slot:
    """Resources that one command at a time uses.

    Attributes:
        environment: variables to add to the command's environment.
        threads: number of threads for torch; 0: torch's default.
        fork: whether runs start in a fork of this process, which has torch loaded, or in a new interpreter.
    """

    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    fork: bool = FORKS


def default_slots(workers: int | None = None) -> list[Slot]:
    """`gpu_slots` on a machine with several GPUs, else `local_slots`."""
    return gpu_slots(workers) if len(gpus()) > 1 else local_slots(workers)


def local_slots(workers: int | None = None) -> list[Slot]:
    """`workers` slots that share the cores. By default one per core, or a single one if there is a GPU."""
    if workers is None:
        workers = 1 if gpus() else cores()
    return [Slot(threads=max(1, cores() // workers), fork=can_fork())] * workers


def gpu_slots(workers: int | None = None) -> list[Slot]:
    """`workers` slots per GPU, by default one. Empty without a GPU."""
    slot_gpus = gpus() * (workers or 1)
    threads = max(1, cores() // len(slot_gpus)) if slot_gpus else 1
    return [Slot(environment={"CUDA_VISIBLE_DEVICES": gpu}, threads=threads, fork=False) for gpu in slot_gpus]


def can_fork() -> bool:
    """Whether runs can start in forks of this process: not once it has used a GPU, as a notebook may have."""
    torch = sys.modules.get("torch")
    return FORKS and not (torch is not None and torch.cuda.is_initialized())


def gpus() -> list[str]:
    """Identifiers of the GPUs in CUDA_VISIBLE_DEVICES, or of all GPUs if it is not set.

    Empty if torch finds none, for instance without a driver.

    Raises: UsageError if torch finds some of those in CUDA_VISIBLE_DEVICES, but not all.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    listed = None if visible is None else [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]
    if listed == []:
        return []
    import torch

    # torch.cuda.device_count does not create a CUDA context, which a fork could not use.
    count = torch.cuda.device_count()
    if listed is None:
        return [str(gpu) for gpu in range(count)]
    if 0 < count < len(listed):
        raise UsageError(
            f"CUDA_VISIBLE_DEVICES is {visible}, and of these GPUs torch finds only the first {count}; "
            "list GPUs that exist"
        )
    return listed if count else []
