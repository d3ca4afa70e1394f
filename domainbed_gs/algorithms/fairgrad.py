"""FairGrad (Ban and Ji 2024, "Fair resource allocation in multi-task learning")."""

from __future__ import annotations

import numpy as np

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.gradients.gram import NoDirection, norm_of
from domainbed.hparams import Hparam, choice, const
from domainbed_gs.algorithms.active_sets import has_gradient, mean_weights, unit_gram
from domainbed_gs.algorithms.mgda import separated
from domainbed_gs.algorithms.surgery import GramSurgery

_LEAST = 1e-4  # distance of 0 from the hull of unit gradients, as in Nash-MTL
_MAX_STEPS = 1000
_MAX_HALVINGS = 60


def fairgrad_weights(gram: np.ndarray, alpha: float, tolerance: float = 0.0) -> tuple[np.ndarray, float]:
    """The alpha-fair direction: w > 0 with (G w)_k = w_k^(-1/alpha), so w_k = (g_k.d)^(-alpha).

    It minimises the strictly convex F(w) = w^T G w / 2 - sum_k phi(w_k), where phi'(w) = w^(-1/alpha), and is
    found by Newton steps on gradients divided by their norms, at every scale to the same precision. There is
    none where a convex combination of the gradients is 0; near such a point their inner products are changed
    as in `nash_mtl_weights`.

    Args:
        gram: (K, K) float64.
        alpha: at least 0.25. 1 is Nash-MTL's solution; large values favour the environments that gain least.
        tolerance: see `mgda.separated`.

    Returns: weights (K,), 0 for a gradient that is zero, and the length |d| of the equation's solution, which
        is the direction's own unless the inner products were changed. (1/K, 0) if all are zero, or one is not
        finite.
    """
    if not has_gradient(gram):
        return mean_weights(len(gram)), 0.0
    unit = unit_gram(gram)
    given = ~unit.zero
    # The greater alpha, the more the solution changes with the gradients near such a point.
    least = max(tolerance, _LEAST) * max(alpha, 1.0)
    cosines = separated(unit.cosines[np.ix_(given, given)], least)
    # For beta_k = |g_k| w_k the equation reads (C beta)_k = r_k beta_k^(-1/alpha). Divided by their greatest
    # norm, gradients have finite r; by its power w gets back the scale of the gradients.
    greatest = unit.norms[given].max()
    r = (unit.norms[given] / greatest) ** (1 / alpha - 1)
    beta = _newton(cosines, r, 1 / alpha)
    length = float(np.sqrt(beta @ cosines @ beta)) * greatest ** ((1 - alpha) / (1 + alpha))
    weights = np.zeros(len(gram))
    weights[given] = beta / unit.norms[given] * greatest ** ((1 - alpha) / (1 + alpha))
    return weights, length


def _newton(cosines: np.ndarray, r: np.ndarray, power: float) -> np.ndarray:
    """The solution beta > 0 of (C beta)_k = r_k beta_k^(-power), by steps relative to beta.

    A step leaves a tenth of each beta at least, and is halved until F still falls at its end, or nearly does.
    """

    def slopes(beta: np.ndarray) -> np.ndarray:
        """-beta_k dF/dbeta_k (K,)."""
        result: np.ndarray = r * beta ** (1 - power) - beta * (cosines @ beta)
        return result

    beta: np.ndarray = r ** (1 / (1 + power))  # each environment alone
    beta = beta * ((r @ beta ** (1 - power)) / (beta @ cosines @ beta)) ** (1 / (1 + power))
    for _ in range(_MAX_STEPS):
        slope = slopes(beta)
        hessian = beta[:, None] * cosines * beta + np.diag(power * r * beta ** (1 - power))
        units = 1 / np.sqrt(np.diag(hessian))
        relative = units * np.linalg.solve(units[:, None] * hessian * units, units * slope)
        descent = float(relative @ slope)
        step = min(1.0, 0.9 / max(-relative.min(), 0.9))
        for _ in range(_MAX_HALVINGS):
            factors = 1 + step * relative
            # Relative to the point reached: F's slope along the step there.
            if float((relative / factors) @ slopes(beta * factors)) >= -0.1 * descent:
                break
            step /= 2
        beta = beta * factors
        if np.abs(relative).max() < 1e-8:  # squared by the step just made
            break
    return beta


@REGISTRY.register()
class FairGrad(GramSurgery):
    """FairGrad (Ban and Ji 2024, section 4): the direction that divides the gains alpha-fairly.

    Maximises sum_k u(g_k.d), with u(x) = x^(1 - alpha) / (1 - alpha), or log x for alpha = 1, over directions
    of bounded length: d = sum_k w_k g_k with w_k = (g_k.d)^(-alpha). For alpha near 0 it is the sum of the
    gradients, for alpha = 1 Nash-MTL's direction, for large alpha MGDA's.

    The length of that d is no measure of the gradients (for alpha = 1 it is sqrt(K)), so `fairgrad_length`
    chooses one: "mean" gives it the length of the mean gradient, the scale that all methods here have by
    default; "reference" is that of the authors' code, K d shortened to at most `fairgrad_max_norm`. It is
    shorter, down to 0, where a convex combination of the unit gradients is 0 but for rounding: there nobody
    can gain.
    """

    FACTS = Facts(
        year=2024,
        paper="Ban and Ji, Fair resource allocation in multi-task learning, ICML, arXiv 2402.15638",
        idea="The direction that divides the gains alpha-fairly among environments",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Solved at any scale by Newton's method (the authors' code: SciPy, whose tolerances end early "
            "for small gradients). The direction has the length of the mean gradient; `fairgrad_length` "
            "reference is theirs."
        ),
    )

    HPARAMS = {
        "fairgrad_alpha": Hparam(
            2.0, choice(0.5, 1.0, 2.0, 5.0), "alpha, 1 for the Nash bargain, large for MGDA", at_least=0.25
        ),
        "fairgrad_length": Hparam(
            "mean",
            const("mean"),
            "of the direction: mean or reference",
            choices=("mean", "reference"),
        ),
        "fairgrad_max_norm": Hparam(
            1.0, const(1.0), "largest length with fairgrad_length reference", above=0
        ),
    }

    def weights(self, gram: np.ndarray) -> np.ndarray:
        if not has_gradient(gram):
            raise NoDirection("FairGrad's direction has no length")
        weights, length = fairgrad_weights(gram, self.hparams["fairgrad_alpha"], self.tolerance)
        if self.hparams["fairgrad_length"] == "mean":
            wanted = norm_of(gram, mean_weights(len(gram)))
        else:
            wanted = min(len(gram) * length, self.hparams["fairgrad_max_norm"])
        return weights * (wanted / length)
