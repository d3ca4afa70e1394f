"""CAGrad (Liu et al. 2021)."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.hparams import Hparam, const, uniform
from domainbed_gs.algorithms.active_sets import (
    MAX_ENUMERATED,
    has_gradient,
    mean_weights,
    solve,
    supports,
    unit_gram,
)
from domainbed_gs.algorithms.dual_proj import dual_proj_weights
from domainbed_gs.algorithms.mgda import mgda_weights, separated
from domainbed_gs.algorithms.surgery import GramSurgery

_CERTIFIED = 1e-9  # violation of the optimality conditions, for unit gradients
_LONGEST = 1e5  # weights of unit gradients in g_w / |g_w|; beyond, their rounding errors make up a part of it


def cagrad_weights(gram: np.ndarray, c: float, tolerance: float = 0.0) -> np.ndarray:
    """The d at distance c|g_0| of the mean gradient g_0 for which the least d.g_k is greatest.

    d = g_0 + c|g_0| g_w / |g_w|, where w minimises g_w.g_0 + c|g_0||g_w| over the simplex (equation 3 and
    algorithm 1). Exact. For K <= 8 it tries all supports, on each of which the minimiser has a closed form.
    For larger K it is a scalar search over min-norm points. Where g_w = 0 is the minimiser (no d within
    reach lowers all losses, some d raises none) the paper does not define d; it is then the d nearest to
    g_0 that raises none. A positive `tolerance` leads there without a jump.

    Args:
        gram: (K, K) float64.
        c: at least 0; 0 gives g_0, as does a g_0 that is 0 but for rounding.
        tolerance: see `mgda.separated`.

    Returns: (K,) weights of d, which include g_0's 1/K. 1/K if all gradients are zero, or one is not finite.
    """
    mean = mean_weights(len(gram))
    rounding = np.finfo(np.float64).eps
    if not has_gradient(gram) or c <= rounding:
        return mean
    squared = mean @ gram @ mean
    if squared <= rounding * np.trace(gram):
        return mean
    if tolerance > 0:
        unit = unit_gram(gram)
        gram = separated(unit.cosines, tolerance) * np.where(unit.zero, 0.0, np.outer(unit.norms, unit.norms))
    solver = _enumerated if len(gram) <= MAX_ENUMERATED else _searched
    direction = solver(gram, gram @ mean / np.sqrt(mean @ gram @ mean), c)
    if direction is None:
        return dual_proj_weights(gram)
    weights: np.ndarray = mean + c * np.sqrt(squared) * direction
    return weights


def _enumerated(gram: np.ndarray, products: np.ndarray, c: float) -> np.ndarray | None:
    """Weights (K,) of g_w / |g_w|, by trying all supports; None where g_w = 0 is the minimiser.

    `products` (K,) are those of the gradients with g_0 / |g_0|.
    With z_k = |g_k| w_k / |g_w|, b_k = cos(g_k, g_0) and a_k proportional to 1 / |g_k|, the minimiser has
    z^T C z = 1 and b + c C z - nu a = 0 on its support, at least 0 elsewhere, for the nu that makes the
    z-weighted sum 0.
    """
    unit = unit_gram(gram)
    b = products / unit.norms
    a = np.where(unit.zero, 1.0, unit.norms[~unit.zero].min() / unit.norms)
    best, least = None, _CERTIFIED
    for support in supports(len(gram)):
        z = np.zeros(len(gram))
        z[support] = _on_support(unit.cosines[np.ix_(support, support)], a[support], b[support], c)
        length = z @ unit.cosines @ z
        if not length > 0:
            continue
        z /= np.sqrt(length)
        if z.sum() > _LONGEST:
            continue
        nu = (b @ z + c) / (a @ z)
        violation = (nu * a - b - c * unit.cosines @ z).max()
        if violation < least:
            best, least = z / unit.norms, violation
    return best


def _on_support(cosines: np.ndarray, a: np.ndarray, b: np.ndarray, c: float) -> np.ndarray:
    """z >= 0 up to a factor; all 0 where the support has no minimiser.

    c C z = nu a - b, and z^T C z = 1 is quadratic in nu; only its greater root has a.z > 0. Written with
    the part of b orthogonal to a, which does not cancel.
    """
    solutions = solve(cosines, np.stack([a, b], axis=1))
    if solutions is None or not a @ solutions[:, 0] > 0:
        return np.zeros(len(a))
    along = solutions[:, 0]
    rest = solutions[:, 1] - (a @ solutions[:, 1]) / (a @ along) * along
    squared = (c**2 - rest @ cosines @ rest) / (a @ along)
    z: np.ndarray = (np.sqrt(max(squared, 0.0)) * along - rest).clip(min=0.0)
    return z


def _searched(gram: np.ndarray, products: np.ndarray, c: float) -> np.ndarray | None:
    """The same for many environments.

    g_w is also the shortest vector of the hull of all g_k + t g_0 / |g_0|, less the shift, for the t with
    |g_w| = c t; there is one as |g_w| / t falls with t.
    """
    from scipy.optimize import brentq

    def minimiser(t: float) -> tuple[np.ndarray, float]:
        weights = mgda_weights(gram + t * (products[:, None] + products) + t**2)
        return weights, float(np.sqrt(max(weights @ gram @ weights, 0.0)))

    def excess(log_t: float) -> float:
        t = float(np.exp(log_t))
        return minimiser(t)[1] / (c * t) - 1

    norms = np.sqrt(np.diag(gram))
    most = np.log(2 * norms.max() / c)
    least = np.log(norms[norms > 0].min() / _LONGEST / c)
    if excess(least) <= 0:
        return None
    weights, length = minimiser(np.exp(brentq(excess, least, most, xtol=1e-15, maxiter=200)))
    return weights / length


@REGISTRY.register()
class CAGrad(GramSurgery):
    """CAGrad (Liu et al. 2021, equation 3): near the mean gradient, the best for the worst-off environment.

    The d within c |g_0| of the mean gradient g_0 for which the least d.g_k is greatest. On the
    scale of a mean; the authors' code multiplies it by K (`reduction` "sum"). With c = 0 it is
    ERM's gradient over equally large minibatches. The step grows by up to 1 + c, unless
    `cagrad_rescale` divides by that.
    """

    FACTS = Facts(
        year=2021,
        paper=(
            "Liu et al., Conflict-averse gradient descent for multi-task learning, NeurIPS, arXiv 2110.14048"
        ),
        idea="Near the mean gradient, the direction that is best for the worst-off environment",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Solved exactly (the authors' code: SLSQP), and on the scale of a mean (theirs: multiplied by "
            "K, and in part divided by 1 + c^2, `cagrad_rescale`)."
        ),
    )

    HPARAMS = {
        "cagrad_c": Hparam(0.5, uniform(0.1, 0.9), "c, radius around the mean gradient", at_least=0),
        "cagrad_rescale": Hparam(
            "none",
            const("none"),
            "divisor: none, one_plus_c (1 + c), one_plus_c2 (1 + c^2)",
            choices=("none", "one_plus_c", "one_plus_c2"),
        ),
    }

    def weights(self, gram: np.ndarray) -> np.ndarray:
        c = self.hparams["cagrad_c"]
        divisor = {"none": 1.0, "one_plus_c": 1 + c, "one_plus_c2": 1 + c**2}[self.hparams["cagrad_rescale"]]
        w: np.ndarray = cagrad_weights(gram, c, self.tolerance) / divisor
        return w
