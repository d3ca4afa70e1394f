"""The flags of `sweep`, from the command line and from a sweep file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from domainbed.errors import UsageError
from domainbed.sweep.grid import SEED_SCHEMES
from domainbed.training.config import SETTINGS
from domainbed.training.settings import InSweep

COMMANDS = ("launch", "delete_incomplete", "status", "work")
PASSED_ON = tuple(
    name for name, each in SETTINGS.items() if each.in_sweep is InSweep.GIVEN and name != "steps"
)


def build_parser() -> argparse.ArgumentParser:
    """The flags; those that upstream requires have defaults, which are printed."""
    parser = argparse.ArgumentParser(description="Run a sweep: many runs in one directory.")
    add = parser.add_argument
    add("command", choices=COMMANDS)
    add("--config", type=Path, help="a sweep file (TOML) with these flags; the command line wins over it")
    add("--preset", type=str, help="a preset of the sweep file")
    add("--datasets", nargs="+", type=str, help="default: all (without --data_dir: all that need no data)")
    add("--algorithms", nargs="+", type=str, help="default: all")
    add(
        "--task", type=str, default="domain_generalization", help="domain_generalization or domain_adaptation"
    )
    add("--n_hparams_from", type=int, default=0, help="first seed of hyper-parameters; 0 is the defaults")
    add("--n_hparams", type=int, default=20, help="one past the last seed of hyper-parameters")
    add("--output_dir", type=str, help="the sweep's directory; default: sweep_output/<what it is about>")
    add("--data_dir", type=str, help="root folder of the datasets")
    add(
        "--seed",
        type=int,
        default=0,
        help="accepted and unused, as in upstream: each run has a seed of its own",
    )
    add("--n_trials", type=int, default=3, help="repetitions, each with its own seed")
    add("--command_launcher", type=str, default="local", help="local, multi_gpu, slurm, dummy, a plugin's")
    add("--steps", type=int, help="number of updates of a run; default: the dataset's")
    add("--hparams", type=str, help="JSON object that overrides hyper-parameters in all runs")
    add("--holdout_fraction", type=float, default=0.2, help="share of each environment for validation")
    add(
        "--single_test_envs", action=argparse.BooleanOptionalAction, default=False, help="no pairs of targets"
    )
    add("--test_envs", nargs="+", type=int, help="only runs that hold out one of these; default: all in turn")
    add("--skip_confirmation", action="store_true", help="do not ask")
    add("--quiet", action="store_true", help="do not list every run")
    add("--seed_scheme", choices=SEED_SCHEMES, default="upstream", help="paired: one seed for all algorithms")
    add("--workers", type=int, help="runs at a time; default: one a core, or one on a GPU")
    add("--retries", type=int, help="how often a run that failed is started again; default: never")
    add("--time_limit", type=float, help="minutes that a run may take; past them it can go on at a relaunch")
    add(
        "--selection",
        nargs="+",
        type=str,
        help="selection methods that a report of this sweep uses by default",
    )
    add("--uda_holdout_fraction", type=float, help="as in train")
    add("--checkpoint_freq", type=int, help="as in train")
    add("--skip_model_save", action="store_true", default=None, help="as in train")
    add("--splits", type=str, help="as in train")
    add("--write_splits", type=str, help="as in train; the name has {dataset}, {trial_seed}, {test_envs}")
    add("--evaluate", type=str, help="as in train")
    add("--sampling", type=str, help="as in train")
    add(
        "--grouping",
        nargs="+",
        choices=SETTINGS["grouping"].choices,
        help="as in train; runs with each of those given",
    )
    add("--precision", type=str, help="as in train")
    add("--channels_last", action="store_true", default=None, help="as in train")
    add("--compile", action="store_true", default=None, help="as in train")
    add("--deterministic", action="store_true", default=None, help="as in train")
    add("--device", type=str, help="as in train")
    add("--num_workers", type=int, help="as in train")
    add("--cache_dir", type=str, help="as in train")
    add("--checkpoint_every", type=float, help="as in train")
    add("--tensorboard", action="store_true", default=None, help="as in train")
    add("--slurm_array", type=int, help="workers to ask Slurm for; default: 4")
    add("--slurm_time", type=int, help="minutes of a worker, which is requeued then; default: 240")
    add("--slurm_partition", type=str, help="as in sbatch, of each worker")
    add("--slurm_gpus", type=int, help="GPUs of each worker")
    add("--slurm_cpus", type=int, help="CPUs of each worker")
    add("--slurm_mem", type=str, help="memory of each worker, e.g. 16G")
    add("--slurm_constraint", type=str, help="as in sbatch, of each worker")
    add("--json", action="store_true", help="status as one JSON object")
    add("--watch", action="store_true", help="show the status again and again until no run is at work")
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags from the command line, over those of the sweep file, over the defaults."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.preset is not None and args.config is None:
        raise UsageError("--preset names a preset of a sweep file: give --config too")
    if args.config is None:
        return args
    from domainbed.sweep.config import check_value, read_config

    known = set(vars(args)) - {"command", "config", "preset"}
    flags = read_config(args.config, args.preset, known)
    actions = {action.dest: action for action in parser._actions}
    for name, value in flags.items():
        check_value(args.config, actions[name], value)
    parser.set_defaults(**flags)
    return parser.parse_args(argv)
