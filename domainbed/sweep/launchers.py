"""Launchers: start the runs of a sweep, by name.

A plugin adds one by `REGISTRY["name"] = launcher`. A launcher is a `Launcher`, or, as in upstream, a function
of a list of command lines. Upstream's hook for forks also works: if there is a module `domainbed.facebook`,
its function `register_command_launchers(REGISTRY)` is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.registry import Registry
from domainbed.training.settings import flag, flags_of


@dataclass(frozen=True)
class LaunchOptions:
    """Options of `sweep launch` for launchers. All but `output_dir`, the sweep directory, are flags."""

    output_dir: Path = Path()
    workers: int | None = flag(
        None,
        "number of runs at a time, on each GPU or node that the launcher uses (default: the launcher's)",
        at_least=1,
    )
    retries: int = flag(0, "number of times that a failed run is started again", at_least=0)
    time_limit: float | None = flag(
        None, "minutes that a run may take; a later launch resumes it (default: no limit)", above=0
    )
    slurm_array: int = flag(4, "number of Slurm workers", at_least=1)
    slurm_time: int = flag(240, "minutes that Slurm gives a worker before it is requeued", at_least=1)
    slurm_partition: str | None = flag(None, "partition of each Slurm worker, as in sbatch")
    slurm_gpus: int | None = flag(None, "number of GPUs of each Slurm worker", at_least=1)
    slurm_cpus: int | None = flag(None, "number of CPUs of each Slurm worker", at_least=1)
    slurm_mem: str | None = flag(None, "memory of each Slurm worker, such as 16G")
    slurm_constraint: str | None = flag(None, "constraint of each Slurm worker, as in sbatch")
    ray_address: str | None = flag(
        None,
        "address of a Ray cluster, or local: start Ray on this machine (default: the cluster that "
        "RAY_ADDRESS names or that runs on this machine, else local)",
    )
    ray_cpus: float = flag(1.0, "number of CPUs that Ray reserves for a run", above=0)
    ray_gpus: float | None = flag(
        None, "number of GPUs that Ray reserves for a run (default: 1 if the cluster has some)", at_least=0
    )
    ray_memory: float | None = flag(None, "GiB of memory that Ray reserves for a run", above=0)
    ray_restarts: int = flag(
        10, "number of times that a run is started again because its Ray worker or node was lost", at_least=0
    )


DEFAULTS = LaunchOptions()
LAUNCHER_FLAGS = tuple(flags_of(LaunchOptions))
COMMON_FLAGS = tuple(name for name in LAUNCHER_FLAGS if not name.startswith(("slurm_", "ray_")))
SLURM_FLAGS = tuple(name for name in LAUNCHER_FLAGS if name.startswith("slurm_"))
RAY_FLAGS = tuple(name for name in LAUNCHER_FLAGS if name.startswith("ray_"))


class Launcher(ABC):
    """Starts the runs of a sweep.

    Attributes:
        waits: whether a call returns only after all commands have ended.
        elsewhere: whether runs are done on machines other than this one, which may have other hardware and
            files.
        flags: the `LAUNCHER_FLAGS` that the launcher uses.
    """

    waits: bool = False
    elsewhere: bool = False
    flags: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, commands: Sequence[str], options: LaunchOptions = DEFAULTS) -> object:
        """Start `commands`, each a command line for the shell."""

    def check(self) -> None:  # noqa: B027 - most launchers work anywhere
        """Check that the launcher works on this machine, before anything is written.

        Raises: UsageError.
        """

    def concurrency(self, options: LaunchOptions) -> int | None:
        """Number of runs at a time, or None if it is unknown."""
        return None


@dataclass(frozen=True)
class FunctionLauncher(Launcher):
    """The `function` of a list of command lines as a launcher that takes no options and does not wait."""

    function: Callable[[list[str]], object]

    def __call__(self, commands: Sequence[str], options: LaunchOptions = DEFAULTS) -> object:
        return self.function(list(commands))


class DummyLauncher(Launcher):
    """Print each command and run nothing."""

    def __call__(self, commands: Sequence[str], options: LaunchOptions = DEFAULTS) -> None:
        for command in commands:
            print(f"Dummy launcher: {command}")


def as_launcher(launcher: Callable[[list[str]], object]) -> Launcher:
    """`launcher` itself if it is a `Launcher`, else a `FunctionLauncher` of it."""
    return launcher if isinstance(launcher, Launcher) else FunctionLauncher(launcher)


def launcher_named(name: str) -> Launcher:
    """The launcher registered under `name`. Raises UnknownName."""
    return as_launcher(REGISTRY[name])


def check_flags(name: str, given: Sequence[str]) -> None:
    """Check that the launcher `name` uses the flags that were `given`.

    Flags for Slurm and Ray are only reported, so that a sweep file for a cluster can be tried elsewhere.

    Raises: UsageError for any other flag that the launcher does not use.
    """
    for each in given:
        if each in launcher_named(name).flags:
            continue
        if each not in SLURM_FLAGS + RAY_FLAGS:
            raise UsageError(f"launcher {name} takes no --{each}")
        print(f"Launcher {name} ignores --{each}.")


def _call_upstream_hook() -> None:
    if importlib.util.find_spec("domainbed.facebook") is None:
        return
    try:
        importlib.import_module("domainbed.facebook").register_command_launchers(REGISTRY)
    except ImportError as error:
        print(f"warning: the launchers of domainbed.facebook are skipped: {error}", file=sys.stderr)


REGISTRY: Registry[Callable[[list[str]], object]] = Registry.of_module(
    "Command launcher", setup=_call_upstream_hook
)
REGISTRY.add_lazy("local", "domainbed.sweep.local:local_launcher")
REGISTRY["dummy"] = dummy_launcher = DummyLauncher()
REGISTRY.add_lazy("multi_gpu", "domainbed.sweep.local:multi_gpu_launcher")
REGISTRY.add_lazy("ray", "domainbed.sweep.ray_launcher:ray_launcher")
REGISTRY.add_lazy("slurm", "domainbed.sweep.slurm:slurm_launcher")
