"""Predictions of an algorithm for parts of the environments.

One pass over a part hands the logits and labels of the whole part to consumers: to `Scores`, for accuracy and
metrics, and to whatever else needs them.
"""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from domainbed.algorithms.base import Algorithm, Minibatch
from domainbed.datasets.splitting import SplitDataset
from domainbed.errors import UsageError
from domainbed.metrics import nll, predicted_classes
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
class PartOutputs:
    """What the algorithm predicts for a whole part, in the order of the part's samples.

    Attributes:
        name: name of the part, such as "env0_in". `Evaluator.parts` has its samples.
        logits: (N, C) on the algorithm's device, as `predict` returned them: its dtype, and a single column
            for some algorithms with two classes.
        labels: (N,), int64, on the same device.
    """

    name: str
    logits: Tensor
    labels: Tensor


Consumer = Callable[[PartOutputs], None]
"""Receives the outputs of each part in an evaluation, once, after the part's last batch.

It is called without gradients, mostly under `torch.inference_mode`, and should neither change the tensors nor
read them on the host, which would wait for the device: compute there, and read results after the evaluation.
Logits that no consumer keeps are freed before the next part. An evaluation that is stopped and repeated after
a resume starts with the first part again: make new consumers for every evaluation.
"""


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

    def evaluate(
        self,
        consumers: Sequence[Consumer],
        step: int,
        before_batch: Callable[[], None] = lambda: None,
        names: Iterable[str] | None = None,
    ) -> None:
        """Predict each part once, and hand its outputs to all consumers.

        Args:
            consumers: receive the outputs of each part.
            step: step of the checkpoint, for random numbers.
            before_batch: called before each batch. An exception ends the evaluation.
            names: names of the parts; by default all.
        """
        draws = (self.seed, step)
        keys = [
            (name, start, (*draws, Purpose.EVALUATION, _part_number(name), start))
            for name in (self.parts if names is None else names)
            for start in range(0, len(self.parts[name]), BATCH_SIZE)
        ]
        batches = zip(keys, self.prefetcher.read(EVALUATION, keys), strict=True)
        with _evaluation_mode(self.algorithm):
            for name, batches_of_part in itertools.groupby(batches, key=lambda batch: batch[0][0]):
                logits, labels = [], []
                for (_, start, _), (x, y) in batches_of_part:
                    before_batch()
                    seed_all(counter_seed(*draws, Purpose.PREDICTION, _part_number(name), start))
                    with self._without_gradients():
                        logits.append(self.algorithm.predict(x.to(self.device)))
                        labels.append(y.to(self.device).view(-1).long())
                with self._without_gradients():
                    outputs = PartOutputs(name, torch.cat(logits), torch.cat(labels))
                    del logits, labels
                    for consumer in consumers:
                        consumer(outputs)

    def mean_loss(
        self, names: Iterable[str], step: int, before_batch: Callable[[], None] = lambda: None
    ) -> float:
        """Mean over the parts called `names` of their mean cross-entropy. Arguments as for `evaluate`."""
        losses: list[Tensor] = []
        self.evaluate(
            [lambda outputs: losses.append(nll(outputs.logits, outputs.labels))], step, before_batch, names
        )
        return float(torch.stack(losses).mean())

    def _without_gradients(self) -> contextlib.AbstractContextManager[None]:
        """A context in which no gradients are recorded.

        Not for a whole evaluation: minibatches for training may arrive meanwhile, and tensors created in
        inference mode cannot be used with gradients later.
        """
        return torch.inference_mode() if self.algorithm.INFERENCE_MODE else torch.no_grad()


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
            correct = predicted_classes(network.predict(x.to(device))) == y.to(device).view(-1)
            hits.append((correct * batch_weights).sum())
            totals.append(batch_weights.sum())
            seen += len(x)
    # Waits for the device once, not for each batch.
    hit, total = (sum(torch.stack(sums).tolist()) if sums else 0.0 for sums in (hits, totals))
    if not total:
        raise UsageError("accuracy of no samples: the loader is empty, or all weights are zero")
    return hit / total


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
