"""GradDrop (Chen et al. 2020, arXiv 2010.06808) on the gradients of the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


class SignSums:
    """Sums of K gradients' positive and of their negative components, gradient by gradient.

    Attributes:
        positive: sum_k max(g_k, 0) (P,).
        negative: sum_k min(g_k, 0) (P,).
    """

    def __init__(self) -> None:
        self.positive: Tensor = torch.zeros(())
        self.negative: Tensor = torch.zeros(())

    def passing(self, gradients: Iterable[Tensor]) -> Iterator[Tensor]:
        """The `gradients` (P,) unchanged; each is added when it passes, and none is kept."""
        for gradient in gradients:
            self.positive = self.positive + gradient.clamp_min(0)
            self.negative = self.negative + gradient.clamp_max(0)
            yield gradient


def graddrop(positive: Tensor, negative: Tensor, uniform: Tensor, leak: float = 0.0) -> Tensor:
    """GradDrop (Chen et al. 2020, arXiv 2010.06808, algorithm 1): each component keeps one sign.

    It keeps the positive one with the probability that is called purity, positive / (positive - negative),
    so that without `leak` the expectation is the sum of the gradients. Where all signs agree the result is
    the sum itself, where all are 0 it is 0.

    Args:
        positive: sum_k max(g_k, 0) (P,).
        negative: sum_k min(g_k, 0) (P,).
        uniform: draws from [0, 1) (P,).
        leak: share of the plain sum that passes, 0 to 1, the same for every environment.

    Returns: (P,).
    """
    picked = torch.where(positive > uniform * (positive - negative), positive, negative)
    return picked if leak == 0 else torch.lerp(picked, positive + negative, leak)
