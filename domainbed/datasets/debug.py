"""Debug28 and Debug224: random inputs and labels, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainbed.datasets import REGISTRY
from domainbed.datasets.base import MultipleDomainDataset


class Debug(MultipleDomainDataset):
    """Three environments of 16 samples: standard normal inputs and random binary labels.

    Both are drawn from torch's global generator, as in upstream.
    """

    READS = ()
    ENVIRONMENTS = ("0", "1", "2")
    NEEDS_DATA = False
    SAME_CLASSES = False  # labels are random

    def __init__(self, root: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        import torch
        from torch.utils.data import TensorDataset

        assert self.INPUT_SHAPE is not None
        self.input_shape = self.INPUT_SHAPE
        self.num_classes = 2
        environments: list[Any] = []  # mypy: a TensorDataset is a Dataset of tuples of any length
        for _ in self.ENVIRONMENTS:
            x = torch.randn(16, *self.input_shape)
            environments.append(TensorDataset(x, torch.randint(0, self.num_classes, (16,))))
        self.datasets = environments


@REGISTRY.register()
class Debug28(Debug):
    """Inputs (3, 28, 28)."""

    INPUT_SHAPE = (3, 28, 28)
    SMALL_IMAGES = True


@REGISTRY.register()
class Debug224(Debug):
    """Inputs (3, 224, 224)."""

    INPUT_SHAPE = (3, 224, 224)
