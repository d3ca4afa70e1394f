"""Nash-MTL (Navon et al. 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed.algorithms import REGISTRY
from domainbed.algorithms.facts import Facts
from domainbed.gradients.gram import NoDirection, norm_of
from domainbed.hparams import Hparam, const
from domainbed_gs.algorithms.active_sets import has_gradient, mean_weights, unit_gram
from domainbed_gs.algorithms.mgda import separated
from domainbed_gs.algorithms.surgery import GramSurgery

_LEAST = 1e-4  # distance of 0 from the hull of unit gradients; weights stay below about 1e4 sqrt(K)
_MAX_STEPS = 100


def nash_mtl_weights(gram: np.ndarray, start: np.ndarray | None = None, tolerance: float = 0.0) -> np.ndarray:
    """The bargaining solution: alpha > 0 with alpha_k (G alpha)_k = 1, hence |d|^2 = K (section 3.2).

    It minimises the strictly convex F(alpha) = alpha^T G alpha / 2 - sum_k log alpha_k, and is found by
    damped Newton steps. There is none where a convex combination of the gradients is 0 (a Pareto
    stationary point): if one of the gradients, divided by their norms, is shorter than 1e-4 or `tolerance`,
    the least multiple of I that mends this is added to their inner products. Then |d|^2 is less than K, and
    falls to 0 as the gradients come to cancel.

    Args:
        gram: (K, K) float64.
        start: where the steps begin, e.g. the last solution (K,); it changes their number only.
        tolerance: see `mgda.separated`.

    Returns: (K,) weights; 0 for a gradient that is zero. 1/K if all are zero, or one is not finite.
    """
    if not has_gradient(gram):
        return mean_weights(len(gram))
    unit = unit_gram(gram)
    given = ~unit.zero
    norms = unit.norms[given]
    cosines = separated(unit.cosines[np.ix_(given, given)], max(tolerance, _LEAST))
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
    """The solution of beta_k (C beta)_k = 1, by steps relative to beta that keep beta > 0.

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


@REGISTRY.register()
class NashMTL(GramSurgery):
    """Nash-MTL (Navon et al. 2022, section 3.2): the bargain that every environment gains from.

    Solves G a = 1 / a exactly, starting from the last update's a. The solution's length is sqrt(K) however
    long the gradients are, so `nash_length` chooses one: "mean" gives it the length of the mean gradient,
    the scale that all methods here have by default; "reference" is what public codes do, sqrt(K |G|)
    with the Frobenius norm, but at most `nash_max_norm`; "solution" leaves it. It is shorter, down to 0,
    where a convex combination of the unit gradients is 0 but for rounding: there nobody can gain.
    """

    FACTS = Facts(
        year=2022,
        paper="Navon et al., Multi-task learning as a bargaining game, ICML, arXiv 2202.01017",
        idea="The bargaining solution: a direction that every environment gains from",
        memory="K + 1",
        cost="Less memory in a joint pass.",
        one_environment="ERM",
        departures=(
            "Solved exactly, by Newton's method (the authors' code: 20 convex programs). The direction "
            "has the length of the mean gradient; `nash_length` reference is theirs."
        ),
    )

    HPARAMS = {
        "nash_length": Hparam(
            "mean",
            const("mean"),
            "of the direction: mean, reference, solution",
            choices=("mean", "reference", "solution"),
        ),
        "nash_max_norm": Hparam(1.0, const(1.0), "largest length with nash_length reference", above=0),
    }
    STATE = ("alpha",)

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.alpha: Tensor | None = None

    def weights(self, gram: np.ndarray) -> np.ndarray:
        if not has_gradient(gram):
            raise NoDirection("Nash-MTL's direction has no length")
        start = None if self.alpha is None else self.alpha.numpy()
        alpha = nash_mtl_weights(gram, start, self.tolerance)
        # Of the solution, also where the gradients cancel but for rounding: that must not be scaled up.
        length = float(np.sqrt(np.count_nonzero(alpha)))
        self.alpha = torch.from_numpy(alpha)
        if self.hparams["nash_length"] == "solution":
            return alpha
        if self.hparams["nash_length"] == "mean":
            wanted = norm_of(gram, np.full(len(gram), 1 / len(gram)))
        else:
            wanted = min(length * float(np.linalg.norm(gram)) ** 0.5, self.hparams["nash_max_norm"])
        return alpha * (wanted / length)
