"""Command launchers by name, at upstream's import path. They are defined in `domainbed.sweep`."""

from __future__ import annotations

from domainbed.sweep.launchers import REGISTRY, Launcher, LaunchOptions, dummy_launcher
from domainbed.sweep.local import local_launcher, multi_gpu_launcher
from domainbed.sweep.slurm import slurm_launcher

__all__ = [
    "REGISTRY",
    "LaunchOptions",
    "Launcher",
    "dummy_launcher",
    "local_launcher",
    "multi_gpu_launcher",
    "slurm_launcher",
]
