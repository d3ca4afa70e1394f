"""Nash-MTL (Navon et al. 2022, arXiv 2202.01017)."""

from __future__ import annotations

import numpy as np

from domainbed_gs.surgery.active_sets import has_gradient, mean_weights, unit_gram
from domainbed_gs.surgery.mgda import mgda_weights

_LEAST = 1e-8  # squared distance of 0 from the hull of unit gradients; weights stay below about 1e4 sqrt(K)
_MAX_STEPS = 100


def nash_mtl_weights(gram: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """The bargaining solution: alpha > 0 with alpha_k (G alpha)_k = 1, hence |d|^2 = K (section 3.2).

    It minimises the strictly convex F(alpha) = alpha^T G alpha / 2 - sum_k log alpha_k, and is found by
    damped Newton steps. There is none where a convex combination of the gradients is 0 (a Pareto
    stationary point): if one of the gradients, divided by their norms, is shorter than 1e-4, the least
    multiple of I that mends this is added to their inner products.

    Args:
        gram: (K, K) float64.
        start: where the steps begin, e.g. the last solution (K,); it changes their number only.

    Returns: (K,) weights; 0 for a gradient that is zero. 1/K if all are zero, or one is not finite.
    """
    if not has_gradient(gram):
        return mean_weights(len(gram))
    unit = unit_gram(gram)
    given = ~unit.zero
    cosines, norms = unit.cosines[np.ix_(given, given)], unit.norms[given]
    nearest = mgda_weights(cosines)
    cosines += max(_LEAST - float(nearest @ cosines @ nearest), 0.0) * np.eye(len(norms))
    # F of beta_k = |g_k| alpha_k is F of alpha up to a constant.
    starts = [np.ones(len(norms))]
    if start is not None and np.isfinite(start[given]).all() and (start[given] > 0).all():
        starts.append(start[given] * norms)
    scaled = [beta * np.sqrt(len(beta) / (beta @ cosines @ beta)) for beta in starts]
    weights = np.zeros(len(gram))
    # All have the same quadratic part now, that of the solution.
    weights[given] = _newton(cosines, max(scaled, key=lambda beta: float(np.log(beta).sum()))) / norms
    return weights


def _newton(cosines: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """The solution of beta_k (C beta)_k = 1, by steps relative to beta that can't leave beta > 0.

    F is self-concordant: a step of length 1 / (1 + decrement) converges from anywhere, full steps
    quadratically from a decrement of 1/4.
    """
    for _ in range(_MAX_STEPS):
        residual = 1 - beta * (cosines @ beta)
        relative = np.linalg.solve(np.eye(len(beta)) + beta[:, None] * cosines * beta, residual)
        decrement = np.sqrt(max(float(relative @ residual), 0.0))
        beta = beta * (1 + relative / (1 + decrement if decrement > 0.25 else 1))
        if decrement < 1e-7:  # squared by the step just made
            break
    return beta
