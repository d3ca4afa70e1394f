"""Trackers that keep runs of their own, such as those of a server, and take each step once."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from domainbed.files import write_atomic
from domainbed.records.results_file import Record
from domainbed.training.run_state import read_json
from domainbed.training.trackers.tracker import TrackedRun, Tracker, tagged_values

STATE_FILE = "trackers.json"
"""File in the run's directory: for each tracker, the id of its run and the last step that it has."""


class StepwiseTracker(Tracker):
    """A tracker that gives a run an id and gets each step once, also if the run resumes.

    A step is noted in `STATE_FILE` before it is logged, so that a process which is killed meanwhile does not
    cause it to be logged twice. If logging raises, the note is withdrawn, and the next process that resumes
    the run logs the step.

    Attributes:
        run_id: id of the tracker's run.
    """

    def __init__(self, name: str, run: TrackedRun) -> None:
        """Continue the run of the tracker that `STATE_FILE` names, or begin one."""
        super().__init__(name, run)
        state = self._states().get(name, {})
        self._last_step: int = state.get("step", -1)
        self.run_id = self.start(state.get("run"))
        self._save(self._last_step)

    @abstractmethod
    def start(self, run_id: str | None) -> str:
        """Continue the tracker's run `run_id`, or begin one with the settings of the run if it is None.

        Returns: the id of the tracker's run.
        """

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one step, by tags as `tagged_values` makes them. They may be infinite or NaN."""

    def update(self, records: Sequence[Record]) -> None:
        for record in records:
            before, step = self._last_step, record["step"]
            if step <= before:
                continue
            self._save(step)
            try:
                self.log(step, tagged_values(record))
            except Exception:
                self._save(before)
                raise

    def _save(self, step: int) -> None:
        states = {**self._states(), self.name: {"run": self.run_id, "step": step}}
        write_atomic(self.run.path / STATE_FILE, json.dumps(states, sort_keys=True) + "\n")
        self._last_step = step

    def _states(self) -> dict[str, Any]:
        return read_json(self.run.path / STATE_FILE) or {}
