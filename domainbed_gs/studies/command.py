"""What command lines of studies share: which models they measure, where results go, and their figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from domainbed.training.config import TrainConfig


def add_model_flags(parser: argparse._ActionsContainer) -> None:
    """Add `--model` and `--sweep` to a group of which a user gives one."""
    parser.add_argument("--model", type=Path, nargs="+", metavar="RUN_DIR", help="runs, or model files")
    parser.add_argument(
        "--sweep", type=Path, metavar="SWEEP_DIR", help="all runs of a sweep with saved models"
    )


def chosen_models(
    models: Sequence[Path], sweep: Path | None, output_dir: str | Path | None
) -> tuple[list[Path], Path]:
    """The model files that a command line names, and the folder of its results.

    Args:
        models: values of `--model`, which are read without `--sweep`.
        sweep: value of `--sweep`.
        output_dir: folder of the results; None for the sweep's, or that of the only model.

    Raises: UsageError if there is no such model, or several models have no common folder.
    """
    from domainbed_gs.trained_models.loading import model_file, saved_models

    files = saved_models(sweep) if sweep else [model_file(path) for path in models]
    folder = output_dir or sweep
    if folder is None and len(files) > 1:
        raise UsageError("several models need --output_dir, the folder of their results")
    return files, Path(folder or files[0].parent)


def title_of_run(config: TrainConfig) -> str:
    """Title of a figure of one run: its dataset, targets and algorithm."""
    names = config.dataset_class().ENVIRONMENTS
    targets = ", ".join(names[target] for target in config.test_envs)
    return f"{Path(config.dataset).name}, target {targets} ({config.algorithm})"


def write_figures(figures: Mapping[Path, Callable[[], Figure]]) -> None:
    """Draw figures into PNG files, and print their paths. Without matplotlib, only warns.

    Args:
        figures: file -> function that draws its figure.
    """
    from domainbed.files import write_atomic
    from domainbed.results.plots import png, require_matplotlib

    try:
        require_matplotlib()
    except UsageError as error:  # the measurement itself succeeded
        print(f"warning: {error}", file=sys.stderr)
        return
    for path, draw in figures.items():
        write_atomic(path, png(draw()))
        print(f"Figure: {path}")
