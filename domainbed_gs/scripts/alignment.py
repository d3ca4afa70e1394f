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

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from domainbed.errors import UsageError, run_script
from domainbed.training import train_command
from domainbed.training.config import SETTINGS
from domainbed.training.settings import flags_of
from domainbed_gs.studies.command import add_model_flags, chosen_models, title_of_run, write_figures

EVERY = 20
"""Default number of updates between two measurements."""

_EXAMPLES = {
    "--model train_output": "a trained model",
    "--sweep SWEEP_DIR": "all trained models of a sweep",
    "--dataset EmojiStyles --output_dir runs/ERM": "a run of ERM, during training",
    "--curves runs/ERM runs/Fishr --output_dir runs": "draw runs that were measured during training",
}

_WITH_MODELS = ("output_dir", "data_dir", "device", "cache_dir", "restart")
"""Flags of `train` that measurements of trained models also take."""


def build_parser() -> argparse.ArgumentParser:
    """Parser with the flags of `train` and those of the study."""
    from domainbed_gs.alignment.settings import Alignment

    parser = train_command.build_parser(
        "domainbed_gs.scripts.alignment",
        "Compare environments by the mean, variance and curvature of their gradients.",
        _EXAMPLES,
    )
    parser.set_defaults(output_dir=None)
    group = parser.add_argument_group("alignment")
    which = group.add_mutually_exclusive_group()
    add_model_flags(which)
    which.add_argument(
        "--curves",
        type=Path,
        nargs="+",
        metavar="RUN_DIR",
        help="runs measured during training, or their folder",
    )
    group.add_argument(
        "--every", type=int, help=f"updates from one measurement to the next (default: {EVERY})"
    )
    group.add_argument("--baseline", help="method to compare trained models with (default: ERM)")
    for declared in flags_of(Alignment).values():
        declared.add_to(group)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure or draw, then print a summary; returns the exit status."""
    from domainbed_gs.alignment.settings import Alignment

    flags = vars(build_parser().parse_args(argv))
    own = {name: flags.pop(name) for name in ("model", "sweep", "curves", "every", "baseline")}
    how = Alignment(**{name: flags.pop(name) for name in flags_of(Alignment)})
    if own["curves"]:
        _refuse({**flags, "every": own["every"], "baseline": own["baseline"]}, ("output_dir",), "--curves")
        return _draw_curves(own["curves"], flags["output_dir"])
    if own["model"] or own["sweep"]:
        mode = "--sweep" if own["sweep"] else "--model"
        _refuse({**flags, "every": own["every"]}, _WITH_MODELS, mode)
        return _measure_models(own, how, flags)
    if own["baseline"] is not None:
        raise UsageError("--baseline is for --model and --sweep; leave it out")
    every = EVERY if own["every"] is None else own["every"]
    return _train({**flags, "output_dir": flags["output_dir"] or SETTINGS["output_dir"].default}, how, every)


def _refuse(flags: Mapping[str, Any], taken: Sequence[str], mode: str) -> None:
    """Raise UsageError for a flag that has no effect beside `mode`."""
    for name, value in flags.items():
        default = SETTINGS[name].default if name in SETTINGS and name != "output_dir" else None
        if name not in taken and value != default:
            raise UsageError(f"--{name} has no effect with {mode}; leave it out")


def _measure_models(own: Mapping[str, Any], how: Any, flags: Mapping[str, Any]) -> int:  # noqa: ANN401 - Alignment
    from domainbed_gs.alignment import figure, study, tables
    from domainbed_gs.alignment.settings import ALIGNMENT
    from domainbed_gs.trained_models.loading import LoadOptions

    files, folder = chosen_models(own["model"], own["sweep"], flags["output_dir"])
    options = LoadOptions(flags["data_dir"], flags["device"], flags["cache_dir"])
    rows = study.run(files, how, folder, options, flags["restart"]).rows
    tables.print_tables(rows, own["baseline"] or "ERM", "text")
    print(f"Table: {folder / ALIGNMENT}")
    pictures = {}
    groups = study.by_dataset(rows)
    for number, (title, of_dataset) in enumerate(groups.items()):
        suffix = f"_{number}" if len(groups) > 1 else ""
        pictures[folder / f"alignment{suffix}.png"] = partial(figure.models_figure, of_dataset, title)
    write_figures(pictures)
    return 0


def _train(flags: Mapping[str, Any], how: Any, every: int) -> int:  # noqa: ANN401 - Alignment
    from domainbed.training.config_checks import from_settings
    from domainbed_gs.alignment import figure, training
    from domainbed_gs.alignment.settings import TRAINING

    config = from_settings(flags)
    training.train(config, how, every)
    folder = Path(config.output_dir)
    rows = training.TABLE.read(folder / TRAINING)
    print(f"Table: {folder / TRAINING}")
    draw = partial(figure.training_figure, {config.algorithm: [rows]}, title_of_run(config))
    write_figures({folder / "alignment_training.png": draw})
    return 0


def _draw_curves(runs: Sequence[Path], output_dir: str | None) -> int:
    from domainbed_gs.alignment import figure, study

    if output_dir is None:
        raise UsageError("--curves needs --output_dir, the folder of the figure")
    methods = study.read_training(runs)
    number = sum(map(len, methods.values()))
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    title = f"Distances between environments over training, {number} runs"
    write_figures({folder / "alignment_training.png": partial(figure.training_figure, methods, title)})
    return 0


if __name__ == "__main__":
    run_script(main)
