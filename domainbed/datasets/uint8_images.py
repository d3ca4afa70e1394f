"""Images held in memory as uint8."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class UInt8Images(Dataset[tuple[Tensor, Tensor]]):
    """A map-style dataset of ((image / 255 - mean) / std, label), with float32 inputs.

    It takes a quarter of the memory of float32 images and gives exactly the same numbers.

    Args:
        images: (N, C, H, W) uint8.
        targets: labels (N,) int64.
        mean, std: of the normalisation.
    """

    def __init__(self, images: Tensor, targets: Tensor, mean: float = 0.5, std: float = 0.25) -> None:
        self.images = images
        self.targets = targets
        self._mean = mean
        self._std = std

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self.batch(np.array([index]))
        return x[0], y[0]

    def batch(self, indices: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        """Inputs (B, C, H, W) float32 and labels (B,) int64 of the samples at `indices` (B,)."""
        keys = torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64))
        x = self.images[keys].to(torch.float32)
        return x.div_(255).sub_(self._mean).div_(self._std), self.targets[keys]
