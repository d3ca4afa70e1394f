"""State of a sweep's runs, read from their files: a listing with progress, and a summary after a launch."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domainbed.console import format_bytes, format_seconds, program_name
from domainbed.escaping import clear_terminal, visible
from domainbed.records.checks import is_finite_number
from domainbed.sweep.disk_space import bytes_in
from domainbed.sweep.job import Job
from domainbed.sweep.manifest import manifest_of
from domainbed.training.run_state import RunState, last_failure, last_progress, run_state, seconds_of_finished
from domainbed.training.stop_requests import Preempted

_SHOWN_ARGS = ("dataset", "algorithm", "test_envs", "hparams_seed", "trial_seed")
_SHOWN_FAILURES = 20
_WATCH_SECONDS = 5.0


@dataclass(frozen=True)
class RunStatus:
    """State of one run.

    Attributes:
        name: name of its directory.
        about: its dataset, algorithm, target environments and seeds.
        state: value of its `RunState`.
        host: host of the process that works on it or did last.
        step: updates done at the last heartbeat.
        n_steps: total number of updates.
        eta_seconds: estimated time left, at the pace of the current process.
        seconds: time that it took, if it is done.
        exit_status: exit status of the last attempt, if it failed.
        error: error message of the last attempt, if it failed.
    """

    name: str
    about: dict[str, Any]
    state: str
    host: str | None = None
    step: int | None = None
    n_steps: int | None = None
    eta_seconds: float | None = None
    seconds: float | None = None
    exit_status: int | None = None
    error: str | None = None


def status_of(sweep_dir: Path) -> list[RunStatus]:
    """State of all runs of a sweep, sorted by name. Raises UsageError if `sweep_dir` contains no sweep."""
    manifest = manifest_of(sweep_dir)
    return [_status(sweep_dir / name, args) for name, args in sorted(manifest.jobs.items())]


def print_status(sweep_dir: Path, json_format: bool = False, watch: bool = False) -> int:
    """Print the state of the sweep in `sweep_dir`.

    Args:
        sweep_dir: the sweep directory.
        json_format: print one JSON object instead of text.
        watch: print again every few seconds until no run is running or queued.

    Returns: exit status: 1 if a run has failed, else 0.

    Raises: UsageError if `sweep_dir` contains no sweep.
    """
    while True:
        runs = status_of(sweep_dir)
        counts = count_states(runs)
        if watch and sys.stdout.isatty():
            clear_terminal()
        print(as_json(runs) if json_format else "\n".join(as_text(runs)), flush=True)
        if counts[RunState.FAILED.value] and not json_format:
            print(f"To launch failed runs again:\n    {_retry(sweep_dir)}", flush=True)
        if not watch or not counts[RunState.RUNNING.value] + counts[RunState.QUEUED.value]:
            return 1 if counts[RunState.FAILED.value] else 0
        time.sleep(_WATCH_SECONDS)


def count_states(runs: Sequence[RunStatus]) -> dict[str, int]:
    """Number of runs in each state."""
    found = Counter(run.state for run in runs)
    return {state.value: found[state.value] for state in RunState}


def seconds_left(runs: Sequence[RunStatus]) -> float | None:
    """Seconds until all runs but the failed ones are done, with as many at a time as now.

    A run that waits is taken to last as long as the median of the finished runs of its algorithm, or of all.

    Returns: None if nothing is running, or no run has been finished yet.
    """
    running = [run for run in runs if run.state == RunState.RUNNING.value]
    of_algorithms: dict[object, list[float]] = defaultdict(list)
    for run in runs:
        if run.seconds is not None:
            of_algorithms[run.about["algorithm"]].append(run.seconds)
    if not running or not of_algorithms:
        return None
    medians = {name: statistics.median(seconds) for name, seconds in of_algorithms.items()}
    typical = statistics.median(medians.values())
    work = 0.0
    for run in runs:
        if run.state not in (RunState.DONE.value, RunState.FAILED.value):
            whole = medians.get(run.about["algorithm"], typical)
            work += whole if run.eta_seconds is None else run.eta_seconds
    return work / len(running)


def as_json(runs: Sequence[RunStatus]) -> str:
    """All runs, and their number in each state, as one JSON object."""
    content = {
        "counts": count_states(runs),
        "seconds_left": seconds_left(runs),
        "runs": [asdict(run) for run in runs],
    }
    return json.dumps(content, indent=1)


def as_text(runs: Sequence[RunStatus]) -> Iterator[str]:
    """Lines of text: the number of runs in each state, and each run that is running or has failed."""
    numbers = ", ".join(f"{number} {state}" for state, number in count_states(runs).items() if number)
    yield f"{len(runs)} runs: {numbers}."
    seconds = seconds_left(runs)
    if seconds is not None:
        end = time.strftime("%H:%M on %Y-%m-%d", time.localtime(time.time() + seconds))
        yield f"Expected end: {end}, in {format_seconds(seconds)}, with as many runs at a time as now."
    for run in runs:
        about = " ".join(f"{name}={value}" for name, value in run.about.items())
        if run.state == RunState.RUNNING.value:
            step = "starting" if run.step is None else f"step {run.step} of {run.n_steps}"
            left = "" if run.eta_seconds is None else f", {format_seconds(run.eta_seconds)} left"
            yield visible(f"  running  {run.name} {about}: {step}{left}, on {run.host}")
        elif run.state == RunState.FAILED.value:
            yield visible(f"  FAILED   {run.name} {about}: {run.error} (exit status {run.exit_status})")


def print_summary(jobs: Sequence[Job]) -> int:
    """Print which runs failed and why, how many are unfinished, and the disk space that all take up.

    Returns: exit status: 1 if a run failed, 3 if runs were stopped and can be resumed, else 0.
    """
    running = [job for job in jobs if job.run_state is RunState.RUNNING]
    preempted = [job for job in jobs if job.run_state is RunState.PREEMPTED]
    failed = [job for job in jobs if job.state != Job.DONE and job not in running and job not in preempted]
    for job in failed[:_SHOWN_FAILURES]:
        reason = job.failure or "no reason was recorded; is the disk full?"
        print(visible(f"FAILED {job}: {reason}"), file=sys.stderr)
    if failed:
        print(
            f"{len(failed)} of {len(jobs)} runs failed; see failed.json in their directories. To launch them "
            f"again:\n    {_retry(Path(jobs[0].output_dir).parent)}",
            file=sys.stderr,
        )
    if running:
        print(f"{len(running)} runs are running in other processes.")
    if preempted:
        print(f"{len(preempted)} runs were stopped (time limit or signal). Launch the sweep again to resume.")
    size = bytes_in(Path(job.output_dir) for job in jobs)
    print(f"The directories of {len(jobs)} runs take up {format_bytes(size)}.")
    if failed:
        return 1
    return Preempted.exit_status if preempted else 0


def _retry(sweep_dir: Path) -> str:
    """The command that launches the failed runs of a sweep again."""
    program = program_name("domainbed.scripts.sweep", "sweep")
    return f"{program} retry --output_dir {shlex.quote(str(sweep_dir))}"


def _status(path: Path, args: Mapping[str, Any]) -> RunStatus:
    about = {name: args.get(name) for name in _SHOWN_ARGS}
    state = run_state(path)
    details: dict[str, Any] = {}
    if state in (RunState.RUNNING, RunState.PREEMPTED, RunState.INTERRUPTED):
        progress = last_progress(path)
        details = {name: progress.get(name) for name in ("host", "step", "n_steps")}
        if state is RunState.RUNNING:
            details["eta_seconds"] = _eta(progress)
    elif state is RunState.DONE:
        details = {"seconds": seconds_of_finished(path)}
    elif state is RunState.FAILED:
        failure = last_failure(path)
        details = {name: failure.get(name) for name in ("host", "exit_status", "error")}
    return RunStatus(path.name, about, state.value, **details)


def _eta(progress: Mapping[str, Any]) -> float | None:
    """Estimated seconds that a run still needs, at the pace since its process started."""
    names = ("step", "n_steps", "first_step", "seconds")
    numbers = [float(progress[name]) for name in names if is_finite_number(progress.get(name))]
    if len(numbers) < len(names):
        return None
    step, n_steps, first, seconds = numbers
    if step <= first:
        return None
    pace: float = seconds / (step - first)
    left: float = pace * (n_steps - step)
    return left
