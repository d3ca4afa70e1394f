"""A DomainBed-compatible suite for domain generalization.

    import domainbed
    records = domainbed.train(dataset="EmojiStyles", algorithm="AgrSum", test_envs=[2], steps=50)

trains one model and returns its records as a pandas frame with one row for each checkpoint.

    model = domainbed.load("train_output")
    model.predict(["photo.jpg"]).names

predicts classes of images with a trained model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pandas as pd

    from domainbed.inference.model import Model

from domainbed import platforms
from domainbed.version import __version__ as __version__

platforms.check()


def train(**settings: object) -> pd.DataFrame:
    """Train one model, like `python -m domainbed.scripts.train`.

    Args:
        settings: the flags of `domainbed.scripts.train` by name (see
            `domainbed.training.config.TrainConfig`). `hparams` may be a dict. Without `output_dir` the run
            leaves no files.

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
