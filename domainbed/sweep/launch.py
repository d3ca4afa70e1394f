"""Launch the jobs of a sweep, or delete unfinished ones."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from domainbed.console import program_name
from domainbed.errors import UsageError
from domainbed.records.target_sets import TargetSets
from domainbed.sweep.defaults import todays_defaults
from domainbed.sweep.disk_space import check_disk_space
from domainbed.sweep.job import Job
from domainbed.sweep.launch_folder import check_launched_here, folder_is_gone
from domainbed.sweep.launchers import Launcher, LaunchOptions
from domainbed.sweep.manifest import add_to_manifest
from domainbed.sweep.status import print_summary
from domainbed.training.claims import at_work, latest_claim
from domainbed.training.run_state import RunState

Confirm = Callable[[], object]
"""Is called before anything is written or deleted. Raises an exception to cancel."""


def launch(
    jobs: Sequence[Job],
    launcher: Launcher,
    options: LaunchOptions,
    selection: Sequence[str] = (),
    command: str | None = None,
    confirm: Confirm = lambda: None,
    target_sets: Mapping[str, TargetSets] | None = None,
) -> int:
    """Launch the jobs that have not started, and again those that failed or were stopped.

    Args:
        jobs: all jobs of the sweep.
        launcher: starts their commands.
        options: options for the launcher. `output_dir` is the sweep directory.
        selection: default selection methods for reports of the sweep.
        command: command line of this launch, for sweep.json.
        confirm: see `Confirm`.
        target_sets: dataset -> the sets of targets that its runs hold out at once, for sweep.json.

    Returns: exit status. It is 0 if the launcher does not wait for the runs, else that of `print_summary`.

    Raises: UsageError if the disk has too little space, a directory cannot be written, or the sweep was
        launched in another folder and `jobs` have relative paths.
    """
    stopped = [job for job in jobs if job.run_state in (RunState.INTERRUPTED, RunState.PREEMPTED)]
    failed = [job for job in jobs if job.run_state is RunState.FAILED]
    to_launch = [job for job in jobs if job.run_state is RunState.ABSENT or job in stopped or job in failed]
    if stopped or failed:
        print(
            f"Restarting {len(stopped) + len(failed)} incomplete jobs: "
            f"{len(failed)} failed, {len(stopped)} were stopped."
        )
    print(f"About to launch {len(to_launch)} jobs.")
    named = {job.name: job.named_args() for job in jobs}
    check_launched_here(options.output_dir, named.values())
    add = partial(
        add_to_manifest,
        options.output_dir,
        named,
        tuple(selection),
        command,
        folder=Path.cwd(),
        defaults=todays_defaults(),
        target_sets=target_sets,
    )
    if not to_launch:
        if folder_is_gone(options.output_dir):
            add()
        print(f"Nothing to launch in {options.output_dir}{_elsewhere(jobs)}.")
        return 0
    concurrency = launcher.concurrency(options)
    if concurrency is not None:
        check_disk_space(options.output_dir, to_launch, concurrency)
    confirm()
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        add()
    except OSError as error:
        raise UsageError(f"cannot write to --output_dir {options.output_dir}: {error.strerror}") from None
    Job.launch(to_launch, launcher, options)
    if not launcher.waits:
        return 0
    status = print_summary([job.refreshed() for job in to_launch])
    report = program_name("domainbed.scripts.collect_results", "collect")
    print(
        f"The sweep is in {options.output_dir}. To print its tables:\n"
        f"    {report} --input_dir {shlex.quote(str(options.output_dir))}"
    )
    return status


def _elsewhere(jobs: Sequence[Job]) -> str:
    """How many jobs other processes are seeing to, to append to a sentence."""
    counts = {
        state.value: sum(job.run_state is state for job in jobs)
        for state in (RunState.RUNNING, RunState.QUEUED)
    }
    text = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    return f"; other processes have {text}" if text else ""


def delete_incomplete(jobs: Sequence[Job], confirm: Confirm = lambda: None) -> None:
    """Delete the directories of incomplete jobs, except of those in which a process may be at work.

    Watches the heartbeats of other hosts first if they look old, since hosts' clocks may differ; see
    `claims.at_work`.

    Raises: RunError if a directory cannot be deleted.
    """
    incomplete = [job for job in jobs if job.state == Job.INCOMPLETE]
    running = at_work([Path(job.output_dir) for job in incomplete])
    if running:
        print(f"Keeping {len(running)} incomplete jobs that are running.")
    to_delete = [job for job in incomplete if Path(job.output_dir) not in running]
    claims = {job.name: latest_claim(Path(job.output_dir)) for job in to_delete}
    print(f"About to delete {len(to_delete)} jobs.")
    if to_delete:
        confirm()
        # Some may have started since.
        unchanged = [job for job in to_delete if latest_claim(Path(job.output_dir)) == claims[job.name]]
        Job.delete(unchanged)
