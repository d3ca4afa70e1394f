"""How a sweep is getting on, read from the files of its runs alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domainbed.sweep.manifest import manifest_of
from domainbed.training.run_dir import RunState, end_of, progress_of, run_state

_SHOWN = ("dataset", "algorithm", "test_envs", "hparams_seed", "trial_seed")


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        name: of its directory.
        about: dataset, algorithm, target environments, seeds.
        state: value of its `RunState`.
        host: of the process that is at work on it, or was.
        step: updates done when its last heartbeat was written.
        n_steps: updates in all.
        eta_seconds: what is left, at the pace of the process at work.
        exit_status: of an attempt that failed.
        error: the line in which it said why.
    """

    name: str
    about: dict[str, Any]
    state: str
    host: str | None = None
    step: int | None = None
    n_steps: int | None = None
    eta_seconds: float | None = None
    exit_status: int | None = None
    error: str | None = None


def status_of(sweep_dir: Path) -> list[RunStatus]:
    """All runs of a sweep, in the order of their names.

    Raises: UsageError where no sweep is.
    """
    manifest = manifest_of(sweep_dir)
    return [_status(sweep_dir / name, args) for name, args in sorted(manifest.jobs.items())]


def _status(path: Path, args: Mapping[str, Any]) -> RunStatus:
    about = {name: args.get(name) for name in _SHOWN}
    state = run_state(path)
    status: dict[str, Any] = {}
    if state in (RunState.RUNNING, RunState.PREEMPTED, RunState.INTERRUPTED):
        progress = progress_of(path)
        status = {name: progress.get(name) for name in ("host", "step", "n_steps")}
        if state is RunState.RUNNING:
            status["eta_seconds"] = _eta(progress)
    elif state is RunState.FAILED:
        end = end_of(path)
        status = {name: end.get(name) for name in ("host", "exit_status", "error")}
    return RunStatus(path.name, about, state.value, **status)


def _eta(progress: Mapping[str, Any]) -> float | None:
    """Seconds that a run needs still, by what it has done since its process began."""
    step, n_steps, first = (progress.get(name) for name in ("step", "n_steps", "first_step"))
    if step is None or n_steps is None or first is None or step <= first:
        return None
    pace: float = progress["seconds"] / (step - first)
    left: float = pace * (n_steps - step)
    return left


def as_json(runs: Sequence[RunStatus]) -> str:
    """Counts by state, and every run, as one JSON object."""
    return json.dumps({"counts": counts(runs), "runs": [asdict(run) for run in runs]}, indent=1)


def counts(runs: Sequence[RunStatus]) -> dict[str, int]:
    """State -> number of runs, for all states."""
    found = Counter(run.state for run in runs)
    return {state.value: found[state.value] for state in RunState}


def as_text(runs: Sequence[RunStatus]) -> Iterator[str]:
    """Lines: counts, what is at work, what failed and why."""
    numbers = ", ".join(f"{number} {state}" for state, number in counts(runs).items() if number)
    yield f"{len(runs)} runs: {numbers}."
    for run in runs:
        about = " ".join(f"{name}={value}" for name, value in run.about.items())
        if run.state == RunState.RUNNING.value:
            step = "starting" if run.step is None else f"step {run.step} of {run.n_steps}"
            left = "" if run.eta_seconds is None else f", {_duration(run.eta_seconds)} left"
            yield f"  running  {run.name} {about}: {step}{left}, on {run.host}"
        elif run.state == RunState.FAILED.value:
            yield f"  FAILED   {run.name} {about}: {run.error} (exit status {run.exit_status})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
