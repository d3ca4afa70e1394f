"""How alike environments are in their gradients' mean and variance, Fisher information and Hessian.

    python -m domainbed_gs.scripts.alignment --model RUN_DIR [RUN_DIR ...]
    python -m domainbed_gs.scripts.alignment --sweep SWEEP_DIR
    python -m domainbed_gs.scripts.alignment --dataset EmojiStyles --output_dir RUN_DIR
    python -m domainbed_gs.scripts.alignment --curves RUN_DIR [RUN_DIR ...] --output_dir DIR

The first two measure trained models. The third is an ordinary run of `domainbed.scripts.train`, with the same
flags, that also measures before each `--every`-th update and at its end. The last draws such runs in one
figure, averaged by method. Trained models get alignment.csv and alignment.png; runs alignment_training.csv
and alignment_training.png. A command that is repeated resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed.command_line import CommandParser
from domainbed.errors import UsageError, run_script
from domainbed.training import train_command
from domainbed.training.config import SETTINGS
from domainbed.training.settings import flags_of
from domainbed_gs.studies.command import (
    add_model_flags,
    chosen_models,
    figure_files,
    given_flags,
    title_of_run,
    write_figures,
)

if TYPE_CHECKING:
    from domainbed_gs.alignment.settings import Alignment
    from domainbed_gs.alignment.study import TrainingRuns
    from domainbed_gs.trained_models.table import Row

EVERY = 20
"""Default number of updates between two measurements."""

_EXAMPLES = {
    "--model train_output": "a trained model",
    "--sweep SWEEP_DIR": "all trained models of a sweep",
    "--dataset EmojiStyles --output_dir runs/ERM": "a run of ERM, during training",
    "--curves runs/ERM runs/Fishr --output_dir runs": "draw runs that were measured during training",
}

_USAGES = (
    "--model RUN_DIR ... [options]",
    "--sweep SWEEP_DIR [options]",
    "--curves RUN_DIR ... --output_dir DIR",
    "[flags of train and options]",
)
"""Arguments of the four modes: two for trained models, a figure of runs, and training."""

_WITH_MODELS = ("output_dir", "data_dir", "device", "cache_dir", "restart")
"""Flags of `train` that measurements of trained models also take."""

_OTHER_HELP = {
    "output_dir": (
        "training: directory of the run (default: train_output); --model, --sweep: folder of the results "
        "(default: the run's or the sweep's); --curves: folder of the figure"
    ),
    "restart": (
        "training: start the run again, earlier files move to attempt-N; --model, --sweep: measure all "
        "models again"
    ),
}
"""Meaning of those whose meaning is not that of `train` alone."""


def build_parser() -> CommandParser:
    """Parser with the flags of `train` and those of the study."""
    from domainbed_gs.alignment.settings import Alignment

    parser = train_command.build_parser(
        "domainbed_gs.scripts.alignment",
        "Compare environments by the mean, variance and curvature of their gradients.",
        _EXAMPLES,
        _OTHER_HELP,
    )
    parser.usage = "\n       ".join(f"{parser.prog} {arguments}" for arguments in _USAGES)
    parser.set_defaults(output_dir=None)
    group = parser.add_argument_group("alignment")
    which = group.add_mutually_exclusive_group()
    add_model_flags(which)
    which.add_argument(
        "--curves",
        type=Path,
        nargs="+",
        metavar="RUN_DIR",
        help="draw runs that were measured during training, or all in a folder",
    )
    group.add_argument(
        "--every",
        type=int,
        default=EVERY,
        help=f"training: updates from one measurement to the next (default: {EVERY})",
    )
    group.add_argument(
        "--baseline",
        default="ERM",
        help="--model, --sweep: method to compare the others with (default: ERM)",
    )
    for declared in flags_of(Alignment).values():
        declared.add_to(group)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure or draw, then print a summary; returns the exit status."""
    from domainbed_gs.alignment.settings import Alignment

    parser = build_parser()
    flags = vars(parser.parse_args(argv))
    _refuse_flags_without_effect(given_flags(parser, argv))
    how = Alignment(**{name: flags.pop(name) for name in flags_of(Alignment)})
    if flags["curves"]:
        return _draw_curves(flags["curves"], flags["output_dir"])
    if flags["model"] or flags["sweep"]:
        return _measure_models(flags, how)
    flags["output_dir"] = flags["output_dir"] or SETTINGS["output_dir"].default
    return _train({name: flags[name] for name in SETTINGS}, how, flags["every"])


