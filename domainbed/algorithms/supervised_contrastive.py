"""Similarities of all pairs of samples in a minibatch, and the supervised contrastive loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.algorithms.precision import at_least_float32, full_precision
from domainbed.errors import UsageError

EPS = 1e-5


def similarities(features: Tensor, temperature: float, normalized: bool) -> Tensor:
    """Inner products (B, B) of all pairs of features (B, d), divided by the temperature.

    Args:
        features: (B, d).
        temperature: positive divisor.
        normalized: whether to scale each row to norm 1 first, for cosine similarities.

    Returns: float32 or better, also under autocast.
    """
    rows = at_least_float32(features)
    rows = F.normalize(rows, dim=1) if normalized else rows
    with full_precision(rows):
        return rows @ rows.T / temperature


def same(labels: Tensor) -> Tensor:
    """Mask (B, B) of the pairs of samples with equal `labels` (B,). The diagonal is True."""
    return labels[:, None] == labels


def different_samples(labels: Tensor) -> Tensor:
    """Mask (B, B) of the pairs of different samples: False on the diagonal, else True."""
    return ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)


class SupConLossLambda(nn.Module):
    """Supervised contrastive loss with separate weights for pairs within and across environments.

    The loss of ADRMX (Demirel et al. 2023, arXiv 2308.06624), after Khosla et al. (2020, arXiv 2004.11362).
    The positives of a sample are the other samples with its label. Time and memory: O(B^2).

    Args:
        lamda: weight of pairs within an environment; pairs across environments have the weight 1 - lamda.
        temperature: divisor of the cosine similarities. In float32 it must exceed 0.012 to avoid overflow.

    Raises: UsageError if `lamda` is not between 0 and 1, or `temperature` is not positive.
    """

    def __init__(self, lamda: float = 0.5, temperature: float = 0.07) -> None:
        super().__init__()
        if not 0 <= lamda <= 1:
            raise UsageError(f"SupConLossLambda takes a lamda between 0 and 1, not {lamda}")
        if not temperature > 0:
            raise UsageError(f"SupConLossLambda takes a temperature above 0, not {temperature}")
        self.lamda = lamda
        self.temperature = temperature

    def forward(self, features: Tensor, labels: Tensor, domain_labels: Tensor) -> Tensor:
        """Loss (0-d) of features (B, d) with labels and environments (B,), int64.

        Samples without positives have no term. The sum is divided by the number of terms plus 1, so the loss
        is 0 if no sample has positives.
        """
        different = different_samples(labels)
        positive = same(labels) & different
        scores = similarities(features, self.temperature, normalized=True).exp()
        weighted = (
            torch.where(same(domain_labels), self.lamda * scores, (1 - self.lamda) * scores) * different
        )
        shares = weighted / (weighted.sum(dim=1, keepdim=True) + EPS)
        positives = positive.sum(dim=1)
        terms = ((shares + EPS).log() * positive).sum(dim=1) / positives.clamp_min(1)
        return -terms.sum() / ((positives > 0).sum() + 1)
