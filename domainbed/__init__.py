"""A DomainBed-compatible suite for domain generalization.

    import domainbed
    records = domainbed.train(dataset="EmojiStyles", algorithm="AgrSum", test_envs=[2], steps=50)

trains one model and returns its records as a pandas frame with one row for each checkpoint.

    model = domainbed.load("train_output")
    model.predict(["photo.jpg"]).names

predicts classes of images with a trained model.

    sweep = domainbed.launch_sweep("runs/mine", algorithms=["ERM", "AgrSum"], n_hparams=1)
    domainbed.collect(sweep)
    domainbed.report(sweep, html="report.html", paired=True)

trains a grid of runs, returns its results as a frame, and prints and writes a report.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pandas as pd

    from domainbed.inference.model import Model
    from domainbed.results.api import collect as collect
    from domainbed.results.api import report as report
    from domainbed.sweep.api import launch_sweep as launch_sweep

from domainbed import platforms
from domainbed.version import __version__ as __version__

__all__ = ["__version__", "collect", "launch_sweep", "load", "report", "train"]

_HOMES = {
    "collect": "domainbed.results.api",
    "launch_sweep": "domainbed.sweep.api",
    "report": "domainbed.results.api",
}
"""Functions of this package -> the modules that define them, imported on first use."""

platforms.check()


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def train(**settings: object) -> pd.DataFrame:
    """Train one model, like `python -m domainbed.scripts.train`.

    stderr shows where files go, and a progress bar.

    Args:
        settings: the flags of `domainbed.scripts.train` by name (see
            `domainbed.training.config.TrainConfig`). `hparams` may be a dict, and environments in `test_envs`
            may have their names. Without `output_dir` the run leaves no files.

    Returns: a frame with one row for each checkpoint and one column for each key of `results.jsonl`. Entries
        of `args` and `hparams` are columns `args.*` and `hparams.*`.

    Raises:
        UsageError: a setting is unknown or invalid.
        RunError: the run failed.
    """
    from domainbed.training.api import train_to_frame

    return train_to_frame(settings)


def load(
    *models: str | os.PathLike[str],
    device: str = "auto",
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    truncated: str = "stop",
) -> Model:
    """Load a trained model, or several whose probabilities are averaged.

    The model has `predict(images)`, which takes paths, PIL images, arrays or tensors; `classes`, their names;
    and `transform`, from an image to an input of the network.

    Args:
        models: directories of runs, model files, or files of `domainbed.scripts.predict --export`.
        device: "auto" is the machine's accelerator, else the CPU.
        classes: names of the classes, or a folder that has a folder for each class, for models of older
            releases, which lack them.
        truncated: "stop" refuses truncated images, "keep" reads them as far as possible.

    Raises: UsageError if a model cannot be read or used here, or if the classes of several models differ.
    """
    from domainbed.inference.loading import load_models

    return load_models(models, device, classes, truncated)
