"""DomainBed-compatible test-bed for domain generalization.

    import domainbed
    records = domainbed.train(dataset="EmojiStyles", algorithm="AgrSum", test_envs=[2], steps=50)

trains one model and returns a pandas frame of its records, one row a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

from domainbed.version import __version__ as __version__


def train(**settings: object) -> pd.DataFrame:
    """Train one model: `python -m domainbed.scripts.train` as a function call.

    Args:
        settings: the flags of `domainbed.scripts.train` by name (`domainbed.training.config.TrainConfig`
            has the list); `hparams` may be a dict. Without `output_dir` nothing is left on disk.

    Returns: one row for each checkpoint, one column for each key of `results.jsonl`
        (`args` and `hparams` as columns `args.*`, `hparams.*`).

    Raises:
        UsageError: a setting is unknown or makes no sense.
        RunError: the run could not be finished.
    """
    from domainbed.training.api import train_to_frame

    return train_to_frame(settings)
