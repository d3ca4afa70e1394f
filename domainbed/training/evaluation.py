"""Accuracies of a model on the parts of the environments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms.base import Algorithm, Minibatch
from domainbed.lib.accuracy import correct
from domainbed.lib.seeds import counter_seed, seed_all
from domainbed.lib.splitting import _SplitDataset
from domainbed.training.data import fetch, in_memory
from domainbed.training.reader import Reader

if TYPE_CHECKING:
    from domainbed.training.splits import Parts

BATCH_SIZE = 256
"""Samples at a time; large, since no gradient is kept."""

EVALUATION = "evaluation"
"""Name of the reader's source."""

_EVALUATION = 2  # purpose of the draws of augmented evaluation (upstream augments validation parts)
_PREDICTION = 3  # purpose of the draws that an algorithm makes in `predict`


def parts_to_evaluate(
    splits: Sequence[Parts], test_envs: Sequence[int], which: str
) -> dict[str, _SplitDataset]:
    """Name ("env0_in") -> part, for the accuracies of a checkpoint.

    Args:
        splits: the parts of every environment.
        test_envs: the targets.
        which: "all" (upstream), or "selection": what selection methods read, i.e. the sources' validation
            parts and all of the targets.
    """
    named = {}
    for kind in ("in", "out", "test"):
        for index, parts in enumerate(splits):
            if kind in parts and (which == "all" or kind == "out" or index in test_envs):
                named[f"env{index}_{kind}"] = parts[kind]
    # Numbered over those that there are, as in upstream; the record says which environments they are.
    udas = [parts["uda"] for parts in splits if "uda" in parts]
    named |= {f"env{position}_uda": part for position, part in enumerate(udas)}
    return {name: part for name, part in named.items() if len(part)}


def plain(part: _SplitDataset) -> _SplitDataset:
    """The same samples without augmentation, where the environment has any."""
    below = part.underlying_dataset
    if isinstance(below, _SplitDataset):
        return _SplitDataset(plain(below), part.keys)
    return _SplitDataset(below.plain(), part.keys) if hasattr(below, "plain") else part


class PartBatches:
    """Source of a reader: batches of parts. A key is a part's name, a first position, counters of draws."""

    def __init__(self, parts: Mapping[str, _SplitDataset]) -> None:
        self._parts = parts

    @property
    def in_memory(self) -> bool:
        return all(map(in_memory, self._parts.values()))

    def __getitem__(self, key: tuple[str, int, tuple[int, ...]]) -> Minibatch:
        name, start, draws = key
        part = self._parts[name]
        return fetch(part, np.arange(start, min(start + BATCH_SIZE, len(part))), draws)


def accuracies(
    algorithm: Algorithm,
    parts: Mapping[str, _SplitDataset],
    device: torch.device,
    reader: Reader,
    draws: tuple[int, int],
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Name -> share of the part's samples whose largest logit is at the label.

    For the arguments see `means`.
    """
    shares = means(correct, algorithm, parts, device, reader, draws, before_batch)
    return {f"{name}_acc": share for name, share in shares.items()}


def mean_loss(
    algorithm: Algorithm,
    parts: Mapping[str, _SplitDataset],
    device: torch.device,
    reader: Reader,
    draws: tuple[int, int],
    before_batch: Callable[[], None] = lambda: None,
) -> float:
    """Mean over the parts of their mean cross-entropies; for the arguments see `means`."""
    losses = means(_cross_entropies, algorithm, parts, device, reader, draws, before_batch)
    return sum(losses.values()) / len(losses)


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels.view(-1), reduction="none")


def means(
    measure: Callable[[Tensor, Tensor], Tensor],
    algorithm: Algorithm,
    parts: Mapping[str, _SplitDataset],
    device: torch.device,
    reader: Reader,
    draws: tuple[int, int],
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Name -> mean of a measure over the part's samples.

    Args:
        measure: values (B,) of logits (B, C) and labels (B,): whether they are right, or losses.
        algorithm: its `predict` is called in evaluation mode, without gradients; it is left in the
            mode that it was in.
        parts: what to evaluate.
        device: where the algorithm is.
        reader: its source `EVALUATION` is a `PartBatches` that has the parts.
        draws: (seed, step) that random numbers of augmented evaluation belong to.
        before_batch: called before each batch; what it raises ends the evaluation.
    """
    keys = [
        (name, start, (*draws, _EVALUATION, number, start))
        for number, (name, part) in enumerate(parts.items())
        for start in range(0, len(part), BATCH_SIZE)
    ]
    # Counts are exact in float32 up to 2^24 samples a part.
    sums = {name: torch.zeros((), device=device) for name in parts}
    seed_all(counter_seed(*draws, _PREDICTION))
    # Not inference mode: what an algorithm keeps from `predict` may meet gradients later.
    with torch.no_grad(), _in_evaluation_mode(algorithm):
        for (name, *_), (x, y) in zip(keys, reader.read(EVALUATION, keys), strict=True):
            before_batch()
            sums[name] += measure(algorithm.predict(x.to(device)), y.to(device)).sum()
    return {name: float(total) / len(parts[name]) for name, total in sums.items()}


@contextlib.contextmanager
def _in_evaluation_mode(algorithm: Algorithm) -> Iterator[None]:
    was_training = algorithm.training
    algorithm.eval()
    try:
        yield
    finally:
        algorithm.train(was_training)
