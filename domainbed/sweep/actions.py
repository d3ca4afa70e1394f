"""The commands of `sweep`, given its parsed flags: launch, delete_incomplete, retry, work and status."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from domainbed.console import format_bytes
from domainbed.cores import cores
from domainbed.errors import UsageError
from domainbed.escaping import visible
from domainbed.sweep import launch_folder
from domainbed.sweep.defaults import kept_defaults, with_earlier_swad
from domainbed.sweep.devices import default_slots
from domainbed.sweep.disk_space import free_bytes, needed_bytes
from domainbed.sweep.estimate import FEW_UPDATES, estimate, total_updates
from domainbed.sweep.few_sources import few_sources_warnings
from domainbed.sweep.flags import settings_of_runs
from domainbed.sweep.grid import make_args_list
from domainbed.sweep.job import Job
from domainbed.sweep.launch import Confirm, delete_incomplete, launch
from domainbed.sweep.launchers import LAUNCHER_FLAGS, LaunchOptions, check_flags, launcher_named
from domainbed.sweep.manifest import manifest_of, read_manifest
from domainbed.sweep.other_designs import different_designs
from domainbed.sweep.overview import overview
from domainbed.sweep.shared_hparams import check_shared, with_shared_hparams
from domainbed.sweep.status import print_status, print_summary
from domainbed.sweep.target_sets import check_same_protocol
from domainbed.sweep.validation_images import validation_warnings
from domainbed.sweep.worker import work
from domainbed.training.config import SETTINGS
from domainbed.training.config_checks import check_config
from domainbed.training.derived import make_featurizer
from domainbed.training.run_hparams import resolved_hparams
from domainbed.training.run_state import RunState
from domainbed.training.splits import varies_by_trial


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


def launched_jobs(sweep_dir: Path) -> list[Job]:
    """All jobs of a sweep, as its sweep.json describes them. Raises UsageError if there is none."""
    manifest = manifest_of(sweep_dir)
    defaults = kept_defaults(manifest)
    return [Job(args, str(sweep_dir), defaults) for args in manifest.jobs.values()]


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


def choose_defaults(args: argparse.Namespace) -> None:
    """Choose the datasets, algorithms and output directory that are not given, and print the choice."""
    from domainbed.algorithms import ALGORITHMS, get_algorithm_class
    from domainbed.datasets import DATASETS, get_dataset_class

    if args.datasets is None:
        args.datasets = [name for name in DATASETS if "Debug" not in name]
        if args.data_dir is None:
            args.datasets = [name for name in args.datasets if not get_dataset_class(name).NEEDS_DATA]
            print(f"No --data_dir given; using the datasets that need none: {', '.join(args.datasets)}.")
    if args.algorithms is None:
        args.algorithms = [name for name in ALGORITHMS if get_algorithm_class(name).TRAINS]
    # A repeated name would make each of its runs twice, in the same directory.
    args.datasets, args.algorithms = list(dict.fromkeys(args.datasets)), list(dict.fromkeys(args.algorithms))
    if args.output_dir is None:
        about = "-".join([*args.datasets, *args.algorithms]) if len(args.algorithms) <= 8 else "all"
        args.output_dir = str(Path("sweep_output") / about.replace("/", "_")[:80])
        print(f"No --output_dir given; writing to {args.output_dir}.")


def make_jobs(args: argparse.Namespace) -> list[Job]:
    """All jobs of the sweep. If it exists, they keep the defaults of its first launch."""
    manifest = read_manifest(Path(args.output_dir))
    args_of_runs = [
        train_args
        for settings in settings_of_runs(args)
        for train_args in make_args_list(
            n_trials=args.n_trials,
            dataset_names=args.datasets,
            algorithms=args.algorithms,
            n_hparams_from=args.n_hparams_from,
            n_hparams=args.n_hparams,
            steps=settings.pop("steps"),
            data_dir=settings.pop("data_dir"),
            task=settings.pop("task"),
            holdout_fraction=settings.pop("holdout_fraction"),
            single_test_envs=args.single_test_envs,
            hparams=args.hparams,
            seed_scheme=args.seed_scheme,
            extra=settings,
            test_envs=args.test_envs,
            target_sets=args.target_sets,
            trials_from=args.trials_from,
        )
    ]
    args_of_runs = with_earlier_swad(manifest, args_of_runs)
    defaults = kept_defaults(manifest)
    return [Job(train_args, args.output_dir, defaults) for train_args in with_shared_hparams(args_of_runs)]


def launched_sets(args: argparse.Namespace, jobs: Sequence[Job]) -> dict[str, list[list[int]]]:
    """Dataset -> the sets of targets that its runs hold out at once; empty without `--target_sets`."""
    sets: dict[str, list[list[int]]] = defaultdict(list)
    for job in jobs if args.target_sets is not None else ():
        of_dataset, held_out = sets[job.train_args["dataset"]], job.train_args["test_envs"]
        if held_out not in of_dataset:
            of_dataset.append(held_out)
    return sets


def check_protocol(args: argparse.Namespace) -> None:
    """Check the flags that choose what the runs hold out, together and with those of earlier launches.

    Raises: UsageError.
    """
    has_sets = args.target_sets is not None
    if has_sets and args.single_test_envs:
        raise UsageError(
            "--target_sets and --single_test_envs choose other targets; leave out one of them (with "
            "--no-single_test_envs, if a sweep file has it)"
        )
    check_same_protocol(read_manifest(Path(args.output_dir)), args.output_dir, args.datasets, has_sets)


def check_jobs(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Check the launcher, the selection methods, and one run of each algorithm on each dataset.

    Raises: UsageError.
    """
    from domainbed.algorithms import get_algorithm_class
    from domainbed.hparams import option, parse_overrides
    from domainbed.model_selection import METHODS
    from domainbed.training.config import TrainConfig

    launcher = launcher_named(args.command_launcher)
    launcher.check()
    for name in args.selection or ():
        METHODS[name]
    if args.n_hparams <= args.n_hparams_from:
        raise UsageError(f"--n_hparams must be more than --n_hparams_from ({args.n_hparams_from})")
    for name, value in parse_overrides(args.hparams).items():
        if isinstance(value, dict):
            get_algorithm_class(name)
    first_of_kind = {(job.train_args["dataset"], job.train_args["algorithm"]): job for job in reversed(jobs)}
    check_shared(args.hparams, list(first_of_kind.values()))
    for job in first_of_kind.values():
        check_config(TrainConfig(**job.train_args))
    for job in {dataset: job for (dataset, _), job in first_of_kind.items()}.values():
        config = TrainConfig(**job.train_args)
        if launcher.waits and not launcher.elsewhere:
            make_featurizer(config)
        elif option(resolved_hparams(config), "freeze") != "none":
            # Runs on other machines may have pretrained weights that this one lacks; the stages are the same.
            make_featurizer(config, pretrained=False, weights_file="")


def launch_options(args: argparse.Namespace) -> LaunchOptions:
    """The options for the launcher that is asked for. Raises UsageError for a flag that it does not use."""
    given = {name: getattr(args, name) for name in LAUNCHER_FLAGS if getattr(args, name) is not None}
    check_flags(args.command_launcher, list(given))
    return LaunchOptions(output_dir=Path(args.output_dir), **given)


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


def _sweep_dir(args: argparse.Namespace) -> Path:
    if args.output_dir is None:
        raise UsageError(f"{args.command} needs the sweep directory: give --output_dir or --config")
    return Path(args.output_dir)
