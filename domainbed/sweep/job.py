"""A job: one run of a sweep, named by the hash of its arguments."""

from __future__ import annotations

import copy
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from domainbed.errors import RunError, UsageError
from domainbed.training.run_dir import RunState, failure_of, mark_queued, run_state

Launcher = Callable[[list[str]], object]


class Job:
    """One run (spec domainbed-cli.md, 5.3).

    Args:
        train_args: arguments of `train` without `output_dir`; their JSON text gives the run's name.
        sweep_output_dir: the sweep's directory.

    Attributes:
        state: NOT_LAUNCHED, INCOMPLETE or DONE, as upstream has them.
        run_state: the finer state that the run's files tell.
        command_str: the command line, beginning with the bare word `python`.
    """

    NOT_LAUNCHED: ClassVar[str] = "Not launched"
    INCOMPLETE: ClassVar[str] = "Incomplete"
    DONE: ClassVar[str] = "Done"

    def __init__(self, train_args: dict[str, Any], sweep_output_dir: str) -> None:
        text = json.dumps(train_args, sort_keys=True)
        self.name = hashlib.md5(text.encode("utf-8")).hexdigest()
        self.output_dir = str(Path(sweep_output_dir) / self.name)
        self.train_args = copy.deepcopy(train_args) | {"output_dir": self.output_dir}
        self.command_str = command(self.train_args)
        self.run_state = run_state(Path(self.output_dir))
        self.state = {RunState.DONE: Job.DONE, RunState.ABSENT: Job.NOT_LAUNCHED}.get(
            self.run_state, Job.INCOMPLETE
        )

    def __str__(self) -> str:
        keys = ("dataset", "algorithm", "test_envs", "hparams_seed")
        return f"{self.state}: {self.output_dir} {tuple(self.train_args[key] for key in keys)}"

    def looked_at_again(self) -> Job:
        """The same job with the state that it is in now."""
        train_args = {name: value for name, value in self.train_args.items() if name != "output_dir"}
        return Job(train_args, str(Path(self.output_dir).parent))

    @property
    def failure(self) -> str:
        """Why the last attempt failed, in one line; empty if it did not."""
        return failure_of(Path(self.output_dir))

    @staticmethod
    def launch(jobs: Sequence[Job], launcher_fn: Launcher) -> None:
        """Make the jobs' directories and give their commands to the launcher, in order.

        A launcher with a true attribute `waits` sees the runs through; if it is killed, they count as
        interrupted. What others queue stays queued until it is deleted.

        Raises: UsageError if a directory can't be made.
        """
        print("Launching...")
        print("Making job directories:")
        for job in jobs:
            try:
                if getattr(launcher_fn, "waits", False):
                    mark_queued(Path(job.output_dir))
                else:
                    Path(job.output_dir).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"{job.output_dir} can't be written: {error.strerror}") from None
        launcher_fn([job.command_str for job in jobs])
        print(f"Launched {len(jobs)} jobs!")

    @staticmethod
    def delete(jobs: Sequence[Job]) -> None:
        """Remove the jobs' directories with all that is in them; one that is gone already is no error.

        Raises: RunError if one can't be removed.
        """
        print("Deleting...")
        for job in jobs:
            try:
                shutil.rmtree(job.output_dir)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise RunError(f"{job.output_dir} can't be deleted: {error.strerror}") from None
        print(f"Deleted {len(jobs)} jobs!")


def command(train_args: Mapping[str, Any]) -> str:
    """The command line of a run, beginning with the bare word `python`."""
    return " ".join(["python -m domainbed.scripts.train", *_flags(train_args)])


def _flags(train_args: Mapping[str, Any]) -> list[str]:
    """`--name value` for each argument; True is a bare flag, None and False are left out."""
    flags = []
    for name, value in sorted(train_args.items()):
        if value is True:
            flags.append(f"--{name}")
        elif isinstance(value, list):
            flags.append(f"--{name} {' '.join(str(each) for each in value)}")
        elif isinstance(value, str) and value.startswith("-"):
            flags.append(shlex.quote(f"--{name}={value}"))  # else it would be taken for a flag
        elif value is not None and value is not False:
            flags.append(f"--{name} {shlex.quote(value) if isinstance(value, str) else value}")
    return flags
