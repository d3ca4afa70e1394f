"""The flags of `sweep`, from the command line and from a sweep file.

They are those of `SweepFlags`, those for launchers (`LaunchOptions`), and the settings of a run that a sweep
passes on to its runs (`TrainConfig`).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from domainbed.console import program_name
from domainbed.errors import UsageError
from domainbed.sweep.grid import SEED_SCHEMES
from domainbed.sweep.installed_sweeps import find_sweep_file
from domainbed.sweep.launchers import LAUNCHER_FLAGS, LaunchOptions
from domainbed.sweep.sweep_file import read_sweep_file
from domainbed.training.config import SETTINGS
from domainbed.training.settings import Flag, InSweep, flag, flags_of

COMMANDS = ("launch", "delete_incomplete", "retry", "status", "work")

EXAMPLES = """examples:
  sweep launch --algorithms ERM AgrSum --datasets EmojiStyles
  sweep launch --config quickstart      (a sweep file that comes with the package)
  sweep status --output_dir runs/quickstart
  sweep retry --output_dir runs/quickstart      (launch again what failed)
  sweep work --output_dir runs/quickstart      (join a launched sweep, from any host)"""

_NOT_GIVEN = object()


@dataclass(frozen=True)
class SweepFlags:
    """The flags that are neither for launchers nor for runs. Those that upstream requires have defaults."""

    datasets: list[str] | None = flag(
        None, "names of datasets (default: all; without --data_dir, all that need no data)"
    )
    algorithms: list[str] | None = flag(None, "names of algorithms (default: all that train)")
    n_hparams_from: int = flag(0, "first seed of hyper-parameters; seed 0: the defaults", at_least=0)
    n_hparams: int = flag(20, "one more than the last seed of hyper-parameters", at_least=1)
    output_dir: str | None = flag(
        None, "the sweep directory (default: sweep_output/, then the names of datasets and algorithms)"
    )
    seed: int = flag(0, "no effect, as in upstream: each run has a seed of its own")
    n_trials: int = flag(3, "number of repetitions, each with its own seed", at_least=1)
    trials_from: int = flag(
        0, "number of the first trial, for other trials than those of another sweep", at_least=0
    )
    command_launcher: str = flag("local", "local, multi_gpu, slurm, ray, dummy, or a plugin's")
    hparams: str | None = flag(
        None, "JSON object that overrides hyper-parameters in all runs, or, by algorithm, in some"
    )
    single_test_envs: bool = flag(False, "hold out one environment at a time, no pairs")
    test_envs: list[int] | None = flag(
        None,
        "only runs that hold out one of these environments, by index or name (default: each in turn)",
        takes_names=True,
    )
    target_sets: list[str] | None = flag(
        None,
        'hold out these sets of environments, each at once, by index or name, such as "0 1" "2 3"; '
        "single_source: train on one environment at a time",
    )
    skip_confirmation: bool = flag(False, "do not ask for confirmation")
    quiet: bool = flag(False, "do not show the table of what is launched")
    verbose: bool = flag(False, "list every run")
    dry_run: bool = flag(False, "show what would be launched, and launch nothing")
    estimate_seconds: float = flag(
        60.0, "seconds that measuring how long the launch takes may take itself; 0: no estimate", at_least=0
    )
    seed_scheme: str = flag(
        "upstream",
        "upstream: each run has its own seed; paired: all algorithms share one; authors: as in the ICCV code",
        choices=SEED_SCHEMES,
    )
    selection: list[str] | None = flag(None, "selection methods that a report of this sweep uses by default")
    json: bool = flag(False, "print the status as one JSON object")
    watch: bool = flag(False, "print the status repeatedly until no run is running or queued")


PASSED_ON = {
    name: declared
    for name, declared in SETTINGS.items()
    if declared.in_sweep in (InSweep.GIVEN, InSweep.UNNAMED, InSweep.ALWAYS, InSweep.SEVERAL)
}
"""The settings of runs that are also flags of `sweep`, by name."""

FLAGS: Mapping[str, Flag] = {**flags_of(SweepFlags), **flags_of(LaunchOptions), **PASSED_ON}
"""All flags but `--config` and `--preset`, by name. Those of a sweep file are the same."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all flags. Options for launchers and most settings of runs are None unless given."""
    parser = argparse.ArgumentParser(
        prog=program_name("domainbed.scripts.sweep"),
        description="Run a sweep: many runs in one directory.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument(
        "--config",
        type=Path,
        help="sweep file (TOML) with flags, or the name of one that comes with the package; the command line "
        "wins",
    )
    parser.add_argument("--preset", type=str, help="name of a preset of the sweep file")
    for declared in flags_of(SweepFlags).values():
        # A sweep file may set a flag, so that the command line must be able to unset it.
        changes: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if declared.type is bool else {}
        declared.add_to(parser, **changes)
    for_launchers = parser.add_argument_group("options of launchers")
    for declared in flags_of(LaunchOptions).values():
        declared.add_to(for_launchers, default=None)
    for_runs = parser.add_argument_group("settings of all runs, as in domainbed.scripts.train")
    for setting in PASSED_ON.values():
        if setting.in_sweep is InSweep.ALWAYS:
            setting.add_to(for_runs)
        elif setting.in_sweep in (InSweep.GIVEN, InSweep.UNNAMED):
            setting.add_to(for_runs, default=None)
        else:
            several = dataclasses.replace(setting, help=f"{setting.help}; several values: runs with each")
            several.add_to(for_runs, default=None, nargs="+")
    return parser


NOT_OF_THE_GRID = (
    "command",
    "config",
    "preset",
    "output_dir",
    "skip_confirmation",
    "quiet",
    "verbose",
    "dry_run",
    "estimate_seconds",
    "json",
    "watch",
    "command_launcher",
    *LAUNCHER_FLAGS,
)
"""Flags that do not say which runs a sweep has."""


def _names_grid(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> bool:
    """Whether the command line has a flag that says which runs are meant."""
    names = vars(parser.parse_args(argv))
    left = vars(parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, _NOT_GIVEN))))
    return any(value is not _NOT_GIVEN for name, value in left.items() if name not in NOT_OF_THE_GRID)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags from the command line, else from the sweep file, else the defaults.

    Raises: UsageError for an invalid value or sweep file.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.preset is not None and args.config is None:
        raise UsageError("--preset names a preset of a sweep file: give --config too")
    args.grid_is_given = args.config is not None or _names_grid(parser, argv)
    if args.config is not None:
        parser.set_defaults(**read_sweep_file(find_sweep_file(args.config), args.preset, FLAGS))
        args = parser.parse_args(argv)
    for name, declared in FLAGS.items():
        if getattr(args, name) is not None:
            declared.check(getattr(args, name))
    return args


def settings_of_runs(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The settings that `args` pass on to the runs; one dict for each repetition of the grid."""
    once = {
        name: getattr(args, name)
        for name, setting in PASSED_ON.items()
        if setting.in_sweep is not InSweep.SEVERAL
    }
    several = [name for name, setting in PASSED_ON.items() if setting.in_sweep is InSweep.SEVERAL]
    values = [dict.fromkeys(getattr(args, name) or [None]) for name in several]
    for chosen in product(*values):
        yield once | dict(zip(several, chosen, strict=True))
