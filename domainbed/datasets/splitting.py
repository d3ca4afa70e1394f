"""Splits of a dataset, and weights of its samples for balanced sampling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from domainbed.datasets.base import labels_of


class SplitDataset(Dataset[Any]):
    """The samples of `underlying_dataset` at the positions `keys`, in that order."""

    def __init__(self, underlying_dataset: Any, keys: Sequence[int]) -> None:  # noqa: ANN401 - any map-style dataset
        self.underlying_dataset = underlying_dataset
        self.keys = keys

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - any type of sample
        return self.underlying_dataset[self.keys[index]]

    def __len__(self) -> int:
        return len(self.keys)


def split_dataset(dataset: Any, n: int, seed: int = 0) -> tuple[SplitDataset, SplitDataset]:  # noqa: ANN401
    """Shuffle a map-style dataset and split it into its first `n` samples and the rest.

    Keys are upstream's for each seed. The global generators are not used.
    """
    assert 0 <= n <= len(dataset), f"cannot take {n} samples from a dataset of {len(dataset)}"
    keys = list(range(len(dataset)))
    np.random.RandomState(seed).shuffle(keys)
    return SplitDataset(dataset, keys[:n]), SplitDataset(dataset, keys[n:])


def make_weights_for_balanced_classes(dataset: Any) -> Tensor:  # noqa: ANN401 - see below
    """Weights (N,) float32 with which sampling draws each class equally often; they sum to 1.

    Args:
        dataset: a map-style dataset (see `labels_of`), or an iterable of (input, label).
    """
    if hasattr(dataset, "__getitem__"):
        labels = labels_of(dataset)
    else:
        pairs: Iterable[tuple[object, Any]] = dataset
        labels = np.array([int(y) for _, y in pairs], dtype=np.int64)
    return torch.from_numpy(balanced_class_weights(labels)).to(torch.float32)


def balanced_class_weights(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Weights (N,) float64 of samples with `labels` (N,): 1 / (samples of the class x classes present)."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights: np.ndarray[Any, Any] = (1 / (counts * len(counts)))[inverse]
    return weights
