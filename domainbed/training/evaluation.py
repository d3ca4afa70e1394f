"""Accuracy and loss of an algorithm on parts of the environments."""

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
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from domainbed.algorithms.base import Algorithm, Minibatch
from domainbed.datasets.splitting import SplitDataset
from domainbed.errors import UsageError
from domainbed.seeds import Purpose, counter_seed, seed_all
from domainbed.training.minibatches import is_in_memory, load_minibatch
from domainbed.training.prefetcher import Prefetcher

if TYPE_CHECKING:
    from domainbed.training.splits import Parts

BATCH_SIZE = 256
"""Samples per batch. Large because no gradients are kept; fixed because ARM's logits depend on it."""

EVALUATION = "evaluation"
"""Name of the prefetcher's source that evaluations read."""


def parts_to_evaluate(
    splits: Sequence[Parts], test_envs: Sequence[int], which: str
) -> dict[str, SplitDataset]:
    """Parts to evaluate at a checkpoint, by name, such as "env0_in".

    Args:
        splits: the parts of every environment.
        test_envs: indices of the target environments.
        which: "selection" for the parts that selection methods read, which are the sources' validation parts
            and all parts of the targets; "reported" for the sources' validation parts and the part of each
            target that is reported, which is `test`, or `in` for splits without one; "all" for all parts
            (upstream).
    """
    if which == "reported":
        return _reported_parts(splits, test_envs)
    named = {}
    for kind in ("in", "out", "test"):
        for index, parts in enumerate(splits):
            if kind in parts and (which == "all" or kind == "out" or index in test_envs):
                named[f"env{index}_{kind}"] = parts[kind]
    # As in upstream, the number counts only environments with such a part. Records name them in `uda_envs`.
    uda_parts = [parts["uda"] for parts in splits if "uda" in parts]
    named |= {f"env{position}_uda": part for position, part in enumerate(uda_parts)}
    return {name: part for name, part in named.items() if len(part)}


def _reported_parts(splits: Sequence[Parts], test_envs: Sequence[int]) -> dict[str, SplitDataset]:
    kinds = ["out"] * len(splits)
    for index in test_envs:
        kinds[index] = "test" if "test" in splits[index] else "in"
    found = [(f"env{i}_{kind}", splits[i].get(kind)) for i, kind in enumerate(kinds)]
    return {name: part for name, part in found if part is not None and len(part)}


def without_augmentation(part: SplitDataset) -> SplitDataset:
    """A part with the same samples without augmentation."""
    below = part.underlying_dataset
    if isinstance(below, SplitDataset):
        return SplitDataset(without_augmentation(below), part.keys)
    return SplitDataset(below.plain(), part.keys) if hasattr(below, "plain") else part


class PartBatches:
    """Source of a prefetcher: batches of parts.

    A key is the name of a part, the position of the batch's first sample, and the counters of random numbers.
    """

    def __init__(self, parts: Mapping[str, SplitDataset]) -> None:
        self._parts = parts

    @property
    def in_memory(self) -> bool:
        """Whether all parts are in memory."""
        return all(map(is_in_memory, self._parts.values()))

    def __getitem__(self, key: tuple[str, int, tuple[int, ...]]) -> Minibatch:
        name, start, draws = key
        part = self._parts[name]
        return load_minibatch(part, np.arange(start, min(start + BATCH_SIZE, len(part))), draws)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates an algorithm on parts of the environments, in evaluation mode and without gradients.

    Results for a part do not depend on which other parts are evaluated, nor on the number of workers.

    Attributes:
        algorithm: the algorithm. Its mode is restored afterwards.
        parts: the parts to evaluate, by name.
        device: device of the algorithm.
        prefetcher: has a `PartBatches` of `parts` as its source `EVALUATION`.
        seed: seed of the run, for augmentation and for draws in `predict`.
    """

    algorithm: Algorithm
    parts: Mapping[str, SplitDataset]
    device: torch.device
    prefetcher: Prefetcher
    seed: int

    def accuracies(self, step: int, before_batch: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Share of correctly classified samples of each part, as "env0_in_acc" and so on.

        Args:
            step: step of the checkpoint, for random numbers.
            before_batch: called before each batch. An exception ends the evaluation.
        """
        means = self._means(is_correct, self.parts, step, before_batch)
        return {f"{name}_acc": mean for name, mean in means.items()}

    def mean_loss(
        self, names: Iterable[str], step: int, before_batch: Callable[[], None] = lambda: None
    ) -> float:
        """Mean of the cross-entropies of the parts called `names`. Other arguments as for `accuracies`."""
        losses = self._means(_cross_entropies, names, step, before_batch)
        return sum(losses.values()) / len(losses)

    def _means(
        self,
        measure: Callable[[Tensor, Tensor], Tensor],
        names: Iterable[str],
        step: int,
        before_batch: Callable[[], None],
    ) -> dict[str, float]:
        """Mean over each part's samples of `measure`, which maps logits (B, C) and labels (B,) to (B,)."""
        # Sums of ones are exact in float32 for up to 2^24 samples in a part.
        sums = {name: torch.zeros((), device=self.device) for name in names}
        draws = (self.seed, step)
        keys = [
            (name, start, (*draws, Purpose.EVALUATION, _part_number(name), start))
            for name in sums
            for start in range(0, len(self.parts[name]), BATCH_SIZE)
        ]
        with _evaluation_mode(self.algorithm):
            for (name, start, _), (x, y) in zip(keys, self.prefetcher.read(EVALUATION, keys), strict=True):
                before_batch()
                seed_all(counter_seed(*draws, Purpose.PREDICTION, _part_number(name), start))
                # Not around the whole loop: minibatches for training may arrive meanwhile, and tensors
                # created in inference mode cannot be used with gradients later.
                with torch.inference_mode() if self.algorithm.INFERENCE_MODE else torch.no_grad():
                    sums[name] += measure(self.algorithm.predict(x.to(self.device)), y.to(self.device)).sum()
        return {name: float(total) / len(self.parts[name]) for name, total in sums.items()}


