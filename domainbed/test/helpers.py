"""Small datasets and minibatches for tests of algorithms."""

from __future__ import annotations

import torch
from torch import Tensor

from domainbed.datasets.base import MultipleDomainDataset

DEBUG_DATASETS = ["Debug28", "Debug224"]


def make_minibatches(dataset: MultipleDomainDataset, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    """The first `batch_size` samples of each environment, on the GPU if one is available.

    Returns: (x, y) of each environment; x has shape (batch_size, ...) and y (batch_size,), int64.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    minibatches = []
    for environment in dataset.datasets:
        samples = [environment[i] for i in range(batch_size)]
        x = torch.stack([x for x, _ in samples])
        y = torch.as_tensor([int(y) for _, y in samples])
        minibatches.append((x.to(device), y.to(device)))
    return minibatches
