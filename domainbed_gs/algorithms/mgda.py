"""MGDA (Désidéri 2012; Sener and Koltun 2018)."""

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
from domainbed_gs.algorithms.surgery import GramSurgery


def mgda_weights(gram: np.ndarray) -> np.ndarray:
    """The shortest vector of the convex hull of K gradients: minimise w^T G w over the simplex.

    d = sum_k w_k g_k has d.g_k >= |d|^2 for all k, with equality where w_k > 0. Exact: tries all
    supports for K <= 8, and uses Lawson and Hanson's non-negative least squares for larger K.

    Args:
        gram: (K, K) float64.

    Returns: (K,) weights, at least 0, of sum 1. With some gradients zero they share it all (d = 0). 1/K if
        all are zero, or one is not finite.
    """
    if not has_gradient(gram):
        return mean_weights(len(gram))
    unit = unit_gram(gram)
    if unit.zero.any():
        return np.where(unit.zero, 1 / unit.zero.sum(), 0.0)
    # For x_k = |g_k| w_k, sum_k w_k = 1 reads shares.x = 1 (up to a factor).
    shares = unit.norms.min() / unit.norms
    solver = _enumerated if len(gram) <= MAX_ENUMERATED else _non_negative_least_squares
    x = solver(unit.cosines, shares)
    weights: np.ndarray = shares * x / (shares @ x)
    return weights


def separated(cosines: np.ndarray, tolerance: float) -> np.ndarray:
    """Cosines (K, K), with the least multiple of I added that keeps 0 out of the hull of the unit gradients.

    As if each unit gradient had one more component of its own: then no convex combination is shorter than
    `tolerance`. Weights of combinations of unit length are at most about 1 / tolerance, where those of exact
    solutions grow without bound as gradients become opposite. Nothing is added where none is shorter.
    """
    nearest = mgda_weights(cosines)
    return cosines + max(tolerance**2 - float(nearest @ cosines @ nearest), 0.0) * np.eye(len(cosines))


def _enumerated(cosines: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """argmin x^T C x with x >= 0 and shares.x = 1, by trying all supports."""
    best, least = np.zeros(len(shares)), np.inf
    for support in supports(len(shares)):
        size = len(support)
        # Stationarity and the constraint in one system; regular unless the gradients are affinely dependent.
        system = np.zeros((size + 1, size + 1))
        system[:size, :size] = cosines[np.ix_(support, support)]
        system[:size, size] = system[size, :size] = shares[support]
        solution = solve(system, np.append(np.zeros(size), 1.0))
        if solution is None or not (solution[:size] > 0).any():
            continue
        x = np.zeros(len(shares))
        x[support] = solution[:size].clip(min=0.0)
        x /= shares @ x
        products = cosines @ x
        violation = (shares * (x @ products) - products).max()
        if violation < least:
            best, least = x, violation
    return best


def _non_negative_least_squares(cosines: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The same up to a factor: minimising |R x|^2 + (shares.x - 1)^2 only shortens the solution."""
    from scipy.optimize import nnls

    stacked = np.vstack([square_root(cosines), shares])
    x: np.ndarray = nnls(stacked, np.append(np.zeros(len(shares)), 1.0), maxiter=100 * len(shares))[0]
    return x


@REGISTRY.register()
class MGDA(GramSurgery):
    """MGDA (Desideri 2012; Sener and Koltun 2018): the shortest convex combination.

    Minimises |sum_k w_k g_k| over the simplex, exactly. Every environment's loss falls, unless none can fall
    without another's rising. On the scale of a mean, and shorter than it.
    """

    FACTS = Facts(
        year=2018,
        paper=(
            "Sener and Koltun, Multi-task learning as multi-objective optimization, NeurIPS, arXiv "
            "1810.04650; Desideri 2012"
        ),
        idea="The shortest convex combination of the gradients",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Solved exactly (public code: Frank-Wolfe steps), of the gradients as they are (public code "
            "can normalise them first)."
        ),
    )

    def weights(self, gram: np.ndarray) -> np.ndarray:
        return mgda_weights(gram)
