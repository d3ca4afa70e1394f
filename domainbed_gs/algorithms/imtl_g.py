"""IMTL-G (Liu et al. 2021, "Towards impartial multi-task learning", ICLR)."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.gradients.gram import NoDirection
from domainbed_gs.algorithms.active_sets import has_gradient, mean_weights
from domainbed_gs.algorithms.ranks import numerical_ranks, trust
from domainbed_gs.algorithms.surgery import GramSurgery

_LARGEST = 100.0  # sum of the weights' absolute values, where 1 is that of a mean


def imtl_g_weights(gram: np.ndarray, tolerance: float) -> np.ndarray:
    """Weights (K,); see `IMTLG`.

    Args:
        gram: (K, K) float64.
        tolerance: see `ranks.numerical_ranks`.

    Raises: NoDirection if all gradients are 0, or the weights cannot be normalised.
    """
    weights, defined = np.zeros(len(gram)), 0.0
    norms = np.sqrt(np.diag(gram).clip(min=0.0))
    for share, values, axes in numerical_ranks(gram, tolerance) if has_gradient(gram) else ():
        projected = axes.T @ norms
        raw = axes @ (projected / values**2)
        share *= _definite(raw) * trust(float(np.linalg.norm(projected) / np.linalg.norm(norms)), tolerance)
        if share > 0:
            weights += share * raw / raw.sum()
            defined += share
    if defined == 0:
        raise NoDirection("IMTL-G's weights cannot be normalised to sum 1")
    return weights + (1 - defined) * mean_weights(len(gram))


def _definite(raw: np.ndarray) -> float:
    """1 if weights of sum 1 have absolute values of sum `_LARGEST` or less, 0 from twice that on."""
    return float(np.clip(2 * _LARGEST * abs(raw.sum()) / np.abs(raw).sum() - 1, 0.0, 1.0))


@REGISTRY.register()
class IMTLG(GramSurgery):
    """IMTL-G (Liu et al. 2021, section 3.2): the direction with equal projections on all gradients.

    Projections are on their unit vectors: w is proportional to G^-1 (|g_1|, ..., |g_K|) and sums to
    1; weights may be negative, and so may the common projection be. Where G is singular its pseudo-
    inverse stands for the inverse, as in Quinton and Rey 2024 (arXiv 2406.16232); see `ranks` for a G that
    is singular but for rounding. The mean stands in (`fallback`) if all gradients are 0, or if the weights
    before normalisation nearly cancel, so that the normalised ones would be large; it does so by degrees
    where the sum of their absolute values is 100 to 200.
    """

    FACTS = Facts(
        year=2021,
        paper="Liu et al., Towards impartial multi-task learning, ICLR",
        idea="The direction with equal projections on all gradients",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Without the paper's balancing of losses (IMTL-L). With a tiny normaliser it is the mean "
            "gradient (public code: 0)."
        ),
    )

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return imtl_g_weights(gram, self.tolerance)
