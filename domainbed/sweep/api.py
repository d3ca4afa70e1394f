"""Launch a sweep by a function call: for notebooks and other programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from domainbed.errors import RunError, UsageError, misspelt
from domainbed.sweep.actions import run_action
from domainbed.sweep.flags import FLAGS, PASSED_ON, parse
from domainbed.training.settings import Flag, InSweep
from domainbed.training.stop_requests import Preempted

NOT_IN_PYTHON = ("skip_confirmation", "json", "watch")
"""Flags of `sweep` without a meaning in a call: it never asks, and shows no status."""


def launch_sweep(
    output_dir: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    datasets: Sequence[str] | str | None = None,
    algorithms: Sequence[str] | str | None = None,
    n_trials: int | None = None,
    trials_from: int | None = None,
    n_hparams: int | None = None,
    n_hparams_from: int | None = None,
    hparams: Mapping[str, Any] | str | None = None,
    test_envs: Sequence[int | str] | str | None = None,
    single_test_envs: bool | None = None,
    target_sets: Sequence[str] | str | None = None,
    seed_scheme: str | None = None,
    selection: Sequence[str] | str | None = None,
    command_launcher: str | None = None,
    workers: int | None = None,
    quiet: bool | None = None,
    verbose: bool | None = None,
    dry_run: bool | None = None,
    estimate_seconds: float | None = None,
    **settings: object,
) -> Path:
    """Launch a sweep, like `python -m domainbed.scripts.sweep launch`, and return its directory.

    The table of runs and the estimate are printed, and nothing is asked. Runs that have finished are kept:
    the same call resumes a sweep. With the launchers "local", "multi_gpu" and "ray" the call returns when
    all runs have ended; others only start the runs. An argument that is None is not given: the sweep file
    decides, or the default of the command line.

    Args:
        output_dir: the sweep directory; by default sweep_output/ with the names of datasets and algorithms.
        config: sweep file (TOML), or the name of one in the package such as "quickstart". Arguments win.
        preset: name of a preset of that file.
        datasets: names of datasets, or paths of folders root/environment/class/image; by default all that
            need no data, or all with `data_dir`.
        algorithms: names of algorithms; by default all that train.
        n_trials: number of repetitions, each with its own seed (default 3).
        trials_from: number of the first trial (default 0).
        n_hparams: one more than the last seed of hyper-parameters (default 20).
        n_hparams_from: first seed of hyper-parameters (default 0); seed 0 has the defaults.
        hparams: hyper-parameters to override in all runs, or, by name of an algorithm, in its runs.
        test_envs: only runs that hold out one of these environments, by index or name, such as [0, "photo"];
            by default each in turn.
        single_test_envs: hold out one environment at a time, no pairs.
        target_sets: sets of environments to hold out at once, by index or name, such as ["0 1", "2 3"], or
            "single_source".
        seed_scheme: "upstream", "paired" or "authors".
        selection: selection methods that a report of this sweep uses by default.
        command_launcher: "local" (default), "multi_gpu", "slurm", "ray", "dummy", or a plugin's.
        workers: number of runs at a time, on each GPU or node that the launcher uses.
        quiet: print no table of the runs.
        verbose: list every run.
        dry_run: show what would be launched, and launch nothing.
        estimate_seconds: seconds that measuring how long the launch takes may take itself; 0: no estimate.
        settings: other flags of `sweep launch` by name: those of launchers, such as `time_limit` in minutes,
            and settings of all runs, such as `steps` and `data_dir` (docs/settings.md).

    Returns: path of the sweep directory, for `domainbed.collect` and `domainbed.report`.

    Raises:
        UsageError: an argument is unknown or invalid, data are missing, or the directory cannot be used.
        RunError: some runs failed. Results of the others are kept. The same call launches the failed ones
            again.
        Preempted: runs were stopped by their time limit or a signal. The same call resumes them.
    """
    named = {
        "output_dir": output_dir,
        "datasets": datasets,
        "algorithms": algorithms,
        "n_trials": n_trials,
        "trials_from": trials_from,
        "n_hparams": n_hparams,
        "n_hparams_from": n_hparams_from,
        "hparams": hparams,
        "test_envs": test_envs,
        "single_test_envs": single_test_envs,
        "target_sets": target_sets,
        "seed_scheme": seed_scheme,
        "selection": selection,
        "command_launcher": command_launcher,
        "workers": workers,
        "quiet": quiet,
        "verbose": verbose,
        "dry_run": dry_run,
        "estimate_seconds": estimate_seconds,
    }
    given = {name: value for name, value in {**named, **settings}.items() if value is not None}
    of_file = {"config": config, "preset": preset}
    words = [f"--{name}={os.fspath(value)}" for name, value in of_file.items() if value is not None]
    argv = ["launch", *words, *_words_of_flags(given), "--skip_confirmation"]
    args = parse(argv)
    for name, value in given.items():
        if value is False and getattr(args, name):
            raise UsageError(f"{name} is set in the sweep file, and a call cannot unset it; change the file")
    status = run_action(args, argv)
    if status == Preempted.exit_status:
        raise Preempted(f"runs of {args.output_dir} were stopped; the same call resumes them")
    if status:
        raise RunError(
            f"runs of {args.output_dir} failed, see failed.json in their directories; the same call launches "
            "them again"
        )
    return Path(args.output_dir)


def _words_of_flags(given: Mapping[str, object]) -> Iterator[str]:
    """The words of the command line that give these values, so that sweep.json has a command to repeat.

    Raises: UsageError for an unknown name or a value of another type.
    """
    known = [name for name in FLAGS if name not in NOT_IN_PYTHON]
    for name, value in given.items():
        if name not in known:
            raise misspelt(f"launch_sweep has no argument {name}", name, ["config", "preset", *known])
        yield from _words(FLAGS[name], value)


def _words(declared: Flag, value: object) -> list[str]:
    """The words that give one flag its value; none for a setting of runs that is off by default."""
    repeats_grid = declared.name in PASSED_ON and PASSED_ON[declared.name].in_sweep is InSweep.SEVERAL
    wanted = replace(declared, is_list=declared.is_list or repeats_grid)
    one = isinstance(value, str) and wanted.is_list
    converted = wanted.converted([value] if one else value, f"argument {declared.name}")
    if declared.type is bool:
        off = [] if declared.name in PASSED_ON else [f"--no-{declared.name}"]
        return [f"--{declared.name}"] if converted else off
    if not wanted.is_list:
        return [f"--{declared.name}={converted}"]
    if not converted:
        raise UsageError(f"argument {declared.name} is empty; give at least one value, or leave it out")
    if len(converted) == 1 and str(converted[0]).startswith("-"):
        return [f"--{declared.name}={converted[0]}"]  # as a word of its own it would read as a flag
    return [f"--{declared.name}", *map(str, converted)]
