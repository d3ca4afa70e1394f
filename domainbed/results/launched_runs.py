"""The runs that a sweep launched, and what their states say about trials without a result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainbed.console import shortened_list
from domainbed.model_selection import SelectionMethod
from domainbed.records.target_sets import columns_of
from domainbed.results.accuracies import Accuracies
from domainbed.results.missing_cells import CellKey, MissingResult, Reason
from domainbed.results.trials import Trial
from domainbed.training.run_state import RunState, failure_reason, run_state

_REASONS = {
    RunState.FAILED: Reason.FAILED,
    RunState.INTERRUPTED: Reason.STOPPED,
    RunState.PREEMPTED: Reason.STOPPED,
    RunState.RUNNING: Reason.RUNNING,
    RunState.QUEUED: Reason.QUEUED,
    RunState.ABSENT: Reason.NO_RUN,
}
"""The reason for each state of a run but DONE. Of several runs in different states, the first one counts."""


@dataclass(frozen=True)
class LaunchedRuns:
    """The runs that were launched into a sweep directory, and any others that left records there.

    Attributes:
        directory: the sweep directory.
        args: arguments of each run by the name of its folder, with the name of the method as `algorithm`.
    """

    directory: Path = Path()
    args: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def explain_missing(self, accuracies: Accuracies, method: type[SelectionMethod]) -> None:
        """Add to `accuracies.missing` the trials that unfinished runs are to blame for.

        Reads the state of those runs only. A trial with records may also wait for other runs, such as those
        that hold out pairs, so NOT_RECORDED is replaced.
        """
        runs: dict[tuple[CellKey, Trial], list[str]] = defaultdict(list)
        sets = {dataset.name: dataset.target_sets for dataset in accuracies.datasets}
        for name, args in self.args.items():
            of_dataset = sets.get(str(args.get("dataset")), ())
            if of_dataset or len(args.get("test_envs", ())) == 1 or method.reads_pairs:
                for target in columns_of(args.get("test_envs", ()), of_dataset):
                    cell = args["dataset"], args["algorithm"], target
                    runs[cell, Trial(args["trial_seed"])].append(name)
        for (cell, trial), names in runs.items():
            known = accuracies.missing.get(cell, {}).get(trial)
            lacks_records = known is None or known.reason is Reason.NOT_RECORDED
            if lacks_records and trial not in accuracies.by_target.get(cell, {}):
                found = self._reason(names)
                if found is not None:
                    accuracies.missing.setdefault(cell, {})[trial] = found

    def _reason(self, names: Sequence[str]) -> MissingResult | None:
        """Why a trial with these runs has no result; None if all are done."""
        states: dict[RunState, list[str]] = defaultdict(list)
        for name in names:
            states[run_state(self.directory / name)].append(name)
        state = next((state for state in _REASONS if states.get(state)), None)
        if state is None:
            return None
        if state is not RunState.FAILED:
            return MissingResult(_REASONS[state])
        errors = dict.fromkeys(failure_reason(self.directory / name) for name in states[state])
        return MissingResult(Reason.FAILED, shortened_list([error for error in errors if error], most=1))
