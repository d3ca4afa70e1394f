"""Launchers: functions of a list of command lines, by name.

A launcher of your own is registered by a plugin, `REGISTRY["name"] = function`, or, as in upstream, by a
module `domainbed.facebook` with a function `register_command_launchers(REGISTRY)`. A true attribute `waits`
says that it returns when all commands have ended; then a keyword `workers` takes `--workers`. An attribute
`check`, a function, is called before anything is made; it raises UsageError if the launcher can't work.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence

from domainbed.errors import UsageError
from domainbed.registry import Registry
from domainbed.sweep.pool import Slot, run_commands

REGISTRY: Registry[Callable[..., object]] = Registry("Command launcher")


@REGISTRY.register("local")
def local_launcher(commands: Sequence[str], workers: int | None = None) -> list[int]:
    """Several at a time on this machine; the exit status of each.

    Args:
        commands: what to run.
        workers: how many at a time, by default one a core (one in all, where there is a GPU to share). The
            machine's cores are divided among them.
    """
    if workers is None:
        workers = 1 if _gpus() else _cores()
    return run_commands(commands, [Slot(threads=max(1, _cores() // workers))] * workers)


@REGISTRY.register("dummy")
def dummy_launcher(commands: Sequence[str]) -> None:
    """Print each command and run nothing."""
    for command in commands:
        print(f"Dummy launcher: {command}")


@REGISTRY.register("multi_gpu")
def multi_gpu_launcher(commands: Sequence[str], workers: int | None = None) -> list[int]:
    """One at a time on each GPU (in CUDA_VISIBLE_DEVICES, or all); the exit status of each.

    Args:
        commands: what to run.
        workers: how many at a time on each GPU, by default one. The machine's cores are divided among all.

    Raises: UsageError if there is no GPU.
    """
    _need_a_gpu()
    print("WARNING: using experimental multi_gpu_launcher.")
    gpus = _gpus() * (workers or 1)
    threads = max(1, _cores() // len(gpus))
    slots = [Slot({"CUDA_VISIBLE_DEVICES": gpu}, threads, fork=False) for gpu in gpus]
    return run_commands(commands, slots)


def _need_a_gpu() -> None:
    if not _gpus():
        raise UsageError(
            "launcher multi_gpu needs a GPU, and there is none here; use --command_launcher local"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]
    import torch

    # Counted through the driver's library: no context is made that a fork would inherit.
    return [str(gpu) for gpu in range(torch.cuda.device_count())]


for _launcher in (local_launcher, multi_gpu_launcher):
    _launcher.waits = True  # type: ignore[attr-defined] # functions take attributes
multi_gpu_launcher.check = _need_a_gpu  # type: ignore[attr-defined]

if importlib.util.find_spec("domainbed.facebook") is not None:
    try:
        importlib.import_module("domainbed.facebook").register_command_launchers(REGISTRY)
    except ImportError as _error:
        print(f"warning: the launchers of domainbed.facebook are skipped: {_error}", file=sys.stderr)
