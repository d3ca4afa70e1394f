"""Launchers: functions of a list of command lines, by name.

A launcher of your own is registered by a plugin, `REGISTRY["name"] = function`, or, as in upstream, by a
module `domainbed.facebook` with a function `register_command_launchers(REGISTRY)`. A true attribute `waits`
says that it returns when all commands have ended. Keywords `workers`, `retries`, `time_limit` and the others
in `domainbed.sweep.flags.FOR_LAUNCHERS` take those flags, and `output_dir` the sweep's directory. An
attribute `check`, a function, is called before anything is made; it raises UsageError if the launcher can't
work.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence

from domainbed.errors import UsageError
from domainbed.registry import Registry
from domainbed.sweep.commands import run_commands
from domainbed.sweep.slots import gpu_slots, gpus, local_slots
from domainbed.sweep.slurm import check_slurm, slurm_launcher

REGISTRY: Registry[Callable[..., object]] = Registry("Command launcher")


@REGISTRY.register("local")
def local_launcher(
    commands: Sequence[str],
    workers: int | None = None,
    retries: int | None = None,
    time_limit: float | None = None,
) -> list[int]:
    """Several at a time on this machine; the exit status of each.

    Args:
        commands: what to run.
        workers: how many at a time, by default one a core (one in all, where there is a GPU to share). The
            machine's cores are divided among them.
        retries: how often one that failed is started again, by default never.
        time_limit: minutes that one may take, by default any number.
    """
    return run_commands(commands, local_slots(workers), retries or 0, time_limit)


@REGISTRY.register("dummy")
def dummy_launcher(commands: Sequence[str]) -> None:
    """Print each command and run nothing."""
    for command in commands:
        print(f"Dummy launcher: {command}")


@REGISTRY.register("multi_gpu")
def multi_gpu_launcher(
    commands: Sequence[str],
    workers: int | None = None,
    retries: int | None = None,
    time_limit: float | None = None,
) -> list[int]:
    """One at a time on each GPU (in CUDA_VISIBLE_DEVICES, or all); the exit status of each.

    Args:
        commands: what to run.
        workers: how many at a time on each GPU, by default one. The machine's cores are divided among all.
        retries: how often one that failed is started again, by default never.
        time_limit: minutes that one may take, by default any number.

    Raises: UsageError if there is no GPU.
    """
    _need_a_gpu()
    print("WARNING: using experimental multi_gpu_launcher.")
    return run_commands(commands, gpu_slots(workers), retries or 0, time_limit)


def _need_a_gpu() -> None:
    if not gpus():
        raise UsageError(
            "launcher multi_gpu needs a GPU, and there is none here; use --command_launcher local"
        )


for _launcher in (local_launcher, multi_gpu_launcher):
    _launcher.waits = True  # type: ignore[attr-defined] # functions take attributes
multi_gpu_launcher.check = _need_a_gpu  # type: ignore[attr-defined]
slurm_launcher.check = check_slurm  # type: ignore[attr-defined]
REGISTRY["slurm"] = slurm_launcher

if importlib.util.find_spec("domainbed.facebook") is not None:
    try:
        importlib.import_module("domainbed.facebook").register_command_launchers(REGISTRY)
    except ImportError as _error:
        print(f"warning: the launchers of domainbed.facebook are skipped: {_error}", file=sys.stderr)
