"""The jobs of a sweep: those that a launch plans, and those of earlier launches."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from domainbed.sweep.defaults import kept_defaults, with_earlier_swad
from domainbed.sweep.flags import settings_of_runs
from domainbed.sweep.grid import make_args_list
from domainbed.sweep.job import Job
from domainbed.sweep.manifest import manifest_of, read_manifest
from domainbed.sweep.shared_hparams import with_shared_hparams


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


def launched_jobs(sweep_dir: Path) -> list[Job]:
    """All jobs of a sweep, as its sweep.json describes them. Raises UsageError if there is none."""
    manifest = manifest_of(sweep_dir)
    defaults = kept_defaults(manifest)
    return [Job(args, str(sweep_dir), defaults) for args in manifest.jobs.values()]
