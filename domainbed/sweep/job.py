"""A job: one run of a sweep, named by the hash of its arguments, and its command line."""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from domainbed.errors import RunError, UsageError
from domainbed.sweep.launchers import DEFAULTS, LaunchOptions, as_launcher
from domainbed.training.config import SETTINGS
from domainbed.training.run_state import RunState, failure_reason, mark_queued, run_state
from domainbed.training.settings import InSweep

_UNNAMED = frozenset(
    name for name, each in SETTINGS.items() if each.in_sweep in (InSweep.UNNAMED, InSweep.NEEDED)
)
_TRAIN = ["python", "-m", "domainbed.scripts.train"]


class Job:
    """One run of a sweep. docs/compatibility.md, "Sweep directories", describes its name and command.

    Args:
        train_args: arguments of `train` without `output_dir`. The hash of their JSON text is the job's name;
            settings that are `InSweep.UNNAMED` or `InSweep.NEEDED` are not part of it.
        sweep_output_dir: the sweep directory.
        defaults: settings that the command has if `train_args` lack them. The name does not depend on them.

    Attributes:
        name: name of the run's directory.
        output_dir: path of the run's directory.
        train_args: arguments of `train` with `output_dir`.
        command_str: the command line; it starts with the word `python`.
        run_state: state of the run, read from its files.
        state: NOT_LAUNCHED, INCOMPLETE or DONE, the three states that upstream has.
    """

    NOT_LAUNCHED: ClassVar[str] = "Not launched"
    INCOMPLETE: ClassVar[str] = "Incomplete"
    DONE: ClassVar[str] = "Done"

    def __init__(
        self, train_args: dict[str, Any], sweep_output_dir: str, defaults: Mapping[str, Any] | None = None
    ) -> None:
        named = {name: value for name, value in train_args.items() if name not in _UNNAMED}
        text = json.dumps(named, sort_keys=True)
        self.name = hashlib.md5(text.encode("utf-8")).hexdigest()
        self.output_dir = str(Path(sweep_output_dir) / self.name)
        self._defaults = {**(defaults or {})}
        self._named_args = copy.deepcopy(train_args)
        self.train_args = {**self._defaults, **copy.deepcopy(train_args), "output_dir": self.output_dir}
        self.command_str = command(self.train_args)
        self.run_state = run_state(Path(self.output_dir))
        self.state = {RunState.DONE: Job.DONE, RunState.ABSENT: Job.NOT_LAUNCHED}.get(
            self.run_state, Job.INCOMPLETE
        )

    def __str__(self) -> str:
        keys = ("dataset", "algorithm", "test_envs", "hparams_seed")
        return f"{self.state}: {self.output_dir} {tuple(self.train_args[key] for key in keys)}"

    def named_args(self) -> dict[str, Any]:
        """The arguments of `train` without `output_dir` and `defaults`, from which the same job is made."""
        return {**self._named_args}

    def refreshed(self) -> Job:
        """The same job with its current state."""
        return Job(self.named_args(), str(Path(self.output_dir).parent), self._defaults)

    @property
    def failure(self) -> str:
        """The error of the last attempt, in one line; empty if it did not fail."""
        return failure_reason(Path(self.output_dir))

    @staticmethod
    def launch(
        jobs: Sequence[Job],
        launcher_fn: Callable[[list[str]], object],
        options: LaunchOptions = DEFAULTS,
    ) -> None:
        """Create the jobs' directories and pass their commands to the launcher, in order.

        If the launcher waits and this process is killed, jobs that have not started count as interrupted.
        With other launchers they count as queued until they start.

        Args:
            jobs: the jobs to launch.
            launcher_fn: a `Launcher`, or a function of a list of command lines.
            options: options for the launcher.

        Raises: UsageError if a directory cannot be created.
        """
        launcher = as_launcher(launcher_fn)
        print("Launching...")
        print("Making job directories:")
        for job in jobs:
            try:
                if launcher.waits:
                    mark_queued(Path(job.output_dir))
                else:
                    Path(job.output_dir).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"cannot write to {job.output_dir}: {error.strerror}") from None
        launcher([job.command_str for job in jobs], options)
        print(f"Launched {len(jobs)} jobs!")

    @staticmethod
    def delete(jobs: Sequence[Job]) -> None:
        """Delete the jobs' directories. Directories that do not exist are skipped.

        Raises: RunError if a directory cannot be deleted.
        """
        print("Deleting...")
        for job in jobs:
            try:
                shutil.rmtree(job.output_dir)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise RunError(f"cannot delete {job.output_dir}: {error.strerror}") from None
        print(f"Deleted {len(jobs)} jobs!")


def command(train_args: Mapping[str, Any]) -> str:
    """The command line of a run. It starts with the word `python`."""
    return " ".join([*_TRAIN, *_flags(train_args)])


def _flags(train_args: Mapping[str, Any]) -> list[str]:
    """`--name value` for each argument. True becomes a bare flag; None and False are left out."""
    flags = []
    for name, value in sorted(train_args.items()):
        if value is True:
            flags.append(f"--{name}")
        elif isinstance(value, list):
            flags.append(f"--{name} {' '.join(str(each) for each in value)}")
        elif isinstance(value, str) and value.startswith("-"):
            flags.append(shlex.quote(f"--{name}={value}"))  # separate words would read as two flags
        elif value is not None and value is not False:
            flags.append(f"--{name} {shlex.quote(value) if isinstance(value, str) else value}")
    return flags


def flags_of_train(command_line: str) -> list[str] | None:
    """The flags of a `train` command. None for other commands, and for those that need a shell."""
    try:
        words = shlex.split(command_line)
    except ValueError:
        return None
    plain = shlex.join(words) == command_line
    return words[len(_TRAIN) :] if plain and words[: len(_TRAIN)] == _TRAIN else None


def run_directory(command_line: str) -> Path | None:
    """Directory of the run that a `train` command starts; None for other commands.

    With invalid flags it is the default directory.
    """
    flags = flags_of_train(command_line)
    if flags is None:
        return None
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--output_dir", default="train_output")
    try:
        return Path(parser.parse_known_args(flags)[0].output_dir)
    except argparse.ArgumentError:
        return Path("train_output")
