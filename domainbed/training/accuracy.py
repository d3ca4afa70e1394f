"""Accuracy of a network over a loader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from domainbed.errors import UsageError

if TYPE_CHECKING:
    from domainbed.algorithms.base import Algorithm


def accuracy(
    network: Algorithm,
    loader: Iterable[tuple[Tensor, Tensor]],
    weights: Tensor | None,
    device: torch.device | str,
) -> float:
    """Weighted share of samples that the network classifies correctly, in evaluation mode.

    Args:
        network: has `predict`; its training mode is as before afterwards.
        loader: gives batches (inputs, labels).
        weights: one weight for each sample of the dataset, in the dataset's order; None for equal ones.
            The loader must then be a `FastDataLoader`, which knows its order, or sequential.
        device: where the network is.

    Raises: UsageError if there is nothing to classify, or if weights can't follow their samples.
    """
    if weights is not None and isinstance(loader, DataLoader) and not _is_sequential(loader):
        raise UsageError("accuracy with weights needs a loader that does not shuffle")
    was_training = network.training
    network.eval()
    hits, totals, seen = [], [], 0
    try:
        # Not inference mode: what an algorithm keeps from `predict` may meet a gradient later.
        with torch.no_grad():
            for x, y in loader:
                batch_weights = _of_batch(weights, loader, seen, len(x)).to(device)
                hits.append((correct(network.predict(x.to(device)), y.to(device)) * batch_weights).sum())
                totals.append(batch_weights.sum())
                seen += len(x)
    finally:
        network.train(was_training)
    # One synchronisation with the device for all batches.
    hit, total = (sum(torch.stack(sums).tolist()) if sums else 0.0 for sums in (hits, totals))
    if not total:
        raise UsageError("accuracy of no samples: the loader is empty, or all weights are zero")
    return hit / total


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each sample (B,) is classified correctly: the first maximum of (B, C) logits is its label.

    With a single column, class 1 is predicted where it is positive.
    """
    labels = labels.view(-1)
    if logits.size(1) == 1:
        return (logits[:, 0] > 0) == labels
    return logits.argmax(1) == labels


def _of_batch(weights: Tensor | None, loader: Iterable[object], seen: int, n: int) -> Tensor:
    if weights is None:
        return torch.ones(n)
    indices = getattr(loader, "indices", None)
    return weights[seen : seen + n] if indices is None else weights[indices]


def _is_sequential(loader: DataLoader[object]) -> bool:
    batches = loader.batch_sampler
    return isinstance(batches, BatchSampler) and isinstance(batches.sampler, SequentialSampler)
