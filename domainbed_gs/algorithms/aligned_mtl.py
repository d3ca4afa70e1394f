"""Aligned-MTL (Senushkin et al. 2023, "Independent component alignment for multi-task learning", CVPR)."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.hparams import Hparam, const
from domainbed_gs.algorithms.active_sets import has_gradient, mean_weights
from domainbed_gs.algorithms.ranks import numerical_ranks
from domainbed_gs.algorithms.surgery import GramSurgery


def aligned_mtl_weights(gram: np.ndarray, scale: str, tolerance: float) -> np.ndarray:
    """Weights (K,); see `AlignedMTL`.

    Args:
        gram: (K, K) float64.
        scale: min, median or rmse.
        tolerance: see `ranks.numerical_ranks`.
    """
    mean = mean_weights(len(gram))
    if not has_gradient(gram):
        return mean
    weights = np.zeros(len(gram))
    for share, values, axes in numerical_ranks(gram, tolerance):
        lengths = {
            "min": values[-1],
            "median": values[len(values) // 2],
            "rmse": np.sqrt(np.square(values).mean()),
        }
        weights += share * axes @ ((axes.T @ mean) * (lengths[scale] / values))
    return weights


@REGISTRY.register()
class AlignedMTL(GramSurgery):
    """Aligned-MTL (Senushkin et al. 2023, algorithm 1): the mean of gradients made orthogonal.

    All singular values of the gradients' matrix become equal; components whose singular value is 0 are left
    out (see `ranks` for those that are 0 but for rounding). With G = V L V^T the weights are
    sqrt(s) V L^(-1/2) V^T (1/K, ..., 1/K).
    `aligned_scale` chooses s, the common eigenvalue: the smallest of those kept (min), their median (the
    lower one of two), or their mean (rmse). The plain mean if all gradients are 0.
    """

    FACTS = Facts(
        year=2023,
        paper="Senushkin et al., Independent component alignment for multi-task learning, CVPR",
        idea="The mean of gradients that were made orthogonal and equally long",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Where only rounding decides the gradients' rank, a mixture of the answers (public code: one "
            "rank by a threshold)."
        ),
    )

    HPARAMS = {
        "aligned_scale": Hparam(
            "min",
            const("min"),
            "the common eigenvalue: the smallest (min), median, or mean (rmse)",
            choices=("min", "median", "rmse"),
        ),
    }

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return aligned_mtl_weights(gram, str(self.hparams["aligned_scale"]), self.tolerance)
