"""What a tracker is: a class that receives the records of a run."""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from domainbed.escaping import visible
from domainbed.metrics import is_metric_key
from domainbed.records.results_file import Record

_ACCURACY = re.compile(r"env\d+_\w+_acc")


class Ending(enum.Enum):
    """How the training of a run ended in this process."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    """By a signal or Ctrl-C. The run may resume."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers know it.

    Attributes:
        path: its directory.
        settings: its settings, as in the `args` of records.
        hparams: its hyper-parameters.
    """

    path: Path
    settings: Mapping[str, Any]
    hparams: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A name for lists of runs, such as "ERM PACS, target 3, trial 0, hparams 0"."""
        values = self.settings
        targets = " ".join(map(str, values["test_envs"]))
        return (
            f"{values['algorithm']} {Path(values['dataset']).name}, target {targets}, "
            f"trial {values['trial_seed']}, hparams {values['hparams_seed']}"
        )


class Tracker(ABC):
    """A destination of the records of one run.

    It is created before the first record that a process writes, and closed when that process stops training.
    Every method may raise: a warning of one line is printed, the tracker is not used again, and the run
    continues.

    Args:
        name: the name under which the tracker is registered.
        run: the run.

    Attributes:
        PACKAGE: the package that it needs, as it is imported; empty for none.
        EXTRA: what to install for it, as pip takes it; by default the package.
    """

    PACKAGE: ClassVar[str] = ""
    EXTRA: ClassVar[str] = ""

    def __init__(self, name: str, run: TrackedRun) -> None:
        """A tracker called `name` of a run that begins or resumes."""
        self.name = name
        self.run = run

    @abstractmethod
    def update(self, records: Sequence[Record]) -> None:
        """Bring the tracker up to date. Called after each record.

        Args:
            records: all records of the run, in order. After a run has resumed, records whose steps it had
                passed before come again, computed anew.
        """

    def close(self, ending: Ending) -> None:  # noqa: B027 - most trackers have nothing to close
        """End the use of the tracker. Called once; not after a method has raised. By default, do nothing."""


def tagged_values(record: Record) -> dict[str, float]:
    """Every number in a record by a tag such as "training/loss". The step is left out.

    The groups of tags are "accuracy", "metrics" and "training".
    """
    return {
        f"{_group(name)}/{visible(name)}": float(record[name])
        for name in sorted(record)
        if isinstance(record[name], int | float) and name != "step"
    }


def _group(name: str) -> str:
    if _ACCURACY.fullmatch(name):
        return "accuracy"
    return "metrics" if is_metric_key(name) else "training"
