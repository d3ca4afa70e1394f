"""What command lines of studies share: which models they measure, where results go, and their figures."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.errors import RunError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from domainbed.training.config import TrainConfig


_LONGEST_NAME = 200
"""Characters of a figure's title in the name of its file at most; file systems take 255 in a name."""


def add_model_flags(parser: argparse._ActionsContainer) -> None:
    """Add `--model` and `--sweep` to a group of which a user gives one."""
    parser.add_argument("--model", type=Path, nargs="+", metavar="RUN_DIR", help="runs, or model files")
    parser.add_argument(
        "--sweep", type=Path, metavar="SWEEP_DIR", help="all runs of a sweep with saved models"
    )


def given_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> list[str]:
    """Names of the flags that a command line gives, also those that are given their defaults.

    Args:
        parser: a parser without required arguments.
        argv: the command line; None for that of the process.
    """
    absent = object()
    names = vars(parser.parse_args([]))
    found = vars(parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, absent))))
    return [name for name, value in found.items() if value is not absent]


def chosen_models(
    models: Sequence[Path] | None, sweep: Path | None, output_dir: str | Path | None
) -> tuple[list[Path], Path]:
    """The model files that a command line names, and the folder of its results.

    Args:
        models: values of `--model`.
        sweep: value of `--sweep`.
        output_dir: folder of the results; None for the sweep's, or that of the only model.

    Raises: UsageError if there is no such model, or none is named, or several have no common folder.
    """
    from domainbed_gs.trained_models.loading import model_file, saved_models

    if not models and not sweep:
        raise UsageError("no model is named; give --model RUN_DIR or --sweep SWEEP_DIR")
    files = saved_models(sweep) if sweep else [model_file(path) for path in models or ()]
    folder = output_dir or sweep
    if folder is None and len(files) > 1:
        raise UsageError("several models need --output_dir, the folder of their results")
    return files, Path(folder or files[0].parent)


def title_of_run(config: TrainConfig) -> str:
    """Title of a figure of one run: its dataset, targets and algorithm."""
    names = config.dataset_class().ENVIRONMENTS
    targets = ", ".join(names[target] for target in config.test_envs)
    return f"{Path(config.dataset).name}, target {targets} ({config.algorithm})"


def figure_files(folder: Path, name: str, titles: Sequence[str]) -> list[Path]:
    """Paths of the figures of one command: `name`.png, or of several figures `name`_TITLE.png.

    Of a title, letters, digits, "+" and "-" are kept. Names that are equal then, or up to case, get numbers.
    """
    if len(titles) == 1:
        return [folder / f"{name}.png"]
    found: dict[str, Path] = {}
    for title in titles:
        words = re.sub(r"[^A-Za-z0-9+-]+", "_", title)[:_LONGEST_NAME].strip("_")
        stem, number = f"{name}_{words}".rstrip("_"), 1
        while (unique := stem if number == 1 else f"{stem}_{number}").lower() in found:
            number += 1
        found[unique.lower()] = folder / f"{unique}.png"
    return list(found.values())


def write_figures(figures: Mapping[Path, Callable[[], Figure]]) -> None:
    """Draw figures into PNG files, and print their paths. Without matplotlib, only warns.

    Args:
        figures: file -> function that draws its figure.

    Raises: RunError if a file cannot be written.
    """
    from domainbed.files import write_atomic
    from domainbed.results.plots import png, require_matplotlib

    try:
        require_matplotlib()
    except UsageError as error:  # the measurement itself succeeded
        print(f"warning: {error}", file=sys.stderr)
        return
    for path, draw in figures.items():
        picture = png(draw())
        try:
            write_atomic(path, picture)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from None
        print(f"Figure: {path}")
