"""The commands of `sweep`, given its parsed flags: launch, delete_incomplete, retry, work and status."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.sweep import launch_folder
from domainbed.sweep.announcements import (
    ask_for_confirmation,
    print_counts,
    print_different_designs,
    print_estimate,
    print_kept_defaults,
    print_overview,
    print_shared_splits,
)
from domainbed.sweep.devices import default_slots
from domainbed.sweep.few_sources import few_sources_warnings
from domainbed.sweep.job import Job
from domainbed.sweep.launch import Confirm, delete_incomplete, launch
from domainbed.sweep.launch_checks import check_jobs, check_protocol
from domainbed.sweep.launchers import LAUNCHER_FLAGS, LaunchOptions, check_flags, launcher_named
from domainbed.sweep.planned_jobs import choose_defaults, launched_jobs, launched_sets, make_jobs
from domainbed.sweep.status import print_status, print_summary
from domainbed.sweep.validation_images import validation_warnings
from domainbed.sweep.worker import work
from domainbed.training.run_state import RunState


def run_action(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run the command `args.command` of `sweep`.

    Args:
        args: the flags, as `domainbed.sweep.flags.parse` returns them.
        argv: the words of the command line, for sweep.json.

    Returns: exit status.

    Raises: UsageError or RunError.
    """
    if args.command == "status":
        return print_status(_sweep_dir(args), json_format=args.json, watch=args.watch)
    if args.command == "work":
        slots = default_slots(args.workers)
        return print_summary(work(_sweep_dir(args), slots, args.retries or 0, args.time_limit))
    with contextlib.ExitStack() as stack:
        if args.output_dir is not None:
            stack.enter_context(launch_folder.for_launch(args))
        if args.command == "retry":
            return _retry(args, argv)
        if args.command == "delete_incomplete" and not args.grid_is_given:
            return _delete_incomplete(args, launched_jobs(_sweep_dir(args)))
        return _launch_or_delete(args, argv)


def _retry(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Launch the failed runs of a sweep again, as its sweep.json describes them."""
    failed = [job for job in launched_jobs(_sweep_dir(args)) if job.run_state is RunState.FAILED]
    if not failed:
        print(f"No run has failed in {args.output_dir}.")
        return 0
    options, launcher = launch_options(args), launcher_named(args.command_launcher)
    launcher.check()
    print_overview(args, failed)
    print_estimate(args, options, failed)
    if args.dry_run:
        print("Nothing is launched (--dry_run).")
        return 0
    return launch(failed, launcher, options, command=_command_line(argv), confirm=_confirm(args))


def _delete_incomplete(args: argparse.Namespace, jobs: Sequence[Job]) -> int:
    if args.dry_run:
        incomplete = sum(job.state == Job.INCOMPLETE for job in jobs)
        print(f"{incomplete} jobs are incomplete. Nothing is deleted (--dry_run).")
    else:
        delete_incomplete(jobs, _confirm(args))
    return 0


def _command_line(argv: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "domainbed.scripts.sweep", *argv])


def _confirm(args: argparse.Namespace) -> Confirm:
    return (lambda: None) if args.skip_confirmation else ask_for_confirmation


def _launch_or_delete(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Run `launch` or `delete_incomplete` in the folder in which the sweep was or is launched."""
    choose_defaults(args)
    check_protocol(args)
    jobs = make_jobs(args)
    if args.command == "launch":
        check_jobs(args, jobs)
        options = launch_options(args)
        print_kept_defaults(args)
        print_shared_splits(jobs)
        for line in (*validation_warnings(jobs), *few_sources_warnings(jobs)):
            print(f"warning: {line}", file=sys.stderr)
        print_different_designs(args, jobs)
    print_overview(args, jobs)
    if not args.quiet:
        print_counts(jobs)
    if args.command == "launch":
        print_estimate(args, options, jobs)
        if args.dry_run:
            print("Nothing is launched (--dry_run).")
            return 0
    if args.command == "delete_incomplete":
        return _delete_incomplete(args, jobs)
    return launch(
        jobs,
        launcher_named(args.command_launcher),
        options,
        selection=args.selection or (),
        command=_command_line(argv),
        confirm=_confirm(args),
        target_sets=launched_sets(args, jobs),
    )


def launch_options(args: argparse.Namespace) -> LaunchOptions:
    """The options for the launcher that is asked for. Raises UsageError for a flag that it does not use."""
    given = {name: getattr(args, name) for name in LAUNCHER_FLAGS if getattr(args, name) is not None}
    check_flags(args.command_launcher, list(given))
    return LaunchOptions(output_dir=Path(args.output_dir), **given)


def _sweep_dir(args: argparse.Namespace) -> Path:
    if args.output_dir is None:
        raise UsageError(f"{args.command} needs the sweep directory: give --output_dir or --config")
    return Path(args.output_dir)
