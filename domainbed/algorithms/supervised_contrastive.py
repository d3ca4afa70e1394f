"""Losses over all pairs of samples of a minibatch, by whether labels and environments are the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbed.algorithms.precision import at_least_float32, full_precision
from domainbed.errors import UsageError

EPS = 1e-5


def similarities(features: Tensor, temperature: float, normalized: bool) -> Tensor:
    """Inner products (B, B) of all pairs of rows, over the temperature.

    Args:
        features: (B, d).
        temperature: what to divide by.
        normalized: give the rows the norm 1 before.

    Returns: float32 or, for features in float64, float64; under autocast too.
    """
    rows = at_least_float32(features)
    rows = F.normalize(rows, dim=1) if normalized else rows
    with full_precision(rows):
        return rows @ rows.T / temperature


def same(labels: Tensor) -> Tensor:
    """Which pairs of samples have equal `labels` (B,): (B, B) bool, a sample and itself included."""
    return labels[:, None] == labels


def others(labels: Tensor) -> Tensor:
    """Pairs (B, B) bool of different samples."""
    return ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)


class SupConLossLambda(nn.Module):
    """Supervised contrastive loss with weights for pairs within and across environments.

    The loss of ADRMX (Demirel et al. 2023, arXiv 2308.06624), after Khosla et al. (2020, arXiv 2004.11362):
    a sample's positives are the others of its label. Time and memory grow with B^2.

    Args:
        lamda: weight of pairs within an environment; that of pairs across is 1 - lamda.
        temperature: of the cosine similarities; in float32 above 0.012.

    Raises: UsageError if `lamda` is not between 0 and 1, or `temperature` not above 0.
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
        """Loss (0-d) of features (B, d) with labels and environments (B,) int64.

        A sample without positives has no term; the divisor is the number of terms, plus 1. With no
        positives at all the loss is 0.
        """
        different = others(labels)
        positive = same(labels) & different
        scores = similarities(features, self.temperature, normalized=True).exp()
        weighted = (
            torch.where(same(domain_labels), self.lamda * scores, (1 - self.lamda) * scores) * different
        )
        shares = weighted / (weighted.sum(dim=1, keepdim=True) + EPS)
        positives = positive.sum(dim=1)
        terms = ((shares + EPS).log() * positive).sum(dim=1) / positives.clamp_min(1)
        return -terms.sum() / ((positives > 0).sum() + 1)