def accuracy(
    network: Algorithm,
    loader: Iterable[tuple[Tensor, Tensor]],
    weights: Tensor | None,
    device: torch.device | str,
) -> float:
    """Weighted share of samples that the network classifies correctly, in evaluation mode (upstream's).

    Args:
        network: has `predict`. Its mode is restored afterwards.
        loader: batches (inputs, labels).
        weights: (N,) weight of each sample of the dataset, in the dataset's order; None for equal weights.
            With weights, the loader must be a `FastDataLoader` or must not shuffle.
        device: device of the network.

    Raises: UsageError if there is no sample, all weights are zero, or the loader shuffles.
    """
    if weights is not None and isinstance(loader, DataLoader) and not _is_sequential(loader):
        raise UsageError("accuracy with weights needs a loader that does not shuffle")
    hits, totals, seen = [], [], 0
    # Not inference mode: an algorithm may keep tensors of `predict` that meet gradients later.
    with _evaluation_mode(network), torch.no_grad():
        for x, y in loader:
            batch_weights = _weights_of_batch(weights, loader, seen, len(x)).to(device)
            hits.append((is_correct(network.predict(x.to(device)), y.to(device)) * batch_weights).sum())
            totals.append(batch_weights.sum())
            seen += len(x)
    # Waits for the device once, not for each batch.
    hit, total = (sum(torch.stack(sums).tolist()) if sums else 0.0 for sums in (hits, totals))
    if not total:
        raise UsageError("accuracy of no samples: the loader is empty, or all weights are zero")
    return hit / total


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) bool: whether the first maximum of each row of logits (B, C) is at its label.

    With a single column, class 1 is predicted where the logit is positive.
    """
    labels = labels.view(-1)
    if logits.size(1) == 1:
        return (logits[:, 0] > 0) == labels
    return logits.argmax(1) == labels


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels.view(-1), reduction="none")


def _part_number(name: str) -> int:
    """A counter for the random numbers of a part that does not depend on the other parts."""
    return zlib.crc32(name.encode())


@contextlib.contextmanager
def _evaluation_mode(algorithm: Algorithm) -> Iterator[None]:
    was_training = algorithm.training
    algorithm.eval()
    try:
        yield
    finally:
        algorithm.train(was_training)


def _weights_of_batch(weights: Tensor | None, loader: Iterable[object], seen: int, n: int) -> Tensor:
    """(n,) weights of a batch that follows `seen` samples."""
    if weights is None:
        return torch.ones(n)
    indices = getattr(loader, "indices", None)
    return weights[seen : seen + n] if indices is None else weights[indices]


def _is_sequential(loader: DataLoader[object]) -> bool:
    batches = loader.batch_sampler
    return isinstance(batches, BatchSampler) and isinstance(batches.sampler, SequentialSampler)
