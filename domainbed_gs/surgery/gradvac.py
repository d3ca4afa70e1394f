"""GradVac (Wang et al. 2020, arXiv 2010.05874)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MARGIN = 1e-6  # cosines are kept this far from -1 and 1, where the correction grows without bound
_NOTHING = 1e-7  # what is left of a gradient by rounding alone, relative to what it was made of


def gradvac_weights(
    gram: np.ndarray, orders: Sequence[Sequence[int]], targets: np.ndarray, beta: float
) -> tuple[np.ndarray, np.ndarray]:
    """GradVac (Wang et al. 2020, arXiv 2010.05874, algorithm 1) on inner products alone.

    As PCGrad, but towards a target cosine: environment i starts from v = g_i and, for each j in
    `orders[i]` with cos(v, g_j) below `targets[i, j]`, gains the multiple of the original g_j that makes
    the cosine equal to the target. Then the target moves to the cosine that was found, by a share of
    `beta`. With targets of 0 the weights are PCGrad's. A gradient that is 0 has cosine 0 to all.

    Args:
        gram: (K, K) float64.
        orders: K sequences of environments to visit.
        targets: (K, K) target cosines, not changed; 0 at the start of a training.
        beta: weight of the newest cosine in the targets' moving average.

    Returns: (K,) weights w, the update is sum_k w_k g_k; and the new targets (K, K).
    """
    norms = np.sqrt(np.diag(gram))
    targets = targets.copy()
    weights = np.zeros(len(gram))
    for i, order in enumerate(orders):
        c = np.zeros(len(gram))
        c[i] = 1.0
        for j in order:
            norm = max(float(c @ gram @ c), 0.0) ** 0.5
            defined = norm > _NOTHING * (np.abs(c) @ norms) and norms[j] > 0
            cosine = float(gram[j] @ c / (norm * norms[j])) if defined else 0.0
            if defined and cosine < targets[i, j]:
                c[j] += norm / norms[j] * _correction(cosine, targets[i, j])
            targets[i, j] += beta * (cosine - targets[i, j])
        weights += c
    return weights, targets


def _correction(cosine: float, target: float) -> float:
    """How much of a unit vector to add to another one for their cosine to rise to `target`."""
    low, high = np.clip((cosine, target), _MARGIN - 1, 1 - _MARGIN)
    return float(high * np.sqrt((1 - low**2) / (1 - high**2)) - low)
