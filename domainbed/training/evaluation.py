"""Accuracies of a model on the parts of the environments."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms.base import Algorithm, Minibatch
from domainbed.datasets.splitting import SplitDataset
from domainbed.seeds import Purpose, counter_seed, seed_all
from domainbed.training.accuracy import correct
from domainbed.training.minibatches import in_memory, load_minibatch
from domainbed.training.prefetcher import Prefetcher

if TYPE_CHECKING:
    from domainbed.training.splits import Parts

BATCH_SIZE = 256
"""Samples at a time; large, since no gradient is kept, and fixed, since ARM's logits depend on it."""

EVALUATION = "evaluation"
"""Name of the reader's source."""


def parts_to_evaluate(
    splits: Sequence[Parts], test_envs: Sequence[int], which: str
) -> dict[str, SplitDataset]:
    """Name ("env0_in") -> part, for the accuracies of a checkpoint.

    Args:
        splits: the parts of every environment.
        test_envs: the targets.
        which: "selection": what selection methods read, i.e. the sources' validation parts and all of the
            targets; "all" (upstream): the sources' other parts too.
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


def without_augmentation(part: SplitDataset) -> SplitDataset:
    """The same samples without augmentation, where the environment has any."""
    below = part.underlying_dataset
    if isinstance(below, SplitDataset):
        return SplitDataset(without_augmentation(below), part.keys)
    return SplitDataset(below.plain(), part.keys) if hasattr(below, "plain") else part


class PartBatches:
    """Source of a reader: batches of parts. A key is a part's name, a first position, counters of draws."""

    def __init__(self, parts: Mapping[str, SplitDataset]) -> None:
        self._parts = parts

    @property
    def in_memory(self) -> bool:
        return all(map(in_memory, self._parts.values()))

    def __getitem__(self, key: tuple[str, int, tuple[int, ...]]) -> Minibatch:
        name, start, draws = key
        part = self._parts[name]
        return load_minibatch(part, np.arange(start, min(start + BATCH_SIZE, len(part))), draws)


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of parts of the environments, in evaluation mode, without gradients.

    The numbers of a part are the same whichever other parts are evaluated, and whoever reads them.

    Args:
        algorithm: is left in the mode that it was in.
        parts: what to evaluate, by name.
        device: where the algorithm is.
        reader: its source `EVALUATION` is a `PartBatches` that has the parts.
        seed: of the run; random numbers of augmented images, and in `predict`, belong to it and to the step.
    """

    algorithm: Algorithm
    parts: Mapping[str, SplitDataset]
    device: torch.device
    reader: Prefetcher
    seed: int

    def accuracies(self, step: int, before_batch: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Share of each part's samples whose largest logit is at the label, as "env0_in_acc" and so on.

        `before_batch` is called before each batch; what it raises ends the evaluation.
        """
        shares = self._means(correct, self.parts, step, before_batch)
        return {f"{name}_acc": share for name, share in shares.items()}

    def mean_loss(
        self, names: Iterable[str], step: int, before_batch: Callable[[], None] = lambda: None
    ) -> float:
        """Mean over some of the parts of their mean cross-entropies; `before_batch` as in `accuracies`."""
        losses = self._means(_cross_entropies, names, step, before_batch)
        return sum(losses.values()) / len(losses)

    def _means(
        self,
        measure: Callable[[Tensor, Tensor], Tensor],
        names: Iterable[str],
        step: int,
        before_batch: Callable[[], None],
    ) -> dict[str, float]:
        """Name -> mean over the part's samples of a measure: values (B,) of logits (B, C) and labels (B,)."""
        # Counts are exact in float32 up to 2^24 samples a part.
        sums = {name: torch.zeros((), device=self.device) for name in names}
        draws = (self.seed, step)
        keys = [
            (name, start, (*draws, Purpose.EVALUATION, number_of(name), start))
            for name in sums
            for start in range(0, len(self.parts[name]), BATCH_SIZE)
        ]
        with _in_evaluation_mode(self.algorithm):
            for (name, start, _), (x, y) in zip(keys, self.reader.read(EVALUATION, keys), strict=True):
                before_batch()
                seed_all(counter_seed(*draws, Purpose.PREDICTION, number_of(name), start))
                # Minibatches that arrive while a batch is awaited meet gradients: only this is inference.
                with torch.inference_mode() if self.algorithm.INFERENCE_MODE else torch.no_grad():
                    sums[name] += measure(self.algorithm.predict(x.to(self.device)), y.to(self.device)).sum()
        return {name: float(total) / len(self.parts[name]) for name, total in sums.items()}


def number_of(name: str) -> int:
    """A number for the counters of a part's draws, which must not depend on what else is evaluated."""
    return zlib.crc32(name.encode())


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels.view(-1), reduction="none")


@contextlib.contextmanager
def _in_evaluation_mode(algorithm: Algorithm) -> Iterator[None]:
    was_training = algorithm.training
    algorithm.eval()
    try:
        yield
    finally:
        algorithm.train(was_training)
