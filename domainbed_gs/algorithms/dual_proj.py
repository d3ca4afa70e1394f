"""DualProj (GEM, Lopez-Paz and Ranzato 2017), and the projection that UPGrad shares."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed_gs.algorithms.active_sets import (
    MAX_ENUMERATED,
    has_gradient,
    mean_weights,
    solve,
    square_root,
    supports,
    unit_gram,
)
from domainbed_gs.algorithms.mgda import separated
from domainbed_gs.algorithms.surgery import GramSurgery


def dual_cone_weights(gram: np.ndarray, targets: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """Project n combinations of K gradients onto their dual cone {d : d.g_k >= 0 for all k}.

    Exact: tries all supports for K <= 8, and uses Lawson and Hanson's non-negative least squares beyond.

    Args:
        gram: (K, K) float64, finite.
        targets: weights (n, K) float64 of the n combinations.
        tolerance: see `mgda.separated`; opposite gradients are projected as if they were no closer to it.

    Returns: (n, K) weights v of the projections: argmin v^T G v with v >= the target.
    """
    unit = unit_gram(gram)
    cosines = separated(unit.cosines, tolerance) if tolerance > 0 else unit.cosines
    scaled = targets * unit.norms
    solver = _enumerated if len(gram) <= MAX_ENUMERATED else _non_negative_least_squares
    # Added to the target, not divided out of the sum: where nothing is added, it stays as it is to the bit.
    weights: np.ndarray = targets + solver(cosines, scaled) / unit.norms
    return weights


def _enumerated(cosines: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """For each target u the m >= 0 with C(u + m) >= 0 and m.C(u + m) = 0, by trying all supports."""
    products = targets @ cosines
    best = np.zeros_like(targets)
    least = _violation(best, products)
    for support in supports(len(cosines)):
        solution = solve(cosines[np.ix_(support, support)], -products[:, support].T)
        if solution is None:
            continue
        added = np.zeros_like(targets)
        added[:, support] = solution.T.clip(min=0.0)
        violation = _violation(added, products + added @ cosines)
        better = violation < least
        best[better], least[better] = added[better], violation[better]
    return best


def _violation(added: np.ndarray, products: np.ndarray) -> np.ndarray:
    """How far (n,) from: both at least 0, and one of them 0."""
    distance: np.ndarray = np.abs(np.minimum(added, products)).max(axis=1)
    return distance


def _non_negative_least_squares(cosines: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The same as least squares: minimise |R (u + m)| over m >= 0."""
    from scipy.optimize import nnls

    root = square_root(cosines)
    return np.stack([nnls(root, -root @ target, maxiter=100 * len(root))[0] for target in targets])


def dual_proj_weights(gram: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """The mean gradient projected onto {d : d.g_k >= 0 for all k}: argmin v^T G v with v >= 1/K.

    Args:
        gram: (K, K) float64.
        tolerance: see `dual_cone_weights`.

    Returns: (K,) weights, at least 1/K; exactly 1/K if the mean conflicts with no gradient, if all are
        zero, or one is not finite.
    """
    if not has_gradient(gram):
        return mean_weights(len(gram))
    weights: np.ndarray = dual_cone_weights(gram, mean_weights(len(gram))[None], tolerance)[0]
    return weights


@REGISTRY.register()
class DualProj(GramSurgery):
    """DualProj, the rule of GEM (Lopez-Paz and Ranzato 2017): the mean gradient moved to conflict with none.

    As little as it takes: it is projected onto {d : d.g_k >= 0 for all k}. Solved exactly.
    """

    FACTS = Facts(
        year=2017,
        paper=(
            "Lopez-Paz and Ranzato, Gradient episodic memory for continual learning, NeurIPS, arXiv "
            "1706.08840"
        ),
        idea="The mean gradient, moved to conflict with none",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "The constraints are the source environments (in the paper: earlier tasks). Solved exactly."
        ),
    )

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return dual_proj_weights(gram, self.tolerance)
