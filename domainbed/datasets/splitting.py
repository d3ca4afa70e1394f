"""Parts of a dataset, and weights of its samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from domainbed.datasets.base import labels_of


class SplitDataset(Dataset[Any]):
    """The samples of `underlying_dataset` at positions `keys`, in their order."""

    def __init__(self, underlying_dataset: Any, keys: Sequence[int]) -> None:  # noqa: ANN401 - any map-style dataset
        self.underlying_dataset = underlying_dataset
        self.keys = keys

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - whatever the dataset's samples are
        return self.underlying_dataset[self.keys[index]]

    def __len__(self) -> int:
        return len(self.keys)


def split_dataset(dataset: Any, n: int, seed: int = 0) -> tuple[SplitDataset, SplitDataset]:  # noqa: ANN401
    """Two parts of a shuffled map-style dataset: `n` samples, and the rest (upstream's order of keys).

    Leaves the global generators alone.
    """
    assert 0 <= n <= len(dataset), f"can't take {n} samples out of {len(dataset)}"
    keys = list(range(len(dataset)))
    np.random.RandomState(seed).shuffle(keys)
    return SplitDataset(dataset, keys[:n]), SplitDataset(dataset, keys[n:])


def make_weights_for_balanced_classes(dataset: Any) -> Tensor:  # noqa: ANN401 - see `_labels`
    """Weights (N,) float32 that sum to 1 and draw every class that is present equally often.

    Args:
        dataset: a dataset that knows its labels (no input is read then), or any iterable of (input, label).
    """
    return torch.from_numpy(balanced_class_weights(_labels(dataset))).to(torch.float32)


def balanced_class_weights(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Weights (N,) float64 of samples with these labels: 1 / (samples of the class * classes present)."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights: np.ndarray[Any, Any] = (1 / (counts * len(counts)))[inverse]
    return weights


def _labels(dataset: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401
    if hasattr(dataset, "__getitem__"):
        return labels_of(dataset)
    pairs: Iterable[tuple[object, Any]] = dataset
    return np.array([int(y) for _, y in pairs], dtype=np.int64)
