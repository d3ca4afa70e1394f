"""Split schemes: which part of each environment is for what.

The parts of an environment are called `in` (train), `out` (validation), `uda` (unlabeled, domain
adaptation) and `test`; not every scheme has all of them. A scheme is a function of the dataset and a
`SplitRequest`; plugins add theirs to `SCHEMES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.errors import UsageError
from domainbed.registry import Registry
from domainbed.training import split_file

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.datasets.splitting import SplitDataset
    from domainbed.training.config import TrainConfig

    Parts = dict[str, SplitDataset]
    Scheme = Callable[[MultipleDomainDataset, "SplitRequest"], list[Parts]]


@dataclass(frozen=True)
class SplitRequest:
    """What a scheme may depend on.

    Attributes:
        test_envs: indices of the target environments.
        trial_seed: seed of the trial; a scheme may give every trial its own split.
        holdout_fraction: share of an environment for validation.
        uda_holdout_fraction: share of a target's train part that is given unlabeled.
        options: what followed the scheme's name on the command line, e.g. ["70/10/20", "per_trial"].
    """

    test_envs: tuple[int, ...]
    trial_seed: int
    holdout_fraction: float
    uda_holdout_fraction: float
    options: tuple[str, ...] = ()


SCHEMES: Registry[Scheme] = Registry("Split scheme")
SCHEMES.add_lazy("file", "domainbed.training.split_file:from_file")
SCHEMES.add_lazy("list", "domainbed.training.list_split:by_list")


def parse(text: str) -> tuple[str, tuple[str, ...]]:
    """Name of the scheme and its options, "name:option:option".

    "70/10/20" means "stratified:70/10/20", and "name.json" means "file:name.json".
    """
    if text.endswith(split_file.SUFFIX):
        return "file", (text.removeprefix("file:"),)
    name, *options = text.split(":")
    if re.fullmatch(r"[\d.]+(/[\d.]+)+", name):
        return "stratified", (name, *options)
    return name, tuple(options)


def check_splits(config: TrainConfig) -> None:
    """Refuse an unknown scheme, files that aren't there, and unlabeled parts from a scheme that has none."""
    name, options = parse(split_file.filled(config.splits, config))
    SCHEMES[name]
    if name == "file" and not Path(":".join(options)).is_file():
        raise UsageError(f"--splits {config.splits}: there is no file {':'.join(options) or 'named'}")
    if config.write_splits is not None and not config.write_splits.endswith(split_file.SUFFIX):
        raise UsageError(f"--write_splits takes a name that ends with .json, not {config.write_splits!r}")
    if name not in ("holdout", "file", "list") and config.uda_holdout_fraction:
        raise UsageError(
            f"--uda_holdout_fraction needs --splits holdout; {config.splits} has no unlabeled part"
        )


def make_splits(dataset: MultipleDomainDataset, config: TrainConfig) -> list[Parts]:
    """The parts of every environment, in the dataset's order."""
    name, options = parse(split_file.filled(config.splits, config))
    request = SplitRequest(
        tuple(config.test_envs),
        config.trial_seed,
        config.holdout_fraction,
        config.uda_holdout_fraction,
        options,
    )
    return SCHEMES[name](dataset, request)


@SCHEMES.register("holdout")
def holdout(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """Upstream's splits: `out` is a share of each environment, `in` the rest, drawn anew for each trial.

    A target's `in` is shuffled once more, and gives up its `uda` part if one is asked for (and kept only
    if it is not empty).
    """
    from domainbed.datasets.splitting import split_dataset
    from domainbed.seeds import seed_hash

    if request.options:
        raise UsageError(
            f"--splits holdout takes no options, not {':'.join(request.options)}; see --holdout_fraction"
        )
    environments = []
    for index in range(len(dataset)):
        environment, seed = dataset[index], seed_hash(request.trial_seed, index)
        size = len(environment)  # type: ignore[arg-type] # torch's Dataset type has no __len__
        out, in_ = split_dataset(environment, int(size * request.holdout_fraction), seed)
        parts: Parts = {"in": in_, "out": out}
        if index in request.test_envs:
            uda, parts["in"] = split_dataset(in_, int(len(in_) * request.uda_holdout_fraction), seed)
            if len(uda):
                parts["uda"] = uda
        environments.append(parts)
    return environments


@SCHEMES.register("whole")
def whole(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """Nothing is set aside: all of an environment is `in`, and all of a target also its `test` part.

    As in the experiments on ColoredMNIST of the papers on invariant risk (Arjovsky et al. 2019). No
    selection by validation is possible: see selection method `last`.
    """
    from domainbed.datasets.splitting import SplitDataset

    if request.options:
        raise UsageError(f"--splits whole takes no options, not {':'.join(request.options)}")
    environments = []
    for index in range(len(dataset)):
        environment = dataset[index]
        everything = SplitDataset(environment, list(range(len(environment))))  # type: ignore[arg-type] # as above
        parts = {"in": everything}
        environments.append(parts | ({"test": everything} if index in request.test_envs else {}))
    return environments
