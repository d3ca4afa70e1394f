"""The device of a run, and how its operations repeat."""

from __future__ import annotations

import os

import torch

from domainbed.accelerators import default_device
from domainbed.errors import UsageError


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the machine's accelerator, else the CPU.

    Raises: UsageError if the device cannot be used.
    """
    if name == "auto":
        name = default_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from None
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError):
        raise UsageError(
            f"--device {name} has no float64, in which products of gradients are summed; use --device cpu"
        ) from None
    return device


def set_determinism(deterministic: bool) -> None:
    """Set whether this process uses only operations that repeat exactly. cuDNN never chooses by timing."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    torch.use_deterministic_algorithms(deterministic)
