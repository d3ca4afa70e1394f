"""What a run's numbers depend on besides its settings: processor, kernels, threads and library versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from domainbed.accelerators import name_of
from domainbed.version import __version__

Machine = dict[str, str | int]
"""processor, kernels, threads, device, and a version for each library; the same keys on every machine."""

LIBRARIES = ("torch", "torchvision", "numpy")

_KERNEL_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Environment variables that limit the instructions of torch's kernels, of oneDNN's and of MKL's."""


def describe_machine(device: torch.device) -> Machine:
    """The processor, kernels, threads and libraries that this process computes with on `device`.

    Equal settings give equal numbers, to the bit, only where all of this is equal too.
    """
    return {
        "processor": processor(),
        "kernels": ", ".join(_kernels()),
        "threads": torch.get_num_threads(),
        "device": name_of(device),
        "python": platform.python_version(),
        "domainbed_gs": __version__,
        **{name: _version(name) for name in LIBRARIES},
    }


def processor() -> str:
    """Name of this machine's processor, such as "AMD EPYC 9654"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "unknown"


def _kernels() -> Iterator[str]:
    """The instruction set of torch's own kernels, and the variables that limit those of the libraries."""
    yield torch.backends.cpu.get_cpu_capability()
    yield from (f"{name}={os.environ[name]}" for name in _KERNEL_VARIABLES if os.environ.get(name))


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
