"""The flags of `sweep`, from the command line and from a sweep file.

They are those of `SweepFlags`, those for launchers (`LaunchOptions`), and the settings of a run that a sweep
passes on to its runs (`TrainConfig`).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from domainbed.command_line import CommandParser
from domainbed.console import text_table
from domainbed.errors import UsageError
from domainbed.sweep.commands import COMMANDS
from domainbed.sweep.grid import SEED_SCHEMES
from domainbed.sweep.installed_sweeps import find_sweep_file
from domainbed.sweep.launchers import LAUNCHER_FLAGS, RAY_FLAGS, SLURM_FLAGS, LaunchOptions
from domainbed.sweep.sweep_file import read_sweep_file
from domainbed.training.config import SETTINGS
from domainbed.training.settings import Flag, Group, InSweep, flag, flags_of
from domainbed.training.train_command import as_hparams_flag

_RUNS, _SWEEP, _LAUNCH, _STATUS = "which runs", "the sweep", "the launch", "the status"
"""Headings under which --help lists the flags of a sweep."""
_NOT_GIVEN = object()


@dataclass(frozen=True)
class _SweepFile:
    config: str | None = flag(
        None,
        "sweep file (TOML) with flags, or the name of one that comes with the package; the command line wins",
    )
    preset: str | None = flag(None, "name of a preset of the sweep file")


@dataclass(frozen=True)
class SweepFlags:
    """The flags that are neither for launchers nor for runs. Those that upstream requires have defaults."""

    datasets: list[str] | None = flag(
        None,
        "names of datasets (default: all; without --data_dir, all that need no data)",
        group=_RUNS,
    )
    algorithms: list[str] | None = flag(None, "names of algorithms (default: all that train)", group=_RUNS)
    n_hparams_from: int = flag(
        0, "first seed of hyper-parameters; seed 0: the defaults", at_least=0, group=_RUNS
    )
    n_hparams: int = flag(20, "one more than the last seed of hyper-parameters", at_least=1, group=_RUNS)
    output_dir: str | None = flag(
        None,
        "the sweep directory (default: sweep_output/, then the names of datasets and algorithms)",
        group=_SWEEP,
    )
    seed: int = flag(0, "no effect, as in upstream: each run has a seed of its own", group=_RUNS)
    n_trials: int = flag(3, "number of repetitions, each with its own seed", at_least=1, group=_RUNS)
    trials_from: int = flag(
        0,
        "number of the first trial, for other trials than those of another sweep",
        at_least=0,
        group=_RUNS,
    )
    command_launcher: str = flag("local", "local, multi_gpu, slurm, ray, dummy, or a plugin's", group=_LAUNCH)
    hparams: str | None = flag(
        None,
        "JSON object that overrides hyper-parameters in all runs, or, by algorithm, in some",
        group=_RUNS,
    )
    single_test_envs: bool = flag(False, "hold out one environment at a time, no pairs", group=_RUNS)
    test_envs: list[int] | None = flag(
        None,
        "only runs that hold out one of these environments, by index or name (default: each in turn)",
        takes_names=True,
        group=_RUNS,
    )
    target_sets: list[str] | None = flag(
        None,
        'hold out these sets of environments, each at once, by index or name, such as "0 1" "2 3"; '
        "single_source: train on one environment at a time",
        group=_RUNS,
    )
    skip_confirmation: bool = flag(False, "do not ask for confirmation", group=_LAUNCH)
    quiet: bool = flag(False, "do not show the table of what is launched", group=_LAUNCH)
    verbose: bool = flag(False, "list every run", group=_LAUNCH)
    dry_run: bool = flag(False, "show what would be launched, and launch nothing", group=_LAUNCH)
    estimate_seconds: float = flag(
        60.0,
        "seconds that measuring how long the launch takes may take itself; 0: no estimate",
        at_least=0,
        group=_LAUNCH,
    )
    seed_scheme: str = flag(
        "upstream",
        "upstream: each run has its own seed; paired: all algorithms share one; authors: as in the ICCV code",
        choices=SEED_SCHEMES,
        group=_RUNS,
    )
    selection: list[str] | None = flag(
        None, "selection methods that a report of this sweep uses by default", group=_SWEEP
    )
    json: bool = flag(False, "print the status as one JSON object", group=_STATUS)
    watch: bool = flag(False, "print the status repeatedly until no run is running or queued", group=_STATUS)


PASSED_ON = {
    name: declared
    for name, declared in SETTINGS.items()
    if declared.in_sweep in (InSweep.GIVEN, InSweep.UNNAMED, InSweep.ALWAYS, InSweep.SEVERAL)
}
"""The settings of runs that are also flags of `sweep`, by name."""

FLAGS: Mapping[str, Flag] = {**flags_of(SweepFlags), **flags_of(LaunchOptions), **PASSED_ON}
"""All flags but `--config` and `--preset`, by name. Those of a sweep file are the same."""


def build_parser(command: str | None = None) -> CommandParser:
    """The parser of all flags. Options for launchers and most settings of runs are None unless given.

    Args:
        command: the command whose flags --help lists; None: those of all.
    """
    named = COMMANDS if command is None else {command: COMMANDS[command]}
    parser = CommandParser(
        "domainbed.scripts.sweep",
        "Run a sweep: many runs in one directory." if command is None else COMMANDS[command].about,
        command or "COMMAND",
        {words: about for each in named.values() for words, about in each.examples.items()},
        meant=as_hparams_flag,
    )
    commands = "; ".join(f"{name}: {each.about.rstrip('.').lower()}" for name, each in COMMANDS.items())
    help = commands if command is None else argparse.SUPPRESS
    parser.add_argument("command", choices=tuple(COMMANDS), metavar="COMMAND", help=help)
    sections: dict[str, argparse._ArgumentGroup] = {}
    for title, declared, changes in _sections():
        if title not in sections:
            sections[title] = parser.add_argument_group(title)
        if not any(each.takes(declared.name) for each in named.values()):
            changes["help"] = argparse.SUPPRESS
        declared.add_to(sections[title], **changes)
    return parser


def _sections() -> Iterator[tuple[str, Flag, dict[str, Any]]]:
    """For each flag, in the order of --help: its heading, its declaration, and what the parser changes."""
    own = flags_of(SweepFlags).values()
    for title in (_SWEEP, _RUNS, _LAUNCH, _STATUS):
        if title == _SWEEP:
            yield from ((title, each, {}) for each in flags_of(_SweepFile).values())
        # A sweep file may set a flag, so that the command line must be able to unset it.
        for declared in (each for each in own if each.group == title):
            switch = {"action": argparse.BooleanOptionalAction} if declared.type is bool else {}
            yield title, declared, dict(switch)
    for name, declared in flags_of(LaunchOptions).items():
        of_one = next((of for of, flags in _OF_LAUNCHERS.items() if name in flags), "")
        yield f"launcher {of_one}" if of_one else "launchers", declared, {"default": None}
    for group in Group:
        title = f"settings of every run{'' if group is Group.RUN else f': {group}'}"
        for setting in (each for each in PASSED_ON.values() if each.group == group):
            if setting.in_sweep is InSweep.SEVERAL:
                several = dataclasses.replace(setting, help=f"{setting.help}; several values: runs with each")
                yield title, several, {"default": None, "nargs": "+"}
            else:
                yield title, setting, {} if setting.in_sweep is InSweep.ALWAYS else {"default": None}


_OF_LAUNCHERS = {"slurm": SLURM_FLAGS, "ray": RAY_FLAGS}

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


def _given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> set[str]:
    """Names of the flags that the command line has."""
    names = vars(parser.parse_args(argv))
    left = vars(parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, _NOT_GIVEN))))
    return {name for name, value in left.items() if value is not _NOT_GIVEN} - {"command"}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags from the command line, else from the sweep file, else the defaults.

    Raises: UsageError for an invalid value or sweep file, and for a flag that `retry` does not take. Other
        commands ignore what they do not take, and a line on stderr says so.
    """
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & {*argv}:
        _show_help(argv)
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.preset is not None and args.config is None:
        raise UsageError("--preset names a preset of a sweep file: give --config too")
    given = _given(parser, argv)
    _check_taken(args.command, given)
    args.grid_is_given = args.config is not None or not given <= {*NOT_OF_THE_GRID}
    if args.config is not None:
        parser.set_defaults(**read_sweep_file(find_sweep_file(Path(args.config)), args.preset, FLAGS))
        args = parser.parse_args(argv, argparse.Namespace(grid_is_given=args.grid_is_given))
    for name, declared in FLAGS.items():
        if getattr(args, name) is not None:
            declared.check(getattr(args, name))
    return args


def _show_help(argv: Sequence[str]) -> NoReturn:
    """Print help on the command that `argv` names, else on which commands there are, and exit."""
    command = next((word for word in argv if word in COMMANDS), None)
    parser: argparse.ArgumentParser = build_parser(command)
    if command is None:
        commands = text_table([[f"  {name}", each.about] for name, each in COMMANDS.items()], width=78)
        parser = argparse.ArgumentParser(
            prog=parser.prog,
            usage="%(prog)s COMMAND [options]",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            description="\n".join([f"{parser.description}\n\ncommands:", *commands]),
            epilog=f"{parser.epilog}\n\n{parser.prog} COMMAND --help shows the flags of a command.",
        )
    parser.print_help()
    sys.exit(0)


def _check_taken(command: str, given: Iterable[str]) -> None:
    ignored = [f"--{name}" for name in sorted(given) if not COMMANDS[command].takes(name)]
    if not ignored:
        return
    if command == "retry":
        raise UsageError(
            f"sweep retry takes no {ignored[0]}: it launches all failed runs, as sweep.json has them"
        )
    print(f"note: sweep {command} ignores {', '.join(ignored)}.", file=sys.stderr)


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
