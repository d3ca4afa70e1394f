"""A DomainBed-compatible suite for domain generalization.

    import domainbed
    records = domainbed.train(dataset="EmojiStyles", algorithm="AgrSum", test_envs=[2], steps=50)

trains one model and returns its records as a pandas frame with one row for each checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

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
