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
from dataclasses import dataclass, fields
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.registry import Registry


@dataclass(frozen=True)
class LaunchOptions:
    """Options of `sweep launch` for launchers. All but `output_dir` are flags of the same name.

    Attributes:
        output_dir: the sweep directory.
        workers: number of runs at a time, on each GPU or node if the launcher uses several; None: the
            launcher's default.
        retries: number of times that a failed run is started again.
        time_limit: minutes that a run may take; None: no limit.
        slurm_array: number of Slurm workers.
        slurm_time: minutes that Slurm gives a worker before it is requeued.
        slurm_partition, slurm_gpus, slurm_cpus, slurm_mem, slurm_constraint: resources of each Slurm worker,
            as in sbatch; None: Slurm's default.
    """

    output_dir: Path = Path()
    workers: int | None = None
    retries: int = 0
    time_limit: float | None = None
    slurm_array: int = 4
    slurm_time: int = 240
    slurm_partition: str | None = None
    slurm_gpus: int | None = None
    slurm_cpus: int | None = None
    slurm_mem: str | None = None
    slurm_constraint: str | None = None


DEFAULTS = LaunchOptions()
LAUNCHER_FLAGS = tuple(field.name for field in fields(LaunchOptions) if field.name != "output_dir")


class Launcher(ABC):
    """Starts the runs of a sweep.

    Attributes:
        waits: whether a call returns only after all commands have ended.
        flags: the `LAUNCHER_FLAGS` that the launcher uses.
    """

    waits: bool = False
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
    """A function of a list of command lines as a launcher that takes no options and does not wait."""

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

    Flags for Slurm are only reported, so that a sweep file for Slurm can be tried with other launchers.

    Raises: UsageError for any other flag that the launcher does not use.
    """
    for flag in given:
        if flag in launcher_named(name).flags:
            continue
        if not flag.startswith("slurm_"):
            raise UsageError(f"launcher {name} takes no --{flag}")
        print(f"Launcher {name} ignores --{flag}.")


def _call_upstream_hook() -> None:
    if importlib.util.find_spec("domainbed.facebook") is None:
        return
    try:
        importlib.import_module("domainbed.facebook").register_command_launchers(REGISTRY)
    except ImportError as error:
        print(f"warning: the launchers of domainbed.facebook are skipped: {error}", file=sys.stderr)


REGISTRY: Registry[Callable[[list[str]], object]] = Registry("Command launcher", setup=_call_upstream_hook)
REGISTRY.add_lazy("local", "domainbed.sweep.local:local_launcher")
REGISTRY["dummy"] = dummy_launcher = DummyLauncher()
REGISTRY.add_lazy("multi_gpu", "domainbed.sweep.local:multi_gpu_launcher")
REGISTRY.add_lazy("slurm", "domainbed.sweep.slurm:slurm_launcher")
