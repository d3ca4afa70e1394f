"""Split schemes: they divide each environment into parts for training, validation and test.

The parts of an environment are `in` (train), `out` (validation), `uda` (unlabeled, for domain adaptation)
and `test`; not every scheme has all of them. A scheme is a function of the dataset and a `SplitRequest`;
plugins add theirs to `SCHEMES`, and declare with `by_trial` whether it splits differently in each trial.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from domainbed.errors import UnknownName, UsageError
from domainbed.registry import Registry

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.datasets.splitting import SplitDataset

    Parts = dict[str, SplitDataset]
    Scheme = Callable[[MultipleDomainDataset, "SplitRequest"], list[Parts]]

VariationRule = Callable[[tuple[str, ...]], bool]
"""Whether a scheme splits differently in each trial, given its options."""


SUFFIX = ".json"
"""Suffix of split files, see `domainbed.training.split_file`."""


@dataclass(frozen=True)
class SplitRequest:
    """The settings of a run that a scheme may depend on.

    Attributes:
        test_envs: indices of the target environments.
        trial_seed: seed of the trial; a scheme may split differently in each trial.
        holdout_fraction: share of an environment for validation.
        uda_holdout_fraction: share of a target's train part that is given unlabeled.
        options: options after the scheme's name in --splits, e.g. ("70/10/20", "per_trial").
        scheme: name of the scheme.
    """

    test_envs: tuple[int, ...]
    trial_seed: int
    holdout_fraction: float
    uda_holdout_fraction: float
    options: tuple[str, ...] = ()
    scheme: str = "holdout"


SCHEMES: Registry[Scheme] = Registry.of_module("Split scheme")
SCHEMES.add_lazy("file", "domainbed.training.split_file:from_file")


_WITH_UNLABELED = ("holdout", "file", "list")


def parse_scheme(text: str) -> tuple[str, tuple[str, ...]]:
    """Name of the scheme and options in "name:option:option".

    "70/10/20" means "stratified:70/10/20", and "name.json" means "file:name.json".
    """
    if text.endswith(SUFFIX):
        return "file", (text.removeprefix("file:"),)
    name, *options = text.split(":")
    if re.fullmatch(r"[\d.]+(/[\d.]+)+", name):
        return "stratified", (name, *options)
    return name, tuple(options)


def by_trial(rule: bool | VariationRule) -> Callable[[Scheme], Scheme]:
    """Decorator that declares whether a scheme splits differently in each trial, always or by its options.

    `varies_by_trial` reads it from the function's attribute `by_trial`.
    """

    def declare(scheme: Scheme) -> Scheme:
        setattr(scheme, "by_trial", rule)  # noqa: B010 - functions have no such attribute for mypy
        return scheme

    return declare


def varies_by_trial(text: str) -> bool | None:
    """Whether runs with `--splits TEXT` and different trial seeds get different splits.

    If they do not, all trials share one split, and statistics over trials hold for that split only.

    Returns: None if the scheme does not declare it, or is not registered.
    """
    name, options = parse_scheme(text)
    try:
        rule: bool | VariationRule | None = getattr(SCHEMES[name], "by_trial", None)
    except UnknownName:
        return None
    return rule(options) if callable(rule) else rule


def check_request(request: SplitRequest) -> None:
    """Check that the scheme exists, that its file exists, and that it has an unlabeled part if one is needed.

    Raises: UsageError (UnknownName for an unknown scheme).
    """
    SCHEMES[request.scheme]
    path = ":".join(request.options)
    if request.scheme == "file" and not Path(path).is_file():
        lack = f"split file {path} does not exist" if path else "--splits file needs a path: file:PATH"
        raise UsageError(lack)
    if request.uda_holdout_fraction and request.scheme not in _WITH_UNLABELED:
        raise UsageError(
            f"--uda_holdout_fraction needs --splits holdout; {request.scheme} has no unlabeled part"
        )


def make_splits(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """The parts of every environment, in the dataset's order."""
    return SCHEMES[request.scheme](dataset, request)


@SCHEMES.register("holdout")
@by_trial(True)
def holdout(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """Upstream's splits: a share of each environment is `out`, the rest `in`. Each trial has its own split.

    A target's `in` part is shuffled again, and a share of it becomes the part `uda` if the request has one.
    """
    from domainbed.datasets.splitting import split_dataset
    from domainbed.seeds import seed_hash

    _check_no_options(request)
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
@by_trial(False)
def whole(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """Each environment as a whole is `in`; each target as a whole is also `test`.

    As in the experiments on ColoredMNIST of Arjovsky et al. (2019). Without validation samples, use the
    selection method `last`.
    """
    from domainbed.datasets.splitting import SplitDataset

    _check_no_options(request)
    environments = []
    for index in range(len(dataset)):
        environment = dataset[index]
        everything = SplitDataset(environment, list(range(len(environment))))  # type: ignore[arg-type] # as above
        parts = {"in": everything}
        environments.append(parts | ({"test": everything} if index in request.test_envs else {}))
    return environments


@SCHEMES.register("list")
@by_trial(False)
def by_list(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """The parts in the column `split` of a list file; samples keep the order of the list.

    Raises: UsageError if the dataset is no list file, a sample has no part, or an environment has no
        training samples.
    """
    from domainbed.datasets.list_file import PARTS, ListFileDataset
    from domainbed.datasets.splitting import SplitDataset

    if not isinstance(dataset, ListFileDataset):
        raise UsageError("--splits list needs a dataset that is a list of files with a column split")
    _check_no_options(request)
    for row in dataset.ROWS:
        if not row.split:
            raise UsageError(f"{dataset.PATH}, line {row.line}: --splits list needs a value for split")
    environments = []
    for name, environment, parts in zip(dataset.ENVIRONMENTS, dataset.datasets, dataset.parts, strict=True):
        if "in" not in parts:
            raise UsageError(f"{dataset.PATH}: environment {name} has no samples with split in")
        keys = {part: [i for i, each in enumerate(parts) if each == part] for part in PARTS}
        environments.append({part: SplitDataset(environment, keys[part]) for part in PARTS if part in parts})
    return environments


def _check_no_options(request: SplitRequest) -> None:
    if request.options:
        raise UsageError(f"--splits {request.scheme} takes no options, not {':'.join(request.options)}")
