"""UPGrad (Quinton and Rey 2024, arXiv 2406.16232)."""

from __future__ import annotations

import numpy as np

from domainbed_gs.surgery.active_sets import has_gradient, mean_weights
from domainbed_gs.surgery.dual_proj import dual_cone_weights


def upgrad_weights(gram: np.ndarray) -> np.ndarray:
    """The mean of K gradients, each projected onto {d : d.g_k >= 0 for all k} first.

    (1/K) sum_i argmin v^T G v with v >= e_i. Exact, without regularisation and at any scale, where the
    authors' code adds 1e-4 I and takes a trace below 1e-4 for 0.

    Args:
        gram: (K, K) float64.

    Returns: (K,) weights, at least 1/K; exactly 1/K if no two gradients conflict, if all are zero, or one
        is not finite.
    """
    if not has_gradient(gram):
        return mean_weights(len(gram))
    weights: np.ndarray = dual_cone_weights(gram, np.eye(len(gram))).sum(axis=0) / len(gram)
    return weights
