"""Split scheme of the ICCV 2021 paper: each environment is divided into train, validation and test parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from domainbed.errors import UsageError, misspelt
from domainbed.training.splits import by_trial

if TYPE_CHECKING:
    from domainbed.datasets.base import MultipleDomainDataset
    from domainbed.training.splits import Parts, SplitRequest

OPTIONS = ("per_trial", "unstratified", "one_stream")


@by_trial(lambda options: "per_trial" in options)
def stratified(dataset: MultipleDomainDataset, request: SplitRequest) -> list[Parts]:
    """Parts `in`, `out` and `test` of each environment, stratified by class (ICCV 2021 paper, section 4.1).

    `--splits 70/10/20[:option...]`. By default all trials share one split, and the split of an environment
    does not depend on the other environments. The options (see docs/protocol.md) are:
        per_trial: a different split for each trial seed.
        unstratified: ignore classes.
        one_stream: divide all environments in order with one generator seeded with 0, as the authors' code
            does. The indices are not the authors'.

    Args:
        dataset: dataset to split.
        request: trial seed, and the options above after the percentages.

    Returns: for each environment, the parts by name.

    Raises: UsageError for percentages that do not sum to 100, or an unknown option.
    """
    from domainbed.datasets.base import labels_of
    from domainbed.datasets.splitting import SplitDataset
    from domainbed.seeds import seed_hash

    fractions, options = _parse(request.options)
    trial = request.trial_seed if "per_trial" in options else 0
    stream = np.random.RandomState(trial)
    environments = []
    for name, environment in zip(dataset.ENVIRONMENTS, dataset.datasets, strict=True):
        labels = labels_of(environment)
        if "unstratified" in options:
            labels = np.zeros_like(labels)
        one_stream = "one_stream" in options
        random_state = stream if one_stream else np.random.RandomState(seed_hash("splits", name, trial))
        keys = split_indices(labels, fractions, random_state)
        environments.append({kind: SplitDataset(environment, part.tolist()) for kind, part in keys.items()})
    return environments


def split_indices(
    labels: np.ndarray, fractions: tuple[float, float, float], random_state: np.random.RandomState
) -> dict[str, np.ndarray]:
    """Divide samples into parts, with the same shares of each class in every part.

    In each class, the test part is taken first and the validation part from the rest, as in the authors'
    code. Sizes are rounded to the nearest integer, but every part has at least one sample of a class with
    three or more.

    Args:
        labels: classes (N,).
        fractions: shares of train, validation and test, which sum to 1.
        random_state: generator of the order.

    Returns: indices of the parts `in`, `out` and `test`, each in random order.
    """
    parts: dict[str, list[np.ndarray]] = {"in": [], "out": [], "test": []}
    for label in np.unique(labels):
        order = random_state.permutation(np.flatnonzero(labels == label))
        least = 1 if len(order) >= 3 else 0
        test = max(least, round(len(order) * fractions[2]))
        out = max(least, round((len(order) - test) * fractions[1] / (fractions[0] + fractions[1])))
        for kind, keys in zip(("test", "out", "in"), np.split(order, [test, test + out]), strict=True):
            parts[kind].append(keys)
    return {kind: random_state.permutation(np.concatenate(keys)) for kind, keys in parts.items()}


def _parse(options: tuple[str, ...]) -> tuple[tuple[float, float, float], tuple[str, ...]]:
    shares, *rest = options or ("70/10/20",)
    for option in rest:
        if option not in OPTIONS:
            raise misspelt(f"--splits has no option {option!r}", option, OPTIONS)
    try:
        train, validation, test = (float(share) / 100 for share in shares.split("/"))
    except ValueError:
        raise UsageError(f"--splits takes three percentages such as 70/10/20, not {shares!r}") from None
    if abs(train + validation + test - 1) > 1e-9 or min(train, validation, test) <= 0:
        raise UsageError(f"--splits takes positive percentages that sum to 100, not {shares!r}")
    return (train, validation, test), tuple(rest)
