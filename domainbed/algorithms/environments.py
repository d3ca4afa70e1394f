"""Losses and labels of the environments in one update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed.algorithms.base import Minibatch


def environment_losses(logits: Iterable[Tensor], minibatches: Iterable[Minibatch]) -> Tensor:
    """Cross-entropy of each environment, (K,), from its logits (B, num_classes) and its minibatch."""
    return torch.stack([F.cross_entropy(z, y) for z, (_, y) in zip(logits, minibatches, strict=True)])


def environment_labels(minibatches: Sequence[Minibatch]) -> Tensor:
    """Index of the environment of each sample in the concatenated minibatches, int64 of the total size."""
    sizes = torch.tensor([len(y) for _, y in minibatches])
    labels = torch.arange(len(sizes)).repeat_interleave(sizes)
    return labels.to(minibatches[0][1].device, non_blocking=True)