def _refuse_flags_without_effect(given: Sequence[str]) -> None:
    """Raise UsageError for a flag that the mode of a command does not read."""
    from domainbed_gs.alignment.settings import Alignment

    mode = next((name for name in ("model", "sweep", "curves") if name in given), None)
    if mode is None:
        if "baseline" in given:
            raise UsageError("--baseline is for --model and --sweep; leave it out")
        return
    of_models = (*_WITH_MODELS, *flags_of(Alignment), "baseline")
    taken = ("output_dir",) if mode == "curves" else of_models
    for name in given:
        if name not in (mode, *taken):
            raise UsageError(f"--{name} has no effect with --{mode}; leave it out")


def _measure_models(flags: Mapping[str, Any], how: Alignment) -> int:
    from domainbed_gs.alignment import study
    from domainbed_gs.alignment.settings import ALIGNMENT
    from domainbed_gs.trained_models.loading import LoadOptions

    files, folder = chosen_models(flags["model"], flags["sweep"], flags["output_dir"])
    options = LoadOptions(flags["data_dir"], flags["device"], flags["cache_dir"])
    found = study.run(files, how, folder, options, flags["restart"])
    if found.runs:
        _show(found.rows(ALIGNMENT), folder, flags["baseline"])
    found.check()
    return 0


def _show(rows: Sequence[Row], folder: Path, baseline: str) -> None:
    """Print the tables of trained models, and draw their figures."""
    from domainbed_gs.alignment import figure, study, tables
    from domainbed_gs.alignment.settings import ALIGNMENT

    tables.print_tables(rows, baseline, "text")
    print(f"Table: {folder / ALIGNMENT}")
    groups = study.by_dataset(rows)
    draw = [partial(figure.models_figure, own, title) for title, own in groups.items()]
    write_figures(dict(zip(figure_files(folder, "alignment", list(groups)), draw, strict=True)))


def _train(settings: Mapping[str, Any], how: Alignment, every: int) -> int:
    from domainbed.training.config_checks import from_settings
    from domainbed_gs.alignment import training
    from domainbed_gs.alignment.settings import TRAINING
    from domainbed_gs.alignment.study import TrainingRuns

    config = from_settings(settings)
    training.train(config, how, every)
    folder = Path(config.output_dir)
    rows = training.TABLE.read(folder / TRAINING)
    print(f"Table: {folder / TRAINING}")
    runs = TrainingRuns(config.dataset, {config.algorithm: [rows]})
    _draw_training(runs, folder, lambda part: f"{title_of_run(config)}, part {part}")
    return 0


def _draw_curves(folders: Sequence[Path], output_dir: str | None) -> int:
    from domainbed_gs.alignment import study
    from domainbed_gs.trained_models.output_folder import create_output_folder

    if output_dir is None:
        raise UsageError("--curves needs --output_dir, the folder of the figure")
    runs = study.read_training(folders)
    create_output_folder(Path(output_dir))
    _draw_training(runs, Path(output_dir), runs.title)
    return 0


def _draw_training(runs: TrainingRuns, folder: Path, title: Callable[[str], str]) -> None:
    """Draw a figure for each part."""
    from domainbed_gs.alignment import figure

    files = figure_files(folder, "alignment_training", [f"part {part}" for part in runs.parts])
    draw = [partial(figure.training_figure, runs.of_part(part), title(part)) for part in runs.parts]
    write_figures(dict(zip(files, draw, strict=True)))


if __name__ == "__main__":
    run_script(main)
