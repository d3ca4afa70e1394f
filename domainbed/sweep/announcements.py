"""What a launch prints before its runs start, and the confirmation that it asks for."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from domainbed.console import format_bytes
from domainbed.cores import cores
from domainbed.errors import UsageError
from domainbed.escaping import visible
from domainbed.sweep.defaults import kept_defaults
from domainbed.sweep.disk_space import free_bytes, needed_bytes
from domainbed.sweep.estimate import FEW_UPDATES, estimate, total_updates
from domainbed.sweep.job import Job
from domainbed.sweep.launchers import LaunchOptions, launcher_named
from domainbed.sweep.manifest import read_manifest
from domainbed.sweep.other_designs import different_designs
from domainbed.sweep.overview import overview
from domainbed.training.config import SETTINGS
from domainbed.training.splits import varies_by_trial


def print_kept_defaults(args: argparse.Namespace) -> None:
    """Print a line if the runs of an older sweep keep defaults that have changed since."""
    kept = kept_defaults(read_manifest(Path(args.output_dir)))
    values = " ".join(f"--{name} {value}" for name, value in kept.items() if getattr(args, name) is None)
    if values:
        print(f"An older version began this sweep. Its runs keep the defaults of then: {values}.")


def print_different_designs(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Print a line for each design setting in which this launch differs from earlier ones."""
    manifest = read_manifest(Path(args.output_dir))
    lines = different_designs(manifest, {job.name: job.train_args for job in jobs})
    for line in lines:
        print(visible(f"{args.output_dir}: {line}"))
    if lines:
        print(
            "Reports do not pool such runs: choose with --where or --by, or launch into another --output_dir."
        )


def print_shared_splits(jobs: Sequence[Job]) -> None:
    """Print a line for each split that several trials share, which limits what the sweep can show."""
    trials: dict[str, set[int]] = defaultdict(set)
    for job in jobs:
        trials[job.train_args.get("splits", SETTINGS["splits"].default)].add(job.train_args["trial_seed"])
    for splits, seeds in trials.items():
        if len(seeds) > 1 and varies_by_trial(splits) is False:
            own = f"{splits}:per_trial"
            remedy = f" --splits {own} divides the data anew in each trial." if varies_by_trial(own) else ""
            print(
                f"All {len(seeds)} trials share one split (--splits {splits}): p-values and intervals will "
                f"hold for this split only, not for the dataset.{remedy}"
            )


def print_overview(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Print a table of the jobs, with `--verbose` each of them, with `--quiet` nothing."""
    if args.verbose:
        for job in jobs:
            print(visible(str(job)))
    elif not args.quiet:
        print("\n".join(map(visible, overview(jobs))))


def print_estimate(args: argparse.Namespace, options: LaunchOptions, jobs: Sequence[Job]) -> None:
    """Print how long the launch will take, if it runs on this machine and is long enough to measure it.

    Memory and disk follow on a line of their own, unless `--quiet` is given.
    """
    launcher = launcher_named(args.command_launcher)
    at_once = launcher.concurrency(options)
    ready = [job for job in jobs if job.state != Job.DONE]
    short = total_updates(ready) < FEW_UPDATES
    if launcher.elsewhere or at_once is None or short or not args.estimate_seconds:
        return
    found = estimate(ready, max(1, cores() // at_once), args.estimate_seconds)
    if found is None:
        print("The time could not be estimated.")
        return
    time = found.line(len(ready), at_once)
    if args.quiet:
        print(f"{time}.")
        return
    print("\n".join(textwrap.wrap(f"{time}, {found.source}.", 80)))
    memory = "" if found.memory is None else f"Memory: {format_bytes(found.memory)} a run. "
    free = free_bytes(options.output_dir)
    has = "" if free is None else f"; {format_bytes(free)} are free"
    print(f"{memory}Disk: {format_bytes(needed_bytes(ready, at_once))}{has}.")


def print_counts(jobs: Sequence[Job]) -> None:
    """Print how many jobs are in each of the states of `Job`."""
    done, incomplete, not_launched = (
        sum(job.state == state for job in jobs) for state in (Job.DONE, Job.INCOMPLETE, Job.NOT_LAUNCHED)
    )
    print(f"{len(jobs)} jobs: {done} done, {incomplete} incomplete, {not_launched} not launched.")


def ask_for_confirmation() -> None:
    """Ask the user, and exit with status 0 unless the answer starts with "y".

    Raises: UsageError if stdin is closed.
    """
    try:
        response = input("Are you sure? (y/n) ")
    except EOFError:
        print()
        raise UsageError("no answer on stdin; use --skip_confirmation to proceed without asking") from None
    if response.strip()[:1].lower() != "y":
        print("Nevermind!")
        sys.exit(0)
